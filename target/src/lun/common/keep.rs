//! Small states of a logical unit that outlive the process: one file each, replaced as a whole.
//!
//! What is saved is there after `kill -9` and after a power loss, or the former state is: never a part of it. Knows nothing of what
//! is in them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Where one state is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    path: PathBuf,
}

impl Kept {
    /// Its folder is made when it is first written to.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What was saved last; `None` when nothing was.
    ///
    /// # Errors
    /// `InvalidData` with the file's name when it is not what was saved: it is for a person to decide what that means.
    pub fn load<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(named(&self.path, error)),
        };
        let damaged = |error| named(&self.path, io::Error::new(io::ErrorKind::InvalidData, error));
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Blocks. Replaces what was saved before; durable when this returns.
    ///
    /// # Errors
    /// Whatever the system gives. Then the former state is still there.
    pub fn save<T: Serialize>(&self, state: &T) -> io::Result<()> {
        let folder = self.folder();
        fs::create_dir_all(folder)?;
        let new = self.path.with_extension("new");
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, state)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(folder)?.sync_all()
    }

    /// Blocks. Nothing is kept any more.
    ///
    /// # Errors
    /// Whatever the system gives.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Ok(()) => File::open(self.folder())?.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn folder(&self) -> &Path {
        self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_state_saved_is_the_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("luns/state.json"));
        assert_eq!(kept.load::<Vec<u32>>().unwrap(), None);
        kept.save(&vec![1, 2]).unwrap();
        kept.save(&vec![3]).unwrap();
        assert_eq!(kept.load::<Vec<u32>>().unwrap(), Some(vec![3]));
        kept.remove().unwrap();
        kept.remove().unwrap();
        assert_eq!(kept.load::<Vec<u32>>().unwrap(), None);
    }

    #[test]
    fn a_damaged_state_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("state.json"));
        fs::write(folder.path().join("state.json"), "[1,").unwrap();
        let error = kept.load::<Vec<u32>>().unwrap_err();
        assert!(error.kind() == io::ErrorKind::InvalidData && error.to_string().contains("state.json"), "{error}");
    }
}
