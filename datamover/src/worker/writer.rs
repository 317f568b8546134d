//! Writes what the engine hands over, in order: asks for grants, batches records behind the commit word, reports.
//!
//! The first fault ends it: what was placed on a tape before is committed, what comes behind it in the queue is dropped. Reads
//! only to copy from disk to disk.
//!
//! The order of writes on a tape is [`protocol::cartridge::append`]'s; residuals are counted as SPC-4, "EXTENDED COPY command
//! errors detected during processing of segment descriptors", (c) tells.

mod tape;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::cartridge::append::Durability;
use protocol::cartridge::sums::RecordSum;
use protocol::mover::{ByMethod, EndIndex, Fault, FaultKind, MAX_GRANT, Question, Transfer};
use protocol::scsi::sense::CopyEnd;
use protocol::units::ByteRange;

use super::batch::{Account, Batch};
use super::direct::{self, Origin};
use super::ends::cartridge::Tape;
use super::ends::raw::Raw;
use super::ends::{OpenEnd, write_fault};
use super::fifo::{Fifo, Piece};
use super::job::Shared;
use super::link::Link;
use super::remote::RemoteTape;

/// Progress is told no more often.
const PROGRESS: Duration = Duration::from_millis(20);
/// Bytes of a disk copied between two looks whether the job was cancelled.
const STRETCH: u64 = 8 << 20;

/// A wait for a throttle is broken off after so long, to look whether the job was cancelled.
const LOOK: Duration = Duration::from_millis(50);

/// What the engine hands over.
#[derive(Debug)]
pub enum Op {
    /// A segment begins.
    Segment {
        /// Its number.
        segment: u32,
        /// Bytes it writes when nothing fails.
        expected: u64,
        /// The stretch of a disk it writes, to ask for as one.
        run: Option<(EndIndex, ByteRange)>,
    },
    /// Bytes of a disk.
    Blocks {
        /// The disk.
        end: EndIndex,
        /// First byte.
        at: u64,
        /// What to write.
        data: Fifo,
    },
    /// Bytes from disk to disk.
    Range {
        /// The copy source.
        from: EndIndex,
        /// First byte of it.
        from_at: u64,
        /// The copy destination.
        end: EndIndex,
        /// First byte of it.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// One write command of a tape.
    Records {
        /// The tape.
        end: EndIndex,
        /// Its records.
        records: Vec<Record>,
    },
    /// Write commands of a tape whose data is not read: the records are to refer to it.
    Refer {
        /// The copy source.
        from: EndIndex,
        /// First byte of it.
        from_at: u64,
        /// The tape.
        end: EndIndex,
        /// Each command.
        transfer: Transfer,
        /// How many.
        count: u64,
        /// Is told whether all of it could be referred to.
        tried: Option<SyncSender<bool>>,
    },
    /// WRITE FILEMARKS.
    Filemarks {
        /// The tape.
        end: EndIndex,
        /// How many.
        count: u32,
        /// Not synchronized.
        immediate: bool,
    },
    /// The engine has positioned a tape.
    Moved {
        /// The tape.
        end: EndIndex,
    },
    /// The target is asked whether a segment may be passed.
    Ask {
        /// Its number.
        segment: u32,
    },
    /// Tells the engine when all before is written.
    Barrier(SyncSender<()>),
    /// The engine cannot go on; all before counts.
    Fault {
        /// In which segment.
        segment: u32,
        /// Which side.
        side: Option<CopyEnd>,
        /// Why.
        kind: FaultKind,
    },
}

/// Data of a record, and its sums where the engine has taken them.
pub type Record = (Vec<Bytes>, Option<RecordSum>);

/// State of the writing side of a job.
pub struct Writer<'a> {
    ends: &'a [OpenEnd],
    link: &'a dyn Link,
    shared: &'a Shared,
    batch: Batch,
    /// The disk range that may be written now.
    grant: Option<(EndIndex, ByteRange)>,
    run: Option<(EndIndex, ByteRange)>,
    current: Account,
    total: ByMethod,
    told: Instant,
}

type Wrote<T = ()> = Result<T, (Option<CopyEnd>, FaultKind)>;

const fn destination(kind: FaultKind) -> (Option<CopyEnd>, FaultKind) {
    (Some(CopyEnd::Destination), kind)
}

impl<'a> Writer<'a> {
    /// Before the first segment.
    #[must_use]
    pub fn new(ends: &'a [OpenEnd], link: &'a dyn Link, shared: &'a Shared) -> Self {
        let (batch, told) = (Batch::default(), Instant::now());
        Self { ends, link, shared, batch, grant: None, run: None, current: Account::default(), total: ByMethod::default(), told }
    }

    /// Works until the engine is gone. Gives whether the job was cancelled before it was done.
    pub fn run(mut self, queue: Receiver<Vec<Op>>) -> bool {
        let mut cancelled = false;
        while let Some(ops) = self.next(&queue) {
            for op in ops {
                if self.shared.control.cancelled.load(Ordering::Relaxed) && !self.stopped() {
                    cancelled = true;
                    self.stop();
                }
                if self.stopped() {
                    break;
                }
                self.attempt(|writer| writer.carry_out(op));
            }
            // Once for all of them: many segments only bring data.
            self.tell(false);
        }
        self.finish();
        cancelled || (self.shared.control.cancelled.load(Ordering::Relaxed) && !self.faulted())
    }

    /// Waits for the engine. With nothing to do yet, what is placed is written: a waiting engine may need its buffers. When it takes
    /// longer, it is published too.
    fn next(&mut self, queue: &Receiver<Vec<Op>>) -> Option<Vec<Op>> {
        match queue.try_recv() {
            Ok(ops) => return Some(ops),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => self.attempt(Self::write_out),
        }
        if self.batch.end.is_some() {
            match queue.recv_timeout(PROGRESS) {
                Ok(ops) => return Some(ops),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.attempt(Self::flush),
            }
        }
        queue.recv().ok()
    }

    fn faulted(&self) -> bool {
        self.shared.fault.lock().expect("no holder panics").is_some()
    }

    fn stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// Does something that may fail; the first failure is the job's.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> Wrote) {
        if let Err((side, kind)) = work(self) {
            // What fails because it was told to stop is no fault.
            if !self.shared.control.cancelled.load(Ordering::Relaxed) {
                let Account { segment, expected, written } = self.current;
                let fault = Fault { segment, side, kind, expected, written };
                self.shared.fault.lock().expect("no holder panics").get_or_insert(fault);
            }
            self.stop();
        }
    }

    fn carry_out(&mut self, op: Op) -> Wrote {
        match op {
            Op::Segment { segment, expected, run } => {
                self.batch.end_segment(self.current);
                self.current = Account { segment, expected, written: 0 };
                self.run = run;
                // A grant counts as a write in flight: one that this segment does not need would keep that disk from being quiet.
                let needed = |held: EndIndex| run.is_some_and(|(end, _)| end == held);
                if let Some((held, _)) = self.grant.take_if(|(held, _)| !needed(*held)) {
                    self.link.give_back(held);
                }
                Ok(())
            }
            Op::Blocks { end, at, data } if matches!(self.ends.get(usize::from(end.0)), Some(OpenEnd::RemoteDisk(_))) => {
                self.write_remote(end, at, data)
            }
            Op::Blocks { end, mut at, mut data } => {
                let raw = self.raw(end)?;
                while !data.is_empty() {
                    self.keep_pace();
                    let len = self.allowed(end, at, data.len())?;
                    let moved = self.write_blocks(raw, at, data.take_pieces(len))?;
                    at += len;
                    self.count(moved);
                }
                Ok(())
            }
            Op::Refer { from, from_at, end, transfer, count, tried } => {
                let all = self.refer(from, from_at, end, transfer, count)?;
                if let Some(tried) = tried {
                    // An engine that is gone waits no more.
                    let _ = tried.send(all);
                }
                Ok(())
            }
            Op::Range { from, from_at, end, at, len } => self.copy_range(from, from_at, end, at, len),
            Op::Records { end, records } => {
                self.shared.unwritten.fetch_sub(1, Ordering::Relaxed);
                match self.remote_tape(end) {
                    Some(tape) => self.write_remote_records(tape, records),
                    None => self.append_records(end, records),
                }
            }
            Op::Filemarks { end, count, immediate } => match self.remote_tape(end) {
                Some(tape) => {
                    self.flush()?;
                    let warned = tape.write_filemarks(self.cancelled(), count, immediate).map_err(destination)?;
                    warned.map_or(Ok(()), |kind| Err(destination(kind)))
                }
                None => self.append_filemarks(end, count, immediate),
            },
            // Where a remote drive stands nobody here needs to know.
            Op::Moved { end } if self.remote_tape(end).is_some() => Ok(()),
            Op::Moved { end } => {
                let report = self.report(end, Vec::new())?;
                self.link.tape(end, report);
                Ok(())
            }
            Op::Ask { segment } => {
                self.flush()?;
                self.link.ask(Question::Segment { segment }).map(drop).map_err(destination)
            }
            Op::Barrier(reached) => {
                self.flush()?;
                // An engine that is gone waits no more.
                let _ = reached.send(());
                Ok(())
            }
            Op::Fault { segment, side, kind } => {
                self.flush()?;
                // A fault found before its segment began has moved nothing.
                if self.current.segment != segment {
                    self.current = Account { segment, ..Account::default() };
                }
                Err((side, kind))
            }
        }
    }

    fn write_remote(&mut self, end: EndIndex, at: u64, mut data: Fifo) -> Wrote {
        let Some(OpenEnd::RemoteDisk(disk)) = self.ends.get(usize::from(end.0)) else { return Err((None, FaultKind::BadJob)) };
        self.keep_pace();
        let len = data.len();
        disk.write_at(self.cancelled(), at, data.take(len), len).map_err(destination)?;
        self.count(through_buffers(len));
        Ok(())
    }

    fn write_remote_records(&mut self, tape: &RemoteTape, records: Vec<Record>) -> Wrote {
        // What was placed on another tape before comes first.
        self.flush()?;
        for (data, _) in records {
            self.keep_pace();
            let length = data.iter().map(|part| part.len() as u64).sum();
            let warned = tape.write_record(self.cancelled(), data).map_err(destination)?;
            self.count(through_buffers(length));
            if let Some(kind) = warned {
                return Err(destination(kind));
            }
        }
        Ok(())
    }

    fn remote_tape(&self, end: EndIndex) -> Option<&'a RemoteTape> {
        match self.ends.get(usize::from(end.0)) {
            Some(OpenEnd::RemoteTape(tape)) => Some(tape),
            _ => None,
        }
    }

    fn cancelled(&self) -> &'a AtomicBool {
        &self.shared.control.cancelled
    }

    fn copy_range(&mut self, from: EndIndex, from_at: u64, end: EndIndex, at: u64, len: u64) -> Wrote {
        let (origin, to) = (self.origin(from)?, self.raw(end)?);
        let same_blocks = matches!(origin, Origin::Live(source) if source.same_blocks(to));
        let backwards = same_blocks && at > from_at && at - from_at < len;
        let mut done = 0;
        while done < len {
            self.keep_pace();
            if self.shared.control.cancelled.load(Ordering::Relaxed) {
                return Ok(());
            }
            // Data that overlaps what it is copied to is copied from its end, so that nothing is written before it is read.
            let stretch = STRETCH.min(len - done);
            let offset = if backwards { len - done - stretch } else { done };
            if backwards {
                // Parts of a stretch are copied forward, so a grant that ends inside it would have a part written over before
                // it is read.
                self.grant = self.grant.filter(|(_, range)| range.end() >= at + offset + stretch);
            }
            let mut part = 0;
            while part < stretch {
                let allowed = self.allowed(end, at + offset + part, stretch - part)?;
                let place = direct::Stretch { from_at: from_at + offset + part, to_at: at + offset + part, len: allowed };
                let moved = direct::copy(origin, to, place)?;
                part += allowed;
                self.count(moved);
            }
            done += stretch;
        }
        Ok(())
    }

    /// Writes data, or lets blocks be shared with the file in which it lies too.
    fn write_blocks(&self, raw: &Raw, at: u64, data: Vec<Piece>) -> Wrote<ByMethod> {
        let write = |at, parts: &[Bytes]| raw.write_at(at, parts).map_err(|error| destination(at_end(&error)));
        if data.iter().all(|piece| piece.place.is_none()) {
            let parts: Vec<_> = data.into_iter().map(Piece::into_bytes).collect();
            let len = parts.iter().map(|part| part.len() as u64).sum();
            return write(at, &parts).map(|()| through_buffers(len));
        }
        let (mut moved, mut at) = (ByMethod::default(), at);
        for piece in data {
            let (place, bytes) = (piece.place, piece.into_bytes());
            let len = bytes.len() as u64;
            let shared = match place.map(|place| (place.at, self.ends.get(usize::from(place.end.0)))) {
                Some((from_at, Some(OpenEnd::Tape(tape)))) => {
                    let tape = tape.lock().expect("no holder panics");
                    tape.blocks().and_then(|blocks| blocks.clone_to(from_at, raw, at, len))
                }
                _ => None,
            };
            let shared = shared.unwrap_or(ByteRange { start: 0, len: 0 });
            write(at, &[bytes.slice(..shared.start as usize)])?;
            write(at + shared.end(), &[bytes.slice(shared.end() as usize..)])?;
            moved += ByMethod { reference: shared.len, buffers: len - shared.len, ..ByMethod::default() };
            at += len;
        }
        Ok(moved)
    }

    /// Asks until bytes from `at` on may be written; gives how many of `len`.
    fn allowed(&mut self, end: EndIndex, at: u64, len: u64) -> Wrote<u64> {
        let inside = |(granted, range): &(EndIndex, ByteRange)| *granted == end && range.range().contains(&at);
        if !self.grant.as_ref().is_some_and(inside) {
            // All that this segment will write from here on, as far as one grant reaches: the answer is worth waiting for once.
            let run = self.run.filter(|run| inside(run)).map_or(at + len, |(_, range)| range.end());
            let range = ByteRange { start: at, len: (run - at).max(len).min(MAX_GRANT) };
            if let Some((held, _)) = self.grant.take_if(|(held, _)| *held != end) {
                self.link.give_back(held);
            }
            self.link.ask(Question::Grant { end, range }).map_err(destination)?;
            self.grant = Some((end, range));
        }
        let granted = self.grant.map_or(0, |(_, range)| range.end() - at);
        Ok(len.min(granted))
    }

    fn count(&mut self, moved: ByMethod) {
        self.current.written += moved.total();
        self.total += moved;
        self.tell(false);
        self.shared.control.book(moved.total());
    }

    /// Waits as long as the throttles want it, and holds no disk meanwhile: a grant counts as a write in flight.
    fn keep_pace(&mut self) {
        loop {
            let wait = self.shared.control.wait();
            if wait.is_zero() || self.shared.control.cancelled.load(Ordering::Relaxed) {
                return;
            }
            if wait >= LOOK
                && let Some((end, _)) = self.grant.take()
            {
                self.link.give_back(end);
            }
            self.tell(false);
            thread::sleep(wait.min(LOOK));
        }
    }

    fn tell(&mut self, now: bool) {
        if now || self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            self.link.progress(self.current.segment, self.shared.read.load(Ordering::Relaxed), self.total);
        }
    }

    /// Tapes are left synchronized and their position known, grants go back.
    fn finish(&mut self) {
        self.attempt(Self::flush);
        for (index, end) in self.ends.iter().enumerate() {
            match end {
                OpenEnd::Tape(_) => self.attempt(|writer| writer.flush_to(Durability::Power, EndIndex(index as u16))),
                OpenEnd::RemoteDisk(disk) => self.attempt(|writer| disk.synchronize(writer.cancelled()).map_err(destination)),
                OpenEnd::RemoteTape(tape) => self.attempt(|writer| tape.synchronize(writer.cancelled()).map_err(destination)),
                _ => {}
            }
        }
        if let Some((end, _)) = self.grant.take() {
            self.link.give_back(end);
        }
        self.tell(true);
    }

    fn origin(&self, end: EndIndex) -> Wrote<Origin<'a>> {
        match self.ends.get(usize::from(end.0)) {
            Some(OpenEnd::Raw(raw)) => Ok(Origin::Live(raw)),
            Some(OpenEnd::View(view)) => Ok(Origin::View(view)),
            _ => Err((None, FaultKind::BadJob)),
        }
    }

    fn raw(&self, end: EndIndex) -> Wrote<&'a Raw> {
        match self.ends.get(usize::from(end.0)) {
            Some(OpenEnd::Raw(raw)) => Ok(raw),
            Some(OpenEnd::NullBlock | OpenEnd::NullStream) => Err(destination(FaultKind::Null)),
            _ => Err((None, FaultKind::BadJob)),
        }
    }

    fn tape(&self, end: EndIndex) -> Wrote<&'a Mutex<Tape>> {
        match self.ends.get(usize::from(end.0)) {
            Some(OpenEnd::Tape(tape)) => Ok(tape),
            Some(OpenEnd::NullBlock | OpenEnd::NullStream) => Err(destination(FaultKind::Null)),
            _ => Err((None, FaultKind::BadJob)),
        }
    }
}

const fn through_buffers(buffers: u64) -> ByMethod {
    ByMethod { reference: 0, kernel: 0, buffers, holes: 0 }
}

/// A write behind the LUN's end is the segment's fault, not the file's.
fn at_end(error: &std::io::Error) -> FaultKind {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => FaultKind::OutOfRange,
        _ => write_fault(error),
    }
}
