//! The map of a disk: which bytes are in use, which file they belong to, and where each file's bytes lie.
//!
//! It only reads, through [`source::ReadAt`], and only metadata. What it does not understand (an unknown file system, a
//! volume in need of a check, a log with work left) it counts as used as a whole, and says so in [`DiskMap::notes`]: a backup
//! may be too large but never too small. A further file system is one more folder beside [`ntfs`] and one arm in [`probe`].

pub mod command;
pub mod extents;
mod note;
pub mod ntfs;
pub mod partition;
mod signature;
pub mod source;

pub use note::{Note, Severity};

use self::extents::Extents;
use self::note::Notes;
use self::ntfs::view::{File, Owner};
use self::ntfs::{Failure, NtfsVolume};
use self::partition::{Partition, PartitionTable, Scheme};
use self::source::ReadAt;
use protocol::units::ByteRange;
use serde::{Deserialize, Serialize};
use std::io;

/// What a disk holds. Goes onto the tape as the file catalog of a set ([`DiskMap::to_bytes`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMap {
    /// Bytes of the LUN.
    pub size: u64,
    /// Bytes of one logical block.
    pub block_length: u32,
    /// How the disk is divided.
    pub scheme: Scheme,
    /// One per partition; one for the whole of an unpartitioned disk.
    pub volumes: Vec<VolumeMap>,
    /// Bytes of the LUN that a copy must have, in whole blocks.
    pub used: Extents,
    /// What is damaged, unusual or worth knowing.
    pub notes: Vec<Note>,
    /// Bytes read to make this map.
    pub metadata_bytes: u64,
}

/// One volume of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMap {
    /// Its place and what the partition table says of it.
    pub partition: Partition,
    /// NTFS, or the name of what it looks like.
    pub file_system: Option<String>,
    /// Why the whole of it counts as used; `None` where only the used clusters do.
    pub whole: Option<String>,
    /// Bytes of the LUN in use by it.
    pub used: Extents,
    /// The files, where the file system is known.
    pub ntfs: Option<NtfsVolume>,
}

/// Maps a disk.
///
/// # Errors
/// Only those of the source: with a block that cannot be read there is no map. Damage on the disk is a note.
pub fn probe(source: &dyn ReadAt) -> io::Result<DiskMap> {
    let before = source.bytes_read();
    let table = PartitionTable::read(source)?;
    let (size, block_length) = (source.size(), source.block_length());
    let mut map = DiskMap {
        size,
        block_length,
        scheme: table.scheme,
        volumes: Vec::new(),
        used: Extents::new(),
        notes: table.notes,
        metadata_bytes: 0,
    };
    let partitions: Extents = table.partitions.iter().map(|partition| partition.range).collect::<Vec<_>>().into();
    let mut used = outside(source, &partitions, &mut map.notes)?.union(&table.metadata);
    for partition in table.partitions {
        let (volume, notes) = volume(source, partition)?;
        used = used.union(&volume.used);
        map.notes.extend(notes);
        map.volumes.push(volume);
    }
    map.used = used.rounded_out(block_length.into(), size);
    map.metadata_bytes = source.bytes_read() - before;
    Ok(map)
}

/// What no partition covers is unknown: boot loaders live there. It is copied as far as it was ever written.
fn outside(source: &dyn ReadAt, partitions: &Extents, notes: &mut Vec<Note>) -> io::Result<Extents> {
    let disk = Extents::from(ByteRange { start: 0, len: source.size() });
    let mut found = Extents::new();
    for gap in disk.subtract(partitions).runs() {
        let allocated = source.allocated(*gap)?;
        if allocated.bytes() > REMARKABLE_GAP {
            let text = format!("{} bytes outside of every partition are copied too", allocated.bytes());
            notes.push(Note::new(Severity::Info, text).at(gap.start));
        }
        found = found.union(&allocated);
    }
    Ok(found)
}

fn volume(source: &dyn ReadAt, partition: Partition) -> io::Result<(VolumeMap, Vec<Note>)> {
    let range = partition.range;
    let number = partition.number;
    let mut notes = Notes::default();
    let (file_system, ntfs, used, whole) = match ntfs::map(source, range, &mut notes) {
        Ok(mapped) => (Some("NTFS".to_owned()), Some(mapped.volume), mapped.used, mapped.whole),
        Err(Failure::Broken(reason)) => (Some("NTFS".to_owned()), None, Extents::new(), Some(reason.to_owned())),
        Err(Failure::NotNtfs) => {
            let guess = guess(source, range)?;
            let reason = guess.map_or("no known file system".to_owned(), |name| format!("{name} is not mapped"));
            (guess.map(str::to_owned), None, Extents::new(), Some(reason))
        }
        Err(Failure::Io(error)) => return Err(error),
    };
    let used = match &whole {
        None => used,
        Some(reason) => {
            let text = format!("the whole volume counts as used ({} bytes): {reason}", range.len);
            notes.push(Note::new(Severity::Warning, text).at(range.start));
            used.union(&source.allocated(range)?)
        }
    };
    Ok((VolumeMap { partition, file_system, whole, used, ntfs }, notes.finish(number)))
}

fn guess(source: &dyn ReadAt, range: ByteRange) -> io::Result<Option<&'static str>> {
    let mut first = vec![0; range.len.min(4096) as usize];
    source.read_at(range.start, &mut first)?;
    Ok(signature::guess(&first))
}

impl DiskMap {
    /// All files of all volumes.
    pub fn files(&self) -> impl Iterator<Item = (&VolumeMap, File)> + '_ {
        self.volumes.iter().flat_map(|volume| volume.ntfs.iter().flat_map(NtfsVolume::files).map(move |file| (volume, file)))
    }

    /// A file by its path, in the first volume that has it.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<(&VolumeMap, File)> {
        self.volumes.iter().find_map(|volume| Some((volume, volume.ntfs.as_ref()?.file(path)?)))
    }

    /// Who holds the first byte of a block; nobody, where the block is free or its volume is not mapped.
    ///
    /// With clusters smaller than a block every owner of a part of the block is named.
    #[must_use]
    pub fn at_lba(&self, lba: u64) -> Vec<Owner> {
        let block = u64::from(self.block_length);
        let mut owners = Vec::new();
        let Some(start) = lba.checked_mul(block).filter(|start| *start < self.size) else { return owners };
        for ntfs in self.volumes.iter().filter_map(|volume| volume.ntfs.as_ref()) {
            let step = ntfs.geometry.cluster.min(block).max(512);
            for position in (start..start.saturating_add(block)).step_by(step as usize) {
                let found = ntfs.owners(position);
                owners.extend(found.into_iter().filter(|owner| position == start || owner.offset == 0 || step < block));
            }
        }
        owners
    }

    /// The compact form for a tape.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads [`DiskMap::to_bytes`] back.
    ///
    /// # Errors
    /// When the bytes are no map, or its tables point outside themselves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let map: Self = postcard::from_bytes(bytes).map_err(|_| "the bytes are no map of a disk")?;
        for ntfs in map.volumes.iter().filter_map(|volume| volume.ntfs.as_ref()) {
            ntfs.catalog.check()?;
            let geometry = &ntfs.geometry;
            let inside = geometry.clusters.checked_mul(geometry.cluster).is_some_and(|len| len <= ntfs.range.len);
            let end = ntfs.range.start.checked_add(ntfs.range.len).is_some_and(|end| end <= map.size);
            if !inside || !end || geometry.cluster == 0 || geometry.record == 0 {
                return Err("a volume of the map lies outside its disk");
            }
        }
        if map.block_length == 0 { Err("the bytes are no map of a disk") } else { Ok(map) }
    }
}

/// Bytes outside of partitions that need no word: the usual alignment at the start and a GPT at the end.
const REMARKABLE_GAP: u64 = 4 << 20;
