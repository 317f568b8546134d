//! The image set: what one backup of a disk looks like on a tape.
//!
//! Four tape files, each closed by a filemark, in this order. A tape restores with nothing but itself; whatever is kept beside
//! it on a disk is a cache.
//!
//! | tape file | records | what |
//! |---|---|---|
//! | [`header`] | one, JSON | [`VolumeHeader`]: what was backed up, when, how, and where on the tape the rest begins and ends |
//! | [`table`] | sections | block correspondence (compact address X → original address A), the source's own allocation (A → place in its store) |
//! | data | bytes of the disk | the compact copy: blocks X ascending in records of [`VolumeHeader::record_size`], the last may be short |
//! | [`catalog`], [`trailer`] | sections, then one JSON record | the files and where their bytes are, the sums of the data, and the mark that the set is whole |
//!
//! [`set`] takes all but the data apart and holds the parts against each other.
//!
//! Every binary part is a [`section`]: kind, version, length and a CRC32C, so that a part that this version does not know, or
//! that was damaged, is named and never guessed at. A set without a trailer is incomplete, whatever else is there.
//!
//! Not here: how the parts get onto a tape ([`super::segments`]), and how they are found on one ([`super::tape`]).
//!
//! Text: own format; the reasons are in the design ("Backup sets on tape").

pub mod catalog;
pub mod header;
pub mod section;
pub mod set;
pub mod table;
pub mod trailer;

pub use catalog::{Catalog, Content, FileEntry, StreamEntry};
pub use header::{FileSystem, Moment, SetId, SetKind, Source, Span, VolumeHeader};
pub use section::{Section, SectionKind};
pub use set::{SetBytes, SetTables};
pub use table::{Allocation, Correspondence, Run};
pub use trailer::{DataSum, Manifest, Trailer};

use protocol::wire::WireError;

/// The version of the whole arrangement. A reader refuses a higher one, and says so.
pub const VERSION: u32 = 1;

/// No header or trailer record is longer; it is what every tape program can read.
pub const MAX_JSON_RECORD: usize = 65_536;

/// What was read from a tape is not what an image set looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Bytes that do not have the form of a part.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A JSON record that is none, or lacks a field.
    #[error("{part}: {problem}")]
    Json {
        /// Which record.
        part: &'static str,
        /// What the parser says.
        problem: String,
    },
    /// The record is something else: no `format` of ours in it.
    #[error("{part}: this is no record of an offhost image set")]
    Foreign {
        /// Which record was looked for.
        part: &'static str,
    },
    /// Written by a later offhost.
    #[error("{part} has version {found}; this offhost reads up to {known}: use a newer one")]
    Version {
        /// Which part.
        part: &'static str,
        /// What it says.
        found: u32,
        /// What is known here.
        known: u32,
    },
    /// A part that must be there is not.
    #[error("the {0} is missing")]
    Missing(&'static str),
    /// Two parts, or two numbers of one part, that must agree do not.
    #[error("{part}: {problem}")]
    Contradiction {
        /// Which part.
        part: &'static str,
        /// What disagrees.
        problem: String,
    },
}

impl LayoutError {
    fn contradiction(part: &'static str, problem: impl Into<String>) -> Self {
        Self::Contradiction { part, problem: problem.into() }
    }
}
