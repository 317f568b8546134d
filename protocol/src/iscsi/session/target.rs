//! The target's side of a session.
//!
//! Gathers Data-Out until a command is complete and tells it as one event; cuts Data-In, counts residuals and answers. What a
//! command does, and which tasks a task management function hits, is the caller's business. RFC 7143 (4.2), (4.6), (11).

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::bhs::{self, FINAL, NO_TAG, RejectReason};
use super::super::keys::{Key, Wishes};
use super::super::login::{LoggedIn, TargetLogin, TargetNames};
use super::super::pdu::{FrameError, Header, Pdu};
use super::super::text::{self, Gather, Writer};
use super::super::{Parameters, serial_less};
use super::transfer::{DataOutError, Gathering, Pieces};
use super::{
    Attribute, ConnectionId, Due, Link, Liveness, ProtocolError, Residual, Role, Session, TaskManagementFunction,
    TaskManagementResponse, sealed,
};
use crate::scsi::{Cdb, LunAddress, SenseKey, Status};
use crate::wire::{U16, U32};

/// Requests other than commands that may wait for the caller's answer: more than an initiator ever has open.
const MAX_OPEN_REQUESTS: usize = 64;

/// What a target session is made with.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// Targets on this portal, for the login and for SendTargets.
    pub targets: Vec<TargetEntry>,
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
            targets: Vec::new(),
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

/// A target as discovery tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetEntry {
    /// iSCSI name.
    pub name: String,
    /// TargetAddress values: `host:port,portal-group-tag`.
    pub addresses: Vec<String>,
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

/// A text request being gathered or answered; one at a time. RFC 7143 (11.10).
#[derive(Debug, Default)]
struct TextExchange {
    tag: u32,
    incoming: Gather,
    outgoing: Writer,
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

    /// Forgets the tasks that `hit` picks by tag and logical unit. None of them is ever answered. Gives the tags of those that
    /// the caller was told of: they may still be running.
    pub fn abort_tasks(&mut self, hit: impl Fn(u32, LunAddress) -> bool) -> Vec<u32> {
        let role = &mut self.role;
        let doomed: Vec<u32> = role.tasks.iter().filter(|(tag, task)| hit(**tag, task.lun)).map(|(tag, _)| *tag).collect();
        let running = doomed.iter().copied().filter(|tag| matches!(role.tasks[tag].state, TaskState::Running)).collect();
        for tag in doomed {
            role.forget(tag);
        }
        role.grant_waiting(&mut self.link);
        running
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
        let names = TargetNames {
            targets: config.targets.iter().map(|target| target.name.clone()).collect(),
            portal_group_tag: config.portal_group_tag,
            tsih: config.tsih,
        };
        let login = TargetLogin::new(names, config.wishes);
        Self {
            parameters: login.parameters(),
            login: Some(Box::new(login)),
            login_deadline: now + config.login_timeout,
            liveness: Liveness::new(config.ping_interval, config.ping_timeout, now),
            discovery: false,
            target_name: None,
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

    fn command(&mut self, link: &mut Link<Self>, header: &bhs::ScsiCommand, pdu: Pdu) {
        let tag = header.initiator_task_tag.get();
        let immediate = header.opcode & bhs::IMMEDIATE != 0;
        let refusal = if tag == NO_TAG || self.discovery {
            Some(RejectReason::InvalidPduField)
        } else if self.tasks.contains_key(&tag) {
            Some(RejectReason::TaskInProgress)
        } else if immediate && self.immediate_tasks >= self.config.queue_depth as usize {
            Some(RejectReason::TooManyImmediateCommands)
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.reject(link, reason, &pdu.header.to_bytes());
        }

        let mut task = Task {
            lun: LunAddress(header.lun),
            attribute: Attribute::from_code(header.flags).unwrap_or_default(),
            cdb: Cdb::new(&header.cdb).expect("16 bytes fit"),
            expected: header.expected_data_transfer_length.get(),
            read: header.flags & bhs::READ != 0,
            write: header.flags & bhs::WRITE != 0,
            immediate,
            reserved: 0,
            state: TaskState::Running,
        };
        self.immediate_tasks += usize::from(immediate);
        let gathering = self.begin(&mut task, &pdu, header.flags & FINAL != 0);
        self.tasks.insert(tag, task);
        match gathering {
            Ok(gathering) => self.tasks.get_mut(&tag).expect("just put there").state = TaskState::Gathering(gathering),
            Err((key, code)) => return self.fail(link, tag, key, code),
        }
        self.advance_task(link, tag);
    }

    /// Checks a command, and starts to gather its data.
    fn begin(&self, task: &mut Task, pdu: &Pdu, is_final: bool) -> Result<Gathering, Condition> {
        if task.read && task.write {
            // A bidirectional command; no device type here has one.
            return Err(INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
        }
        if !pdu.ahs.is_empty() {
            task.cdb = extended_cdb(&task.cdb, &pdu.ahs).ok_or(INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)?;
        }
        let expected = if task.write { task.expected } else { 0 };
        if expected > self.config.max_write_length {
            return Err(INVALID_FIELD_IN_CDB);
        }
        // A target that sends nothing unsolicited still sees F=0 from some initiators on commands without data.
        let is_final = is_final || !task.write;
        Gathering::new(expected, pdu.data.clone(), is_final, &self.parameters).map_err(condition)
    }

    /// Tells a complete command, or asks for what it lacks.
    fn advance_task(&mut self, link: &mut Link<Self>, tag: u32) {
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        let TaskState::Gathering(gathering) = &mut task.state else { return };
        if gathering.is_complete() {
            let TaskState::Gathering(gathering) = mem::replace(&mut task.state, TaskState::Running) else { return };
            let data_in_limit = if task.read { u64::from(task.expected) } else { 0 };
            link.events.push_back(TargetEvent::Command(Command {
                tag,
                lun: task.lun,
                attribute: task.attribute,
                cdb: task.cdb,
                data_out: gathering.into_parts(),
                data_in_limit,
            }));
            return;
        }
        if gathering.to_ask() == 0 {
            return;
        }
        if task.reserved == 0 {
            let wanted = u64::from(gathering.to_ask());
            if self.reserved > 0 && self.reserved + wanted > self.config.write_budget {
                if !self.waiting.contains(&tag) {
                    self.waiting.push_back(tag);
                }
                return;
            }
            task.reserved = wanted;
            self.reserved += wanted;
        }
        self.ask(link, tag);
    }

    /// Sends as many R2Ts of a write as may be outstanding.
    fn ask(&mut self, link: &mut Link<Self>, tag: u32) {
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let Some(task) = self.tasks.get_mut(&tag) else { return };
        let TaskState::Gathering(gathering) = &mut task.state else { return };
        while let Some(r2t) = gathering.next_r2t(self.next_transfer_tag, &self.parameters) {
            self.next_transfer_tag = (self.next_transfer_tag + 1) % NO_TAG;
            let header = bhs::R2t {
                flags: FINAL,
                lun: task.lun.0,
                initiator_task_tag: U32::new(tag),
                target_transfer_tag: U32::new(r2t.target_transfer_tag),
                stat_sn: U32::new(self.stat_sn),
                exp_cmd_sn,
                max_cmd_sn,
                r2t_sn: U32::new(r2t.r2t_sn),
                buffer_offset: U32::new(r2t.offset),
                desired_data_transfer_length: U32::new(r2t.length),
                ..Default::default()
            };
            link.transmit.push(header, &[]);
        }
    }

    fn data_out(&mut self, link: &mut Link<Self>, header: &bhs::DataOut, data: Bytes) {
        let tag = header.initiator_task_tag.get();
        // Data of a task that was aborted or refused is still on its way: it is let pass.
        let Some(Task { state: TaskState::Gathering(gathering), .. }) = self.tasks.get_mut(&tag) else { return };
        let transfer_tag = header.target_transfer_tag.get();
        let (data_sn, offset, is_final) = (header.data_sn.get(), header.buffer_offset.get(), header.flags & FINAL != 0);
        let taken = if transfer_tag == NO_TAG {
            gathering.unsolicited(data_sn, offset, data, is_final)
        } else {
            gathering.solicited(transfer_tag, data_sn, offset, data, is_final)
        };
        match taken {
            Ok(()) => self.advance_task(link, tag),
            Err(error) => {
                let (key, code) = condition(error);
                self.fail(link, tag, key, code);
            }
        }
    }

    /// Ends a task that never reached its device.
    fn fail(&mut self, link: &mut Link<Self>, tag: u32, key: SenseKey, (asc, ascq): (u8, u8)) {
        let sense = [0x70, 0, key as u8, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0];
        let reply = Reply {
            status: Status::CheckCondition,
            sense: Bytes::copy_from_slice(&sense),
            data_in: Vec::new(),
            transfer_length: None,
        };
        self.respond(link, tag, &reply);
    }

    fn forget(&mut self, tag: u32) -> Option<Task> {
        let task = self.tasks.remove(&tag)?;
        self.immediate_tasks -= usize::from(task.immediate);
        self.reserved -= task.reserved;
        Some(task)
    }

    fn grant_waiting(&mut self, link: &mut Link<Self>) {
        while let Some(tag) = self.waiting.pop_front() {
            self.advance_task(link, tag);
            if self.waiting.back() == Some(&tag) {
                // No room yet: it stays the first in line.
                self.waiting.rotate_right(1);
                return;
            }
        }
    }

    fn respond(&mut self, link: &mut Link<Self>, tag: u32, reply: &Reply) {
        let Some(task) = self.forget(tag) else { return };
        let available: u64 = reply.data_in.iter().map(|part| part.len() as u64).sum();
        let actual = reply.transfer_length.unwrap_or(if task.write { u64::from(task.expected) } else { available });
        let residual = residual(task.expected, actual);
        let send = if task.read { available.min(u64::from(task.expected)) as u32 } else { 0 };
        let collapse = send > 0 && reply.status == Status::Good && reply.sense.is_empty();

        let pieces =
            Pieces::new(&reply.data_in, 0, send, self.parameters.max_send_data_segment_length, self.parameters.max_burst_length);
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let mut data_sn = 0;
        for piece in pieces {
            let last = piece.is_final && piece.offset as usize + length(&piece.data) == send as usize;
            let mut header = bhs::DataIn {
                flags: if piece.is_final { FINAL } else { 0 },
                lun: task.lun.0,
                initiator_task_tag: U32::new(tag),
                target_transfer_tag: U32::new(NO_TAG),
                exp_cmd_sn,
                max_cmd_sn,
                data_sn: U32::new(data_sn),
                buffer_offset: U32::new(piece.offset),
                ..Default::default()
            };
            if last && collapse {
                let (bits, count) = residual_bits(residual);
                header.flags |= bhs::STATUS | bits;
                header.status = reply.status as u8;
                header.residual_count = count;
                (header.stat_sn, ..) = self.advance_status();
            }
            link.transmit.push(header, &piece.data);
            data_sn += 1;
        }
        if !collapse {
            self.send_status(link, tag, reply, residual, data_sn);
        }
        self.grant_waiting(link);
    }

    fn send_status(&mut self, link: &mut Link<Self>, tag: u32, reply: &Reply, residual: Residual, data_sn: u32) {
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
        let (bits, residual_count) = residual_bits(residual);
        let header = bhs::ScsiResponse {
            flags: FINAL | bits,
            status: reply.status as u8,
            initiator_task_tag: U32::new(tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            exp_data_sn: U32::new(data_sn),
            residual_count,
            ..Default::default()
        };
        if reply.sense.is_empty() {
            return link.transmit.push(header, &[]);
        }
        let sense_length = Bytes::copy_from_slice(&(reply.sense.len() as u16).to_be_bytes());
        link.transmit.push(header, &[sense_length, reply.sense.clone()]);
    }

    fn nop_out(&mut self, link: &mut Link<Self>, header: &bhs::NopOut, ping: Bytes) {
        if header.initiator_task_tag.get() == NO_TAG {
            // The answer to a ping of ours: that it came is all it says.
            return;
        }
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
        let answer = bhs::NopIn {
            flags: FINAL,
            lun: header.lun,
            initiator_task_tag: header.initiator_task_tag,
            target_transfer_tag: U32::new(NO_TAG),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        let room = ping.len().min(self.parameters.max_send_data_segment_length as usize);
        link.transmit.push(answer, &[ping.slice(..room)]);
    }

    fn ping(&mut self, link: &mut Link<Self>) {
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        let header = bhs::NopIn {
            flags: FINAL,
            initiator_task_tag: U32::new(NO_TAG),
            target_transfer_tag: U32::new(self.next_transfer_tag),
            stat_sn: U32::new(self.stat_sn),
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        self.next_transfer_tag = (self.next_transfer_tag + 1) % NO_TAG;
        link.transmit.push(header, &[]);
    }

    fn task_management(&mut self, link: &mut Link<Self>, header: &bhs::TaskManagementRequest, pdu: &Pdu) {
        if self.open_requests >= MAX_OPEN_REQUESTS {
            return self.reject(link, RejectReason::TooManyImmediateCommands, &pdu.header.to_bytes());
        }
        let Some(function) = TaskManagementFunction::from_code(header.flags) else {
            return self.reject(link, RejectReason::InvalidPduField, &pdu.header.to_bytes());
        };
        self.open_requests += 1;
        link.events.push_back(TargetEvent::TaskManagement {
            tag: header.initiator_task_tag.get(),
            function,
            lun: LunAddress(header.lun),
            referenced: header.referenced_task_tag.get(),
        });
    }

    fn logout(&mut self, link: &mut Link<Self>, header: &bhs::LogoutRequest, pdu: &Pdu) {
        const CLOSE_CONNECTION: u8 = 1;
        const REMOVE_FOR_RECOVERY: u8 = 2;
        const CID_NOT_FOUND: u8 = 1;
        const RECOVERY_NOT_SUPPORTED: u8 = 2;
        let reason = header.flags & 0x7F;
        let refusal = match reason {
            0 => None,
            CLOSE_CONNECTION if header.cid.get() == link.connection.0 => None,
            CLOSE_CONNECTION => Some(CID_NOT_FOUND),
            REMOVE_FOR_RECOVERY => Some(RECOVERY_NOT_SUPPORTED),
            _ => return self.reject(link, RejectReason::InvalidPduField, &pdu.header.to_bytes()),
        };
        let Some(response) = refusal else {
            return link.events.push_back(TargetEvent::Logout { tag: header.initiator_task_tag.get() });
        };
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
        let answer = bhs::LogoutResponse {
            flags: FINAL,
            response,
            initiator_task_tag: header.initiator_task_tag,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        link.transmit.push(answer, &[]);
    }

    fn text_request(&mut self, link: &mut Link<Self>, header: &bhs::TextRequest, pdu: &Pdu) {
        let tag = header.initiator_task_tag.get();
        if header.target_transfer_tag.get() == NO_TAG {
            self.text = TextExchange { tag, ..Default::default() };
        } else if self.text.tag != tag {
            return self.reject(link, RejectReason::InvalidPduField, &pdu.header.to_bytes());
        }
        let more = header.flags & bhs::CONTINUE != 0;
        let whole = match self.text.incoming.add(&pdu.data, more) {
            Ok(whole) => whole,
            Err(_) => return self.reject(link, RejectReason::LongOperationReject, &pdu.header.to_bytes()),
        };
        if let Some(text) = whole
            && self.answer_text(&text).is_err()
        {
            return self.reject(link, RejectReason::ProtocolError, &pdu.header.to_bytes());
        }
        let (piece, continues) = if more {
            (Vec::new(), false)
        } else {
            self.text.outgoing.take(self.parameters.max_send_data_segment_length as usize)
        };
        let done = !more && !continues && header.flags & FINAL != 0;
        let flags = match (done, continues) {
            (true, _) => FINAL,
            (false, true) => bhs::CONTINUE,
            (false, false) => 0,
        };
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status();
        let answer = bhs::TextResponse {
            flags,
            lun: header.lun,
            initiator_task_tag: header.initiator_task_tag,
            target_transfer_tag: U32::new(if done { NO_TAG } else { 0 }),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        link.transmit.push(answer, &[piece.into()]);
    }

    /// The keys of the full feature phase. RFC 7143, appendix C for SendTargets.
    fn answer_text(&mut self, text: &[u8]) -> Result<(), crate::wire::WireError> {
        let max_recv = Key::MaxRecvDataSegmentLength.spec();
        for pair in text::parse(text)? {
            if pair.key == Key::SendTargets.spec().name {
                self.send_targets(pair.value);
            } else if pair.key == max_recv.name {
                match max_recv.parse(pair.value) {
                    Some(length) => self.parameters.max_send_data_segment_length = length,
                    None => self.text.outgoing.pair(pair.key, "Reject"),
                }
            } else {
                let known = Key::by_name(pair.key).is_some();
                self.text.outgoing.pair(pair.key, if known { "Reject" } else { "NotUnderstood" });
            }
        }
        Ok(())
    }

    /// `All` is for discovery sessions; a normal one asks for its own target, by name or by nothing.
    fn send_targets(&mut self, value: &str) {
        let own = self.target_name.as_deref();
        let wanted = |entry: &TargetEntry| match value {
            "All" => self.discovery,
            "" => own == Some(entry.name.as_str()),
            name => entry.name.eq_ignore_ascii_case(name) && (self.discovery || own == Some(entry.name.as_str())),
        };
        let refused = value == "All" && !self.discovery || value.is_empty() && self.discovery;
        if refused {
            return self.text.outgoing.pair(Key::SendTargets.spec().name, "Reject");
        }
        for entry in self.config.targets.iter().filter(|entry| wanted(entry)) {
            self.text.outgoing.pair(Key::TargetName.spec().name, &entry.name);
            for address in &entry.addresses {
                self.text.outgoing.pair(Key::TargetAddress.spec().name, address);
            }
        }
    }
}

/// Sense key, and additional sense code with its qualifier.
type Condition = (SenseKey, (u8, u8));

const INVALID_FIELD_IN_CDB: Condition = (SenseKey::IllegalRequest, (0x24, 0x00));
const INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT: Condition = (SenseKey::IllegalRequest, (0x0E, 0x03));

/// RFC 7143 (11.4.7.2).
const fn condition(error: DataOutError) -> Condition {
    match error {
        DataOutError::UnexpectedUnsolicited => (SenseKey::AbortedCommand, (0x0C, 0x0C)),
        DataOutError::IncorrectAmount => (SenseKey::AbortedCommand, (0x0C, 0x0D)),
        DataOutError::Sequence => (SenseKey::AbortedCommand, (0x47, 0x05)),
    }
}

/// A CDB longer than 16 bytes: its rest is in an additional header segment of type 1. RFC 7143 (11.2.2.3).
fn extended_cdb(cdb: &Cdb, ahs: &[u8]) -> Option<Cdb> {
    let (&[high, low, kind, _], rest) = ahs.split_first_chunk()?;
    // AHSLength counts the reserved byte in front of the CDB's rest.
    let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(1)?;
    if kind & 0x3F != 1 {
        return None;
    }
    Cdb::new(&[cdb.basic(), rest.get(..length)?].concat())
}

fn length(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

/// RFC 7143 (11.4.5).
fn residual(expected: u32, actual: u64) -> Residual {
    let expected = u64::from(expected);
    let count = |difference: u64| u32::try_from(difference).unwrap_or(u32::MAX);
    match actual {
        more if more > expected => Residual::Overflow(count(more - expected)),
        less if less < expected => Residual::Underflow(count(expected - less)),
        _ => Residual::None,
    }
}

fn residual_bits(residual: Residual) -> (u8, U32) {
    match residual {
        Residual::None => (0, U32::new(0)),
        Residual::Underflow(count) => (bhs::UNDERFLOW, U32::new(count)),
        Residual::Overflow(count) => (bhs::OVERFLOW, U32::new(count)),
    }
}
