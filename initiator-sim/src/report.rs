//! Facts as text: sense data in words, bytes as hexadecimal, rates and times as people read them.

use protocol::scsi::{Sense, Status};

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

/// One line: `ILLEGAL REQUEST 24h/00h INVALID FIELD IN CDB, at CDB byte 1 bit 3`.
#[must_use]
pub fn sense_line(sense: &Sense) -> String {
    sense.to_string()
}
