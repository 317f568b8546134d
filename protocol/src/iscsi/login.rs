//! The login phase of both sides, from the first login PDU to the full feature phase.
//!
//! What keys mean is in [`super::keys`], what authentication comes to in [`super::chap`]; who may log in is the target's owner's
//! decision, asked for through a [`Gate`].
//!
//! RFC 7143 (6.3), (11.12), (11.13), appendix C.

mod gate;
mod initiator;
mod target;
#[cfg(test)]
mod tests;

pub use gate::{Admission, Gate, TargetEntry, Visitor};
pub use initiator::{InitiatorLogin, InitiatorNames, Progress, Request};
pub use target::{Answer, TargetLogin, TargetNames, is_iscsi_name};

use super::chap::ChapError;
use super::keys::{NegotiationError, Parameters};
use super::text::{Gather, Writer};

/// The only version there is.
const VERSION: u8 = 0x00;
/// Longest data segment of a login PDU, in bytes: the default of MaxRecvDataSegmentLength.
pub const MAX_SEGMENT: u32 = 8192;
/// A login of more exchanges than this is not going anywhere. Each may carry [`MAX_SEGMENT`] bytes.
const MAX_EXCHANGES: u32 = 32;

/// Status-Class and Status-Detail of a login response. RFC 7143 (11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginStatus {
    /// Class: 0 success, 1 redirection, 2 the initiator's fault, 3 the target's.
    pub class: u8,
    /// Detail within the class.
    pub detail: u8,
}

#[allow(missing_docs)]
impl LoginStatus {
    pub const SUCCESS: Self = Self::new(0, 0);
    pub const TARGET_MOVED_TEMPORARILY: Self = Self::new(1, 1);
    pub const TARGET_MOVED_PERMANENTLY: Self = Self::new(1, 2);
    pub const INITIATOR_ERROR: Self = Self::new(2, 0);
    pub const AUTHENTICATION_FAILURE: Self = Self::new(2, 1);
    pub const AUTHORIZATION_FAILURE: Self = Self::new(2, 2);
    pub const NOT_FOUND: Self = Self::new(2, 3);
    pub const TARGET_REMOVED: Self = Self::new(2, 4);
    pub const UNSUPPORTED_VERSION: Self = Self::new(2, 5);
    pub const TOO_MANY_CONNECTIONS: Self = Self::new(2, 6);
    pub const MISSING_PARAMETER: Self = Self::new(2, 7);
    pub const SESSION_TYPE_NOT_SUPPORTED: Self = Self::new(2, 9);
    pub const SESSION_DOES_NOT_EXIST: Self = Self::new(2, 0x0A);
    pub const INVALID_REQUEST_TYPE: Self = Self::new(2, 0x0B);
    pub const TARGET_ERROR: Self = Self::new(3, 0);
    pub const SERVICE_UNAVAILABLE: Self = Self::new(3, 1);
    pub const OUT_OF_RESOURCES: Self = Self::new(3, 2);

    const fn new(class: u8, detail: u8) -> Self {
        Self { class, detail }
    }
}

impl std::fmt::Display for LoginStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let meaning = match *self {
            Self::SUCCESS => "success",
            Self::TARGET_MOVED_TEMPORARILY => "target moved temporarily",
            Self::TARGET_MOVED_PERMANENTLY => "target moved permanently",
            Self::INITIATOR_ERROR => "initiator error",
            Self::AUTHENTICATION_FAILURE => "authentication failure",
            Self::AUTHORIZATION_FAILURE => "authorization failure",
            Self::NOT_FOUND => "target not found",
            Self::TARGET_REMOVED => "target removed",
            Self::UNSUPPORTED_VERSION => "unsupported version",
            Self::TOO_MANY_CONNECTIONS => "too many connections",
            Self::MISSING_PARAMETER => "missing parameter",
            Self::SESSION_TYPE_NOT_SUPPORTED => "session type not supported",
            Self::SESSION_DOES_NOT_EXIST => "session does not exist",
            Self::INVALID_REQUEST_TYPE => "invalid during login",
            Self::TARGET_ERROR => "target error",
            Self::SERVICE_UNAVAILABLE => "service unavailable",
            Self::OUT_OF_RESOURCES => "out of resources",
            _ => "unknown status",
        };
        write!(f, "{meaning} ({:02x}{:02x}h)", self.class, self.detail)
    }
}

/// Why a login ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The target said no, or we did as the target.
    #[error("login refused: {0}")]
    Refused(LoginStatus),
    /// The target is elsewhere.
    #[error("target moved to {address}")]
    Redirected {
        /// TargetAddress as given.
        address: String,
    },
    /// A negotiation that breaks the rules.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// Text that is none, or too long.
    #[error(transparent)]
    Text(#[from] crate::wire::WireError),
    /// Somebody did not prove to be who he says.
    #[error("authentication failed: {0}")]
    Chap(#[from] ChapError),
    /// A login PDU that breaks the rules.
    #[error("{0}")]
    Conduct(&'static str),
}

/// What a finished login is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// iSCSI name of the initiator.
    pub initiator_name: String,
    /// iSCSI name of the target; `None` in a discovery session.
    pub target_name: Option<String>,
    /// Initiator's part of the session's name.
    pub isid: [u8; 6],
    /// Target's part of the session's name.
    pub tsih: u16,
    /// A connection for the session that TSIH names, not a session of its own.
    pub joins: bool,
    /// Connection id.
    pub cid: u16,
    /// CHAP name that the initiator has proved; `None` when it was asked for no proof.
    pub user: Option<String>,
    /// What was agreed.
    pub parameters: Parameters,
}

/// The text of one exchange and what is left of it.
#[derive(Debug, Default)]
struct Exchange {
    incoming: Gather,
    outgoing: Writer,
    count: u32,
}

/// What a refused login is told.
fn status_of(error: &LoginError) -> LoginStatus {
    match error {
        LoginError::Refused(status) => *status,
        LoginError::Chap(_) => LoginStatus::AUTHENTICATION_FAILURE,
        _ => LoginStatus::INITIATOR_ERROR,
    }
}
