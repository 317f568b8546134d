//! `tape`: what `mt` and `dd` do, over iSCSI.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use offhost_sim::client::{LogicalUnit, Options, SpaceCode, TapeRead};
use offhost_sim::url::Url;

use super::{print_json, unit};

/// Longest record that READ(6) can ask for.
const LONGEST_RECORD: u32 = 0xFF_FFFF;

#[derive(Debug, Args)]
pub struct TapeArguments {
    /// The tape drive
    url: Url,
    #[command(subcommand)]
    command: TapeCommand,
}

#[derive(Debug, Subcommand)]
enum TapeCommand {
    /// Where the tape stands
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// To the beginning
    Rewind,
    /// Put the cartridge in
    Load,
    /// Take the cartridge out
    Unload,
    /// To a logical object
    Locate {
        /// Its number
        object: u64,
    },
    /// Over records or filemarks; a negative count goes back
    Space {
        /// What to count
        what: SpaceWhat,
        /// How many
        #[arg(allow_negative_numbers = true, default_value_t = 1)]
        count: i32,
    },
    /// Write filemarks and wait until all is on the medium
    Mark {
        /// How many
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Read one tape file: records up to the next filemark
    Read {
        /// Write to this file; without it to standard output
        #[arg(short, long)]
        output: Option<PathBuf>,
        /// Room for a record, in bytes
        #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(LONGEST_RECORD)))]
        record_size: u32,
    },
    /// Write a file as records, then a filemark
    Write {
        /// Read from this file; without it from standard input
        #[arg(short, long)]
        input: Option<PathBuf>,
        /// Bytes of a record; the last may be shorter
        #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=i64::from(LONGEST_RECORD)))]
        record_size: u32,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SpaceWhat {
    Records,
    Filemarks,
    EndOfData,
}

pub async fn tape(arguments: TapeArguments, options: Options) -> anyhow::Result<()> {
    let tape = unit(&arguments.url, options).await?;
    match arguments.command {
        TapeCommand::Status { json } => status(&tape, json).await?,
        TapeCommand::Rewind => tape.rewind().await?,
        TapeCommand::Load => tape.load().await?,
        TapeCommand::Unload => tape.unload().await?,
        TapeCommand::Locate { object } => tape.locate(object).await?,
        TapeCommand::Space { what, count } => {
            let code = match what {
                SpaceWhat::Records => SpaceCode::Blocks,
                SpaceWhat::Filemarks => SpaceCode::Filemarks,
                SpaceWhat::EndOfData => SpaceCode::EndOfData,
            };
            tape.space(code, count).await?;
        }
        TapeCommand::Mark { count } => warn_of_end(tape.write_filemarks(count).await?.early_warning),
        TapeCommand::Read { output, record_size } => read(&tape, output, record_size).await?,
        TapeCommand::Write { input, record_size } => write(&tape, input, record_size).await?,
    }
    tape.client().logout().await.ok();
    Ok(())
}

async fn status(tape: &LogicalUnit, json: bool) -> anyhow::Result<()> {
    tape.test_unit_ready().await?;
    let position = tape.read_position().await?;
    if json {
        return print_json(&position);
    }
    say!("partition {}, object {}, file {}", position.partition, position.object, position.file);
    if position.beginning {
        say!("at the beginning");
    }
    if position.end {
        say!("past early warning");
    }
    Ok(())
}

async fn read(tape: &LogicalUnit, output: Option<PathBuf>, record_size: u32) -> anyhow::Result<()> {
    let mut output: Box<dyn Write> = match &output {
        Some(path) => Box::new(File::create(path).with_context(|| format!("creating {}", path.display()))?),
        None => Box::new(std::io::stdout().lock()),
    };
    tape.set_tape_block_length(0).await?;
    let (mut records, mut bytes) = (0_u64, 0_u64);
    let why = loop {
        match tape.read_record(record_size).await? {
            TapeRead::Record(data) => {
                output.write_all(&data)?;
                (records, bytes) = (records + 1, bytes + data.len() as u64);
            }
            TapeRead::Longer { length, .. } => {
                bail!("record {records} has {length} bytes: use --record-size {length}; the tape stands behind it")
            }
            TapeRead::Filemark => break "a filemark",
            TapeRead::EndOfData => break "the end of data",
        }
    };
    output.flush()?;
    eprintln!("{records} records, {bytes} bytes, then {why}");
    Ok(())
}

async fn write(tape: &LogicalUnit, input: Option<PathBuf>, record_size: u32) -> anyhow::Result<()> {
    let mut input: Box<dyn Read> = match &input {
        Some(path) => Box::new(File::open(path).with_context(|| format!("opening {}", path.display()))?),
        None => Box::new(std::io::stdin().lock()),
    };
    tape.set_tape_block_length(0).await?;
    let (mut records, mut bytes, mut warned) = (0_u64, 0_u64, false);
    loop {
        let mut record = Vec::with_capacity(record_size as usize);
        input.by_ref().take(record_size.into()).read_to_end(&mut record)?;
        if record.is_empty() {
            break;
        }
        (records, bytes) = (records + 1, bytes + record.len() as u64);
        warned |= tape.write_record(record.into()).await?.early_warning;
    }
    warned |= tape.write_filemarks(1).await?.early_warning;
    warn_of_end(warned);
    eprintln!("{records} records, {bytes} bytes, and a filemark");
    Ok(())
}

fn warn_of_end(early_warning: bool) {
    if early_warning {
        eprintln!("the tape is past early warning");
    }
}
