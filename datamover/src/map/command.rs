//! `offhost map`: prints what a disk holds, from file to blocks and from block to files.
//!
//! It opens nothing itself: the caller gives the source, a file or a LUN.

use super::ntfs::NtfsVolume;
use super::ntfs::view::{Attribute, File, Owner, Place, Times};
use super::source::ReadAt;
use super::{DiskMap, VolumeMap, probe};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// What to print of a disk's map.
#[derive(Debug, Clone, Default, Args)]
pub struct MapArgs {
    /// Where one file lies: its streams, extents and attributes
    #[arg(long, value_name = "PATH", conflicts_with_all = ["lba", "list"])]
    pub file: Option<String>,
    /// Which files hold this logical block
    #[arg(long, value_name = "N", conflicts_with = "list")]
    pub lba: Option<u64>,
    /// All files, one line each
    #[arg(long)]
    pub list: bool,
    /// Print facts as JSON
    #[arg(long)]
    pub json: bool,
}

/// Maps the disk and prints what was asked for. `Ok(false)` when the asked file or owner does not exist.
///
/// # Errors
/// Those of the source and of the output.
pub fn run(source: &dyn ReadAt, args: &MapArgs, out: &mut dyn Write) -> io::Result<bool> {
    let map = probe(source)?;
    print(&map, args, out)
}

/// As [`run`], from a map that was made before or read from a tape.
///
/// # Errors
/// Those of the output.
pub fn print(map: &DiskMap, args: &MapArgs, out: &mut dyn Write) -> io::Result<bool> {
    match (&args.file, args.lba) {
        (Some(path), _) => {
            let Some((volume, file)) = map.file(path) else { return Ok(false) };
            if args.json { json(&file, out)? } else { print_file(volume, &file, map.block_length, out)? }
        }
        (None, Some(lba)) => {
            let owners = map.at_lba(lba);
            if args.json {
                json(&owners, out)?
            } else {
                print_owners(&owners, out)?
            }
            return Ok(!owners.is_empty());
        }
        (None, None) if args.json => json(&Summary::new(map, args.list), out)?,
        (None, None) if args.list => print_list(map, out)?,
        (None, None) => print_summary(map, out)?,
    }
    Ok(true)
}

/// The disk in JSON.
#[derive(Serialize)]
struct Summary<'a> {
    size: u64,
    block_length: u32,
    scheme: super::partition::Scheme,
    used_bytes: u64,
    used_extents: usize,
    metadata_bytes: u64,
    volumes: Vec<VolumeSummary<'a>>,
    notes: &'a [super::Note],
}

#[derive(Serialize)]
struct VolumeSummary<'a> {
    partition: &'a super::partition::Partition,
    file_system: Option<&'a str>,
    used_bytes: u64,
    whole: Option<&'a str>,
    cluster: Option<u64>,
    label: Option<&'a str>,
    log: Option<&'a super::ntfs::logfile::LogState>,
    files: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<File>>,
}

impl<'a> Summary<'a> {
    fn new(map: &'a DiskMap, list: bool) -> Self {
        let volume = |volume: &'a VolumeMap| {
            let ntfs = volume.ntfs.as_ref();
            VolumeSummary {
                partition: &volume.partition,
                file_system: volume.file_system.as_deref(),
                used_bytes: volume.used.bytes(),
                whole: volume.whole.as_deref(),
                cluster: ntfs.map(|ntfs| ntfs.geometry.cluster),
                label: ntfs.map(|ntfs| ntfs.label.as_str()),
                log: ntfs.map(|ntfs| &ntfs.log),
                files: ntfs.map_or(0, |ntfs| ntfs.catalog.len()),
                list: ntfs.filter(|_| list).map(|ntfs| ntfs.files().collect()),
            }
        };
        Self {
            size: map.size,
            block_length: map.block_length,
            scheme: map.scheme,
            used_bytes: map.used.bytes(),
            used_extents: map.used.runs().len(),
            metadata_bytes: map.metadata_bytes,
            volumes: map.volumes.iter().map(volume).collect(),
            notes: &map.notes,
        }
    }
}

fn json(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn print_summary(map: &DiskMap, out: &mut dyn Write) -> io::Result<()> {
    let mut volumes =
        table(&["partition", "first byte", "bytes", "holds", "cluster", "files", "bytes used"], &[0, 1, 2, 4, 5, 6]);
    for volume in &map.volumes {
        let ntfs = volume.ntfs.as_ref();
        let label = ntfs.map(|ntfs| ntfs.label.as_str()).filter(|label| !label.is_empty());
        let holds = volume.file_system.as_deref().unwrap_or("unknown");
        volumes.add_row([
            volume.partition.number.to_string(),
            volume.partition.range.start.to_string(),
            volume.partition.range.len.to_string(),
            label.map_or(holds.to_owned(), |label| format!("{holds} \"{}\"", label.escape_debug())),
            ntfs.map_or(String::new(), |ntfs| ntfs.geometry.cluster.to_string()),
            ntfs.map_or(String::new(), |ntfs| ntfs.catalog.len().to_string()),
            volume.used.bytes().to_string(),
        ]);
    }
    writeln!(out, "{volumes}")?;
    let (used, extents) = (map.used.bytes(), map.used.runs().len());
    writeln!(out, "disk of {} bytes in blocks of {}: {used} bytes used, in {extents} extents", map.size, map.block_length)?;
    writeln!(out, "read {} bytes of metadata", map.metadata_bytes)?;
    for note in &map.notes {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

fn print_list(map: &DiskMap, out: &mut dyn Write) -> io::Result<()> {
    let mut files = table(&["record", "bytes", "data", "extents", "changed", "path"], &[0, 1, 3]);
    for (_, file) in map.files() {
        files.add_row([
            file.record.to_string(),
            file.size.to_string(),
            residence(&file),
            extents(&file).to_string(),
            time(file.times.modified),
            shown(&file.path),
        ]);
    }
    writeln!(out, "{files}")
}

fn residence(file: &File) -> String {
    let data = file.attributes.iter().find(|attribute| attribute.is_data() && attribute.name.is_empty());
    match data {
        None if file.directory => "directory".to_owned(),
        None => "none".to_owned(),
        Some(data) => form(data),
    }
}

fn form(attribute: &Attribute) -> String {
    let mut form = match attribute.place {
        Place::Resident { .. } => "resident".to_owned(),
        Place::NonResident { .. } => "clusters".to_owned(),
    };
    for (has, word) in [(attribute.sparse, "sparse"), (attribute.compressed, "compressed"), (attribute.encrypted, "encrypted")] {
        if has {
            form = format!("{form}, {word}");
        }
    }
    form
}

fn extents(file: &File) -> usize {
    let count = |attribute: &Attribute| match &attribute.place {
        Place::NonResident { extents, .. } => extents.iter().filter(|extent| extent.at.is_some()).count(),
        Place::Resident { .. } => 0,
    };
    file.attributes.iter().map(count).sum()
}

fn print_file(volume: &VolumeMap, file: &File, block_length: u32, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", shown(&file.path))?;
    let place = volume.ntfs.as_ref().map_or(0, |ntfs: &NtfsVolume| ntfs.geometry.cluster);
    writeln!(out, "file record {}, sequence {}, in clusters of {place} bytes", file.record, file.sequence)?;
    let Times { created, modified, changed, accessed } = file.times;
    writeln!(out, "created {}, data changed {}", time(created), time(modified))?;
    writeln!(out, "record changed {}, accessed {}", time(changed), time(accessed))?;
    writeln!(out, "file attributes {:#010x}", file.file_attributes)?;
    for link in file.links.iter().skip(1) {
        writeln!(out, "also {}", shown(&link.path))?;
    }
    if file.damaged {
        writeln!(out, "damaged: a part of this file could not be read")?;
    }
    let mut attributes =
        table(&["attribute", "name", "form", "bytes", "stream byte", "LUN byte", "LBA", "length"], &[3, 4, 5, 6, 7]);
    for attribute in &file.attributes {
        let head = [attribute.kind.clone(), shown(&attribute.name), form(attribute), attribute.size.to_string()];
        let pieces: Vec<(u64, Option<u64>, u64)> = match &attribute.place {
            Place::Resident { at, .. } => at.iter().map(|range| (0, Some(range.start), range.len)).collect(),
            Place::NonResident { extents, .. } => extents.iter().map(|extent| (extent.offset, extent.at, extent.len)).collect(),
        };
        let mut head = Some(head);
        if pieces.is_empty() {
            attributes.add_row(head.take().unwrap_or_default());
        }
        for (offset, at, len) in pieces {
            let place =
                at.map_or(["hole".to_owned(), String::new()], |at| [at.to_string(), (at / u64::from(block_length)).to_string()]);
            let row =
                head.take().unwrap_or_default().into_iter().chain([offset.to_string()]).chain(place).chain([len.to_string()]);
            attributes.add_row(row);
        }
    }
    writeln!(out, "{attributes}")
}

fn print_owners(owners: &[Owner], out: &mut dyn Write) -> io::Result<()> {
    if owners.is_empty() {
        return writeln!(out, "no file holds this block");
    }
    let mut table = table(&["record", "path", "attribute", "stream", "byte"], &[0, 4]);
    for owner in owners {
        let kind = if owner.resident { "file record" } else { &owner.kind };
        table.add_row([
            owner.record.to_string(),
            shown(&owner.path),
            kind.to_owned(),
            shown(&owner.stream),
            owner.offset.to_string(),
        ]);
    }
    writeln!(out, "{table}")
}

/// A name on a disk may hold anything, also what drives a terminal.
fn shown(name: &str) -> String {
    name.chars().map(|char| if char.is_control() { '\u{FFFD}' } else { char }).collect()
}

/// NTFS counts 100 ns since 1601.
fn time(ntfs: u64) -> String {
    let since = Duration::new(ntfs / 10_000_000, (ntfs % 10_000_000) as u32 * 100);
    let unix = since.checked_sub(Duration::from_secs(EPOCH)).and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
    // The formatter knows years of four digits only.
    match unix.filter(|_| since.as_secs() < EPOCH + YEAR_9999) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => format!("{ntfs} x 100 ns"),
    }
}

/// Seconds from 1601-01-01 to 1970-01-01.
const EPOCH: u64 = 11_644_473_600;

/// Seconds from 1970-01-01 to 9999-01-01.
const YEAR_9999: u64 = 253_370_764_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_any_value_are_shown() {
        assert_eq!(time(EPOCH * 10_000_000), "1970-01-01T00:00:00Z");
        assert_eq!(time(0), "0 x 100 ns");
        assert_eq!(time(u64::MAX), format!("{} x 100 ns", u64::MAX));
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(shown("a\x1b[2Jb"), "a\u{FFFD}[2Jb");
    }
}
