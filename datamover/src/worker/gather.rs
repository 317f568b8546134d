//! Small extents of disks, read together for the segments that come next: the files of a volume, as a backup names them.
//!
//! Many small extents lie densely in one buffer of the pool, neighbours are one read, and segments find their bytes there. Says which
//! extents are read together, some buffers ahead, each by a thread of its own; opens nothing. What a segment reads in the end, and in
//! which order segments fail, stays as the list says: an extent that cannot be read ahead is left to its segment, and one that is not
//! asked for is dropped.
//!
//! SPC-4 lets a copy manager read ahead from block devices, "EXTENDED COPY command processing".

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use protocol::mover::{Action, Destination, EndIndex, Move, Source, Step};

use super::buffers::{BUFFER, Buffer};

/// Longer extents are read alone.
const SMALL: u64 = 64 << 10;
/// Fewer bytes are not read together: residue of gathered extents keeps their buffers, which is only bearable where these are full.
const WORTH: u64 = BUFFER as u64 / 2;
/// Buffers that are read ahead at once. Each read waits for memory that no cache of the processor has, so two threads read almost
/// twice as much.
const WINDOW: usize = 2;

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

/// What is read ahead of the segments of a job, in the order in which they want it.
pub struct Ahead<'a> {
    gathered: Gathered,
    ordered: VecDeque<Receiver<Gathered>>,
    /// The steps behind those for which something is ordered.
    unplanned: &'a [Step],
    /// Begins a thread that carries an order out. One for each, since a new thread is put on the processor that has the least to do,
    /// while one that is woken stays where it was: there it would wait for the thread that it is to help.
    begin: &'a dyn Fn(Order),
}

impl<'a> Ahead<'a> {
    /// Has ordered nothing yet.
    #[must_use]
    pub fn new(begin: &'a dyn Fn(Order)) -> Self {
        Self { gathered: Gathered::default(), ordered: VecDeque::new(), unplanned: &[], begin }
    }

    /// Whether it is time to order something: as often as a buffer is used up.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        self.gathered.extents.is_empty()
    }

    /// What is to be ordered next, when `wanted` is what is wanted now, by the segment before `following`; `None` where nothing is
    /// worth it, or where enough is ordered.
    pub fn plan(&self, wanted: Extent, following: &'a [Step], may_read: impl Fn(&Extent) -> bool) -> Option<Planned<'a>> {
        match self.ordered.len() {
            0 => plan(Some(wanted), following, may_read),
            WINDOW => None,
            _ => plan(None, self.unplanned, may_read),
        }
    }

    /// Nothing is ordered: what is wanted now has to be waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// Orders what was planned last.
    pub fn order(&mut self, planned: Planned<'a>, into: Buffer) {
        let Planned { extents, behind } = planned;
        let (done, wait) = sync_channel(1);
        (self.begin)(Order { extents, into, done });
        self.ordered.push_back(wait);
        self.unplanned = behind;
    }

    /// What was read for this extent, as a part of a buffer; drops all where something else comes next.
    pub fn take(&mut self, wanted: Extent) -> Option<(Bytes, Range<usize>)> {
        if self.is_used_up() {
            // A thread that could not be begun has read nothing.
            self.gathered = self.ordered.pop_front()?.recv().unwrap_or_default();
        }
        let taken = self.gathered.take(wanted);
        if taken.is_none() {
            self.forget();
        }
        taken
    }

    /// Drops all: what was read may be about to change.
    pub fn forget(&mut self) {
        self.gathered = Gathered::default();
        self.ordered.clear();
    }
}

/// Extents to be read together, at least one.
#[derive(Debug)]
pub struct Planned<'a> {
    extents: Vec<Extent>,
    /// The steps that they do not serve.
    behind: &'a [Step],
}

/// What a thread is to read.
#[derive(Debug)]
pub struct Order {
    extents: Vec<Extent>,
    into: Buffer,
    done: SyncSender<Gathered>,
}

impl Order {
    /// Reads, by `read`, which says whether it could.
    pub fn carry_out(mut self, read: impl Fn(&Extent, &mut [u8]) -> bool) {
        let filled = read_runs(&self.extents, &mut self.into, read);
        // Who no longer wants it is gone.
        let _ = self.done.send(Gathered::new(&self.extents, self.into.freeze(filled)));
    }
}

/// What was read together.
#[derive(Debug, Default)]
struct Gathered {
    extents: VecDeque<Extent>,
    bytes: Bytes,
    /// Byte at which the first of the extents lies.
    at: usize,
}

impl Gathered {
    /// The extents lie in `bytes` one behind the other; of the last ones there may be nothing.
    fn new(extents: &[Extent], bytes: Bytes) -> Self {
        let mut there = bytes.len() as u64;
        let whole = extents.iter().take_while(|extent| {
            let fits = extent.len <= there;
            there -= extent.len.min(there);
            fits
        });
        Self { extents: whole.copied().collect(), bytes, at: 0 }
    }

    /// What was read for this extent; drops all where something else is wanted first.
    fn take(&mut self, wanted: Extent) -> Option<(Bytes, Range<usize>)> {
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
}

/// The extents to be read together, from `first` on, which the segment before `steps` begins with; `None` where they are too few.
/// `may_read` says whether an extent may be read before the segments in front of it are done.
fn plan(first: Option<Extent>, steps: &[Step], may_read: impl Fn(&Extent) -> bool) -> Option<Planned<'_>> {
    let mut extents = Vec::from_iter(first);
    let mut bytes: u64 = extents.iter().map(|extent| extent.len).sum();
    let mut behind = steps;
    while let [step, rest @ ..] = behind {
        // Whatever does anything but fill a tape may change what a later segment is to read.
        let Action::Move(Move { from, to: Destination::Stream { .. }, hold: false, .. }) = step.action else { break };
        if !matches!(from, Source::Inline { .. }) {
            let Some(extent) = small_extent(step) else { break };
            if bytes + extent.len > BUFFER as u64 || !may_read(&extent) {
                break;
            }
            bytes += extent.len;
            extents.push(extent);
        }
        behind = rest;
    }
    (bytes >= WORTH).then_some(Planned { extents, behind })
}

/// What a step reads of a disk, where that is little.
fn small_extent(step: &Step) -> Option<Extent> {
    let Action::Move(Move { from: Source::Bytes { end, at, len }, .. }) = step.action else { return None };
    Some(Extent { end, at, len }).filter(Extent::is_small)
}

/// Reads extents into `into`, one behind the other. Gives the bytes that were read before the first that could not be.
fn read_runs(extents: &[Extent], into: &mut [u8], read: impl Fn(&Extent, &mut [u8]) -> bool) -> usize {
    let mut filled = 0;
    for run in runs(extents) {
        let end = filled + run.len as usize;
        if !read(&run, &mut into[filled..end]) {
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
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use protocol::mover::Transfer;

    use super::super::buffers::Pool;
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

    /// Every byte of a disk tells its address, but some cannot be read.
    fn read(unreadable: Option<u64>) -> impl Fn(&Extent, &mut [u8]) -> bool {
        move |run, into| {
            let broken = unreadable.is_some_and(|at| (run.at..run.at + run.len).contains(&at));
            into.iter_mut().zip(run.at..).for_each(|(byte, at)| *byte = content(at));
            !broken
        }
    }

    const fn content(at: u64) -> u8 {
        (at % 251) as u8
    }

    #[test]
    fn as_many_as_one_buffer_holds_are_gathered_over_inline_data() {
        let mut steps: Vec<_> = (1..100).map(|n| bytes(n << 20, SMALL)).collect();
        steps.insert(3, step(Source::Inline { offset: 0, len: 512 }, TO));
        let first = Some(extent(0, SMALL));
        let whole = (BUFFER as u64 / SMALL) as usize;
        let planned = plan(first, &steps, |_| true).unwrap();
        assert_eq!((planned.extents.len(), planned.behind.len()), (whole, steps.len() - whole));
        let next = plan(None, planned.behind, |_| true).unwrap();
        assert_eq!((next.extents.len(), next.extents[0].at), (whole, (whole as u64) << 20));
        assert!(plan(first, &steps[..2], |_| true).is_none(), "a buffer that is nearly empty is not worth it");
        assert!(plan(first, &steps, |extent| extent.at < 5 << 20).is_none());
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
            assert_eq!(plan(Some(extent(0, SMALL)), &steps, |_| true).unwrap().extents.len(), 11);
            assert!(plan(None, &steps[10..], |_| true).is_none());
        }
    }

    #[test]
    fn neighbours_are_one_read_and_what_is_not_wanted_is_dropped() {
        let extents = [extent(0, 2), extent(2, 1), extent(9, 1), extent(8, 1)];
        assert_eq!(runs(&extents).collect::<Vec<_>>(), [extent(0, 3), extent(9, 1), extent(8, 1)]);
        let mut gathered = Gathered::new(&extents, Bytes::from_static(b"abcd"));
        let taken = |gathered: &mut Gathered, extent| gathered.take(extent).map(|(bytes, range)| bytes.slice(range));
        assert_eq!(taken(&mut gathered, extents[0]).as_deref(), Some(&b"ab"[..]));
        assert_eq!(gathered.take(extent(2, 2)), None);
        assert!(gathered.extents.is_empty());
        let mut gathered = Gathered::new(&extents, Bytes::from_static(b"ab"));
        assert_eq!(taken(&mut gathered, extents[0]).as_deref(), Some(&b"ab"[..]));
        assert_eq!(gathered.take(extents[1]), None);
    }

    /// Walks the steps as an engine does. Gives those that were not read ahead; the bytes of the others are right.
    fn missed(steps: &[Step], begin: &dyn Fn(Order), not_wanted: Option<usize>) -> BTreeSet<usize> {
        let (pool, stop) = (Pool::new(WINDOW + 1), AtomicBool::new(false));
        let mut ahead = Ahead::new(begin);
        let is_missed = |(index, step): (usize, &Step)| {
            let wanted = small_extent(step).expect("all are small");
            if not_wanted == Some(index) {
                return Some(index);
            }
            while ahead.is_used_up() {
                let Some(planned) = ahead.plan(wanted, &steps[index + 1..], |_| true) else { break };
                ahead.order(planned, pool.take(&stop).unwrap());
            }
            let taken = ahead.take(wanted);
            if let Some((bytes, range)) = &taken {
                assert!(bytes[range.clone()].iter().zip(wanted.at..).all(|(byte, at)| *byte == content(at)));
            }
            taken.is_none().then_some(index)
        };
        steps.iter().enumerate().filter_map(is_missed).collect()
    }

    #[test]
    fn each_extent_is_found_and_one_that_cannot_be_read_or_is_skipped_costs_its_neighbours_nothing() {
        const EACH: u64 = 4096;
        const COUNT: usize = 8 * BUFFER / EACH as usize;
        let steps: Vec<_> = (0..COUNT as u64).map(|n| bytes(n * 3 * EACH, EACH)).collect();
        for unreadable in [None, Some(0), Some(3), Some(COUNT / 8), Some(COUNT / 3)] {
            let byte = unreadable.map(|n| n as u64 * 3 * EACH + 7);
            for not_wanted in [None, Some(0), Some(COUNT / 4), Some(COUNT / 4 + 1)] {
                let expected: BTreeSet<_> = unreadable.into_iter().chain(not_wanted).collect();
                let missed = thread::scope(|scope| {
                    let begin = |order: Order| {
                        scope.spawn(move || order.carry_out(read(byte)));
                    };
                    missed(&steps, &begin, not_wanted)
                });
                assert!(expected.is_subset(&missed), "{missed:?}");
                // One more is read by itself: that at which it shows that another comes first. And the last ones, where they no
                // longer fill half a buffer.
                let before_the_end = missed.iter().filter(|index| **index < COUNT - 128).count();
                assert!(before_the_end <= 2 * expected.len(), "{missed:?}");
            }
        }
        let read_at_once = |order: Order| order.carry_out(read(None));
        let (pool, stop, mut ahead) = (Pool::new(1), AtomicBool::new(false), Ahead::new(&read_at_once));
        let first = small_extent(&steps[0]).unwrap();
        ahead.order(ahead.plan(first, &steps[1..], |_| true).unwrap(), pool.take(&stop).unwrap());
        assert!(ahead.take(first).is_some());
        ahead.forget();
        assert!(ahead.take(small_extent(&steps[1]).unwrap()).is_none(), "what was read before is not what is there now");
        assert_eq!(missed(&steps, &drop, None).len(), COUNT, "where no thread can be begun, each segment reads by itself");
    }
}
