//! The target's side of a session.
//!
//! Gathers Data-Out until a command is complete and tells it as one event, for a caller that does not take it before; cuts
//! Data-In, counts residuals and answers. What a command does, and which tasks a task management function hits, is the caller's
//! business. The parts: [`order`] of commands, [`tasks`] and their data, other [`requests`], what [`recovery`] keeps, and how
//! connections [`join`]. RFC 7143 (4.2), (4.6), (11).

mod join;
mod order;
mod recovery;
mod requests;
mod tasks;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::Parameters;
use super::super::bhs::{self, FINAL, NO_TAG, RejectReason};
use super::super::keys::Wishes;
use super::super::login::{Answer, Gate, LoggedIn, TargetLogin, TargetNames};
use super::super::pdu::{FrameError, Header, Pdu};
use super::transfer::Gathering;
use super::{
    Attribute, ConnectionId, Due, Link, Links, Liveness, ProtocolError, Role, Session, TaskManagementFunction,
    TaskManagementResponse, sealed,
};
use crate::scsi::{Cdb, LunAddress, Status};
use crate::wire::U32;
use order::CommandOrder;
use recovery::{Kept, Recovery};
use requests::{Parked, TextExchange};

pub use join::Joining;

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
    /// Bytes of replies on their way above which the CmdSN window does not move on.
    pub reply_backlog: usize,
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
            reply_backlog: 8 * 1024 * 1024,
            login_timeout: Duration::from_secs(15),
            ping_interval: Some(Duration::from_secs(30)),
            ping_timeout: Duration::from_secs(30),
        }
    }
}

impl TargetConfig {
    /// Bytes that a session holds at most of what its initiator sends and has not acknowledged; what its caller hands it to send
    /// comes on top.
    #[must_use]
    pub fn most_held(&self) -> u64 {
        let asked_for = self.write_budget.max(self.max_write_length.into());
        // Commands in the window, and as many immediate ones.
        let unsolicited = 2 * u64::from(self.queue_depth) * u64::from(self.wishes.first_burst_length);
        let last_early = u64::from(self.wishes.max_recv_data_segment_length);
        asked_for + unsolicited + order::MAX_EARLY_BYTES as u64 + last_early + recovery::MAX_KEPT_BYTES as u64
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
    /// In order, sliced from the receive buffers; behind what [`Session::take_data_out`] gave before.
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

/// A write whose Data-Out has not come to its end.
#[derive(Debug, Clone)]
pub struct Arriving {
    /// Logical unit.
    pub lun: LunAddress,
    /// Task attribute.
    pub attribute: Attribute,
    /// What to do.
    pub cdb: Cdb,
    /// Bytes of Data-Out in all.
    pub expected: u32,
    /// Of those, what was taken.
    pub taken: u32,
    /// Of those, what has come and was not taken.
    pub held: u32,
}

/// What a target session tells its caller.
#[derive(Debug)]
pub enum TargetEvent {
    /// The login is done. Nothing has been sent of it yet: the caller may still drop the connection.
    SessionUp(LoggedIn),
    /// A command to carry out and answer by [`Session::respond`].
    Command(Command),
    /// Data-Out of a command whose [`TargetEvent::Command`] is still to come, enough to be written in the meantime: see
    /// [`Session::arriving`]. No older command has to be carried out first. The caller may let it pass; what is not taken comes
    /// with the command.
    DataOut {
        /// Initiator task tag.
        tag: u32,
    },
    /// A command of which [`TargetEvent::DataOut`] was told has ended before the rest came, and is answered: what was broken is the
    /// transfer.
    Failed {
        /// Initiator task tag.
        tag: u32,
    },
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
    /// A connection asks to join the session that its TSIH names: hand it over by [`Session::into_joining`], or
    /// [`Session::refuse`] it. Nothing is sent before.
    Join(LoggedIn),
    /// The initiator leaves with one connection, or with all: end the tasks, then [`Session::respond_logout`].
    Logout {
        /// Initiator task tag of the request.
        tag: u32,
        /// The connection to close; `None` for the whole session.
        closes: Option<ConnectionId>,
    },
}

/// The target's role.
#[derive(Debug)]
pub struct Target {
    config: TargetConfig,
    discovery: bool,
    target_name: Option<String>,
    initiator_name: String,
    /// Of the leading login: what counts for the whole session is taken from here.
    parameters: Parameters,
    commands: CommandOrder,
    tasks: HashMap<u32, Task>,
    /// Commands so far: their age.
    arrivals: u64,
    /// ORDERED commands that the caller has not been told of: younger ones wait for them.
    ordered: usize,
    /// Complete commands that wait for older ones to be complete.
    held: usize,
    /// Immediate tasks among them: they take no place in the window.
    immediate_tasks: usize,
    /// Task management functions that wait for the caller's answer: where it goes, by tag.
    managing: HashMap<u32, ConnectionId>,
    logouts: Vec<Logout>,
    /// Writes that wait for budget before their first R2T, oldest first.
    waiting: VecDeque<u32>,
    reserved: u64,
    /// Bytes of Data-Out that came without being asked for, of all tasks.
    unasked: u64,
    /// See [`Session::set_narrow`].
    narrow: bool,
    /// See [`Session::take_wasted`].
    wasted: u32,
    next_transfer_tag: u32,
    next_connection: u16,
    /// A second connection has joined, now or before.
    joined: bool,
    /// Task management requests for which commands before them are missing, and answers for which acknowledgements are.
    parked: Parked,
    recovery: Recovery,
}

/// What a target keeps of each connection.
#[derive(Debug)]
pub struct Lane {
    /// The initiator's number for it.
    cid: u16,
    login: Option<Box<TargetLogin>>,
    login_deadline: Instant,
    /// A login that is done but for its last answer, since it wants to join another session.
    joining: Option<Box<(Answer, LoggedIn)>>,
    liveness: Liveness,
    parameters: Parameters,
    stat_sn: u32,
    /// ExpStatSN: what comes before it has reached the initiator.
    acknowledged: u32,
    text: TextExchange,
    /// A logout is on its way: nothing more is asked on this connection.
    leaving: bool,
    kept: Kept,
}

#[derive(Debug)]
struct Task {
    connection: ConnectionId,
    age: u64,
    lun: LunAddress,
    attribute: Attribute,
    cdb: Cdb,
    expected: u32,
    read: bool,
    write: bool,
    immediate: bool,
    /// Of the write budget, in bytes.
    reserved: u64,
    /// Bytes of Data-Out that came without being asked for.
    unasked: u64,
    /// Of the R-Data SNACK that came before the answer; zero for none.
    snack_tag: u32,
    state: TaskState,
}

#[derive(Debug)]
enum TaskState {
    Gathering(Gathering),
    /// Complete, behind an older one that is not.
    Held(Command),
    /// Told to the caller.
    Running,
}

/// A logout that the caller has been told of.
#[derive(Debug)]
struct Logout {
    tag: u32,
    on: ConnectionId,
    closes: Option<ConnectionId>,
}

impl Role for Target {
    type Event = TargetEvent;
}

impl Session<Target> {
    /// A session that waits for its login on a connection.
    #[must_use]
    pub fn accept(connection: ConnectionId, config: TargetConfig, now: Instant) -> Self {
        let lane = Lane::new(&config, now);
        let role = Target::new(config, connection, lane.parameters);
        Self::with_role(connection, lane, role)
    }

    /// Answers a command. An unknown tag, as of an aborted task, is let pass.
    pub fn respond(&mut self, tag: u32, reply: &Reply) {
        self.role.respond(&mut self.links, tag, reply);
    }

    /// What has come of a command's Data-Out before all of it has; `None` for one that is complete, aborted or unknown.
    #[must_use]
    pub fn arriving(&self, tag: u32) -> Option<Arriving> {
        let Task { state: TaskState::Gathering(gathering), lun, attribute, cdb, expected, .. } = self.role.tasks.get(&tag)?
        else {
            return None;
        };
        let (taken, held) = (gathering.taken(), gathering.held());
        Some(Arriving { lun: *lun, attribute: *attribute, cdb: *cdb, expected: *expected, taken, held })
    }

    /// Takes the first `length` bytes of what [`Session::arriving`] says is held, to be written now. They do not come again; until
    /// the command is told, it may still be aborted or fail.
    pub fn take_data_out(&mut self, tag: u32, length: u32) -> Vec<Bytes> {
        self.role.take_data_out(&mut self.links, tag, length)
    }

    /// No data of this command is taken before all has come: it is not told of again.
    pub fn keep_data_out(&mut self, tag: u32) {
        self.role.keep_whole(tag);
    }

    /// Answers a task management request, once what was sent before on the other connections has arrived. RFC 7143 (4.2.3.3).
    pub fn respond_task_management(&mut self, tag: u32, response: TaskManagementResponse) {
        let Some(on) = self.role.managing.remove(&tag) else { return };
        if self.links.all.len() > 1 {
            return self.role.answer_when_acknowledged(&mut self.links, on, tag, response);
        }
        self.role.answer_task_management(&mut self.links, on, tag, response);
    }

    /// Answers a logout; what it closes, closes when that is sent.
    pub fn respond_logout(&mut self, tag: u32) {
        let Some(place) = self.role.logouts.iter().position(|logout| logout.tag == tag) else { return };
        let Logout { on, closes, .. } = self.role.logouts.swap_remove(place);
        self.role.answer_logout(&mut self.links, on, tag, 0);
        let leaving = self.links.all.iter_mut().filter(|link| closes.is_none_or(|one| link.id == one));
        leaving.for_each(|link| link.closing = true);
    }

    /// Forgets the tasks that `hit` picks by tag and logical unit. None of them is ever answered. Gives their tags: those that the
    /// caller was told of may still be running, the others were waiting for their data.
    pub fn abort_tasks(&mut self, hit: impl Fn(u32, LunAddress) -> bool) -> Vec<u32> {
        self.role.abort(&mut self.links, |tag, task| hit(tag, task.lun))
    }

    /// As [`Session::abort_tasks`], those of one connection: its allegiance ends with it. RFC 7143 (4.2.2.2).
    pub fn abort_tasks_of(&mut self, connection: ConnectionId) -> Vec<u32> {
        self.role.abort(&mut self.links, |_, task| task.connection == connection)
    }

    /// Takes a connection out that has ended. Its tasks have to be aborted before.
    pub fn remove(&mut self, connection: ConnectionId) {
        self.links.all.retain(|link| link.id != connection);
        self.role.forget_connection(&mut self.links, connection);
    }

    /// True while a task with this tag is open.
    #[must_use]
    pub fn has_task(&self, tag: u32) -> bool {
        self.role.tasks.contains_key(&tag)
    }

    /// Asks the initiator to log out within some seconds, on every connection. RFC 7143 (11.9.1), AsyncEvent 1.
    pub fn request_logout(&mut self, within_s: u16) {
        const LOGOUT_REQUESTED: u8 = 1;
        self.role.tell_all(&mut self.links, LOGOUT_REQUESTED, [0, 0, within_s]);
    }

    /// Ends the session at once and says so: what is queued is still sent. RFC 7143 (11.9.1), AsyncEvent 3; Time2Wait and
    /// Time2Retain are zero, since nothing of the session is kept.
    pub fn close(&mut self) {
        const SESSION_DROPPED: u8 = 3;
        self.role.tell_all(&mut self.links, SESSION_DROPPED, [0, 0, 0]);
        self.links.all.iter_mut().for_each(|link| link.closing = true);
    }

    /// Ends one connection, and says so where others are left. RFC 7143 (11.9.1), AsyncEvent 2.
    pub fn close_connection(&mut self, connection: ConnectionId) {
        self.role.drop_connection(&mut self.links, connection);
    }

    /// What the login agreed on for the whole session.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.role.parameters
    }

    /// True when Data-In of whole multiples of `unit` bytes is sent as it is given: not looked at, not kept, and cut into such
    /// multiples only.
    #[must_use]
    pub fn only_sends(&self, unit: u32) -> bool {
        !self.role.recovers()
            && self.links.all.iter().all(|link| {
                let parameters = &link.lane.parameters;
                let cut = [parameters.max_send_data_segment_length, parameters.max_burst_length];
                !parameters.digests.data && cut.iter().all(|length| length.is_multiple_of(unit))
            })
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.links.all.iter().map(|link| link.transmit.len()).sum()
    }

    /// Bytes of Data-Out that have been asked for, of commands that have not been answered.
    #[must_use]
    pub const fn asked_for(&self) -> u64 {
        self.role.reserved
    }

    /// Bytes of Data-Out that came without being asked for, of commands that have not been answered, and of requests before their
    /// turn.
    #[must_use]
    pub const fn unasked(&self) -> u64 {
        self.role.unasked + self.role.commands.early_bytes() as u64
    }

    /// PDUs since the last call that came to nothing: rejected, or ignored since their CmdSN lies outside of the window.
    pub const fn take_wasted(&mut self) -> u32 {
        std::mem::replace(&mut self.role.wasted, 0)
    }

    /// While it is narrow, the window moves on for one command at a time: what comes unasked is bounded by nothing else. It never
    /// shrinks: as much as it has let in before may still come.
    pub fn set_narrow(&mut self, narrow: bool) {
        self.role.narrow = narrow;
    }

    /// Changes [`TargetConfig::write_budget`] from now on. Writes that wait go on where it became larger.
    pub fn set_write_budget(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.role.config.write_budget, bytes);
        if bytes > before {
            self.role.grant_waiting(&mut self.links);
        }
    }

    /// Bytes of Data-In kept until the initiator has acknowledged them.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.role.recovery.bytes
    }

    /// Pings for what the initiator has not acknowledged, unless that was done.
    pub fn request_acknowledgement(&mut self) {
        for connection in self.connections().collect::<Vec<_>>() {
            self.role.ask_for_acknowledgement(&mut self.links, connection);
        }
    }

    /// To be called when a connection's output has been written: tells an initiator whose window was closed that it is open again.
    pub fn handle_drained(&mut self, connection: ConnectionId) {
        self.role.reopen_window(&mut self.links, connection);
    }
}

impl sealed::Machine for Target {
    type Lane = Lane;

    fn handle_pdu(&mut self, links: &mut Links<Self>, on: ConnectionId, _now: Instant, pdu: Pdu) -> Result<(), ProtocolError> {
        if links[on].lane.login.is_some() {
            return self.log_in(links, on, &pdu);
        }
        if self.recovers() || links.all.len() > 1 {
            self.acknowledge(links, on, &pdu.header);
        }
        let name = pdu.header.name();
        match pdu.header {
            Header::ScsiCommand(_)
            | Header::NopOut(_)
            | Header::TaskManagementRequest(_)
            | Header::TextRequest(_)
            | Header::LogoutRequest(_) => return self.request(links, on, pdu),
            Header::DataOut(header) => self.data_out(links, on, &header, pdu.data),
            Header::SnackRequest(header) => self.snack(links, on, &header),
            Header::Unknown(bytes) => self.reject(links, on, RejectReason::CommandNotSupported, &bytes),
            _ => {
                self.reject(links, on, RejectReason::ProtocolError, &pdu.header.to_bytes());
                return Err(ProtocolError::Unexpected { pdu: name, when: "in the full feature phase of a target" });
            }
        }
        Ok(())
    }

    fn handle_frame_error(&mut self, links: &mut Links<Self>, on: ConnectionId, error: FrameError) -> Result<(), ProtocolError> {
        let (FrameError::DataDigest { header, .. }, None) = (&error, &links[on].lane.login) else {
            return Err(error.into());
        };
        self.reject(links, on, RejectReason::DataDigestError, header);
        if !self.recovers() {
            return Err(error.into());
        }
        // The header is sound: data is asked for again, a request is sent again by the initiator. RFC 7143 (7.8).
        if let Header::DataOut(header) = Header::parse(header) {
            self.lost_data_out(links, on, &header);
        }
        Ok(())
    }

    fn handle_timeout(&mut self, links: &mut Links<Self>, on: ConnectionId, now: Instant) -> Result<(), ProtocolError> {
        let lane = &mut links[on].lane;
        if lane.login.is_some() {
            let late = now >= lane.login_deadline;
            return if late { Err(ProtocolError::LoginTimeout(self.config.login_timeout)) } else { Ok(()) };
        }
        match lane.liveness.due(now) {
            Due::Nothing => Ok(()),
            Due::Dead => Err(ProtocolError::PingTimeout(self.config.ping_timeout)),
            Due::Ping => {
                self.ping(links, on);
                Ok(())
            }
        }
    }

    fn poll_timeout(&self, link: &Link<Self>) -> Option<Instant> {
        if link.lane.login.is_some() { Some(link.lane.login_deadline) } else { link.lane.liveness.poll_timeout() }
    }

    fn heard(&mut self, link: &mut Link<Self>, now: Instant) {
        link.lane.liveness.heard(now);
    }
}

impl Lane {
    fn new(config: &TargetConfig, now: Instant) -> Self {
        let names = TargetNames { gate: Arc::clone(&config.gate), portal_group_tag: config.portal_group_tag, tsih: config.tsih };
        let login = TargetLogin::new(names, config.wishes);
        Self {
            cid: 0,
            parameters: login.parameters(),
            login: Some(Box::new(login)),
            login_deadline: now + config.login_timeout,
            joining: None,
            liveness: Liveness::new(config.ping_interval, config.ping_timeout, now),
            stat_sn: 0,
            acknowledged: 0,
            text: TextExchange::default(),
            leaving: false,
            kept: Kept::default(),
        }
    }
}

impl Target {
    fn new(config: TargetConfig, first: ConnectionId, parameters: Parameters) -> Self {
        Self {
            discovery: false,
            target_name: None,
            initiator_name: String::new(),
            parameters,
            commands: CommandOrder::default(),
            tasks: HashMap::new(),
            arrivals: 0,
            ordered: 0,
            held: 0,
            immediate_tasks: 0,
            managing: HashMap::new(),
            logouts: Vec::new(),
            waiting: VecDeque::new(),
            reserved: 0,
            unasked: 0,
            narrow: false,
            wasted: 0,
            next_transfer_tag: 0,
            next_connection: first.0.wrapping_add(1),
            joined: false,
            parked: Parked::default(),
            recovery: Recovery::default(),
            config,
        }
    }

    fn log_in(&mut self, links: &mut Links<Self>, on: ConnectionId, pdu: &Pdu) -> Result<(), ProtocolError> {
        let Header::LoginRequest(request) = pdu.header else {
            // RFC 7143 (6.3.1): anything else before the full feature phase ends the connection.
            return Err(ProtocolError::Unexpected { pdu: pdu.header.name(), when: "before the login is done" });
        };
        let Some(mut login) = links[on].lane.login.take() else { return Ok(()) };
        if login.is_first() {
            self.commands = CommandOrder::starting_at(request.cmd_sn.get(), self.config.queue_depth);
        }
        let mut answer = login.handle(&request, &pdu.data);
        match std::mem::replace(&mut answer.outcome, Ok(None)) {
            Ok(Some(logged_in)) if logged_in.joins => {
                links[on].lane.joining = Some(Box::new((answer, logged_in.clone())));
                links[on].lane.login = Some(login);
                links.event(TargetEvent::Join(logged_in));
            }
            Ok(logged_in) => {
                self.send_login_answer(links, on, answer);
                match logged_in {
                    None => links[on].lane.login = Some(login),
                    Some(logged_in) => self.begin_session(links, on, logged_in),
                }
            }
            Err(error) => {
                self.send_login_answer(links, on, answer);
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn send_login_answer(&mut self, links: &mut Links<Self>, on: ConnectionId, answer: Answer) {
        let mut header = answer.header;
        (header.stat_sn, header.exp_cmd_sn, header.max_cmd_sn) = self.advance_status(links, on);
        links[on].transmit.push(header, &[answer.text.into()]);
    }

    fn begin_session(&mut self, links: &mut Links<Self>, on: ConnectionId, logged_in: LoggedIn) {
        self.discovery = logged_in.target_name.is_none();
        self.target_name.clone_from(&logged_in.target_name);
        self.initiator_name.clone_from(&logged_in.initiator_name);
        self.parameters = logged_in.parameters;
        links[on].begin(&logged_in, logged_in.parameters);
        links.event(TargetEvent::SessionUp(logged_in));
    }

    /// ErrorRecoveryLevel is 1: what was sent is kept until it is acknowledged.
    fn recovers(&self) -> bool {
        self.parameters.error_recovery_level > 0
    }

    /// ExpCmdSN and MaxCmdSN as they are now. The window never shrinks; it does not move on while replies queue up.
    fn window(&mut self, links: &Links<Self>) -> (U32, U32) {
        // An answer that may have to be repeated takes a place as well.
        let running = self.tasks.len() - self.immediate_tasks;
        let open = running + links.all.iter().map(|link| link.lane.kept.len()).sum::<usize>();
        let crowded = links.all.iter().any(|link| link.transmit.len() > self.config.reply_backlog)
            || self.recovery.bytes > self.config.reply_backlog;
        let room = if crowded { 0 } else { self.config.queue_depth.saturating_sub(open as u32) };
        // An answer that was not acknowledged takes no place here: it may take the next command to acknowledge it.
        let room = if self.narrow { room.min(u32::from(running == 0)) } else { room };
        self.commands.open(room);
        (U32::new(self.commands.expected), U32::new(self.commands.max))
    }

    /// StatSN for a PDU that carries status, ExpCmdSN, MaxCmdSN.
    fn advance_status(&mut self, links: &mut Links<Self>, on: ConnectionId) -> (U32, U32, U32) {
        let (exp_cmd_sn, max_cmd_sn) = self.window(links);
        let lane = &mut links[on].lane;
        let stat_sn = U32::new(lane.stat_sn);
        lane.stat_sn = lane.stat_sn.wrapping_add(1);
        (stat_sn, exp_cmd_sn, max_cmd_sn)
    }

    fn reject(&mut self, links: &mut Links<Self>, on: ConnectionId, reason: RejectReason, header: &[u8; bhs::LENGTH]) {
        self.wasted = self.wasted.saturating_add(1);
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = self.advance_status(links, on);
        let reject = bhs::Reject {
            flags: FINAL,
            reason: reason as u8,
            initiator_task_tag: U32::new(NO_TAG),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            ..Default::default()
        };
        links[on].send(reject, stat_sn, None, &[Bytes::copy_from_slice(header)]);
    }

    fn abort(&mut self, links: &mut Links<Self>, hit: impl Fn(u32, &Task) -> bool) -> Vec<u32> {
        let doomed: Vec<u32> = self.tasks.iter().filter(|(tag, task)| hit(**tag, task)).map(|(tag, _)| *tag).collect();
        for tag in &doomed {
            self.forget(*tag);
        }
        // A tag may come again before there is room, and must not find a place in line.
        self.waiting.retain(|tag| self.tasks.contains_key(tag));
        self.grant_waiting(links);
        doomed
    }
}

impl Link<Target> {
    /// The full feature phase.
    fn begin(&mut self, logged_in: &LoggedIn, parameters: Parameters) {
        self.lane.cid = logged_in.cid;
        self.lane.parameters = parameters;
        self.lane.acknowledged = self.lane.stat_sn;
        self.lane.login = None;
        self.set_digests(parameters.digests, parameters.max_recv_data_segment_length);
    }

    /// Queues a PDU that carries status, and keeps it where it may be asked for again.
    fn send<H: bhs::Bhs>(&mut self, header: H, stat_sn: U32, task: Option<u32>, data: &[Bytes]) {
        if self.lane.parameters.error_recovery_level > 0 && self.lane.login.is_none() {
            self.lane.kept.keep(stat_sn.get(), task, &header, data);
        }
        self.transmit.push(header, data);
    }
}
