//! EXTENDED COPY: parameter lists, the tables of descriptor types, and what a copy manager reports.
//!
//! Cuts lists into typed values ([`List`]), writes them back, and holds one row per CSCD and segment descriptor type; the lists
//! that a copy manager advertises (VPD page 8Fh, OPERATING PARAMETERS) are made from the rows. Both sides use it: a target parses
//! what an initiator builds. Nothing is resolved, moved or checked against a device here.
//!
//! Follows SPC-4: "EXTENDED COPY parameter list", "CSCD descriptors", "Segment descriptors", "Third-party Copy VPD page", and the
//! RECEIVE COPY commands.

pub mod cscd;
mod layout;
pub mod list;
pub mod operation;
pub mod results;
pub mod rod;
pub mod segment;
pub mod token;

pub use cscd::{CscdDescriptor, CscdId, CscdName, CscdParameters, Designator};
pub use list::{List, ListError, ListFormat, ListIdUsage};
pub use rod::{RodCscd, RodToken, RodType};
pub use segment::{CountOf, Segment, SegmentDescriptor};
pub use token::{PopulateToken, WriteUsingToken};

use crate::scsi::DeviceType;

/// Bytes of the EXTENDED COPY(LID1) parameter list header. SPC-4, "EXTENDED COPY(LID1) command".
pub const LIST_HEADER_LENGTH: usize = 16;
/// Bytes of a CSCD descriptor, and of a CSCD descriptor extension.
pub const CSCD_LENGTH: usize = 32;

/// MAXIMUM CSCD DESCRIPTOR COUNT.
pub const MAX_CSCDS: usize = 128;
/// MAXIMUM SEGMENT DESCRIPTOR COUNT.
pub const MAX_SEGMENTS: usize = 4096;
/// MAXIMUM DESCRIPTOR LIST LENGTH: the longest fixed segment descriptor (0Ah, 32 bytes) as often as allowed, and all CSCDs, each with
/// an extension.
pub const MAX_DESCRIPTOR_LIST_LENGTH: usize = 2 * MAX_CSCDS * CSCD_LENGTH + MAX_SEGMENTS * 32;
/// MAXIMUM INLINE DATA LENGTH.
pub const MAX_INLINE_DATA_LENGTH: usize = 1 << 20;
/// HELD DATA LIMIT: of what a copy processes for the application client too, so many of the last bytes are kept.
pub const HELD_DATA_LIMIT: usize = 64 << 10;
/// MAXIMUM STREAM DEVICE TRANSFER SIZE: the longest record a drive here takes (READ BLOCK LIMITS has 24 bits).
pub const MAX_STREAM_TRANSFER: u32 = 0xFF_FFFF;
/// Records of one transfer with FIXED=1: as many as blocks of 512 bytes are in the longest. Every record has framing and sums of its
/// own, so bytes alone do not bound what a transfer costs.
pub const MAX_TRANSFER_RECORDS: u32 = 1 << 15;
/// MAXIMUM CONCURRENT COPIES, and also TOTAL CONCURRENT COPIES.
pub const MAX_CONCURRENT_COPIES: u8 = 64;

/// Service actions of THIRD-PARTY COPY OUT (83h) that copy managers here have, ascending: EXTENDED COPY(LID1) and (LID4), COPY
/// OPERATION ABORT; of disks also POPULATE TOKEN and WRITE USING TOKEN.
#[must_use]
pub const fn copy_out_actions(manager: DeviceType) -> &'static [u8] {
    match manager {
        DeviceType::Disk => &[0x00, 0x01, 0x10, 0x11, 0x1C],
        _ => &[0x00, 0x01, 0x1C],
    }
}

/// Service actions of THIRD-PARTY COPY IN (84h), ascending: STATUS(LID1), DATA(LID1), OPERATING PARAMETERS, FAILURE DETAILS(LID1),
/// STATUS(LID4), DATA(LID4); of disks also ROD TOKEN INFORMATION and ALL ROD TOKENS.
#[must_use]
pub const fn copy_in_actions(manager: DeviceType) -> &'static [u8] {
    match manager {
        DeviceType::Disk => &[0x00, 0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08],
        _ => &[0x00, 0x01, 0x03, 0x04, 0x05, 0x06],
    }
}

#[cfg(test)]
mod tests;
