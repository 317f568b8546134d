//! Disks that hold anything, and a real NTFS volume with a few bytes of its metadata changed.
//!
//! Input: a byte that chooses. Even: the rest is the disk, cut into few sectors. Odd: changes of five bytes of place, a byte of
//! length and the new bytes, laid over the embedded volume. That has thousands of files, most of which differ in nothing but
//! their names: two of each shape are left in it, so that a map takes a fifth of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use datamover::fixture;
use datamover::map::ntfs::record::kind;
use datamover::map::ntfs::view::{Attribute, File, Place};
use datamover::map::source::ReadAt;
use datamover::map::{DiskMap, probe};

use super::Input;

/// What is not zero on the disk: places in ascending order, with their bytes.
type Pieces = Vec<(u64, Vec<u8>)>;

/// The disk that is changed. Each record is a piece of its own, so that a change meets one as likely as the contents of a file.
static PIECES: LazyLock<Pieces> = LazyLock::new(|| {
    let whole: Pieces =
        fixture::pieces().expect("the embedded disk").collect::<Result<_, _>>().expect("the embedded disk is whole");
    let map = probe(&Disk { size: fixture::SIZE, under: &whole, over: Vec::new(), read: AtomicU64::new(0) }).expect("no errors");
    few_of_each_shape(&whole, &map)
});

/// One input.
pub fn fuzz(data: &[u8]) {
    let mut input = Input(data);
    let disk = if input.byte() & 1 == 0 { raw(input) } else { mutated(input) };
    let Ok(map) = probe(&disk) else { return };
    assert!(map.used.runs().last().is_none_or(|run| run.end() <= map.size), "used lies on the disk");
    for (_, file) in map.files().take(200) {
        assert!(format!("{file:?}").len() < 1 << 24);
    }
    for lba in [0, 1, 2048, map.size / 512] {
        let _ = map.at_lba(lba);
    }
    let bytes = map.to_bytes();
    assert!(DiskMap::from_bytes(&bytes).is_ok_and(|again| again.used == map.used), "what we write we read");
}

/// Bytes of a record of $MFT, and of one of an index.
const RECORDS: [(&[u8], usize); 2] = [(b"FILE", 1024), (b"INDX", 4096)];
/// Records below this one are the file system's own.
const FIRST_USER: u64 = 24;

/// The disk without the files that are like two others, and without what removed files have left.
fn few_of_each_shape(whole: &Pieces, map: &DiskMap) -> Pieces {
    let mut seen = BTreeMap::<_, u32>::new();
    let is_kept = |(_, file): &(_, File)| {
        let alike = seen.entry(shape(file)).or_default();
        *alike += 1;
        file.record < FIRST_USER || if file.directory { clusters(file).len() <= INDEX_MAX } else { *alike <= 2 }
    };
    let (kept, dropped): (Vec<_>, Vec<_>) = map.files().partition(is_kept);
    let numbers: BTreeSet<u64> = kept.iter().map(|(_, file)| file.record).collect();
    let clusters: BTreeSet<u64> = kept.iter().flat_map(|(_, file)| clusters(file)).collect();
    let volume = map.volumes[0].partition.range;
    let is_left = |(offset, bytes): &(u64, Vec<u8>)| match bytes.starts_with(b"FILE") {
        true => numbers.contains(&base_record(bytes)),
        false => *offset < volume.start || clusters.contains(&(offset / CLUSTER)) || offset + CLUSTER >= volume.end(),
    };
    let mut pieces: Pieces = whole.iter().flat_map(|(offset, bytes)| records(*offset, bytes)).filter(is_left).collect();
    let (_, mft) = &kept[0];
    let bitmap = mft.attributes.iter().find(|attribute| attribute.type_code == kind::BITMAP).expect("$MFT has one");
    let Place::NonResident { extents, .. } = &bitmap.place else { panic!("ntfs-3g keeps it in clusters") };
    let at = extents[0].at.expect("no hole");
    let (offset, bytes) = pieces.iter_mut().rfind(|(offset, _)| *offset <= at).expect("it is not all zeros");
    for (_, file) in dropped {
        bytes[(at - *offset + file.record / 8) as usize] &= !(1 << (file.record % 8));
    }
    pieces
}

/// The first record of the file that a record of $MFT belongs to.
fn base_record(bytes: &[u8]) -> u64 {
    let word = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")));
    if word(32) == 0 { word(44) } else { word(32) }
}

/// A directory of more clusters names files that are gone, above all.
const INDEX_MAX: usize = 16;
/// Of the embedded volume.
const CLUSTER: u64 = 4096;

/// Two files of one shape take the same way through the parser.
fn shape(file: &File) -> Vec<(u32, bool, bool, bool, usize)> {
    let of = |place: &Place| match place {
        Place::Resident { .. } => 0,
        Place::NonResident { extents, .. } => extents.len().min(4),
    };
    let row = |a: &Attribute| (a.type_code, a.compressed, a.sparse, a.name.is_empty(), of(&a.place));
    file.attributes.iter().map(row).collect()
}

fn clusters(file: &File) -> Vec<u64> {
    let places = file.attributes.iter().map(|attribute| &attribute.place);
    let extents = places.flat_map(|place| match place {
        Place::NonResident { extents, .. } => extents.as_slice(),
        Place::Resident { .. } => &[],
    });
    let clusters = extents.filter_map(|extent| Some(extent.at? / CLUSTER..(extent.at? + extent.len).div_ceil(CLUSTER)));
    clusters.flatten().collect()
}

/// Cuts a piece where a record begins or ends.
fn records(offset: u64, bytes: &[u8]) -> Pieces {
    let mut cut = Pieces::new();
    let mut before = 0;
    let mut at = 0;
    while at < bytes.len() {
        let record = RECORDS.iter().find(|(signature, length)| bytes[at..].starts_with(signature) && at + length <= bytes.len());
        let Some((_, length)) = record else {
            at += 1024;
            continue;
        };
        if before < at {
            cut.push((offset + before as u64, bytes[before..at].to_vec()));
        }
        cut.push((offset + at as u64, bytes[at..at + length].to_vec()));
        at += length;
        before = at;
    }
    if before < bytes.len() {
        cut.push((offset + before as u64, bytes[before..].to_vec()));
    }
    cut
}

#[derive(Debug)]
struct Disk<'a> {
    size: u64,
    under: &'a [(u64, Vec<u8>)],
    over: Vec<(u64, Vec<u8>)>,
    read: AtomicU64,
}

/// Zeros behind the given bytes: a size of its own, so that structures may lie beyond them.
fn raw(mut input: Input<'_>) -> Disk<'static> {
    let sectors = u64::from(input.short()) + 1;
    let size = sectors * 512;
    let bytes = input.take(usize::try_from(size).unwrap_or(usize::MAX));
    Disk { size, under: &[], over: vec![(0, bytes.to_vec())], read: AtomicU64::new(0) }
}

fn mutated(mut input: Input<'_>) -> Disk<'static> {
    let mut over = Vec::new();
    while !input.is_empty() && over.len() < 64 {
        let (piece, at) = (usize::from(input.short()), u32::from_be_bytes([0, input.byte(), input.byte(), input.byte()]));
        let length = usize::from(input.byte() & 15) + 1;
        let (offset, bytes) = &PIECES[piece % PIECES.len()];
        let at = at as usize % bytes.len();
        let change = input.take(length.min(bytes.len() - at)).to_vec();
        over.push((offset + at as u64, change));
    }
    Disk { size: fixture::SIZE, under: &PIECES, over, read: AtomicU64::new(0) }
}

impl ReadAt for Disk<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_length(&self) -> u32 {
        512
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        assert!(buffer.len() <= 64 << 20, "one read of {} bytes", buffer.len());
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        buffer.fill(0);
        let first = self.under.partition_point(|(at, bytes)| at + bytes.len() as u64 <= offset);
        let under = self.under[first..].iter().take_while(|(at, _)| *at < end);
        for (at, bytes) in under.chain(&self.over) {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let source = &bytes[(from - at) as usize..(to - at) as usize];
                buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }

    fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}
