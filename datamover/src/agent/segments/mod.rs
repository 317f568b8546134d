//! From what is to be on a tape, or back on a disk, to EXTENDED COPY command lists.
//!
//! [`write`] plans the way to the tape (00h, 04h, 08h, 10h), [`read`] the way back (12h, 06h, 01h, 09h). Pure: what a copy
//! manager takes is handed in as [`Limits`], lists come out. Not here: sending them, which is [`super::copy`].
//!
//! The rules that both keep, because residue dies at the end of a command and a wrong list must fail rather than lose bytes:
//! - A command carries a whole number of records. Extents and inline bytes are split at record borders.
//! - CAT=1 exactly while a record is unfinished. The last segment of every command, and the one before every filemark, has
//!   CAT=0 with PAD=0: a miscount then ends as UNEXPECTED INEXACT SEGMENT (26h/0Ah).
//! - The short last record has segments of its own, with its exact length as STREAM DEVICE TRANSFER LENGTH; that length never
//!   changes while residue is pending.
//! - A command moves no more than [`Limits::bytes`]: foreground commands meet time-outs of 30 or 60 s.
//!
//! Text: SPC-4, "EXTENDED COPY command", "Segment descriptor processing", "Segment descriptors".

use bytes::Bytes;
use protocol::wire::U24;
use protocol::xcopy::results::OperatingParameters;
use protocol::xcopy::{CscdDescriptor, CscdId, List, SegmentDescriptor};

#[cfg(test)]
mod model;
pub mod read;
pub mod write;

/// Bytes of the two CSCD descriptors that every command here has.
const CSCDS: u64 = 2 * protocol::xcopy::CSCD_LENGTH as u64;
/// BLOCK DEVICE NUMBER OF BLOCKS of 00h and 01h has 16 bits.
const MAX_BLOCKS: u64 = u16::MAX as u64;
/// NUMBER OF BYTES of 04h, 06h, 08h and 09h has 32 bits.
const MAX_BYTES: u64 = u32::MAX as u64;
/// The disk is the first CSCD of every list, the tape the second.
const DISK: CscdId = CscdId(0);
const TAPE: CscdId = CscdId(1);

/// What one command may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Segment descriptors.
    pub segments: usize,
    /// Bytes of CSCD and segment descriptors together.
    pub descriptors: u64,
    /// Bytes of inline data.
    pub inline: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Longest record.
    pub record: u32,
}

impl Limits {
    /// What a command moves at most unless told otherwise: what slow ends do in about 10 s.
    pub const BYTES: u64 = 1 << 30;

    /// From what the copy manager says of itself. A limit that it gives as 0 is none.
    #[must_use]
    pub fn of(parameters: &OperatingParameters, bytes: u64) -> Self {
        let or_none = |value: u32| if value == 0 { u64::from(u32::MAX) } else { u64::from(value) };
        Self {
            segments: usize::from(parameters.maximum_segment_descriptor_count),
            descriptors: or_none(parameters.maximum_descriptor_list_length),
            inline: u64::from(parameters.maximum_inline_data_length),
            bytes: bytes.min(or_none(parameters.maximum_segment_length)),
            record: match parameters.maximum_stream_device_transfer_size {
                0 => U24::MAX,
                size => size.min(U24::MAX),
            },
        }
    }
}

/// One EXTENDED COPY command, without the CSCDs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// In order.
    pub segments: Vec<SegmentDescriptor>,
    /// Inline data.
    pub inline: Vec<u8>,
    /// Bytes that go from the disk to the tape or back.
    pub moved: u64,
    /// Tape objects written: records and filemarks.
    pub objects: u64,
    descriptor_bytes: u64,
}

impl Command {
    /// The parameter list. The disk must be the first CSCD and the tape the second, as the segments name them.
    #[must_use]
    pub fn list(&self, id: u8, disk: CscdDescriptor, tape: CscdDescriptor) -> List {
        let mut list = List::new(id);
        list.cscd(disk);
        list.cscd(tape);
        list.segments.clone_from(&self.segments);
        list.inline = Bytes::copy_from_slice(&self.inline);
        list
    }

    fn push(&mut self, segment: SegmentDescriptor) {
        self.descriptor_bytes += segment.length() as u64;
        self.segments.push(segment);
    }

    /// Room for so many more segment descriptors, of any type used here.
    fn has_room(&self, more: usize, limits: &Limits) -> bool {
        /// 08h and 09h are the longest.
        const LONGEST: u64 = 28;
        self.segments.len() + more <= limits.segments
            && CSCDS + self.descriptor_bytes + LONGEST * more as u64 <= limits.descriptors
    }
}

/// Why no list can carry what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A record is longer than the copy manager, or the field, takes.
    #[error("records of {record} bytes: the copy manager takes 1 to {limit}; choose another --record-size")]
    RecordSize {
        /// Asked for.
        record: u32,
        /// What is taken.
        limit: u32,
    },
    /// One record needs more segments, or more inline data, than a command may hold.
    #[error(
        "the record at byte {at} of a tape file does not fit one command of this copy manager: choose a smaller --record-size"
    )]
    RecordTooFragmented {
        /// Byte of the tape file at which the record begins.
        at: u64,
    },
    /// An address or number that its field does not hold.
    #[error("{0}")]
    Range(&'static str),
}

/// How many of the `wanted` bytes from byte `at` on, when at most `cap` are to be had: all, or up to the last record border
/// inside, or else `cap`.
fn cut(at: u64, wanted: u64, cap: u64, record: u64) -> u64 {
    if wanted <= cap {
        return wanted;
    }
    let border = (at + cap) / record * record;
    if border > at { border - at } else { cap }
}
