//! How tapes are written: records placed and batched behind the commit word, by their bytes or by reference, and published together.
//!
//! What of a batch is still to be written is [`super::super::batch`]'s to know. Reads a disk only where its blocks cannot be referred to.
//!
//! Follows the order of writes of [`protocol::cartridge::append`].

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use protocol::cartridge::append::{Durability, Placement};
use protocol::cartridge::report::{Appended, TapeReport};
use protocol::cartridge::sums::RecordSum;
use protocol::mover::{ByMethod, EndIndex, FaultKind, Question, Transfer};
use protocol::scsi::sense::CopyEnd;

use super::super::direct::{self, Origin};
use super::super::ends::cartridge::Tape;
use super::super::ends::raw::PARTS_AT_ONCE;
use super::{Record, Writer, Wrote, destination, through_buffers};

/// Records are written together from so many bytes on: one system call, while the processor's cache still has them.
const WRITTEN_TOGETHER: u64 = 1 << 20;
/// Records are published together from so many bytes on: one commit word, and one report.
const BATCH: u64 = 8 << 20;
/// Objects are published together up to so many: what a report of them takes is bounded.
const OBJECTS: usize = 1024;

impl<'a> Writer<'a> {
    pub(super) fn append_records(&mut self, end: EndIndex, records: Vec<Record>) -> Wrote {
        self.keep_pace();
        let tape = self.begin_append(end)?;
        let (mut bytes, mut warned) = (0, false);
        let count = records.len() as u32;
        for (index, (data, sum)) in records.into_iter().enumerate() {
            let length: usize = data.iter().map(Bytes::len).sum();
            let sum = sum.unwrap_or_else(|| RecordSum::of_parts(data.iter().map(|part| &part[..])));
            let placement = self.placed(tape, |tape| tape.place_record(length as u32), count, index as u32)?;
            warned |= placement.early_warning;
            bytes += length as u64;
            self.batch.add(end, &placement, data, sum);
        }
        self.batch.data += through_buffers(bytes);
        self.end_of_command(warned)
    }

    /// Places an object of a write command of `count`, of which `done` are placed; what is placed counts where there is no room.
    fn placed(
        &mut self,
        tape: &Mutex<Tape>,
        place: impl FnOnce(&mut Tape) -> Result<Placement, FaultKind>,
        count: u32,
        done: u32,
    ) -> Wrote<Placement> {
        let placed = place(&mut tape.lock().expect("no holder panics"));
        match placed {
            Ok(placement) => Ok(placement),
            Err(kind) => {
                self.flush()?;
                Err(destination(in_this_command(kind, count.into(), done.into())))
            }
        }
    }

    fn end_of_command(&mut self, warned: bool) -> Wrote {
        if warned {
            self.flush()?;
            return Err(destination(FaultKind::EarlyWarning));
        }
        if self.batch.bytes >= BATCH || self.batch.appended.len() >= OBJECTS {
            self.flush()
        } else if self.batch.unwritten >= WRITTEN_TOGETHER || self.batch.parts() >= PARTS_AT_ONCE - 8 {
            self.write_out()
        } else {
            Ok(())
        }
    }

    /// Whole records that refer to blocks of a disk. What cannot is copied, with its sums: whether all could is given back.
    pub(super) fn refer(
        &mut self,
        from: EndIndex,
        mut from_at: u64,
        end: EndIndex,
        transfer: Transfer,
        count: u64,
    ) -> Wrote<bool> {
        let (origin, mut all) = (self.origin(from)?, true);
        for _ in 0..count {
            if self.shared.control.cancelled.load(Ordering::Relaxed) {
                return Ok(all);
            }
            self.keep_pace();
            let tape = self.begin_append(end)?;
            let mut warned = false;
            for done in 0..transfer.records {
                let place = |tape: &mut Tape| tape.preview_record(transfer.record);
                let data_at = self.placed(tape, place, transfer.records, done)?.data_at();
                let data = self.record_data(origin, from_at, tape, data_at, transfer.record)?;
                let placement = self.placed(tape, |tape| tape.place_record(transfer.record), transfer.records, done)?;
                warned |= placement.early_warning;
                all &= data.is_none();
                self.put_record(end, &placement, data)?;
                from_at += u64::from(transfer.record);
            }
            self.end_of_command(warned)?;
        }
        Ok(all)
    }

    /// Lets the bytes of the image from `data_at` on refer to those of a disk; gives these where that cannot be.
    fn record_data(&mut self, from: Origin<'_>, at: u64, tape: &Mutex<Tape>, data_at: u64, length: u32) -> Wrote<Option<Bytes>> {
        let referred = {
            let tape = tape.lock().expect("no holder panics");
            tape.blocks().is_some_and(|blocks| direct::refer(from, at, blocks, data_at, length.into()))
        };
        if referred {
            return Ok(None);
        }
        match direct::read(from, at, length) {
            Ok(data) => Ok(Some(data)),
            Err(failed) => {
                self.flush()?;
                Err(failed)
            }
        }
    }

    /// A record with its data, or around data that is in its place by reference.
    fn put_record(&mut self, end: EndIndex, placement: &Placement, data: Option<Bytes>) -> Wrote {
        let len = u64::from(placement.length);
        match data {
            Some(data) => {
                let sum = RecordSum::of(&data);
                self.batch.add(end, placement, vec![data], sum);
                self.batch.data += through_buffers(len);
            }
            None => {
                self.batch.begin(end, placement);
                self.write_out()?;
                self.batch.add_referred(placement);
                self.batch.data += ByMethod { reference: len, ..ByMethod::default() };
            }
        }
        Ok(())
    }

    pub(super) fn append_filemarks(&mut self, end: EndIndex, count: u32, immediate: bool) -> Wrote {
        let mut warned = false;
        if count > 0 {
            let tape = self.begin_append(end)?;
            for left in (1..=count).rev() {
                let placement = self.placed(tape, Tape::place_filemark, left, 0)?;
                warned |= placement.early_warning;
                self.batch.add(end, &placement, Vec::new(), RecordSum::default());
                if self.batch.appended.len() >= OBJECTS {
                    self.flush()?;
                }
            }
        }
        if !immediate {
            self.flush_to(Durability::Power, end)?;
        }
        if warned {
            self.flush()?;
            return Err(destination(FaultKind::EarlyWarning));
        }
        Ok(())
    }

    /// Makes sure that this tape is the batch's, and that it may be appended to.
    fn begin_append(&mut self, end: EndIndex) -> Wrote<&'a Mutex<Tape>> {
        let tape = self.tape(end)?;
        if self.batch.end.is_some_and(|other| other != end) {
            self.flush()?;
        }
        let mut state = tape.lock().expect("no holder panics");
        if !state.writable() {
            return Err(destination(FaultKind::WriteProtected));
        }
        if state.needs_leave() {
            let at = state.at();
            let image = self.link.ask(Question::Append { end, at }).map_err(destination)?;
            state.leave_given(image.ok_or(destination(FaultKind::BadJob))?).map_err(destination)?;
        }
        drop(state);
        Ok(tape)
    }

    pub(super) fn flush(&mut self) -> Wrote {
        match self.batch.end {
            Some(end) => self.flush_to(Durability::Process, end),
            None => Ok(()),
        }
    }

    /// Writes what is placed, and gives the buffers back.
    pub(super) fn write_out(&mut self) -> Wrote {
        let (Some(end), true) = (self.batch.end, self.batch.parts() > 0) else { return Ok(()) };
        let (at, parts) = self.batch.take_parts();
        let written = self.tape(end)?.lock().expect("no holder panics").write_placed(at, &parts);
        written.map_err(|kind| self.lost(end, kind))
    }

    /// Nothing of the batch counts: the first segment in it is the one that failed.
    fn lost(&mut self, end: EndIndex, kind: FaultKind) -> (Option<CopyEnd>, FaultKind) {
        let batch = std::mem::take(&mut self.batch);
        if let Ok(tape) = self.tape(end) {
            tape.lock().expect("no holder panics").abandon();
        }
        if let Some((account, _)) = batch.earlier {
            self.current = account;
        }
        destination(full(kind, batch.appended.first().map_or(0, |first| first.length)))
    }

    /// Writes and commits what is placed, and reports it.
    pub(super) fn flush_to(&mut self, durability: Durability, end: EndIndex) -> Wrote {
        if self.batch.end.is_some_and(|other| other != end) {
            self.flush()?;
        }
        self.write_out()?;
        let committed = self.tape(end)?.lock().expect("no holder panics").commit(durability);
        committed.map_err(|kind| self.lost(end, kind))?;
        let batch = std::mem::take(&mut self.batch);
        let report = self.report(end, batch.appended)?;
        self.link.tape(end, report);
        if let Some((_, data)) = batch.earlier {
            self.total += data;
            self.shared.control.book(data.total());
        }
        self.count(batch.data);
        Ok(())
    }

    pub(super) fn report(&self, end: EndIndex, appended: Vec<Appended>) -> Wrote<TapeReport> {
        let tape = self.tape(end)?.lock().expect("no holder panics");
        Ok(TapeReport { appended, position: tape.at(), synced: tape.synced() })
    }
}

/// A file system without room is a volume that is full, as the drive says it to hosts; nothing of the batch was written, its
/// first record of `length` bytes neither.
const fn full(kind: FaultKind, length: u32) -> FaultKind {
    match kind {
        FaultKind::Write(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => FaultKind::EndOfPartition { residual: length as i64 },
        other => other,
    }
}

/// A residual counts what the command that failed was to write: records of a transfer, or filemarks.
const fn in_this_command(kind: FaultKind, count: i64, done: i64) -> FaultKind {
    match kind {
        FaultKind::EndOfPartition { residual } if count == 1 => FaultKind::EndOfPartition { residual },
        FaultKind::EndOfPartition { .. } => FaultKind::EndOfPartition { residual: count - done },
        other => other,
    }
}
