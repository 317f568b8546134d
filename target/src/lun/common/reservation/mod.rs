//! Reservations of a logical unit: persistent ones, and RESERVE(6) and RESERVE(10) of old.
//!
//! | module | what |
//! |---|---|
//! | `registry` | registrations and the persistent reservation: a value |
//! | `commands` | PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE |
//!
//! This module keeps them, tells whether a command passes, and saves what is to survive a power loss before the status is given.
//! As long as nothing is reserved a command costs one load here. Follows SPC-4, "Reservations", and SPC-2 for RESERVE and RELEASE.

mod commands;
mod registry;
#[cfg(test)]
mod tests;

pub(in crate::lun) use commands::persistent_reserve_out;
pub(super) use commands::{persistent_reserve_in, persistent_reserve_out_and_abort, release, reserve};
pub use registry::{Effects, Registry, Surroundings};

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use protocol::scsi::conflict::Rule;
use protocol::scsi::reservation::ReserveOut;
use protocol::scsi::{Sense, Status};
use tracing::error;

use super::keep::Kept;
use crate::nexus::{Nexus, NexusName};
use crate::task::Response;

/// A nexus has the logical unit by RESERVE.
const RESERVED: u8 = 0x01;
/// There is a persistent reservation.
const PERSISTENT: u8 = 0x02;

/// Who may do what with the logical unit.
#[derive(Debug, Default)]
pub struct Reservations {
    /// [`RESERVED`] and [`PERSISTENT`]: what a command has to be held against.
    restrictions: AtomicU8,
    /// The nexus that has the logical unit by RESERVE.
    holder: Mutex<Option<u64>>,
    /// Replaced as a whole, so that a command never waits for a change that is being saved.
    registry: RwLock<Arc<Registry>>,
    /// Held by whoever changes the registry; where it is kept, if anywhere.
    changing: Mutex<Option<Kept>>,
}

impl Reservations {
    /// Keeps in a file what is to survive a power loss, and takes up what was kept there.
    ///
    /// # Errors
    /// As [`Kept::load`].
    pub fn keep_in(&self, kept: Kept) -> io::Result<()> {
        let registry: Registry = kept.load()?.unwrap_or_default();
        self.publish(registry);
        *self.changing() = Some(kept);
        Ok(())
    }

    /// RESERVATION CONFLICT for a command that another nexus's reservation keeps out.
    ///
    /// # Errors
    /// The response to give.
    pub fn admit(&self, nexus: &Nexus, rule: impl FnOnce() -> Rule) -> Result<(), Response> {
        if self.restrictions.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let rule = rule();
        let reserved = self.holder().is_some_and(|holder| holder != nexus.id) && !rule.reserved;
        if reserved || !self.registry().admits(nexus, rule) {
            return Err(Response::status(Status::ReservationConflict));
        }
        Ok(())
    }

    /// Ends what hangs on a nexus that is gone. Registrations and persistent reservations do not.
    pub fn nexus_lost(&self, nexus: u64) {
        let mut holder = self.holder();
        if *holder == Some(nexus) {
            *holder = None;
            self.restrictions.fetch_and(!RESERVED, Ordering::Relaxed);
        }
    }

    /// A reset ends RESERVE, whose ever it is, and leaves registrations and persistent reservations alone.
    pub fn reset(&self) {
        let mut holder = self.holder();
        *holder = None;
        self.restrictions.fetch_and(!RESERVED, Ordering::Relaxed);
    }

    /// Takes the logical unit; false when another nexus has it.
    fn take(&self, nexus: u64) -> bool {
        let mut holder = self.holder();
        if holder.is_some_and(|holder| holder != nexus) {
            return false;
        }
        *holder = Some(nexus);
        self.restrictions.fetch_or(RESERVED, Ordering::Relaxed);
        true
    }

    /// Blocks while what has to be saved is saved. On an error nothing has changed.
    fn change(&self, from: &NexusName, out: &ReserveOut, around: Surroundings<'_>) -> Result<Effects, Response> {
        let changing = self.changing();
        if out.persist && changing.is_none() {
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST.into());
        }
        let before = self.registry();
        let mut registry = Registry::clone(&before);
        let effects = registry.apply(from, out, around)?;
        if let Some(kept) = &*changing {
            let saved = match (before.persists(), registry.persists()) {
                (_, true) if *before != registry => kept.save(&registry),
                (true, false) => kept.remove(),
                _ => Ok(()),
            };
            saved.map_err(|error| {
                error!(%error, "reservations are not saved: the command is refused");
                Response::from(Sense::INTERNAL_TARGET_FAILURE)
            })?;
        }
        self.publish(registry);
        Ok(effects)
    }

    fn publish(&self, registry: Registry) {
        let reserved = registry.is_reserved();
        *self.registry.write().expect("no holder panics") = Arc::new(registry);
        match reserved {
            true => self.restrictions.fetch_or(PERSISTENT, Ordering::Relaxed),
            false => self.restrictions.fetch_and(!PERSISTENT, Ordering::Relaxed),
        };
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry.read().expect("no holder panics"))
    }

    fn can_persist(&self) -> bool {
        self.changing().is_some()
    }

    fn holder(&self) -> MutexGuard<'_, Option<u64>> {
        self.holder.lock().expect("no holder panics")
    }

    fn changing(&self) -> MutexGuard<'_, Option<Kept>> {
        self.changing.lock().expect("no holder panics")
    }
}
