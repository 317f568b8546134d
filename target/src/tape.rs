//! `offhost-target tape`: work on the folders of cartridges that no target serves.
//!
//! It is this program's, and not that of `offhost`, which reaches tapes through a target only: whoever serves cartridges knows how they
//! lie in their folders. What is done is [`offhost_target::cartridge`]'s.

use std::io::Write;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use offhost_target::cartridge::{Cartridge, Copied};
use protocol::cartridge::layout::Layout;

#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Copy a cartridge into a new folder, in its own layout or another; neither may be in use
    Copy(Copy),
}

#[derive(Debug, clap::Args)]
pub struct Copy {
    /// Folder of the cartridge
    source: PathBuf,
    /// Folder of the copy, which there is none of yet
    destination: PathBuf,
    /// Where the data of records is to lie: plain for every reader of SIMH tape images, aligned to share blocks with disks
    /// [default: as in SOURCE]
    #[arg(long, value_name = "LAYOUT", value_parser = ["plain", "aligned"])]
    layout: Option<String>,
    /// Print what was copied as JSON, and no progress
    #[arg(long)]
    json: bool,
}

/// Does it; facts go to standard output, all else to standard error.
pub fn run(action: &Action) -> anyhow::Result<()> {
    let Action::Copy(args) = action;
    let layout = args.layout.as_deref().map(|name| if name == "aligned" { Layout::Aligned } else { Layout::Plain });
    let target = if args.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(None, target).with_style(ProgressStyle::with_template(BAR)?.progress_chars("=> "));
    let copied = Cartridge::copy(&args.source, &args.destination, layout, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let copied = copied?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", facts(args, &copied)?)?;
    } else {
        copied.notes.iter().for_each(|note| eprintln!("{}: {note}", args.source.display()));
        writeln!(out, "{}", summary(args, &copied))?;
    }
    Ok(out.flush()?)
}

const BAR: &str = "copying [{bar:32}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";

fn facts(args: &Copy, copied: &Copied) -> serde_json::Result<serde_json::Value> {
    Ok(serde_json::json!({
        "source": args.source,
        "destination": args.destination,
        "barcode": copied.metadata.barcode,
        "layout": serde_json::to_value(copied.metadata.layout)?,
        "partitions": copied.metadata.partition_sizes().len(),
        "records": copied.records,
        "filemarks": copied.filemarks,
        "bytes": copied.bytes,
        "without_proof": copied.unproven,
        "notes": copied.notes,
    }))
}

fn summary(args: &Copy, copied: &Copied) -> String {
    let size = indicatif::BinaryBytes(copied.bytes);
    let Copied { records, filemarks, unproven, metadata, .. } = copied;
    let said =
        format!("{}: {records} records ({size}) and {filemarks} filemarks of {}", args.destination.display(), metadata.barcode);
    match unproven {
        0 => said,
        unproven => format!("{said}; the sums of {unproven} records prove nothing about their writing"),
    }
}
