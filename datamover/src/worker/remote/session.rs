//! A session with a remote target on a socket that came logged in: commands out, answers in.
//!
//! Blocking, with bounded waits: a silent target is pinged and then given up, a command has its own time, and a job that is cancelled
//! waits for its commands a short while only. What ends before its answer came has an unknown outcome: the session is then lost, and
//! its connection is closed.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, getsockopt, setsockopt, socket, sockopt};
use nix::sys::time::TimeSpec;
use protocol::iscsi::session::{
    Completion, Data, Handover, Initiator, InitiatorConfig, InitiatorEvent, Session, Submission, Watch,
};
use protocol::iscsi::{Attribute, ConnectionId};
use protocol::mover::{FaultKind, RemoteSense};
use protocol::scsi::{Cdb, LunAddress, Sense, SenseKey, Status};
use tracing::{debug, warn};

/// A target that is silent for so long is pinged, and given up when it stays silent.
const WATCH: Watch = Watch { ping_interval: Duration::from_secs(5), ping_timeout: Duration::from_secs(10) };
/// Commands of a job that was cancelled get no longer than this.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// The keeper looks for pings this often; commands look themselves.
const KEEP: Duration = Duration::from_secs(1);
/// Time for the answer to a logout.
const FAREWELL: Duration = Duration::from_secs(2);
/// A wait is broken off after so long, to look whether the job was cancelled.
const LOOK: Duration = Duration::from_millis(50);
/// Time for a connection and a login of our own.
const LOGIN: Duration = Duration::from_secs(10);
/// Bytes read at a time.
const RECEIVE: usize = 256 << 10;
/// Parts of one vectored write.
const WRITE_PARTS: usize = 64;
/// A command that met a unit attention or a busy logical unit is sent again so often.
const ATTEMPTS: u32 = 8;
/// Before a busy logical unit is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// A session with one remote target.
#[derive(Debug)]
pub struct RemoteSession {
    shared: Arc<Shared>,
    lun: LunAddress,
    attention: Attention,
    keeper: Option<JoinHandle<()>>,
}

/// What a unit attention condition in the midst of a copy comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Nothing: an address still means the same block.
    PassOver,
    /// The end: a tape may stand elsewhere, or be another one.
    Fail,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ended: AtomicBool,
}

#[derive(Debug)]
struct State {
    socket: TcpStream,
    session: Session<Initiator>,
    connection: ConnectionId,
    input: BytesMut,
    lost: bool,
}

/// Why nothing more can be said to the target.
type Lost = io::Error;

impl RemoteSession {
    /// Goes on with a session that the target logged in. Starts the thread that answers pings.
    ///
    /// # Errors
    /// What the system gives.
    pub fn take_over(socket: OwnedFd, handover: &Handover, lun: LunAddress, attention: Attention) -> io::Result<Self> {
        let session = Session::take_over(handover, WATCH, Instant::now());
        let connection = ConnectionId(handover.cid);
        let state = State { socket: TcpStream::from(socket), session, connection, input: BytesMut::new(), lost: false };
        Self::start(state, lun, attention)
    }

    fn start(state: State, lun: LunAddress, attention: Attention) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: AtomicBool::new(false) });
        let keeper = Arc::clone(&shared);
        let keeper = thread::Builder::new().name("keeper".into()).spawn(move || keeper.keep())?;
        Ok(Self { shared, lun, attention, keeper: Some(keeper) })
    }

    /// Connects and logs in, on a host of its own.
    ///
    /// # Errors
    /// What the network and the target say, and `TimedOut`.
    pub fn log_in(portal: SocketAddr, config: InitiatorConfig, lun: LunAddress, attention: Attention) -> io::Result<Self> {
        let deadline = Instant::now() + LOGIN;
        let socket = connect(portal, deadline)?;
        let (connection, session) = (ConnectionId(0), Session::connect(ConnectionId(0), config, Instant::now()));
        let mut state = State { socket, session, connection, input: BytesMut::new(), lost: false };
        while !state.step_to_login()? {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Self::start(state, lun, attention)
    }

    /// Carries out one command; gives its Data-In.
    ///
    /// # Errors
    /// [`FaultKind::Remote`] with what the logical unit said, [`FaultKind::SessionLost`].
    pub fn command(&self, cancelled: &AtomicBool, command: &RemoteCommand) -> Result<Completion, FaultKind> {
        let mut all = self.commands(cancelled, std::slice::from_ref(command))?;
        Ok(all.remove(0))
    }

    /// Carries out commands that do not depend on each other, all at once.
    ///
    /// # Errors
    /// As [`RemoteSession::command`], of the first that failed.
    pub fn commands(&self, cancelled: &AtomicBool, commands: &[RemoteCommand]) -> Result<Vec<Completion>, FaultKind> {
        let mut done = self.attempt(cancelled, commands)?;
        for (command, completion) in commands.iter().zip(&mut done) {
            self.insist(cancelled, command, completion)?;
        }
        match done.iter().find_map(refusal) {
            Some(fault) => Err(fault),
            None => Ok(done),
        }
    }

    /// Carries out one command and gives what it came to, whatever that is.
    ///
    /// # Errors
    /// [`FaultKind::SessionLost`].
    pub fn outcome(&self, cancelled: &AtomicBool, command: &RemoteCommand) -> Result<Completion, FaultKind> {
        let mut completion = self.attempt(cancelled, std::slice::from_ref(command))?.remove(0);
        self.insist(cancelled, command, &mut completion)?;
        Ok(completion)
    }

    /// Sends a command again that could not be carried out just then.
    fn insist(&self, cancelled: &AtomicBool, command: &RemoteCommand, completion: &mut Completion) -> Result<(), FaultKind> {
        for _ in 1..ATTEMPTS {
            let Some(pause) = self.worth_another(completion).filter(|_| !cancelled.load(Ordering::Relaxed)) else { break };
            thread::sleep(pause);
            *completion = self.attempt(cancelled, std::slice::from_ref(command))?.remove(0);
        }
        Ok(())
    }

    /// After how long a command should be sent again that ended like this; `None` when it should not.
    fn worth_another(&self, completion: &Completion) -> Option<Duration> {
        match Status::from_code(completion.status) {
            Some(Status::CheckCondition) if self.attention == Attention::PassOver && tells_attention(&completion.sense) => {
                Some(Duration::ZERO)
            }
            Some(Status::Busy | Status::TaskSetFull) => Some(BUSY_PAUSE),
            _ => None,
        }
    }

    fn attempt(&self, cancelled: &AtomicBool, commands: &[RemoteCommand]) -> Result<Vec<Completion>, FaultKind> {
        let mut state = self.shared.state();
        let carried = state.carry_out(self.lun, cancelled, commands);
        carried.map_err(|error| {
            warn!(%error, "a remote end is lost");
            state.give_up();
            FaultKind::SessionLost
        })
    }
}

impl Drop for RemoteSession {
    /// Logs out, when the session still lives.
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            let _ = keeper.join();
        }
        let mut state = self.shared.state();
        if let Err(error) = state.take_leave() {
            debug!(%error, "a remote end did not answer the logout");
        }
        state.give_up();
    }
}

/// One SCSI command.
#[derive(Debug, Clone)]
pub struct RemoteCommand {
    /// What to do.
    pub cdb: Cdb,
    /// Its data.
    pub data: Data,
    /// Longer than this it does not take.
    pub timeout: Duration,
}

impl RemoteCommand {
    /// From the bytes of a CDB, of a length that there is.
    #[must_use]
    pub fn new(cdb: &[u8], data: Data, timeout: Duration) -> Self {
        Self { cdb: Cdb::new(cdb).expect("a CDB of 6, 10 or 16 bytes"), data, timeout }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Lets the session live while nobody has a command for it.
    fn keep(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            thread::park_timeout(KEEP);
            let Ok(mut state) = self.state.try_lock() else { continue };
            if !state.lost && state.step(Duration::ZERO).is_err() {
                state.give_up();
            }
        }
    }
}

impl State {
    fn carry_out(
        &mut self,
        lun: LunAddress,
        cancelled: &AtomicBool,
        commands: &[RemoteCommand],
    ) -> Result<Vec<Completion>, Lost> {
        if self.lost {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let submit = |command: &RemoteCommand| {
            let RemoteCommand { cdb, data, .. } = command.clone();
            self.session.submit(Submission { lun, cdb, attribute: Attribute::Simple, immediate: false, data })
        };
        let tags: Vec<u32> = commands.iter().map(submit).collect();
        let mut done: Vec<Option<Completion>> = vec![None; tags.len()];
        let mut deadline = Instant::now() + commands.iter().map(|command| command.timeout).max().unwrap_or_default();
        let mut told = false;
        while done.iter().any(Option::is_none) {
            if !told && cancelled.load(Ordering::Relaxed) {
                told = true;
                deadline = deadline.min(Instant::now() + CANCEL_GRACE);
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for (tag, completion) in self.step(wait.min(LOOK))? {
                if let Some(at) = tags.iter().position(|known| *known == tag) {
                    done[at] = Some(completion);
                }
            }
        }
        Ok(done.into_iter().flatten().collect())
    }

    /// True once it is logged in.
    fn step_to_login(&mut self) -> Result<bool, Lost> {
        self.exchange(LOOK)?;
        while let Some(event) = self.session.poll_event() {
            if matches!(event, InitiatorEvent::LoggedIn(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends what there is to send, waits for an answer as long as `wait`, and gives the commands that ended.
    fn step(&mut self, wait: Duration) -> Result<Vec<(u32, Completion)>, Lost> {
        self.exchange(wait)?;
        let ended = self.events()?;
        self.send()?;
        Ok(ended)
    }

    fn exchange(&mut self, wait: Duration) -> Result<(), Lost> {
        self.send()?;
        let mut interest = PollFlags::POLLIN;
        if self.has_output()? {
            interest |= PollFlags::POLLOUT;
        }
        let timeout = TimeSpec::from_duration(wait);
        let ready = {
            let mut polled = [PollFd::new(self.socket.as_fd(), interest)];
            match ppoll(&mut polled, Some(timeout), None) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            polled[0].revents().unwrap_or(PollFlags::empty())
        };
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.receive()?;
        }
        let now = Instant::now();
        if self.session.poll_timeout(self.connection).is_some_and(|at| at <= now) {
            self.session.handle_timeout(self.connection, now).map_err(io::Error::other)?;
        }
        self.send()
    }

    fn has_output(&mut self) -> Result<bool, Lost> {
        Ok(!self.session.transmit(self.connection).map_err(io::Error::other)?.is_empty())
    }

    fn send(&mut self) -> Result<(), Lost> {
        let transmit = self.session.transmit(self.connection).map_err(io::Error::other)?;
        while transmit.has_remaining() {
            let mut parts = [IoSlice::new(&[]); WRITE_PARTS];
            let count = transmit.chunks_vectored(&mut parts);
            match self.socket.write_vectored(&parts[..count]) {
                Ok(written) => transmit.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), Lost> {
        let held = self.input.len();
        let room = self.session.missing(self.connection, &self.input).max(RECEIVE);
        self.input.resize(held + room, 0);
        let read = self.socket.read(&mut self.input[held..]);
        self.input.truncate(held + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => self.session.handle_input(self.connection, Instant::now(), &mut self.input).map_err(io::Error::other),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn events(&mut self) -> Result<Vec<(u32, Completion)>, Lost> {
        let mut ended = Vec::new();
        while let Some(event) = self.session.poll_event() {
            match event {
                InitiatorEvent::Completed { tag, completion } => ended.push((tag, completion)),
                InitiatorEvent::LoggedOut { .. } => return Err(io::ErrorKind::ConnectionAborted.into()),
                InitiatorEvent::Rejected { reason, .. } => {
                    return Err(io::Error::other(format!("the remote target rejects a PDU, reason {reason:#04x}")));
                }
                // Events 1 to 3: it wants us to log out, or has dropped us.
                InitiatorEvent::Async { event: 1..=3, .. } => return Err(io::ErrorKind::ConnectionAborted.into()),
                other => debug!(event = ?other, "a remote target says"),
            }
        }
        Ok(ended)
    }

    fn take_leave(&mut self) -> Result<(), Lost> {
        if self.lost {
            return Ok(());
        }
        self.session.logout();
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            match self.step(LOOK) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The remote target sees the connection end, whatever it still had to say.
    fn give_up(&mut self) {
        self.lost = true;
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// A connection that does not block, made with no more system calls than the cage of a mover on another host has.
fn connect(portal: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let family = if portal.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(portal)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(errno) => return Err(errno.into()),
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    if ppoll(&mut polled, Some(TimeSpec::from_duration(left)), None)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match getsockopt(&socket, sockopt::SocketError)? {
        0 => {}
        errno => return Err(io::Error::from_raw_os_error(errno)),
    }
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    Ok(TcpStream::from(socket))
}

fn tells_attention(sense: &[u8]) -> bool {
    Sense::parse(sense).is_ok_and(|sense| sense.key == SenseKey::UnitAttention)
}

/// What a command that did not end well says.
#[must_use]
pub fn refusal(completion: &Completion) -> Option<FaultKind> {
    if completion.response != 0 {
        return Some(FaultKind::SessionLost);
    }
    match Status::from_code(completion.status) {
        Some(Status::Good | Status::ConditionMet) => None,
        _ => Some(FaultKind::Remote { status: completion.status, sense: RemoteSense::new(&completion.sense) }),
    }
}
