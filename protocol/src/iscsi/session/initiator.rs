//! The initiator's side of a session.
//!
//! Queues commands while the target's window is closed, sends immediate and unsolicited data, answers R2Ts, gathers Data-In,
//! and tells each command's end as one event. RFC 7143 (4.2), (4.6), (11).

mod handover;
mod recovery;
mod tasks;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::bhs::{self, FINAL, IMMEDIATE, NO_TAG};
use super::super::chap::InitiatorPolicy;
use super::super::keys::{Key, Wishes};
use super::super::login::{InitiatorLogin, InitiatorNames, LoggedIn, Progress, Request};
use super::super::pdu::{FrameError, Header, Pdu};
use super::super::text::{self, Gather, Writer};
use super::super::{Parameters, serial_less};
use super::{
    Attribute, ConnectionId, Due, Link, Links, Liveness, ProtocolError, Residual, Role, Session, TaskManagementFunction,
    TaskManagementResponse, sealed,
};
use crate::scsi::{Cdb, LunAddress};
use crate::wire::{U16, U32};
pub use handover::{Handover, Watch};
use tasks::{Ended, Task};

/// What an initiator session is made with.
#[derive(Debug, Clone)]
pub struct InitiatorConfig {
    /// iSCSI name of the initiator.
    pub initiator_name: String,
    /// iSCSI name of the target; `None` for a discovery session.
    pub target_name: Option<String>,
    /// Initiator's part of the session's name. Two sessions with the same name and ISID reinstate each other.
    pub isid: [u8; 6],
    /// What it can prove; `None` offers no authentication.
    pub chap: Option<InitiatorPolicy>,
    /// What to negotiate for.
    pub wishes: Wishes,
    /// Time for the whole login.
    pub login_timeout: Duration,
    /// Silence after which the target is pinged.
    pub ping_interval: Option<Duration>,
    /// Time for a sign of life after a ping.
    pub ping_timeout: Duration,
}

impl Default for InitiatorConfig {
    fn default() -> Self {
        Self {
            initiator_name: String::new(),
            target_name: None,
            isid: [0x80, 0, 0, 0, 0, 0],
            chap: None,
            wishes: Wishes::default(),
            login_timeout: Duration::from_secs(15),
            ping_interval: Some(Duration::from_secs(30)),
            ping_timeout: Duration::from_secs(30),
        }
    }
}

/// Data of a command, seen from the initiator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// None expected.
    None,
    /// Room for so many bytes from the target.
    In(u32),
    /// To the target, in order.
    Out(Vec<Bytes>),
}

/// A command to send.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Logical unit.
    pub lun: LunAddress,
    /// What to do.
    pub cdb: Cdb,
    /// Task attribute.
    pub attribute: Attribute,
    /// For immediate delivery, past the window.
    pub immediate: bool,
    /// Its data.
    pub data: Data,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// iSCSI response: 0 when the target completed the command. RFC 7143 (11.4.3).
    pub response: u8,
    /// SCSI status code.
    pub status: u8,
    /// Sense data as it came; empty for none.
    pub sense: Bytes,
    /// Data-In in order.
    pub data_in: Vec<Bytes>,
    /// As the target reports it.
    pub residual: Residual,
}

/// What an initiator session tells its caller.
#[derive(Debug)]
pub enum InitiatorEvent {
    /// The full feature phase has begun.
    LoggedIn(LoggedIn),
    /// A command ended.
    Completed {
        /// Its tag, as [`Session::submit`] gave it.
        tag: u32,
        /// How.
        completion: Completion,
    },
    /// A task management function ended.
    TaskManagement {
        /// Its tag.
        tag: u32,
        /// How.
        response: TaskManagementResponse,
    },
    /// The whole answer to a text request.
    Text {
        /// Its tag.
        tag: u32,
        /// `key=value` pairs, each ended by NUL.
        text: Bytes,
    },
    /// The answer to [`Session::ping`].
    Pong {
        /// Its tag.
        tag: u32,
        /// The bytes sent, as they came back.
        data: Bytes,
    },
    /// The target let us go; the session is closing.
    LoggedOut {
        /// Its tag.
        tag: u32,
        /// RFC 7143 (11.15.1): 0 for success.
        response: u8,
    },
    /// The target tells something unasked. RFC 7143 (11.9).
    Async {
        /// AsyncEvent.
        event: u8,
        /// Parameter1 to Parameter3.
        parameters: [u16; 3],
        /// Sense data, for event 0.
        data: Bytes,
    },
    /// The target rejected a PDU.
    Rejected {
        /// RFC 7143 (11.17.1).
        reason: u8,
        /// The tag in the header it sent back, where that has one.
        tag: Option<u32>,
    },
}

/// The initiator's role.
#[derive(Debug)]
pub struct Initiator {
    config: InitiatorConfig,
    login: Option<Box<InitiatorLogin>>,
    login_deadline: Instant,
    logged_in: bool,
    liveness: Liveness,
    parameters: Parameters,
    cmd_sn: u32,
    max_cmd_sn: u32,
    exp_stat_sn: u32,
    next_tag: u32,
    tasks: HashMap<u32, Task>,
    /// Tags that wait for the window to open, oldest first.
    queued: VecDeque<u32>,
    texts: HashMap<u32, TextCall>,
    /// StatSNs that came though one before them is missing.
    stat_sns_ahead: BTreeSet<u32>,
}

#[derive(Debug, Default)]
struct TextCall {
    gathered: Gather,
}

impl Role for Initiator {
    type Event = InitiatorEvent;
}

impl Session<Initiator> {
    /// A session whose first login request is ready to send.
    #[must_use]
    pub fn connect(connection: ConnectionId, config: InitiatorConfig, now: Instant) -> Self {
        let names = InitiatorNames {
            initiator: config.initiator_name.clone(),
            target: config.target_name.clone(),
            isid: config.isid,
            cid: connection.0,
            chap: config.chap.clone(),
        };
        let (login, request) = InitiatorLogin::new(names, config.wishes);
        let role = Initiator {
            parameters: login.parameters(),
            login: Some(Box::new(login)),
            login_deadline: now + config.login_timeout,
            logged_in: false,
            liveness: Liveness::new(config.ping_interval, config.ping_timeout, now),
            cmd_sn: 1,
            max_cmd_sn: 1,
            exp_stat_sn: 0,
            next_tag: 1,
            tasks: HashMap::new(),
            queued: VecDeque::new(),
            texts: HashMap::new(),
            stat_sns_ahead: BTreeSet::new(),
            config,
        };
        let mut session = Self::with_role(connection, (), role);
        session.role.send_login(&mut session.links, request);
        session
    }

    /// Queues a command; its end is an event. Sent as soon as the login is done and the target's window has room.
    pub fn submit(&mut self, submission: Submission) -> u32 {
        let tag = self.role.new_tag();
        let immediate = submission.immediate && self.role.logged_in;
        self.role.tasks.insert(tag, Task::new(submission));
        if immediate {
            self.role.send_command(&mut self.links, tag);
        } else {
            self.role.queued.push_back(tag);
            self.role.send_queued(&mut self.links);
        }
        tag
    }

    /// Forgets a command: what still comes for it is let pass. For commands that a task management function has ended.
    pub fn forget(&mut self, tag: u32) {
        self.role.tasks.remove(&tag);
    }

    /// Sends a task management request for immediate delivery; `referenced` is the tag for ABORT TASK.
    pub fn task_management(&mut self, function: TaskManagementFunction, lun: LunAddress, referenced: Option<u32>) -> u32 {
        let tag = self.role.new_tag();
        // For a task that is not there (any more) it means nothing.
        let task = referenced.and_then(|tag| self.role.tasks.get(&tag)).filter(|task| !task.submission.immediate);
        let ref_cmd_sn = task.map_or(self.role.cmd_sn, |task| task.cmd_sn);
        let header = bhs::TaskManagementRequest {
            opcode: IMMEDIATE,
            flags: FINAL | function as u8,
            lun: lun.0,
            initiator_task_tag: U32::new(tag),
            referenced_task_tag: U32::new(referenced.unwrap_or(NO_TAG)),
            cmd_sn: U32::new(self.role.cmd_sn),
            exp_stat_sn: U32::new(self.role.exp_stat_sn),
            ref_cmd_sn: U32::new(ref_cmd_sn),
            ..Default::default()
        };
        self.links.first().transmit.push(header, &[]);
        tag
    }

    /// Asks for targets: `All` in a discovery session, nothing for the session's own target. The answer is
    /// [`InitiatorEvent::Text`].
    pub fn send_targets(&mut self, which: &str) -> u32 {
        let mut writer = Writer::default();
        writer.pair(Key::SendTargets.spec().name, which);
        let (text, _) = writer.take(usize::MAX);
        let tag = self.role.new_tag();
        self.role.texts.insert(tag, TextCall::default());
        self.role.send_text(&mut self.links, tag, NO_TAG, text.into());
        tag
    }

    /// Sends a NOP-Out that wants an answer, with some bytes to be echoed.
    pub fn ping(&mut self, data: Bytes) -> u32 {
        let tag = self.role.new_tag();
        self.role.send_nop(&mut self.links, tag, NO_TAG, [0; 8], data);
        tag
    }

    /// Leaves: closes the session.
    pub fn logout(&mut self) -> u32 {
        let tag = self.role.new_tag();
        let header = bhs::LogoutRequest {
            opcode: IMMEDIATE,
            flags: FINAL,
            initiator_task_tag: U32::new(tag),
            cid: U16::new(self.links.first().id.0),
            cmd_sn: U32::new(self.role.cmd_sn),
            exp_stat_sn: U32::new(self.role.exp_stat_sn),
            ..Default::default()
        };
        self.links.first().transmit.push(header, &[]);
        tag
    }

    /// Commands queued or under way.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.role.tasks.len()
    }

    /// What the login agreed on.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.role.parameters
    }
}

impl sealed::Machine for Initiator {
    type Lane = ();

    fn handle_pdu(&mut self, links: &mut Links<Self>, _on: ConnectionId, _now: Instant, pdu: Pdu) -> Result<(), ProtocolError> {
        if let Some(login) = self.login.take() {
            return self.log_in(links, login, &pdu);
        }
        let name = pdu.header.name();
        match pdu.header {
            Header::DataIn(header) => self.data_in(links, &header, pdu.data)?,
            Header::ScsiResponse(header) => self.scsi_response(links, &header, &pdu.data)?,
            Header::R2t(header) => self.r2t(links, &header)?,
            Header::NopIn(header) => self.nop_in(links, &header, pdu.data),
            Header::TaskManagementResponse(header) => {
                self.took_status(links, header.stat_sn, header.max_cmd_sn);
                let response = TaskManagementResponse::from_code(header.response);
                links.event(InitiatorEvent::TaskManagement { tag: header.initiator_task_tag.get(), response });
            }
            Header::TextResponse(header) => self.text_response(links, &header, &pdu.data)?,
            Header::LogoutResponse(header) => {
                self.took_status(links, header.stat_sn, header.max_cmd_sn);
                let (tag, response) = (header.initiator_task_tag.get(), header.response);
                links.event(InitiatorEvent::LoggedOut { tag, response });
                links.first().closing = true;
            }
            Header::AsyncMessage(header) => {
                self.took_status(links, header.stat_sn, header.max_cmd_sn);
                let parameters = [header.parameter_1, header.parameter_2, header.parameter_3].map(U16::get);
                links.event(InitiatorEvent::Async { event: header.async_event, parameters, data: pdu.data });
            }
            Header::Reject(header) => {
                self.took_status(links, header.stat_sn, header.max_cmd_sn);
                links.event(InitiatorEvent::Rejected { reason: header.reason, tag: rejected_tag(&pdu.data) });
            }
            _ => return Err(ProtocolError::Unexpected { pdu: name, when: "in the full feature phase of an initiator" }),
        }
        self.send_queued(links);
        Ok(())
    }

    fn handle_frame_error(&mut self, links: &mut Links<Self>, _on: ConnectionId, error: FrameError) -> Result<(), ProtocolError> {
        match &error {
            FrameError::DataDigest { header, .. } if self.recovers() => {
                self.ask_for_lost(links, &Header::parse(header));
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    fn handle_timeout(&mut self, links: &mut Links<Self>, _on: ConnectionId, now: Instant) -> Result<(), ProtocolError> {
        if !self.logged_in {
            let late = now >= self.login_deadline;
            return if late { Err(ProtocolError::LoginTimeout(self.config.login_timeout)) } else { Ok(()) };
        }
        match self.liveness.due(now) {
            Due::Nothing => Ok(()),
            Due::Dead => Err(ProtocolError::PingTimeout(self.config.ping_timeout)),
            Due::Ping => {
                let tag = self.new_tag();
                self.send_nop(links, tag, NO_TAG, [0; 8], Bytes::new());
                Ok(())
            }
        }
    }

    fn poll_timeout(&self, _link: &Link<Self>) -> Option<Instant> {
        if self.logged_in { self.liveness.poll_timeout() } else { Some(self.login_deadline) }
    }

    fn heard(&mut self, _link: &mut Link<Self>, now: Instant) {
        self.liveness.heard(now);
    }
}

impl Initiator {
    fn new_tag(&mut self) -> u32 {
        // A tag comes round again after 2^32 others; one still open then is stepped over.
        loop {
            let tag = self.next_tag;
            self.next_tag = self.next_tag.wrapping_add(1);
            if tag != NO_TAG && !self.tasks.contains_key(&tag) {
                return tag;
            }
        }
    }

    fn log_in(&mut self, links: &mut Links<Self>, mut login: Box<InitiatorLogin>, pdu: &Pdu) -> Result<(), ProtocolError> {
        let Header::LoginResponse(response) = pdu.header else {
            return Err(ProtocolError::Unexpected { pdu: pdu.header.name(), when: "before the login is done" });
        };
        self.exp_stat_sn = response.stat_sn.get().wrapping_add(1);
        match login.handle(&response, &pdu.data)? {
            Progress::Send(request) => {
                self.login = Some(login);
                self.send_login(links, request);
            }
            Progress::Done(logged_in) => {
                self.parameters = logged_in.parameters;
                self.cmd_sn = response.exp_cmd_sn.get();
                self.max_cmd_sn = response.max_cmd_sn.get();
                self.logged_in = true;
                links.first().set_digests(self.parameters.digests, self.parameters.max_recv_data_segment_length);
                links.event(InitiatorEvent::LoggedIn(logged_in));
                self.send_queued(links);
            }
        }
        Ok(())
    }

    fn send_login(&mut self, links: &mut Links<Self>, request: Request) {
        let mut header = request.header;
        header.cmd_sn = U32::new(self.cmd_sn);
        header.exp_stat_sn = U32::new(self.exp_stat_sn);
        links.first().transmit.push(header, &[request.text.into()]);
    }

    fn took_status(&mut self, links: &mut Links<Self>, stat_sn: U32, max_cmd_sn: U32) {
        self.took_window(max_cmd_sn);
        if self.recovers() {
            return self.took_stat_sn(links, stat_sn.get());
        }
        if !serial_less(stat_sn.get(), self.exp_stat_sn) {
            self.exp_stat_sn = stat_sn.get().wrapping_add(1);
        }
    }

    fn took_window(&mut self, max_cmd_sn: U32) {
        if serial_less(self.max_cmd_sn, max_cmd_sn.get()) {
            self.max_cmd_sn = max_cmd_sn.get();
        }
    }

    fn nop_in(&mut self, links: &mut Links<Self>, header: &bhs::NopIn, data: Bytes) {
        let (tag, transfer_tag) = (header.initiator_task_tag.get(), header.target_transfer_tag.get());
        if tag != NO_TAG {
            self.took_status(links, header.stat_sn, header.max_cmd_sn);
            return links.event(InitiatorEvent::Pong { tag, data });
        }
        self.took_window(header.max_cmd_sn);
        if transfer_tag != NO_TAG {
            self.send_nop(links, NO_TAG, transfer_tag, header.lun, Bytes::new());
        }
    }

    fn send_nop(&mut self, links: &mut Links<Self>, tag: u32, transfer_tag: u32, lun: [u8; 8], data: Bytes) {
        let header = bhs::NopOut {
            opcode: IMMEDIATE,
            flags: FINAL,
            lun,
            initiator_task_tag: U32::new(tag),
            target_transfer_tag: U32::new(transfer_tag),
            cmd_sn: U32::new(self.cmd_sn),
            exp_stat_sn: U32::new(self.exp_stat_sn),
            ..Default::default()
        };
        let room = data.len().min(self.parameters.max_send_data_segment_length as usize);
        links.first().transmit.push(header, &[data.slice(..room)]);
    }

    fn send_text(&mut self, links: &mut Links<Self>, tag: u32, transfer_tag: u32, text: Bytes) {
        let header = bhs::TextRequest {
            opcode: IMMEDIATE,
            flags: FINAL,
            initiator_task_tag: U32::new(tag),
            target_transfer_tag: U32::new(transfer_tag),
            cmd_sn: U32::new(self.cmd_sn),
            exp_stat_sn: U32::new(self.exp_stat_sn),
            ..Default::default()
        };
        links.first().transmit.push(header, &[text]);
    }

    fn text_response(&mut self, links: &mut Links<Self>, header: &bhs::TextResponse, data: &[u8]) -> Result<(), ProtocolError> {
        self.took_status(links, header.stat_sn, header.max_cmd_sn);
        let tag = header.initiator_task_tag.get();
        let Some(call) = self.texts.get_mut(&tag) else { return Ok(()) };
        let is_final = header.flags & FINAL != 0;
        let malformed = |_| ProtocolError::Unexpected { pdu: "TextResponse", when: "with text that is none or too long" };
        if let Some(text) = call.gathered.add(data, !is_final).map_err(malformed)? {
            text::parse(&text).map_err(malformed)?;
            self.texts.remove(&tag);
            links.event(InitiatorEvent::Text { tag, text: text.into() });
        } else {
            self.send_text(links, tag, header.target_transfer_tag.get(), Bytes::new());
        }
        Ok(())
    }
}

/// The initiator task tag in a header that was sent back.
fn rejected_tag(header: &[u8]) -> Option<u32> {
    let tag = u32::from_be_bytes(*header.get(16..)?.first_chunk()?);
    (tag != NO_TAG).then_some(tag)
}
