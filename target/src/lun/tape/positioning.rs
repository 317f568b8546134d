//! REWIND, SPACE, LOCATE, READ POSITION, LOAD UNLOAD and PREVENT ALLOW MEDIUM REMOVAL. SSC-4.
//!
//! All positioning is a sync point, and is done when the status comes: of a file nothing has to be wound, so IMMED changes nothing.

use std::sync::Arc;

use protocol::scsi::ssc::{
    LoadUnloadCdb, Locate10Cdb, Locate16Cdb, LocateDestination, Report10Cdb, Space6Cdb, Space16Cdb, SpaceCode,
};
use protocol::scsi::ssc_data::Position;
use protocol::scsi::{FieldPointer, Sense};

use super::Tape;
use super::drive::Drive;
use crate::lun::common::{Reply, data_in};
use crate::task::{Response, Task};

/// REWIND.
pub fn rewind(tape: &Tape, _task: &Task) -> Reply {
    tape.with_medium(|drive| drive.rewind().map(|()| Response::good()))
}

/// SPACE(6).
pub fn space_6(tape: &Tape, task: &Task) -> Reply {
    let cdb: Space6Cdb = task.cdb.read();
    space(tape, cdb.code, cdb.count())
}

/// SPACE(16).
pub fn space_16(tape: &Tape, task: &Task) -> Reply {
    let cdb: Space16Cdb = task.cdb.read();
    space(tape, cdb.code, cdb.count())
}

fn space(tape: &Tape, code: u8, count: i64) -> Reply {
    let code = SpaceCode::from_code(code).ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 3)))?;
    tape.with_medium(|drive| drive.space(code, count).map(|()| Response::good()))
}

/// LOCATE(10).
pub fn locate_10(tape: &Tape, task: &Task) -> Reply {
    let cdb: Locate10Cdb = task.cdb.read();
    let partition = cdb.change_partition().then_some((cdb.partition, FieldPointer::cdb(8)));
    tape.with_medium(|drive| {
        change_partition(drive, partition)?;
        drive.locate_object(cdb.logical_object.get().into()).map(|()| Response::good())
    })
}

/// LOCATE(16).
pub fn locate_16(tape: &Tape, task: &Task) -> Reply {
    let cdb: Locate16Cdb = task.cdb.read();
    let partition = cdb.change_partition().then_some((cdb.partition, FieldPointer::cdb(3)));
    let destination = cdb.destination().ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 5)))?;
    let identifier = cdb.logical_identifier.get();
    tape.with_medium(|drive| {
        change_partition(drive, partition)?;
        match destination {
            LocateDestination::Object => drive.locate_object(identifier),
            LocateDestination::File => drive.locate_file(identifier),
            LocateDestination::EndOfData => drive.space(SpaceCode::EndOfData, 0),
        }
        .map(|()| Response::good())
    })
}

/// CP with its PARTITION, and where that stands.
fn change_partition(drive: &mut Drive, partition: Option<(u8, FieldPointer)>) -> Result<(), Sense> {
    let Some((partition, field)) = partition else { return Ok(()) };
    if usize::from(partition) >= drive.cartridge()?.partitions().len() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(field));
    }
    drive.change_partition(partition)
}

/// READ POSITION, short forms. Both tell object numbers.
pub fn read_position_short(tape: &Tape, _task: &Task) -> Reply {
    position(tape, |position| Response::data(position.short()))
}

/// READ POSITION, long form.
pub fn read_position_long(tape: &Tape, _task: &Task) -> Reply {
    position(tape, |position| Response::data(position.long()))
}

/// READ POSITION, extended form: the only one with an allocation length.
pub fn read_position_extended(tape: &Tape, task: &Task) -> Reply {
    let cdb: Report10Cdb = task.cdb.read();
    position(tape, |position| data_in(position.extended(), cdb.allocation_length.get()))
}

fn position(tape: &Tape, form: impl FnOnce(Position) -> Response) -> Reply {
    let zone = tape.settings().zone();
    tape.with_medium(|drive| {
        drive.medium()?;
        let position = drive.position();
        Ok(form(Position {
            partition: drive.partition() as u8,
            object: position.object,
            file: position.file,
            early_warning: drive.early_warning(),
            programmable_early_warning: drive.programmable_early_warning(zone, position),
        }))
    })
}

/// LOAD UNLOAD. Every other nexus is told of a medium that was not there before. RETEN has no tape to retension, EOT none to wind.
pub fn load_unload(tape: &Tape, task: &Task) -> Reply {
    let cdb: LoadUnloadCdb = task.cdb.read();
    if cdb.load() && cdb.end_of_tape() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 2)));
    }
    if !cdb.load() && !cdb.hold() && tape.removal_prevented() {
        return Err(Sense::MEDIUM_REMOVAL_PREVENTED);
    }
    tape.with_medium(|drive| {
        if !cdb.load() {
            drive.unload(cdb.hold())?;
            tape.demounted();
        } else if cdb.hold() {
            // In the drive, where it can be loaded from; the medium is not mounted by this.
            drive.hold()?;
        } else if drive.load()? {
            let condition = Sense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED;
            tape.common.attentions.establish_for_all(&condition, Some(task.nexus.id));
        }
        Ok(Response::good())
    })
}

/// PREVENT ALLOW MEDIUM REMOVAL. A prevention ends with its nexus.
pub fn prevent_allow(tape: &Tape, task: &Task) -> Reply {
    let [_, _, _, _, prevent, ..] = *task.cdb.basic();
    let mut prevented = tape.prevented.lock().expect("no holder panics");
    prevented.retain(|nexus| nexus.upgrade().is_some_and(|nexus| nexus.id != task.nexus.id));
    match prevent & 0x03 {
        0 => {}
        1 => prevented.push(Arc::downgrade(&task.nexus)),
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 1))),
    }
    Ok(Response::good())
}
