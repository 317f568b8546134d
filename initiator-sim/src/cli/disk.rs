//! `read` and `write`: blocks of a disk to and from files.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use offhost_sim::client::Options;
use offhost_sim::report::hex_dump;
use offhost_sim::url::Url;
use protocol::units::Lba;

use super::unit;

/// Bytes one command moves at most.
const CHUNK: u32 = 1 << 20;

/// Lines shown of what is read to a terminal.
const DUMP_LINES: usize = 64;

#[derive(Debug, Args)]
pub struct ReadArguments {
    /// The disk
    url: Url,
    /// First block
    #[arg(long, default_value_t = 0)]
    lba: u64,
    /// How many blocks; to the end of the disk when not given
    #[arg(long)]
    blocks: Option<u64>,
    /// Write to this file; without it to standard output, as hexadecimal when that is a terminal
    #[arg(short, long)]
    output: Option<PathBuf>,
}

pub async fn read(arguments: ReadArguments, options: Options) -> anyhow::Result<()> {
    let unit = unit(&arguments.url, options).await?;
    let capacity = unit.read_capacity().await?;
    let available = capacity.blocks.0.saturating_sub(arguments.lba);
    let mut left = arguments.blocks.unwrap_or(available);
    ensure!(left <= available, "the disk has {} blocks: {left} from {} on are too many", capacity.blocks.0, arguments.lba);
    let mut output: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(File::create(path).with_context(|| format!("creating {}", path.display()))?),
        None => Box::new(std::io::stdout().lock()),
    };
    let dump = arguments.output.is_none() && std::io::stdout().is_terminal();
    let mut lba = arguments.lba;
    while left > 0 {
        let blocks = u64::from((CHUNK / capacity.block_length.0).max(1)).min(left) as u32;
        let data = unit.read(Lba(lba), blocks, capacity.block_length).await?;
        if dump {
            output.write_all(hex_dump(&data, DUMP_LINES).as_bytes())?;
            break;
        }
        output.write_all(&data)?;
        (lba, left) = (lba + u64::from(blocks), left - u64::from(blocks));
    }
    output.flush()?;
    unit.client().logout().await.ok();
    Ok(())
}

#[derive(Debug, Args)]
pub struct WriteArguments {
    /// The disk
    url: Url,
    /// First block
    #[arg(long, default_value_t = 0)]
    lba: u64,
    /// Read from this file; without it from standard input
    #[arg(short, long)]
    input: Option<PathBuf>,
}

pub async fn write(arguments: WriteArguments, options: Options) -> anyhow::Result<()> {
    let mut input: Box<dyn Read> = match &arguments.input {
        Some(path) => Box::new(File::open(path).with_context(|| format!("opening {}", path.display()))?),
        None => Box::new(std::io::stdin().lock()),
    };
    let unit = unit(&arguments.url, options).await?;
    let length = unit.read_capacity().await?.block_length;
    let chunk = u64::from((CHUNK / length.0).max(1)) * length.bytes();
    let mut lba = arguments.lba;
    let mut written = 0;
    loop {
        let mut data = Vec::with_capacity(chunk as usize);
        input.by_ref().take(chunk).read_to_end(&mut data)?;
        if data.is_empty() {
            break;
        }
        if !(data.len() as u64).is_multiple_of(length.bytes()) {
            bail!("the input ends in the middle of a block of {} bytes; {written} bytes are written", length.0);
        }
        let blocks = data.len() as u64 / length.bytes();
        written += data.len();
        unit.write(Lba(lba), data.into(), length).await?;
        lba += blocks;
    }
    unit.synchronize_cache().await?;
    unit.client().logout().await.ok();
    eprintln!("{written} bytes written and synchronized");
    Ok(())
}
