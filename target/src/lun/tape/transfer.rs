//! READ, READ REVERSE, WRITE and WRITE FILEMARKS. SSC-4.

use bytes::{Bytes, BytesMut};
use protocol::cartridge::TapePosition;
use protocol::scsi::ssc::{Transfer6Cdb, WriteFilemarks16Cdb};
use protocol::scsi::{FieldPointer, Sense};

use super::Tape;
use super::codec::{Decoder, Encoded, Encoder};
use super::drive::{self, Drive, beginning, end_of_data, filemark, incorrect_length, is_record};
use super::mode::Settings;
use super::protection::Method;
use crate::lun::common::Reply;
use crate::task::{Response, Task};

/// Most bytes a READ(6) of fixed blocks moves: it bounds the memory of one command.
const MAX_TRANSFER: u64 = 64 << 20;

/// Records split off Data-Out and handed to the cartridge at once.
const RECORDS_AT_ONCE: usize = 1024;

/// READ(6).
pub fn read(tape: &Tape, task: &Task) -> Reply {
    read_either_way(tape, task, Direction::Forward)
}

/// READ REVERSE(6).
pub fn read_reverse(tape: &Tape, task: &Task) -> Reply {
    let cdb: Transfer6Cdb = task.cdb.read();
    let forward_bytes = cdb.byte_order();
    read_either_way(tape, task, Direction::Reverse { forward_bytes })
}

/// Which of the neighbours of the position is read, and how its bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// As they were written.
    Forward,
    /// The block in front of the position; without BYTORD its last byte comes first.
    Reverse {
        /// BYTORD.
        forward_bytes: bool,
    },
}

fn read_either_way(tape: &Tape, task: &Task, direction: Direction) -> Reply {
    let cdb: Transfer6Cdb = task.cdb.read();
    let length = cdb.transfer_length.get();
    let settings = *tape.settings();
    let reader = Reader { decoder: tape.decoder(task), protection: settings.protects_reads(), direction };
    if !cdb.fixed() {
        let tolerant = cdb.suppress_incorrect_length();
        return tape.with_medium(|drive| reader.variable(drive, length, tolerant, settings.block_length));
    }
    if cdb.suppress_incorrect_length() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 1)));
    }
    fixed_total(length, settings.block_length)?;
    tape.with_medium(|drive| reader.fixed(drive, length, settings.block_length))
}

/// Bytes of so many blocks.
pub(super) fn fixed_total(blocks: u32, block_length: u32) -> Result<u64, Sense> {
    if block_length == 0 {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 0)));
    }
    let total = u64::from(blocks) * u64::from(block_length);
    if total > MAX_TRANSFER { Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2))) } else { Ok(total) }
}

/// How records come off the medium.
#[derive(Debug)]
pub(super) struct Reader {
    /// What makes of a stored record what the initiator wrote.
    pub decoder: Decoder,
    /// Protection information behind each block.
    pub protection: Option<Method>,
    /// Which way.
    pub direction: Direction,
}

impl Reader {
    fn variable(&self, drive: &mut Drive, length: u32, tolerant: bool, block_length: u32) -> Reply {
        if length == 0 {
            drive.medium()?;
            return Ok(Response::good());
        }
        let (mut data, whole) = self.next(drive, length.into())?;
        data.truncate(length as usize);
        let residual = i64::from(length) - whole as i64;
        // With SILI a longer record is an error only where a block length has been set.
        let wrong = residual != 0 && (!tolerant || (residual < 0 && block_length != 0));
        Ok(if wrong { Response { data_in: vec![data], ..incorrect_length(residual).into() } } else { Response::data(data) })
    }

    fn fixed(&self, drive: &mut Drive, blocks: u32, block_length: u32) -> Reply {
        let mut data = BytesMut::new();
        drive.medium()?;
        for done in 0..blocks {
            let residual = i64::from(blocks - done);
            let block = self.next(drive, residual).and_then(|(block, whole)| match whole == u64::from(block_length) {
                true => Ok(block),
                false => Err(incorrect_length(residual)),
            });
            match block {
                Ok(block) => data.extend_from_slice(&block),
                Err(sense) => return Ok(Response { data_in: vec![data.freeze()], ..sense.into() }),
            }
        }
        Ok(Response::data(data.freeze()))
    }

    /// The next record as the initiator is to see it, and its length. The position is on the far side of it, and of a filemark; it
    /// stays in front of a record that cannot be decrypted.
    pub fn next(&self, drive: &mut Drive, residual: i64) -> Result<(Bytes, u64), Sense> {
        let before = drive.position();
        let forward = self.direction == Direction::Forward;
        let entry = if forward { drive.next_object()? } else { drive.previous_object()? };
        let Some(entry) = entry else {
            return Err(if forward { end_of_data(Some(residual)) } else { beginning(residual) });
        };
        if !is_record(&entry) {
            return Err(filemark(residual));
        }
        let read = drive.medium()?.read(&entry);
        let stored = read.map_err(|error| drive.read_sense(&error).with_information(residual as u64))?;
        let record = self.decoder.decode(stored, entry.wrapped).map_err(|refused| {
            drive.set_position(before);
            refused.with_information(residual as u64)
        })?;
        drive.count_read(record.len() as u64, entry.length.into());
        let mut record = match self.protection {
            Some(method) => [&record[..], &method.of(std::iter::once(&record[..]))].concat().into(),
            None => record,
        };
        if self.direction == (Direction::Reverse { forward_bytes: false }) {
            record = record.iter().rev().copied().collect::<Vec<u8>>().into();
        }
        let length = record.len() as u64;
        Ok((record, length))
    }
}

/// WRITE(6).
pub fn write(tape: &Tape, task: &Task) -> Reply {
    let cdb: Transfer6Cdb = task.cdb.read();
    let length = cdb.transfer_length.get();
    let settings = *tape.settings();
    let (records, record_length) = match (cdb.fixed(), length) {
        (_, 0) => return tape.with_medium(|drive| drive.medium().map(|_| Response::good())),
        (true, _) => {
            fixed_total(length, settings.block_length)?;
            (length, settings.block_length)
        }
        (false, _) => (1, length),
    };
    let protection = settings.protects_writes();
    if protection.is_some() && record_length <= Method::LENGTH.into() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)));
    }
    let wanted = u64::from(records) * u64::from(record_length);
    if task.data_out_len() < wanted {
        // Half a record is none: nothing is written of a command whose data is not all there.
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)));
    }
    let mut writer = Writer { parts: Parts::of(task), encoder: tape.encoder(task, &settings)?, protection, settings };
    tape.with_medium(|drive| {
        let from = drive.position();
        let outcome = writer.write(drive, records, record_length);
        // In bytes for variable, in blocks for fixed blocks.
        let unit = if cdb.fixed() { 1 } else { u64::from(record_length) };
        complete(drive, outcome, u64::from(records) * unit, unit, &Ending::of(&settings, from, !settings.buffered))
    })
}

/// How records get onto the medium.
struct Writer {
    parts: Parts,
    encoder: Encoder,
    protection: Option<Method>,
    settings: Settings,
}

impl Writer {
    fn write(&mut self, drive: &mut Drive, records: u32, record_length: u32) -> Result<Wrote, Sense> {
        let mut all = Wrote { objects: 0, early_warning: false, failed: None };
        drive.permit_software(&self.settings)?;
        drive.medium_for_append(self.settings.append_only)?;
        while all.objects < u64::from(records) && all.failed.is_none() {
            let left = records as usize - all.objects as usize;
            let (batch, failed) = self.batch(left.min(RECORDS_AT_ONCE), record_length);
            let data: u64 = batch.iter().map(|record| record.length).sum();
            let written = drive.medium_mut()?.append_records(batch.iter().map(|record| record.stored.as_ref()));
            drive.set_position(written.position);
            let stored = batch.iter().take(written.objects as usize);
            let (data, stored) = match written.error {
                None => (data, stored.map(|record| record.stored.length()).sum()),
                Some(_) => stored.fold((0, 0), |sum, record| (sum.0 + record.length, sum.1 + record.stored.length())),
            };
            drive.count_written(written.objects, data, stored);
            all.objects += written.objects;
            all.early_warning = written.early_warning;
            all.failed = written.error.map(|error| drive.write_sense(&error)).or(failed);
        }
        Ok(all)
    }

    /// Records as they are to lie on the medium, up to one whose protection information is wrong.
    fn batch(&mut self, count: usize, record_length: u32) -> (Vec<Encoded>, Option<Sense>) {
        let mut batch = Vec::with_capacity(count);
        for _ in 0..count {
            let mut record = self.parts.take(record_length);
            if let Some(method) = self.protection {
                match method.check(record) {
                    Some(checked) => record = checked,
                    None => return (batch, Some(Sense::LOGICAL_BLOCK_GUARD_CHECK_FAILED)),
                }
            }
            match self.encoder.encode(record) {
                Ok(encoded) => batch.push(encoded),
                Err(sense) => return (batch, Some(sense)),
            }
        }
        (batch, None)
    }
}

/// What a run of writes came to.
struct Wrote {
    objects: u64,
    early_warning: bool,
    /// Why not all were written.
    failed: Option<Sense>,
}

/// Data-Out, cut into records without a copy.
pub(super) struct Parts {
    parts: std::vec::IntoIter<Bytes>,
    rest: Bytes,
}

impl Parts {
    /// All that came.
    pub fn of(task: &Task) -> Self {
        Self { parts: task.data_out.clone().into_iter(), rest: Bytes::new() }
    }

    /// The next so many bytes, or what is left.
    pub fn take(&mut self, length: u32) -> Vec<Bytes> {
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

/// What holds at the end of a command that wrote.
struct Ending {
    /// What was written has to be on the medium when the status comes.
    sync: bool,
    /// Bytes of the programmable early-warning zone.
    zone: u64,
    /// Where the command began to write.
    from: TapePosition,
}

impl Ending {
    const fn of(settings: &Settings, from: TapePosition, sync: bool) -> Self {
        Self { sync, zone: settings.zone(), from }
    }
}

/// The end of a command that wrote: `wanted` and the residual are in units, of which each object is `unit`.
fn complete(drive: &mut Drive, outcome: Result<Wrote, Sense>, wanted: u64, unit: u64, ending: &Ending) -> Reply {
    let wrote = outcome.map_err(|sense| sense.with_information(wanted))?;
    if let Some(sense) = wrote.failed {
        return Err(sense.with_information(wanted - wrote.objects * unit));
    }
    // SEW of the device configuration mode page: what was accepted is on the medium when the warning is told.
    let first_warning = wrote.early_warning && !drive.warned;
    drive.warned = wrote.early_warning;
    if ending.sync || first_warning {
        drive.synchronize()?;
    }
    if wrote.early_warning {
        return Err(drive::early_warning());
    }
    // Told once, by the command that crosses the point.
    if drive.programmable_early_warning(ending.zone, drive.position())
        && !drive.programmable_early_warning(ending.zone, ending.from)
    {
        return Err(drive::programmable_early_warning());
    }
    Ok(Response::good())
}

/// WRITE FILEMARKS(6).
pub fn write_filemarks_6(tape: &Tape, task: &Task) -> Reply {
    let cdb: Transfer6Cdb = task.cdb.read();
    let settings = *tape.settings();
    tape.with_medium(|drive| write_filemarks(drive, &settings, cdb.transfer_length.get(), cdb.immediate()))
}

/// WRITE FILEMARKS(16). The drive has implicit addresses: it writes where it stands, so the identifier has to be that of its place.
pub fn write_filemarks_16(tape: &Tape, task: &Task) -> Reply {
    let cdb: WriteFilemarks16Cdb = task.cdb.read();
    let settings = *tape.settings();
    tape.with_medium(|drive| {
        let writes = cdb.filemark_count.get() != 0;
        if writes && usize::from(cdb.partition) != drive.partition() {
            return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(3)));
        }
        if writes && cdb.logical_object.get() != drive.position().object {
            return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(4)));
        }
        write_filemarks(drive, &settings, cdb.filemark_count.get(), cdb.immediate())
    })
}

/// None at all is the order to synchronize.
fn write_filemarks(drive: &mut Drive, settings: &Settings, count: u32, immediate: bool) -> Reply {
    if count == 0 {
        drive.synchronize()?;
        return Ok(Response::good());
    }
    drive.permit_software(settings)?;
    let from = drive.position();
    let appended = drive.medium_for_append(settings.append_only).map(|medium| medium.append_filemarks(count));
    let outcome = appended.map(|written| {
        drive.set_position(written.position);
        drive.count_filemarks(written.objects);
        let failed = written.error.map(|error| drive.write_sense(&error));
        Wrote { objects: written.objects, early_warning: written.early_warning, failed }
    });
    complete(drive, outcome, count.into(), 1, &Ending::of(settings, from, !immediate))
}
