//! How a case judges: expectation against what came, with bytes.

use bytes::Bytes;
use protocol::scsi::{SenseKey, Status};

use crate::client::{ClientError, Reply};
use crate::report::{hex_dump, sense_line, status_name};

/// `Ok` is a pass.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why a case does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// Expected and got.
    #[error("{0}")]
    Fail(String),
    /// The target says that it does not have what the case is about.
    #[error("{0}")]
    Skip(String),
    /// The session failed on the way.
    #[error("{0}")]
    Client(#[from] ClientError),
}

/// Ends the case as skipped.
pub fn skip<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Skip(reason.into()))
}

/// Ends the case as failed.
pub fn fail<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Fail(reason.into()))
}

/// Fails with the text unless the condition holds.
pub fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { fail(otherwise()) }
}

/// Fails unless both are the same.
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: T, expected: T) -> Outcome {
    ensure(got == expected, || format!("{what}: expected {expected:?}, got {got:?}"))
}

/// Fails unless the bytes are the same; names the first byte that differs.
pub fn equal_bytes(what: &str, got: &[u8], expected: &[u8]) -> Outcome {
    if got == expected {
        return Ok(());
    }
    let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
    let near = |bytes: &[u8]| hex_dump(&bytes[(at & !15).min(bytes.len())..], 2);
    fail(format!(
        "{what}: {} bytes expected, {} came; first difference at byte {at}\nexpected from {:#x}:\n{}got:\n{}",
        expected.len(),
        got.len(),
        at & !15,
        near(expected),
        near(got)
    ))
}

/// What a reply says, for messages.
#[must_use]
pub fn told(reply: &Reply) -> String {
    match (&reply.sense, reply.status) {
        (Some(sense), _) => format!("{} with {}", status_name(reply.status), sense_line(sense)),
        (None, Status::CheckCondition) => {
            format!("CHECK CONDITION with unreadable sense data\n{}", hex_dump(&reply.sense_data, 4))
        }
        (None, status) => status_name(status).to_owned(),
    }
}

/// Fails unless the command ended GOOD; gives its data.
pub fn good(what: &str, reply: Reply) -> Outcome<Bytes> {
    match reply.status {
        Status::Good | Status::ConditionMet => Ok(reply.data),
        _ => fail(format!("{what}: expected GOOD, got {}", told(&reply))),
    }
}

/// Fails unless the command ended CHECK CONDITION with this key and one of these codes.
pub fn refused(what: &str, reply: &Reply, key: SenseKey, codes: &[(u8, u8)]) -> Outcome {
    let fits = reply.status == Status::CheckCondition
        && reply.sense.as_ref().is_some_and(|sense| sense.key == key && (codes.is_empty() || codes.contains(&sense.code)));
    ensure(fits, || {
        let wanted: Vec<_> = codes.iter().map(|(asc, ascq)| format!("{asc:02X}h/{ascq:02X}h")).collect();
        let wanted = if wanted.is_empty() { "any code".to_owned() } else { wanted.join(" or ") };
        format!("{what}: expected CHECK CONDITION with {key:?} {wanted}, got {}", told(reply))
    })
}

/// INVALID COMMAND OPERATION CODE.
pub const INVALID_OPERATION_CODE: (u8, u8) = (0x20, 0x00);
/// LOGICAL BLOCK ADDRESS OUT OF RANGE.
pub const LBA_OUT_OF_RANGE: (u8, u8) = (0x21, 0x00);
/// INVALID FIELD IN CDB.
pub const INVALID_FIELD_IN_CDB: (u8, u8) = (0x24, 0x00);
/// LOGICAL UNIT NOT SUPPORTED.
pub const LOGICAL_UNIT_NOT_SUPPORTED: (u8, u8) = (0x25, 0x00);
/// INVALID FIELD IN PARAMETER LIST.
pub const INVALID_FIELD_IN_PARAMETER_LIST: (u8, u8) = (0x26, 0x00);
/// PARAMETER LIST LENGTH ERROR.
pub const PARAMETER_LIST_LENGTH_ERROR: (u8, u8) = (0x1A, 0x00);

/// ILLEGAL REQUEST with one of these codes.
pub fn illegal_request(what: &str, reply: &Reply, codes: &[(u8, u8)]) -> Outcome {
    refused(what, reply, SenseKey::IllegalRequest, codes)
}

/// Ends the case as skipped when the target does not have the command at all.
pub fn supported(what: &str, reply: Reply) -> Outcome<Reply> {
    match &reply.sense {
        Some(sense) if sense.key == SenseKey::IllegalRequest && sense.code == INVALID_OPERATION_CODE => {
            skip(format!("the target does not have {what}"))
        }
        _ => Ok(reply),
    }
}
