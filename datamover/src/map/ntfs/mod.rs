//! The map of one NTFS volume: every file with its clusters, and every cluster that is in use.
//!
//! It writes nothing, replays no log, decodes no compression and decrypts nothing: it says where bytes lie. All it reads may
//! be damaged or hostile; then the victims are named, the set of used clusters never shrinks, and memory stays in proportion to
//! the size of $MFT. Follows the published on-disk format (linux-ntfs documentation) and what mkntfs, ntfs-3g and Windows write.
//!
//! Order of work: [`boot`] → [`mft`] → [`build`] (with [`record`] and [`runs`]) → [`names`] → [`used`], [`logfile`]; the
//! outcome is a [`catalog`], which [`view`] makes readable.

pub mod boot;
mod build;
pub mod catalog;
mod device;
pub mod logfile;
mod mft;
mod names;
pub mod record;
pub mod runs;
mod used;
pub mod view;

use self::boot::Geometry;
use self::catalog::{Catalog, RecordRow};
use self::device::{Device, Stream};
use self::logfile::LogState;
use self::mft::Mft;
use self::record::kind;
use self::used::system;
use super::extents::Extents;
use super::note::{Note, Notes, Severity};
use super::source::ReadAt;
use protocol::units::ByteRange;
use serde::{Deserialize, Serialize};
use std::io;

/// An NTFS volume at its place on a LUN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NtfsVolume {
    /// The partition on the LUN.
    pub range: ByteRange,
    /// Sizes and places.
    pub geometry: Geometry,
    /// NTFS version, major and minor; 3.1 since Windows XP.
    pub version: (u8, u8),
    /// The volume's name.
    pub label: String,
    /// The flag by which a driver asks for a check.
    pub dirty: bool,
    /// Whether $LogFile has work left in it.
    pub log: LogState,
    /// Clusters that $BadClus names. They stay in the set of used blocks: a copy may skip them only where reading fails.
    pub bad: Extents,
    /// The files.
    pub catalog: Catalog,
}

/// A volume, the bytes of the LUN that it uses, and why that may be too few.
#[derive(Debug)]
pub(super) struct Mapped {
    pub volume: NtfsVolume,
    pub used: Extents,
    /// Everything must be copied all the same, and why.
    pub whole: Option<String>,
}

/// Why there is no map of a volume.
#[derive(Debug)]
pub enum Failure {
    /// Not NTFS at all.
    NotNtfs,
    /// NTFS, but so damaged that its files cannot be told.
    Broken(&'static str),
    /// The source failed; nothing is known.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Maps the volume in `range`.
pub(super) fn map(source: &dyn ReadAt, range: ByteRange, notes: &mut Notes) -> Result<Mapped, Failure> {
    let geometry = geometry(source, range, notes)?;
    let device = Device { source, range, geometry };
    let mft = Mft::open(&device, notes)?;
    let mut scanned = build::build(&device, &mft, notes)?;
    names::reconcile(&device, &mut scanned.catalog, &scanned.roots, notes)?;
    let catalog = scanned.catalog;

    let claimed = used::claimed(&device, &catalog, &scanned.extra, notes);
    let bitmap = used::bitmap(&device, &catalog, notes)?;
    let mut whole = mft.incomplete.map(str::to_owned);
    let used = match bitmap {
        Ok(bitmap) => {
            if !used::marks_itself(&device, &catalog, &bitmap) {
                whole = Some("$Bitmap calls clusters of the file system itself free".to_owned());
            }
            used::compare(&bitmap, &claimed, notes);
            bitmap.union(&claimed).union(&outside_clusters(&device))
        }
        Err(reason) => {
            whole = Some(reason.to_owned());
            claimed
        }
    };
    let log = log_state(&device, &catalog)?;
    if let LogState::Open(reason) = &log {
        whole = Some(reason.clone());
    }
    let (version, dirty) = version(&catalog).unwrap_or_else(|| {
        notes.damage(system::VOLUME, mft.position(system::VOLUME), "$Volume does not tell the state of the volume");
        ((0, 0), true)
    });
    if dirty {
        whole = whole.or(Some("the volume is marked as in need of a check".to_owned()));
    }
    let bad = bad_clusters(&device, &catalog);
    if !bad.is_empty() {
        notes.warn(format!("{} bytes lie in clusters that $BadClus calls bad", bad.bytes()));
    }
    let label = label(&catalog);
    Ok(Mapped { volume: NtfsVolume { range, geometry, version, label, dirty, log, bad, catalog }, used, whole })
}

/// The boot sector, or its copy behind the last cluster: usually in the partition's last sector.
fn geometry(source: &dyn ReadAt, range: ByteRange, notes: &mut Notes) -> Result<Geometry, Failure> {
    let room = range.len;
    let mut first = vec![0; room.min(4096) as usize];
    source.read_at(range.start, &mut first)?;
    let problem = match Geometry::parse(&first, room) {
        Ok(geometry) => return Ok(geometry),
        Err(problem) => problem,
    };
    let tail = room.min(TAIL) / 512 * 512;
    let tail_at = range.end() - tail;
    let mut bytes = vec![0; tail as usize];
    source.read_at(tail_at, &mut bytes)?;
    let copy = bytes.chunks_exact(512).enumerate().rev().find_map(|(index, sector)| {
        let at = tail_at + index as u64 * 512;
        // A true copy lies exactly behind the volume that it describes.
        Geometry::parse(sector, room).ok().filter(|geometry| range.start + geometry.volume == at).map(|geometry| (at, geometry))
    });
    let named = first.get(3..11) == Some(b"NTFS    ");
    match copy {
        Some((at, geometry)) => {
            let text = format!("{problem}: used its copy at byte {at}");
            notes.push(Note::new(Severity::Damage, text).at(range.start));
            Ok(geometry)
        }
        None if named => Err(Failure::Broken(problem)),
        None => Err(Failure::NotNtfs),
    }
}

/// What the volume has beside its clusters: the boot sector, and all behind the last cluster, where the copy of it is.
fn outside_clusters(device: &Device<'_>) -> Extents {
    let Geometry { clusters, cluster, .. } = device.geometry;
    let range = device.range;
    let behind = range.start + clusters * cluster;
    let boot = ByteRange { start: range.start, len: BOOT_AREA.min(range.len) };
    vec![boot, ByteRange { start: behind, len: range.end() - behind }].into()
}

fn log_state(device: &Device<'_>, catalog: &Catalog) -> io::Result<LogState> {
    let Some((_, row)) = catalog.find(system::LOG_FILE) else { return Ok(LogState::open("$LogFile cannot be found")) };
    let Some(stream) = catalog.attribute(row, kind::DATA, "").and_then(|attribute| catalog.stream_of(attribute)) else {
        return Ok(LogState::open("$LogFile cannot be found"));
    };
    if row.has(RecordRow::DAMAGED) {
        return Ok(LogState::open("the file record of $LogFile is damaged"));
    }
    let bytes = Stream::new(device, catalog.runs_of(stream));
    let mut head = vec![0; stream.size.min(bytes.len()).min(logfile::HEAD as u64) as usize];
    bytes.read(device.source, 0, &mut head)?;
    Ok(logfile::judge(&head))
}

/// Version and dirty flag out of $VOLUME_INFORMATION.
fn version(catalog: &Catalog) -> Option<((u8, u8), bool)> {
    let (_, row) = catalog.find(system::VOLUME)?;
    let value = catalog.value_of(catalog.attribute(row, kind::VOLUME_INFORMATION, "")?)?;
    let &[major, minor, flags, _] = value.get(8..12)? else { return None };
    Some(((major, minor), flags & 1 != 0))
}

fn label(catalog: &Catalog) -> String {
    let value = catalog.find(system::VOLUME).and_then(|(_, row)| catalog.attribute(row, kind::VOLUME_NAME, ""));
    let units: Vec<u16> = value
        .and_then(|attribute| catalog.value_of(attribute))
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .collect();
    String::from_utf16_lossy(&units)
}

/// The real runs of $BadClus:$Bad; the rest of it is one hole as long as the volume.
fn bad_clusters(device: &Device<'_>, catalog: &Catalog) -> Extents {
    let row = catalog.find(system::BAD_CLUSTERS).and_then(|(_, row)| catalog.attribute(row, kind::DATA, "$Bad"));
    let runs = row.and_then(|attribute| catalog.stream_of(attribute)).map(|stream| catalog.runs_of(stream));
    runs.unwrap_or_default().iter().filter_map(|run| device.bytes_of(*run)).collect::<Vec<_>>().into()
}

/// How far from the partition's end the copy of the boot sector is looked for, in bytes.
const TAIL: u64 = 1 << 20;

/// $Boot: the boot sector and the loader behind it, in bytes.
const BOOT_AREA: u64 = 8192;

/// Longest attribute list that is believed, in bytes; Windows stops at 256 KiB.
const MAX_LIST: u64 = 4 << 20;
