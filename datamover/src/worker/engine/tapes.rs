//! How tapes are read: records and filemarks as they are, and records that a transfer takes.
//!
//! Never ahead: "The copy manager shall not read ahead from copy sources of the stream device type". Positions nothing by itself.
//!
//! Follows SPC-4, "EXTENDED COPY command processing" and "Stream device transfer lengths".

use std::io::IoSliceMut;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use protocol::cartridge::sums::RecordSum;
use protocol::mover::{EndIndex, FaultKind, Transfer};
use protocol::xcopy::MAX_STREAM_TRANSFER;

use super::super::buffers::{BUFFER, Buffer};
use super::super::ends::cartridge::{Next, Tape};
use super::super::fifo::{Fifo, Place};
use super::super::remote::{Following, RemoteTape};
use super::{Engine, Halt, Op, OpenEnd, Run, source_fault};

/// A tape that is read.
enum Drive<'a> {
    Here(MutexGuard<'a, Tape>),
    Remote(&'a RemoteTape),
}

impl Engine<'_> {
    /// Records and filemarks one by one as they are, beside the residue.
    pub(super) fn tape_image(&mut self, segment: u32, from: EndIndex, to: EndIndex, filemarks: u32) -> Run {
        self.begin(segment, 0, None)?;
        self.settle_writes()?;
        if from == to {
            return Err(Halt::Fault(None, FaultKind::BadJob));
        }
        self.is_tape(to)?;
        if let OpenEnd::RemoteTape(source) = self.end(from)? {
            return self.remote_tape_image(source, to, filemarks);
        }
        let source = self.tape(from)?;
        let mut in_a_row = 0;
        loop {
            let next = source.lock().expect("no holder panics").look().map_err(source_fault)?;
            match next {
                Next::EndOfData => return Ok(()),
                Next::Filemark => {
                    source.lock().expect("no holder panics").pass_object().map_err(source_fault)?;
                    self.send(Op::Filemarks { end: to, count: 1, immediate: true })?;
                    in_a_row += 1;
                    if in_a_row == filemarks {
                        return Ok(());
                    }
                }
                Next::Record { length } => {
                    in_a_row = 0;
                    let data = self.read_one_record(source, length)?;
                    let sum = RecordSum::of_parts(data.iter().map(|part| &part[..]));
                    self.send(Op::Records { end: to, records: vec![(data, Some(sum))] })?;
                }
            }
        }
    }

    /// The same from a tape that says what follows only when it is read.
    fn remote_tape_image(&mut self, source: &RemoteTape, to: EndIndex, filemarks: u32) -> Run {
        let mut in_a_row = 0;
        loop {
            match source.read_following(self.cancelled()).map_err(source_fault)? {
                Following::EndOfData => return Ok(()),
                Following::Filemark => {
                    self.send(Op::Filemarks { end: to, count: 1, immediate: true })?;
                    in_a_row += 1;
                    if in_a_row == filemarks {
                        return Ok(());
                    }
                }
                Following::Record(data) => {
                    in_a_row = 0;
                    let length: u64 = data.iter().map(|part| part.len() as u64).sum();
                    self.shared.read.fetch_add(length, Ordering::Relaxed);
                    let sum = RecordSum::of_parts(data.iter().map(|part| &part[..]));
                    self.send(Op::Records { end: to, records: vec![(data, Some(sum))] })?;
                    // The record lies in no buffer of the pool: only one of them waits at a time.
                    self.settle_writes()?;
                }
            }
        }
    }

    fn read_one_record(&mut self, tape: &Mutex<Tape>, length: u32) -> Run<Vec<Bytes>> {
        if length > MAX_STREAM_TRANSFER {
            return Err(source_fault(FaultKind::Torn));
        }
        let mut memory = Vec::new();
        for _ in 0..(length as usize).div_ceil(BUFFER) {
            memory.push(self.pool.take(&self.shared.stopped).ok_or(Halt::Stopped)?);
        }
        let read = tape.lock().expect("no holder panics").read_record(&mut pieces(&mut memory, 0, length as usize));
        read.map_err(source_fault)?;
        self.shared.read.fetch_add(u64::from(length), Ordering::Relaxed);
        let mut rest = length as usize;
        let parts = memory.into_iter().map(|buffer| {
            let len = rest.min(BUFFER);
            rest -= len;
            buffer.freeze(len)
        });
        Ok(parts.collect())
    }

    /// Whole transfers, as many as are needed and one buffer holds, or one that takes several buffers.
    pub(super) fn read_records(&mut self, end: EndIndex, transfer: Transfer, needed: u64) -> Run {
        let mut tape = match self.end(end)? {
            OpenEnd::Tape(tape) => Drive::Here(tape.lock().expect("no holder panics")),
            OpenEnd::RemoteTape(tape) => Drive::Remote(tape),
            OpenEnd::NullStream | OpenEnd::NullBlock => return Err(source_fault(FaultKind::Null)),
            OpenEnd::Raw(_) | OpenEnd::View(_) | OpenEnd::RemoteDisk(_) => return Err(Halt::Fault(None, FaultKind::BadJob)),
        };
        let unit = transfer.bytes();
        if unit == 0 {
            return Err(Halt::Fault(None, FaultKind::BadJob));
        }
        let transfers = needed.div_ceil(unit).min((BUFFER as u64 / unit).max(1));
        let mut memory = Vec::new();
        for _ in 0..(transfers * unit).div_ceil(BUFFER as u64) {
            memory.push(self.pool.take(&self.shared.stopped).ok_or(Halt::Stopped)?);
        }
        let (mut done, mut fault, mut places) = (0, None, Vec::new());
        while done < transfers && fault.is_none() {
            for record in 0..transfer.records {
                let at = (done * unit + u64::from(record) * u64::from(transfer.record)) as usize;
                let mut into = pieces(&mut memory, at, transfer.record as usize);
                let read = match &mut tape {
                    Drive::Here(tape) => tape.read_record(&mut into),
                    Drive::Remote(tape) => tape.read_record(self.cancelled(), &mut into),
                };
                if let Err(kind) = read {
                    fault = Some(if transfer.fixed { in_records(kind, transfer.records - record) } else { kind });
                    break;
                }
                let lies_at = if let Drive::Here(tape) = &tape { tape.last_data() } else { None };
                places.push(lies_at.map(|at| Place { end, at }));
            }
            done += u64::from(fault.is_none());
        }
        drop(tape);
        // Data of a command that failed is not used.
        let mut rest = (done * unit) as usize;
        self.shared.read.fetch_add(rest as u64, Ordering::Relaxed);
        let mut data = Fifo::default();
        for buffer in memory {
            let len = rest.min(BUFFER);
            data.push_pooled(buffer.freeze(len));
            rest -= len;
        }
        self.push_records(data, u64::from(transfer.record), places);
        fault.map_or(Ok(()), |kind| Err(source_fault(kind)))
    }

    /// Records that were read become source data. Where they lie in the image is told with them, so that a disk may refer to it.
    fn push_records(&mut self, mut data: Fifo, record: u64, places: Vec<Option<Place>>) {
        for mut place in places {
            // Of a command that failed there are places, but no data.
            for part in data.take(record.min(data.len())) {
                let next = place.map(|Place { end, at }| Place { end, at: at + part.len() as u64 });
                self.source.push_placed(part, place);
                place = next;
            }
        }
    }
}

/// A residual of a fixed-block transfer, in records.
const fn in_records(kind: FaultKind, left: u32) -> FaultKind {
    let residual = left as i64;
    match kind {
        FaultKind::IncorrectLength { .. } => FaultKind::IncorrectLength { residual },
        FaultKind::Filemark { .. } => FaultKind::Filemark { residual },
        FaultKind::EndOfData { .. } => FaultKind::EndOfData { residual },
        other => other,
    }
}

/// `len` bytes from `at` on of buffers that lie one behind the other.
fn pieces(memory: &mut [Buffer], mut at: usize, mut len: usize) -> Vec<IoSliceMut<'_>> {
    let mut pieces = Vec::new();
    for buffer in memory {
        if at < BUFFER && len > 0 {
            let take = len.min(BUFFER - at);
            pieces.push(IoSliceMut::new(&mut buffer[at..at + take]));
            len -= take;
            at += take;
        }
        at -= BUFFER.min(at);
    }
    pieces
}
