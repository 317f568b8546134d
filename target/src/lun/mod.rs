//! Logical units: what answers the commands of one device type.

mod absent;
pub mod changer;
pub mod common;
pub mod disk;
pub mod tape;
#[cfg(test)]
pub(crate) mod testing;

pub use absent::absent;

use std::sync::Arc;

use protocol::scsi::{Sense, Status};

use crate::metrics::usage::{Meter, Op};
use crate::task::{Execution, Response, Task};
use common::{Common, CopyService, LeaseEnd};

/// A logical unit of any type; cheap to clone.
#[derive(Debug, Clone)]
pub enum Device {
    /// Direct access block device; a snapshot is one that is write-protected.
    Disk(Arc<disk::Disk>),
    /// Sequential access device.
    Tape(Arc<tape::Tape>),
    /// Media changer device.
    Changer(Arc<changer::Changer>),
}

impl Device {
    /// Begins a command; never blocks. It is counted when it ends.
    #[must_use]
    pub fn start(&self, task: Task) -> Execution {
        let op = Op::of(task.cdb.opcode(), matches!(self, Self::Disk(_)));
        let data_out = task.data_out.iter().map(|part| part.len() as u64).sum();
        let meter = Meter::begin(&self.common().usage, task.nexus.id, op, data_out);
        let limit = task.data_in_limit;
        let ends_leases = self.ends_leases(&task);
        let execution = match self {
            Self::Disk(disk) => disk.start(task),
            Self::Tape(tape) => tape.start(task),
            Self::Changer(changer) => changer.start(task),
        };
        execution.map(move |response| {
            let data_in: u64 = response.data_in.iter().map(|part| part.len() as u64).sum();
            meter.end(response.status, data_in.min(limit));
            if let (Status::Good, Some((copy, why))) = (response.status, ends_leases) {
                copy.lease_ends(why);
            }
            response
        })
    }

    /// A command whose `expected` bytes of Data-Out are still coming, as one that is written meanwhile; `None` where it is not to be.
    #[must_use]
    pub fn stream(&self, task: Task, expected: u64) -> Option<disk::StreamedWrite> {
        match self {
            Self::Disk(disk) => disk::StreamedWrite::begin(disk, task, expected),
            Self::Tape(_) | Self::Changer(_) => None,
        }
    }

    /// Who is to be told that a command which ends well ends leases of views; `None` for most.
    fn ends_leases(&self, task: &Task) -> Option<(Arc<dyn CopyService>, LeaseEnd)> {
        let why = match (task.cdb.opcode(), self) {
            // REWIND, LOAD UNLOAD.
            (0x01 | 0x1B, Self::Tape(_)) => LeaseEnd::Tape { tape: self.address() },
            // RELEASE(6), RELEASE(10); PERSISTENT RESERVE OUT with RELEASE or CLEAR.
            (0x17 | 0x57, _) => LeaseEnd::Reservation { nexus: task.nexus.id, device: self.address() },
            (0x5F, _) if matches!(task.cdb.basic()[1] & 0x1F, 0x02 | 0x03) => {
                LeaseEnd::Reservation { nexus: task.nexus.id, device: self.address() }
            }
            _ => return None,
        };
        Some((Arc::clone(self.common().copy.as_ref()?), why))
    }

    /// What every logical unit has.
    #[must_use]
    pub fn common(&self) -> &Common {
        match self {
            Self::Disk(disk) => common::LogicalUnit::common(&**disk),
            Self::Tape(tape) => common::LogicalUnit::common(&**tape),
            Self::Changer(changer) => common::LogicalUnit::common(&**changer),
        }
    }

    /// Makes the saved mode pages the current ones, as power on does: to be called before the first command.
    ///
    /// # Errors
    /// As [`common::restore_modes`].
    pub fn restore_modes(&self) -> Result<(), Sense> {
        match self {
            Self::Disk(disk) => common::restore_modes(&**disk),
            Self::Tape(tape) => common::restore_modes(&**tape),
            Self::Changer(changer) => common::restore_modes(&**changer),
        }
    }

    /// Carries out a PERSISTENT RESERVE OUT that a copy brings for its nexus: no unit attention of the nexus is taken by it.
    #[must_use]
    pub fn persistent_reserve_out(&self, task: &Task) -> Response {
        let reply = match self {
            Self::Disk(disk) => common::persistent_reserve_out(&**disk, task),
            Self::Tape(tape) => common::persistent_reserve_out(&**tape, task),
            Self::Changer(changer) => common::persistent_reserve_out(&**changer, task),
        };
        reply.unwrap_or_else(Response::from)
    }

    /// Carries out a TEST UNIT READY that a copy sends for its nexus: no unit attention of the nexus is taken by it.
    #[must_use]
    pub fn test_unit_ready(&self, task: &Task) -> Response {
        match self {
            Self::Disk(disk) => common::answer_at_once(&**disk, task),
            Self::Tape(tape) => common::answer_at_once(&**tape, task),
            Self::Changer(changer) => common::answer_at_once(&**changer, task),
        }
    }

    /// Unlike that of every other logical unit, as long as this one is there.
    #[must_use]
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self.common()).addr()
    }

    /// True when both are the same logical unit.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.common(), other.common())
    }
}
