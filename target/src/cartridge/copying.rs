//! Copying a whole cartridge into a folder of its own, in the layout that is wanted.
//!
//! Records go over as they lie on the medium, compressed and encrypted ones too, each read against its sum. Label, memory chip and
//! partitions stay as they are, but for the layout. A sum that proves nothing about the writing proves nothing in the copy either. The
//! new cartridge gets its name when all of it is on the medium; up to then it lies hidden beside it, and an error takes it away.
//!
//! Mends nothing: what cannot be read ends the copy. Nobody else has either cartridge meanwhile. Knows no SCSI; follows the rules of
//! [`protocol::cartridge`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::cartridge::ObjectKind;
use protocol::cartridge::frame::WORD;
use protocol::cartridge::index::{Entry, SumState};
use protocol::cartridge::layout::Layout;

use super::image::is_at;
use super::metadata::{FILE_NAME, MAX_PARTITIONS};
use super::{Cartridge, Metadata, OpenError, Partition, ReadError, Stored, WriteError, open};
use crate::sys;

/// Bytes of records that are read before they are written.
const AT_ONCE: usize = 16 << 20;
/// Entries of the index that are read at once.
const ENTRIES_AT_ONCE: u64 = 1024;

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The copy's label.
    pub metadata: Metadata,
    /// Records, of all partitions.
    pub records: u64,
    /// Filemarks.
    pub filemarks: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Records whose sums prove nothing about their writing; those without any got them from what was read.
    pub unproven: u64,
    /// For people: what was found when the source was opened.
    pub notes: Vec<String>,
}

/// Why there is no copy. Nothing is left of what was begun.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Something has the name already.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// Another copy is being made under that name.
    #[error("{0}: another copy is being made of this name")]
    InUse(PathBuf),
    /// The source cannot be opened, or the copy not be begun.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is more than the source's objects.
    #[error(
        "partition {partition} has {bytes} bytes behind its last object, which would be lost: load the cartridge in a drive first"
    )]
    Behind {
        /// By number.
        partition: usize,
        /// How many.
        bytes: u64,
    },
    /// A record of the source cannot be read.
    #[error("partition {partition}: {source}")]
    Read {
        /// By number.
        partition: usize,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The copy cannot be written.
    #[error("partition {partition} of the copy, behind object {object}: {source}")]
    Write {
        /// By number.
        partition: usize,
        /// Objects that were written.
        object: u64,
        /// What is wrong.
        source: WriteError,
    },
    /// The file system's own.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

impl Cartridge {
    /// Makes a copy of the cartridge `from` that is to be `to`, in its own layout or another. `progress` is told how many bytes of the
    /// source have been copied, and of how many. Blocks.
    ///
    /// # Errors
    /// [`CopyError`]; a source that somebody else has is an [`OpenError::InUse`].
    pub fn copy(from: &Path, to: &Path, layout: Option<Layout>, progress: impl FnMut(u64, u64)) -> Result<Copied, CopyError> {
        let source = Self::open_read_only(from)?;
        let metadata = source.metadata().clone();
        let metadata = Metadata { layout: layout.unwrap_or(metadata.layout), ..metadata };
        let limits = metadata.limits();
        let making = Making::begin(to)?;
        let copied = Copied { metadata, records: 0, filemarks: 0, bytes: 0, unproven: 0, notes: source.notes() };
        let total = source.partitions().iter().map(|partition| partition.end().offset).sum();
        let mut copying = Copying { copied, done: 0, total, progress };
        for ((number, partition), limits) in source.partitions().iter().enumerate().zip(limits) {
            let behind = partition.bytes_behind().map_err(|error| read(number, error))?;
            if behind > 0 {
                return Err(CopyError::Behind { partition: number, bytes: behind });
            }
            open::make_image(&making.folder, number).map_err(|source| making.failed(source))?;
            let mut copy = Partition::open(&making.folder, number, limits, true)?;
            copying.copy_partition(number, partition, &mut copy)?;
        }
        let Copying { copied, .. } = copying;
        // The label comes last: a folder without one is no cartridge yet.
        copied.metadata.store(&making.folder).map_err(|source| making.failed(source))?;
        making.finish(to)?;
        Ok(copied)
    }
}

impl Partition {
    /// Bytes of the image that belong to no object, but for the end word.
    fn bytes_behind(&self) -> io::Result<u64> {
        Ok(self.image.size()?.saturating_sub(self.end().offset + WORD))
    }

    /// Appends records with what their sums are worth.
    fn append_copies(&mut self, records: &[(Entry, Bytes)]) -> Result<(), WriteError> {
        let first = self.end().object;
        let stored = records.iter().map(|(entry, data)| Stored { parts: std::slice::from_ref(data), wrapped: entry.wrapped });
        let written = self.append_records(stored);
        written.error.map_or(Ok(()), Err)?;
        for (object, _) in (first..).zip(records).filter(|(_, (entry, _))| entry.sum_state != SumState::Known) {
            if let Some(entry) = self.index.get(object)? {
                self.index.replace(Entry { sum_state: SumState::Recomputed, ..entry })?;
            }
        }
        Ok(())
    }
}

/// A copy that is under way.
struct Copying<P> {
    copied: Copied,
    done: u64,
    total: u64,
    progress: P,
}

/// What has been read of a partition and not been written: filemarks behind records.
#[derive(Default)]
struct Pending {
    records: Vec<(Entry, Bytes)>,
    bytes: usize,
    marks: u32,
}

impl Pending {
    fn write(&mut self, to: &mut Partition) -> Result<(), WriteError> {
        to.append_copies(&self.records)?;
        let marks = to.append_filemarks(self.marks);
        *self = Self::default();
        marks.error.map_or(Ok(()), Err)
    }
}

impl<P: FnMut(u64, u64)> Copying<P> {
    fn copy_partition(&mut self, number: usize, from: &Partition, to: &mut Partition) -> Result<(), CopyError> {
        let mut pending = Pending::default();
        let (mut object, before) = (0, self.done);
        loop {
            let entries = from.index.run(object, ENTRIES_AT_ONCE).map_err(|error| read(number, error))?;
            object += entries.len() as u64;
            for entry in &entries {
                if entry.kind == ObjectKind::Filemark {
                    self.copied.filemarks += 1;
                    pending.marks += 1;
                    continue;
                }
                if pending.marks > 0 || pending.bytes >= AT_ONCE {
                    self.write(number, &mut pending, to)?;
                    self.done = before + entry.at.offset;
                    (self.progress)(self.done, self.total);
                }
                let data = from.read(entry).map_err(|source| CopyError::Read { partition: number, source })?;
                self.copied.records += 1;
                self.copied.bytes += data.len() as u64;
                self.copied.unproven += u64::from(entry.sum_state != SumState::Known);
                pending.bytes += data.len();
                pending.records.push((*entry, data));
            }
            if entries.is_empty() {
                break;
            }
        }
        self.write(number, &mut pending, to)?;
        to.sync().map_err(|error| written(number, to, error.into()))?;
        self.done = before + from.end().offset;
        (self.progress)(self.done, self.total);
        Ok(())
    }

    fn write(&self, number: usize, pending: &mut Pending, to: &mut Partition) -> Result<(), CopyError> {
        pending.write(to).map_err(|error| written(number, to, error))
    }
}

fn read(partition: usize, error: io::Error) -> CopyError {
    CopyError::Read { partition, source: error.into() }
}

fn written(partition: usize, to: &Partition, source: WriteError) -> CopyError {
    CopyError::Write { partition, object: to.end().object, source }
}

/// A cartridge that has no name yet: a hidden folder beside the place that it is to have, and locked. Removed when it is dropped.
struct Making {
    folder: PathBuf,
    _lock: File,
}

impl Making {
    fn begin(to: &Path) -> Result<Self, CopyError> {
        let name = to.file_name().ok_or_else(|| CopyError::Exists(to.to_owned()))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".copying");
        let folder = to.with_file_name(hidden);
        let failed = |source| CopyError::File { path: folder.clone(), source };
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let lock = File::open(&folder).map_err(failed)?;
        if !sys::try_lock(&lock).map_err(failed)? || !is_at(&lock, &folder).unwrap_or(false) {
            return Err(CopyError::InUse(to.to_owned()));
        }
        let making = Self { folder, _lock: lock };
        if fs::symlink_metadata(to).is_ok() {
            return Err(CopyError::Exists(to.to_owned()));
        }
        // What one left that was killed.
        match fs::remove_file(making.folder.join(FILE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(making.failed(error)),
            _ => (0..MAX_PARTITIONS).for_each(|number| open::remove_image(&making.folder, number)),
        }
        Ok(making)
    }

    fn failed(&self, source: io::Error) -> CopyError {
        CopyError::File { path: self.folder.clone(), source }
    }

    fn finish(self, to: &Path) -> Result<(), CopyError> {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let named = fs::rename(&self.folder, to).and_then(|()| File::open(parent)?.sync_all());
        named.map_err(|source| self.failed(source))
    }
}

impl Drop for Making {
    /// Once it has its name there is nothing to remove.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
