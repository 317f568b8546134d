//! The target's owner as a login sees it: who may come in, what has to be proved, what SendTargets tells.
//!
//! The login knows the order of questions and what a refusal looks like; the answers are the owner's, so that they follow changes
//! while connections wait. Nothing here may block. RFC 7143 (6.3.1), (11.13.5), appendix C.

use std::fmt::Debug;

use super::super::chap::{Nonce, TargetPolicy};
use super::LoginStatus;

/// Who asks to log in, as the first request says. Nothing of it is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// iSCSI name of the initiator.
    pub initiator_name: String,
    /// iSCSI name of the target as it is asked for, or after [`Gate::admit`] as it is served; `None` for a discovery session.
    pub target_name: Option<String>,
    /// Initiator's part of the session's name.
    pub isid: [u8; 6],
    /// Zero for a new session, else the one that the connection wants to join.
    pub tsih: u16,
}

/// What a visitor has to do.
#[derive(Debug, Default)]
pub struct Admission {
    /// The target's name as it is served; `None` for a discovery session.
    pub target_name: Option<String>,
    /// What has to be proved, and the challenge for it, which must not have been used before. `None` asks for nothing.
    pub chap: Option<(TargetPolicy, Nonce)>,
    /// Connections that a session of this visitor may have; what the target wishes for when absent.
    pub max_connections: Option<u16>,
}

/// A target as discovery tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetEntry {
    /// iSCSI name.
    pub name: String,
    /// TargetAddress values: `host:port,portal-group-tag`.
    pub addresses: Vec<String>,
}

/// Decides about logins on one portal.
pub trait Gate: Debug + Send + Sync {
    /// Judges a first request by what it claims.
    ///
    /// # Errors
    /// What the login is refused with, as "target not found" or "authorization failure".
    fn admit(&self, visitor: &Visitor) -> Result<Admission, LoginStatus>;

    /// Judges a visitor again once it has proved to be `user`, or has not been asked to prove anything.
    ///
    /// # Errors
    /// As [`Gate::admit`], and "out of resources".
    fn authorize(&self, visitor: &Visitor, user: Option<&str>) -> Result<(), LoginStatus>;

    /// The targets that an initiator may be told of.
    fn targets(&self, initiator_name: &str) -> Vec<TargetEntry>;
}

/// Everybody may log in to each of these.
impl Gate for Vec<TargetEntry> {
    fn admit(&self, visitor: &Visitor) -> Result<Admission, LoginStatus> {
        let Some(asked) = &visitor.target_name else { return Ok(Admission::default()) };
        let served = self.iter().find(|entry| entry.name.eq_ignore_ascii_case(asked)).ok_or(LoginStatus::NOT_FOUND)?;
        Ok(Admission { target_name: Some(served.name.clone()), ..Admission::default() })
    }

    fn authorize(&self, _: &Visitor, _: Option<&str>) -> Result<(), LoginStatus> {
        Ok(())
    }

    fn targets(&self, _: &str) -> Vec<TargetEntry> {
        self.clone()
    }
}
