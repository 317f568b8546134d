//! A cartridge: a folder with a tape image or two, their indexes, and what is printed on its label.
//!
//! ```text
//! OFH001L8/cartridge.json   label, capacity, density, write protection, memory chip      [`metadata`]
//!          p0.tap           partition 0: a SIMH magtape image                            `partition`, `image`
//!          p0.idx           places and sums of its objects                               `index`
//!          p1.tap, p1.idx   partition 1, on a cartridge formatted with two
//! ```
//!
//! Knows no SCSI. Follows the rules of [`protocol::cartridge`].

mod absent;
mod copying;
mod erase;
mod filled;
mod image;
mod index;
pub mod memory;
pub mod metadata;
mod open;
mod partition;
pub mod shelf;
mod sums;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use protocol::cartridge::TapePosition;
use tracing::warn;

pub use self::absent::{Absent, Search, Unsummed};
pub use self::copying::{Copied, CopyError};
pub use self::erase::Erasure;
pub use self::metadata::{Metadata, NewMedium};
pub use self::open::OpenError;
pub use self::partition::{Partition, ReadError, Stored, WriteError, Written};

/// An open cartridge: nobody else has it.
#[derive(Debug)]
pub struct Cartridge {
    folder: PathBuf,
    metadata: Metadata,
    partitions: Vec<Partition>,
    /// Somebody may know the volume change reference: the next change of the medium needs another.
    reference_known: bool,
}

impl Cartridge {
    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The label.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The partitions, one or two, by number.
    #[must_use]
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// As [`Cartridge::partitions`], for a change.
    pub fn partitions_mut(&mut self) -> &mut [Partition] {
        &mut self.partitions
    }

    /// It may be written: not write-protected, nor damaged.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.partitions.iter().all(Partition::writable)
    }

    /// Nothing may be written until it is opened again, for this reason.
    pub fn protect(&mut self, reason: &str) {
        for partition in &mut self.partitions {
            partition.writable = false;
            partition.notes.push(reason.to_owned());
        }
    }

    /// For people: what was found and done when it was opened.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.partitions.iter().flat_map(Partition::notes).cloned().collect()
    }

    /// Changes label or memory chip. With an error nothing has changed.
    ///
    /// # Errors
    /// The file system's own; `ReadOnlyFilesystem` for a write-protected cartridge.
    pub fn change(&mut self, change: impl FnOnce(&mut Metadata)) -> io::Result<()> {
        if self.metadata.write_protect {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut metadata = self.metadata.clone();
        change(&mut metadata);
        metadata.store(&self.folder)?;
        self.metadata = metadata;
        Ok(())
    }

    /// Counts what went through, in memory: it reaches the file with the next [`Cartridge::change`].
    pub fn count(&mut self, count: impl FnOnce(&mut memory::Memory)) {
        count(&mut self.metadata.memory);
    }

    /// A drive has loaded it. That it could not be noted is only told: the medium can be read all the same.
    pub fn loaded(&mut self, drive: &str) {
        self.reference_known = true;
        let noted = self.change(|metadata| {
            metadata.memory.loads += 1;
            metadata.memory.drives.insert(0, drive.to_owned());
            metadata.memory.drives.truncate(memory::DRIVES_REMEMBERED);
        });
        self.tell(noted);
    }

    /// The drive gives it back: what was counted goes to the file.
    pub fn unloaded(&mut self) {
        let noted = self.change(|_| {});
        self.tell(noted);
    }

    /// The volume change reference was told to somebody.
    pub const fn reference_told(&mut self) {
        self.reference_known = true;
    }

    /// What is on the medium is about to change. The new volume change reference is on the file before the change is: after a crash
    /// it may have changed for nothing, but never stays while the data changes.
    ///
    /// # Errors
    /// As [`Cartridge::change`].
    pub fn changing(&mut self) -> io::Result<()> {
        if !self.reference_known {
            return Ok(());
        }
        self.change(|metadata| metadata.memory.change_reference = next_reference(metadata.memory.change_reference))?;
        self.reference_known = false;
        Ok(())
    }

    /// Takes all data away and divides the cartridge into partitions of these sizes, one or two.
    ///
    /// A crash in between leaves the old division, with nothing in it.
    ///
    /// # Errors
    /// When it is protected, or the file system fails.
    pub fn format(&mut self, sizes: &[u64]) -> Result<(), WriteError> {
        debug_assert!((1..=metadata::MAX_PARTITIONS).contains(&sizes.len()));
        self.changing()?;
        self.partitions.iter_mut().try_for_each(|partition| partition.cut(TapePosition::BEGINNING))?;
        self.partitions.truncate(1);
        if sizes.len() > 1 {
            open::make_image(&self.folder, 1)?;
        }
        self.change(|metadata| {
            metadata.partitions = if sizes.len() > 1 { sizes.to_vec() } else { Vec::new() };
            metadata.memory.initializations = metadata.memory.initializations.saturating_add(1);
            metadata.memory.attributes.clear();
        })?;
        let limits = self.metadata.limits();
        self.partitions[0].set_limits(limits[0]);
        match limits.get(1) {
            Some(limits) => {
                let opened = Partition::open(&self.folder, 1, *limits, true);
                self.partitions.push(opened.map_err(|error| WriteError::Io(io::Error::other(error)))?);
            }
            None => open::remove_image(&self.folder, 1),
        }
        Ok(())
    }

    fn tell(&self, noted: io::Result<()>) {
        match noted {
            Err(error) if error.kind() != io::ErrorKind::ReadOnlyFilesystem => {
                warn!(cartridge = %self.folder.display(), %error, "the memory chip was not written");
            }
            _ => {}
        }
    }
}

/// Never zero, which says that there is none, nor all ones, which says that it is not known.
const fn next_reference(reference: u32) -> u32 {
    if reference >= u32::MAX - 1 { 1 } else { reference + 1 }
}
