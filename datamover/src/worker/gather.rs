//! Small extents of disks, read together for the segments that come next: the files of a volume, as a backup names them.
//!
//! Many small extents lie densely in one buffer of the pool, neighbours are one read, and segments find their bytes there. Says which
//! extents are read together, and shares the reading between two threads; opens nothing. What a segment reads in the end, and in which
//! order segments fail, stays as the list says: an extent that cannot be read ahead is left to its segment, and one that is not asked
//! for is dropped.
//!
//! SPC-4 lets a copy manager read ahead from block devices, "EXTENDED COPY command processing".

use std::collections::VecDeque;
use std::ops::Range;
use std::thread;

use bytes::Bytes;
use protocol::mover::{Action, Destination, EndIndex, Move, Source, Step};

use super::buffers::BUFFER;

/// Longer extents are read alone.
const SMALL: u64 = 64 << 10;
/// Fewer bytes are not read together: residue of gathered extents keeps their buffers, which is only bearable where these are full.
const WORTH: u64 = BUFFER as u64 / 2;
/// As many extents take so long to read that it is worth to begin a thread.
const SHARED_FROM: usize = 64;

/// Bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The disk.
    pub end: EndIndex,
    /// First byte.
    pub at: u64,
    /// Bytes.
    pub len: u64,
}

impl Extent {
    /// Worth to be read together with others.
    #[must_use]
    pub const fn is_small(&self) -> bool {
        self.len > 0 && self.len <= SMALL
    }
}

/// What was read ahead, in the order in which it is wanted.
#[derive(Debug, Default)]
pub struct Gathered {
    extents: VecDeque<Extent>,
    bytes: Bytes,
    /// Byte at which the first of the extents lies.
    at: usize,
}

impl Gathered {
    /// What was read for this extent, as a part of a buffer; drops all where something else is wanted first.
    pub fn take(&mut self, wanted: Extent) -> Option<(Bytes, Range<usize>)> {
        if self.extents.pop_front() != Some(wanted) {
            *self = Self::default();
            return None;
        }
        let range = self.at..self.at + wanted.len as usize;
        self.at = range.end;
        // The last part takes the buffer along: it is not kept for nothing.
        let bytes = if self.extents.is_empty() { std::mem::take(&mut self.bytes) } else { self.bytes.clone() };
        Some((bytes, range))
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// The extents lie in `bytes` one behind the other; of the last ones there may be nothing.
    pub fn fill(&mut self, extents: &[Extent], bytes: Bytes) {
        let mut there = bytes.len() as u64;
        let whole = extents.iter().take_while(|extent| {
            let fits = extent.len <= there;
            there -= extent.len.min(there);
            fits
        });
        *self = Self { extents: whole.copied().collect(), bytes, at: 0 };
    }
}

/// The extents to be read together with `first`, which the segment before `following` begins with; none where they are too few.
/// `may_read` says whether an extent may be read before the segments in front of it are done.
pub fn plan(first: Extent, following: &[Step], may_read: impl Fn(&Extent) -> bool) -> Vec<Extent> {
    let mut extents = vec![first];
    let mut bytes = first.len;
    for step in following {
        // Whatever does anything but fill a tape may change what a later segment is to read.
        let Action::Move(Move { from, to: Destination::Stream { .. }, hold: false, .. }) = step.action else { break };
        let extent = match from {
            Source::Bytes { end, at, len } => Extent { end, at, len },
            Source::Inline { .. } => continue,
            Source::Blocks { .. } | Source::Stream { .. } => break,
        };
        if !extent.is_small() || bytes + extent.len > BUFFER as u64 || !may_read(&extent) {
            break;
        }
        bytes += extent.len;
        extents.push(extent);
    }
    if bytes >= WORTH { extents } else { Vec::new() }
}

/// Reads extents into `into`, one behind the other. Gives the bytes that were read before the first that could not be.
///
/// Each waits for memory that no cache of the processor has, so two threads read almost twice as much.
pub fn read(extents: &[Extent], into: &mut [u8], fill: impl Fn(&Extent, &mut [u8]) -> bool + Sync) -> usize {
    if extents.len() < SHARED_FROM {
        return read_alone(extents, into, &fill);
    }
    let (first, second) = extents.split_at(extents.len() / 2);
    let middle = first.iter().map(|extent| extent.len as usize).sum();
    let (into_first, into_second) = into.split_at_mut(middle);
    let (one, other) = thread::scope(|scope| {
        let other = thread::Builder::new().name("read".into()).spawn_scoped(scope, || read_alone(second, into_second, &fill));
        let one = read_alone(first, into_first, &fill);
        // Without another thread only the first half is there, as if the second could not be read.
        (one, other.map_or(0, |other| other.join().expect("reading does not panic")))
    });
    if one == middle { one + other } else { one }
}

fn read_alone(extents: &[Extent], into: &mut [u8], fill: &impl Fn(&Extent, &mut [u8]) -> bool) -> usize {
    let mut filled = 0;
    for run in runs(extents) {
        let end = filled + run.len as usize;
        if !fill(&run, &mut into[filled..end]) {
            break;
        }
        filled = end;
    }
    filled
}

/// Extents that follow one on the other, as one: how they are read.
fn runs(extents: &[Extent]) -> impl Iterator<Item = Extent> + '_ {
    extents.chunk_by(|one, next| one.end == next.end && one.at + one.len == next.at).map(|run| {
        let len = run.iter().map(|extent| extent.len).sum();
        Extent { len, ..run[0] }
    })
}

#[cfg(test)]
mod tests {
    use protocol::mover::Transfer;

    use super::*;

    const TO: Destination =
        Destination::Stream { end: EndIndex(1), transfer: Transfer { record: 1 << 18, records: 1, fixed: false } };

    fn step(from: Source, to: Destination) -> Step {
        let (process, output, source_pad, destination_pad, hold) = (None, None, false, false, false);
        Step {
            segment: 0,
            cat: true,
            action: Action::Move(Move { from, to, process, output, source_pad, destination_pad, hold }),
        }
    }

    fn extent(at: u64, len: u64) -> Extent {
        Extent { end: EndIndex(0), at, len }
    }

    fn bytes(at: u64, len: u64) -> Step {
        step(Source::Bytes { end: EndIndex(0), at, len }, TO)
    }

    #[test]
    fn as_many_as_one_buffer_holds_are_gathered_over_inline_data() {
        let mut steps: Vec<_> = (1..100).map(|n| bytes(n << 20, SMALL)).collect();
        steps.insert(3, step(Source::Inline { offset: 0, len: 512 }, TO));
        let planned = plan(extent(0, SMALL), &steps, |_| true);
        assert_eq!(planned.len() as u64, BUFFER as u64 / SMALL);
        assert!(plan(extent(0, SMALL), &steps[..2], |_| true).is_empty(), "a buffer that is nearly empty is not worth it");
        assert!(plan(extent(0, SMALL), &steps, |extent| extent.at < 5 << 20).is_empty());
    }

    #[test]
    fn nothing_is_gathered_behind_a_segment_that_may_change_a_disk_or_that_reads_something_long() {
        let small = || (1..100).map(|n| bytes(n << 20, SMALL));
        for stop in [
            step(Source::Bytes { end: EndIndex(0), at: 0, len: 512 }, Destination::Bytes { end: EndIndex(2), at: 0 }),
            Step { segment: 0, cat: false, action: Action::Ask },
            bytes(0, SMALL + 1),
        ] {
            let steps: Vec<_> = small().take(10).chain([stop]).chain(small()).collect();
            assert_eq!(plan(extent(0, SMALL), &steps, |_| true).len(), 11);
        }
    }

    #[test]
    fn neighbours_are_one_read_and_what_is_not_wanted_is_dropped() {
        let extents = [extent(0, 2), extent(2, 1), extent(9, 1), extent(8, 1)];
        assert_eq!(runs(&extents).collect::<Vec<_>>(), [extent(0, 3), extent(9, 1), extent(8, 1)]);
        let mut gathered = Gathered::default();
        gathered.fill(&extents, Bytes::from_static(b"abcd"));
        let taken = |gathered: &mut Gathered, extent| gathered.take(extent).map(|(bytes, range)| bytes.slice(range));
        assert_eq!(taken(&mut gathered, extents[0]).as_deref(), Some(&b"ab"[..]));
        assert_eq!(gathered.take(extent(2, 2)), None);
        assert!(gathered.is_empty());
        gathered.fill(&extents, Bytes::from_static(b"ab"));
        assert_eq!(taken(&mut gathered, extents[0]).as_deref(), Some(&b"ab"[..]));
        assert_eq!(gathered.take(extents[1]), None);
    }

    #[test]
    fn what_two_threads_read_ends_at_the_first_extent_that_cannot_be_read() {
        let extents: Vec<_> = (0..SHARED_FROM as u64).map(|n| extent(n * 10, 2)).collect();
        for unreadable in [None, Some(0), Some(3), Some(SHARED_FROM as u64 / 2), Some(SHARED_FROM as u64 - 1)] {
            let mut into = vec![0; 2 * SHARED_FROM];
            let fill = |run: &Extent, into: &mut [u8]| {
                into.fill(run.at as u8);
                Some(run.at) != unreadable.map(|n| n * 10)
            };
            let filled = read(&extents, &mut into, fill);
            assert_eq!(filled as u64, 2 * unreadable.unwrap_or(SHARED_FROM as u64));
            assert!(into[..filled].chunks(2).zip(&extents).all(|(is, extent)| is == [extent.at as u8; 2]));
        }
    }
}
