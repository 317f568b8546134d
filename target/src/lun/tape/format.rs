//! ERASE, FORMAT MEDIUM, SET CAPACITY and ALLOW OVERWRITE: what changes the medium as a whole, or lets it be changed. SSC-4.

use std::io;

use protocol::scsi::ssc::{AllowOverwriteCdb, Immediate6Cdb, MediumFormat};
use protocol::scsi::{FieldPointer, Sense, Status};

use super::drive::Drive;
use super::mode::{Partitioning, Settings};
use super::positioning::lasting;
use super::{Tape, operation};
use crate::cartridge::{Erasure, WriteError};
use crate::lun::common::{Lasting, Operation, Reply};
use crate::task::{Response, Task};

/// Below this part of 65,535 a capacity is no use.
const LEAST_PROPORTION: u16 = 655;

/// ERASE(6): the data ends here. With LONG what lay behind is overwritten as well, up to the end of the partition's image.
pub fn erase(tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: Immediate6Cdb = task.cdb.read();
    let settings = *tape.settings();
    let append_only = settings.append_only;
    let immediate = cdb.erase_immediate();
    let check = move |drive: &mut Drive| {
        drive.permit_software(&settings)?;
        if !drive.medium()?.writable() {
            return Err(drive.write_sense(&WriteError::Protected));
        }
        drive.permit_write(append_only)?;
        drive.synchronize()
    };
    if !cdb.long() {
        return Ok(lasting(operation::ERASE, immediate, check, move |drive| {
            drive.medium_for_append(append_only)?;
            drive.synchronize()
        }));
    }
    Ok(Lasting {
        told: operation::ERASE,
        immediate,
        check: Box::new(move |tape| tape.work(|drive| check(drive).map(|()| Response::good()))),
        run: Box::new(move |tape, operation| match immediate {
            // Nobody else has the medium meanwhile, but who asks the drive for its counters must not wait so long.
            true => {
                let erasure = tape.with_drive(|drive| drive.begin_erase(append_only))?;
                let overwritten = overwrite(&erasure, operation);
                tape.with_drive(|drive| drive.end_erase(overwritten)).map(|()| Response::good())
            }
            false => tape.work(|drive| {
                let overwritten = overwrite(&drive.begin_erase(append_only)?, operation);
                drive.end_erase(overwritten).map(|()| Response::good())
            }),
        }),
    })
}

fn overwrite(erasure: &Erasure, operation: &Operation) -> io::Result<()> {
    erasure.overwrite(|done, of| {
        operation.advance(done, of);
        !operation.is_stopped()
    })
}

impl Drive {
    /// Ends the data at the position, as for a write, and leaves what lies behind to be overwritten.
    fn begin_erase(&mut self, append_only: bool) -> Result<Erasure, Sense> {
        self.permit_write(append_only)?;
        let position = self.position();
        let partition = self.partition();
        let cartridge = self.cartridge_mut()?;
        let changing = cartridge.changing().map_err(WriteError::Io);
        let begun = changing.and_then(|()| cartridge.partitions_mut()[partition].begin_erase(position));
        begun.map_err(|error| self.write_sense(&error))
    }

    /// What lay behind has been overwritten, or has not: it goes either way.
    fn end_erase(&mut self, overwritten: io::Result<()>) -> Result<(), Sense> {
        self.allow_overwrite(false, false);
        let ended = self.medium_mut()?.end_erase();
        overwritten.map_err(WriteError::Io).and(ended).map_err(|error| self.write_sense(&error))
    }
}

/// FORMAT MEDIUM: all data is gone, and the medium divided as the medium partition mode page says.
pub fn format_medium(tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: Immediate6Cdb = task.cdb.read();
    let format = MediumFormat::from_code(cdb.format).ok_or(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(2, 3)))?;
    let settings = *tape.settings();
    let sizes = move |drive: &Drive| {
        let total = drive.cartridge()?.metadata().usable();
        match format {
            MediumFormat::Default => Ok(vec![total]),
            MediumFormat::Partition | MediumFormat::DefaultThenPartition => settings.partitioning.sizes(total),
        }
    };
    Ok(Lasting {
        told: operation::FORMAT,
        immediate: cdb.immediate(),
        check: Box::new(move |tape| {
            tape.work(|drive| {
                permit_change(drive, &settings)?;
                sizes(drive).map(|_| Response::good())
            })
        }),
        run: Box::new(move |tape, _| {
            let formatted = tape.work(|drive| {
                let sizes = sizes(drive)?;
                drive.format(&sizes)?;
                Ok(Response::good())
            })?;
            if formatted.status == Status::Good {
                // What was asked for is on the medium now, and told from there.
                tape.settings().partitioning = Partitioning::default();
            }
            Ok(formatted)
        }),
    })
}

/// SET CAPACITY: as FORMAT MEDIUM with one partition, of a part of the room there is.
pub fn set_capacity(tape: &Tape, task: &Task) -> Result<Lasting<Tape>, Sense> {
    let cdb: Immediate6Cdb = task.cdb.read();
    let settings = *tape.settings();
    // Zero is the least that the medium can have.
    let proportion = cdb.proportion.get().max(LEAST_PROPORTION);
    let check = move |drive: &mut Drive| permit_change(drive, &settings);
    Ok(lasting(operation::SET_CAPACITY, cdb.immediate(), check, move |drive| {
        let changed = drive.cartridge_mut()?.change(|metadata| {
            metadata.proportion = proportion;
            metadata.partitions.clear();
        });
        changed.map_err(|error| drive.write_sense(&WriteError::Io(error)))?;
        let total = drive.cartridge()?.metadata().usable();
        drive.format(&[total])
    }))
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
