//! A session that goes on in another process: what of it has to travel beside the open connection.
//!
//! Who logged in keeps the secrets; who goes on has none, and can log in nowhere. Numbers and negotiated keys as RFC 7143 (4.2.2),
//! (6.2) and (13) have them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::{ConnectionId, Liveness, Session};
use super::{Initiator, InitiatorConfig};
use crate::iscsi::Parameters;

/// The state of a session in which nothing is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// CID of its connection.
    pub cid: u16,
    /// CmdSN of the next command.
    pub cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// The next initiator task tag.
    pub next_tag: u32,
    /// What the login agreed on.
    pub parameters: Parameters,
}

/// How a session that was taken over watches for a sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// Silence after which the target is pinged.
    pub ping_interval: Duration,
    /// Time for a sign of life after a ping.
    pub ping_timeout: Duration,
}

impl Session<Initiator> {
    /// What another process needs to go on with this session.
    ///
    /// # Errors
    /// The session itself, when it is not logged in or anything is under way in it.
    pub fn hand_over(mut self) -> Result<Handover, Box<Self>> {
        let link = self.links.first();
        let (cid, idle) = (link.id.0, link.transmit.is_empty() && !link.closing);
        let Initiator { logged_in, tasks, texts, .. } = &self.role;
        if !(idle && *logged_in && tasks.is_empty() && texts.is_empty() && self.links.events.is_empty()) {
            return Err(Box::new(self));
        }
        let Initiator { cmd_sn, max_cmd_sn, exp_stat_sn, next_tag, parameters, .. } = self.role;
        Ok(Handover { cid, cmd_sn, max_cmd_sn, exp_stat_sn, next_tag, parameters })
    }

    /// Goes on with a session that another process logged in.
    #[must_use]
    pub fn take_over(handover: &Handover, watch: Watch, now: Instant) -> Self {
        let Handover { cid, cmd_sn, max_cmd_sn, exp_stat_sn, next_tag, parameters } = *handover;
        let role = Initiator {
            config: InitiatorConfig::default(),
            login: None,
            login_deadline: now,
            logged_in: true,
            liveness: Liveness::new(Some(watch.ping_interval), watch.ping_timeout, now),
            parameters,
            cmd_sn,
            max_cmd_sn,
            exp_stat_sn,
            next_tag,
            tasks: HashMap::new(),
            queued: VecDeque::new(),
            texts: HashMap::new(),
            stat_sns_ahead: BTreeSet::new(),
        };
        let mut session = Self::with_role(ConnectionId(cid), (), role);
        session.links.first().set_digests(parameters.digests, parameters.max_recv_data_segment_length);
        session
    }
}
