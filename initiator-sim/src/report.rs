//! Facts as text: sense data in words, bytes as hexadecimal, rates and times as people read them.

use protocol::scsi::{FieldPointer, Sense, SenseKey, Status};

/// The standard's name of a status. SAM-5, "Status codes".
#[must_use]
pub const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Good => "GOOD",
        Status::CheckCondition => "CHECK CONDITION",
        Status::ConditionMet => "CONDITION MET",
        Status::Busy => "BUSY",
        Status::ReservationConflict => "RESERVATION CONFLICT",
        Status::TaskSetFull => "TASK SET FULL",
        Status::AcaActive => "ACA ACTIVE",
        Status::TaskAborted => "TASK ABORTED",
    }
}

/// The standard's name of a sense key. SPC-4, "Sense key and additional sense code definitions".
#[must_use]
pub const fn sense_key_name(key: SenseKey) -> &'static str {
    match key {
        SenseKey::NoSense => "NO SENSE",
        SenseKey::RecoveredError => "RECOVERED ERROR",
        SenseKey::NotReady => "NOT READY",
        SenseKey::MediumError => "MEDIUM ERROR",
        SenseKey::HardwareError => "HARDWARE ERROR",
        SenseKey::IllegalRequest => "ILLEGAL REQUEST",
        SenseKey::UnitAttention => "UNIT ATTENTION",
        SenseKey::DataProtect => "DATA PROTECT",
        SenseKey::BlankCheck => "BLANK CHECK",
        SenseKey::VendorSpecific => "VENDOR SPECIFIC",
        SenseKey::CopyAborted => "COPY ABORTED",
        SenseKey::AbortedCommand => "ABORTED COMMAND",
        SenseKey::VolumeOverflow => "VOLUME OVERFLOW",
        SenseKey::Miscompare => "MISCOMPARE",
        SenseKey::Completed => "COMPLETED",
    }
}

/// One line: `ILLEGAL REQUEST 24h/00h, CDB byte 1 bit 3`.
#[must_use]
pub fn sense_line(sense: &Sense) -> String {
    let mut line = format!("{} {:02X}h/{:02X}h", sense_key_name(sense.key), sense.code.0, sense.code.1);
    for (set, name) in
        [(sense.stream.filemark, ", FILEMARK"), (sense.stream.end_of_medium, ", EOM"), (sense.stream.incorrect_length, ", ILI")]
    {
        line.push_str(if set { name } else { "" });
    }
    if let Some(information) = sense.information {
        line.push_str(&format!(", information {}", information.cast_signed()));
    }
    if let Some(specific) = sense.command_specific {
        line.push_str(&format!(", command-specific information {specific:#x}"));
    }
    if let Some(field) = sense.field {
        let (place, byte, bit) = match field {
            FieldPointer::Cdb { byte, bit } => ("CDB", byte, bit),
            FieldPointer::Parameter { byte, bit } => ("parameter list", byte, bit),
        };
        line.push_str(&format!(", {place} byte {byte}"));
        if let Some(bit) = bit {
            line.push_str(&format!(" bit {bit}"));
        }
    }
    line
}
