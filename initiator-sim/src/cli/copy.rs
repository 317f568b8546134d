//! `copy`: EXTENDED COPY from disk to disk inside one target.

use anyhow::{bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use offhost_sim::client::{LogicalUnit, Options};
use offhost_sim::url::Url;
use protocol::units::Lba;
use protocol::xcopy::results::OperatingParameters;
use protocol::xcopy::{CountOf, CscdDescriptor, List, Segment};

use super::{print_json, unit};

/// BLOCK DEVICE NUMBER OF BLOCKS is 16 bits wide.
const BLOCKS_A_SEGMENT: u64 = 0xFFFF;

/// One command moves no more than this, so that a foreground copy stays below the time-outs of the world and can show progress.
const BYTES_A_COMMAND: u64 = 256 << 20;

#[derive(Debug, Args)]
pub struct CopyArguments {
    /// The disk to copy from
    source: Url,
    /// The disk to copy to: a unit of the same target
    destination: Url,
    /// First block of the source
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// First block of the destination
    #[arg(long, default_value_t = 0)]
    to: u64,
    /// How many blocks; to the end of the source when not given
    #[arg(long)]
    blocks: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a copy came to, and what it cost the session.
#[derive(Debug, serde::Serialize)]
struct Copied {
    blocks: u64,
    bytes: u64,
    commands: u64,
    /// Bytes that this session carried for it.
    session: offhost_sim::client::Carried,
}

pub async fn copy(arguments: CopyArguments, options: Options) -> anyhow::Result<()> {
    if !arguments.source.same_target(&arguments.destination) {
        bail!("source and destination are units of different targets: a copy manager reaches only its own");
    }
    let source = unit(&arguments.source, options).await?;
    let destination = source.client().lun(arguments.destination.lun);
    destination.test_unit_ready().await?;
    let (from, to) = (source.read_capacity().await?, destination.read_capacity().await?);
    let (here, there) = (from.block_length.0, to.block_length.0);
    ensure!(here == there, "the source has blocks of {here} bytes, the destination of {there}");
    let total = arguments.blocks.unwrap_or_else(|| from.blocks.0.saturating_sub(arguments.from));
    let fits = |first: u64, blocks: u64| first.checked_add(total).is_some_and(|end| end <= blocks);
    ensure!(fits(arguments.from, from.blocks.0), "{total} blocks from {} on: the source has {}", arguments.from, from.blocks.0);
    ensure!(fits(arguments.to, to.blocks.0), "{total} blocks from {} on: the destination has {}", arguments.to, to.blocks.0);

    let plan = Plan::new(&source, &destination, here).await?;
    let before = source.client().carried();
    let progress = ProgressBar::new(total * u64::from(here));
    progress.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}")?);
    let (mut done, mut commands) = (0, 0);
    while done < total {
        let blocks = (total - done).min(plan.blocks_a_command);
        destination.extended_copy(plan.list(arguments.from + done, arguments.to + done, blocks).into()).await?;
        (done, commands) = (done + blocks, commands + 1);
        progress.inc(blocks * u64::from(here));
    }
    progress.finish_and_clear();
    destination.synchronize_cache().await?;

    let after = source.client().carried();
    let session = offhost_sim::client::Carried {
        commands: after.commands - before.commands,
        data_in: after.data_in - before.data_in,
        data_out: after.data_out - before.data_out,
    };
    source.client().logout().await.ok();
    let copied = Copied { blocks: total, bytes: total * u64::from(here), commands, session };
    if arguments.json {
        return print_json(&copied);
    }
    say!(
        "{} bytes copied by {commands} commands; this session carried {} bytes",
        copied.bytes,
        session.data_in + session.data_out
    );
    Ok(())
}

/// Who copies, and how much in one command.
struct Plan {
    cscds: [CscdDescriptor; 2],
    blocks_a_segment: u64,
    blocks_a_command: u64,
}

impl Plan {
    /// Fits the lists to what the destination's copy manager takes.
    async fn new(source: &LogicalUnit, destination: &LogicalUnit, block_length: u32) -> anyhow::Result<Self> {
        let cscds = [
            CscdDescriptor::disk(source.cscd_designator().await?, block_length),
            CscdDescriptor::disk(destination.cscd_designator().await?, block_length),
        ];
        let limits = OperatingParameters::parse(&destination.receive_copy_operating_parameters().await?)?;
        ensure!(limits.implemented_descriptors.contains(&0x02), "the target does not copy from disk to disk (segment 02h)");
        let by_length = match u64::from(limits.maximum_segment_length) / u64::from(block_length) {
            0 => u64::MAX,
            blocks => blocks,
        };
        let blocks_a_segment = by_length.min(BLOCKS_A_SEGMENT);
        // Two CSCD descriptors of 32 bytes, segment descriptors of 28.
        let by_list = limits.maximum_descriptor_list_length.saturating_sub(64) / 28;
        let segments = by_list.min(limits.maximum_segment_descriptor_count.into()).max(1);
        let by_time = BYTES_A_COMMAND / u64::from(block_length);
        let blocks_a_command = (blocks_a_segment * u64::from(segments)).min(by_time.max(1));
        Ok(Self { cscds, blocks_a_segment, blocks_a_command })
    }

    fn list(&self, from: u64, to: u64, blocks: u64) -> Vec<u8> {
        let mut list = List::new(1);
        let [source, destination] = self.cscds.clone().map(|cscd| list.cscd(cscd));
        let mut done = 0;
        while done < blocks {
            let count = (blocks - done).min(self.blocks_a_segment);
            list.push(Segment::BlockToBlock {
                source,
                destination,
                count_of: CountOf::SourceBlocks,
                blocks: count as u16,
                from: Lba(from + done),
                to: Lba(to + done),
            });
            done += count;
        }
        list.emit()
    }
}
