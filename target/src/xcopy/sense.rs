//! Faults as sense data. SPC-4, "EXTENDED COPY command errors detected during processing of segment descriptors".

use protocol::mover::{Fault, FaultKind};
use protocol::scsi::sense::{CopyEnd, FieldPointer, ForwardedSense, Sense, SenseKey, StreamFlags};
use protocol::scsi::{SenseFormat, Status};

use crate::task::Response;

/// What sense data of a segment has to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notes {
    /// Byte of the parameter list at which the segment descriptor begins.
    pub segment_at: usize,
    /// Byte of the parameter list at which the source's CSCD descriptor begins, where there is one.
    pub source_at: Option<usize>,
    /// The same for the destination.
    pub destination_at: Option<usize>,
    /// Bytes that one of a residual stands for; absent where the segment has no transfer count.
    pub residual_unit: Option<u64>,
}

impl Notes {
    /// The CSCD descriptor of a side begins at a byte of the parameter list.
    pub const fn name(&mut self, end: CopyEnd, at: usize) {
        match end {
            CopyEnd::Source => self.source_at = Some(at),
            CopyEnd::Destination => self.destination_at = Some(at),
        }
    }

    fn cscd_at(&self, end: CopyEnd) -> Option<usize> {
        match end {
            CopyEnd::Source => self.source_at,
            CopyEnd::Destination => self.destination_at,
        }
    }
}

/// Ends a segment: COPY ABORTED, and which segment it was.
#[must_use]
pub fn abort(segment: u32, sense: Sense) -> Sense {
    sense.with_key(SenseKey::CopyAborted).with_command_specific(u64::from(segment & 0xFFFF))
}

/// Points at a byte of the parameter list, where 16 bits reach it.
#[must_use]
pub fn at_list(sense: Sense, byte: usize) -> Sense {
    match u16::try_from(byte) {
        Ok(byte) => sense.at(FieldPointer::parameter(byte)),
        Err(_) => sense,
    }
}

/// A copy source or destination cannot be had: the pointer names its CSCD descriptor.
#[must_use]
pub fn at_cscd(sense: Sense, notes: &Notes, end: CopyEnd) -> Sense {
    match notes.cscd_at(end) {
        Some(byte) => at_list(sense, byte),
        None => sense,
    }
}

/// A command that the copy manager sent, or would have sent, to a CSCD was refused like this.
#[must_use]
pub fn third_party(segment: u32, notes: &Notes, end: CopyEnd, refused: &Response) -> Sense {
    let sense = refused.sense.as_ref().map(|sense| sense.emit(SenseFormat::Fixed)).unwrap_or_default();
    forwarded(segment, notes, ForwardedSense { end, status: refused.status as u8, sense })
}

/// A CSCD ended a command with this, which is passed on as it came.
#[must_use]
pub fn forwarded(segment: u32, notes: &Notes, forwarded: ForwardedSense) -> Sense {
    let end = forwarded.end;
    at_cscd(abort(segment, Sense::THIRD_PARTY_DEVICE_FAILURE.forwarding(forwarded)), notes, end)
}

/// What a mover met.
#[must_use]
pub fn of_fault(fault: &Fault, notes: &Notes) -> Sense {
    let sense = match (fault.kind, fault.side) {
        (FaultKind::Inexact, _) => abort(fault.segment, Sense::UNEXPECTED_INEXACT_SEGMENT),
        (FaultKind::Null, side) => {
            let sense = abort(fault.segment, Sense::COPY_TARGET_DEVICE_NOT_REACHABLE);
            side.map_or(sense.clone(), |end| at_cscd(sense, notes, end))
        }
        (FaultKind::SessionLost, Some(end)) => at_cscd(abort(fault.segment, Sense::COPY_TARGET_DEVICE_NOT_REACHABLE), notes, end),
        (FaultKind::Underrun, Some(end)) => at_cscd(abort(fault.segment, Sense::COPY_TARGET_DEVICE_DATA_UNDERRUN), notes, end),
        (FaultKind::Remote { status, sense }, Some(end)) => {
            forwarded(fault.segment, notes, ForwardedSense { end, status, sense: sense.as_bytes().to_vec() })
        }
        (kind, Some(end)) => third_party(fault.segment, notes, end, &answer(kind).into()),
        (_, None) => abort(fault.segment, Sense::INTERNAL_TARGET_FAILURE),
    };
    match notes.residual_unit {
        // "If any data has been written to the copy destination for the segment being processed …"
        Some(unit) if fault.written > 0 => sense.with_information(fault.expected.saturating_sub(fault.written) / unit),
        _ => sense,
    }
}

/// What the copy source or destination says of it, as it would to anybody. SSC-4 and SBC-4.
fn answer(kind: FaultKind) -> Sense {
    const FILEMARK: StreamFlags = StreamFlags { filemark: true, end_of_medium: false, incorrect_length: false };
    const END_OF_MEDIUM: StreamFlags = StreamFlags { filemark: false, end_of_medium: true, incorrect_length: false };
    const INCORRECT_LENGTH: StreamFlags = StreamFlags { filemark: false, end_of_medium: false, incorrect_length: true };
    match kind {
        FaultKind::IncorrectLength { residual } => {
            Sense::NO_ADDITIONAL_SENSE_INFORMATION.with_stream(INCORRECT_LENGTH).with_information(residual as u64)
        }
        FaultKind::Filemark { residual } => Sense::FILEMARK_DETECTED.with_stream(FILEMARK).with_information(residual as u64),
        FaultKind::EndOfData { residual: 0 } => Sense::END_OF_DATA_DETECTED,
        FaultKind::EndOfData { residual } => Sense::END_OF_DATA_DETECTED.with_information(residual as u64),
        FaultKind::BeginningOfPartition { residual } => {
            Sense::BEGINNING_OF_PARTITION_MEDIUM_DETECTED.with_stream(END_OF_MEDIUM).with_information(residual as u64)
        }
        FaultKind::EarlyWarning => Sense::END_OF_PARTITION_MEDIUM_DETECTED.with_stream(END_OF_MEDIUM),
        FaultKind::EndOfPartition { residual } => Sense::END_OF_PARTITION_MEDIUM_DETECTED
            .with_key(SenseKey::VolumeOverflow)
            .with_stream(END_OF_MEDIUM)
            .with_information(residual as u64),
        FaultKind::WriteProtected | FaultKind::Refused(libc::EROFS) => Sense::WRITE_PROTECTED,
        FaultKind::Encrypted => Sense::UNABLE_TO_DECRYPT_DATA,
        FaultKind::OutOfRange => Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
        FaultKind::Torn | FaultKind::WrongSum | FaultKind::ViewLost | FaultKind::Read(_) => Sense::UNRECOVERED_READ_ERROR,
        FaultKind::Write(libc::ENOSPC | libc::EDQUOT) => Sense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        FaultKind::Write(_) | FaultKind::Refused(_) => Sense::WRITE_ERROR,
        FaultKind::Inexact
        | FaultKind::Null
        | FaultKind::Remote { .. }
        | FaultKind::Underrun
        | FaultKind::SessionLost
        | FaultKind::BadJob => Sense::INTERNAL_TARGET_FAILURE,
    }
}

/// BUSY, RESERVATION CONFLICT … without sense data.
#[must_use]
pub fn is_busy(response: &Response) -> bool {
    response.status == Status::Busy
}
