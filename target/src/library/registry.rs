//! The libraries that are served: the changer and the drives of one folder share one library, in whatever order they come.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use super::{Library, LibraryError};

/// Libraries by their folders. One that no LUN has any more is closed, and its folder is free.
#[derive(Debug, Default)]
pub struct Libraries {
    open: Mutex<BTreeMap<PathBuf, Weak<Library>>>,
}

impl Libraries {
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
        open.retain(|_, library| library.strong_count() > 0);
        if let Some(library) = open.get(&name).and_then(Weak::upgrade) {
            return Ok(library);
        }
        let library = Library::open(&name)?;
        open.insert(name, Arc::downgrade(&library));
        Ok(library)
    }
}
