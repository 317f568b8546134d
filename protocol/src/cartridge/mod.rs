//! The tape image: how records and filemarks lie in a file, and how they get there so that a crash leaves whole records only.
//!
//! A partition is one SIMH `.tap` file ([`frame`]) and an index beside it ([`index`]). [`append`] decides where new objects go
//! and in which order the words that publish them are written; [`scan`] walks what is there, forward and backward; [`sums`]
//! keeps what proves it; [`layout`] says where the data of records lies; [`envelope`] is around records that are compressed or encrypted. All of it is sans-io, so that the drive in the target and a mover in its own process use the same rules.
//!
//! Does not open files and knows no SCSI. Private markers of the format are reported, not interpreted.
//!
//! Follows "SIMH Magtape Representation and Handling" (the word layout and the classes); the commit word, the index and the
//! sums are our own.

pub mod append;
pub mod envelope;
pub mod frame;
pub mod index;
pub mod layout;
pub mod report;
pub mod scan;
pub mod sums;

pub use crate::mover::ends::TapePosition;

use serde::{Deserialize, Serialize};

/// Longest record a drive takes, in bytes: what the 24 bits of READ(6)'s TRANSFER LENGTH and of a stream block length can say.
pub const MAX_RECORD_LENGTH: u32 = 0xFF_FFFF;

/// What a logical object is. SSC-4, "Logical objects".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A logical block.
    Record,
    /// A filemark.
    Filemark,
}

impl TapePosition {
    /// The beginning of a partition.
    pub const BEGINNING: Self = Self { object: 0, file: 0, offset: 0 };

    /// Behind an erase gap of so many bytes in front of the object.
    #[must_use]
    pub const fn behind_gap(self, gap: u32) -> Self {
        Self { offset: self.offset + gap as u64, ..self }
    }

    /// Behind an object of `length` data bytes that begins here.
    #[must_use]
    pub const fn after(self, kind: ObjectKind, length: u32) -> Self {
        let (file, size) = match kind {
            ObjectKind::Record => (self.file, frame::record_size(length)),
            ObjectKind::Filemark => (self.file + 1, frame::WORD),
        };
        Self { object: self.object + 1, file, offset: self.offset + size }
    }
}
