//! The one task that owns a connection: carries requests to the session's state machine and bytes to and from the socket.
//!
//! What is waiting when the task wakes up is taken together and leaves in one vectored write. When the connection dies, every
//! command is told so, with how long it had been under way.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use protocol::iscsi::keys::NegotiationError;
use protocol::iscsi::login::LoginError;
use protocol::iscsi::session::{self, Completion, InitiatorConfig, InitiatorEvent, ProtocolError, Submission};
use protocol::iscsi::{Attribute, ConnectionId, Initiator, Session, TaskManagementFunction, TaskManagementResponse};
use protocol::scsi::{Cdb, LunAddress, Sense, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::{ClientError, Counters, Data, Lost, Options, Reply, Residual, TaskManagement, TaskTag};
use crate::url::{Portal, Url};

/// The session's only connection.
const CONNECTION: ConnectionId = ConnectionId(0);

/// Room made for receiving at a time, in bytes, where no longer PDU is known to come.
const RECEIVE_ROOM: usize = 64 * 1024;

/// Parts of one vectored write.
const WRITE_PARTS: usize = 64;

/// Redirections followed in one login: a ring of portals must end.
const REDIRECTIONS: usize = 4;

/// Time for the target to answer the logout of a session that nobody holds any more.
const FAREWELL: Duration = Duration::from_secs(2);

/// What clients ask of the connection.
#[derive(Debug)]
pub(super) enum Request {
    /// A SCSI command.
    Command(CommandRequest),
    /// A task management function; answered with the response code.
    TaskManagement { function: TaskManagement, reply: Answer<u8> },
    /// A ping.
    Nop { ping_data: Bytes, reply: Answer<Bytes> },
    /// A text request; answered with the pairs.
    SendTargets { which: &'static str, reply: Answer<Bytes> },
    /// The end of the session.
    Logout { reply: Answer<()> },
}

/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, ClientError>>;

/// A SCSI command on its way out.
#[derive(Debug)]
pub(super) struct CommandRequest {
    pub(super) lun: LunAddress,
    pub(super) cdb: Cdb,
    pub(super) data: Data,
    pub(super) timeout: Duration,
    /// Told the task tag as soon as there is one, where somebody wants to know.
    pub(super) started: Option<oneshot::Sender<TaskTag>>,
    pub(super) reply: Answer<Reply>,
}

/// Connects, logs in, and starts the task. Without a target the session is for discovery.
pub(super) async fn open(
    portal: &Portal,
    target: Option<&Url>,
    options: &Options,
    counters: Arc<Counters>,
) -> Result<mpsc::UnboundedSender<Request>, ClientError> {
    let login = log_in(portal.clone(), target, options, counters);
    let late = |_| ClientError::Timeout { what: format!("the login at {portal}"), after: options.connect_timeout };
    let (mut driver, requests) = tokio::time::timeout(options.connect_timeout, login).await.map_err(late)??;
    tokio::spawn(async move { driver.run().await });
    Ok(requests)
}

async fn log_in(
    mut portal: Portal,
    target: Option<&Url>,
    options: &Options,
    counters: Arc<Counters>,
) -> Result<(Driver, mpsc::UnboundedSender<Request>), ClientError> {
    for _ in 0..=REDIRECTIONS {
        let connected = TcpStream::connect((portal.host.as_str(), portal.port)).await;
        let stream = connected.map_err(|error| ClientError::Connect { portal: portal.to_string(), error })?;
        stream.set_nodelay(true)?;
        let (sender, requests) = mpsc::unbounded_channel();
        let mut driver = Driver::new(stream, config(target, options)?, requests, Arc::clone(&counters));
        match driver.log_in().await {
            Ok(()) => return Ok((driver, sender)),
            Err(End::Protocol(ProtocolError::Login(LoginError::Redirected { address }))) => {
                let elsewhere = address.split(',').next().unwrap_or_default().parse();
                portal = elsewhere.map_err(|error| ClientError::Protocol(format!("moved to {address:?}: {error}")))?;
                debug!(%portal, "redirected");
            }
            Err(end) => return Err(end.login_error(target.map(|url| url.target.as_str()))),
        }
    }
    Err(ClientError::Protocol(format!("the target moved on {REDIRECTIONS} times")))
}

fn config(target: Option<&Url>, options: &Options) -> Result<InitiatorConfig, ClientError> {
    use protocol::iscsi::keys::{DigestWish, Wishes};
    let digest = |wanted| if wanted { DigestWish::Require } else { DigestWish::Never };
    let wishes = Wishes {
        header_digest: digest(options.header_digest),
        data_digest: digest(options.data_digest),
        max_recv_data_segment_length: options.max_recv_data_segment_length,
        ..Wishes::default()
    };
    let user = target.and_then(|url| url.user.as_deref());
    let chap = options.authentication.as_ref().map(|authentication| authentication.policy(user)).transpose()?;
    Ok(InitiatorConfig {
        initiator_name: options.initiator_name.clone(),
        target_name: target.map(|url| url.target.clone()),
        chap,
        isid: options.isid.unwrap_or_else(fresh_isid),
        wishes: wishes.clamped(),
        login_timeout: options.connect_timeout,
        ..InitiatorConfig::default()
    })
}

/// An ISID of the random format (RFC 7143, 11.12.5): two sessions of one name must not reinstate each other by accident.
fn fresh_isid() -> [u8; 6] {
    let [a, b, c, d, e] = rand::random();
    [0x80, a, b, c, d, e]
}

/// A command under way.
#[derive(Debug)]
struct Pending {
    opcode: u8,
    lun: LunAddress,
    data: Amount,
    begun: Instant,
    timeout: Duration,
    reply: Answer<Reply>,
}

/// What a command moves, for messages.
#[derive(Debug, Clone, Copy)]
enum Amount {
    None,
    In(u32),
    Out(usize),
}

impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {:02X}h", self.opcode)?;
        match self.lun.number() {
            Some(lun) => write!(f, " to LUN {lun}")?,
            None => write!(f, " to {:02x?}", self.lun.0)?,
        }
        match self.data {
            Amount::None => {}
            Amount::In(bytes) => write!(f, " with room for {bytes} bytes")?,
            Amount::Out(bytes) => write!(f, " with {bytes} bytes of data")?,
        }
        write!(f, ", sent {:.1} s before", self.begun.elapsed().as_secs_f64())
    }
}

/// Other requests under way, by tag.
#[derive(Debug)]
enum Call {
    TaskManagement(Answer<u8>),
    Bytes(Answer<Bytes>),
    Logout(Answer<()>),
}

/// Why the connection ended.
#[derive(Debug)]
enum End {
    Closed,
    LoggedOut,
    Io(io::Error),
    Protocol(ProtocolError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the target closed it"),
            Self::LoggedOut => f.write_str("logged out"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Protocol(error) => write!(f, "{error}"),
        }
    }
}

impl End {
    fn login_error(self, target: Option<&str>) -> ClientError {
        match self {
            Self::Protocol(ProtocolError::Login(LoginError::Refused(status))) => ClientError::Login {
                target: target.unwrap_or("the portal").to_owned(),
                class: status.class,
                detail: status.detail,
                meaning: status.to_string(),
            },
            // Digests are the only keys for which the default is not good enough.
            Self::Protocol(ProtocolError::Login(LoginError::Negotiation(NegotiationError::Answer(
                key @ ("HeaderDigest" | "DataDigest"),
            )))) => ClientError::NotAgreed(key),
            Self::Protocol(ProtocolError::Login(LoginError::Chap(error))) => ClientError::Unproved(error),
            Self::Protocol(ProtocolError::LoginTimeout(after)) => ClientError::Timeout { what: "the login".into(), after },
            Self::Protocol(error) => ClientError::Protocol(error.to_string()),
            end => ClientError::ConnectionLost(Lost { reason: end.to_string(), during: Some("the login".into()) }),
        }
    }
}

struct Driver {
    stream: TcpStream,
    session: Session<Initiator>,
    input: BytesMut,
    requests: mpsc::UnboundedReceiver<Request>,
    /// Nobody can ask any more.
    orphaned: bool,
    logged_in: bool,
    commands: HashMap<u32, Pending>,
    deadlines: BTreeSet<(Instant, u32)>,
    calls: HashMap<u32, Call>,
    counters: Arc<Counters>,
    /// What the target said before it closed.
    last_word: Option<String>,
}

impl Driver {
    fn new(
        stream: TcpStream,
        config: InitiatorConfig,
        requests: mpsc::UnboundedReceiver<Request>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            stream,
            session: Session::connect(CONNECTION, config, Instant::now()),
            input: BytesMut::new(),
            requests,
            orphaned: false,
            logged_in: false,
            commands: HashMap::new(),
            deadlines: BTreeSet::new(),
            calls: HashMap::new(),
            counters,
            last_word: None,
        }
    }

    async fn log_in(&mut self) -> Result<(), End> {
        while !self.logged_in {
            self.step().await?;
        }
        Ok(())
    }

    /// Serves requests until the connection ends, then tells everybody who still waits.
    async fn run(&mut self) {
        let end = loop {
            if let Err(end) = self.step().await {
                break end;
            }
            if self.orphaned && self.commands.is_empty() && self.calls.is_empty() {
                self.take_leave().await;
                break End::LoggedOut;
            }
        };
        self.stream.shutdown().await.ok();
        self.requests.close();
        let reason = match self.last_word.take() {
            Some(word) => format!("{end}, after it said: {word}"),
            None => end.to_string(),
        };
        debug!(reason, waiting = self.commands.len(), "connection ended");
        for (_, pending) in self.commands.drain() {
            let during = Some(pending.to_string());
            pending.reply.send(Err(ClientError::ConnectionLost(Lost { reason: reason.clone(), during }))).ok();
        }
        let lost = || ClientError::ConnectionLost(Lost { reason: reason.clone(), during: None });
        for (_, call) in self.calls.drain() {
            match call {
                Call::TaskManagement(reply) => drop(reply.send(Err(lost()))),
                Call::Bytes(reply) => drop(reply.send(Err(lost()))),
                Call::Logout(reply) => drop(reply.send(Err(lost()))),
            }
        }
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Command(command) => drop(command.reply.send(Err(lost()))),
                Request::TaskManagement { reply, .. } => drop(reply.send(Err(lost()))),
                Request::Nop { reply, .. } | Request::SendTargets { reply, .. } => drop(reply.send(Err(lost()))),
                Request::Logout { reply } => drop(reply.send(Err(lost()))),
            }
        }
    }

    /// Logs out on behalf of clients that are gone.
    async fn take_leave(&mut self) {
        self.session.logout();
        let answered = async { while self.step().await.is_ok() {} };
        tokio::time::timeout(FAREWELL, answered).await.ok();
    }

    /// Waits for one thing to happen and does what follows from it.
    async fn step(&mut self) -> Result<(), End> {
        if self.logged_in {
            while let Ok(request) = self.requests.try_recv() {
                self.take(request);
            }
        }
        self.write_some()?;
        if self.session.is_closing(CONNECTION) {
            return Err(End::LoggedOut);
        }
        let writes = !self.session.transmit(CONNECTION).map_err(End::Protocol)?.is_empty();
        let deadlines = self.deadlines.first().map(|(at, _)| *at).into_iter().chain(self.session.poll_timeout(CONNECTION));
        let wake_at = deadlines.min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        self.make_room();
        let (mut reader, writer) = self.stream.split();
        tokio::select! {
            read = reader.read_buf(&mut self.input) => {
                let read = read.map_err(End::Io)?;
                self.take_in(read)?;
                // Who has got an answer may have something to ask: it leaves before more is read, and the target need not wait.
                tokio::task::yield_now().await;
            }
            ready = writer.writable(), if writes => ready.map_err(End::Io)?,
            request = self.requests.recv(), if self.logged_in && !self.orphaned => match request {
                Some(request) => self.take(request),
                None => self.orphaned = true,
            },
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
        let now = Instant::now();
        if self.session.poll_timeout(CONNECTION).is_some_and(|at| at <= now) {
            self.session.handle_timeout(CONNECTION, now).map_err(End::Protocol)?;
        }
        self.expire(now);
        self.take_events();
        Ok(())
    }

    /// Room for the rest of a PDU that has begun, or for many: what is left over is copied when the buffer changes.
    fn make_room(&mut self) {
        let missing = self.session.missing(CONNECTION, &self.input);
        if self.input.capacity() - self.input.len() < missing.max(RECEIVE_ROOM / 4) {
            self.input.reserve(missing.max(RECEIVE_ROOM));
        }
    }

    /// So many bytes more are there.
    fn take_in(&mut self, read: usize) -> Result<(), End> {
        if read == 0 {
            return Err(End::Closed);
        }
        let handled = self.session.handle_input(CONNECTION, Instant::now(), &mut self.input);
        // What came before the fault still counts.
        self.take_events();
        handled.map_err(End::Protocol)
    }

    fn write_some(&mut self) -> Result<(), End> {
        let transmit = self.session.transmit(CONNECTION).map_err(End::Protocol)?;
        while transmit.has_remaining() {
            let mut parts = [io::IoSlice::new(&[]); WRITE_PARTS];
            let count = transmit.chunks_vectored(&mut parts);
            match self.stream.try_write_vectored(&parts[..count]) {
                Ok(written) => transmit.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(End::Io(error)),
            }
        }
        Ok(())
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Command(command) => self.submit(command),
            Request::TaskManagement { function, reply } => {
                let (code, lun, referenced) = management(function);
                // For ABORT TASK the LUN is the task's own.
                let lun = referenced.and_then(|tag| self.commands.get(&tag)).map_or(lun, |task| task.lun);
                let tag = self.session.task_management(code, lun, referenced);
                self.calls.insert(tag, Call::TaskManagement(reply));
            }
            Request::Nop { ping_data, reply } => {
                let tag = self.session.ping(ping_data);
                self.calls.insert(tag, Call::Bytes(reply));
            }
            Request::SendTargets { which, reply } => {
                let tag = self.session.send_targets(which);
                self.calls.insert(tag, Call::Bytes(reply));
            }
            Request::Logout { reply } => {
                let tag = self.session.logout();
                self.calls.insert(tag, Call::Logout(reply));
            }
        }
    }

    fn submit(&mut self, command: CommandRequest) {
        let CommandRequest { lun, cdb, data, timeout, started, reply } = command;
        let amount = match &data {
            Data::None => Amount::None,
            Data::In(room) => Amount::In(*room),
            Data::Out(bytes) => Amount::Out(bytes.len()),
        };
        let data = match data {
            Data::None => session::Data::None,
            Data::In(room) => session::Data::In(room),
            Data::Out(bytes) => {
                self.counters.data_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                session::Data::Out(vec![bytes])
            }
        };
        self.counters.commands.fetch_add(1, Ordering::Relaxed);
        let submission = Submission { lun, cdb, attribute: Attribute::Simple, immediate: false, data };
        let tag = self.session.submit(submission);
        let begun = Instant::now();
        self.deadlines.insert((begun + timeout, tag));
        self.commands.insert(tag, Pending { opcode: cdb.opcode(), lun, data: amount, begun, timeout, reply });
        if let Some(started) = started {
            started.send(TaskTag(tag)).ok();
        }
    }

    /// Gives up commands that took too long, and has the target give them up.
    fn expire(&mut self, now: Instant) {
        while let Some((_, tag)) = self.deadlines.pop_first_if_due(now) {
            let Some(pending) = self.commands.remove(&tag) else { continue };
            warn!(%pending, "no answer in time");
            self.session.task_management(TaskManagementFunction::AbortTask, pending.lun, Some(tag));
            self.session.forget(tag);
            let what = format!("command {:02X}h", pending.opcode);
            pending.reply.send(Err(ClientError::Timeout { what, after: pending.timeout })).ok();
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                InitiatorEvent::LoggedIn(_) => self.logged_in = true,
                InitiatorEvent::Completed { tag, completion } => self.complete(tag, Ok(completion)),
                InitiatorEvent::TaskManagement { tag, response } => self.management_done(tag, response),
                InitiatorEvent::Text { tag, text: data } | InitiatorEvent::Pong { tag, data } => {
                    if let Some(Call::Bytes(reply)) = self.calls.remove(&tag) {
                        reply.send(Ok(data)).ok();
                    }
                }
                InitiatorEvent::LoggedOut { tag, response } => {
                    if let Some(Call::Logout(reply)) = self.calls.remove(&tag) {
                        let refused = || ClientError::Protocol(format!("logout answered with response {response:#04x}"));
                        reply.send(if response == 0 { Ok(()) } else { Err(refused()) }).ok();
                    }
                }
                InitiatorEvent::Async { event, parameters, .. } => {
                    debug!(event, ?parameters, "asynchronous message");
                    self.last_word = Some(format!("asynchronous event {event}"));
                }
                InitiatorEvent::Rejected { reason, tag } => {
                    warn!(reason, tag, "rejected");
                    self.last_word = Some(format!("PDU rejected, reason {reason:#04x}"));
                    if let Some(tag) = tag {
                        self.session.forget(tag);
                        self.complete(
                            tag,
                            Err(ClientError::Protocol(format!("the target rejects the PDU, reason {reason:#04x}"))),
                        );
                    }
                }
            }
        }
    }

    fn complete(&mut self, tag: u32, completion: Result<Completion, ClientError>) {
        let Some(pending) = self.commands.remove(&tag) else { return };
        self.deadlines.remove(&(pending.begun + pending.timeout, tag));
        let reply = completion.and_then(reply_of);
        if let Ok(reply) = &reply {
            self.counters.data_in.fetch_add(reply.data.len() as u64, Ordering::Relaxed);
        }
        pending.reply.send(reply).ok();
    }

    /// A function that ended tasks ended them without a response: their callers are told.
    fn management_done(&mut self, tag: u32, response: TaskManagementResponse) {
        if let Some(Call::TaskManagement(reply)) = self.calls.remove(&tag) {
            reply.send(Ok(response as u8)).ok();
        }
    }
}

/// Sets of deadlines, soonest first.
trait PopDue {
    fn pop_first_if_due(&mut self, now: Instant) -> Option<(Instant, u32)>;
}

impl PopDue for BTreeSet<(Instant, u32)> {
    fn pop_first_if_due(&mut self, now: Instant) -> Option<(Instant, u32)> {
        if self.first()?.0 <= now { self.pop_first() } else { None }
    }
}

/// Function, LUN and referenced task as the session takes them.
fn management(function: TaskManagement) -> (TaskManagementFunction, LunAddress, Option<u32>) {
    use TaskManagementFunction as Function;
    let lun = LunAddress::from_number;
    match function {
        TaskManagement::AbortTask(tag) => (Function::AbortTask, lun(0), Some(tag.0)),
        TaskManagement::AbortTaskSet(number) => (Function::AbortTaskSet, lun(number), None),
        TaskManagement::ClearTaskSet(number) => (Function::ClearTaskSet, lun(number), None),
        TaskManagement::LogicalUnitReset(number) => (Function::LogicalUnitReset, lun(number), None),
        TaskManagement::TargetWarmReset => (Function::TargetWarmReset, lun(0), None),
        TaskManagement::TargetColdReset => (Function::TargetColdReset, lun(0), None),
    }
}

/// A completion as a SCSI reply.
fn reply_of(completion: Completion) -> Result<Reply, ClientError> {
    if completion.response != 0 {
        let text = format!("the target failed on its own side: iSCSI response {:#04x}", completion.response);
        return Err(ClientError::Protocol(text));
    }
    let status = Status::from_code(completion.status)
        .ok_or_else(|| ClientError::Protocol(format!("SCSI status {:#04x}, which is reserved", completion.status)))?;
    let data = match <[Bytes; 1]>::try_from(completion.data_in) {
        Ok([whole]) => whole,
        Err(parts) => parts.concat().into(),
    };
    let residual = match completion.residual {
        session::Residual::None => Residual::None,
        session::Residual::Underflow(bytes) => Residual::Underflow(bytes),
        session::Residual::Overflow(bytes) => Residual::Overflow(bytes),
    };
    Ok(Reply { status, sense: Sense::parse(&completion.sense).ok(), sense_data: completion.sense, data, residual })
}
