//! PREVENT ALLOW MEDIUM REMOVAL: who wants the medium to stay in.
//!
//! Each nexus for itself; a nexus that is lost or preempted, and a reset, want nothing any more. What is refused while somebody
//! prevents removal is the device's business. Follows SBC-4, SSC-4 and SMC-3, "PREVENT ALLOW MEDIUM REMOVAL command".

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use protocol::scsi::{FieldPointer, Sense};

use super::{LogicalUnit, Reply};
use crate::task::{Response, Task};

/// The nexuses that prevent removal.
#[derive(Debug, Default)]
pub struct RemovalPrevention {
    preventing: Mutex<BTreeSet<u64>>,
}

impl RemovalPrevention {
    /// The medium stays in, until this nexus allows its removal.
    pub fn prevent(&self, nexus: u64) {
        self.preventing().insert(nexus);
    }

    /// As far as this nexus is concerned the medium may go.
    pub fn allow(&self, nexus: u64) {
        self.preventing().remove(&nexus);
    }

    /// The medium may go.
    pub fn reset(&self) {
        self.preventing().clear();
    }

    /// True while any nexus prevents removal.
    #[must_use]
    pub fn is_prevented(&self) -> bool {
        !self.preventing().is_empty()
    }

    fn preventing(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.preventing.lock().expect("no holder panics")
    }
}

/// PREVENT ALLOW MEDIUM REMOVAL, the same for all device types.
pub fn prevent_allow<D: LogicalUnit>(device: &D, task: &Task) -> Reply {
    let removal = &device.common().removal;
    match task.cdb.basic()[4] & 0x03 {
        0 => removal.allow(task.nexus.id),
        1 => removal.prevent(task.nexus.id),
        // Obsolete: prevention that outlives the nexus.
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(4, 1))),
    }
    Ok(Response::good())
}
