//! `cartridge.json`: what stands on a cartridge's label and in its memory chip.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use protocol::cartridge::append::Limits;
use protocol::cartridge::layout::Layout;
use serde::{Deserialize, Serialize};

use super::memory::Memory;

/// Name of the file in the cartridge's folder.
pub const FILE_NAME: &str = "cartridge.json";

/// Capacity of a cartridge nobody gave one, in bytes.
pub const DEFAULT_CAPACITY: u64 = 2_500_000_000_000;

/// Partitions a cartridge can have.
pub const MAX_PARTITIONS: usize = 2;

/// The label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Format of the folder; [`Metadata::VERSION`] is the only one yet.
    pub version: u32,
    /// Volume serial number, as on the sticker: 1 to 32 capital letters and digits.
    pub barcode: String,
    /// Bytes the image may grow to.
    #[serde(default = "default_capacity")]
    pub capacity: u64,
    /// DENSITY CODE. SSC-4, "REPORT DENSITY SUPPORT".
    #[serde(default = "default_density")]
    pub density: u8,
    /// The tab is set.
    #[serde(default)]
    pub write_protect: bool,
    /// How the image is laid out.
    #[serde(default)]
    pub layout: Layout,
    /// Written once: what is on it cannot be overwritten.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub worm: bool,
    /// Bytes that the image of each partition may grow to; none for a single partition with all there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<u64>,
    /// Of 65,535 parts of the capacity, how many may be used. SSC-4, "SET CAPACITY".
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    pub proportion: u16,
    /// The memory chip.
    #[serde(default, skip_serializing_if = "Memory::is_new")]
    pub memory: Memory,
}

/// LTO-8. The density of a medium whose label names none.
pub const DEFAULT_DENSITY: u8 = 0x5E;

const fn default_capacity() -> u64 {
    DEFAULT_CAPACITY
}

const fn default_density() -> u8 {
    DEFAULT_DENSITY
}

const fn whole() -> u16 {
    u16::MAX
}

const fn is_whole(proportion: &u16) -> bool {
    *proportion == u16::MAX
}

/// What is asked of a cartridge that is made; what is `None` is as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewMedium {
    /// In bytes; [`DEFAULT_CAPACITY`].
    pub capacity: Option<u64>,
    /// DENSITY CODE; [`DEFAULT_DENSITY`].
    pub density: Option<u8>,
    /// Written once.
    pub worm: bool,
    /// Where the data of records is to lie.
    pub layout: Layout,
}

impl NewMedium {
    /// A usual one of so many bytes.
    #[must_use]
    pub const fn of_capacity(bytes: u64) -> Self {
        Self { capacity: Some(bytes), density: None, worm: false, layout: Layout::Plain }
    }

    /// The label of one.
    #[must_use]
    pub fn label(&self, barcode: impl Into<String>) -> Metadata {
        Metadata {
            density: self.density.unwrap_or(DEFAULT_DENSITY),
            worm: self.worm,
            layout: self.layout,
            ..Metadata::new(barcode, self.capacity.unwrap_or(DEFAULT_CAPACITY))
        }
    }
}

impl Metadata {
    /// Format written and read.
    pub const VERSION: u32 = 1;

    /// A new cartridge's label.
    #[must_use]
    pub fn new(barcode: impl Into<String>, capacity: u64) -> Self {
        let barcode = barcode.into();
        Self {
            version: Self::VERSION,
            barcode,
            capacity,
            density: DEFAULT_DENSITY,
            write_protect: false,
            layout: Layout::Plain,
            worm: false,
            partitions: Vec::new(),
            proportion: whole(),
            memory: Memory::default(),
        }
    }

    /// Bytes that may be used of the capacity.
    #[must_use]
    pub fn usable(&self) -> u64 {
        let usable = u128::from(self.capacity) * u128::from(self.proportion) / u128::from(u16::MAX);
        u64::try_from(usable).expect("a part is not larger than the whole")
    }

    /// Bytes that the image of each partition may grow to; one or two.
    #[must_use]
    pub fn partition_sizes(&self) -> Vec<u64> {
        if self.partitions.is_empty() { vec![self.usable()] } else { self.partitions.clone() }
    }

    /// Room and warning point of each partition: a 32nd of the room before its end, but 1 MiB to 1 GiB; on tiny media a quarter.
    #[must_use]
    pub fn limits(&self) -> Vec<Limits> {
        self.partition_sizes().into_iter().map(|size| limits(size, self.layout)).collect()
    }

    /// Reads the label of a folder.
    ///
    /// # Errors
    /// The file system's own; `InvalidData` when it is no label of ours.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let invalid = |problem: String| io::Error::new(io::ErrorKind::InvalidData, problem);
        let metadata: Self =
            serde_json::from_slice(&fs::read(folder.join(FILE_NAME))?).map_err(|error| invalid(error.to_string()))?;
        if metadata.version != Self::VERSION {
            return Err(invalid(format!("version is {}, only {} is known", metadata.version, Self::VERSION)));
        }
        if !is_barcode(&metadata.barcode) {
            return Err(invalid(format!("barcode {:?} is not 1 to 32 capital letters and digits", metadata.barcode)));
        }
        if metadata.partitions.len() > MAX_PARTITIONS {
            return Err(invalid(format!("{} partitions are more than {MAX_PARTITIONS}", metadata.partitions.len())));
        }
        Ok(metadata)
    }

    /// Writes the label of a folder; whole or not at all.
    ///
    /// # Errors
    /// The file system's own; `InvalidInput` for a barcode that could not be read back.
    pub fn store(&self, folder: &Path) -> io::Result<()> {
        if !is_barcode(&self.barcode) {
            let problem = format!("barcode {:?} is not 1 to 32 capital letters and digits", self.barcode);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let new = folder.join("cartridge.json.new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(new, folder.join(FILE_NAME))?;
        File::open(folder)?.sync_all()
    }
}

fn limits(size: u64, layout: Layout) -> Limits {
    let margin = (size / 32).clamp(1 << 20, 1 << 30).min(size / 4);
    Limits { capacity: size, early_warning: size - margin, layout }
}

/// True for what a label can say.
pub(crate) fn is_barcode(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
