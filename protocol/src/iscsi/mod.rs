//! iSCSI: PDUs, digests, text keys, login, and the session of both sides.
//!
//! Sans-io. [`Session`] takes received bytes, time and calls in (`handle_*`) and gives bytes to send, events and the next
//! timeout out (`poll_*`, [`Session::transmit`]); the target, the client library and the simulation tests run the same machine.
//! It opens no socket, executes no SCSI command and keeps no more than its limits say.
//!
//! Not served: ErrorRecoveryLevel 2, several connections a session on the initiator's side, markers, authentication other than
//! CHAP.
//!
//! Follows RFC 7143.

pub mod bhs;
pub mod chap;
pub mod digest;
pub mod drive;
pub mod keys;
pub mod login;
pub mod pdu;
pub mod session;
pub mod text;

pub use keys::Parameters;
pub use pdu::{Header, Pdu, Transmit};
pub use session::{
    Arriving, Attribute, Command, Completion, ConnectionId, Data, Initiator, InitiatorConfig, InitiatorEvent, Joining,
    ProtocolError, Reply, Residual, Session, Submission, Target, TargetConfig, TargetEntry, TargetEvent, TaskManagementFunction,
    TaskManagementResponse,
};

/// The IANA port of iSCSI targets.
pub const DEFAULT_PORT: u16 = 3260;

/// Sequence numbers are compared as RFC 1982 says: `a` comes before `b`.
#[must_use]
pub const fn serial_less(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn serial_numbers_wrap() {
        assert!(super::serial_less(u32::MAX, 0));
        assert!(!super::serial_less(0, u32::MAX));
        assert!(!super::serial_less(7, 7));
    }
}
