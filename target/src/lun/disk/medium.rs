//! The medium of a removable disk: in the drive or ejected, and how it gets there. START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL.
//!
//! Ejected means that the blocks are out of reach until START STOP UNIT loads them again; the store stays open, so that nobody else
//! takes its file meanwhile. Nothing spins: a stop, or a power condition, only writes the cache. Follows SBC-4, "START STOP UNIT
//! command" and "Removable medium".

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::scsi::spc::{self, StartStopUnitCdb};
use protocol::scsi::{CommandSpec, FieldPointer, Sense};

use super::{Disk, fault};
use crate::lun::common::{Reply, answer};
use crate::task::{Execution, Response, Task};

pub(super) fn start_stop_unit(disk: &Arc<Disk>, task: Task) -> Execution {
    let cdb: StartStopUnitCdb = task.cdb.read();
    match (cdb.power_condition(), cdb.load_or_eject(), cdb.start()) {
        (0, true, _) if !disk.options.removable => {
            let refused = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 1));
            Execution::Done(answer(&spc::START_STOP_UNIT, Err(refused)))
        }
        // While removal is prevented the medium is not moved at all.
        (0, true, _) if disk.common.removal.is_prevented() => {
            Execution::Done(answer(&spc::START_STOP_UNIT, Err(Sense::MEDIUM_REMOVAL_PREVENTED)))
        }
        (0, true, true) => {
            load(disk, &task);
            Execution::Done(Response::good())
        }
        (0, true, false) => disk.blocking(&spc::START_STOP_UNIT, eject),
        (0, false, false) | (1.., ..) if !cdb.no_flush() && disk.absence().is_none() => {
            disk.blocking(&spc::START_STOP_UNIT, flush)
        }
        _ => Execution::Done(Response::good()),
    }
}

/// Every other nexus is told: what it remembers of the blocks may be wrong by now.
fn load(disk: &Disk, task: &Task) {
    if disk.ejected.swap(false, Ordering::AcqRel) {
        let changed = Sense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED;
        disk.common.attentions.establish_for_all(&changed, Some(task.nexus.id));
    }
}

fn eject(disk: &Disk) -> Reply {
    // Writers that have begun end first.
    let _alone = disk.writers.write().expect("no writer panics");
    disk.volume.sync().map_err(|error| fault::on_write(&error))?;
    disk.ejected.store(true, Ordering::Release);
    // They show a medium that is out of reach. SBC-4, "ROD token device type specific data".
    disk.cancel_views();
    Ok(Response::good())
}

fn flush(disk: &Disk) -> Reply {
    disk.volume.sync().map_err(|error| fault::on_write(&error))?;
    Ok(Response::good())
}

/// True for a command that wants a medium: all of the disk's own but those that move it, TEST UNIT READY, and copies.
pub(super) fn wants_medium(spec: &CommandSpec) -> bool {
    const START_STOP_UNIT: u8 = spc::START_STOP_UNIT.opcode;
    const PREVENT_ALLOW: u8 = spc::PREVENT_ALLOW_MEDIUM_REMOVAL.opcode;
    const EXTENDED_COPY: u8 = spc::EXTENDED_COPY.opcode;
    const TEST_UNIT_READY: u8 = spc::TEST_UNIT_READY.opcode;
    match spec.opcode {
        START_STOP_UNIT | PREVENT_ALLOW => false,
        TEST_UNIT_READY | EXTENDED_COPY => true,
        opcode => protocol::scsi::sbc::COMMANDS.iter().any(|own| own.opcode == opcode),
    }
}
