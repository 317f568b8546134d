//! Walks the segments of a job: reads, makes source data destination data, and cuts that into writes.
//!
//! Reads ahead of the writer, but for tapes: "The copy manager shall not read ahead from copy sources of the stream device type".
//! A disk is not read where an earlier segment's write is still under way. What is left at a segment's end follows table "PAD and
//! CAT bit definitions". Does not write; ops go to [`super::writer`] in the order in which they count.
//!
//! Follows SPC-4, "EXTENDED COPY command processing".

mod disks;
mod tapes;
mod unread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use protocol::cartridge::sums::RecordSum;
use protocol::mover::{Action, Destination, EndIndex, FaultKind, Move, Source, SpaceOver, Step, Transfer};
use protocol::scsi::sense::CopyEnd;
use protocol::units::ByteRange;

pub use disks::reads;

use super::buffers::{BUFFER, Pool};
use super::ends::OpenEnd;
use super::fifo::Fifo;
use super::gather::{Ahead, Order};
use super::held::Held;
use super::job::Shared;
use super::writer::{Op, Record};

/// Why a segment is not carried on with.
#[derive(Debug)]
enum Halt {
    /// Its own fault.
    Fault(Option<CopyEnd>, FaultKind),
    /// The writer has failed, or the job was cancelled.
    Stopped,
}

type Run<T = ()> = Result<T, Halt>;

/// Bytes of residue that wait for the writer outside of the pool: what bounds a job's memory there.
const COPIED_MOST: u64 = 32 << 20;
/// Beginnings of segments that the writer is not told at once.
const BEGUN_MOST: usize = 256;

const fn source_fault(kind: FaultKind) -> Halt {
    Halt::Fault(Some(CopyEnd::Source), kind)
}

const fn destination_fault(kind: FaultKind) -> Halt {
    Halt::Fault(Some(CopyEnd::Destination), kind)
}

/// What is left of a job when its last segment has been read.
pub struct Ended {
    /// Residue was dropped.
    pub dropped: bool,
    /// What was processed for the application client too.
    pub held: Option<Held>,
}

/// State of a job between two segments: its residue.
pub struct Engine<'a> {
    ends: &'a [OpenEnd],
    inline: Bytes,
    pool: Arc<Pool>,
    operations: SyncSender<Vec<Op>>,
    /// Beginnings of segments that go with the next operation.
    begun: Vec<Op>,
    shared: &'a Shared,
    source: Fifo,
    destination: Fifo,
    /// The segments behind the one that is carried out.
    following: &'a [Step],
    /// What is read for them already.
    ahead: Ahead<'a>,
    /// There when a segment holds what it processes.
    held: Option<Held>,
    /// The segment that is carried out writes a disk.
    writes_disk: bool,
    /// Bytes of residue outside of the pool that may not have been written yet.
    copied: u64,
    /// Disks to whose blocks a tape's records can refer, and those to whose they cannot.
    references: Vec<(EndIndex, EndIndex)>,
    no_references: Vec<(EndIndex, EndIndex)>,
    /// Disk ranges that earlier segments write and that may not have been written yet.
    under_way: Vec<(EndIndex, ByteRange)>,
}

/// What 11h and 12h do.
#[derive(Debug, Clone, Copy)]
enum Positioning {
    Space(SpaceOver, i32),
    Locate(u64),
}

/// Where the writes of a segment have got to.
struct Output {
    to: Destination,
    /// Bytes of one whole transfer.
    unit: u64,
    /// Next byte of a disk.
    at: u64,
    /// Bytes that may still be written; absent: as many as there are.
    limit: Option<u64>,
}

/// Where the reads of a segment have got to.
struct Input {
    from: Source,
    /// Next byte of a disk.
    at: u64,
    /// Bytes of a byte range that are still to be made source data.
    rest: u64,
}

impl<'a> Engine<'a> {
    /// Without residue. `begin` begins a thread that reads ahead.
    #[must_use]
    pub fn new(
        ends: &'a [OpenEnd],
        inline: Bytes,
        pool: Arc<Pool>,
        begin: &'a dyn Fn(Order),
        operations: SyncSender<Vec<Op>>,
        shared: &'a Shared,
    ) -> Self {
        let (source, destination, held) = Default::default();
        let (begun, under_way, references, no_references) = Default::default();
        Self {
            ends,
            inline,
            pool,
            operations,
            begun,
            shared,
            source,
            destination,
            following: &[],
            ahead: Ahead::new(begin),
            held,
            writes_disk: false,
            copied: 0,
            references,
            no_references,
            under_way,
        }
    }

    /// Carries out all segments, or up to the first that fails; tells the writer which.
    pub fn run(mut self, steps: &'a [Step]) -> Ended {
        for (index, step) in steps.iter().enumerate() {
            self.following = &steps[index + 1..];
            match self.step(step) {
                Ok(()) => {}
                Err(Halt::Fault(side, kind)) => {
                    let _ = self.send(Op::Fault { segment: step.segment, side, kind });
                    return Ended { dropped: false, held: self.held };
                }
                Err(Halt::Stopped) => return Ended { dropped: false, held: self.held },
            }
        }
        let _ = self.operations.send(std::mem::take(&mut self.begun));
        Ended { dropped: !self.source.is_empty() || !self.destination.is_empty(), held: self.held }
    }

    fn step(&mut self, step: &Step) -> Run {
        match &step.action {
            Action::Move(copy) => self.copy(step, copy),
            // "Residual source or destination data, if any, shall be retained … as if the CAT bit were set to one."
            Action::WriteFilemarks { end, count, immediate } => {
                self.begin(step.segment, 0, None)?;
                self.is_tape(*end)?;
                self.send(Op::Filemarks { end: *end, count: *count, immediate: *immediate })
            }
            Action::Space { end, over, count } => self.position(step.segment, *end, Positioning::Space(*over, *count)),
            Action::Locate { end, object } => self.position(step.segment, *end, Positioning::Locate(*object)),
            Action::TapeImage { from, to, filemarks } => self.tape_image(step.segment, *from, *to, *filemarks),
            Action::BlockImage { from, from_at, to, to_at, len } => {
                let range = ByteRange::new(*to_at, *len).ok_or(Halt::Fault(None, FaultKind::BadJob))?;
                self.begin(step.segment, *len, (*len > 0).then_some((*to, range)))?;
                self.block_image(*from, *from_at, *to, range)
            }
            Action::Ask => {
                self.begin(step.segment, 0, None)?;
                self.send(Op::Ask { segment: step.segment })?;
                self.settle_writes()
            }
            Action::Nothing => self.begin(step.segment, 0, None),
        }
    }

    fn cancelled(&self) -> &'a AtomicBool {
        &self.shared.control.cancelled
    }

    fn position(&mut self, segment: u32, end: EndIndex, positioning: Positioning) -> Run {
        self.begin(segment, 0, None)?;
        self.settle_writes()?;
        let went = match (self.end(end)?, positioning) {
            (OpenEnd::RemoteTape(tape), Positioning::Space(over, count)) => tape.space(self.cancelled(), over, count),
            (OpenEnd::RemoteTape(tape), Positioning::Locate(object)) => tape.locate(self.cancelled(), object),
            (_, Positioning::Space(over, count)) => self.tape(end)?.lock().expect("no holder panics").space(over, count),
            (_, Positioning::Locate(object)) => self.tape(end)?.lock().expect("no holder panics").locate(object),
        };
        self.send(Op::Moved { end })?;
        went.map_err(destination_fault)
    }

    fn copy(&mut self, step: &Step, copy: &Move) -> Run {
        let mut output = self.output(copy)?;
        let mut input = Input::new(copy.from);
        let inline = if let Source::Inline { len, .. } = copy.from { u64::from(len) } else { 0 };
        let process = match (copy.process, copy.output) {
            (Some(process), _) => process,
            (None, Some(wanted)) => wanted.saturating_sub(self.destination.len()),
            (None, None) => 0,
        };
        let expected = self.expected(step, copy, &output, process + inline);
        self.begin(step.segment, expected, output.run(expected))?;
        if matches!(copy.from, Source::Stream { .. }) {
            self.settle_writes()?;
        }
        if self.copy_directly(copy, process, &output)? {
            return self.end_of_segment(step, copy, &mut output);
        }
        let process = process - self.refer(copy, process, &mut input)?;
        if let Source::Inline { offset, len } = copy.from {
            self.destination.push(part(&self.inline, offset, len).ok_or(Halt::Fault(None, FaultKind::BadJob))?);
        }
        if copy.hold {
            self.held.get_or_insert_default();
        }
        self.process(&mut input, &mut output, process, copy.hold)?;
        self.end_of_segment(step, copy, &mut output)
    }

    /// Makes `left` bytes destination data, reading as many as are needed, and writes whole transfers as they come about.
    fn process(&mut self, input: &mut Input, output: &mut Output, mut left: u64, hold: bool) -> Run {
        loop {
            self.hold(left, hold);
            left -= match output.to {
                Destination::Discard => self.source.drop_front(left),
                _ => self.source.move_to(left, &mut self.destination),
            };
            self.write_whole(output)?;
            if left > 0 {
                // What a read brought before it failed is still written.
                if let Err(halt) = self.read(input, left) {
                    self.hold(left, hold);
                    self.source.move_to(left, &mut self.destination);
                    self.write_whole(output)?;
                    return Err(halt);
                }
            } else if input.rest > 0 {
                self.read(input, left)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Keeps a copy of what is processed next.
    fn hold(&mut self, count: u64, hold: bool) {
        if let Some(held) = self.held.as_mut().filter(|_| hold) {
            self.source.front(count).for_each(|piece| held.keep(piece));
        }
    }

    /// Whole transfers of the destination data become ops.
    fn write_whole(&mut self, output: &mut Output) -> Run {
        loop {
            let room = output.limit.unwrap_or(u64::MAX).min(self.destination.len());
            let len = match output.to {
                Destination::Discard => 0,
                // As much as one op takes: whole blocks, or any bytes where the unit is 1.
                Destination::Blocks { .. } | Destination::Bytes { .. } => room.min(BUFFER as u64) / output.unit * output.unit,
                Destination::Stream { .. } if output.unit > 0 && room >= output.unit => output.unit,
                Destination::Stream { .. } => 0,
            };
            if len == 0 {
                return Ok(());
            }
            self.write(output, len)?;
        }
    }

    fn write(&mut self, output: &mut Output, len: u64) -> Run {
        let op = match output.to {
            Destination::Blocks { end, .. } | Destination::Bytes { end, .. } => {
                Op::Blocks { end, at: output.at, data: self.destination.split_to(len) }
            }
            Destination::Stream { end, transfer } => {
                let data = self.destination.take(len);
                if !matches!(self.end(end)?, OpenEnd::Tape(_) | OpenEnd::RemoteTape(_)) {
                    return Err(destination_fault(FaultKind::Null));
                }
                // While the writer has enough to do, the sums are taken here.
                let summed = self.shared.unwritten.load(Ordering::Relaxed) > 0;
                Op::Records { end, records: records(data, transfer, summed) }
            }
            Destination::Discard => unreachable!("discarded data never becomes destination data"),
        };
        output.at += len;
        output.limit = output.limit.map(|limit| limit - len);
        self.send(op)
    }

    /// Table "PAD and CAT bit definitions", and the two rules below it.
    fn end_of_segment(&mut self, step: &Step, copy: &Move, output: &mut Output) -> Run {
        // Table "PAD bit processing if there is no copy source or copy destination".
        let source_pad = copy.source_pad && !matches!(copy.from, Source::Inline { .. });
        let destination_pad = copy.destination_pad && !matches!(copy.to, Destination::Discard);
        if !step.cat {
            let inexact = Err(Halt::Fault(None, FaultKind::Inexact));
            match (source_pad, destination_pad) {
                (_, true) if copy.output.is_some() && !self.destination.is_empty() => return inexact,
                (true, true) => {
                    self.source.clear();
                    self.pad(output)?;
                }
                (false, true) => self.pad(output)?,
                (true, false) => {
                    self.source.clear();
                    self.destination.clear();
                }
                (false, false) if !self.source.is_empty() || !self.destination.is_empty() => return inexact,
                (false, false) => {}
            }
        }
        self.copied += self.source.unpin() + self.destination.unpin();
        if self.copied > COPIED_MOST {
            self.settle_writes()?;
        }
        if let Some((end, range)) = output.run(output.at - output.start()) {
            self.under_way.push((end, range));
        }
        Ok(())
    }

    /// Zeros up to a whole transfer.
    fn pad(&mut self, output: &mut Output) -> Run {
        if self.destination.is_empty() {
            return Ok(());
        }
        if output.unit == 0 {
            return Err(Halt::Fault(None, FaultKind::Inexact));
        }
        self.destination.push_zeros(self.destination.len().next_multiple_of(output.unit) - self.destination.len());
        self.write_whole(output)
    }

    /// Bytes the segment writes when nothing fails: what a residual is counted from.
    fn expected(&self, step: &Step, copy: &Move, output: &Output, added: u64) -> u64 {
        if matches!(copy.to, Destination::Discard) || output.unit == 0 {
            return 0;
        }
        if let Some(wanted) = copy.output {
            return wanted;
        }
        let there = self.destination.len().saturating_add(added);
        if copy.destination_pad && !step.cat {
            there.div_ceil(output.unit).saturating_mul(output.unit)
        } else {
            there / output.unit * output.unit
        }
    }

    fn output(&self, copy: &Move) -> Run<Output> {
        let (unit, at) = match copy.to {
            Destination::Blocks { end, at } => (u64::from(self.block_length(end)?), at),
            Destination::Bytes { at, .. } => (1, at),
            Destination::Stream { transfer, .. } => (transfer.bytes(), 0),
            Destination::Discard => (1, 0),
        };
        Ok(Output { to: copy.to, unit, at, limit: copy.output })
    }

    fn block_length(&self, end: EndIndex) -> Run<u32> {
        match self.end(end)? {
            OpenEnd::Raw(raw) => Ok(raw.block_length()),
            OpenEnd::View(view) => Ok(view.block_length()),
            OpenEnd::RemoteDisk(disk) => Ok(disk.block_length()),
            OpenEnd::NullBlock => Ok(512),
            _ => Err(Halt::Fault(None, FaultKind::BadJob)),
        }
    }

    fn end(&self, end: EndIndex) -> Run<&'a OpenEnd> {
        self.ends.get(usize::from(end.0)).ok_or(Halt::Fault(None, FaultKind::BadJob))
    }

    fn is_tape(&self, end: EndIndex) -> Run {
        match self.end(end)? {
            OpenEnd::RemoteTape(_) => Ok(()),
            _ => self.tape(end).map(drop),
        }
    }

    fn tape(&self, end: EndIndex) -> Run<&'a std::sync::Mutex<super::ends::cartridge::Tape>> {
        match self.end(end)? {
            OpenEnd::Tape(tape) => Ok(tape),
            OpenEnd::NullStream => Err(destination_fault(FaultKind::Null)),
            _ => Err(Halt::Fault(None, FaultKind::BadJob)),
        }
    }

    /// Adds to the source data: one buffer full at most, and no more than the segment needs.
    fn read(&mut self, input: &mut Input, needed: u64) -> Run {
        if self.shared.control.cancelled.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        match input.from {
            Source::Blocks { end, .. } => {
                let block = u64::from(self.block_length(end)?);
                let len = needed.div_ceil(block).saturating_mul(block).min(BUFFER as u64 / block * block);
                self.read_blocks(end, input.at, len)?;
                input.at += len;
                Ok(())
            }
            Source::Bytes { end, .. } => {
                let len = input.rest.min(BUFFER as u64);
                self.read_blocks(end, input.at, len)?;
                input.at += len;
                input.rest -= len;
                Ok(())
            }
            Source::Stream { end, transfer } => self.read_records(end, transfer, needed),
            Source::Inline { .. } => Err(Halt::Fault(None, FaultKind::BadJob)),
        }
    }

    /// Waits until all that was sent is written, and tape objects are committed.
    fn settle_writes(&mut self) -> Run {
        let (reached, wait) = sync_channel(1);
        self.send(Op::Barrier(reached))?;
        self.under_way.clear();
        self.copied = 0;
        wait.recv().map_err(|_| Halt::Stopped)?;
        if self.shared.stopped.load(Ordering::Relaxed) { Err(Halt::Stopped) } else { Ok(()) }
    }

    fn begin(&mut self, segment: u32, expected: u64, run: Option<(EndIndex, ByteRange)>) -> Run {
        // An extent that was read ahead and then referred to is still there, and must not be taken for what a later segment reads.
        if run.is_some() {
            self.ahead.forget();
        }
        let grants_go_back = self.writes_disk || run.is_some();
        self.writes_disk = run.is_some();
        self.begun.push(Op::Segment { segment, expected, run });
        // A segment of a tape changes nothing until it writes: small ones are not worth to wake the writer for.
        if grants_go_back || self.begun.len() >= BEGUN_MOST { self.hand_over() } else { Ok(()) }
    }

    fn send(&mut self, op: Op) -> Run {
        self.begun.push(op);
        self.hand_over()
    }

    fn hand_over(&mut self) -> Run {
        if self.shared.stopped.load(Ordering::Relaxed) || self.shared.control.cancelled.load(Ordering::Relaxed) {
            return Err(Halt::Stopped);
        }
        let records = self.begun.iter().filter(|op| matches!(op, Op::Records { .. })).count();
        self.shared.unwritten.fetch_add(records, Ordering::Relaxed);
        self.operations.send(std::mem::take(&mut self.begun)).map_err(|_| Halt::Stopped)
    }
}

impl Input {
    const fn new(from: Source) -> Self {
        let (at, rest) = match from {
            Source::Blocks { at, .. } => (at, 0),
            Source::Bytes { at, len, .. } => (at, len),
            Source::Stream { .. } | Source::Inline { .. } => (0, 0),
        };
        Self { from, at, rest }
    }

    /// These bytes were made destination data without being read.
    const fn skip(&mut self, bytes: u64) {
        self.at += bytes;
        self.rest = self.rest.saturating_sub(bytes);
    }
}

impl Output {
    /// First byte of a disk that the segment writes.
    const fn start(&self) -> u64 {
        match self.to {
            Destination::Blocks { at, .. } | Destination::Bytes { at, .. } => at,
            Destination::Stream { .. } | Destination::Discard => 0,
        }
    }

    /// `len` bytes of a disk from the segment's first on.
    fn run(&self, len: u64) -> Option<(EndIndex, ByteRange)> {
        match self.to {
            Destination::Blocks { end, at } | Destination::Bytes { end, at } if len > 0 => Some((end, ByteRange::new(at, len)?)),
            _ => None,
        }
    }
}

/// The records of one transfer, with their sums unless the writer is to take them.
fn records(data: Vec<Bytes>, transfer: Transfer, summed: bool) -> Vec<Record> {
    let mut fifo = Fifo::from(data);
    (0..transfer.records)
        .map(|_| {
            let parts = fifo.take(u64::from(transfer.record));
            let sum = summed.then(|| RecordSum::of_parts(parts.iter().map(|part| &part[..])));
            (parts, sum)
        })
        .collect()
}

fn part(inline: &Bytes, offset: u32, len: u32) -> Option<Bytes> {
    let (start, len) = (offset as usize, len as usize);
    let end = start.checked_add(len)?;
    (end <= inline.len()).then(|| inline.slice(start..end))
}
