//! READ, WRITE, WRITE FILEMARKS and ERASE. SSC-4.

use bytes::{Bytes, BytesMut};
use protocol::scsi::ssc::{Transfer6Cdb, WriteFilemarks16Cdb};
use protocol::scsi::{FieldPointer, Sense};

use super::Tape;
use super::drive::{self, Drive, end_of_data, filemark, incorrect_length, is_record};
use crate::cartridge::Written;
use crate::lun::common::Reply;
use crate::task::{Response, Task};

/// Most bytes a READ(6) of fixed blocks moves: it bounds the memory of one command.
const MAX_TRANSFER: u64 = 64 << 20;

/// Records split off Data-Out and handed to the cartridge at once.
const RECORDS_AT_ONCE: usize = 1024;

/// READ(6).
pub fn read(tape: &Tape, task: &Task) -> Reply {
    let cdb: Transfer6Cdb = task.cdb.read();
    let length = cdb.transfer_length.get();
    let block_length = tape.settings().block_length;
    if !cdb.fixed() {
        let tolerant = cdb.suppress_incorrect_length();
        return tape.with_medium(|drive| read_variable(drive, length, tolerant, block_length));
    }
    if cdb.suppress_incorrect_length() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 1)));
    }
    fixed_total(length, block_length)?;
    tape.with_medium(|drive| read_fixed(drive, length, block_length))
}

/// Bytes of so many blocks.
fn fixed_total(blocks: u32, block_length: u32) -> Result<u64, Sense> {
    if block_length == 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 0)));
    }
    let total = u64::from(blocks) * u64::from(block_length);
    if total > MAX_TRANSFER { Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2))) } else { Ok(total) }
}

fn read_variable(drive: &mut Drive, length: u32, tolerant: bool, block_length: u32) -> Reply {
    if length == 0 {
        drive.medium()?;
        return Ok(Response::good());
    }
    let Some(entry) = drive.next_object()? else { return Err(end_of_data(Some(length.into()))) };
    if !is_record(&entry) {
        return Err(filemark(length.into()));
    }
    let read = drive.medium()?.read(&entry);
    let mut data = read.map_err(|error| drive.read_sense(&error).with_information(length.into()))?;
    data.truncate(length as usize);
    drive.counters.bytes_read += data.len() as u64;
    let residual = i64::from(length) - i64::from(entry.length);
    // With SILI a longer record is an error only where a block length has been set.
    let wrong = residual != 0 && (!tolerant || (residual < 0 && block_length != 0));
    Ok(if wrong { Response { data_in: vec![data], ..incorrect_length(residual).into() } } else { Response::data(data) })
}

fn read_fixed(drive: &mut Drive, blocks: u32, block_length: u32) -> Reply {
    let mut data = BytesMut::new();
    drive.medium()?;
    for done in 0..blocks {
        let residual = i64::from(blocks - done);
        if let Err(sense) = read_block(drive, block_length, residual, &mut data) {
            return Ok(Response { data_in: vec![data.freeze()], ..sense.into() });
        }
    }
    Ok(Response::data(data.freeze()))
}

fn read_block(drive: &mut Drive, block_length: u32, residual: i64, into: &mut BytesMut) -> Result<(), Sense> {
    let Some(entry) = drive.next_object()? else { return Err(end_of_data(Some(residual))) };
    if !is_record(&entry) {
        return Err(filemark(residual));
    }
    if entry.length != block_length {
        return Err(incorrect_length(residual));
    }
    let read = drive.medium()?.read(&entry);
    let data = read.map_err(|error| drive.read_sense(&error).with_information(residual as u64))?;
    drive.counters.bytes_read += data.len() as u64;
    into.extend_from_slice(&data);
    Ok(())
}

/// WRITE(6).
pub fn write(tape: &Tape, task: &Task) -> Reply {
    let cdb: Transfer6Cdb = task.cdb.read();
    let length = cdb.transfer_length.get();
    let (block_length, buffered) = {
        let settings = tape.settings();
        (settings.block_length, settings.buffered)
    };
    let (records, record_length) = match (cdb.fixed(), length) {
        (_, 0) => return tape.with_medium(|drive| drive.medium().map(|_| Response::good())),
        (true, _) => {
            fixed_total(length, block_length)?;
            (length, block_length)
        }
        (false, _) => (1, length),
    };
    let wanted = u64::from(records) * u64::from(record_length);
    if task.data_out_len() < wanted {
        // Half a record is none: nothing is written of a command whose data is not all there.
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)));
    }
    let mut parts = Parts { parts: task.data_out.clone().into_iter(), rest: Bytes::new() };
    tape.with_medium(|drive| {
        let outcome = write_records(drive, &mut parts, records, record_length);
        // In bytes for variable, in blocks for fixed blocks.
        let unit = if cdb.fixed() { 1 } else { u64::from(record_length) };
        complete(drive, outcome, u64::from(records) * unit, unit, !buffered)
    })
}

/// Data-Out, cut into records without a copy.
struct Parts {
    parts: std::vec::IntoIter<Bytes>,
    rest: Bytes,
}

impl Parts {
    fn take(&mut self, length: u32) -> Vec<Bytes> {
        let mut wanted = length as usize;
        let mut record = Vec::with_capacity(1);
        while wanted > 0 {
            if self.rest.is_empty() {
                let Some(next) = self.parts.next() else { break };
                self.rest = next;
            }
            let part = self.rest.split_to(wanted.min(self.rest.len()));
            wanted -= part.len();
            record.push(part);
        }
        record
    }
}

fn write_records(drive: &mut Drive, parts: &mut Parts, records: u32, record_length: u32) -> Result<Written, Sense> {
    let mut all = Written { objects: 0, position: drive.position(), early_warning: false, error: None };
    drive.medium_for_append()?;
    while all.objects < u64::from(records) && all.error.is_none() {
        let left = records as usize - all.objects as usize;
        let batch: Vec<Vec<Bytes>> = (0..left.min(RECORDS_AT_ONCE)).map(|_| parts.take(record_length)).collect();
        let written = drive.medium_mut()?.append_records(&batch);
        drive.set_position(written.position);
        drive.counters.bytes_written += written.objects * u64::from(record_length);
        all = Written { objects: all.objects + written.objects, ..written };
    }
    Ok(all)
}

/// The end of a command that wrote: `wanted` and the residual are in units, of which each object is `unit`.
fn complete(drive: &mut Drive, outcome: Result<Written, Sense>, wanted: u64, unit: u64, sync: bool) -> Reply {
    let written = outcome.map_err(|sense| sense.with_information(wanted))?;
    if let Some(error) = &written.error {
        let residual = wanted - written.objects * unit;
        return Err(drive.write_sense(error).with_information(residual));
    }
    // SEW of the device configuration mode page: what was accepted is on the medium when the warning is told.
    let first_warning = written.early_warning && !drive.warned;
    drive.warned = written.early_warning;
    if sync || first_warning {
        drive.synchronize()?;
    }
    if written.early_warning { Err(drive::early_warning()) } else { Ok(Response::good()) }
}

/// WRITE FILEMARKS(6).
pub fn write_filemarks_6(tape: &Tape, task: &Task) -> Reply {
    let cdb: Transfer6Cdb = task.cdb.read();
    tape.with_medium(|drive| write_filemarks(drive, cdb.transfer_length.get(), cdb.immediate()))
}

/// WRITE FILEMARKS(16). The drive has implicit addresses: it writes where it stands, so the identifier has to be that of its place.
pub fn write_filemarks_16(tape: &Tape, task: &Task) -> Reply {
    let cdb: WriteFilemarks16Cdb = task.cdb.read();
    if cdb.partition != 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(3)));
    }
    tape.with_medium(|drive| {
        if cdb.filemark_count.get() != 0 && cdb.logical_object.get() != drive.position().object {
            return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(4)));
        }
        write_filemarks(drive, cdb.filemark_count.get(), cdb.immediate())
    })
}

/// None at all is the order to synchronize.
fn write_filemarks(drive: &mut Drive, count: u32, immediate: bool) -> Reply {
    if count == 0 {
        drive.synchronize()?;
        return Ok(Response::good());
    }
    let outcome = drive.medium_for_append().map(|cartridge| cartridge.append_filemarks(count));
    if let Ok(written) = &outcome {
        drive.set_position(written.position);
    }
    complete(drive, outcome, count.into(), 1, !immediate)
}

/// ERASE(6), LONG or not: the data ends here, and that is on the medium when the status comes.
pub fn erase(tape: &Tape, _task: &Task) -> Reply {
    tape.with_medium(|drive| {
        drive.medium_for_append()?;
        drive.synchronize()?;
        Ok(Response::good())
    })
}
