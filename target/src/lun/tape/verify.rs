//! VERIFY(6): blocks and filemarks are read and held against their framing and their sums, and with BYTCMP against Data-Out.
//!
//! VTE goes to the end of data and counts nothing: INFORMATION is not valid where it fails. VBF counts filemarks. VLBPM wants of each block
//! that the medium has protection information of the method that the mode page names; there it is always a CRC32C, so that any other
//! method fails at the first block. Blocks that were placed without sums get them. Follows SSC-4, "VERIFY(6) command".

use protocol::cartridge::index::SumState;
use protocol::scsi::ssc::Transfer6Cdb;
use protocol::scsi::{FieldPointer, Sense};

use super::drive::{Drive, end_of_data, incorrect_length, is_record};
use super::protection::Method;
use super::transfer::{Direction, Parts, Reader, fixed_total};
use super::{Tape, operation};
use crate::cartridge::ReadError;
use crate::lun::common::{Lasting, Operation};
use crate::task::{Response, Task};

/// Objects verified while the drive is held, in the background: what asks the drive for its counters waits no longer than for these.
const OBJECTS_AT_ONCE: u64 = 64;

/// VERIFY(6).
pub fn verify(tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: Transfer6Cdb = task.cdb.read();
    let mut verifying = Verifying {
        extent: extent(tape, task, &cdb)?,
        compare: cdb.byte_compare().then(|| Parts::of(task)),
        method: protected_by(tape, &cdb)?,
        reader: Reader { decoder: tape.decoder(task), protection: None, direction: Direction::Forward },
        done: 0,
    };
    let immediate = cdb.verify_immediate();
    let at_once = if immediate { OBJECTS_AT_ONCE } else { u64::MAX };
    Ok(Lasting {
        told: operation::VERIFY,
        immediate,
        check: Box::new(|tape| tape.work(|drive| drive.synchronize().map(|()| Response::good()))),
        run: Box::new(move |tape, operation| {
            let mut ended = false;
            while !ended && !operation.is_stopped() {
                let verified = tape.work(|drive| {
                    ended = verifying.some(drive, at_once, operation)?;
                    Ok(Response::good())
                })?;
                // BUSY: a copy has the drive.
                if verified != Response::good() {
                    return Ok(verified);
                }
            }
            Ok(Response::good())
        }),
    })
}

/// How far a VERIFY goes.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// So many blocks of one length: with FIXED VERIFICATION LENGTH counts blocks, else the bytes of one.
    Blocks { count: u64, length: u32, fixed: bool },
    /// VBF: behind so many filemarks. With FIXED every block on the way has to be of this length.
    Filemarks { count: u64, length: Option<u32> },
    /// VTE; as above.
    EndOfData { length: Option<u32> },
}

fn extent(tape: &Tape, task: &Task, cdb: &Transfer6Cdb) -> Result<Extent, Sense> {
    let length = cdb.transfer_length.get();
    let refused = |bit| Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, bit)));
    if cdb.verify_to_end_of_data() || cdb.verify_by_filemarks() {
        let block_length = tape.settings().block_length;
        let checked = cdb.fixed().then_some(block_length);
        return match (cdb.verify_to_end_of_data(), cdb.verify_by_filemarks(), cdb.byte_compare()) {
            (_, _, true) => refused(1),
            (true, true, _) => refused(3),
            _ if checked == Some(0) => refused(0),
            (true, ..) => Ok(Extent::EndOfData { length: checked }),
            _ => Ok(Extent::Filemarks { count: length.into(), length: checked }),
        };
    }
    let (extent, total) = if cdb.fixed() {
        let block_length = tape.settings().block_length;
        let total = fixed_total(length, block_length)?;
        (Extent::Blocks { count: length.into(), length: block_length, fixed: true }, total)
    } else {
        (Extent::Blocks { count: u64::from(length > 0), length, fixed: false }, length.into())
    };
    if cdb.byte_compare() && cdb.verify_immediate() {
        return refused(2);
    }
    if cdb.byte_compare() && task.data_out_len() < total {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)));
    }
    Ok(extent)
}

/// VLBPM: the method that the mode page names. Without one there is nothing that could be verified.
fn protected_by(tape: &Tape, cdb: &Transfer6Cdb) -> Result<Option<Method>, Sense> {
    if !cdb.verify_protection_method() {
        return Ok(None);
    }
    let method = tape.settings().protection.method;
    method.map(Some).ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4)))
}

struct Verifying {
    extent: Extent,
    compare: Option<Parts>,
    /// What has to protect each block on the medium.
    method: Option<Method>,
    reader: Reader,
    /// Blocks or filemarks, as they are counted.
    done: u64,
}

impl Verifying {
    /// At most `at_once` objects; true when there is nothing left to verify.
    fn some(&mut self, drive: &mut Drive, at_once: u64, operation: &Operation) -> Result<bool, Sense> {
        for _ in 0..at_once {
            let ended = match self.extent {
                Extent::Blocks { count, .. } | Extent::Filemarks { count, .. } => self.done >= count,
                Extent::EndOfData { .. } => drive.position().object >= drive.medium()?.end().object,
            };
            if ended || operation.is_stopped() {
                return Ok(ended);
            }
            self.one(drive).map_err(|sense| self.counted(sense))?;
            match self.extent {
                Extent::Blocks { count, .. } | Extent::Filemarks { count, .. } => operation.advance(self.done, count),
                Extent::EndOfData { .. } => operation.advance(drive.position().object, drive.medium()?.end().object),
            }
        }
        Ok(false)
    }

    /// With VTE nothing was counted: VALID stays clear.
    fn counted(&self, sense: Sense) -> Sense {
        match self.extent {
            Extent::EndOfData { .. } => Sense { information: None, ..sense },
            _ => sense,
        }
    }

    fn one(&mut self, drive: &mut Drive) -> Result<(), Sense> {
        drive.medium()?;
        let at = drive.position().object;
        let entry = drive.medium()?.object(at).map_err(|error| drive.read_sense(&ReadError::Io(error)))?;
        let residual = self.residual();
        match (self.extent, &entry) {
            (Extent::Filemarks { .. }, None) => return Err(end_of_data(Some(residual))),
            (Extent::Filemarks { .. } | Extent::EndOfData { .. }, Some(mark)) if !is_record(mark) => {
                drive.next_object()?;
                self.done += 1;
                return Ok(());
            }
            _ => {}
        }
        if let (Some(method), Some(block)) = (self.method, entry.as_ref().filter(|entry| is_record(entry)))
            && (method != Method::Crc32c || block.sum_state != SumState::Known)
        {
            return Err(Sense::LOGICAL_BLOCK_PROTECTION_METHOD_ERROR.with_information(residual as u64));
        }
        let (data, _) = self.reader.next(drive, residual)?;
        if let Some(entry) = entry.filter(|entry| entry.sum_state == SumState::Absent) {
            // Placed by reference: from now on later damage is seen.
            let recomputed = drive.medium_mut()?.recompute(&entry);
            recomputed.map_err(|error| drive.read_sense(&error))?;
            drive.count_sum(entry.length);
        }
        let wrong = |length: u32| data.len() as u64 != u64::from(length);
        if let Extent::Filemarks { length: Some(length), .. } | Extent::EndOfData { length: Some(length) } = self.extent
            && wrong(length)
        {
            return Err(incorrect_length(residual));
        }
        if let Extent::Blocks { length, fixed, .. } = self.extent {
            if wrong(length) {
                return Err(incorrect_length(if fixed { residual } else { residual - data.len() as i64 }));
            }
            if let Some(parts) = &mut self.compare
                && data != parts.take(length).concat()
            {
                return Err(Sense::MISCOMPARE_DURING_VERIFY_OPERATION.with_information(residual as u64));
            }
            self.done += 1;
        }
        Ok(())
    }

    /// INFORMATION of a VERIFY that ends here: what was asked for and not verified.
    fn residual(&self) -> i64 {
        match self.extent {
            Extent::Blocks { length, fixed: false, .. } => length.into(),
            Extent::Blocks { count, .. } | Extent::Filemarks { count, .. } => (count - self.done) as i64,
            Extent::EndOfData { .. } => 0,
        }
    }
}
