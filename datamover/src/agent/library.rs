//! `offhost library`: what is in the libraries of the target, and the operator's hand at their import/export elements.
//!
//! Moves between elements are the changer's business, over iSCSI: `offhost-sim changer`, `mtx` or a backup program.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use protocol::cartridge::layout::Layout;
use protocol::control::spec::Size;
use protocol::control::{ExportRequest, ImportRequest, ImportWhat, OfChanger};

use super::cli::print;
use super::control::Control;
use super::list;

/// `offhost library …`
#[derive(Debug, Subcommand)]
pub enum LibraryAction {
    /// Cartridges and where they are
    List,
    /// Put a cartridge into an import/export element
    Import {
        /// Which changer
        #[command(flatten)]
        of: Of,
        /// Folder of the cartridge; it is moved into the library's
        #[arg(required_unless_present = "new", conflicts_with = "new")]
        cartridge: Option<PathBuf>,
        /// A new cartridge with this barcode
        #[arg(long, value_name = "BARCODE")]
        new: Option<String>,
        /// Capacity of the new cartridge
        #[arg(long, requires = "new")]
        capacity: Option<Size>,
        /// Generation of the new cartridge, LTO-5 to LTO-9
        #[arg(long, requires = "new", value_name = "LTO-N")]
        density: Option<String>,
        /// What is written on the new cartridge cannot be overwritten
        #[arg(long, requires = "new")]
        worm: bool,
        /// Where the data of records lies in the new cartridge's image: aligned, so that copies of disks share blocks
        #[arg(long, requires = "new", value_name = "LAYOUT", default_value = "plain", value_parser = layout)]
        layout: Layout,
    },
    /// Take a cartridge out of an import/export element
    Export {
        /// Which changer
        #[command(flatten)]
        of: Of,
        /// Barcode of the cartridge
        barcode: String,
        /// Where its folder goes; to `exported` in the library's folder when not given
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
}

/// Which changer is meant.
#[derive(Debug, Args)]
pub struct Of {
    /// iSCSI name of the changer's target; not needed where there is only one changer
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// LUN of the changer; not needed where there is only one
    #[arg(long)]
    lun: Option<u16>,
}

impl From<Of> for OfChanger {
    fn from(of: Of) -> Self {
        Self { target: of.target, lun: of.lun }
    }
}

/// Carries out `offhost library`.
///
/// # Errors
/// What the target says.
pub async fn library(control: &Control, action: LibraryAction, json: bool) -> anyhow::Result<()> {
    match action {
        LibraryAction::List => list_cartridges(control, json).await,
        LibraryAction::Import { of, cartridge, new, capacity, density, worm, layout } => {
            let capacity = capacity.map(|size| size.0);
            let what = match (cartridge, new) {
                // The target may run in another folder.
                (Some(folder), _) => ImportWhat::Cartridge(std::path::absolute(folder)?),
                (None, new) => ImportWhat::New { barcode: new.unwrap_or_default(), capacity, density, worm, layout },
            };
            let imported = control.import(&ImportRequest { of: of.into(), what }).await?;
            print(json, &imported, |out| writeln!(out, "it is in {}", imported.place))
        }
        LibraryAction::Export { of, barcode, to } => {
            let to = to.map(std::path::absolute).transpose()?;
            let exported = control.export(&ExportRequest { of: of.into(), barcode, to }).await?;
            print(json, &exported, |out| writeln!(out, "it is in {}", exported.folder.display()))
        }
    }
}

async fn list_cartridges(control: &Control, json: bool) -> anyhow::Result<()> {
    let status = control.status().await?;
    let libraries: Vec<_> = status.luns.iter().filter(|lun| lun.library.is_some()).collect();
    print(json, &libraries, |out| {
        let mut table = list::plain(&["target", "LUN", "place", "element", "barcode"]);
        for lun in &libraries {
            for cartridge in lun.library.iter().flat_map(|library| &library.cartridges) {
                let element = cartridge.element.to_string();
                table.add_row([&lun.target, &lun.lun.to_string(), &cartridge.place, &element, &cartridge.barcode]);
            }
        }
        writeln!(out, "{table}")
    })
}

fn layout(name: &str) -> Result<Layout, String> {
    match name {
        "plain" => Ok(Layout::Plain),
        "aligned" => Ok(Layout::Aligned),
        _ => Err("there are plain and aligned".to_owned()),
    }
}
