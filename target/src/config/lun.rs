//! A LUN's table, once it is known what it is.

use std::path::PathBuf;

use protocol::control::spec::{LunSpec, Size};
use protocol::units::BlockLength;

use crate::lun::disk::DiskOptions;

/// One LUN to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lun {
    /// A disk on a file or block device.
    Disk(Disk),
    /// A drive with a cartridge.
    Tape(Tape),
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
    /// Capacity of a cartridge that is made.
    pub capacity: Option<Size>,
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
        match (&spec.disk, &spec.tape) {
            (Some(_), Some(_)) => Err("a LUN is a disk or a tape, not both: begin another table".to_owned()),
            (None, None) => Err("a LUN wants `disk = \"file\"` or `tape = \"folder\"`".to_owned()),
            (Some(_), None) if spec.capacity.is_some() => Err("`capacity` is for a tape; a disk has a `size`".to_owned()),
            (Some(path), None) => {
                let disk = Disk { path: path.clone(), size: spec.size, options: disk_options(spec) };
                disk.check()?;
                Ok(Self::Disk(disk))
            }
            (None, Some(_)) if of_a_disk => {
                Err("`size`, `block` and their like are for a disk; a tape has a `capacity`".to_owned())
            }
            (None, Some(path)) => Ok(Self::Tape(Tape { path: path.clone(), capacity: spec.capacity })),
        }
    }
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
        ..blocks
    }
}

/// Names that INQUIRY has room for. SPC-4: ASCII, left aligned.
fn check_names(spec: &LunSpec) -> Result<(), String> {
    for (key, name, longest) in [("vendor", &spec.vendor, 8), ("product", &spec.product, 16), ("serial", &spec.serial, 32)] {
        let Some(name) = name else { continue };
        if name.is_empty() || name.len() > longest || !name.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
            return Err(format!("{key} {name:?} is not 1 to {longest} ASCII characters"));
        }
    }
    Ok(())
}
