//! RESERVE(6) and RELEASE(6): one nexus has the logical unit to itself.
//!
//! Persistent reservations are another thing and not served. A reservation ends with RELEASE, a reset, or its nexus. Follows SPC-2,
//! "RESERVE(6) command" and its table of commands allowed in the presence of reservations.

use std::sync::Mutex;

use protocol::scsi::Status;

use crate::task::{Response, Task};

/// Who holds the logical unit.
#[derive(Debug, Default)]
pub struct Reservation {
    holder: Mutex<Option<u64>>,
}

impl Reservation {
    /// Takes it, or RESERVATION CONFLICT. Reserving what one holds already succeeds.
    #[must_use]
    pub fn reserve(&self, task: &Task) -> Response {
        let mut holder = self.holder();
        if holder.is_some_and(|holder| holder != task.nexus.id) {
            return Response::status(Status::ReservationConflict);
        }
        *holder = Some(task.nexus.id);
        Response::good()
    }

    /// Gives it back; without effect, and no error, for a nexus that does not hold it.
    #[must_use]
    pub fn release(&self, task: &Task) -> Response {
        self.nexus_lost(task.nexus.id);
        Response::good()
    }

    /// RESERVATION CONFLICT for a command that another nexus's reservation keeps out.
    ///
    /// # Errors
    /// The response to give.
    pub fn admit(&self, task: &Task) -> Result<(), Response> {
        let reserved = self.holder().is_some_and(|holder| holder != task.nexus.id);
        if reserved && !allowed_when_reserved(task) {
            return Err(Response::status(Status::ReservationConflict));
        }
        Ok(())
    }

    /// Ends the reservation of a nexus that is gone.
    pub fn nexus_lost(&self, nexus: u64) {
        let mut holder = self.holder();
        if *holder == Some(nexus) {
            *holder = None;
        }
    }

    /// Ends the reservation, whose ever it is.
    pub fn clear(&self) {
        *self.holder() = None;
    }

    fn holder(&self) -> std::sync::MutexGuard<'_, Option<u64>> {
        self.holder.lock().expect("no holder panics")
    }
}

/// REQUEST SENSE, INQUIRY, RELEASE(6), PREVENT ALLOW MEDIUM REMOVAL that allows, LOG SENSE, READ CAPACITY(10), REPORT LUNS, the
/// REPORT SUPPORTED pair, RECEIVE COPY RESULTS and READ CAPACITY(16).
fn allowed_when_reserved(task: &Task) -> bool {
    let cdb = task.cdb.basic();
    match cdb[0] {
        0x03 | 0x12 | 0x17 | 0x25 | 0x4D | 0x84 | 0xA0 => true,
        0x1E => cdb[4] & 0x03 == 0,
        0x9E => cdb[1] & 0x1F == 0x10,
        0xA3 => matches!(cdb[1] & 0x1F, 0x0C | 0x0D),
        _ => false,
    }
}
