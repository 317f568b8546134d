//! A set of bytes as sorted stretches: what is used on a LUN, what a file occupies, what goes on tape.
//!
//! It has no owners and no order but the ascending one; who holds which extent is in [`super::catalog`].

use protocol::units::ByteRange;
use serde::{Deserialize, Serialize};

/// Bytes of a LUN, kept as ascending stretches that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<ByteRange>", into = "Vec<ByteRange>")]
pub struct Extents {
    runs: Vec<ByteRange>,
}

impl Extents {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { runs: Vec::new() }
    }

    /// The stretches, ascending, never empty, never touching.
    #[must_use]
    pub fn runs(&self) -> &[ByteRange] {
        &self.runs
    }

    /// Total length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.len).sum()
    }

    /// True when no byte is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds a stretch that starts at or behind the start of the last one: the cheap way to build a set in order.
    ///
    /// A stretch that starts earlier is put in its place all the same, at the price of a sort.
    pub fn push(&mut self, range: ByteRange) {
        if range.len == 0 {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if range.start < last.start => {
                self.runs.push(range);
                *self = std::mem::take(&mut self.runs).into();
            }
            Some(last) if range.start <= last.end() => last.len = last.len.max(range.end() - last.start),
            _ => self.runs.push(range),
        }
    }

    /// What is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let (mut a, mut b) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        let mut all = Self { runs: Vec::with_capacity(self.runs.len().max(other.runs.len())) };
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if x.start <= y.start => a.next(),
                (_, Some(_)) => b.next(),
                (Some(_), None) => a.next(),
                (None, None) => return all,
            };
            if let Some(run) = next {
                all.push(*run);
            }
        }
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut i, mut j) = (0, 0);
        let mut both = Self::new();
        while let (Some(a), Some(b)) = (self.runs.get(i), other.runs.get(j)) {
            if let Some(common) = a.intersection(*b) {
                both.push(common);
            }
            if a.end() <= b.end() { i += 1 } else { j += 1 }
        }
        both
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut left = Self::new();
        let mut cuts = other.runs.as_slice();
        for run in &self.runs {
            let mut at = run.start;
            while let Some((cut, rest)) = cuts.split_first() {
                if cut.start >= run.end() {
                    break;
                }
                if cut.start > at {
                    left.push(ByteRange { start: at, len: cut.start - at });
                }
                at = at.max(cut.end());
                if cut.end() > run.end() {
                    break;
                }
                cuts = rest;
            }
            if at < run.end() {
                left.push(ByteRange { start: at, len: run.end() - at });
            }
        }
        left
    }

    /// True when every byte of `range` is in the set.
    #[must_use]
    pub fn covers(&self, range: ByteRange) -> bool {
        let after = self.runs.partition_point(|run| run.start <= range.start);
        range.len == 0 || after.checked_sub(1).is_some_and(|last| self.runs[last].end() >= range.end())
    }

    /// Every stretch widened to whole blocks of `block_length` bytes, cut at `size`: the reader of a LUN gets whole blocks only.
    #[must_use]
    pub fn rounded_out(&self, block_length: u64, size: u64) -> Self {
        let block = block_length.max(1);
        let mut rounded = Self { runs: Vec::with_capacity(self.runs.len()) };
        for run in &self.runs {
            let start = run.start / block * block;
            let end = run.end().div_ceil(block).saturating_mul(block).min(size);
            if start < end {
                rounded.push(ByteRange { start, len: end - start });
            }
        }
        rounded
    }

    /// Fills every gap shorter than `gap` bytes. The set only grows; the number of stretches falls.
    pub fn close_gaps(&mut self, gap: u64) {
        let mut closed = Self::new();
        for run in &self.runs {
            match closed.runs.last_mut() {
                Some(last) if run.start - last.end() < gap => last.len = run.end() - last.start,
                _ => closed.runs.push(*run),
            }
        }
        *self = closed;
    }
}

impl From<ByteRange> for Extents {
    fn from(range: ByteRange) -> Self {
        Self { runs: if range.len == 0 { Vec::new() } else { vec![range] } }
    }
}

/// A range whose end does not fit 64 bits is cut there, so that no later sum overflows.
impl From<Vec<ByteRange>> for Extents {
    fn from(mut ranges: Vec<ByteRange>) -> Self {
        ranges.sort_unstable();
        let mut set = Self { runs: Vec::with_capacity(ranges.len()) };
        for range in ranges {
            set.push(ByteRange { start: range.start, len: range.len.min(u64::MAX - range.start) });
        }
        set.runs.shrink_to_fit();
        set
    }
}

impl From<Extents> for Vec<ByteRange> {
    fn from(extents: Extents) -> Self {
        extents.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(set: &Extents) -> Vec<bool> {
        let mut bytes = vec![false; 300];
        for run in set.runs() {
            bytes[run.start as usize..run.end() as usize].fill(true);
        }
        bytes
    }

    fn sets() -> impl Strategy<Value = Extents> {
        prop::collection::vec((0u64..200, 0u64..40), 0..12)
            .prop_map(|runs| runs.into_iter().map(|(start, len)| ByteRange { start, len }).collect::<Vec<_>>().into())
    }

    proptest! {
        #[test]
        fn set_operations_agree_with_a_bit_per_byte(a in sets(), b in sets(), block in 1u64..20) {
            let (x, y) = (model(&a), model(&b));
            let zip = |f: fn(bool, bool) -> bool| x.iter().zip(&y).map(|(x, y)| f(*x, *y)).collect::<Vec<_>>();
            prop_assert_eq!(model(&a.union(&b)), zip(|x, y| x || y));
            prop_assert_eq!(model(&a.intersect(&b)), zip(|x, y| x && y));
            prop_assert_eq!(model(&a.subtract(&b)), zip(|x, y| x && !y));
            prop_assert_eq!(a.bytes(), x.iter().filter(|used| **used).count() as u64);
            for set in [a.union(&b), a.intersect(&b), a.subtract(&b), a.rounded_out(block, 260)] {
                prop_assert!(set.runs().windows(2).all(|pair| pair[0].end() < pair[1].start));
                prop_assert!(set.runs().iter().all(|run| run.len > 0));
            }
            let rounded = a.rounded_out(block, 260);
            prop_assert!(a.runs().iter().all(|run| rounded.covers(*run)));
            let mut closed = a.clone();
            closed.close_gaps(block);
            prop_assert_eq!(a.subtract(&closed), Extents::new());
        }

        #[test]
        fn ranges_up_to_the_last_byte_never_overflow(ranges in prop::collection::vec((any::<u64>(), any::<u64>()), 0..8)) {
            let set = Extents::from(ranges.into_iter().map(|(start, len)| ByteRange { start, len }).collect::<Vec<_>>());
            prop_assert!(set.runs().iter().all(|run| run.start.checked_add(run.len).is_some()));
        }
    }

    #[test]
    fn a_stretch_is_covered_only_in_one_piece() {
        let set = Extents::from(vec![ByteRange { start: 10, len: 10 }, ByteRange { start: 30, len: 5 }]);
        assert!(set.covers(ByteRange { start: 12, len: 8 }));
        assert!(!set.covers(ByteRange { start: 12, len: 9 }));
        assert!(!set.covers(ByteRange { start: 9, len: 2 }));
        assert!(set.covers(ByteRange { start: 99, len: 0 }));
    }
}
