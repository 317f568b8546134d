//! The local catalog: copies of the metadata of sets, so that `list` and `files` answer without a tape.
//!
//! A cache and nothing more: a tape restores without it, and reading a tape fills it again. One folder a set, named by its id, with
//! the tape's own bytes in it; what is damaged or unknown is passed over.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;

use super::exit::Stop;
use super::layout::{LayoutError, SetBytes, SetTables, Trailer, VolumeHeader};

/// A folder of sets.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// A set whose metadata is here.
#[derive(Debug, Clone, Serialize)]
pub struct CachedSet {
    /// Its first record.
    pub header: VolumeHeader,
    /// Its last record.
    pub trailer: Trailer,
    #[serde(skip)]
    bytes: SetBytes,
}

const PARTS: [&str; 4] = ["header.json", "tables", "catalog", "trailer.json"];

impl Cache {
    /// A cache in this folder, which is made when something is stored.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The user's: `offhost` below $XDG_DATA_HOME, or below `~/.local/share`. `None` for a user without a home.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
        Some(Self::new(data.join("offhost")))
    }

    /// Keeps a set. Its folder appears whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn store(&self, header: &VolumeHeader, bytes: &SetBytes) -> io::Result<()> {
        let place = self.folder.join(header.set.to_string());
        if place.exists() {
            return Ok(());
        }
        let half = self.folder.join(format!("{}.{}.part", header.set, std::process::id()));
        fs::create_dir_all(&half)?;
        for (name, part) in PARTS.iter().zip([&bytes.header, &bytes.tables, &bytes.catalog, &bytes.trailer]) {
            fs::write(half.join(name), part)?;
        }
        fs::rename(&half, &place).or_else(|error| {
            fs::remove_dir_all(&half)?;
            // Somebody else was faster.
            if place.exists() { Ok(()) } else { Err(error) }
        })
    }

    /// All sets that can be read, the oldest first.
    ///
    /// # Errors
    /// Those of the file system, but for a folder that does not exist.
    pub fn sets(&self) -> io::Result<Vec<CachedSet>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut sets = Vec::new();
        for entry in entries {
            let folder = entry?.path();
            let [Ok(header), Ok(tables), Ok(catalog), Ok(trailer)] = PARTS.map(|part| fs::read(folder.join(part))) else {
                continue;
            };
            let bytes = SetBytes { header, tables, catalog, trailer };
            if let Ok(set) = CachedSet::new(bytes) {
                sets.push(set);
            }
        }
        sets.sort_by_key(|set| set.header.moment.taken_unix_ms);
        Ok(sets)
    }

    /// The set whose id begins so, or the latest.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn set(&self, typed: Option<&str>) -> anyhow::Result<CachedSet> {
        let mut sets = self.sets()?;
        let Some(typed) = typed else { return sets.pop().context("the local catalog is empty: say which tape with --from") };
        sets.retain(|set| set.header.set.matches(typed));
        if sets.len() > 1 {
            anyhow::bail!(Stop::usage(format!("more than one set begins with {typed:?}: give more of its id")));
        }
        sets.pop().with_context(|| format!("no set {typed:?} in the local catalog: say which tape with --from"))
    }
}

impl CachedSet {
    fn new(bytes: SetBytes) -> Result<Self, LayoutError> {
        Ok(Self { header: VolumeHeader::from_copy(&bytes.header)?, trailer: Trailer::from_copy(&bytes.trailer)?, bytes })
    }

    /// Its metadata, checked as if it came from a tape.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn tables(&self) -> Result<SetTables, LayoutError> {
        self.bytes.tables(&self.header, &self.trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::set::tests::example;
    use super::*;

    #[test]
    fn what_was_stored_is_found_by_the_beginning_of_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("not-yet"));
        assert!(cache.sets().unwrap().is_empty() && cache.set(None).is_err());
        let (bytes, header, trailer) = example();
        cache.store(&header, &bytes).unwrap();
        cache.store(&header, &bytes).unwrap();
        let found = cache.set(Some("abab")).unwrap();
        assert_eq!((&found.header, &found.trailer), (&header, &trailer));
        assert_eq!(found.tables().unwrap().correspondence.blocks(), 129);
        assert!(cache.set(Some("abac")).is_err());
    }

    #[test]
    fn what_is_damaged_is_passed_over_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let (bytes, header, _) = example();
        cache.store(&header, &bytes).unwrap();
        let place = folder.path().join(header.set.to_string());
        fs::write(place.join("tables"), b"nothing").unwrap();
        assert!(cache.set(None).unwrap().tables().is_err());
        fs::write(place.join("header.json"), b"nothing").unwrap();
        fs::create_dir(folder.path().join("something-else")).unwrap();
        assert!(cache.sets().unwrap().is_empty());
    }
}
