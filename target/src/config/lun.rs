//! A LUN's table, once it is known what it is.

use std::path::PathBuf;

use protocol::control::spec::{LunSpec, Size, XcopyView};
use protocol::units::BlockLength;

use crate::cartridge::NewMedium;
use crate::library::{Layout, Wanted};
use crate::lun::disk::{DiskOptions, ViewRules};
use crate::lun::tape::density::{self, Taken};

/// One LUN to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lun {
    /// A disk on a file or block device.
    Disk(Disk),
    /// A drive with a cartridge.
    Tape(Tape),
    /// The changer of a library.
    Changer(Changer),
    /// A drive of a library.
    Drive(Drive),
}

/// `library = "shelf/"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changer {
    /// Folder of the library; made where there is none.
    pub library: PathBuf,
    /// What it is to have.
    pub wanted: Wanted,
}

/// `library = "shelf/"` with `drive = 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Folder of the library.
    pub library: PathBuf,
    /// Which of its drives, from 0.
    pub number: u16,
}

/// `disk = "vol.img"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// File or block device.
    pub path: PathBuf,
    /// Makes a sparse file of this size where there is none; must agree with a file that exists.
    pub size: Option<Size>,
    /// Everything else: blocks, protection, medium.
    pub options: DiskOptions,
}

/// `tape = "shelf/"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tape {
    /// Folder of a cartridge, or of cartridges; one is made where there is none.
    pub path: PathBuf,
    /// What is made where there is none.
    pub new: NewMedium,
}

impl Disk {
    /// Checked against each other.
    fn check(&self) -> Result<(), String> {
        self.options.check()?;
        let block = self.options.block_length;
        match self.size {
            Some(Size(size)) if size == 0 || !size.is_multiple_of(block.bytes()) => {
                Err(format!("size {size} is no whole number of {}-byte blocks", block.0))
            }
            _ => Ok(()),
        }
    }
}

impl TryFrom<&LunSpec> for Lun {
    type Error = String;

    fn try_from(spec: &LunSpec) -> Result<Self, String> {
        check_names(spec)?;
        let of_a_disk = *spec != LunSpec { size: None, ..without_disk_keys(spec) };
        let of_a_library = [spec.drive, spec.drives, spec.slots, spec.mail, spec.cartridges].iter().any(Option::is_some);
        if of_a_library && spec.library.is_none() {
            return Err("`drive`, `drives`, `slots`, `mail` and `cartridges` are for a library".to_owned());
        }
        match (&spec.disk, &spec.tape, &spec.library) {
            (Some(path), None, None) if medium(spec)? == NewMedium::default() => {
                let disk = Disk { path: path.clone(), size: spec.size, options: disk_options(spec) };
                disk.check()?;
                Ok(Self::Disk(disk))
            }
            (Some(_), None, None) => {
                Err("`capacity`, `density`, `layout` and `worm` are for a tape; a disk has a `size`".to_owned())
            }
            (None, Some(_), None) | (None, None, Some(_)) if of_a_disk => {
                Err("`size`, `block` and their like are for a disk; a tape has a `capacity`".to_owned())
            }
            (None, Some(path), None) => Ok(Self::Tape(Tape { path: path.clone(), new: medium(spec)? })),
            (None, None, Some(library)) => of_library(spec, library.clone()),
            (None, None, None) => Err("a LUN wants `disk = \"file\"`, `tape = \"folder\"` or `library = \"folder\"`".to_owned()),
            _ => Err("a LUN is a disk, a tape or of a library, not several: begin another table".to_owned()),
        }
    }
}

fn of_library(spec: &LunSpec, library: PathBuf) -> Result<Lun, String> {
    let wanted =
        Wanted { drives: spec.drives, slots: spec.slots, mail: spec.mail, cartridges: spec.cartridges, new: medium(spec)? };
    let Some(drive) = spec.drive else {
        let layout = Layout::default();
        let (drives, slots, mail) = (wanted.drives.unwrap_or(layout.drives), wanted.slots.unwrap_or(layout.slots), wanted.mail);
        Layout { drives, slots, mail: mail.unwrap_or(layout.mail) }.check()?;
        return Ok(Lun::Changer(Changer { library, wanted }));
    };
    if wanted != Wanted::default() {
        return Err("`drives`, `slots`, `mail`, `cartridges`, `capacity`, `density`, `layout` and `worm` are for the changer of a library"
            .to_owned());
    }
    let number = drive.checked_sub(1).filter(|number| *number < Layout::MAX_DRIVES);
    let number = number.ok_or_else(|| format!("drive {drive} cannot be: there are 1 to {}", Layout::MAX_DRIVES))?;
    Ok(Lun::Drive(Drive { library, number }))
}

/// What cartridges are made of; one that the drive cannot write would be no use.
fn medium(spec: &LunSpec) -> Result<NewMedium, String> {
    let generation = spec.density.as_deref().map(density::by_name).transpose()?;
    let product = spec.product.as_deref().unwrap_or_default();
    if let Some(generation) = generation
        && density::taken(product, generation.density) != Some(Taken::Written)
    {
        return Err(format!("a drive {product:?} writes no {} cartridges", spec.density.as_deref().unwrap_or_default()));
    }
    Ok(NewMedium {
        capacity: spec.capacity.map(|size| size.0),
        density: generation.map(|generation| generation.density),
        worm: spec.worm.unwrap_or(false),
        layout: spec.layout.unwrap_or_default(),
    })
}

fn without_disk_keys(spec: &LunSpec) -> LunSpec {
    LunSpec {
        block: None,
        physical_block: None,
        lowest_aligned: None,
        read_only: None,
        removable: None,
        thin: None,
        threshold: None,
        xcopy_view: None,
        quiet: None,
        quiet_timeout: None,
        ..spec.clone()
    }
}

fn disk_options(spec: &LunSpec) -> DiskOptions {
    let blocks = DiskOptions::from(spec.block.map_or(BlockLength::B512, BlockLength));
    DiskOptions {
        physical_block: spec.physical_block.unwrap_or(blocks.physical_block),
        lowest_aligned: spec.lowest_aligned.unwrap_or(blocks.lowest_aligned),
        read_only: spec.read_only.unwrap_or(blocks.read_only),
        removable: spec.removable.unwrap_or(blocks.removable),
        thin: spec.thin.unwrap_or(blocks.thin),
        threshold_percent: spec.threshold.or(blocks.threshold_percent),
        views: view_rules(spec),
        ..blocks
    }
}

/// When views of a disk are taken that nobody asked the control socket for.
#[must_use]
pub fn view_rules(spec: &LunSpec) -> ViewRules {
    let usual = ViewRules::default();
    ViewRules {
        lease: spec.xcopy_view.map_or(usual.lease, |view| view == XcopyView::Lease),
        quiet: spec.quiet.map_or(usual.quiet, |span| span.0),
        timeout: spec.quiet_timeout.map_or(usual.timeout, |span| Some(span.0)),
    }
}

/// Names that INQUIRY has room for. SPC-4: ASCII, left aligned.
fn check_names(spec: &LunSpec) -> Result<(), String> {
    for (key, name, longest) in [("vendor", &spec.vendor, 8), ("product", &spec.product, 16), ("serial", &spec.serial, 64)] {
        let Some(name) = name else { continue };
        if name.is_empty() || name.len() > longest || !name.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
            return Err(format!("{key} {name:?} is not 1 to {longest} ASCII characters"));
        }
    }
    Ok(())
}
