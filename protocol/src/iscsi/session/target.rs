//! The target's side of a session.
//!
//! Gathers Data-Out until a command is complete and tells it as one event; cuts Data-In, counts residuals and answers. What a
//! command does, and which tasks a task management function hits, is the caller's business. RFC 7143 (4.2), (4.6), (11).

mod requests;
mod tasks;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::bhs::{self, FINAL, NO_TAG, RejectReason};
use super::super::keys::Wishes;
use super::super::login::{Gate, LoggedIn, TargetLogin, TargetNames};
use super::super::pdu::{FrameError, Header, Pdu};
use super::super::{Parameters, serial_less};
use super::transfer::Gathering;
use super::{
    Attribute, ConnectionId, Due, Link, Liveness, ProtocolError, Role, Session, TaskManagementFunction, TaskManagementResponse,
    sealed,
};
use crate::scsi::{Cdb, LunAddress, Status};
use crate::wire::{U16, U32};
use requests::TextExchange;

/// What a target session is made with.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// Who may log in to what on this portal, and what SendTargets tells.
    pub gate: Arc<dyn Gate>,
    /// Portal group of this portal.
    pub portal_group_tag: u16,
    /// TSIH of the session; not zero.
    pub tsih: u16,
    /// What to negotiate for.
    pub wishes: Wishes,
    /// Commands an initiator may have open: the width of the CmdSN window.
    pub queue_depth: u32,
    /// Longest Data-Out of one command, in bytes; a longer one is refused before any of it is asked for.
    pub max_write_length: u32,
    /// Bytes of Data-Out that may be asked for and not yet answered; R2Ts wait while it is used up. At least one command's
    /// worth is always granted.
    pub write_budget: u64,
    /// Time for the whole login.
    pub login_timeout: Duration,
    /// Silence after which the initiator is pinged.
    pub ping_interval: Option<Duration>,
    /// Time for a sign of life after a ping.
    pub ping_timeout: Duration,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            gate: Arc::new(Vec::new()),
            portal_group_tag: 1,
            tsih: 1,
            wishes: Wishes::default(),
            queue_depth: 128,
            max_write_length: 16 * 1024 * 1024,
            write_budget: 64 * 1024 * 1024,
            login_timeout: Duration::from_secs(15),
            ping_interval: Some(Duration::from_secs(30)),
            ping_timeout: Duration::from_secs(30),
        }
    }
}

/// A SCSI command with all its Data-Out.
#[derive(Debug)]
pub struct Command {
    /// Initiator task tag: answer with it.
    pub tag: u32,
    /// Logical unit.
    pub lun: LunAddress,
    /// Task attribute.
    pub attribute: Attribute,
    /// What to do.
    pub cdb: Cdb,
    /// In order, sliced from the receive buffers.
    pub data_out: Vec<Bytes>,
    /// Bytes of Data-In that the initiator has room for.
    pub data_in_limit: u64,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: Status,
    /// Sense data as it goes on the wire; empty for none.
    pub sense: Bytes,
    /// In order; cut to what the initiator has room for.
    pub data_in: Vec<Bytes>,
    /// Bytes that the command would move by its CDB, where that is not what `data_in` holds or what was written.
    pub transfer_length: Option<u64>,
}

/// What a target session tells its caller.
#[derive(Debug)]
pub enum TargetEvent {
    /// The login is done. Nothing has been sent of it yet: the caller may still drop the connection.
    SessionUp(LoggedIn),
    /// A command to carry out and answer by [`Session::respond`].
    Command(Command),
    /// To carry out, and answer by [`Session::respond_task_management`].
    TaskManagement {
        /// Initiator task tag of the request.
        tag: u32,
        /// What to do.
        function: TaskManagementFunction,
        /// Where; of no meaning for the target resets.
        lun: LunAddress,
        /// Referenced task tag; of meaning for ABORT TASK.
        referenced: u32,
    },
    /// The initiator leaves: end its tasks, then [`Session::respond_logout`].
    Logout {
        /// Initiator task tag of the request.
        tag: u32,
    },
}

/// The target's role.
#[derive(Debug)]
pub struct Target {
    config: TargetConfig,
    login: Option<Box<TargetLogin>>,
    login_deadline: Instant,
    liveness: Liveness,
    discovery: bool,
    target_name: Option<String>,
    initiator_name: String,
    parameters: Parameters,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    stat_sn: u32,
    tasks: HashMap<u32, Task>,
    /// Immediate tasks among them: they take no place in the window.
    immediate_tasks: usize,
    open_requests: usize,
    /// Writes that wait for budget before their first R2T, oldest first.
    waiting: VecDeque<u32>,
    reserved: u64,
    next_transfer_tag: u32,
    text: TextExchange,
}

#[derive(Debug)]
struct Task {
    lun: LunAddress,
    attribute: Attribute,
    cdb: Cdb,
    expected: u32,
    read: bool,
    write: bool,
    immediate: bool,
    /// Of the write budget, in bytes.
    reserved: u64,
    state: TaskState,
}

#[derive(Debug)]
enum TaskState {
    Gathering(Gathering),
    /// Told to the caller.
    Running,
}

impl Role for Target {
    type Event = TargetEvent;
}

impl Session<Target> {
    /// A session that waits for its login on a connection.
    #[must_use]
    pub fn accept(connection: ConnectionId, config: TargetConfig, now: Instant) -> Self {
        Self::with_role(connection, Target::new(config, now))
    }

    /// Answers a command. An unknown tag, as of an aborted task, is let pass.
    pub fn respond(&mut self, tag: u32, reply: &Reply) {
        self.role.respond(&mut self.link, tag, reply);
    }

    /// Answers a task management request.
    pub fn respond_task_management(&mut self, tag: u32, response: TaskManagementResponse) {
        let role = &mut self.role;
        role.open_requests = role.open_requests.saturating_sub(1);
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = role.advance_status();
        let header = bhs::TaskManagementResponse {
            flags: FINAL,
            response: response as u8,
            initiator_task_tag: U32::new(tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        self.link.transmit.push(header, &[]);
    }

    /// Answers a logout; the session closes when that is sent.
    pub fn respond_logout(&mut self, tag: u32) {
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.role.advance_status();
        let header = bhs::LogoutResponse {
            flags: FINAL,
            initiator_task_tag: U32::new(tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            time2wait: U16::new(0),
            time2retain: U16::new(0),
            ..Default::default()
        };
        self.link.transmit.push(header, &[]);
        self.link.closing = true;
    }

    /// Forgets the tasks that `hit` picks by tag and logical unit. None of them is ever answered. Gives their tags: those that the
    /// caller was told of may still be running, the others were waiting for their data.
    pub fn abort_tasks(&mut self, hit: impl Fn(u32, LunAddress) -> bool) -> Vec<u32> {
        let role = &mut self.role;
        let doomed: Vec<u32> = role.tasks.iter().filter(|(tag, task)| hit(**tag, task.lun)).map(|(tag, _)| *tag).collect();
        for tag in &doomed {
            role.forget(*tag);
        }
        // A tag may come again before there is room, and must not find a place in line.
        role.waiting.retain(|tag| role.tasks.contains_key(tag));
        role.grant_waiting(&mut self.link);
        doomed
    }

    /// True while a task with this tag is open.
    #[must_use]
    pub fn has_task(&self, tag: u32) -> bool {
        self.role.tasks.contains_key(&tag)
    }

    /// Asks the initiator to log out within some seconds. RFC 7143 (11.9.1), AsyncEvent 1.
    pub fn request_logout(&mut self, within_s: u16) {
        if self.role.login.is_some() {
            return;
        }
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.role.advance_status();
        let header = bhs::AsyncMessage {
            flags: FINAL,
            initiator_task_tag: U32::new(NO_TAG),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            async_event: 1,
            parameter_3: U16::new(within_s),
            ..Default::default()
        };
        self.link.transmit.push(header, &[]);
    }

    /// Ends the session at once: what is queued is still sent.
    pub fn close(&mut self) {
        self.link.closing = true;
    }

    /// What the login agreed on.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.role.parameters
    }
}

impl sealed::Machine for Target {
    fn handle_pdu(&mut self, link: &mut Link<Self>, _now: Instant, pdu: Pdu) -> Result<(), ProtocolError> {
        if let Some(login) = self.login.take() {
            return self.log_in(link, login, &pdu);
        }
        let name = pdu.header.name();
        match pdu.header {
            Header::ScsiCommand(header) => {
                if self.admit(link, &pdu, header.opcode, header.cmd_sn.get())? {
                    self.command(link, &header, pdu);
                }
            }
            Header::DataOut(header) => self.data_out(link, &header, pdu.data),
            Header::NopOut(header) => {
                if self.admit(link, &pdu, header.opcode, header.cmd_sn.get())? {
                    self.nop_out(link, &header, pdu.data);
                }
            }
            Header::TaskManagementRequest(header) => {
                if self.admit(link, &pdu, header.opcode, header.cmd_sn.get())? {
                    self.task_management(link, &header, &pdu);
                }
            }
            Header::TextRequest(header) => {
                if self.admit(link, &pdu, header.opcode, header.cmd_sn.get())? {
                    self.text_request(link, &header, &pdu);
                }
            }
            Header::LogoutRequest(header) => {
                if self.admit(link, &pdu, header.opcode, header.cmd_sn.get())? {
                    self.logout(link, &header, &pdu);
                }
            }
            Header::SnackRequest(_) => self.reject(link, RejectReason::SnackReject, &pdu.header.to_bytes()),
            Header::Unknown(bytes) => self.reject(link, RejectReason::CommandNotSupported, &bytes),
            _ => {
                self.reject(link, RejectReason::ProtocolError, &pdu.header.to_bytes());
                return Err(ProtocolError::Unexpected { pdu: name, when: "in the full feature phase of a target" });
            }
        }
        Ok(())
    }

    fn handle_frame_error(&mut self, link: &mut Link<Self>, error: &FrameError) {
        if let (FrameError::DataDigest { header, .. }, None) = (error, &self.login) {
            self.reject(link, RejectReason::DataDigestError, header);
        }
    }

    fn handle_timeout(&mut self, link: &mut Link<Self>, now: Instant) -> Result<(), ProtocolError> {
        if self.login.is_some() {
            let late = now >= self.login_deadline;
            return if late { Err(ProtocolError::LoginTimeout(self.config.login_timeout)) } else { Ok(()) };
        }
        match self.liveness.due(now) {
            Due::Nothing => Ok(()),
            Due::Dead => Err(ProtocolError::PingTimeout(self.config.ping_timeout)),
            Due::Ping => {
                self.ping(link);
                Ok(())
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.login.is_some() { Some(self.login_deadline) } else { self.liveness.poll_timeout() }
    }

    fn heard(&mut self, now: Instant) {
        self.liveness.heard(now);
    }
}

impl Target {
    fn new(config: TargetConfig, now: Instant) -> Self {
        let names = TargetNames { gate: Arc::clone(&config.gate), portal_group_tag: config.portal_group_tag, tsih: config.tsih };
        let login = TargetLogin::new(names, config.wishes);
        Self {
            parameters: login.parameters(),
            login: Some(Box::new(login)),
            login_deadline: now + config.login_timeout,
            liveness: Liveness::new(config.ping_interval, config.ping_timeout, now),
            discovery: false,
            target_name: None,
            initiator_name: String::new(),
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
            stat_sn: 0,
            tasks: HashMap::new(),
            immediate_tasks: 0,
            open_requests: 0,
            waiting: VecDeque::new(),
            reserved: 0,
            next_transfer_tag: 0,
            text: TextExchange::default(),
            config,
        }
    }

    fn log_in(&mut self, link: &mut Link<Self>, mut login: Box<TargetLogin>, pdu: &Pdu) -> Result<(), ProtocolError> {
        let Header::LoginRequest(request) = pdu.header else {
            // RFC 7143 (6.3.1): anything else before the full feature phase ends the connection.
            return Err(ProtocolError::Unexpected { pdu: pdu.header.name(), when: "before the login is done" });
        };
        if login.is_first() {
            self.exp_cmd_sn = request.cmd_sn.get();
            self.max_cmd_sn = self.exp_cmd_sn.wrapping_add(self.config.queue_depth).wrapping_sub(1);
        }
        let answer = login.handle(&request, &pdu.data);
        let mut header = answer.header;
        (header.stat_sn, header.exp_cmd_sn, header.max_cmd_sn) = self.advance_status();
        link.transmit.push(header, &[answer.text.into()]);
        match answer.outcome? {
            None => self.login = Some(login),
            Some(logged_in) => {
                self.parameters = logged_in.parameters;
                self.discovery = logged_in.target_name.is_none();
                self.target_name = logged_in.target_name.clone();
                self.initiator_name = logged_in.initiator_name.clone();
                link.set_digests(self.parameters.digests, self.parameters.max_recv_data_segment_length);
                link.events.push_back(TargetEvent::SessionUp(logged_in));
            }
        }
        Ok(())
    }

    /// Keeps the order of requests. RFC 7143 (4.2.2.1): what lies outside of the window is ignored in silence.
    fn admit(&mut self, link: &mut Link<Self>, pdu: &Pdu, opcode: u8, cmd_sn: u32) -> Result<bool, ProtocolError> {
        if opcode & bhs::IMMEDIATE != 0 {
            return Ok(true);
        }
        if serial_less(cmd_sn, self.exp_cmd_sn) || serial_less(self.max_cmd_sn, cmd_sn) {
            return Ok(false);
        }
        if cmd_sn != self.exp_cmd_sn {
            self.reject(link, RejectReason::ProtocolError, &pdu.header.to_bytes());
            return Err(ProtocolError::CommandGap { expected: self.exp_cmd_sn, got: cmd_sn });
        }
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        Ok(true)
    }

    /// ExpCmdSN and MaxCmdSN as they are now. The window never shrinks.
    fn window(&mut self) -> (U32, U32) {
        let open = (self.tasks.len() - self.immediate_tasks) as u32;
        let room = self.config.queue_depth.saturating_sub(open);
        let max = self.exp_cmd_sn.wrapping_add(room).wrapping_sub(1);
        if serial_less(self.max_cmd_sn, max) {
            self.max_cmd_sn = max;
        }
        (U32::new(self.exp_cmd_sn), U32::new(self.max_cmd_sn))
    }

    /// StatSN for a PDU that carries status, ExpCmdSN, MaxCmdSN.
    fn advance_status(&mut self) -> (U32, U32, U32) {
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let stat_sn = U32::new(self.stat_sn);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        (stat_sn, exp_cmd_sn, max_cmd_sn)
    }

    fn reject(&mut self, link: &mut Link<Self>, reason: RejectReason, header: &[u8; bhs::LENGTH]) {
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
        let reject = bhs::Reject {
            flags: FINAL,
            reason: reason as u8,
            initiator_task_tag: U32::new(NO_TAG),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        link.transmit.push(reject, &[Bytes::copy_from_slice(header)]);
    }
}
