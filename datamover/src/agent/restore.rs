//! `offhost restore`: a set, or one file of it, back from a tape.
//!
//! Whole volumes and files go into LUNs by EXTENDED COPY, past this process. A file restored to a local path is the one case in
//! which payload comes through here: that is what was asked for, and it is counted apart and said. All is read from the tape
//! itself; no catalog elsewhere is needed.
//!
//! A disk that is too small or has other blocks is refused; one that somebody writes to, or that holds something, is overwritten
//! only when asked for.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use protocol::scsi::SenseKey;
use protocol::units::{ByteRange, Lba};
use serde::Serialize;
use sim::client::{Carried, Client, ClientError, Options};
use sim::url::Url;

use super::control::Control;
use super::copy::{Copier, Sent};
use super::disk::{Disk, LunSource};
use super::drive::{Drive, FoundSet};
use super::exit::Stop;
use super::layout::{Content, SetId, SetTables, StreamEntry, VolumeHeader};
use super::segments::read::{Piece, Plan, Stored};
use super::ui::{Ui, human};
use crate::map;
use protocol::control::LunStatus;

/// Writes that ended so recently mean that somebody is at work on a disk.
const RECENT_MS: u64 = 5_000;
/// What is looked at, at both ends of the place, to tell whether a disk holds something.
const LOOK: u64 = 64 << 10;

/// What is to be restored, from where, and where to.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The tape.
    pub from: Url,
    /// Beginning of the set's id; the last whole set if `None`.
    pub set: Option<String>,
    /// What goes where.
    pub what: What,
    /// Asked where somebody writes at the moment, if known.
    pub control: Option<Control>,
    /// Also onto a disk that holds something, and over a file that exists.
    pub overwrite: bool,
    /// How to log in.
    pub session: Options,
    /// Bytes that one command moves at most.
    pub command_bytes: u64,
}

/// What goes where.
#[derive(Debug, Clone)]
pub enum What {
    /// All blocks of the set to their own addresses on a disk.
    Volume {
        /// The disk.
        to: Url,
    },
    /// One file, from the first block of a disk on.
    FileToLun {
        /// Its path in the set.
        path: String,
        /// The disk.
        to: Url,
    },
    /// One file to a local path.
    FileToPath {
        /// Its path in the set.
        path: String,
        /// The file to make.
        to: PathBuf,
    },
}

/// What was done, for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// The set.
    pub set: SetId,
    /// The file, if it was one.
    pub path: Option<String>,
    /// Where it is now.
    pub to: String,
    /// Bytes restored, holes not counted.
    pub bytes: u64,
    /// Bytes of holes made zero.
    pub zeros: u64,
    /// What was sent to the copy manager.
    pub sent: Sent,
    /// Metadata read: header, tables and catalog from the tape, and what was looked at on the disk.
    pub metadata_read: u64,
    /// Payload that came through this process: only with a local path, or for a file that lies in its file record.
    pub payload_through_host: u64,
    /// All that this session carried.
    pub session: Carried,
    /// From begin to end.
    pub elapsed_ms: u64,
}

/// Restores.
///
/// # Errors
/// With a [`Stop`] for what scripts branch on: 3 and 5 of [`super::exit`].
pub async fn restore(options: &RestoreOptions, ui: Ui) -> anyhow::Result<RestoreReport> {
    let began = Instant::now();
    let client = Client::connect(&options.from, options.session.clone()).await?;
    let drive = Drive::open(&client, options.from.lun).await?;
    let contents = drive.inspect().await?;
    let set = contents.set(options.set.as_deref()).with_context(|| format!("tape {}", options.from))?;
    let (_, tables) = drive.tables(set).await.with_context(|| format!("set {} on {}", set.header.set.short(), options.from))?;
    ui.say(format_args!("set {} of {}", set.header.set.short(), super::list::when(set.header.moment.taken_unix_ms)));
    let job = Job { options, ui, client: &client, drive: &drive, set, tables: &tables, looked_at: Cell::new(0) };
    let mut report = match &options.what {
        What::Volume { to } => job.volume(to).await?,
        What::FileToLun { path, to } => job.file_to_lun(path, to).await?,
        What::FileToPath { path, to } => job.file_to_path(path, to).await?,
    };
    report.session = client.carried();
    report.elapsed_ms = began.elapsed().as_millis() as u64;
    let _ = client.logout().await;
    Ok(report)
}

struct Job<'a> {
    options: &'a RestoreOptions,
    ui: Ui,
    client: &'a Client,
    drive: &'a Drive,
    set: &'a FoundSet,
    tables: &'a SetTables,
    /// Bytes read from the disk to find out whether it holds something.
    looked_at: Cell<u64>,
}

impl Job<'_> {
    fn header(&self) -> &VolumeHeader {
        &self.set.header
    }

    fn stored(&self) -> Stored {
        let header = self.header();
        Stored { first_object: header.data.first_object, record: header.record_size, bytes: header.data.bytes }
    }

    async fn volume(&self, to: &Url) -> anyhow::Result<RestoreReport> {
        let source = &self.header().source;
        let block = u64::from(source.block_length);
        let place = ByteRange { start: source.first_block.0 * block, len: source.blocks * block };
        let disk = self.destination(to, place).await?;
        let runs = self.tables.correspondence.runs().iter();
        let pieces = runs.map(|run| Piece { from: run.x * block, bytes: run.blocks * block, to: run.a.0 * block }).collect();
        let sent = self.copy(&disk, pieces, &[]).await?;
        Ok(self.report(None, to.to_string(), self.header().data.bytes, 0, sent))
    }

    async fn file_to_lun(&self, path: &str, to: &Url) -> anyhow::Result<RestoreReport> {
        let stream = self.stream(path)?;
        let place = ByteRange { start: 0, len: stream.size };
        let parts = self.parts(path, stream)?;
        let disk = self.destination(to, place).await?;
        let sent = self.copy(&disk, parts.pieces.clone(), &parts.zeros).await?;
        if let Some(resident) = parts.resident {
            disk.write_bytes(0, resident).await?;
            disk.unit().synchronize_cache().await?;
        }
        let mut report = self.report(Some(path), to.to_string(), parts.bytes(), parts.zero_bytes(), sent);
        report.payload_through_host = parts.resident.map_or(0, |bytes| bytes.len() as u64);
        Ok(report)
    }

    async fn file_to_path(&self, path: &str, to: &Path) -> anyhow::Result<RestoreReport> {
        let stream = self.stream(path)?;
        let parts = self.parts(path, stream)?;
        if to.exists() && !self.options.overwrite {
            bail!(Stop::refused(format!("{} exists; --overwrite replaces it", to.display())));
        }
        // Whoever sees the name sees the whole file.
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let done = self.fetch(&parts, stream.size, &part).await;
        if let Err(error) = done {
            let _ = std::fs::remove_file(&part);
            return Err(error.context(format!("restoring {path} to {}", to.display())));
        }
        std::fs::rename(&part, to).with_context(|| format!("giving {} its name", to.display()))?;
        let mut report = self.report(Some(path), to.display().to_string(), parts.bytes(), parts.zero_bytes(), Sent::default());
        report.payload_through_host = parts.bytes();
        Ok(report)
    }

    /// Reads the records that hold the pieces, each once as far as they follow each other.
    async fn fetch(&self, parts: &Parts<'_>, size: u64, to: &Path) -> anyhow::Result<()> {
        let file = File::create(to)?;
        file.set_len(size)?;
        if let Some(resident) = parts.resident {
            file.write_all_at(resident, 0)?;
        }
        let bar = self.ui.bytes("tape to file", parts.bytes());
        let stored = self.stored();
        let record = u64::from(stored.record);
        let mut pieces = parts.pieces.clone();
        pieces.sort_by_key(|piece| piece.from);
        // The last record read, and the object that the tape stands before.
        let (mut held, mut position) = (None::<(u64, bytes::Bytes)>, None);
        let mut done = 0;
        for piece in pieces {
            let (mut from, mut to, end) = (piece.from, piece.to, piece.from + piece.bytes);
            while from < end {
                let number = from / record;
                let bytes = match &held {
                    Some((held, bytes)) if *held == number => bytes.clone(),
                    _ => {
                        let object = stored.first_object + number;
                        if position != Some(object) {
                            self.drive.locate(object).await?;
                        }
                        let bytes = self.drive.record(object, stored.record).await?;
                        position = Some(object + 1);
                        held = Some((number, bytes.clone()));
                        bytes
                    }
                };
                let begin = (from % record) as usize;
                let length = (end - from).min(record - from % record);
                let bytes = bytes
                    .get(begin..begin + length as usize)
                    .with_context(|| format!("record {number} of the data is shorter than the set says"))?;
                file.write_all_at(bytes, to)?;
                (from, to, done) = (from + length, to + length, done + length);
                bar.at(done);
            }
        }
        file.sync_all()?;
        bar.done();
        Ok(())
    }

    /// Opens the disk to restore to and refuses what must not be overwritten.
    async fn destination(&self, to: &Url, place: ByteRange) -> anyhow::Result<Disk> {
        if !to.same_target(&self.options.from) {
            bail!(Stop::usage(format!(
                "{to} and {} are on different targets; this version copies between LUNs of one",
                self.options.from
            )));
        }
        let disk = Disk::open(self.client, to.lun).await?;
        let (wanted, has) = (self.header().source.block_length, disk.block_length().0);
        if wanted != has {
            bail!("{to} has blocks of {has} bytes, the set was taken from a disk with {wanted}: choose a disk with the same");
        }
        if disk.capacity().bytes() < place.end() {
            bail!("{to} has {}, but {} are needed: choose a larger disk", human(disk.capacity().bytes()), human(place.end()));
        }
        if self.options.overwrite {
            return Ok(disk);
        }
        if let Some(control) = &self.options.control {
            let status = control.status().await?;
            let is_it = |lun: &&LunStatus| lun.lun == to.lun && lun.target == to.target;
            let quiet = status.luns.iter().find(is_it).and_then(|lun| lun.quiet_for_ms);
            if quiet.is_some_and(|quiet| quiet < RECENT_MS) {
                bail!(Stop::refused(format!(
                    "somebody wrote to {to} in the last {} s; stop it first, or restore with --overwrite",
                    RECENT_MS / 1000
                )));
            }
        }
        let (found, read) = holds(&disk, place).await?;
        self.looked_at.set(read);
        if let Some(what) = found {
            bail!(Stop::refused(format!("{to} holds {what}; choose an empty disk, or --overwrite")));
        }
        Ok(disk)
    }

    /// Pieces by EXTENDED COPY, zeros between them, then SYNCHRONIZE CACHE.
    async fn copy(&self, disk: &Disk, pieces: Vec<Piece>, zeros: &[ByteRange]) -> anyhow::Result<Sent> {
        let block_length = disk.block_length().0;
        let mut copier = Copier::new(self.drive.unit(), disk.unit(), block_length, self.options.command_bytes).await?;
        let bar = self.ui.bytes("tape to disk", pieces.iter().map(|piece| piece.bytes).sum());
        let plan = Plan::new(copier.limits(), block_length, self.stored(), pieces)?;
        let mut begun = false;
        let incomplete = |begun: bool, error: anyhow::Error| match begun {
            true => error.context(Stop::incomplete("the restore failed on its way: the disk holds only a part; run it again")),
            false => error,
        };
        for command in plan {
            copier.run(&command, &bar).await.map_err(|error| incomplete(begun || may_have_begun(&error), error))?;
            begun = true;
        }
        for range in zeros {
            self.zero(disk, *range).await.map_err(|error| incomplete(true, error))?;
        }
        bar.done();
        disk.unit().synchronize_cache().await.map_err(|error| incomplete(true, error.into()))?;
        Ok(copier.sent())
    }

    /// Whole blocks by one command that carries one of them, the edges with what is beside them.
    async fn zero(&self, disk: &Disk, range: ByteRange) -> anyhow::Result<()> {
        let block = disk.block_length().bytes();
        let (first, end) = (range.start.div_ceil(block), range.end() / block);
        if first >= end {
            disk.write_bytes(range.start, &vec![0; range.len as usize]).await?;
            return Ok(());
        }
        disk.write_bytes(range.start, &vec![0; (first * block - range.start) as usize]).await?;
        disk.write_zeros(Lba(first), end - first).await?;
        disk.write_bytes(end * block, &vec![0; (range.end() - end * block) as usize]).await?;
        Ok(())
    }

    fn stream(&self, path: &str) -> anyhow::Result<&StreamEntry> {
        let catalog = &self.tables.catalog;
        let Some((file, stream)) = catalog.find(path) else {
            let near = catalog.suggestions(path);
            let hint = if near.is_empty() {
                "`offhost files` lists them".to_owned()
            } else {
                format!("did you mean {}?", near.join(" or "))
            };
            bail!("no file {path:?} in set {}; {hint}", self.header().set.short());
        };
        match stream {
            Some(stream) => Ok(stream),
            None if file.directory => bail!("{path} is a directory; name a file, or restore the whole volume"),
            None => bail!("{path} has no content of its own; its streams are named {path}:NAME"),
        }
    }

    fn parts<'a>(&self, path: &str, stream: &'a StreamEntry) -> anyhow::Result<Parts<'a>> {
        let extents = match &stream.content {
            Content::Resident(bytes) => return Ok(Parts { pieces: Vec::new(), zeros: Vec::new(), resident: Some(bytes) }),
            Content::Extents(extents) => extents,
            Content::Encoded { how, .. } => bail!(
                "{path} is {how}: its blocks are not its bytes, and decoding is not in this version; restore the whole volume and \
                 read the file there"
            ),
            Content::Unknown(why) => bail!("{path} cannot be restored alone ({why}); restore the whole volume"),
        };
        let block = u64::from(self.header().source.block_length);
        let (mut pieces, mut zeros, mut end) = (Vec::new(), Vec::new(), 0);
        let valid = stream.valid.min(stream.size);
        for extent in extents {
            let length = extent.bytes.min(valid.saturating_sub(extent.at));
            if length == 0 {
                continue;
            }
            if extent.at > end {
                zeros.push(ByteRange { start: end, len: extent.at - end });
            }
            let (first, last) = (extent.start / block, (extent.start + length).div_ceil(block));
            let mut found = 0;
            for run in self.tables.correspondence.within(Lba(first), last - first) {
                let (start, stop) =
                    ((run.a.0 * block).max(extent.start), ((run.a.0 + run.blocks) * block).min(extent.start + length));
                let from = run.x * block + (start - run.a.0 * block);
                pieces.push(Piece { from, bytes: stop - start, to: extent.at + (start - extent.start) });
                found += stop - start;
            }
            if found != length {
                bail!("the set does not hold all blocks of {path}: it is damaged, or was not written by offhost");
            }
            end = extent.at + length;
        }
        if stream.size > end {
            zeros.push(ByteRange { start: end, len: stream.size - end });
        }
        Ok(Parts { pieces, zeros, resident: None })
    }

    fn report(&self, path: Option<&str>, to: String, bytes: u64, zeros: u64, sent: Sent) -> RestoreReport {
        RestoreReport {
            set: self.header().set,
            path: path.map(str::to_owned),
            to,
            bytes,
            zeros,
            sent,
            metadata_read: self.tables.bytes + self.looked_at.get(),
            payload_through_host: 0,
            session: Carried::default(),
            elapsed_ms: 0,
        }
    }
}

/// The command that ended like this may have written something before: it was not refused as a whole.
fn may_have_begun(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Status { sense, .. }) => sense.as_ref().is_some_and(|sense| sense.key == SenseKey::CopyAborted),
        _ => true,
    }
}

/// A file's content, by where it comes from.
struct Parts<'a> {
    pieces: Vec<Piece>,
    zeros: Vec<ByteRange>,
    resident: Option<&'a [u8]>,
}

impl Parts<'_> {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum::<u64>() + self.resident.map_or(0, |bytes| bytes.len() as u64)
    }

    fn zero_bytes(&self) -> u64 {
        self.zeros.iter().map(|range| range.len).sum()
    }
}

/// What a disk holds, in words, and the bytes read to find out; `None` for one that is empty.
///
/// A disk that says of itself that nothing was ever written to it is believed; else both ends of the place are looked at.
async fn holds(disk: &Disk, place: ByteRange) -> anyhow::Result<(Option<String>, u64)> {
    let block = disk.block_length().bytes();
    let blocks = disk.capacity().blocks.0;
    if disk.mapped(ByteRange { start: 0, len: disk.capacity().bytes() }).await?.is_some_and(|mapped| mapped.is_empty()) {
        return Ok((None, 0));
    }
    let first = place.start / block;
    let last = place.end().div_ceil(block).min(blocks);
    let look = (LOOK / block).min(last - first);
    let mut places = vec![0, first, last - look, blocks.saturating_sub(look)];
    places.dedup();
    let mut read = 0;
    for at in places {
        let there = disk.read_blocks(Lba(at), look.min(blocks - at)).await?;
        read += there.len() as u64;
        if there.iter().any(|byte| *byte != 0) {
            let source = LunSource::new(disk.clone());
            let map = tokio::task::spawn_blocking(move || map::probe(&source)).await?;
            let names = map.iter().flat_map(|map| &map.volumes).filter_map(|volume| volume.file_system.clone());
            let names: Vec<String> = names.collect();
            let what = if names.is_empty() { "something".to_owned() } else { format!("a file system ({})", names.join(", ")) };
            return Ok((Some(what), read));
        }
    }
    Ok((None, read))
}
