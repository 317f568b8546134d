//! `changer`: what `mtx` does, over iSCSI.

use anyhow::Context;
use clap::{Args, Subcommand};
use offhost_sim::client::{LogicalUnit, Options};
use offhost_sim::url::Url;
use protocol::scsi::smc::ElementType;
use protocol::scsi::smc_data::Element;

use super::{print_json, unit};

#[derive(Debug, Args)]
pub struct ChangerArguments {
    /// The media changer
    url: Url,
    #[command(subcommand)]
    command: ChangerCommand,
}

#[derive(Debug, Subcommand)]
enum ChangerCommand {
    /// What is in each element
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the changer look what is where
    Inventory,
    /// Move a cartridge between two elements, named by address
    Move {
        /// Where it is
        #[arg(value_parser = element_address)]
        source: u16,
        /// Where it goes
        #[arg(value_parser = element_address)]
        destination: u16,
    },
    /// Move a cartridge into an element, and the one that is there to another
    Exchange {
        /// Where the first cartridge is
        #[arg(value_parser = element_address)]
        source: u16,
        /// Where it goes
        #[arg(value_parser = element_address)]
        first_destination: u16,
        /// Where the second cartridge goes; to the source when not given
        #[arg(value_parser = element_address)]
        second_destination: Option<u16>,
    },
}

/// Decimal, or hexadecimal with `0x`.
fn element_address(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is no element address"))
}

pub async fn changer(arguments: ChangerArguments, options: Options) -> anyhow::Result<()> {
    let changer = unit(&arguments.url, options).await?;
    match arguments.command {
        ChangerCommand::Status { json } => status(&changer, json).await?,
        ChangerCommand::Inventory => changer.initialize_element_status().await?,
        ChangerCommand::Move { source, destination } => changer.move_medium(source, destination).await?,
        ChangerCommand::Exchange { source, first_destination, second_destination } => {
            changer.exchange_medium(source, first_destination, second_destination.unwrap_or(source)).await?;
        }
    }
    changer.client().logout().await.ok();
    Ok(())
}

/// An element as it is printed.
#[derive(serde::Serialize)]
struct Row {
    address: u16,
    kind: &'static str,
    full: bool,
    barcode: Option<String>,
    accessible: bool,
    source: Option<u16>,
    exception: Option<(u8, u8)>,
    device: Option<String>,
}

impl From<Element> for Row {
    fn from(element: Element) -> Self {
        let kind = match element.kind {
            ElementType::MediumTransport => "transport",
            ElementType::Storage => "slot",
            ElementType::ImportExport => "mail",
            ElementType::DataTransfer => "drive",
        };
        Self {
            address: element.address,
            kind,
            full: element.full,
            barcode: element.volume_tag,
            accessible: element.accessible,
            source: element.source,
            exception: element.exception,
            device: element.device.map(|device| device.to_string()),
        }
    }
}

async fn status(changer: &LogicalUnit, json: bool) -> anyhow::Result<()> {
    let rows: Vec<Row> = changer.elements(None).await.context("looking at the elements")?.into_iter().map(Row::from).collect();
    if json {
        return print_json(&rows);
    }
    for row in rows {
        let what = match (row.full, &row.barcode) {
            (false, _) => "empty".to_owned(),
            (true, Some(barcode)) => barcode.clone(),
            (true, None) => "full".to_owned(),
        };
        let source = row.source.map(|source| format!("  from {source}")).unwrap_or_default();
        let device = row.device.map(|device| format!("  {device}")).unwrap_or_default();
        let exception = row.exception.map(|(asc, ascq)| format!("  exception {asc:02X}h/{ascq:02X}h")).unwrap_or_default();
        say!("{:>5}  {:<9}  {what}{source}{device}{exception}", row.address, row.kind);
    }
    Ok(())
}
