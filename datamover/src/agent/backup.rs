//! `offhost backup`: a quiet moment, a snapshot, a map, and EXTENDED COPY commands that put it all on a tape.
//!
//! The order is what makes it safe: the tape is looked at before anybody waits, and wound back; it moves again only when the
//! snapshot exists; the trailer is written last, with IMMED=0, and only when position and sums are what was planned. The snapshot
//! is released in any case.
//!
//! Not here: what lies where on the tape ([`super::layout`]) and how lists are cut ([`super::segments`]).

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use protocol::cartridge::sums::FileSums;
use protocol::control::{ErrorKind, Snapshot, SnapshotEvent, SnapshotRequest};
use protocol::units::{ByteRange, Lba};
use serde::Serialize;
use sim::client::{Carried, Client, Options};
use sim::url::Url;

use super::cache::Cache;
use super::control::{Control, ControlError};
use super::copy::{Copier, Sent, name_of};
use super::disk::{Disk, LunSource};
use super::drive::{Contents, Drive};
use super::exit::{Exit, Stop};
use super::files;
use super::layout::header::FORMAT;
use super::layout::trailer::root_of;
use super::layout::{
    Allocation, Catalog, Correspondence, DataSum, FileSystem, Manifest, Moment, SetBytes, SetId, SetKind, Source, Span, Trailer,
    VERSION, VolumeHeader,
};
use super::segments::write::{Item, Part, Plan};
use super::ui::{Ui, human};
use crate::map::partition::PartitionTable;
use crate::map::{self, DiskMap};

/// What is to be backed up, where to, and how.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The disk.
    pub from: Url,
    /// The tape; a LUN of the same target.
    pub to: Url,
    /// The target's control socket.
    pub control: Control,
    /// How to log in.
    pub session: Options,
    /// How long nobody may write before the snapshot.
    pub quiet: Duration,
    /// When to give up waiting.
    pub timeout: Duration,
    /// Only this partition, by number.
    pub partition: Option<u32>,
    /// Bytes of a record.
    pub record_size: u32,
    /// What to do with a tape that holds something.
    pub placement: Placement,
    /// Text for the header.
    pub label: Option<String>,
    /// Bytes that one command moves at most.
    pub command_bytes: u64,
    /// The local catalog, which keeps a copy of the set's metadata.
    pub cache: Option<Cache>,
}

/// Where on a tape a set may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// Behind sets of ours, or onto an empty tape.
    #[default]
    Careful,
    /// Behind whatever is there.
    Append,
    /// From the beginning, over whatever is there.
    Overwrite,
}

/// What was done, for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct BackupReport {
    /// The first record of the set.
    pub header: VolumeHeader,
    /// Objects of the tape before the set, and behind it.
    pub tape_objects: (u64, u64),
    /// Files in the catalog.
    pub files: u64,
    /// Stretches of the disk in the set.
    pub extents: u64,
    /// Bytes of the disk in the set.
    pub data_bytes: u64,
    /// Sum of the data as the drive gave it; `None` where it gives none.
    pub data_root: Option<String>,
    /// What was sent to the copy manager.
    pub sent: Sent,
    /// Metadata read through the snapshot to make the map.
    pub metadata_read: u64,
    /// All that this session carried, metadata and lists included.
    pub session: Carried,
    /// What the mapper had to say.
    pub notes: Vec<String>,
    /// From begin to end.
    pub elapsed_ms: u64,
}

/// Backs a disk up.
///
/// # Errors
/// With a [`Stop`] for what scripts branch on: 3, 4 and 5 of [`super::exit`].
pub async fn backup(options: &BackupOptions, ui: Ui) -> anyhow::Result<BackupReport> {
    backup_with(options, ui, async |_: &Snapshot| Ok(())).await
}

/// As [`backup`], with something to be done when the snapshot exists and before anything is read through it.
///
/// # Errors
/// As [`backup`], and those of `meanwhile`; the snapshot is released all the same.
pub async fn backup_with(
    options: &BackupOptions,
    ui: Ui,
    meanwhile: impl AsyncFnOnce(&Snapshot) -> anyhow::Result<()>,
) -> anyhow::Result<BackupReport> {
    let began = Instant::now();
    if !options.from.same_target(&options.to) {
        bail!(Stop::usage(format!(
            "{} and {} are on different targets; this version copies between LUNs of one",
            options.from, options.to
        )));
    }
    let client = Client::connect(&options.to, options.session.clone()).await?;
    let drive = Drive::open(&client, options.to.lun).await?;
    let disk = Disk::open(&client, options.from.lun).await?;
    check_record_size(options.record_size, disk.block_length().0)?;
    let place = place(&drive.inspect().await?, options)?;
    let range = partition_range(&disk, options.partition).await?;

    let lease = snapshot(options, range, ui).await?;
    let taken = lease.snapshots.first().cloned().context("the target made no snapshot")?;
    let job = Job { options, ui, client: &client, drive: &drive, disk: &disk, taken: &taken, place, began };
    let done = match meanwhile(&taken).await {
        Ok(()) => job.run().await,
        Err(error) => Err(error),
    };
    let lost = done.is_err() && is_lost(&options.control, taken.id).await;
    let released = lease.release(&options.control).await;
    let report = match done {
        Err(error) if lost => return Err(error.context(LOST)),
        done => done?,
    };
    if let Err(error) = released {
        ui.say(format_args!("the backup is done, but its snapshot could not be released: {error}"));
    }
    // The session is no longer needed; a target that is gone by now has all of it on its medium.
    let _ = client.logout().await;
    Ok(report)
}

/// What a failure means whose snapshot is gone.
const LOST: &str = "the snapshot was lost while it was being read: the target had no room for what writers replaced, as its log \
                    says; make room in its data folder, or back up while less is written";

/// Whether the target says that the snapshot no longer holds.
async fn is_lost(control: &Control, id: u64) -> bool {
    let status = control.status().await;
    status.is_ok_and(|status| status.snapshots.iter().any(|snapshot| snapshot.id == id && !snapshot.live))
}

fn check_record_size(record_size: u32, block_length: u32) -> anyhow::Result<()> {
    if record_size == 0 || !record_size.is_multiple_of(block_length) || record_size > protocol::wire::U24::MAX {
        bail!(Stop::usage(format!(
            "--record-size {record_size}: it must be a multiple of the disk's {block_length}-byte blocks and below 16 MiB"
        )));
    }
    Ok(())
}

/// Where the set's first object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Objects before it.
    object: u64,
    /// What is there ends without a filemark.
    mark_first: bool,
}

/// A tape with data that is not known is never written unasked.
fn place(contents: &Contents, options: &BackupOptions) -> anyhow::Result<Place> {
    let append = Place { object: contents.end_object, mark_first: contents.open_end };
    let tape = &options.to;
    match options.placement {
        Placement::Overwrite => Ok(Place { object: 0, mark_first: false }),
        Placement::Append => Ok(append),
        Placement::Careful if contents.is_blank() || contents.foreign_files == 0 => Ok(append),
        Placement::Careful => bail!(Stop::refused(format!(
            "the tape {tape} holds {} file(s) that offhost did not write{}; nothing was written. \
             --append writes behind them, --overwrite over them",
            contents.foreign_files,
            contents.unusable.first().map(|reason| format!(" or cannot use ({reason})")).unwrap_or_default(),
        ))),
    }
}

/// The blocks of a partition.
async fn partition_range(disk: &Disk, number: Option<u32>) -> anyhow::Result<Option<(Lba, u64)>> {
    let Some(number) = number else { return Ok(None) };
    let (source, block) = (LunSource::new(disk.clone()), disk.block_length().bytes());
    let table = tokio::task::spawn_blocking(move || PartitionTable::read(&source)).await??;
    let Some(found) = table.partitions.iter().find(|partition| partition.number == number) else {
        let there: Vec<String> = table.partitions.iter().map(|partition| partition.number.to_string()).collect();
        bail!(Stop::usage(format!("there is no partition {number} on the disk; there are: {}", there.join(", "))));
    };
    let first = found.range.start / block;
    Ok(Some((Lba(first), found.range.end().div_ceil(block) - first)))
}

async fn snapshot(options: &BackupOptions, range: Option<(Lba, u64)>, ui: Ui) -> anyhow::Result<super::control::Lease> {
    let request = SnapshotRequest {
        target: Some(options.from.target.clone()),
        luns: vec![options.from.lun],
        range,
        quiet_ms: options.quiet.as_millis() as u64,
        timeout_ms: options.timeout.as_millis() as u64,
        lease: true,
    };
    let bar = ui.waiting("waiting for a quiet moment");
    let mut timer = QuietTimer { quiet: options.quiet, timeout: options.timeout, last_quiet_ms: 0 };
    let lease = options.control.snapshot(&request, |event| timer.tell(event, &bar)).await;
    bar.done();
    lease.map_err(no_snapshot)
}

/// The error, and exit code, of a snapshot that was not taken.
pub fn no_snapshot(error: ControlError) -> anyhow::Error {
    match error.kind() {
        Some(ErrorKind::NeverQuiet) => Stop {
            exit: Exit::NeverQuiet,
            message: format!(
                "{error}. No snapshot was taken and no tape was moved; pause the writer, or choose --quiet or --timeout"
            ),
        }
        .into(),
        _ => anyhow::Error::new(error).context("no snapshot was taken"),
    }
}

/// Shows how long the disk has been quiet, and when a write made the timer start over.
struct QuietTimer {
    quiet: Duration,
    timeout: Duration,
    last_quiet_ms: u64,
}

impl QuietTimer {
    fn tell(&mut self, event: &SnapshotEvent, bar: &super::ui::Progress) {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        match event {
            SnapshotEvent::Waiting { waited_ms, quiet_for_ms, writes_seen } => {
                let over = *quiet_for_ms < self.last_quiet_ms;
                self.last_quiet_ms = *quiet_for_ms;
                let text = format!(
                    "quiet for {:.1} of {:.1} s{} (waited {:.1} of {:.0} s, {writes_seen} writes seen)",
                    seconds(*quiet_for_ms),
                    self.quiet.as_secs_f64(),
                    if over { ": a write came, the timer starts over" } else { "" },
                    seconds(*waited_ms),
                    self.timeout.as_secs_f64(),
                );
                bar.text(over, &text);
            }
            SnapshotEvent::Made { snapshots } => {
                let held = snapshots.iter().map(|one| one.held_us).max().unwrap_or(0);
                bar.text(true, &format!("snapshot taken; writes were held for {:.3} ms", held as f64 / 1000.0));
            }
            SnapshotEvent::Failed { .. } => {}
        }
    }
}

/// A backup whose snapshot exists.
struct Job<'a> {
    options: &'a BackupOptions,
    ui: Ui,
    client: &'a Client,
    drive: &'a Drive,
    disk: &'a Disk,
    taken: &'a Snapshot,
    place: Place,
    began: Instant,
}

/// All that a set needs besides its data, ready to be written.
struct Prepared {
    map: DiskMap,
    correspondence: Correspondence,
    catalog: Catalog,
    header: VolumeHeader,
    header_record: Vec<u8>,
    tables: Vec<u8>,
    /// Number of the tape file that the header is in.
    first_file: u64,
}

impl Job<'_> {
    async fn run(&self) -> anyhow::Result<BackupReport> {
        let view = Disk::open(self.client, self.taken.lun).await.context("opening the snapshot")?;
        // LUNs have come: the tape may want to say so before it does anything else.
        self.drive.unit().test_unit_ready().await?;
        let prepared = self.prepare(&view).await?;
        let mut copier = Copier::new(self.drive.unit(), view.unit(), view.block_length().0, self.options.command_bytes).await?;
        self.wind(prepared.first_file).await?;

        let first = prepared.header.at_object;
        let incomplete = |error: anyhow::Error| {
            error.context(Stop::incomplete(format!(
                "the backup failed while it was writing: the tape holds the incomplete set {} from object {first} on, which the \
                 next backup leaves behind it",
                prepared.header.set.short()
            )))
        };
        self.write_data(&prepared, &mut copier).await.map_err(incomplete)?;
        let (manifest, root) = self.manifest(&prepared).await.map_err(incomplete)?;
        let end = self.write_end(&prepared, &manifest, &mut copier).await.map_err(incomplete)?;

        Ok(BackupReport {
            tape_objects: (first, end),
            files: prepared.catalog.files.len() as u64,
            extents: prepared.correspondence.runs().len() as u64,
            data_bytes: prepared.header.data.bytes,
            data_root: root,
            sent: copier.sent(),
            metadata_read: prepared.map.metadata_bytes,
            session: self.client.carried(),
            notes: prepared.map.notes.iter().map(ToString::to_string).collect(),
            elapsed_ms: self.began.elapsed().as_millis() as u64,
            header: prepared.header,
        })
    }

    /// Maps the snapshot and makes header and tables.
    async fn prepare(&self, view: &Disk) -> anyhow::Result<Prepared> {
        let bar = self.ui.waiting("mapping files to blocks");
        let source = LunSource::new(view.clone());
        let map = tokio::task::spawn_blocking(move || map::probe(&source)).await?.context("mapping the snapshot")?;
        bar.done();
        let block = view.block_length().bytes();
        let base = self.taken.range.start;
        let used = map.used.rounded_out(block, view.capacity().bytes());
        let correspondence =
            Correspondence::of(used.runs().iter().map(|run| (Lba((base + run.start) / block), run.len / block)))?;
        let catalog = files::catalog(&map, base);
        self.ui.say(format_args!(
            "{} files, {} of {} in use in {} extents",
            catalog.files.len(),
            human(used.bytes()),
            human(view.capacity().bytes()),
            correspondence.runs().len()
        ));
        map.notes.iter().for_each(|note| self.ui.say(note));

        let mut tables = Vec::new();
        correspondence.write(&mut tables);
        self.allocation(view, base).await?.write(&mut tables);
        let header = self.header(&map, &tables, correspondence.blocks() * block).await?;
        let header_record = header.to_record()?;
        let first_file = if self.place.object == 0 { 0 } else { self.file_at_end().await? + u64::from(self.place.mark_first) };
        Ok(Prepared { map, correspondence, catalog, header, header_record, tables, first_file })
    }

    /// SCSI tells what is mapped and not where. Raw stores keep each block at its own address, so that is the place recorded.
    async fn allocation(&self, view: &Disk, base: u64) -> anyhow::Result<Allocation> {
        let (block, size) = (view.block_length().bytes(), view.capacity().bytes());
        let mapped =
            view.mapped(ByteRange { start: 0, len: size }).await?.unwrap_or_else(|| ByteRange { start: 0, len: size }.into());
        let runs = mapped.runs().iter().map(|run| (Lba((base + run.start) / block), base + run.start, run.len / block));
        Ok(Allocation { store_bytes: self.disk.capacity().bytes(), runs: runs.collect() })
    }

    async fn header(&self, map: &DiskMap, tables: &[u8], data_bytes: u64) -> anyhow::Result<VolumeHeader> {
        let record_size = self.options.record_size;
        let at_object = self.place.object + u64::from(self.place.mark_first);
        // Each tape file is followed by one filemark.
        let tables = Span::of(at_object + 2, tables.len() as u64, record_size);
        let block = self.disk.block_length().bytes();
        Ok(VolumeHeader {
            format: FORMAT.to_owned(),
            version: VERSION,
            writer: concat!("offhost ", env!("CARGO_PKG_VERSION")).to_owned(),
            set: new_set_id()?,
            parent: None,
            kind: SetKind::Full,
            label: self.options.label.clone(),
            source: Source {
                designator: name_of(self.disk.unit()).await?,
                target: self.options.from.target.clone(),
                lun: self.options.from.lun.into(),
                block_length: self.disk.block_length().0,
                capacity_blocks: self.disk.capacity().blocks.0,
                first_block: Lba(self.taken.range.start / block),
                blocks: self.taken.range.len / block,
                partition: self.options.partition,
            },
            moment: Moment {
                taken_unix_ms: self.taken.taken_unix_ms,
                quiet_asked_ms: self.options.quiet.as_millis() as u64,
                quiet_for_ms: self.taken.quiet_for_ms,
                waited_ms: self.taken.waited_ms,
                held_us: self.taken.held_us,
                consistency: "crash-consistent: what a host still had in its cache is not in the set".to_owned(),
            },
            file_system: file_system(map),
            at_object,
            record_size,
            tables,
            data: Span::of(tables.end_object + 1, data_bytes, record_size),
        })
    }

    async fn file_at_end(&self) -> anyhow::Result<u64> {
        self.drive.locate(self.place.object).await?;
        Ok(self.drive.position().await?.file)
    }

    /// To where the set begins; the tape must be as it was when it was looked at.
    async fn wind(&self, first_file: u64) -> anyhow::Result<()> {
        self.drive.locate(self.place.object).await?;
        let position = self.drive.position().await?;
        let expected = first_file - u64::from(self.place.mark_first);
        if (position.object, position.file) != (self.place.object, expected) {
            bail!("the tape stands at object {} instead of {}: somebody else uses it", position.object, self.place.object);
        }
        Ok(())
    }

    async fn write_data(&self, prepared: &Prepared, copier: &mut Copier) -> anyhow::Result<()> {
        let record = self.options.record_size;
        let base = self.taken.range.start / self.disk.block_length().bytes();
        let mark = || Item::Filemarks { count: 1, immediate: true };
        let runs = prepared.correspondence.runs().iter();
        let data = runs.map(|run| Part::Blocks { lba: Lba(run.a.0 - base), blocks: run.blocks }).collect();
        let mut front = if self.place.mark_first { vec![mark()] } else { Vec::new() };
        front.extend([
            Item::record(prepared.header_record.clone()),
            mark(),
            Item::Records { record, parts: vec![Part::Inline(prepared.tables.clone().into())] },
            mark(),
        ]);
        let bar = self.ui.bytes("disk to tape", prepared.header.data.bytes);
        // Commands that only move records are what a target can share out over several movers.
        for items in [front, vec![Item::Records { record, parts: data }], vec![mark()]] {
            for command in Plan::new(copier.limits(), self.disk.block_length().0, items)? {
                copier.run(&command?, &bar).await?;
            }
        }
        bar.done();
        self.stands_at(prepared.header.catalog_object()).await
    }

    async fn stands_at(&self, object: u64) -> anyhow::Result<()> {
        let position = self.drive.position().await?;
        if position.object != object {
            bail!(
                "the tape stands at object {} where {object} was planned: not all was written, or somebody else wrote",
                position.object
            );
        }
        Ok(())
    }

    /// Holds what the drive summed against what was planned; header and tables against the bytes that were sent.
    async fn manifest(&self, prepared: &Prepared) -> anyhow::Result<(Manifest, Option<String>)> {
        let header = &prepared.header;
        let Some(sums) = self.drive.sums(prepared.first_file).await? else {
            let origin = "none: the target's tape has no log page of sums".to_owned();
            self.ui.say("the target gives no sums of what it wrote; the set says so");
            return Ok((Manifest { origin, files: Vec::new() }, None));
        };
        let record_size = header.record_size as usize;
        let sent = [
            (
                "header",
                Span {
                    first_object: header.at_object,
                    end_object: header.at_object + 1,
                    bytes: prepared.header_record.len() as u64,
                },
                Some(root_of([&prepared.header_record[..]])),
            ),
            ("tables", header.tables, Some(root_of(prepared.tables.chunks(record_size)))),
            ("data", header.data, None),
        ];
        let mut files = Vec::new();
        for (part, span, root) in sent {
            if span.records() == 0 {
                continue;
            }
            match checked_sum(&sums, part, span, root)? {
                Some(sum) => files.push(sum),
                None => self.ui.say(format_args!(
                    "the {part} lies on the tape by reference: the sums of its {} records are still to come, and the set says so",
                    span.records()
                )),
            }
        }
        let data = files.iter().find(|sum| sum.part == "data").map(|sum| sum.root.clone());
        Ok((Manifest { origin: "the target's tape, log page 3Ah".to_owned(), files }, data))
    }

    /// Catalog, manifest and trailer, then a filemark that ends with everything on the medium. Gives the object behind it.
    async fn write_end(&self, prepared: &Prepared, manifest: &Manifest, copier: &mut Copier) -> anyhow::Result<u64> {
        self.still_live().await?;
        let header = &prepared.header;
        let mut catalog = Vec::new();
        prepared.catalog.write(&mut catalog)?;
        manifest.write(&mut catalog)?;
        let span = Span::of(header.catalog_object(), catalog.len() as u64, header.record_size);
        let trailer = Trailer {
            blocks: prepared.correspondence.blocks(),
            files: prepared.catalog.files.len() as u64,
            header_blake3: blake3::hash(&prepared.header_record).to_string(),
            tables_blake3: blake3::hash(&prepared.tables).to_string(),
            catalog_blake3: blake3::hash(&catalog).to_string(),
            ..Trailer::new(header.set, header.at_object, span.end_object)
        };
        let trailer = trailer.to_record()?;
        let sums = root_of(catalog.chunks(header.record_size as usize).chain([&trailer[..]]));
        let bytes = span.bytes + trailer.len() as u64;
        let items = vec![
            Item::Records { record: header.record_size, parts: vec![Part::Inline(catalog.clone().into())] },
            Item::record(trailer.clone()),
            Item::Filemarks { count: 1, immediate: false },
        ];
        let bar = self.ui.waiting("writing the catalog");
        for command in Plan::new(copier.limits(), header.source.block_length, items)? {
            copier.run(&command?, &bar).await?;
        }
        bar.done();
        let end = span.end_object + 2;
        self.stands_at(end).await?;
        if let Some(written) = self.drive.sums(prepared.first_file + 3).await? {
            let whole = Span { end_object: span.end_object + 1, bytes, ..span };
            checked_sum(&written, "catalog", whole, Some(sums))?;
        }
        self.keep(prepared, catalog, trailer);
        Ok(end)
    }

    /// The set is on the tape by now; a local catalog that cannot be written is no failure of the backup.
    fn keep(&self, prepared: &Prepared, catalog: Vec<u8>, trailer: Vec<u8>) {
        let Some(cache) = &self.options.cache else { return };
        let (header, tables) = (prepared.header_record.clone(), prepared.tables.clone());
        if let Err(error) = cache.store(&prepared.header, &SetBytes { header, tables, catalog, trailer }) {
            self.ui.say(format_args!("the backup is done, but the local catalog could not keep it: {error}"));
        }
    }

    /// A view whose copy store failed has no truth left: the set must not get a trailer.
    async fn still_live(&self) -> anyhow::Result<()> {
        let status = self.options.control.status().await.map_err(|error| match error {
            ControlError::Unreachable { .. } => anyhow::Error::new(error).context("the target is gone, and the snapshot with it"),
            other => other.into(),
        })?;
        match status.snapshots.iter().find(|snapshot| snapshot.id == self.taken.id) {
            Some(snapshot) if snapshot.live => Ok(()),
            Some(_) => bail!("the snapshot failed while it was copied: its copy store was full or could not be written"),
            None => bail!("the snapshot was taken away while it was copied"),
        }
    }
}

/// The drive's sum of a part, if it has the place, the records, the bytes and, where known, the root that were planned; `None` for
/// data that did not pass by the drive, but was referred to.
fn checked_sum(sums: &[FileSums], part: &str, span: Span, root: Option<blake3::Hash>) -> anyhow::Result<Option<DataSum>> {
    let found = sums.iter().find(|sum| sum.first_object == span.first_object);
    let found = found.with_context(|| format!("the drive has no sums of the {part} at object {}", span.first_object))?;
    if (found.records, found.bytes) != (span.records(), span.bytes) {
        bail!(
            "the {part} on the tape has {} records and {} bytes where {} and {} were planned",
            found.records,
            found.bytes,
            span.records(),
            span.bytes
        );
    }
    if !found.complete && root.is_none() {
        return Ok(None);
    }
    if !found.complete {
        bail!("the drive did not sum all records of the {part} while they were written");
    }
    if root.is_some_and(|root| *root.as_bytes() != found.root) {
        bail!("the {part} on the tape is not what was sent: the sums differ");
    }
    let root = blake3::Hash::from_bytes(found.root).to_string();
    let (part, first_object) = (part.to_owned(), found.first_object);
    Ok(Some(DataSum { part, first_object, records: found.records, bytes: found.bytes, root }))
}

/// What the header says of the file systems; notes beyond some are in the report only.
fn file_system(map: &DiskMap) -> FileSystem {
    const NOTES: usize = 40;
    const NOTE_LENGTH: usize = 300;
    let names: Vec<&str> = map.volumes.iter().map(|volume| volume.file_system.as_deref().unwrap_or("unknown")).collect();
    let first = map.volumes.iter().find_map(|volume| volume.ntfs.as_ref());
    let whole = map.volumes.iter().any(|volume| volume.whole.is_some());
    FileSystem {
        name: if names.is_empty() { "unknown".to_owned() } else { names.join(", ") },
        cluster_length: first.map_or(0, |ntfs| ntfs.geometry.cluster as u32),
        log: first.map_or_else(String::new, |ntfs| format!("{:?}", ntfs.log)),
        scope: if whole { "allocated" } else { "used" }.to_owned(),
        notes: map.notes.iter().take(NOTES).map(|note| note.to_string().chars().take(NOTE_LENGTH).collect()).collect(),
    }
}

/// 128 random bits of the kernel.
fn new_set_id() -> anyhow::Result<SetId> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("drawing a set id")?;
    uuid.trim().replace('-', "").parse().map_err(|problem| anyhow::anyhow!("drawing a set id: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(placement: Placement) -> BackupOptions {
        BackupOptions {
            from: "iscsi://h/iqn.t/0".parse().unwrap(),
            to: "iscsi://h/iqn.t/1".parse().unwrap(),
            control: Control::new("c"),
            session: Options::default(),
            quiet: Duration::ZERO,
            timeout: Duration::ZERO,
            partition: None,
            record_size: 65_536,
            placement,
            label: None,
            command_bytes: 1,
            cache: None,
        }
    }

    #[test]
    fn a_tape_with_unknown_data_is_never_written_unasked() {
        let foreign = Contents { foreign_files: 1, end_object: 9, open_end: true, ..Contents::default() };
        let refused = place(&foreign, &options(Placement::Careful)).unwrap_err();
        assert_eq!(super::super::exit::of(&refused), Exit::Refused);
        assert_eq!(place(&foreign, &options(Placement::Append)).unwrap(), Place { object: 9, mark_first: true });
        assert_eq!(place(&foreign, &options(Placement::Overwrite)).unwrap(), Place { object: 0, mark_first: false });
    }

    #[test]
    fn sets_of_ours_are_appended_to_and_an_empty_tape_is_begun() {
        let ours = Contents { end_object: 20, ..Contents::default() };
        assert_eq!(place(&ours, &options(Placement::Careful)).unwrap(), Place { object: 20, mark_first: false });
        assert_eq!(place(&Contents::default(), &options(Placement::Careful)).unwrap(), Place { object: 0, mark_first: false });
    }

    #[test]
    fn sums_that_differ_in_anything_planned_are_refused() {
        let root = root_of([&b"abc"[..]]);
        let span = Span { first_object: 4, end_object: 5, bytes: 3 };
        let sums =
            FileSums { file: 1, first_object: 4, records: 1, bytes: 3, closed: true, complete: true, root: *root.as_bytes() };
        assert!(checked_sum(&[sums], "data", span, Some(root)).is_ok());
        assert!(checked_sum(&[sums], "data", span, Some(root_of([&b"abd"[..]]))).is_err());
        assert!(checked_sum(&[FileSums { bytes: 4, ..sums }], "data", span, None).is_err());
        let referred = [FileSums { complete: false, ..sums }];
        assert!(matches!(checked_sum(&referred, "data", span, None), Ok(None)));
        assert!(checked_sum(&referred, "tables", span, Some(root)).is_err(), "what was sent is summed");
        assert!(checked_sum(&[], "data", span, None).is_err());
    }
}
