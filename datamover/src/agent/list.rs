//! `offhost list`, `files`, `tape`: what is on a tape, said to people and programs.

use std::io::{self, Write};

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use sim::client::{Client, LogicalUnit, Options, TapeRead};
use sim::url::Url;

use super::cache::{Cache, CachedSet};
use super::drive::{Contents, Drive};
use super::layout::{Content, FileEntry, SetTables, Trailer, VolumeHeader};
use super::ui::human;

/// Room for a record when only its length is wanted: the drive tells it in sense data. None at all would be no read.
const ROOM: u32 = 1;

/// What a tape holds.
///
/// # Errors
/// What the drive says.
pub async fn contents(tape: &Url, session: Options) -> anyhow::Result<Contents> {
    let client = Client::connect(tape, session).await?;
    let contents = Drive::open(&client, tape.lun).await?.inspect().await?;
    let _ = client.logout().await;
    Ok(contents)
}

/// The metadata of a set, read from the tape, and kept in the local catalog.
///
/// # Errors
/// What the drive says, and what is wrong with the set.
pub async fn tables(tape: &Url, typed: Option<&str>, session: Options, cache: Option<&Cache>) -> anyhow::Result<SetTables> {
    let client = Client::connect(tape, session).await?;
    let drive = Drive::open(&client, tape.lun).await?;
    let stood = drive.position().await?;
    let contents = drive.inspect().await?;
    let set = contents.set(typed).with_context(|| format!("tape {tape}"))?;
    let (bytes, tables) = drive.tables(set).await?;
    drive.locate(stood.object).await?;
    let _ = client.logout().await;
    if let Some(cache) = cache {
        cache.store(&set.header, &bytes).context("keeping the set in the local catalog")?;
    }
    Ok(tables)
}

/// The sets of a tape, a line each.
///
/// # Errors
/// Those of the output.
pub fn print_sets(contents: &Contents, out: &mut dyn Write) -> io::Result<()> {
    if contents.is_blank() {
        return writeln!(out, "the tape is empty");
    }
    let mut table = plain(&SET_COLUMNS);
    for set in &contents.sets {
        table.add_row(set_row(&set.header, set.trailer.as_ref()));
    }
    writeln!(out, "{table}")?;
    if contents.foreign_files > 0 {
        writeln!(out, "and {} tape file(s) that offhost did not write, or cannot use", contents.foreign_files)?;
    }
    contents.unusable.iter().try_for_each(|reason| writeln!(out, "unusable: {reason}"))
}

/// The sets of the local catalog, a line each.
///
/// # Errors
/// Those of the output.
pub fn print_cached(sets: &[CachedSet], out: &mut dyn Write) -> io::Result<()> {
    if sets.is_empty() {
        return writeln!(out, "the local catalog is empty; --from says which tape to read");
    }
    let mut table = plain(&SET_COLUMNS);
    for set in sets {
        table.add_row(set_row(&set.header, Some(&set.trailer)));
    }
    writeln!(out, "{table}")
}

const SET_COLUMNS: [&str; 5] = ["set", "taken", "disk", "data", "state"];

fn set_row(header: &VolumeHeader, trailer: Option<&Trailer>) -> [String; 5] {
    let VolumeHeader { source, moment, data, .. } = header;
    let disk = match source.partition {
        Some(partition) => format!("{}/{} partition {partition}", source.target, source.lun),
        None => format!("{}/{}", source.target, source.lun),
    };
    let state = match trailer {
        Some(trailer) => format!("whole, {} files", trailer.files),
        None => "INCOMPLETE: its backup did not come to an end".to_owned(),
    };
    [header.set.short(), when(moment.taken_unix_ms), disk, human(data.bytes), state]
}

/// The files of a set, a line each path.
///
/// # Errors
/// Those of the output.
pub fn print_files(tables: &SetTables, out: &mut dyn Write) -> io::Result<()> {
    for file in &tables.catalog.files {
        for path in &file.paths {
            if file.directory {
                writeln!(out, "{:>14}  {path}/", "")?;
            }
            for stream in &file.streams {
                let name = if stream.name.is_empty() { path.clone() } else { format!("{path}:{}", stream.name) };
                let note = match &stream.content {
                    Content::Encoded { how, .. } => format!("  [{how}]"),
                    Content::Unknown(why) => format!("  [{why}]"),
                    Content::Resident(_) | Content::Extents(_) => String::new(),
                };
                writeln!(out, "{:>14}  {name}{note}", stream.size)?;
            }
        }
    }
    Ok(())
}

/// A file of a set as programs read it: no bytes, only where they are.
#[derive(Debug, Serialize)]
pub struct FileFacts<'a> {
    record: u64,
    directory: bool,
    paths: &'a [String],
    streams: Vec<StreamFacts<'a>>,
}

#[derive(Debug, Serialize)]
struct StreamFacts<'a> {
    name: &'a str,
    size: u64,
    place: &'static str,
    extents: usize,
}

impl<'a> From<&'a FileEntry> for FileFacts<'a> {
    fn from(file: &'a FileEntry) -> Self {
        let streams = file.streams.iter().map(|stream| {
            let (place, extents) = match &stream.content {
                Content::Resident(_) => ("resident", 0),
                Content::Extents(extents) => ("extents", extents.len()),
                Content::Encoded { extents, .. } => ("encoded", extents.len()),
                Content::Unknown(_) => ("unknown", 0),
            };
            StreamFacts { name: &stream.name, size: stream.size, place, extents }
        });
        Self { record: file.record, directory: file.directory, paths: &file.paths, streams: streams.collect() }
    }
}

/// One stretch of equal objects on a tape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TapeStretch {
    /// Logical object number of the first.
    pub object: u64,
    /// How many.
    pub count: u64,
    /// Bytes of each record; `None` for filemarks.
    pub record: Option<u64>,
}

/// The objects of a tape, equal neighbours together, read from the beginning; winds back to where the tape stood.
///
/// # Errors
/// What the drive says.
pub async fn tape_map(tape: &Url, session: Options) -> anyhow::Result<Vec<TapeStretch>> {
    let client = Client::connect(tape, session).await?;
    let drive = Drive::open(&client, tape.lun).await?;
    let stood = drive.position().await?;
    drive.locate(0).await?;
    let map = objects(drive.unit()).await;
    drive.locate(stood.object).await?;
    let _ = client.logout().await;
    map
}

async fn objects(unit: &LogicalUnit) -> anyhow::Result<Vec<TapeStretch>> {
    let mut map: Vec<TapeStretch> = Vec::new();
    for object in 0.. {
        let record = match unit.read_record(ROOM).await? {
            TapeRead::EndOfData => break,
            TapeRead::Filemark => None,
            TapeRead::Record(record) => Some(record.len() as u64),
            TapeRead::Longer { length, .. } => Some(length),
        };
        match map.last_mut() {
            Some(last) if last.record == record => last.count += 1,
            _ => map.push(TapeStretch { object, count: 1, record }),
        }
    }
    Ok(map)
}

/// The map of a tape as `mtdump` would tell it: object by object, equal ones together.
///
/// # Errors
/// Those of the output.
pub fn print_tape_map(map: &[TapeStretch], out: &mut dyn Write) -> io::Result<()> {
    let mut table = plain(&["object", "count", "what"]);
    for stretch in map {
        let what = stretch.record.map_or_else(|| "filemark".to_owned(), |bytes| format!("record of {bytes} bytes"));
        table.add_row([stretch.object.to_string(), stretch.count.to_string(), what]);
    }
    for column in [0, 1] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{table}")?;
    let total: u64 = map.iter().filter_map(|stretch| Some(stretch.record? * stretch.count)).sum();
    writeln!(out, "{total} bytes in records, then the end of data")
}

/// A table without borders.
pub(super) fn plain(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

/// Wall clock of a moment, UTC.
#[must_use]
pub fn when(unix_ms: u64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_ms / 1000);
    humantime::format_rfc3339_seconds(time).to_string()
}
