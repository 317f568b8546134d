//! `discover` and `inquiry`.

use clap::Args;
use offhost_sim::client::{Options, discover as ask_portal};
use offhost_sim::report::{bytes_short, hex_dump};
use offhost_sim::url::{Portal, Url};

use super::{print_json, unit};

pub async fn discover(portal: &Portal, options: &Options, json: bool) -> anyhow::Result<()> {
    let targets = ask_portal(portal, options).await?;
    if json {
        return print_json(&targets);
    }
    for target in targets {
        say!("{}\t{}", target.name, target.addresses.join(" "));
    }
    Ok(())
}

#[derive(Debug, Args)]
pub struct InquiryArguments {
    /// The logical unit
    url: Url,
    /// Print this vital product data page, as 83 or 0x83 (hexadecimal)
    #[arg(long, value_parser = page_code)]
    vpd: Option<u8>,
    /// Print JSON
    #[arg(long, conflicts_with = "vpd")]
    json: bool,
}

fn page_code(text: &str) -> Result<u8, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text).trim_end_matches('h');
    u8::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

/// All that is told about a unit.
#[derive(Debug, serde::Serialize)]
struct Facts {
    url: Url,
    #[serde(flatten)]
    inquiry: offhost_sim::client::Inquiry,
    designators: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<offhost_sim::client::Capacity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tape_position: Option<offhost_sim::client::TapePosition>,
}

pub async fn inquiry(arguments: InquiryArguments, options: Options) -> anyhow::Result<()> {
    let unit = unit(&arguments.url, options).await?;
    if let Some(page) = arguments.vpd {
        let page = unit.vpd(page).await?;
        say!("{}", hex_dump(&page, usize::MAX / 16).trim_end());
        unit.client().logout().await.ok();
        return Ok(());
    }
    let inquiry = unit.inquiry().await?;
    let designators = unit.designators().await.unwrap_or_default();
    let facts = Facts {
        capacity: if inquiry.device_type == 0 { unit.read_capacity().await.ok() } else { None },
        tape_position: if inquiry.device_type == 1 { unit.read_position().await.ok() } else { None },
        designators: designators.iter().map(ToString::to_string).collect(),
        url: arguments.url,
        inquiry,
    };
    unit.client().logout().await.ok();
    if arguments.json {
        return print_json(&facts);
    }
    let inquiry = &facts.inquiry;
    say!("{} {} {}", inquiry.vendor, inquiry.product, inquiry.revision);
    say!("device type   {:#04x}{}", inquiry.device_type, if inquiry.removable { ", removable" } else { "" });
    say!("EXTENDED COPY {}", if inquiry.third_party_copy { "yes" } else { "no" });
    for designator in &facts.designators {
        say!("designator    {designator}");
    }
    if let Some(capacity) = facts.capacity {
        let (blocks, length) = (capacity.blocks.0, capacity.block_length.0);
        say!("capacity      {blocks} blocks of {length} bytes ({})", bytes_short(capacity.bytes()));
    }
    if let Some(position) = facts.tape_position {
        say!("position      object {}, file {}, partition {}", position.object, position.file, position.partition);
    }
    Ok(())
}
