//! A library: a folder of cartridges, the places they are in, and the drives among these.
//!
//! ```text
//! lun::changer ──→ Library ──→ inventory (who is where) ──→ record (library.json)
//! control socket ┘        └──→ lun::tape::Tape (load, unload)
//! ```
//!
//! Does the work of the arm: whatever is moved is unloaded from its drive, loaded into the next, and recorded; the record is the
//! commit. A target that dies in between finds every cartridge where it was before, and loads the drives accordingly. Knows no CDB and
//! no element address: those are [`crate::lun::changer`]'s. Everything here blocks unless it says that it does not.

mod inventory;
mod operator;
mod record;
mod registry;
mod sums;
#[cfg(test)]
mod tests;

pub use inventory::{Held, Inventory, Layout, Leg, MoveRefused, Place};
pub use operator::{ExportError, ImportError};
pub use registry::Libraries;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use protocol::control::LibraryMoves;
use protocol::scsi::Sense;
use tracing::{error, info, warn};

use crate::cartridge::{Cartridge, Metadata, NewMedium, OpenError, shelf};
use crate::lun::tape::{Bell, LoadError, Tape, UnloadError};
use crate::sys;
use sums::Bench;

/// Held open and locked by the target that serves the library.
const LOCK_NAME: &str = "library.lock";

/// A library that is served.
#[derive(Debug)]
pub struct Library {
    folder: PathBuf,
    /// The arm: held across a whole change, loads and unloads included.
    inventory: Mutex<Inventory>,
    /// As of the last change; never held across anything that waits.
    shown: Mutex<Arc<Inventory>>,
    /// By number, from 0. A drive that is served no longer leaves its element empty of a drive.
    drives: Mutex<BTreeMap<u16, Weak<Tape>>>,
    moves: Mutex<LibraryMoves>,
    /// Touched only by who has the arm.
    bench: Mutex<Bench>,
    /// For who takes sums that are absent.
    bell: OnceLock<Arc<Bell>>,
    _lock: File,
}

/// What a library is to have; what is `None` stays as it was, or is as in [`Layout::default`] in a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Data transfer elements.
    pub drives: Option<u16>,
    /// Storage elements.
    pub slots: Option<u16>,
    /// Import/export elements.
    pub mail: Option<u16>,
    /// Cartridges to make in a library that never had one.
    pub cartridges: Option<u16>,
    /// What they are.
    pub new: NewMedium,
}

impl Wanted {
    fn layout(&self, before: Layout) -> Layout {
        Layout {
            drives: self.drives.unwrap_or(before.drives),
            slots: self.slots.unwrap_or(before.slots),
            mail: self.mail.unwrap_or(before.mail),
        }
    }
}

/// Cartridges made in a new library when nobody says how many.
const NEW_CARTRIDGES: u16 = 5;

/// Why a library cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// Another target serves it.
    #[error("{0}: another target serves this library")]
    InUse(PathBuf),
    /// A file of it cannot be read or written, or is not what it should be.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A cartridge cannot be made.
    #[error(transparent)]
    Cartridge(#[from] OpenError),
    /// More places than element addresses, or no slot at all.
    #[error("{0}")]
    Layout(String),
}

/// Why the arm did not move anything.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The places do not allow it.
    #[error(transparent)]
    Refused(#[from] MoveRefused),
    /// No drive is served in this place.
    #[error("no drive is served as {0}")]
    NoDrive(Place),
    /// The drive holds its cartridge: an initiator prevents the removal, or a copy runs.
    #[error("{place}: {source}")]
    Held {
        /// Which drive.
        place: Place,
        /// Why.
        source: UnloadError,
    },
    /// The drive could not end with its cartridge, or not take the new one.
    #[error("{place}: {problem}")]
    Drive {
        /// Which drive.
        place: Place,
        /// In words.
        problem: String,
        /// What the drive's own sense data is.
        sense: Option<Sense>,
    },
    /// The record could not be written. Nothing was moved.
    #[error("the move could not be recorded: {0}")]
    Record(io::Error),
}

impl Library {
    /// Opens a library, or makes one of a folder: cartridges that lie in it and have no place yet go to free slots.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn open(folder: &Path) -> Result<Arc<Self>, LibraryError> {
        let file = |path: PathBuf| move |source| LibraryError::File { path, source };
        fs::create_dir_all(folder).map_err(file(folder.to_owned()))?;
        let lock = File::create(folder.join(LOCK_NAME)).map_err(file(folder.join(LOCK_NAME)))?;
        if !sys::try_lock(&lock).map_err(file(folder.join(LOCK_NAME)))? {
            return Err(LibraryError::InUse(folder.to_owned()));
        }
        let recorded = record::load(folder).map_err(file(folder.join(record::FILE_NAME)))?;
        let mut inventory = recorded.unwrap_or_else(|| Inventory::new(Layout::default()));
        look(folder, &mut inventory, |_| true).map_err(file(folder.to_owned()))?;
        Ok(Arc::new(Self {
            folder: folder.to_owned(),
            shown: Mutex::new(Arc::new(inventory.clone())),
            inventory: Mutex::new(inventory),
            drives: Mutex::default(),
            moves: Mutex::default(),
            bench: Mutex::default(),
            bell: OnceLock::new(),
            _lock: lock,
        }))
    }

    /// Gives the library the places that are wanted, and a new one its cartridges.
    ///
    /// # Errors
    /// [`LibraryError`]. Cartridges may have been made; where each is, is as it was.
    pub fn arrange(&self, wanted: &Wanted) -> Result<(), LibraryError> {
        let mut inventory = self.arm();
        let record = self.folder.join(record::FILE_NAME);
        let mut after = inventory.clone();
        let layout = wanted.layout(after.layout());
        layout.check().map_err(LibraryError::Layout)?;
        let layout = Layout { drives: layout.drives.max(self.served_drives()), ..layout };
        for held in after.rearrange(layout) {
            warn!(cartridge = held.folder, "no place is left for this cartridge: it is in the folder and not in the library");
        }
        if after.held().next().is_none() && !record.exists() {
            make_cartridges(&self.folder, wanted.cartridges.unwrap_or(NEW_CARTRIDGES).min(layout.slots), &wanted.new)?;
        }
        let looked = look(&self.folder, &mut after, |place| !self.is_in_its_drive(place));
        looked
            .and_then(|()| record::store(&self.folder, &after))
            .map_err(|source| LibraryError::File { path: record, source })?;
        *inventory = after;
        self.show(&inventory);
        Ok(())
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where everything was after the last change. Does not block.
    #[must_use]
    pub fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.shown.lock().expect("no holder panics"))
    }

    /// The drive in a place. Does not block.
    #[must_use]
    pub fn drive(&self, number: u16) -> Option<Arc<Tape>> {
        self.drives.lock().expect("no holder panics").get(&number)?.upgrade()
    }

    /// Puts a drive into its place, and into the drive the cartridge that is recorded there. A cartridge that cannot be loaded stays
    /// in its place, from where it can be moved. A library of fewer drives gets as many as are served.
    ///
    /// # Errors
    /// [`LibraryError::Layout`] when a drive is there already, or none can be.
    pub fn attach(&self, number: u16, tape: &Arc<Tape>) -> Result<(), LibraryError> {
        let mut inventory = self.arm();
        if number >= Layout::MAX_DRIVES {
            return Err(LibraryError::Layout(format!("a library has at most {} drives", Layout::MAX_DRIVES)));
        }
        if self.drive(number).is_some() {
            return Err(LibraryError::Layout(format!("{} of the library is served already", Place::Drive(number))));
        }
        if number >= inventory.layout().drives {
            let layout = Layout { drives: number + 1, ..inventory.layout() };
            let left = inventory.rearrange(layout);
            assert!(left.is_empty(), "a library that grows keeps its cartridges");
            self.show(&inventory);
        }
        self.drives.lock().expect("no holder panics").insert(number, Arc::downgrade(tape));
        self.load_recorded(&inventory, number);
        Ok(())
    }

    /// What MOVE MEDIUM does.
    ///
    /// # Errors
    /// [`MoveError`]; then nothing has moved.
    pub fn move_medium(&self, source: Place, destination: Place) -> Result<(), MoveError> {
        self.moved(|inventory| inventory.move_medium(source, destination))
    }

    /// What EXCHANGE MEDIUM does: both ways or none.
    ///
    /// # Errors
    /// [`MoveError`]; then nothing has moved.
    pub fn exchange_medium(&self, source: Place, first: Place, second: Place) -> Result<(), MoveError> {
        self.moved(|inventory| inventory.exchange_medium(source, first, second))
    }

    /// Looks what cartridges lie in the folder: those that are gone leave their places, those that nobody has placed yet go to free
    /// slots, both as far as `range` holds. A drive that could not load its cartridge tries again. True when something has changed.
    ///
    /// # Errors
    /// The file system's own.
    pub fn take_inventory(&self, range: impl Fn(Place) -> bool) -> io::Result<bool> {
        let mut inventory = self.arm();
        let before = inventory.clone();
        // What a drive has open is there, whatever the folder shows.
        look(&self.folder, &mut inventory, |place| range(place) && !self.is_in_its_drive(place))?;
        let changed = *inventory != before;
        if changed && let Err(error) = record::store(&self.folder, &inventory) {
            *inventory = before;
            return Err(error);
        }
        self.show(&inventory);
        for number in (0..inventory.layout().drives).filter(|number| range(Place::Drive(*number))) {
            self.load_recorded(&inventory, number);
        }
        Ok(changed)
    }

    fn is_in_its_drive(&self, place: Place) -> bool {
        let Place::Drive(number) = place else { return false };
        self.drive(number).is_some_and(|drive| drive.cartridge().is_some())
    }

    /// As many as there must be for those that are served.
    fn served_drives(&self) -> u16 {
        let drives = self.drives.lock().expect("no holder panics");
        let last = drives.iter().rfind(|(_, drive)| drive.strong_count() > 0);
        last.map_or(0, |(number, _)| number + 1)
    }

    fn arm(&self) -> MutexGuard<'_, Inventory> {
        let inventory = self.inventory.lock().expect("no holder panics");
        self.bench().clear();
        inventory
    }

    fn bench(&self) -> MutexGuard<'_, Bench> {
        self.bench.lock().expect("no holder panics")
    }

    fn show(&self, inventory: &Inventory) {
        self.bench().forget_moved(inventory);
        *self.shown.lock().expect("no holder panics") = Arc::new(inventory.clone());
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    /// From now on this bell rings when a cartridge has come that may lack sums.
    pub fn set_bell(&self, bell: Arc<Bell>) {
        // Nobody sets another one later.
        let _ = self.bell.set(bell);
    }

    /// Loads what the record has in a drive that is empty.
    fn load_recorded(&self, inventory: &Inventory, number: u16) {
        let (Some(drive), Some(held)) = (self.drive(number), inventory.get(Place::Drive(number))) else { return };
        if drive.cartridge().is_some() {
            return;
        }
        match drive.load(&self.folder.join(&held.folder)) {
            Ok(()) => info!(cartridge = held.folder, drive = number + 1, "loaded"),
            Err(error) => error!(cartridge = held.folder, drive = number + 1, %error, "not loaded"),
        }
    }

    /// What the arm has done since the target started. Does not wait for it.
    #[must_use]
    pub fn moves(&self) -> LibraryMoves {
        *self.moves.lock().expect("no holder panics")
    }

    /// Carries a move out and counts it.
    fn moved<L: AsRef<[Leg]>>(&self, plan: impl FnOnce(&Inventory) -> Result<L, MoveRefused>) -> Result<(), MoveError> {
        let mut inventory = self.arm();
        let moved = plan(&inventory).map_err(MoveError::from).and_then(|legs| {
            let legs = legs.as_ref();
            self.carry_out(&mut inventory, legs).map(|()| legs.len())
        });
        let mut moves = self.moves.lock().expect("no holder panics");
        match moved {
            Ok(cartridges) => moves.done += cartridges as u64,
            Err(MoveError::Refused(_) | MoveError::NoDrive(_) | MoveError::Held { .. }) => moves.refused += 1,
            Err(MoveError::Drive { .. } | MoveError::Record(_)) => moves.failed += 1,
        }
        moved.map(drop)
    }

    /// Unloads, loads, records; on any failure back again.
    fn carry_out(&self, inventory: &mut Inventory, legs: &[Leg]) -> Result<(), MoveError> {
        for place in legs.iter().flat_map(|leg| [leg.from, leg.to]) {
            self.has_its_drive(place)?;
        }
        let mut undo = Undo { library: self, steps: Vec::new() };
        for leg in legs {
            undo.unload(leg.from, inventory)?;
        }
        for leg in legs {
            undo.load(leg.to, &inventory.get(leg.from).expect("checked by the inventory").folder)?;
        }
        let after = inventory.after(legs);
        if let Err(error) = record::store(&self.folder, &after) {
            error!(%error, library = %self.folder.display(), "a move could not be recorded");
            return Err(MoveError::Record(error));
        }
        undo.steps.clear();
        for leg in legs {
            info!(from = %leg.from, to = %leg.to, "moved");
        }
        *inventory = after;
        self.show(inventory);
        Ok(())
    }

    fn has_its_drive(&self, place: Place) -> Result<(), MoveError> {
        match place {
            Place::Drive(number) if self.drive(number).is_none() => Err(MoveError::NoDrive(place)),
            _ => Ok(()),
        }
    }
}

/// What has been done to drives; undone when it is dropped with steps in it.
struct Undo<'a> {
    library: &'a Library,
    steps: Vec<Step>,
}

enum Step {
    Unloaded(Arc<Tape>, PathBuf),
    Loaded(Arc<Tape>),
}

impl Undo<'_> {
    /// Empties a drive; nothing to do for another place.
    fn unload(&mut self, place: Place, inventory: &Inventory) -> Result<(), MoveError> {
        let Some(drive) = self.drive(place)? else { return Ok(()) };
        match drive.unload() {
            Ok(Some(folder)) => self.steps.push(Step::Unloaded(drive, folder)),
            // It could not be loaded; it lies in the drive all the same.
            Ok(None) => debug_assert!(inventory.get(place).is_some()),
            Err(UnloadError::Failed(sense)) => {
                return Err(MoveError::Drive { place, problem: format!("not unloaded: {sense}"), sense: Some(sense) });
            }
            Err(source) => return Err(MoveError::Held { place, source }),
        }
        Ok(())
    }

    /// Puts a cartridge into a drive; nothing to do for another place.
    fn load(&mut self, place: Place, cartridge: &str) -> Result<(), MoveError> {
        let Some(drive) = self.drive(place)? else { return Ok(()) };
        drive.load(&self.library.folder.join(cartridge)).map_err(|error: LoadError| {
            let problem = format!("not loaded: {error}");
            MoveError::Drive { place, problem, sense: None }
        })?;
        self.steps.push(Step::Loaded(drive));
        Ok(())
    }

    fn drive(&self, place: Place) -> Result<Option<Arc<Tape>>, MoveError> {
        let Place::Drive(number) = place else { return Ok(None) };
        self.library.drive(number).map(Some).ok_or(MoveError::NoDrive(place))
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for step in self.steps.drain(..).rev() {
            let undone = match step {
                Step::Loaded(drive) => drive.unload().map(drop).map_err(|error| error.to_string()),
                Step::Unloaded(drive, folder) => drive.load(&folder).map_err(|error| error.to_string()),
            };
            if let Err(error) = undone {
                error!(error, "a move that failed could not be undone: the drive has not what the record says");
            }
        }
    }
}

/// What lies in the folder goes into the inventory: gone cartridges out, new ones into free slots, and what their labels say now.
fn look(folder: &Path, inventory: &mut Inventory, range: impl Fn(Place) -> bool) -> io::Result<()> {
    let mut labels = labels(folder)?;
    let known: Vec<(Place, Held)> = inventory.held().map(|(place, held)| (place, held.clone())).collect();
    for (place, held) in known {
        match labels.remove(&held.folder) {
            Some((barcode, worm)) if (&barcode, worm) == (&held.barcode, held.worm) => {}
            Some((barcode, worm)) => {
                inventory.take(place);
                inventory.put(place, Held { barcode, worm, ..held }).expect("the place was just emptied");
            }
            None if range(place) => {
                warn!(cartridge = held.folder, %place, "the cartridge is gone from the library's folder");
                inventory.take(place);
            }
            None => {}
        }
    }
    for (name, (barcode, worm)) in labels {
        let Some(slot) = inventory.free(|place| matches!(place, Place::Slot(_)) && range(place)) else {
            warn!(cartridge = name, "no slot is free for this cartridge: it is in the folder and not in the library");
            continue;
        };
        info!(cartridge = name, place = %slot, "a cartridge that had no place");
        let held = Held { folder: name, barcode, worm, source: None, by_operator: false };
        inventory.put(slot, held).expect("the slot is free");
    }
    Ok(())
}

/// Folder names of the cartridges in a folder, with what the labels say: barcode, and whether it is WORM. One whose label cannot be read goes by its folder's name: it is there, and
/// a drive will say what is wrong with it.
fn labels(folder: &Path) -> io::Result<BTreeMap<String, (String, bool)>> {
    let mut labels = BTreeMap::new();
    for path in shelf::list(folder)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            warn!(path = %path.display(), "passed over: the name is no text");
            continue;
        };
        let label = match Metadata::load(&path) {
            Ok(metadata) => (metadata.barcode, metadata.worm),
            Err(error) => {
                warn!(path = %path.display(), %error, "the label cannot be read");
                (name.to_owned(), false)
            }
        };
        labels.insert(name.to_owned(), label);
    }
    Ok(labels)
}

fn make_cartridges(folder: &Path, count: u16, new: &NewMedium) -> Result<(), OpenError> {
    for number in 1..=count {
        let barcode = format!("OFH{number:03}L8");
        Cartridge::create(&folder.join(&barcode), &new.label(barcode))?;
    }
    Ok(())
}
