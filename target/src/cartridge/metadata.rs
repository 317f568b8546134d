//! `cartridge.json`: what stands on a cartridge's label and in its memory chip.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use protocol::cartridge::append::Limits;
use serde::{Deserialize, Serialize};

/// Name of the file in the cartridge's folder.
pub const FILE_NAME: &str = "cartridge.json";

/// Capacity of a cartridge nobody gave one, in bytes.
pub const DEFAULT_CAPACITY: u64 = 2_500_000_000_000;

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
}

/// How the image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Records and marks follow each other without gaps: any reader of the format follows.
    #[default]
    Plain,
}

/// LTO-8. The density of a medium whose label names none.
pub const DEFAULT_DENSITY: u8 = 0x5E;

const fn default_capacity() -> u64 {
    DEFAULT_CAPACITY
}

const fn default_density() -> u8 {
    DEFAULT_DENSITY
}

impl Metadata {
    /// Format written and read.
    pub const VERSION: u32 = 1;

    /// A new cartridge's label.
    #[must_use]
    pub fn new(barcode: impl Into<String>, capacity: u64) -> Self {
        let barcode = barcode.into();
        Self { version: Self::VERSION, barcode, capacity, density: DEFAULT_DENSITY, write_protect: false, layout: Layout::Plain }
    }

    /// Room and warning point: a 32nd of the capacity before its end, but 1 MiB to 1 GiB; on tiny media a quarter.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let margin = (self.capacity / 32).clamp(1 << 20, 1 << 30).min(self.capacity / 4);
        Limits { capacity: self.capacity, early_warning: self.capacity - margin }
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

/// True for what a label can say.
pub(crate) fn is_barcode(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
