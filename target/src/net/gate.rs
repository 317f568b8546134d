//! What the server answers to a login on one of its portals.
//!
//! Looks everything up when it is asked, so that a login meets the configuration as it is then. What is decided is in
//! [`crate::access`]; this brings the server's state and the randomness to it. RFC 7143 (6.3.1), (11.13.5), appendix C.

use std::net::SocketAddr;
use std::sync::Arc;

use protocol::iscsi::TargetEntry;
use protocol::iscsi::chap::{Nonce, TargetPolicy};
use protocol::iscsi::login::{Admission, Gate, LoginStatus, Visitor};
use tracing::debug;

use super::target::Target;
use super::{Portal, Server};

/// The gate of one connection.
#[derive(Debug)]
pub(super) struct PortalGate {
    server: Arc<Server>,
    portal: Portal,
    /// The address of ours that the initiator has found.
    reached: SocketAddr,
}

impl PortalGate {
    pub fn new(server: Arc<Server>, portal: Portal, reached: SocketAddr) -> Self {
        Self { server, portal, reached }
    }

    fn target(&self, name: &str) -> Option<Arc<Target>> {
        self.server.target(name).filter(|target| target.is_in_group(self.portal.tag))
    }
}

impl Gate for PortalGate {
    fn admit(&self, visitor: &Visitor) -> Result<Admission, LoginStatus> {
        let Some(asked) = &visitor.target_name else {
            let chap = challenge(self.server.discovery().authentication.as_ref());
            return Ok(Admission { chap, ..Admission::default() });
        };
        let target = self.target(asked).ok_or(LoginStatus::NOT_FOUND)?;
        let access = target.access();
        access.admit(&visitor.initiator_name)?;
        Ok(Admission {
            target_name: Some(target.name().to_owned()),
            chap: challenge(access.authentication.as_ref()),
            max_connections: access.max_connections,
        })
    }

    fn authorize(&self, visitor: &Visitor, user: Option<&str>) -> Result<(), LoginStatus> {
        let Some(name) = &visitor.target_name else { return Ok(()) };
        // It was there when the login began.
        let target = self.target(name).ok_or(LoginStatus::TARGET_REMOVED)?;
        let access = target.access();
        access.grant(&visitor.initiator_name, user)?;
        if visitor.tsih == 0 {
            let others = target.sessions_beside(&visitor.initiator_name, visitor.isid, self.portal.tag);
            access.has_room(others).inspect_err(|_| debug!(target = target.name(), others, "no room for a session"))?;
        }
        Ok(())
    }

    fn targets(&self, initiator_name: &str) -> Vec<TargetEntry> {
        let all = self.server.discovery().show_all;
        let shown = |target: &Target| all || target.access().admit(initiator_name).is_ok();
        self.server.entries(self.reached, &self.portal, shown)
    }
}

/// A policy with a challenge that nobody has seen.
fn challenge(policy: Option<&TargetPolicy>) -> Option<(TargetPolicy, Nonce)> {
    policy.map(|policy| (policy.clone(), Nonce { identifier: rand::random(), challenge: rand::random() }))
}
