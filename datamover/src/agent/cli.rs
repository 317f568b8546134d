//! The command line of `offhost`: what can be asked, and how the answers are printed.
//!
//! Facts go to standard output (as JSON with `--json`), progress and errors to standard error. Decides nothing else.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use protocol::control::{SnapshotEvent, SnapshotRequest};
use serde::Serialize;
use sim::client::{ChapArguments, Client, Options};
use sim::url::Url;

use super::admin::{self, AccessAction, LunAction, OfTarget, PortalAction, TargetAction};
use super::backup::{BackupOptions, BackupReport, Placement};
use super::cache::Cache;
use super::control::Control;
use super::demo::DemoArgs;
use super::disk::{Disk, LunSource};
use super::drive::Drive;
use super::exit::{self, Exit, Stop};
use super::library::{self, LibraryAction};
use super::movers::{self, MoversAction};
use super::restore::{RestoreOptions, RestoreReport, What};
use super::segments::Limits;
use super::ui::{Ui, human};
use super::{backup, demo, list, restore, status};
use crate::map;
use crate::map::command::MapArgs;
use crate::map::source::FileSource;

/// The name that `offhost` logs in under when none is given.
pub const INITIATOR: &str = "iqn.2026-01.io.github.offhost:agent";

/// Back up disks to tapes past the hosts: EXTENDED COPY moves the blocks, this program only tells it which.
#[derive(Debug, Parser)]
#[command(name = "offhost", version, after_help = exit::HELP, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Back a disk up to a tape: quiet moment, snapshot, map, EXTENDED COPY
    Backup(BackupArgs),
    /// Bring a whole disk, or one file, back from a tape
    Restore(RestoreArgs),
    /// The sets on a tape, or those that the local catalog knows
    List(ListArgs),
    /// The files in a set
    Files(FilesArgs),
    /// Which blocks of a disk are in use, and which files they belong to
    Map(MapCommand),
    /// Take, list and drop snapshots
    Snapshot(SnapshotArgs),
    /// What the target is doing
    Status(StatusArgs),
    /// Look at a tape and move it
    Tape(TapeCommand),
    /// Targets that are served
    Target(Admin<TargetAction>),
    /// LUNs of a target
    Lun(AdminOf<LunAction>),
    /// Libraries: what is in them, and cartridges in and out
    Library(Admin<LibraryAction>),
    /// Addresses that are listened on
    Portal(Admin<PortalAction>),
    /// Who may log in to a target, and what they reach
    Access(AdminOf<AccessAction>),
    /// Movers: how much each has moved, how many there are and how fast
    Movers(Admin<MoversAction>),
    /// Write what is served into the target's configuration file
    Save(StatusArgs),
    /// Let the target read its configuration file again, and change what differs
    Reload(StatusArgs),
    /// Show the whole way on a disk and a tape of its own: start here
    Demo(DemoArgs),
    /// Shell completions
    #[command(hide = true)]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: Option<PathBuf>,
    },
}

/// How the target is reached.
#[derive(Debug, Args)]
struct ControlArgs {
    /// Control socket of the target [default: offhost-data/control.sock here if it is there, else /run/offhost/control.sock]
    #[arg(long, value_name = "SOCKET", env = "OFFHOST_CONTROL", global = true)]
    control: Option<PathBuf>,
}

impl ControlArgs {
    /// The one that is named, else that of a target started from here, else that of the service.
    fn find(&self) -> Control {
        self.control.as_ref().map_or_else(Control::find, Control::new)
    }
}

#[derive(Debug, Args)]
struct BackupArgs {
    /// The disk: iscsi://host:port/target-name/lun
    #[arg(long, value_name = "URL")]
    from: Url,
    /// The tape, a LUN of the same target
    #[arg(long, value_name = "URL")]
    to: Url,
    #[command(flatten)]
    control: ControlArgs,
    /// How long nobody may write before the snapshot; 0s takes it at once
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    quiet: Duration,
    /// How long to wait for that
    #[arg(long, value_name = "TIME", default_value = "80s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Bytes of a tape record
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    record_size: u32,
    /// Write behind what is on the tape, whatever it is
    #[arg(long, conflicts_with = "overwrite")]
    append: bool,
    /// Write from the beginning of the tape, over whatever is there
    #[arg(long)]
    overwrite: bool,
    /// A text to find the set by
    #[arg(long)]
    label: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// How to log in.
#[derive(Debug, Args)]
struct SessionArgs {
    /// iSCSI name to log in under
    #[arg(long, value_name = "NAME", default_value = INITIATOR)]
    initiator: String,
    #[command(flatten)]
    chap: ChapArguments,
}

impl SessionArgs {
    fn options(&self) -> anyhow::Result<Options> {
        let authentication = self.chap.authentication().map_err(|error| Stop::usage(error.to_string()))?;
        Ok(Options { authentication, ..Options::named(&self.initiator) })
    }
}

/// What every command that sends EXTENDED COPY takes.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    session: SessionArgs,
    /// Bytes that one EXTENDED COPY command moves at most
    #[arg(long, value_name = "BYTES", default_value_t = Limits::BYTES, hide_short_help = true)]
    command_bytes: u64,
    /// Print facts as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct RestoreArgs {
    /// The tape
    #[arg(long, value_name = "URL")]
    from: Url,
    /// The set, by the beginning of its id; the last whole one if not given
    #[arg(long, value_name = "ID", conflicts_with = "latest")]
    set: Option<String>,
    /// The last whole set on the tape
    #[arg(long)]
    latest: bool,
    /// Restore the whole disk into this one
    #[arg(long, value_name = "URL", required_unless_present = "file", conflicts_with = "file")]
    to: Option<Url>,
    /// Restore this file only; PATH:NAME for a stream of it
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// The file's bytes go to the beginning of this disk
    #[arg(long, value_name = "URL", requires = "file", conflicts_with_all = ["to_path", "to"])]
    to_lun: Option<Url>,
    /// The file's bytes come through this host to this path
    #[arg(long, value_name = "FILE", requires = "file", conflicts_with = "to")]
    to_path: Option<PathBuf>,
    /// Also over what is there already
    #[arg(long)]
    overwrite: bool,
    /// Control socket of the target, to ask whether somebody writes to the disk
    #[arg(long, value_name = "SOCKET", env = "OFFHOST_CONTROL")]
    control: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct TapeArgs {
    /// The tape
    #[arg(long = "from", value_name = "URL")]
    tape: Url,
    #[command(flatten)]
    session: SessionArgs,
    /// Print facts as JSON
    #[arg(long)]
    json: bool,
}

/// For what a tape, or the local catalog, can answer.
#[derive(Debug, Args)]
struct ListArgs {
    /// Read the tape; without it the local catalog answers
    #[arg(long, value_name = "URL")]
    from: Option<Url>,
    #[command(flatten)]
    session: SessionArgs,
    /// Print facts as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct FilesArgs {
    #[command(flatten)]
    list: ListArgs,
    /// The set, by the beginning of its id; the last whole one if not given
    #[arg(long, value_name = "ID")]
    set: Option<String>,
}

#[derive(Debug, Args)]
struct MapCommand {
    /// An image file, a block device, or iscsi://host:port/target-name/lun
    #[arg(value_name = "FILE|URL")]
    source: String,
    /// Bytes a block of an image file
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    block_length: u32,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    what: MapArgs,
}

#[derive(Debug, Args)]
struct SnapshotArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Print facts as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: SnapshotAction,
}

#[derive(Debug, Subcommand)]
enum SnapshotAction {
    /// Wait for a quiet moment and take one; it stays until it is dropped or the target ends
    Take {
        /// Disks, by LUN; several are taken at one moment
        #[arg(value_name = "LUN", required = true)]
        luns: Vec<u16>,
        /// iSCSI name of their target; not needed where there is only one
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        /// How long nobody may write before; 0s takes it at once
        #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
        quiet: Duration,
        /// How long to wait for that
        #[arg(long, value_name = "TIME", default_value = "80s", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Those that live
    List,
    /// Let one go
    Drop {
        /// As `list` shows it
        id: u64,
    },
}

/// A noun whose verbs change what is served.
#[derive(Debug, Args)]
struct Admin<A: Subcommand> {
    #[command(flatten)]
    control: ControlArgs,
    /// Print facts as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: A,
}

/// The same, of one target.
#[derive(Debug, Args)]
struct AdminOf<A: Subcommand> {
    #[command(flatten)]
    of: OfTarget,
    #[command(flatten)]
    admin: Admin<A>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    control: ControlArgs,
    /// Print facts as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TapeCommand {
    #[command(subcommand)]
    action: TapeAction,
}

#[derive(Debug, Subcommand)]
enum TapeAction {
    /// All objects on the tape: records with their lengths, and filemarks
    Map(TapeArgs),
    /// Where the tape stands
    Position(TapeArgs),
    /// Wind to the beginning
    Rewind(TapeArgs),
    /// Let the drive read everything, hold it against its sums, and take sums that are still to come
    Verify(TapeArgs),
    /// Put the cartridge in
    Load(TapeArgs),
    /// Wind back and take the cartridge out
    Unload(TapeArgs),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("offhost: cannot start: {error}");
            return Exit::Failed.into();
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        // Somebody like `head` has read enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("offhost: {error:#}");
            exit::of(&error).into()
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Backup(args) => {
            let json = args.common.json;
            let report = backup::backup(&args.options()?, Ui::new(json)).await?;
            print(json, &report, |out| report.print(out))
        }
        Command::Restore(args) => {
            let json = args.common.json;
            let report = restore::restore(&args.options()?, Ui::new(json)).await?;
            print(json, &report, |out| report.print(out))
        }
        Command::List(args) => match &args.from {
            Some(tape) => {
                let contents = list::contents(tape, args.session.options()?).await?;
                print(args.json, &contents, |out| list::print_sets(&contents, out))
            }
            None => {
                let sets = user_cache()?.sets()?;
                print(args.json, &sets, |out| list::print_cached(&sets, out))
            }
        },
        Command::Files(args) => {
            let tables = match &args.list.from {
                Some(tape) => {
                    let session = args.list.session.options()?;
                    list::tables(tape, args.set.as_deref(), session, Cache::of_user().as_ref()).await?
                }
                None => user_cache()?.set(args.set.as_deref())?.tables()?,
            };
            let facts: Vec<list::FileFacts<'_>> = tables.catalog.files.iter().map(Into::into).collect();
            print(args.list.json, &facts, |out| list::print_files(&tables, out))
        }
        Command::Map(args) => print_map(args).await,
        Command::Snapshot(args) => snapshot(args).await,
        Command::Status(args) => {
            let facts = args.control.find().status().await?;
            print(args.json, &facts, |out| status::print(&facts, out))
        }
        Command::Tape(args) => tape(args.action).await,
        Command::Target(args) => admin::target(&args.control.find(), args.action, args.json).await,
        Command::Lun(AdminOf { of, admin: args }) => admin::lun(&args.control.find(), of, args.action, args.json).await,
        Command::Library(args) => library::library(&args.control.find(), args.action, args.json).await,
        Command::Movers(args) => movers::movers(&args.control.find(), args.action, args.json).await,
        Command::Portal(args) => admin::portal(&args.control.find(), args.action, args.json).await,
        Command::Access(AdminOf { of, admin: args }) => admin::access(&args.control.find(), of, args.action, args.json).await,
        Command::Save(args) => admin::save(&args.control.find(), args.json).await,
        Command::Reload(args) => admin::reload(&args.control.find(), args.json).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Completions { shell } => {
            // Its own writing would panic when a reader like `head` has had enough.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "offhost", &mut script);
            Ok(io::stdout().write_all(&script)?)
        }
        Command::Man { folder: None } => Ok(clap_mangen::Man::new(Cli::command()).render(&mut io::stdout())?),
        Command::Man { folder: Some(folder) } => {
            std::fs::create_dir_all(&folder)?;
            Ok(clap_mangen::generate_to(Cli::command(), &folder)?)
        }
    }
}

fn user_cache() -> anyhow::Result<Cache> {
    Cache::of_user().ok_or_else(|| Stop::usage("there is no local catalog without $HOME or $XDG_DATA_HOME: use --from").into())
}

/// One value as JSON, or as people read it.
pub(super) fn print(
    json: bool,
    facts: &impl Serialize,
    text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        serde_json::to_writer_pretty(&mut out, facts).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        text(&mut out)?;
    }
    out.flush()?;
    Ok(())
}

impl BackupArgs {
    fn options(&self) -> anyhow::Result<BackupOptions> {
        let placement = match (self.append, self.overwrite) {
            (true, _) => Placement::Append,
            (_, true) => Placement::Overwrite,
            _ => Placement::Careful,
        };
        Ok(BackupOptions {
            from: self.from.clone(),
            to: self.to.clone(),
            control: self.control.find(),
            session: self.common.session.options()?,
            quiet: self.quiet,
            timeout: self.timeout,
            partition: self.partition,
            record_size: self.record_size,
            placement,
            label: self.label.clone(),
            command_bytes: self.common.command_bytes,
            cache: Cache::of_user(),
        })
    }
}

impl RestoreArgs {
    fn options(&self) -> anyhow::Result<RestoreOptions> {
        let what = match (&self.to, &self.file, &self.to_lun, &self.to_path) {
            (Some(to), None, None, None) => What::Volume { to: to.clone() },
            (None, Some(path), Some(to), None) => What::FileToLun { path: path.clone(), to: to.clone() },
            (None, Some(path), None, Some(to)) => What::FileToPath { path: path.clone(), to: to.clone() },
            _ => return Err(Stop::usage("--file wants --to-lun or --to-path; a whole disk wants --to").into()),
        };
        Ok(RestoreOptions {
            from: self.from.clone(),
            set: self.set.clone(),
            what,
            control: self.control.as_ref().map(Control::new),
            overwrite: self.overwrite,
            session: self.common.session.options()?,
            command_bytes: self.common.command_bytes,
        })
    }
}

impl BackupReport {
    /// For people.
    ///
    /// # Errors
    /// Those of the output.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let header = &self.header;
        writeln!(out, "set {} is on the tape, objects {} to {}", header.set, self.tape_objects.0, self.tape_objects.1)?;
        writeln!(
            out,
            "  moment         {}, quiet for {:.3} s before, writes held for {:.3} ms",
            list::when(header.moment.taken_unix_ms),
            header.moment.quiet_for_ms as f64 / 1000.0,
            header.moment.held_us as f64 / 1000.0
        )?;
        writeln!(
            out,
            "  on tape        {} in {} extents, {} files ({})",
            human(self.data_bytes),
            self.extents,
            self.files,
            header.file_system.scope
        )?;
        writeln!(out, "  sum of data    {}", self.data_root.as_deref().unwrap_or("none: the target gives none"))?;
        writeln!(out, "  moved          {} by {} EXTENDED COPY command(s)", human(self.sent.moved), self.sent.commands)?;
        writeln!(
            out,
            "  this session   {} in, {} out, of it {} metadata read and {} of lists",
            human(self.session.data_in),
            human(self.session.data_out),
            human(self.metadata_read),
            human(self.sent.list_bytes)
        )?;
        writeln!(out, "  took           {:.1} s", self.elapsed_ms as f64 / 1000.0)
    }
}

impl RestoreReport {
    /// For people.
    ///
    /// # Errors
    /// Those of the output.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let what = self.path.as_deref().unwrap_or("the whole disk");
        writeln!(out, "{what} of set {} is on {}", self.set.short(), self.to)?;
        writeln!(out, "  restored       {}, and {} of holes", human(self.bytes), human(self.zeros))?;
        if self.sent.commands > 0 {
            writeln!(out, "  moved          {} by {} EXTENDED COPY command(s)", human(self.sent.moved), self.sent.commands)?;
        }
        if self.payload_through_host > 0 {
            writeln!(out, "  through here   {} of the file's own bytes", human(self.payload_through_host))?;
        }
        writeln!(out, "  this session   {} in, {} out", human(self.session.data_in), human(self.session.data_out))?;
        writeln!(out, "  took           {:.1} s", self.elapsed_ms as f64 / 1000.0)
    }
}

async fn print_map(args: MapCommand) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let found = if args.source.starts_with("iscsi://") {
        let url: Url = args.source.parse().map_err(|error| Stop::usage(format!("{}: {error}", args.source)))?;
        let client = Client::connect(&url, args.session.options()?).await?;
        let source = LunSource::new(Disk::open(&client, url.lun).await?);
        let map = tokio::task::spawn_blocking(move || map::probe(&source)).await??;
        map::command::print(&map, &args.what, &mut out)?
    } else {
        let source = FileSource::open(args.source.as_ref(), args.block_length)
            .map_err(|error| anyhow::anyhow!("cannot open {}: {error}", args.source))?;
        map::command::run(&source, &args.what, &mut out)?
    };
    out.flush()?;
    anyhow::ensure!(found, "nothing of that kind on {}", args.source);
    Ok(())
}

async fn snapshot(args: SnapshotArgs) -> anyhow::Result<()> {
    let control = args.control.find();
    match args.action {
        SnapshotAction::Take { luns, target, quiet, timeout } => {
            let (quiet_ms, timeout_ms) = (quiet.as_millis() as u64, timeout.as_millis() as u64);
            let request = SnapshotRequest { target, luns, range: None, quiet_ms, timeout_ms, lease: false };
            let bar = Ui::new(args.json).waiting("waiting for a quiet moment");
            let lease = control.snapshot(&request, |event| {
                if let SnapshotEvent::Waiting { quiet_for_ms, writes_seen, .. } = event {
                    bar.text(false, &format!("quiet for {:.1} s, {writes_seen} writes seen", *quiet_for_ms as f64 / 1000.0));
                }
            });
            let lease = lease.await.map_err(backup::no_snapshot)?;
            bar.done();
            print(args.json, &lease.snapshots, |out| status::print_snapshots(&lease.snapshots, out))
        }
        SnapshotAction::List => {
            let snapshots = control.status().await?.snapshots;
            print(args.json, &snapshots, |out| status::print_snapshots(&snapshots, out))
        }
        SnapshotAction::Drop { id } => Ok(control.drop_snapshot(id).await?),
    }
}

async fn tape(action: TapeAction) -> anyhow::Result<()> {
    let (TapeAction::Map(args)
    | TapeAction::Position(args)
    | TapeAction::Rewind(args)
    | TapeAction::Verify(args)
    | TapeAction::Load(args)
    | TapeAction::Unload(args)) = &action;
    if matches!(action, TapeAction::Map(_)) {
        let map = list::tape_map(&args.tape, args.session.options()?).await?;
        return print(args.json, &map, |out| list::print_tape_map(&map, out));
    }
    let client = Client::connect(&args.tape, args.session.options()?).await?;
    if matches!(action, TapeAction::Load(_)) {
        client.unit().load().await?;
    }
    let drive = Drive::open(&client, args.tape.lun).await?;
    match action {
        TapeAction::Rewind(_) => drive.unit().rewind().await?,
        TapeAction::Verify(_) => verify(&drive, Ui::new(args.json)).await?,
        TapeAction::Unload(_) => return Ok(drive.unit().unload().await?),
        _ => {}
    }
    let position = drive.position().await?;
    print(args.json, &position, |out| writeln!(out, "object {}, {} filemarks before it", position.object, position.file))
}

async fn verify(drive: &Drive, ui: Ui) -> anyhow::Result<()> {
    let progress = ui.waiting("verifying");
    let verified = drive.verify(|percent| progress.text(false, &format!("verifying: {percent} %"))).await;
    progress.done();
    if let Err(error) = verified {
        let at = drive.position().await?;
        return Err(error).with_context(|| format!("the tape is not whole, in front of object {}", at.object));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_restore_says_what_and_where_to() {
        let parse = |text: &str| Cli::try_parse_from(text.split(' '));
        let tape = "offhost restore --from iscsi://h/iqn.t/1 --latest";
        let disk = "iscsi://h/iqn.t/2";
        assert!(parse(tape).is_err());
        assert!(parse(&format!("{tape} --set 1f --to {disk}")).is_err());
        assert!(parse(&format!("{tape} --to {disk}")).is_ok());
        assert!(parse(&format!("{tape} --to {disk} --file a")).is_err());
        assert!(parse(&format!("{tape} --file a --to-lun {disk}")).is_ok());
        assert!(parse(&format!("{tape} --file a --to-lun {disk} --to-path b")).is_err());
        let Command::Restore(args) = parse(&format!("{tape} --file a")).unwrap().command else { panic!("another command") };
        assert_eq!(exit::of(&args.options().unwrap_err()), Exit::Usage);
    }

    #[test]
    fn quiet_and_timeout_are_3_and_80_seconds_unless_said() {
        let line = "offhost backup --from iscsi://h/iqn.t/0 --to iscsi://h/iqn.t/1";
        let Command::Backup(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!("another command") };
        let options = args.options().unwrap();
        let said = (options.quiet.as_millis() as u64, options.timeout.as_millis() as u64);
        assert_eq!(said, (protocol::control::QUIET_MS, protocol::control::TIMEOUT_MS));
        assert_eq!(options.placement, Placement::Careful);
    }
}
