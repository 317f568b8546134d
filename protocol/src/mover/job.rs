//! A copy job: an EXTENDED COPY list whose CSCDs are resolved and whose checks are made.
//!
//! What is left is arithmetic on bytes. How residue goes from step to step, SPC-4, "EXTENDED COPY command processing".

use serde::{Deserialize, Serialize};

use super::ends::End;
use super::message::JobId;

/// All a mover needs to know. The files that `ends` name travel beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyJob {
    /// Unlike every other job of this target's life.
    pub id: JobId,
    /// Who takes part. One disk may be there twice, as a source and as a destination; a tape is there once.
    pub ends: Vec<End>,
    /// In the order of the list.
    pub steps: Vec<Step>,
    /// Inline data, and all embedded data behind it.
    pub inline: Vec<u8>,
    /// Bytes of buffers the job may use; a mover takes more only where one transfer needs it.
    pub buffer_bytes: u64,
    /// PRIORITY of the list, 0 to 7: 1 is as important as other commands, a higher number less.
    pub priority: u8,
    /// Bytes written a second; absent: as many as go.
    pub bytes_per_second: Option<u64>,
}

/// Index into [`CopyJob::ends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndIndex(pub u16);

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number in the list, from 0.
    pub segment: u32,
    /// CAT.
    pub cat: bool,
    /// What to do.
    pub action: Action,
}

/// What a segment does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Moves data.
    Move(Move),
    /// 10h.
    WriteFilemarks {
        /// The tape.
        end: EndIndex,
        /// How many; with 0 and not `immediate` what was written is synchronized.
        count: u32,
        /// W_IMMED: not synchronized.
        immediate: bool,
    },
    /// 11h.
    Space {
        /// The tape.
        end: EndIndex,
        /// CODE.
        over: SpaceOver,
        /// COUNT; negative towards the beginning.
        count: i32,
    },
    /// 12h.
    Locate {
        /// The tape.
        end: EndIndex,
        /// Logical object number.
        object: u64,
    },
    /// 13h: records and filemarks as they are.
    TapeImage {
        /// The tape that is read.
        from: EndIndex,
        /// The tape that is written.
        to: EndIndex,
        /// Consecutive filemarks that end it; 0: none do.
        filemarks: u32,
    },
    /// 16h.
    BlockImage {
        /// The disk that is read.
        from: EndIndex,
        /// Its first byte.
        from_at: u64,
        /// The disk that is written.
        to: EndIndex,
        /// Its first byte.
        to_at: u64,
        /// Bytes, all of which both disks have.
        len: u64,
    },
    /// 14h, and what the target can only tell of a segment when all before it is done: it is asked.
    Ask,
    /// 07h and 15h: the target does it.
    Nothing,
}

/// CODE of SPACE. SSC-4, "SPACE(6) command".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum SpaceOver {
    LogicalBlocks,
    Filemarks,
    EndOfData,
}

/// A segment that moves data. Exactly one of `process` and `output` is absent, but for 0Ah and 06h where neither or `output` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where source data comes from.
    pub from: Source,
    /// Where destination data goes to.
    pub to: Destination,
    /// Bytes to be made destination data; absent: as many as `output` wants.
    pub process: Option<u64>,
    /// Bytes to be written; absent: as many whole transfers as the destination data gives.
    pub output: Option<u64>,
    /// PAD of the source CSCD.
    pub source_pad: bool,
    /// PAD of the destination CSCD.
    pub destination_pad: bool,
    /// The target is also given what is processed: the last [`crate::xcopy::HELD_DATA_LIMIT`] bytes of the job's.
    pub hold: bool,
}

/// Where source data comes from. Addresses count bytes of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// Whole blocks from `at` on, just as many as are needed.
    Blocks {
        /// A disk.
        end: EndIndex,
        /// First byte.
        at: u64,
    },
    /// Exactly these bytes, however much residual source data there is.
    Bytes {
        /// A disk.
        end: EndIndex,
        /// First byte.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// Reads of a tape from where it stands, just as many as are needed.
    Stream {
        /// A tape.
        end: EndIndex,
        /// One read.
        transfer: Transfer,
    },
    /// Part of [`CopyJob::inline`]: goes to the destination data directly, and leaves the source data alone.
    Inline {
        /// First byte.
        offset: u32,
        /// Bytes.
        len: u32,
    },
}

/// Where destination data goes to. Addresses count bytes of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// Whole blocks from `at` on.
    Blocks {
        /// A disk.
        end: EndIndex,
        /// First byte.
        at: u64,
    },
    /// Bytes from `at` on; what lies around them in their first and last block stays.
    Bytes {
        /// A disk.
        end: EndIndex,
        /// First byte.
        at: u64,
    },
    /// Writes to a tape where it stands.
    Stream {
        /// A tape.
        end: EndIndex,
        /// One write.
        transfer: Transfer,
    },
    /// Processed bytes are dropped; destination data is left alone.
    Discard,
}

/// One read or write of a tape. SPC-4, table "Stream device transfer lengths".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Bytes of each record.
    pub record: u32,
    /// Records of one command; 1 where `fixed` is false.
    pub records: u32,
    /// FIXED: residuals count records.
    pub fixed: bool,
}

impl Transfer {
    /// Bytes of one command.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.record as u64 * self.records as u64
    }
}
