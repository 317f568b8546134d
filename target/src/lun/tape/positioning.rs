//! REWIND, SPACE, LOCATE, READ POSITION and LOAD UNLOAD. SSC-4.
//!
//! All positioning is a sync point. With IMMED, what was written is on the medium when the status comes, and the rest follows.

use protocol::scsi::ssc::{
    Immediate6Cdb, LoadUnloadCdb, Locate10Cdb, Locate16Cdb, LocateDestination, Report10Cdb, Space6Cdb, Space16Cdb, SpaceCode,
};
use protocol::scsi::ssc_data::Position;
use protocol::scsi::{FieldPointer, Sense};

use super::drive::Drive;
use super::{Tape, operation};
use crate::lun::common::{Lasting, Reply, Told, data_in};
use crate::task::{Response, Task};

/// REWIND.
pub fn rewind(_tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: Immediate6Cdb = task.cdb.read();
    Ok(lasting(operation::REWIND, cdb.immediate(), Drive::synchronize, Drive::rewind))
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
pub fn locate_10(_tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: Locate10Cdb = task.cdb.read();
    let partition = cdb.change_partition().then_some((cdb.partition, FieldPointer::cdb(8)));
    let object = cdb.logical_object.get().into();
    Ok(locate(cdb.immediate(), partition, move |drive| drive.locate_object(object)))
}

/// LOCATE(16).
pub fn locate_16(_tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: Locate16Cdb = task.cdb.read();
    let partition = cdb.change_partition().then_some((cdb.partition, FieldPointer::cdb(3)));
    let destination = cdb.destination().ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 5)))?;
    let identifier = cdb.logical_identifier.get();
    Ok(locate(cdb.immediate(), partition, move |drive| match destination {
        LocateDestination::Object => drive.locate_object(identifier),
        LocateDestination::File => drive.locate_file(identifier),
        LocateDestination::EndOfData => drive.space(SpaceCode::EndOfData, 0),
    }))
}

/// `partition` is that of CP, and where that stands.
fn locate(
    immediate: bool,
    partition: Option<(u8, FieldPointer)>,
    go: impl FnOnce(&mut Drive) -> Result<(), Sense> + Send + 'static,
) -> Lasting<Tape> {
    let check = move |drive: &mut Drive| {
        let there = drive.cartridge()?.partitions().len();
        match partition {
            Some((partition, field)) if usize::from(partition) >= there => Err(Sense::INVALID_FIELD_IN_CDB.at(field)),
            _ => drive.synchronize(),
        }
    };
    let run = move |drive: &mut Drive| {
        partition.map_or(Ok(()), |(partition, _)| drive.change_partition(partition))?;
        go(drive)
    };
    lasting(operation::LOCATE, immediate, check, run)
}

/// A command of a check and some work on the drive.
pub(super) fn lasting(
    told: Told,
    immediate: bool,
    check: impl FnOnce(&mut Drive) -> Result<(), Sense> + Send + 'static,
    run: impl FnOnce(&mut Drive) -> Result<(), Sense> + Send + 'static,
) -> Lasting<Tape> {
    Lasting {
        told,
        immediate,
        check: Box::new(|tape| tape.work(|drive| check(drive).map(|()| Response::good()))),
        run: Box::new(|tape, _| tape.work(|drive| run(drive).map(|()| Response::good()))),
    }
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
pub fn load_unload(tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: LoadUnloadCdb = task.cdb.read();
    if cdb.load() && cdb.end_of_tape() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 2)));
    }
    if !cdb.load() && !cdb.hold() && tape.removal_prevented() {
        return Err(Sense::MEDIUM_REMOVAL_PREVENTED);
    }
    Ok(if cdb.load() { load(&cdb, task.nexus.id) } else { unload(&cdb) })
}

fn load(cdb: &LoadUnloadCdb, nexus: u64) -> Lasting<Tape> {
    let hold = cdb.hold();
    let run = move |tape: &Tape| {
        tape.work(|drive| {
            if hold {
                // In the drive, where it can be loaded from; the medium is not mounted by this.
                drive.hold()?;
            } else if drive.load()? {
                let condition = Sense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED;
                tape.common.attentions.establish_for_all(&condition, Some(nexus));
            }
            Ok(Response::good())
        })
    };
    Lasting {
        told: operation::LOAD,
        immediate: cdb.immediate(),
        check: Box::new(|tape| tape.work(|drive| drive.seated().map(|_| Response::good()).ok_or(Sense::MEDIUM_NOT_PRESENT))),
        run: Box::new(move |tape, _| run(tape)),
    }
}

fn unload(cdb: &LoadUnloadCdb) -> Lasting<Tape> {
    let hold = cdb.hold();
    Lasting {
        told: operation::UNLOAD,
        immediate: cdb.immediate(),
        check: Box::new(|tape| {
            tape.work(|drive| match drive.cartridge() {
                Ok(_) => drive.synchronize().map(|()| Response::good()),
                Err(_) => Ok(Response::good()),
            })
        }),
        run: Box::new(move |tape, _| {
            tape.work(|drive| {
                drive.unload(hold)?;
                tape.demounted();
                Ok(Response::good())
            })
        }),
    }
}
