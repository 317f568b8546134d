//! What a copy manager reports of a copy operation to whoever knows its list identifier of 32 bits.
//!
//! The shared third-party copy status header, alone for RECEIVE COPY STATUS(LID4), and before held data or ROD tokens. Does not
//! know operations. Follows SPC-4, "RECEIVE COPY STATUS(LID4) command", tables 248 to 251.

use crate::wire::{Problem, WireError};

/// COPY OPERATION STATUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CopyOperationStatus {
    /// Completed without errors.
    Done = 0x01,
    /// Completed with errors.
    Failed = 0x02,
    /// Completed without errors but with partial ROD token usage. SBC-4.
    PartialToken = 0x03,
    /// Completed without errors but with residual data.
    Residual = 0x04,
    /// In progress in the foreground.
    Foreground = 0x11,
    /// In progress in the background.
    Background = 0x12,
    /// Terminated, as by COPY OPERATION ABORT.
    Terminated = 0x60,
}

impl CopyOperationStatus {
    /// "Operation completed without errors" of table 249.
    #[must_use]
    pub const fn is_without_errors(self) -> bool {
        matches!(self, Self::Done | Self::PartialToken | Self::Residual)
    }

    /// It has not ended yet.
    #[must_use]
    pub const fn is_in_progress(self) -> bool {
        matches!(self, Self::Foreground | Self::Background)
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0x01 => Self::Done,
            0x02 => Self::Failed,
            0x03 => Self::PartialToken,
            0x04 => Self::Residual,
            0x11 => Self::Foreground,
            0x12 => Self::Background,
            0x60 => Self::Terminated,
            _ => return None,
        })
    }
}

/// The shared third-party copy status header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationStatus {
    /// RESPONSE TO SERVICE ACTION: of the command that began it.
    pub service_action: u8,
    /// HDD.
    pub held_data_discarded: bool,
    /// COPY OPERATION STATUS.
    pub status: CopyOperationStatus,
    /// OPERATION COUNTER; wraps.
    pub operation_counter: u16,
    /// ESTIMATED STATUS UPDATE DELAY, in milliseconds.
    pub update_delay_ms: u32,
    /// EXTENDED COPY COMPLETION STATUS.
    pub completion_status: u8,
    /// TRANSFER COUNT, in bytes or, where `in_blocks`, in blocks.
    pub transferred: u64,
    /// TRANSFER COUNT UNITS F1h: blocks of the copy destination. SBC-4 wants it of POPULATE TOKEN and WRITE USING TOKEN.
    pub in_blocks: bool,
    /// SEGMENTS PROCESSED, the current one included.
    pub segments_processed: u16,
    /// SENSE DATA, without padding; at most 252 bytes.
    pub sense: Vec<u8>,
}

impl OperationStatus {
    /// ESTIMATED STATUS UPDATE DELAY of an operation that has ended.
    pub const NO_MORE_UPDATES: u32 = 0xFFFF_FFFE;
    /// TRANSFER COUNT UNITS for blocks.
    const IN_BLOCKS: u8 = 0xF1;
    /// Byte at which SENSE DATA begins.
    const SENSE_AT: usize = 32;
    /// What LENGTH OF THE SENSE DATA FIELD can say at most.
    const MAX_SENSE: usize = 252;

    /// Parameter data of RECEIVE COPY STATUS(LID4).
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let sense = &self.sense[..self.sense.len().min(Self::MAX_SENSE)];
        let room = sense.len().next_multiple_of(4);
        let mut out = vec![0; Self::SENSE_AT + room];
        out[4] = self.service_action & 0x1F;
        out[5] = u8::from(self.held_data_discarded) << 7 | self.status as u8;
        out[6..8].copy_from_slice(&self.operation_counter.to_be_bytes());
        out[8..12].copy_from_slice(&self.update_delay_ms.to_be_bytes());
        out[12] = self.completion_status;
        out[13] = room as u8;
        out[14] = sense.len() as u8;
        out[15] = if self.in_blocks { Self::IN_BLOCKS } else { 0 };
        out[16..24].copy_from_slice(&self.transferred.to_be_bytes());
        out[24..26].copy_from_slice(&self.segments_processed.to_be_bytes());
        out[Self::SENSE_AT..Self::SENSE_AT + sense.len()].copy_from_slice(sense);
        counted(out)
    }

    /// The header and, behind their length, held data or ROD token descriptors.
    #[must_use]
    pub fn emit_with(&self, data: &[u8]) -> Vec<u8> {
        let mut out = self.emit();
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
        counted(out)
    }

    /// Reads the header; gives what lies behind it as well.
    ///
    /// # Errors
    /// Parameter data that is shorter than it says, or holds a reserved status.
    pub fn parse(data: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let wire = |offset, problem| WireError::new("third-party copy status header", offset, problem);
        let short = |needed| wire(data.len(), Problem::Truncated { needed, available: data.len() });
        let header: &[u8; Self::SENSE_AT] = data.first_chunk().ok_or_else(|| short(Self::SENSE_AT))?;
        let (room, length) = (usize::from(header[13]), usize::from(header[14]));
        let (sense, behind) = data[Self::SENSE_AT..].split_at_checked(room).ok_or_else(|| short(Self::SENSE_AT + room))?;
        let value = |offset, field, value: u8| wire(offset, Problem::Value { field, value: u64::from(value) });
        let code = header[5] & 0x7F;
        let units = match header[15] {
            Self::IN_BLOCKS => 0,
            units @ 0..=6 => units,
            units => return Err(value(15, "TRANSFER COUNT UNITS", units)),
        };
        let count = u64::from_be_bytes(*header[16..].first_chunk().expect("inside the header"));
        let status = Self {
            service_action: header[4] & 0x1F,
            held_data_discarded: header[5] & 0x80 != 0,
            status: CopyOperationStatus::from_code(code).ok_or_else(|| value(5, "COPY OPERATION STATUS", code))?,
            operation_counter: u16::from_be_bytes([header[6], header[7]]),
            update_delay_ms: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            completion_status: header[12],
            in_blocks: header[15] == Self::IN_BLOCKS,
            transferred: count.saturating_mul(1 << (10 * u32::from(units))),
            segments_processed: u16::from_be_bytes([header[24], header[25]]),
            sense: sense.get(..length).ok_or_else(|| value(14, "SENSE DATA LENGTH", header[14]))?.to_vec(),
        };
        Ok((status, behind))
    }
}

/// With AVAILABLE DATA in its first four bytes.
fn counted(mut data: Vec<u8>) -> Vec<u8> {
    let available = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&available.to_be_bytes());
    data
}
