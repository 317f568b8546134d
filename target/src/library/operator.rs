//! What an operator does at the import/export elements: puts cartridges in and takes them out.
//!
//! Over the control socket, since a program has no door: `import` takes a cartridge's folder into the library's, `export` puts it
//! outside. What is in the folder and the record agree after every step; a crash in between leaves a cartridge in the library that is
//! then found to have no place yet, and gets a slot.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tracing::info;

use super::inventory::{Held, Place};
use super::{Library, record};
use crate::cartridge::metadata::is_barcode;
use crate::cartridge::{Cartridge, Metadata, NewMedium, OpenError};

/// Folder inside the library's for cartridges that were exported to nowhere in particular.
const EXPORTED: &str = "exported";

/// Why a cartridge did not get into the library.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// All import/export elements are full.
    #[error("no import/export element is free")]
    NoRoom,
    /// The path is no cartridge.
    #[error("{0} is no cartridge: it has no cartridge.json")]
    NoCartridge(PathBuf),
    /// It is in the library already, or another of that name is.
    #[error("the library has a cartridge {0} already")]
    Exists(String),
    /// Nothing that a label can say.
    #[error("barcode {0:?} is not 1 to 32 capital letters and digits")]
    Barcode(String),
    /// It cannot be made or opened.
    #[error(transparent)]
    Cartridge(#[from] OpenError),
    /// The file system's own.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// Why a cartridge did not get out of the library.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// PREVENT ALLOW MEDIUM REMOVAL holds.
    #[error("an initiator prevents the removal of media")]
    Prevented,
    /// None of that barcode is in an import/export element.
    #[error("no cartridge {0} is in an import/export element: a changer has to move it there first")]
    NotThere(String),
    /// Something is where it is to go.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// The file system's own.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

impl Library {
    /// Puts a cartridge into the first free import/export element: its folder is moved into the library's.
    ///
    /// # Errors
    /// [`ImportError`]. The folder is then where it was, or in the library's without a place.
    pub fn import(&self, cartridge: &Path) -> Result<Place, ImportError> {
        let mut inventory = self.arm();
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| ImportError::File { path, source }
        };
        if !Cartridge::is_one(cartridge) {
            return Err(ImportError::NoCartridge(cartridge.to_owned()));
        }
        let Metadata { barcode, worm, .. } = Metadata::load(cartridge).map_err(file(cartridge))?;
        let resolved = fs::canonicalize(cartridge).map_err(file(cartridge))?;
        let name = resolved.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| ImportError::NoCartridge(cartridge.to_owned()))?.to_owned();
        let place = inventory.free(|place| matches!(place, Place::Mail(_))).ok_or(ImportError::NoRoom)?;
        let inside = self.folder().join(&name);
        let is_inside = fs::canonicalize(&inside).is_ok_and(|inside| inside == resolved);
        if inventory.held().any(|(_, held)| held.folder == name) || (!is_inside && inside.exists()) {
            return Err(ImportError::Exists(name));
        }
        if !is_inside {
            rename(&resolved, &inside).map_err(file(&resolved))?;
        }
        let before = inventory.clone();
        let held = Held { folder: name, barcode, worm, source: None, by_operator: true };
        info!(cartridge = held.folder, %place, "imported");
        inventory.put(place, held).expect("the place is free");
        if let Err(source) = record::store(self.folder(), &inventory) {
            *inventory = before;
            return Err(ImportError::File { path: self.folder().join(record::FILE_NAME), source });
        }
        self.show(&inventory);
        Ok(place)
    }

    /// Makes a new cartridge and puts it into the first free import/export element.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn import_new(&self, barcode: &str, new: &NewMedium) -> Result<Place, ImportError> {
        if !is_barcode(barcode) {
            return Err(ImportError::Barcode(barcode.to_owned()));
        }
        let folder = self.folder().join(barcode);
        if folder.exists() {
            return Err(ImportError::Exists(barcode.to_owned()));
        }
        if self.inventory().free(|place| matches!(place, Place::Mail(_))).is_none() {
            return Err(ImportError::NoRoom);
        }
        Cartridge::create(&folder, &new.label(barcode))?;
        self.import(&folder)
    }

    /// Takes a cartridge out of an import/export element: its folder is moved to `to`, or among those that were exported before.
    /// Gives where it is now.
    ///
    /// # Errors
    /// [`ExportError`]. The cartridge is then still in the library.
    pub fn export(&self, barcode: &str, to: Option<&Path>) -> Result<PathBuf, ExportError> {
        let mut inventory = self.arm();
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| ExportError::File { path, source }
        };
        let there = inventory.held().find(|(place, held)| matches!(place, Place::Mail(_)) && held.barcode == barcode);
        let (place, name) =
            there.map(|(place, held)| (place, held.folder.clone())).ok_or_else(|| ExportError::NotThere(barcode.into()))?;
        let to = to.map_or_else(|| self.folder().join(EXPORTED).join(&name), Path::to_owned);
        if to.exists() {
            return Err(ExportError::Exists(to));
        }
        if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(file(parent))?;
        }
        let before = inventory.clone();
        inventory.take(place);
        let recorded = record::store(self.folder(), &inventory).map_err(file(&self.folder().join(record::FILE_NAME)));
        let moved = recorded.and_then(|()| rename(&self.folder().join(&name), &to).map_err(file(&to)));
        if let Err(error) = moved {
            *inventory = before;
            // The record may already be without it: then the next look gives it a slot, which is a place too.
            let _ = record::store(self.folder(), &inventory);
            return Err(error);
        }
        info!(cartridge = name, %place, to = %to.display(), "exported");
        self.show(&inventory);
        Ok(to)
    }
}

/// Moves a folder, durably. Both must be on one file system: what is to be copied, the operator copies.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|error| match error.kind() {
        io::ErrorKind::CrossesDevices => {
            io::Error::new(error.kind(), "library and cartridge are on different file systems: copy the folder first")
        }
        _ => error,
    })?;
    for folder in [from.parent(), to.parent()].into_iter().flatten() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
