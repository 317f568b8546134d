//! What a copy manager reports: RECEIVE COPY STATUS, FAILURE DETAILS, OPERATING PARAMETERS and VPD page 8Fh.
//!
//! All that describes what is supported is made from the rows of [`super::segment`] and [`super::cscd`] and from the limits in
//! [`super`]. Follows SPC-4, "RECEIVE COPY …(LID1) command" and "Third-party Copy VPD page".

use super::cscd::{CSCD_TYPES, CscdId};
use super::rod::{
    DEFAULT_INACTIVITY_TIMEOUT, MAX_INACTIVITY_TIMEOUT, MAX_RANGES, MAX_ROD_BYTES, MAX_TOKEN_LIFETIME, MIN_TOKEN_LIFETIME,
    OPTIMAL_ROD_BYTES, ROD_TYPES,
};
use super::segment::SEGMENT_TYPES;
use super::{
    HELD_DATA_LIMIT, MAX_CONCURRENT_COPIES, MAX_CSCDS, MAX_DESCRIPTOR_LIST_LENGTH, MAX_INLINE_DATA_LENGTH, MAX_SEGMENTS,
    MAX_STREAM_TRANSFER, copy_in_actions, copy_out_actions,
};
use crate::scsi::DeviceType;
use crate::units::BlockLength;
use crate::wire::{Problem, WireError};

/// Descriptor type codes that the copy manager of a logical unit of this type takes, ascending.
#[must_use]
pub fn implemented_descriptors(manager: DeviceType) -> Vec<u8> {
    let segments = SEGMENT_TYPES.iter().filter(|row| row.supported_on(manager)).map(|row| row.code);
    let cscds = CSCD_TYPES.iter().filter(|row| row.taken_by.includes(manager)).map(|row| row.code);
    let mut codes: Vec<u8> = segments.chain(cscds).collect();
    codes.sort_unstable();
    codes
}

/// COPY COMMAND STATUS of RECEIVE COPY STATUS(LID1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CopyCommandStatus {
    /// Operation in progress.
    InProgress = 0x00,
    /// Operation completed without errors.
    Done = 0x01,
    /// Operation completed with errors.
    Failed = 0x02,
}

/// Parameter data of RECEIVE COPY STATUS(LID1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyStatus {
    /// How far it is.
    pub status: CopyCommandStatus,
    /// SEGMENTS PROCESSED, the current one included; stops at 65,535.
    pub segments_processed: u16,
    /// Bytes written to copy destinations. Reported in kibibytes, mebibytes … where 32 bits do not hold it.
    pub transferred: u64,
    /// HDD: held data has been discarded.
    pub held_data_discarded: bool,
}

impl CopyStatus {
    /// Bytes of the parameter data.
    pub const LENGTH: usize = 12;

    /// As it is returned.
    #[must_use]
    pub fn emit(&self) -> [u8; Self::LENGTH] {
        let (units, count) = transfer_count(self.transferred);
        let mut out = [0; Self::LENGTH];
        out[..4].copy_from_slice(&(Self::LENGTH as u32 - 4).to_be_bytes());
        out[4] = u8::from(self.held_data_discarded) << 7 | self.status as u8;
        out[5..7].copy_from_slice(&self.segments_processed.to_be_bytes());
        out[7] = units;
        out[8..].copy_from_slice(&count.to_be_bytes());
        out
    }

    /// Reads what was returned. `transferred` is rounded down to the unit reported.
    ///
    /// # Errors
    /// Parameter data that is too short, or holds reserved values.
    pub fn parse(data: &[u8]) -> Result<Self, WireError> {
        let wire = |offset, problem| WireError::new("RECEIVE COPY STATUS parameter data", offset, problem);
        let data: &[u8; Self::LENGTH] =
            data.first_chunk().ok_or_else(|| wire(0, Problem::Truncated { needed: Self::LENGTH, available: data.len() }))?;
        let status = match data[4] & 0x7F {
            0x00 => CopyCommandStatus::InProgress,
            0x01 => CopyCommandStatus::Done,
            0x02 => CopyCommandStatus::Failed,
            value => return Err(wire(4, Problem::Value { field: "COPY COMMAND STATUS", value: u64::from(value) })),
        };
        let count = u64::from(u32::from_be_bytes([data[8], data[9], data[10], data[11]]));
        if data[7] > MAX_UNITS {
            return Err(wire(7, Problem::Value { field: "TRANSFER COUNT UNITS", value: u64::from(data[7]) }));
        }
        let transferred = count.saturating_mul(1 << (10 * u32::from(data[7])));
        let segments_processed = u16::from_be_bytes([data[5], data[6]]);
        Ok(Self { status, segments_processed, transferred, held_data_discarded: data[4] & 0x80 != 0 })
    }
}

/// TRANSFER COUNT UNITS for exbibytes: the largest power of 1,024 in table "COPY STATUS TRANSFER COUNT UNITS field".
const MAX_UNITS: u8 = 6;

/// TRANSFER COUNT UNITS and TRANSFER COUNT: the smallest unit whose count fits.
fn transfer_count(bytes: u64) -> (u8, u32) {
    (0..=MAX_UNITS)
        .find_map(|units| Some((units, u32::try_from(bytes >> (10 * u32::from(units))).ok()?)))
        .unwrap_or((MAX_UNITS, 0))
}

/// Parameter data of RECEIVE COPY DATA(LID1).
#[must_use]
pub fn held_data_lid1(held: &[u8]) -> Vec<u8> {
    [&(held.len() as u32).to_be_bytes()[..], held].concat()
}

/// Parameter data of RECEIVE COPY FAILURE DETAILS(LID1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureDetails {
    /// EXTENDED COPY COMMAND STATUS: the status byte the command ended with.
    pub status: u8,
    /// SENSE DATA as it was returned with the command.
    pub sense: Vec<u8>,
}

impl FailureDetails {
    /// Byte at which SENSE DATA begins.
    const SENSE_AT: usize = 60;

    /// As it is returned.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; Self::SENSE_AT];
        out[..4].copy_from_slice(&((Self::SENSE_AT + self.sense.len() - 4) as u32).to_be_bytes());
        out[56] = self.status;
        out[58..60].copy_from_slice(&(self.sense.len() as u16).to_be_bytes());
        out.extend_from_slice(&self.sense);
        out
    }

    /// Reads what was returned; `None` when no details were there.
    ///
    /// # Errors
    /// Parameter data that is shorter than it says.
    pub fn parse(data: &[u8]) -> Result<Option<Self>, WireError> {
        let short = |needed| {
            WireError::new(
                "RECEIVE COPY FAILURE DETAILS parameter data",
                data.len(),
                Problem::Truncated { needed, available: data.len() },
            )
        };
        let available: &[u8; 4] = data.first_chunk().ok_or_else(|| short(4))?;
        if u32::from_be_bytes(*available) == 0 {
            return Ok(None);
        }
        let header: &[u8; Self::SENSE_AT] = data.first_chunk().ok_or_else(|| short(Self::SENSE_AT))?;
        let end = Self::SENSE_AT + usize::from(u16::from_be_bytes([header[58], header[59]]));
        let sense = data.get(Self::SENSE_AT..end).ok_or_else(|| short(end))?.to_vec();
        Ok(Some(Self { status: header[56], sense }))
    }
}

/// Parameter data of RECEIVE COPY OPERATING PARAMETERS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields bear the standard's names")]
pub struct OperatingParameters {
    /// SNLID: LIST ID USAGE 11b is taken.
    pub supports_no_list_identifier: bool,
    pub maximum_cscd_descriptor_count: u16,
    pub maximum_segment_descriptor_count: u16,
    /// Bytes of CSCD and segment descriptors together.
    pub maximum_descriptor_list_length: u32,
    /// Bytes; 0 is no limit.
    pub maximum_segment_length: u32,
    pub maximum_inline_data_length: u32,
    pub held_data_limit: u32,
    pub maximum_stream_device_transfer_size: u32,
    pub total_concurrent_copies: u16,
    pub maximum_concurrent_copies: u8,
    /// Power of two, bytes.
    pub data_segment_granularity: u8,
    pub inline_data_granularity: u8,
    pub held_data_granularity: u8,
    /// Ascending.
    pub implemented_descriptors: Vec<u8>,
}

impl OperatingParameters {
    /// Byte at which the list of implemented descriptor type codes begins.
    const LIST_AT: usize = 44;

    /// What the copy manager of a logical unit of this type says.
    #[must_use]
    pub fn of(manager: DeviceType) -> Self {
        Self {
            supports_no_list_identifier: true,
            maximum_cscd_descriptor_count: MAX_CSCDS as u16,
            maximum_segment_descriptor_count: MAX_SEGMENTS as u16,
            maximum_descriptor_list_length: MAX_DESCRIPTOR_LIST_LENGTH as u32,
            // As far as the descriptors can count.
            maximum_segment_length: u32::MAX,
            maximum_inline_data_length: MAX_INLINE_DATA_LENGTH as u32,
            held_data_limit: HELD_DATA_LIMIT as u32,
            maximum_stream_device_transfer_size: MAX_STREAM_TRANSFER,
            total_concurrent_copies: u16::from(MAX_CONCURRENT_COPIES),
            maximum_concurrent_copies: MAX_CONCURRENT_COPIES,
            data_segment_granularity: 0,
            inline_data_granularity: 0,
            held_data_granularity: 0,
            implemented_descriptors: implemented_descriptors(manager),
        }
    }

    /// As it is returned.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0; Self::LIST_AT];
        out[..4].copy_from_slice(&((Self::LIST_AT + self.implemented_descriptors.len() - 4) as u32).to_be_bytes());
        out[4] = u8::from(self.supports_no_list_identifier);
        out[8..10].copy_from_slice(&self.maximum_cscd_descriptor_count.to_be_bytes());
        out[10..12].copy_from_slice(&self.maximum_segment_descriptor_count.to_be_bytes());
        out[12..16].copy_from_slice(&self.maximum_descriptor_list_length.to_be_bytes());
        out[16..20].copy_from_slice(&self.maximum_segment_length.to_be_bytes());
        out[20..24].copy_from_slice(&self.maximum_inline_data_length.to_be_bytes());
        out[24..28].copy_from_slice(&self.held_data_limit.to_be_bytes());
        out[28..32].copy_from_slice(&self.maximum_stream_device_transfer_size.to_be_bytes());
        out[34..36].copy_from_slice(&self.total_concurrent_copies.to_be_bytes());
        out[36] = self.maximum_concurrent_copies;
        out[37] = self.data_segment_granularity;
        out[38] = self.inline_data_granularity;
        out[39] = self.held_data_granularity;
        out[43] = self.implemented_descriptors.len() as u8;
        out.extend_from_slice(&self.implemented_descriptors);
        out
    }

    /// Reads what was returned.
    ///
    /// # Errors
    /// Parameter data that is shorter than it says.
    pub fn parse(data: &[u8]) -> Result<Self, WireError> {
        let short = |needed| {
            let problem = Problem::Truncated { needed, available: data.len() };
            WireError::new("RECEIVE COPY OPERATING PARAMETERS parameter data", data.len(), problem)
        };
        let header: &[u8; Self::LIST_AT] = data.first_chunk().ok_or_else(|| short(Self::LIST_AT))?;
        let half = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let end = Self::LIST_AT + usize::from(header[43]);
        Ok(Self {
            supports_no_list_identifier: header[4] & 1 != 0,
            maximum_cscd_descriptor_count: half(8),
            maximum_segment_descriptor_count: half(10),
            maximum_descriptor_list_length: word(12),
            maximum_segment_length: word(16),
            maximum_inline_data_length: word(20),
            held_data_limit: word(24),
            maximum_stream_device_transfer_size: word(28),
            total_concurrent_copies: half(34),
            maximum_concurrent_copies: header[36],
            data_segment_granularity: header[37],
            inline_data_granularity: header[38],
            held_data_granularity: header[39],
            implemented_descriptors: data.get(Self::LIST_AT..end).ok_or_else(|| short(end))?.to_vec(),
        })
    }
}

/// VPD page 8Fh behind its four-byte header: the third-party copy descriptors, ascending. Disks say their block length: they have
/// RODs.
#[must_use]
pub fn third_party_copy_page(manager: DeviceType, block_length: Option<BlockLength>) -> Vec<u8> {
    let limits = OperatingParameters::of(manager);
    let mut page = Vec::new();
    if let Some(block_length) = block_length {
        descriptor(&mut page, 0x0000, &block_device_rod_limits(block_length));
    }
    descriptor(&mut page, 0x0001, &supported_commands(manager));
    descriptor(&mut page, 0x0004, &parameter_data(&limits));
    descriptor(&mut page, 0x0008, &prefixed(&limits.implemented_descriptors));
    descriptor(&mut page, 0x000C, &supported_cscd_ids(manager));
    if block_length.is_some() {
        descriptor(&mut page, 0x0106, &rod_token_features());
        descriptor(&mut page, 0x0108, &supported_rod_types());
    }
    descriptor(&mut page, 0x8001, &general_copy_operations(&limits));
    descriptor(&mut page, 0x9101, &stream_copy_operations(&limits));
    descriptor(&mut page, 0xC001, &held_data(&limits));
    page
}

/// Appends a third-party copy descriptor, padded to a multiple of four.
fn descriptor(page: &mut Vec<u8>, code: u16, parameters: &[u8]) {
    let length = parameters.len().next_multiple_of(4);
    page.extend_from_slice(&code.to_be_bytes());
    page.extend_from_slice(&(length as u16).to_be_bytes());
    page.extend_from_slice(parameters);
    page.resize(page.len() + length - parameters.len(), 0);
}

/// A list behind its length in one byte.
fn prefixed(list: &[u8]) -> Vec<u8> {
    [&[list.len() as u8], list].concat()
}

/// Supported Commands.
fn supported_commands(manager: DeviceType) -> Vec<u8> {
    let commands = [(0x83, copy_out_actions(manager)), (0x84, copy_in_actions(manager))];
    prefixed(&commands.iter().flat_map(|(opcode, actions)| [vec![*opcode], prefixed(actions)].concat()).collect::<Vec<u8>>())
}

/// Parameter Data: 28 bytes.
fn parameter_data(limits: &OperatingParameters) -> Vec<u8> {
    let mut out = vec![0; 28];
    out[4..6].copy_from_slice(&limits.maximum_cscd_descriptor_count.to_be_bytes());
    out[6..8].copy_from_slice(&limits.maximum_segment_descriptor_count.to_be_bytes());
    out[8..12].copy_from_slice(&limits.maximum_descriptor_list_length.to_be_bytes());
    out[12..16].copy_from_slice(&limits.maximum_inline_data_length.to_be_bytes());
    out
}

/// Supported CSCD IDs: those above 07FFh.
fn supported_cscd_ids(manager: DeviceType) -> Vec<u8> {
    let ids: Vec<u8> = CscdId::special(manager).iter().flat_map(|id| id.0.to_be_bytes()).collect();
    [&(ids.len() as u16).to_be_bytes()[..], &ids].concat()
}

/// Block Device ROD Limits: 32 bytes. SBC-4, table 284.
fn block_device_rod_limits(block_length: BlockLength) -> Vec<u8> {
    let mut out = vec![0; 32];
    out[6..8].copy_from_slice(&(MAX_RANGES as u16).to_be_bytes());
    out[8..12].copy_from_slice(&MAX_INACTIVITY_TIMEOUT.to_be_bytes());
    out[12..16].copy_from_slice(&DEFAULT_INACTIVITY_TIMEOUT.to_be_bytes());
    out[16..24].copy_from_slice(&(MAX_ROD_BYTES / block_length.bytes()).to_be_bytes());
    out[24..32].copy_from_slice(&(OPTIMAL_ROD_BYTES / block_length.bytes()).to_be_bytes());
    out
}

/// ROD Token Features: 44 bytes, then the block ROD device type specific features. REMOTE TOKENS 0h: of no other target.
fn rod_token_features() -> Vec<u8> {
    let mut out = vec![0; 44 + 48];
    out[12..16].copy_from_slice(&MIN_TOKEN_LIFETIME.to_be_bytes());
    out[16..20].copy_from_slice(&MAX_TOKEN_LIFETIME.to_be_bytes());
    out[20..24].copy_from_slice(&MAX_INACTIVITY_TIMEOUT.to_be_bytes());
    out[42..44].copy_from_slice(&48_u16.to_be_bytes());
    let block = &mut out[44..];
    block[2..4].copy_from_slice(&0x002C_u16.to_be_bytes());
    block[8..16].copy_from_slice(&MAX_ROD_BYTES.to_be_bytes());
    // In one transfer, to a token in one descriptor, and from one.
    for at in [16, 24, 32] {
        block[at..at + 8].copy_from_slice(&OPTIMAL_ROD_BYTES.to_be_bytes());
    }
    out
}

/// Supported ROD Types: a descriptor of 64 bytes for each row.
fn supported_rod_types() -> Vec<u8> {
    const LENGTH: usize = 64;
    let mut out = vec![0; 4];
    out[2..4].copy_from_slice(&((ROD_TYPES.len() * LENGTH) as u16).to_be_bytes());
    for row in ROD_TYPES {
        let mut descriptor = [0; LENGTH];
        descriptor[..4].copy_from_slice(&row.code.to_be_bytes());
        descriptor[4] = u8::from(row.internal) << 7 | u8::from(row.token_in) << 1 | u8::from(row.token_out);
        out.extend_from_slice(&descriptor);
    }
    out
}

/// General Copy Operations: 32 bytes.
fn general_copy_operations(limits: &OperatingParameters) -> Vec<u8> {
    let mut out = vec![0; 32];
    out[..4].copy_from_slice(&u32::from(limits.total_concurrent_copies).to_be_bytes());
    out[4..8].copy_from_slice(&u32::from(limits.maximum_concurrent_copies).to_be_bytes());
    out[8..12].copy_from_slice(&limits.maximum_segment_length.to_be_bytes());
    out[12] = limits.data_segment_granularity;
    out[13] = limits.inline_data_granularity;
    out
}

/// Stream Copy Operations: 12 bytes.
fn stream_copy_operations(limits: &OperatingParameters) -> Vec<u8> {
    [&limits.maximum_stream_device_transfer_size.to_be_bytes()[..], &[0; 8]].concat()
}

/// Held Data: 28 bytes.
fn held_data(limits: &OperatingParameters) -> Vec<u8> {
    let mut out = vec![0; 28];
    out[..4].copy_from_slice(&limits.held_data_limit.to_be_bytes());
    out[4] = limits.held_data_granularity;
    out
}
