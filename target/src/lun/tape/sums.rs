//! Sums of records that were placed by reference, taken in the background while nobody uses the drive.
//!
//! One record a call. It is read without the drive, so that a command waits for no more than an entry of the index; what was read of a
//! record that has gone meanwhile counts for nothing. Who calls, and how fast, is not said here; [`Bell`] tells when to call again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::Tape;
use super::drive::Drive;
use crate::cartridge::{Cartridge, Search};

/// So long nobody has used the drive: a stream of commands is not interrupted.
const AT_REST: Duration = Duration::from_secs(1);

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// A record of so many bytes was read.
    Bytes(u32),
    /// The index was searched, and there is more of it.
    Searched,
    /// There may be something to do, but somebody has the drive.
    Later,
    /// Nothing to do, until the bell rings.
    Nothing,
}

/// Wakes whoever takes sums when there may be some to take.
#[derive(Debug, Default)]
pub struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    rung: bool,
    ended: bool,
}

impl Bell {
    /// There may be sums to take.
    pub fn ring(&self) {
        self.state().rung = true;
        self.changed.notify_all();
    }

    /// Nobody is to wait any more.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Waits until it rings, or has rung since the last wait. False when it is over.
    #[must_use]
    pub fn wait(&self) -> bool {
        let mut state = self.changed.wait_while(self.state(), |state| !state.rung && !state.ended).expect("no holder panics");
        state.rung = false;
        !state.ended
    }

    /// Lets time pass, however often it rings. False when it is over.
    #[must_use]
    pub fn pause(&self, time: Duration) -> bool {
        let (state, _) = self.changed.wait_timeout_while(self.state(), time, |state| !state.ended).expect("no holder panics");
        !state.ended
    }

    fn state(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().expect("no holder panics")
    }
}

impl Tape {
    /// From now on this bell rings when records of the drive's cartridge may want their sums.
    pub fn set_bell(&self, bell: Arc<Bell>) {
        // Nobody sets another one later.
        let _ = self.bell.set(bell);
    }

    /// Takes the sums of one record that has none, unless somebody uses the drive. Blocks.
    #[must_use]
    pub fn take_sum(&self) -> Taken {
        if self.shown().status.without_sums.records == 0 {
            return Taken::Nothing;
        }
        // Not waited for: who has it may have it for long.
        let Ok(mut drive) = self.drive.try_lock() else { return Taken::Later };
        if !self.is_at_rest(&drive) {
            return Taken::Later;
        }
        let found = drive.cartridge_mut().map(Cartridge::find_unsummed);
        *self.shown() = drive.shown();
        drop(drive);
        let record = match found {
            Ok(Search::Found(record)) => record,
            Ok(Search::Further) => return Taken::Searched,
            Ok(Search::None) | Err(_) => return Taken::Nothing,
        };
        let sum = record.take();
        self.with_drive(|drive| {
            // A mover that has the drive reads the index by itself.
            if !drive.copying && drive.cartridge_mut().is_ok_and(|cartridge| cartridge.keep_sum(&record, sum)) {
                drive.count_sum(record.length());
            }
        });
        Taken::Bytes(record.length())
    }

    fn is_at_rest(&self, drive: &Drive) -> bool {
        let in_use = drive.copying || self.common.background.not_ready().is_some();
        !in_use && drive.used.is_none_or(|used| used.elapsed() >= AT_REST)
    }
}
