//! The tables of an image set: where the blocks of the compact copy come from, and where the source itself keeps them.
//!
//! [`Correspondence`] is the block correspondence table: it maps compact addresses X, which count the blocks on the tape from
//! 0 without gaps, to original addresses A of the disk. [`Allocation`] is the source's own table A → place in its store. Neither
//! is needed to read the other. Not here: which blocks are in use, which the map decides.
//!
//! Text: own format. Numbers big-endian, blocks of the source.

use protocol::units::Lba;
use protocol::wire::{Problem, U64, WireError};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{LayoutError, Section, SectionKind};

const CORRESPONDENCE: &str = "block correspondence table";
const ALLOCATION: &str = "source allocation table";

/// Blocks that lie together on the tape and on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Compact address of the first.
    pub x: u64,
    /// Original address of the first.
    pub a: Lba,
    /// Blocks.
    pub blocks: u64,
}

/// X → A for every block of the compact copy. Both addresses ascend, so it is also A → X.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Correspondence {
    runs: Vec<Run>,
}

impl Correspondence {
    /// Numbers the used extents (first block, blocks). They must ascend; those that touch become one.
    ///
    /// # Errors
    /// [`LayoutError::Contradiction`] for an extent that is empty, overlaps the one before it or goes beyond 64 bits.
    pub fn of(extents: impl IntoIterator<Item = (Lba, u64)>) -> Result<Self, LayoutError> {
        let mut runs: Vec<Run> = Vec::new();
        for (a, blocks) in extents {
            let x = runs.last().map_or(0, |last| last.x + last.blocks);
            let free_from = runs.last().map_or(0, |last| last.a.0 + last.blocks);
            if blocks == 0 || a.0 < free_from || a.0.checked_add(blocks).is_none() {
                return Err(LayoutError::contradiction(
                    CORRESPONDENCE,
                    format!("{blocks} blocks at {a} do not follow block {free_from}"),
                ));
            }
            match runs.last_mut() {
                Some(last) if a.0 == free_from => last.blocks += blocks,
                _ => runs.push(Run { x, a, blocks }),
            }
        }
        Ok(Self { runs })
    }

    /// In ascending order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Blocks of the compact copy.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.runs.last().map_or(0, |last| last.x + last.blocks)
    }

    /// Block behind the last one on the disk.
    #[must_use]
    pub fn end(&self) -> Lba {
        self.runs.last().map_or(Lba(0), |last| Lba(last.a.0 + last.blocks))
    }

    /// Compact address of a block of the disk; `None` when the set does not hold it.
    #[must_use]
    pub fn x_of(&self, a: Lba) -> Option<u64> {
        let run = self.runs[..self.runs.partition_point(|run| run.a <= a)].last()?;
        (a.0 - run.a.0 < run.blocks).then(|| run.x + (a.0 - run.a.0))
    }

    /// Address on the disk of a block of the compact copy.
    #[must_use]
    pub fn a_of(&self, x: u64) -> Option<Lba> {
        let run = self.runs[..self.runs.partition_point(|run| run.x <= x)].last()?;
        (x - run.x < run.blocks).then(|| Lba(run.a.0 + (x - run.x)))
    }

    /// The parts of `blocks` blocks of the disk from `from` on that the set holds, as runs; what is missing is left out.
    pub fn within(&self, from: Lba, blocks: u64) -> impl Iterator<Item = Run> + '_ {
        let end = from.0.saturating_add(blocks);
        let first = self.runs.partition_point(|run| run.a.0 + run.blocks <= from.0);
        self.runs[first..].iter().take_while(move |run| run.a.0 < end).map(move |run| {
            let a = run.a.0.max(from.0);
            let until = (run.a.0 + run.blocks).min(end);
            Run { x: run.x + (a - run.a.0), a: Lba(a), blocks: until - a }
        })
    }

    /// Appends the section to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let entries: Vec<Entry> =
            self.runs.iter().map(|run| Entry { key: run.x.into(), value: run.a.0.into(), blocks: run.blocks.into() }).collect();
        // The head's count is 32 bits for people; the body's length is what a reader goes by.
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        Section { kind: SectionKind::Correspondence, entries: count, body: entries.as_bytes() }.write(out);
    }

    /// Reads the section's body.
    ///
    /// # Errors
    /// [`LayoutError::Wire`] for a body that is no whole number of entries, [`LayoutError::Contradiction`] when X has a gap or A does not ascend.
    pub fn parse(body: &[u8]) -> Result<Self, LayoutError> {
        let entries = entries(body, CORRESPONDENCE)?;
        let table = Self::of(entries.iter().map(|entry| (Lba(entry.value.get()), entry.blocks.get())))?;
        let agrees =
            table.runs.len() == entries.len() && table.runs.iter().zip(entries).all(|(run, entry)| run.x == entry.key.get());
        if !agrees {
            return Err(LayoutError::contradiction(CORRESPONDENCE, "the compact addresses have a gap"));
        }
        Ok(table)
    }
}

/// The source's own allocation: for each allocated stretch of the disk, its place in the store behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allocation {
    /// Bytes of the store; 0 where the source does not tell.
    pub store_bytes: u64,
    /// First block, byte in the store, blocks; ascending.
    pub runs: Vec<(Lba, u64, u64)>,
}

impl Allocation {
    /// Appends the section to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let head = Entry { key: u64::MAX.into(), value: self.store_bytes.into(), blocks: 0.into() };
        let rows = self.runs.iter().map(|(a, place, blocks)| Entry {
            key: a.0.into(),
            value: (*place).into(),
            blocks: (*blocks).into(),
        });
        let entries: Vec<Entry> = std::iter::once(head).chain(rows).collect();
        let count = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        Section { kind: SectionKind::Allocation, entries: count, body: entries.as_bytes() }.write(out);
    }

    /// Reads the section's body.
    ///
    /// # Errors
    /// [`LayoutError::Wire`] for a body that is no whole number of entries, [`LayoutError::Contradiction`] when the addresses do not ascend.
    pub fn parse(body: &[u8]) -> Result<Self, LayoutError> {
        let Some((head, rows)) = entries(body, ALLOCATION)?.split_first() else {
            return Err(LayoutError::Missing(ALLOCATION));
        };
        let runs: Vec<_> = rows.iter().map(|row| (Lba(row.key.get()), row.value.get(), row.blocks.get())).collect();
        let ascend = runs.windows(2).all(|pair| pair[0].0.0.checked_add(pair[0].2).is_some_and(|end| end <= pair[1].0.0));
        if !ascend {
            return Err(LayoutError::contradiction(ALLOCATION, "the addresses do not ascend"));
        }
        Ok(Self { store_bytes: head.value.get(), runs })
    }
}

/// A row of either table. In the allocation table the first row carries the capacity of the store.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    key: U64,
    value: U64,
    blocks: U64,
}
const _: () = assert!(size_of::<Entry>() == 24);

fn entries<'a>(body: &'a [u8], structure: &'static str) -> Result<&'a [Entry], LayoutError> {
    <[Entry]>::ref_from_bytes(body).map_err(|_| {
        let whole = body.len() - body.len() % size_of::<Entry>();
        let problem = Problem::Truncated { needed: whole + size_of::<Entry>(), available: body.len() };
        WireError::new(structure, whole, problem).into()
    })
}

#[cfg(test)]
mod tests {
    use super::super::section::{only, sections};
    use super::*;
    use proptest::prelude::*;

    fn extents() -> impl Strategy<Value = Vec<(Lba, u64)>> {
        prop::collection::vec((0u64..50, 1u64..40), 0..60).prop_map(|steps| {
            let mut at = 0;
            steps
                .into_iter()
                .map(|(gap, blocks)| {
                    let from = at + gap;
                    at = from + blocks;
                    (Lba(from), blocks)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn the_table_is_a_bijection_between_the_used_blocks_and_x(extents in extents()) {
            let table = Correspondence::of(extents.clone()).unwrap();
            let used: Vec<u64> = extents.iter().flat_map(|(from, blocks)| from.0..from.0 + blocks).collect();
            prop_assert_eq!(table.blocks(), used.len() as u64);
            for (x, a) in used.iter().enumerate() {
                prop_assert_eq!(table.a_of(x as u64), Some(Lba(*a)));
                prop_assert_eq!(table.x_of(Lba(*a)), Some(x as u64));
            }
            for a in 0..table.end().0 + 3 {
                prop_assert_eq!(table.x_of(Lba(a)).is_some(), used.binary_search(&a).is_ok());
            }
            prop_assert_eq!(table.a_of(table.blocks()), None);
        }

        #[test]
        fn within_gives_each_held_block_of_a_range_once(extents in extents(), from in 0u64..500, blocks in 0u64..500) {
            let table = Correspondence::of(extents).unwrap();
            let given: Vec<(u64, u64)> = table.within(Lba(from), blocks).flat_map(|run| (0..run.blocks).map(move |n| (run.a.0 + n, run.x + n))).collect();
            let expected: Vec<(u64, u64)> = (from..from + blocks).filter_map(|a| table.x_of(Lba(a)).map(|x| (a, x))).collect();
            prop_assert_eq!(given, expected);
        }

        #[test]
        fn a_table_comes_back_from_its_section(extents in extents(), store_bytes in any::<u64>()) {
            let table = Correspondence::of(extents.clone()).unwrap();
            let allocation = Allocation { store_bytes, runs: extents.into_iter().map(|(a, blocks)| (a, a.0 * 512, blocks)).collect() };
            let mut file = Vec::new();
            table.write(&mut file);
            allocation.write(&mut file);
            let sections = sections(&file).unwrap();
            prop_assert_eq!(Correspondence::parse(only(&sections, SectionKind::Correspondence, "x").unwrap().body), Ok(table));
            prop_assert_eq!(Allocation::parse(only(&sections, SectionKind::Allocation, "a").unwrap().body), Ok(allocation));
        }

        #[test]
        fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..240)) {
            let _ = Correspondence::parse(&body);
            let _ = Allocation::parse(&body);
        }
    }

    #[test]
    fn extents_that_touch_become_one_run() {
        let table = Correspondence::of([(Lba(5), 2), (Lba(7), 3), (Lba(20), 1)]).unwrap();
        assert_eq!(table.runs(), [Run { x: 0, a: Lba(5), blocks: 5 }, Run { x: 5, a: Lba(20), blocks: 1 }]);
    }

    #[test]
    fn extents_that_overlap_or_are_empty_are_refused() {
        assert!(Correspondence::of([(Lba(5), 2), (Lba(6), 1)]).is_err());
        assert!(Correspondence::of([(Lba(5), 0)]).is_err());
        assert!(Correspondence::of([(Lba(u64::MAX), 1)]).is_err());
    }
}
