//! The ends of a copy, as a mover sees them: open files and how to read them.

use serde::{Deserialize, Serialize};

use super::remote::RemoteEnd;
use crate::cartridge::layout::Layout;
use crate::units::ByteRange;

/// Index into the descriptors that travel beside the message (SCM_RIGHTS), first is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Descriptor(pub u16);

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Blocks that lie in a file or block device as they are on the LUN.
    Raw {
        /// Opened read-only for a source, read-write for a destination.
        file: Descriptor,
        /// The bytes of the file that are the LUN.
        within: ByteRange,
        /// Bytes a block.
        block_length: u32,
    },
    /// A snapshot: the live file, the copy store over it, and the data block table that says which of the two holds a chunk.
    View {
        /// The live file, read-only.
        live: Descriptor,
        /// The bytes of the live file that the view covers.
        within: ByteRange,
        /// The bytes of the view that the end is made of, one part behind the other; none: all of it.
        parts: Vec<ByteRange>,
        /// The copy store, read-only; byte 0 is the view's byte 0.
        copies: Descriptor,
        /// The sealed memory with the data block table.
        table: Descriptor,
        /// The generation the table must have.
        generation: u64,
        /// Bytes a block.
        block_length: u32,
    },
    /// A cartridge in a drive.
    Cartridge {
        /// The tape image; read-write when it may be written.
        image: Descriptor,
        /// Sums of what is on the tape, where there are any: what is read is held against them.
        index: Option<Index>,
        /// Where the drive stands.
        at: TapePosition,
        /// Where the committed data ends.
        end_of_data: TapePosition,
        /// The image may not grow past this byte.
        capacity: u64,
        /// From this byte on, writes report early warning.
        early_warning: u64,
        /// Where the data of records lies.
        layout: Layout,
        /// False for a write-protected cartridge.
        writable: bool,
        /// False where several movers fill the image: what is appended counts when the target publishes it, in its order.
        publishes: bool,
    },
    /// CSCD id C000h: reads as zeros, takes everything. SPC-4, "CSCD descriptor IDs".
    NullBlock {
        /// Bytes a block.
        block_length: u32,
    },
    /// CSCD id C001h.
    NullStream,
    /// A logical unit of another iSCSI target.
    Remote(RemoteEnd),
}

/// The index beside a tape image. See [`crate::cartridge::index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Read-only.
    pub file: Descriptor,
    /// Entries of the first so many objects lie in it; what stands behind them may be of former data.
    pub objects: u64,
}

/// A place on a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct TapePosition {
    /// Logical objects (records and filemarks) before it: the logical object number of SSC-4.
    pub object: u64,
    /// Filemarks before it: the logical file identifier of SSC-4.
    pub file: u64,
    /// Byte of the image at which the next object's first length word stands.
    pub offset: u64,
}
