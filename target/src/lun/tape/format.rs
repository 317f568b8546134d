//! ERASE, FORMAT MEDIUM, SET CAPACITY and ALLOW OVERWRITE: what changes the medium as a whole, or lets it be changed. SSC-4.

use protocol::scsi::ssc::{AllowOverwriteCdb, Immediate6Cdb, MediumFormat};
use protocol::scsi::{FieldPointer, Sense};

use super::Tape;
use super::drive::Drive;
use super::mode::{Partitioning, Settings};
use crate::cartridge::WriteError;
use crate::lun::common::Reply;
use crate::task::{Response, Task};

/// Below this part of 65,535 a capacity is no use.
const LEAST_PROPORTION: u16 = 655;

/// ERASE(6), LONG or not: the data ends here, and that is on the medium when the status comes. A file that was cut has nothing left
/// that a long erase could overwrite.
pub fn erase(tape: &Tape, _task: &Task) -> Reply {
    let settings = *tape.settings();
    tape.with_medium(|drive| {
        drive.permit_software(&settings)?;
        drive.medium_for_append(settings.append_only)?;
        drive.synchronize()?;
        Ok(Response::good())
    })
}

/// FORMAT MEDIUM: all data is gone, and the medium divided as the medium partition mode page says.
pub fn format_medium(tape: &Tape, task: &Task) -> Reply {
    let cdb: Immediate6Cdb = task.cdb.read();
    let format = MediumFormat::from_code(cdb.format).ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 3)))?;
    let settings = *tape.settings();
    let formatted = tape.with_medium(|drive| {
        permit_change(drive, &settings)?;
        let total = drive.cartridge()?.metadata().usable();
        let sizes = match format {
            MediumFormat::Default => vec![total],
            MediumFormat::Partition | MediumFormat::DefaultThenPartition => settings.partitioning.sizes(total)?,
        };
        drive.format(&sizes)?;
        Ok(Response::good())
    });
    if formatted.is_ok() {
        // What was asked for is on the medium now, and told from there.
        tape.settings().partitioning = Partitioning::default();
    }
    formatted
}

/// SET CAPACITY: as FORMAT MEDIUM with one partition, of a part of the room there is.
pub fn set_capacity(tape: &Tape, task: &Task) -> Reply {
    let cdb: Immediate6Cdb = task.cdb.read();
    let settings = *tape.settings();
    // Zero is the least that the medium can have.
    let proportion = cdb.proportion.get().max(LEAST_PROPORTION);
    tape.with_medium(|drive| {
        permit_change(drive, &settings)?;
        let changed = drive.cartridge_mut()?.change(|metadata| {
            metadata.proportion = proportion;
            metadata.partitions.clear();
        });
        changed.map_err(|error| drive.write_sense(&WriteError::Io(error)))?;
        let total = drive.cartridge()?.metadata().usable();
        drive.format(&[total])?;
        Ok(Response::good())
    })
}

/// The medium as a whole may be changed: it stands at its beginning, and is neither protected nor WORM, nor only to be appended to.
fn permit_change(drive: &mut Drive, settings: &Settings) -> Result<(), Sense> {
    drive.permit_software(settings)?;
    let position = drive.position();
    let cartridge = drive.cartridge()?;
    if position.object != 0 || drive.partition() != 0 {
        return Err(Sense::POSITION_PAST_BEGINNING_OF_MEDIUM);
    }
    if !cartridge.writable() {
        return Err(drive.write_sense(&WriteError::Protected));
    }
    if cartridge.metadata().worm || (settings.append_only && !drive.format_allowed()) {
        return Err(Sense::WORM_MEDIUM_OVERWRITE_ATTEMPTED);
    }
    drive.synchronize()
}

/// ALLOW OVERWRITE: of the current position, which has to be named, or of the medium as a whole.
pub fn allow_overwrite(tape: &Tape, task: &Task) -> Reply {
    let cdb: AllowOverwriteCdb = task.cdb.read();
    tape.with_medium(|drive| {
        drive.medium()?;
        drive.allow_overwrite(false, false);
        match cdb.allow & 0x0F {
            0 => {}
            1 => {
                if usize::from(cdb.partition) != drive.partition() {
                    return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(3)));
                }
                if cdb.logical_object.get() != drive.position().object {
                    return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(4)));
                }
                drive.allow_overwrite(true, false);
            }
            2 => drive.allow_overwrite(false, true),
            _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 3))),
        }
        Ok(Response::good())
    })
}
