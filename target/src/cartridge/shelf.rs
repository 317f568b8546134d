//! A shelf: a folder of cartridges, from which a drive without a changer takes the first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cartridge, NewMedium, OpenError};

/// Barcode of the cartridge that is made on an empty shelf.
pub const DEFAULT_BARCODE: &str = "OFH001L8";

/// The cartridge a path means: the folder itself when it is one, else the first by name of those in it. On an empty shelf one is made,
/// as `new` says.
///
/// # Errors
/// [`OpenError`]; also when the folder cannot be listed.
pub fn cartridge_of(path: &Path, new: &NewMedium) -> Result<PathBuf, OpenError> {
    if Cartridge::is_one(path) {
        return Ok(path.to_owned());
    }
    let cartridges = list(path).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    if let Some(first) = cartridges.into_iter().next() {
        return Ok(first);
    }
    let folder = path.join(DEFAULT_BARCODE);
    Cartridge::create(&folder, &new.label(DEFAULT_BARCODE))?;
    Ok(folder)
}

/// The cartridges in a folder, by name; none when there is no such folder. One that is hidden is being made.
///
/// # Errors
/// When it cannot be listed.
pub fn list(shelf: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(shelf) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut cartridges = Vec::new();
    for entry in entries {
        let entry = entry?;
        let (path, hidden) = (entry.path(), entry.file_name().as_encoded_bytes().starts_with(b"."));
        if !hidden && Cartridge::is_one(&path) {
            cartridges.push(path);
        }
    }
    cartridges.sort();
    Ok(cartridges)
}
