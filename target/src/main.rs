//! `offhost-target`: serves disks and tapes over iSCSI, and executes EXTENDED COPY.

mod tape;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use offhost_target::config::{self, Config, ConfigError, ServeArgs, Source};
use offhost_target::control;
use offhost_target::daemon::Daemon;
use offhost_target::import;
use offhost_target::mover;
use offhost_target::service::{self, Signals};
use tokio_util::sync::CancellationToken;
use tracing::error;
use tracing_subscriber::EnvFilter;

/// A user-space iSCSI target with disk and tape LUNs that executes SCSI EXTENDED COPY.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, or cut off by a second signal, 2 wrong usage, \
    78 wrong configuration.\nSIGHUP reads the configuration file again.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve LUNs until SIGTERM or SIGINT
    Serve(Box<Serve>),
    /// Turn the configuration of tgt (targets.conf) or LIO (saveconfig.json) into ours
    Import(Import),
    /// Work on cartridges that no target serves
    Tape {
        /// What to do
        #[command(subcommand)]
        action: tape::Action,
    },
    /// Print a shell completion script
    #[command(hide = true)]
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write the pages of all commands and of offhost.toml into a folder
    #[command(hide = true)]
    Man {
        /// The folder
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    args: ServeArgs,
    /// Say on one line of JSON where the target listens; log as JSON
    #[arg(long)]
    json: bool,
    /// Form of the log on standard error [default: text, json with --json]
    #[arg(long, value_name = "FORM")]
    log_format: Option<LogFormat>,
    /// What is logged, as `info` or `offhost_target::net=debug,warn` [default: RUST_LOG, else info]
    #[arg(long, value_name = "FILTER")]
    log: Option<Filter>,
}

/// A filter that is known to be one.
#[derive(Debug, Clone)]
struct Filter(String);

impl std::str::FromStr for Filter {
    type Err = tracing_subscriber::filter::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text).map(|_| Self(text.to_owned()))
    }
}

#[derive(Debug, clap::Args)]
struct Import {
    /// targets.conf or saveconfig.json; which of them is seen from what stands in it
    file: PathBuf,
    /// Where the configuration goes [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Folder for a file of each secret, mode 0600; never on standard output
    #[arg(long, value_name = "FOLDER", default_value = "/etc/offhost/secrets")]
    secrets: PathBuf,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// sysexits(3) EX_CONFIG: a supervisor should not try again.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Serve(serve) => {
            let matches = matches.subcommand_matches("serve").expect("the command is serve");
            let format = serve.log_format.unwrap_or(if serve.json { LogFormat::Json } else { LogFormat::Text });
            log_to_stderr(serve.log, format);
            if format == LogFormat::Json {
                mover::log_as_json();
            }
            let source = serve.args.source(matches);
            match source.read() {
                Ok(config) => run(source, config, serve.json),
                Err(error) => report_config(&error),
            }
        }
        Command::Import(import) => report(run_import(&import)),
        Command::Tape { action } => report(tape::run(&action)),
        Command::Completions { shell } => {
            // Its own writing would panic when a reader like `head` has had enough; what is left then is nobody's loss.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "offhost-target", &mut script);
            let _ = std::io::stdout().write_all(&script);
            ExitCode::SUCCESS
        }
        Command::Man { folder } => report(man(folder.as_deref()).map_err(anyhow::Error::from)),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("offhost-target: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

/// Manual of the configuration file, section 5.
const FILE_MANUAL: &str = include_str!("../dist/offhost.toml.5");

fn man(folder: Option<&Path>) -> std::io::Result<()> {
    let Some(folder) = folder else {
        return clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout());
    };
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command().name("offhost-target"), folder)?;
    std::fs::write(folder.join("offhost.toml.5"), FILE_MANUAL)
}

/// The configuration to where it is wanted, secrets to their files, and what could not be carried over to standard error.
fn run_import(args: &Import) -> anyhow::Result<()> {
    let imported = import::import(&args.file, &args.secrets)?;
    let text = config::to_text(&imported.config)?;
    import::write_secrets(&imported.secrets)?;
    for note in &imported.notes {
        eprintln!("{note}");
    }
    match &args.output {
        Some(path) => config::save(path, &text)?,
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
    }
    Ok(())
}

fn report_config(error: &ConfigError) -> ExitCode {
    eprintln!("offhost-target: {error}");
    ExitCode::from(EXIT_CONFIG)
}

fn log_to_stderr(filter: Option<Filter>, format: LogFormat) {
    let filter = match filter {
        Some(Filter(text)) => EnvFilter::new(text),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}

fn run(source: Source, config: Config, json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    let code = match runtime.block_on(serve(source, config, json)) {
        Ok(code) => code,
        Err(failure) => {
            error!("{failure:#}");
            eprintln!("offhost-target: {failure:#}");
            ExitCode::FAILURE
        }
    };
    // A thread may still sit in a slow disk's system call: what was acknowledged is written, and nothing waits for the rest.
    runtime.shutdown_background();
    code
}

async fn serve(source: Source, config: Config, json: bool) -> anyhow::Result<ExitCode> {
    // First, so that a signal while LUNs are opened does not end the process in the middle.
    let signals = Signals::catch()?;
    let shutdown = CancellationToken::new();
    let (control, metrics) = (config.control_path(), config.metrics);
    let daemon = Daemon::start(source, config).await?;
    let sockets = control::serve(Arc::clone(&daemon), control.clone(), shutdown.clone()).await?;
    if let Some(listen) = metrics {
        control::serve_metrics(Arc::clone(&daemon), listen, shutdown.clone()).await?;
    }
    announce(&daemon, &control, json)?;
    let code = service::run(&daemon, signals, &shutdown).await;
    sockets.await?;
    Ok(code)
}

/// Says where the target listens: a line of JSON for scripts, the next commands for people.
fn announce(daemon: &Daemon, control: &Path, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let status = daemon.status();
    let (target, portal) = (&status.target, &status.portal);
    if json {
        let portals: Vec<_> = status.portals.iter().map(|portal| portal.listen).collect();
        let said = serde_json::json!({
            "portal": portal, "target": target, "control": control, "pid": std::process::id(), "portals": portals,
        });
        writeln!(out, "{said}")?;
        return out.flush();
    }
    writeln!(out, "{target} at {portal}, control socket {}", control.display())?;
    for lun in &status.luns {
        let of = if status.targets.len() > 1 { format!("  of {}", lun.target) } else { String::new() };
        writeln!(out, "  LUN {}  {}  {}{of}", lun.lun, lun.kind, lun.backing)?;
    }
    writeln!(out, "\nFrom a Linux host:")?;
    writeln!(out, "  iscsiadm -m discovery -t sendtargets -p {portal}")?;
    writeln!(out, "  iscsiadm -m node -T {target} -p {portal} --login")?;
    out.flush()
}
