//! What can go wrong between a command and its reply, by who is at fault.

use std::io;
use std::time::Duration;

use protocol::iscsi::chap::ChapError;
use protocol::scsi::{Sense, Status};
use protocol::wire::WireError;

use super::{AuthenticationError, TaskManagement};

/// Why a call of the client did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No TCP connection.
    #[error("cannot connect to {portal}: {error}")]
    Connect {
        /// Host and port.
        portal: String,
        /// What the system says.
        error: io::Error,
    },
    /// The target does not take what [`super::Options`] insist on.
    #[error("the target does not agree to {0} as asked for")]
    NotAgreed(&'static str),
    /// What is to be proved cannot be.
    #[error("authentication: {0}")]
    Authentication(#[from] AuthenticationError),
    /// The target did not prove to be who it should, or breaks the rules of CHAP.
    #[error("the target does not authenticate: {0}")]
    Unproved(#[from] ChapError),
    /// The target ended the login. RFC 7143 (11.13.5).
    #[error("{target} refuses the login: {meaning}")]
    Login {
        /// The target's name.
        target: String,
        /// STATUS-CLASS.
        class: u8,
        /// STATUS-DETAIL.
        detail: u8,
        /// The two in words.
        meaning: String,
    },
    /// The target did what the protocol forbids.
    #[error("the target broke the protocol: {0}")]
    Protocol(String),
    /// The connection is gone.
    #[error("the connection to the target is lost: {0}")]
    ConnectionLost(Lost),
    /// Nothing came back in time.
    #[error("{what} had no answer within {after:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The command ended with another status than GOOD.
    #[error("{command}: {}", describe(*status, sense.as_deref()))]
    Status {
        /// The command's name.
        command: &'static str,
        /// SCSI status.
        status: Status,
        /// With CHECK CONDITION.
        sense: Option<Box<Sense>>,
    },
    /// A reply that does not have the form the standard gives it.
    #[error("{command} answered with {error}")]
    Reply {
        /// The command's name.
        command: &'static str,
        /// What is wrong.
        error: WireError,
    },
    /// A task management function was not carried out. RFC 7143 (11.6.1).
    #[error("{function:?} was not carried out: response {response:#04x}")]
    TaskManagement {
        /// What was asked for.
        function: TaskManagement,
        /// The code.
        response: u8,
    },
    /// A CDB without bytes or longer than 32.
    #[error("a CDB has 1 to 32 bytes")]
    BadCommand,
    /// VPD page 83h has no designator of the logical unit that a CSCD descriptor could carry.
    #[error("LUN {lun} has no NAA, EUI-64 or T10 designator of at most 20 bytes: EXTENDED COPY cannot name it")]
    NoDesignator {
        /// Its number.
        lun: u16,
    },
    /// Our own input or output.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How far things had come when the connection went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// What the system or the target said.
    pub reason: String,
    /// The command that was waiting, where there was one, and how much of its data had moved.
    pub during: Option<String>,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        match &self.during {
            Some(during) => write!(f, ", during {during}"),
            None => Ok(()),
        }
    }
}

impl ClientError {
    /// The session had ended before the request.
    pub(super) fn closed() -> Self {
        Self::ConnectionLost(Lost { reason: "the session has ended".into(), during: None })
    }

    /// The sense data, where the command ended with CHECK CONDITION.
    #[must_use]
    pub fn sense(&self) -> Option<&Sense> {
        match self {
            Self::Status { sense, .. } => sense.as_deref(),
            _ => None,
        }
    }

    /// True when the session is over: every further call will fail too.
    #[must_use]
    pub const fn is_connection_lost(&self) -> bool {
        matches!(self, Self::ConnectionLost(_))
    }
}

fn describe(status: Status, sense: Option<&Sense>) -> String {
    match (status, sense) {
        (Status::CheckCondition, Some(sense)) => crate::report::sense_line(sense),
        (status, _) => crate::report::status_name(status).to_owned(),
    }
}
