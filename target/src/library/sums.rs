//! Sums of records that were placed by reference, taken of cartridges that are in no drive.
//!
//! One cartridge at a time is open for that, on the bench; its records are read without it, as a drive's are. Who needs the arm takes the
//! cartridge off the bench first, so that a drive finds every cartridge closed: a load waits for no more than an opening or an entry of
//! an index. Each cartridge is looked through once; again when it comes out of a drive or back into the library, or after a restart.

use std::collections::BTreeSet;

use protocol::cartridge::sums::RecordSum;
use tracing::{info, warn};

use super::{Inventory, Library, Place};
use crate::cartridge::{Absent, Cartridge, ReadError, Search, Unsummed};
use crate::lun::tape::Taken;

/// What is being looked through, and what has been.
#[derive(Debug, Default)]
pub(super) struct Bench {
    open: Option<Open>,
    /// Folders that need not be looked at, as long as they stay where they are.
    done: BTreeSet<String>,
    /// How often somebody has needed the arm.
    cleared: u64,
}

/// A cartridge on the bench.
#[derive(Debug)]
struct Open {
    folder: String,
    cartridge: Cartridge,
}

impl Bench {
    /// Somebody needs the arm: what is on the bench is there for all again.
    pub(super) fn clear(&mut self) {
        self.open = None;
        self.cleared += 1;
    }

    /// What is in a drive, or gone, is looked at again when it is back.
    pub(super) fn forget_moved(&mut self, inventory: &Inventory) {
        let at_rest: BTreeSet<_> = at_rest(inventory).collect();
        self.done.retain(|folder| at_rest.contains(&**folder));
    }

    /// Goes on with the search in the cartridge that is open.
    fn search(&mut self) -> Option<(String, Search)> {
        let Open { folder, cartridge } = self.open.as_mut()?;
        let found = cartridge.find_unsummed();
        let folder = folder.clone();
        if matches!(found, Search::None) {
            info!(cartridge = folder, left = cartridge.absent().records, "absent sums have been taken");
            self.open = None;
            self.done.insert(folder.clone());
        }
        Some((folder, found))
    }
}

impl Library {
    /// Takes the sums of one record that has none, of a cartridge that is in no drive. Blocks.
    #[must_use]
    pub fn take_sum(&self) -> Taken {
        let found = {
            // Not waited for: what loads and unloads drives takes its time.
            let Ok(inventory) = self.inventory.try_lock() else { return Taken::Later };
            let mut bench = self.bench();
            match bench.search() {
                Some(found) => Ok(found),
                None => Err((at_rest(&inventory).find(|folder| !bench.done.contains(*folder)).map(str::to_owned), bench.cleared)),
            }
        };
        match found {
            Ok((folder, Search::Found(record))) => {
                let sum = record.take();
                self.keep_sum(&folder, &record, sum);
                Taken::Bytes(record.length())
            }
            Ok(_) => Taken::Searched,
            Err((Some(folder), cleared)) => {
                self.put_on_bench(folder, cleared);
                Taken::Searched
            }
            Err((None, _)) => Taken::Nothing,
        }
    }

    /// Who has the arm by now has closed the cartridge: then the record is read again some time.
    fn keep_sum(&self, of: &str, record: &Unsummed, sum: Result<RecordSum, ReadError>) {
        let Ok(_arm) = self.inventory.try_lock() else { return };
        if let Some(Open { cartridge, .. }) = self.bench().open.as_mut().filter(|open| open.folder == of) {
            cartridge.keep_sum(record, sum);
        }
    }

    /// Opens a cartridge that lacks sums. Its indexes tell that without it, and without the arm.
    fn put_on_bench(&self, folder: String, cleared: u64) {
        let path = self.folder.join(&folder);
        let absent = Cartridge::absent_in(&path);
        let Ok(_arm) = self.inventory.try_lock() else { return };
        let mut bench = self.bench();
        if bench.cleared != cleared {
            return;
        }
        let opened = match absent {
            Ok(absent) if absent == Absent::default() => None,
            Ok(_) => Cartridge::open(&path).inspect_err(|error| warn!(%error, "no sums are taken")).ok(),
            Err(error) => {
                warn!(cartridge = %path.display(), %error, "no sums are taken");
                None
            }
        };
        match opened {
            Some(cartridge) => bench.open = Some(Open { folder, cartridge }),
            None => drop(bench.done.insert(folder)),
        }
    }
}

/// Folders of the cartridges that are in no drive.
fn at_rest(inventory: &Inventory) -> impl Iterator<Item = &str> {
    inventory.held().filter(|(place, _)| !matches!(place, Place::Drive(_))).map(|(_, held)| &*held.folder)
}
