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

use crate::task::{Execution, Task};
use common::Common;

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
    /// Begins a command; never blocks.
    #[must_use]
    pub fn start(&self, task: Task) -> Execution {
        match self {
            Self::Disk(disk) => disk.start(task),
            Self::Tape(tape) => tape.start(task),
            Self::Changer(changer) => changer.start(task),
        }
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

    /// True when both are the same logical unit.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.common(), other.common())
    }
}
