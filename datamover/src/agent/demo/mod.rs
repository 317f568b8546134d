//! `offhost demo`: the whole way, once, in a folder of its own.
//!
//! A target is started; a writer puts a real NTFS volume on its disk and goes on writing; a backup waits for a quiet moment, takes
//! the snapshot, and files are overwritten behind it; EXTENDED COPY brings the snapshot to a tape and back to other disks;
//! everything is compared with what the disk held at the moment of the snapshot. The figures at the end are the target's own
//! counters, not what this program believes.
//!
//! The writer, the checker, the agent and the restore to a local path log in under names of their own, so that the counters
//! tell them apart.

mod disk;
mod report;
mod target;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use protocol::control::Snapshot;
use protocol::units::ByteRange;
use sim::client::{Client, Options};
use tokio::sync::oneshot;

use self::disk::FilledFile;
use self::report::{DemoReport, Moved};
use self::target::Target;
use super::backup::{BackupOptions, BackupReport, Placement, backup_with};
use super::disk::{Disk, LunSource};
use super::restore::{RestoreOptions, RestoreReport, What, restore};
use super::segments::Limits;
use super::ui::Ui;
use crate::{fixture, map};

/// The disk, the tape, the disk for the whole restore, the disk for one file.
const LUNS: [u16; 4] = [0, 1, 2, 3];
const WRITER: &str = "iqn.2026-01.io.github.offhost:demo-writer";
const CHECKER: &str = "iqn.2026-01.io.github.offhost:demo-checker";
const AGENT: &str = "iqn.2026-01.io.github.offhost:demo-agent";
const LOCAL: &str = "iqn.2026-01.io.github.offhost:demo-restore-to-path";

/// How long nobody may write before the snapshot.
const QUIET: Duration = Duration::from_secs(3);
/// When to give up.
const TIMEOUT: Duration = Duration::from_secs(80);
/// The writer's pauses while the backup waits: all too short to be quiet, the fourth nearly long enough.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(900),
    Duration::from_millis(2_300),
    Duration::from_millis(600),
];
/// Files that are overwritten behind the snapshot.
const OVERWRITTEN: usize = 6;

/// What can be chosen.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder that the demo makes, or empties when an earlier demo made it
    #[arg(long, value_name = "FOLDER", default_value = "offhost-demo")]
    dir: PathBuf,
    /// Leave the target running, to try more
    #[arg(long)]
    keep: bool,
    /// Print facts as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the demo.
///
/// # Errors
/// When anything fails or differs.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let ui = Ui::new(args.json);
    target::folder(&args.dir).await?;
    let luns = ["--disk", "disk.img:768MiB", "--tape", "tape", "--disk", "restored.img:768MiB", "--disk", "file.img:64MiB"];
    let target = Target::start(&args.dir, &luns).await?;
    ui.say(format_args!("target      offhost-target, process {}, in {}", target.pid(), args.dir.display()));
    let demo = Demo { ui, target: &target, folder: &args.dir, began: Instant::now() };
    let shown = tokio::select! {
        shown = demo.show() => shown,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    let report = match shown {
        Ok(report) => report,
        Err(error) => {
            return Err(error.context(format!("the demo failed; the end of the target's log:\n{}\n", target.log_tail())));
        }
    };
    report.print(args.json, &target, &args.dir, args.keep)?;
    if args.keep {
        target.leave_running();
    }
    report.verdict()
}

struct Demo<'a> {
    ui: Ui,
    target: &'a Target,
    folder: &'a Path,
    began: Instant,
}

/// What the disk held at the moment of the snapshot, read from the live disk while nobody wrote.
struct Reference {
    used: Vec<ByteRange>,
    hashes: Vec<blake3::Hash>,
    file: blake3::Hash,
}

impl Demo<'_> {
    async fn show(&self) -> anyhow::Result<DemoReport> {
        let writer = self.disk(WRITER, LUNS[0]).await?;
        let checker = self.disk(CHECKER, LUNS[0]).await?;
        let files = self.write(&writer).await?;
        let single = files.iter().max_by_key(|file| (file.places.len(), file.size)).context("there are files to fill")?;

        let (backup, reference, overwritten) = self.back_up(&writer, &checker, &files, single).await?;
        let differs = self.live_differs(&checker, &reference, &overwritten).await?;
        ensure!(differs, "the live disk is still what the snapshot showed: overwriting it did nothing, so nothing was proved");

        let whole = self.restore(AGENT, What::Volume { to: self.target.url(LUNS[2])? }).await?;
        let (path, to) = (single.path.clone(), self.target.url(LUNS[3])?);
        let to_lun = self.restore(AGENT, What::FileToLun { path: path.clone(), to }).await?;
        let local = self.folder.join("restored-file");
        let to_path = self.restore(LOCAL, What::FileToPath { path, to: local.clone() }).await?;

        self.ui.say("check       comparing everything with the state at the snapshot");
        let restored = self.disk(CHECKER, LUNS[2]).await?;
        let bar = self.ui.bytes("comparing", reference.used.iter().map(|range| range.len).sum());
        let hashes = disk::hashes(&restored, &reference.used, &bar).await?;
        bar.done();
        let different = hashes.iter().zip(&reference.hashes).filter(|(a, b)| a != b).count();
        let file_disk = self.disk(CHECKER, LUNS[3]).await?;
        let block = file_disk.block_length().bytes();
        let place = ByteRange { start: 0, len: single.size.next_multiple_of(block) };
        let file_on_lun = disk::file_hash(&file_disk, &[place], single.size).await?;
        let file_on_path = tokio::task::spawn_blocking(move || std::fs::read(&local)).await?;
        let file_on_path = blake3::hash(&file_on_path.context("reading the restored file")?);

        let status = self.target.control().status().await?;
        Ok(DemoReport {
            used_stretches: reference.used.len(),
            different_stretches: different,
            file_to_lun_equal: file_on_lun == reference.file,
            file_to_path_equal: file_on_path == reference.file,
            overwritten: files.iter().take(OVERWRITTEN).map(|file| file.path.clone()).collect(),
            moved: Moved::new(&status, &backup, &[&whole, &to_lun]),
            backup,
            whole,
            file_to_lun: to_lun,
            file_to_path: to_path,
            sessions: status.sessions,
            elapsed_ms: self.began.elapsed().as_millis() as u64,
        })
    }

    async fn disk(&self, initiator: &str, lun: u16) -> anyhow::Result<Disk> {
        let client = Client::connect(&self.target.url(lun)?, Options::named(initiator)).await?;
        Disk::open(&client, lun).await
    }

    /// The volume, with its files filled.
    async fn write(&self, writer: &Disk) -> anyhow::Result<Vec<FilledFile>> {
        let bar = self.ui.bytes("NTFS volume", fixture::SIZE);
        disk::write_volume(writer, &bar).await?;
        bar.done();
        let source = LunSource::new(writer.clone());
        let map = tokio::task::spawn_blocking(move || map::probe(&source)).await??;
        let files: Vec<FilledFile> = fixture::files_to_fill(&map)
            .map(|(file, places)| FilledFile {
                path: file.path,
                size: file.size,
                places: places.into_iter().map(|(start, len)| ByteRange { start, len }).collect(),
            })
            .collect();
        let bytes: u64 = files.iter().flat_map(|file| &file.places).map(|place| place.len).sum();
        let bar = self.ui.bytes("file contents", bytes);
        disk::fill(writer, &files, &bar).await?;
        bar.done();
        self.ui.say(format_args!(
            "writer      wrote an NTFS volume of {} files and filled {} of them from a seed, over iSCSI",
            map.files().count(),
            files.len()
        ));
        Ok(files)
    }

    /// Backs up while the writer goes on for a while, and overwrites files when the snapshot exists.
    async fn back_up(
        &self,
        writer: &Disk,
        checker: &Disk,
        files: &[FilledFile],
        single: &FilledFile,
    ) -> anyhow::Result<(BackupReport, Reference, Vec<ByteRange>)> {
        let options = BackupOptions {
            from: self.target.url(LUNS[0])?,
            to: self.target.url(LUNS[1])?,
            control: self.target.control(),
            session: Options::named(AGENT),
            quiet: QUIET,
            timeout: TIMEOUT,
            partition: None,
            record_size: 65_536,
            placement: Placement::Careful,
            label: Some("demo".to_owned()),
            command_bytes: Limits::BYTES,
            cache: None,
        };
        self.ui.say("writer      goes on writing for a while; the backup waits for 3 s without writes");
        let (give, known) = oneshot::channel();
        let host = async {
            disk::keep_writing(writer, &files[0], &PAUSES).await?;
            // Reads never count as writes: the quiet period goes on meanwhile.
            let reference = self.reference(checker, single).await?;
            // The backup may have failed by now, and then says why.
            let _ = give.send(reference);
            anyhow::Ok(())
        };
        let mut kept = None;
        let meanwhile = async |_: &Snapshot| {
            let reference = known.await.context("the checker did not learn the state before the snapshot")?;
            let overwritten: Vec<&FilledFile> = files.iter().take(OVERWRITTEN).collect();
            let places = disk::overwrite(writer, &overwritten).await?;
            self.ui.say(format_args!("writer      overwrote clusters of {} files behind the snapshot", overwritten.len()));
            kept = Some((reference, places));
            Ok(())
        };
        let backup = backup_with(&options, self.ui, meanwhile);
        let (backup, host) = tokio::join!(backup, host);
        host.context("the writer")?;
        let backup = backup?;
        let (reference, overwritten) = kept.context("a backup has a snapshot")?;
        Ok((backup, reference, overwritten))
    }

    async fn reference(&self, checker: &Disk, single: &FilledFile) -> anyhow::Result<Reference> {
        let source = LunSource::new(checker.clone());
        let map = tokio::task::spawn_blocking(move || map::probe(&source)).await??;
        let used = map.used.runs().to_vec();
        let quietly = Ui::Silent.bytes("", 0);
        let hashes = disk::hashes(checker, &used, &quietly).await?;
        let file = disk::file_hash(checker, &single.places, single.size).await?;
        Ok(Reference { used, hashes, file })
    }

    /// Whether what was overwritten is no longer what it was.
    async fn live_differs(&self, checker: &Disk, reference: &Reference, overwritten: &[ByteRange]) -> anyhow::Result<bool> {
        let touched = |range: &ByteRange| overwritten.iter().any(|place| place.overlaps(*range));
        let ranges: Vec<(ByteRange, blake3::Hash)> =
            reference.used.iter().copied().zip(reference.hashes.iter().copied()).filter(|(range, _)| touched(range)).collect();
        let quietly = Ui::Silent.bytes("", 0);
        let now = disk::hashes(checker, &ranges.iter().map(|(range, _)| *range).collect::<Vec<_>>(), &quietly).await?;
        Ok(!ranges.is_empty() && ranges.iter().zip(now).all(|((_, before), now)| *before != now))
    }

    async fn restore(&self, initiator: &str, what: What) -> anyhow::Result<RestoreReport> {
        let options = RestoreOptions {
            from: self.target.url(LUNS[1])?,
            set: None,
            what,
            control: Some(self.target.control()),
            overwrite: false,
            session: Options::named(initiator),
            command_bytes: Limits::BYTES,
        };
        let report = restore(&options, self.ui).await?;
        self.ui.say(format_args!("restore     {} is on {}", report.path.as_deref().unwrap_or("the whole disk"), report.to));
        Ok(report)
    }
}
