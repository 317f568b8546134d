//! Arguments and what they lead to. Facts go to standard output, progress and complaints to standard error.

/// Prints a line of facts, and ends the command (without complaint, see `main`) when nobody reads them any more.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout().lock(), $($text)*)?
    }};
}

mod changer;
mod conformance;
mod copy;
mod disk;
mod facts;
mod load;
mod table;
mod tape;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use offhost_sim::client::{ChapArguments, Client, DEFAULT_INITIATOR_NAME, LogicalUnit, Options};
use offhost_sim::url::{Portal, Url};

/// A simulated iSCSI initiator: one-shot commands, a conformance suite for anybody's target, and a load generator.
///
/// URL is iscsi://[user@]host[:port]/target-name/lun
#[derive(Debug, Parser)]
#[command(name = "offhost-sim", version)]
pub struct Arguments {
    #[command(flatten)]
    session: SessionArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct SessionArguments {
    /// Log in under this iSCSI name
    #[arg(long, global = true, value_name = "NAME", default_value = DEFAULT_INITIATOR_NAME)]
    initiator_name: String,
    /// Ask for CRC32C over PDU headers
    #[arg(long, global = true)]
    header_digest: bool,
    /// Ask for CRC32C over data
    #[arg(long, global = true)]
    data_digest: bool,
    /// Seconds that a command may take; copies and tape movements may take ten times as long
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    #[command(flatten)]
    chap: ChapArguments,
}

impl SessionArguments {
    fn options(&self) -> anyhow::Result<Options> {
        Ok(Options {
            initiator_name: self.initiator_name.clone(),
            authentication: self.chap.authentication()?,
            header_digest: self.header_digest,
            data_digest: self.data_digest,
            command_timeout: Duration::from_secs(self.timeout),
            long_command_timeout: Duration::from_secs(self.timeout.saturating_mul(10)),
            ..Options::default()
        })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a portal for its targets
    Discover {
        /// host[:port]
        portal: Portal,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What a logical unit is, or one of its vital product data pages
    Inquiry(facts::InquiryArguments),
    /// Read blocks of a disk to a file or to standard output
    Read(disk::ReadArguments),
    /// Write a file or standard input to blocks of a disk
    Write(disk::WriteArguments),
    /// Have the target copy blocks between two of its disks (EXTENDED COPY, segment 02h)
    Copy(copy::CopyArguments),
    /// Move, read and write a tape
    Tape(tape::TapeArguments),
    /// Look into a media changer and move its cartridges
    Changer(changer::ChangerArguments),
    /// Test a target against the standards
    Conformance(conformance::ConformanceArguments),
    /// Put the verdicts of several conformance runs side by side, as Markdown
    ConformanceTable(table::TableArguments),
    /// Put load on a disk and measure it
    Load(load::LoadArguments),
    /// Print a completion script
    #[command(hide = true)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(hide = true)]
    Man {
        /// Where to
        folder: PathBuf,
    },
}

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let options = arguments.session.options()?;
    match arguments.command {
        Command::Discover { portal, json } => block_on(facts::discover(&portal, &options, json))?,
        Command::Inquiry(arguments) => block_on(facts::inquiry(arguments, options))?,
        Command::Read(arguments) => block_on(disk::read(arguments, options))?,
        Command::Write(arguments) => block_on(disk::write(arguments, options))?,
        Command::Copy(arguments) => block_on(copy::copy(arguments, options))?,
        Command::Tape(arguments) => block_on(tape::tape(arguments, options))?,
        Command::Changer(arguments) => block_on(changer::changer(arguments, options))?,
        Command::Conformance(arguments) => return block_on(conformance::conformance(arguments, options)),
        Command::ConformanceTable(arguments) => table::table(arguments)?,
        Command::Load(arguments) => load::load(arguments, &options)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "offhost-sim", &mut script);
            say!("{}", String::from_utf8_lossy(&script));
        }
        Command::Man { folder } => clap_mangen::generate_to(Arguments::command(), folder)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting")?;
    runtime.block_on(future)
}

/// A session whose unit attentions are taken. A unit that is not ready is told by the command that needs it.
async fn unit(url: &Url, options: Options) -> anyhow::Result<LogicalUnit> {
    let unit = Client::connect(url, options).await?.unit();
    match unit.test_unit_ready().await {
        Err(error) if error.is_connection_lost() => Err(error.into()),
        _ => Ok(unit),
    }
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    say!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
