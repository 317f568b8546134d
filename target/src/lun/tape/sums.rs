//! Sums of records that were placed by reference, taken in the background while nobody uses the drive.
//!
//! One record a call. It is read without the drive, so that a command waits for no more than an entry of the index; what was read of a
//! record that has gone meanwhile counts for nothing. Does not say when to call, nor how fast.

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
    /// Nothing to do, or somebody has the drive.
    Nothing,
}

impl Tape {
    /// Takes the sums of one record that has none, unless somebody uses the drive. Blocks.
    #[must_use]
    pub fn take_sum(&self) -> Taken {
        if self.shown().status.without_sums.records == 0 {
            return Taken::Nothing;
        }
        // Not waited for: who has it may have it for long.
        let Ok(mut drive) = self.drive.try_lock() else { return Taken::Nothing };
        if !self.is_at_rest(&drive) {
            return Taken::Nothing;
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
