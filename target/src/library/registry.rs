//! The libraries that are served: the changer and the drives of one folder share one library, in whatever order they come.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{Library, LibraryError};

/// Libraries by their folders. Drives know nothing of their library, so it is kept for them; one that neither a changer nor a drive
/// needs any more is closed at the next look, and its folder is free.
#[derive(Debug, Default)]
pub struct Libraries {
    open: Mutex<BTreeMap<PathBuf, Arc<Library>>>,
}

impl Libraries {
    /// All that are open.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Library>> {
        self.open.lock().expect("no holder panics").values().cloned().collect()
    }

    /// The library of a folder, which is opened when it is not yet. Blocks.
    ///
    /// # Errors
    /// As [`Library::open`].
    pub fn open(&self, folder: &Path) -> Result<Arc<Library>, LibraryError> {
        let at = |source| LibraryError::File { path: folder.to_owned(), source };
        // Made here, since only what exists has one name.
        fs::create_dir_all(folder).map_err(at)?;
        let name = fs::canonicalize(folder).map_err(at)?;
        let mut open = self.open.lock().expect("no holder panics");
        open.retain(|_, library| Arc::strong_count(library) > 1 || library.served_drives() > 0);
        if let Some(library) = open.get(&name) {
            return Ok(Arc::clone(library));
        }
        let library = Library::open(&name)?;
        open.insert(name, Arc::clone(&library));
        Ok(library)
    }
}
