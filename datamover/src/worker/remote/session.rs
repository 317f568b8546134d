//! A session with a remote target on a socket of its own: commands out, answers in, again where that helps.
//!
//! [`protocol::iscsi::drive`] with a socket, a lock, and a thread that answers pings. Blocking, with bounded waits: a silent target is
//! pinged and then given up, a command has its own time, and a job that is cancelled waits for its commands a short while only. What
//! ends before its answer came has an unknown outcome: the session is then lost, and its connection is closed.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, getsockopt, setsockopt, socket, sockopt};
use nix::sys::time::TimeSpec;
pub use protocol::iscsi::drive::Command as RemoteCommand;
use protocol::iscsi::drive::{Driver, Wire};
use protocol::iscsi::session::{Completion, Data, Handover, InitiatorConfig, Watch};
use protocol::mover::{FaultKind, RemoteSense};
use protocol::scsi::{LunAddress, Sense, SenseKey, Status};
use tracing::{debug, warn};

/// A target that is silent for so long is pinged, and given up when it stays silent.
const WATCH: Watch = Watch { ping_interval: Duration::from_secs(5), ping_timeout: Duration::from_secs(10) };
/// The keeper looks for pings this often; commands look themselves.
const KEEP: Duration = Duration::from_secs(1);
/// Time for the answer to a logout.
const FAREWELL: Duration = Duration::from_secs(2);
/// Time for a connection and a login of our own.
const LOGIN: Duration = Duration::from_secs(10);
/// A command that met a unit attention or a busy logical unit is sent again so often.
const ATTEMPTS: u32 = 8;
/// Before a busy logical unit is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
const TEST_UNIT_READY: [u8; 6] = [0; 6];

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
    driver: Mutex<Driver<Socket>>,
    ended: AtomicBool,
}

impl RemoteSession {
    /// Goes on with a session that the target logged in. Starts the thread that answers pings.
    ///
    /// # Errors
    /// What the system gives.
    pub fn take_over(socket: OwnedFd, handover: &Handover, lun: LunAddress, attention: Attention) -> io::Result<Self> {
        Self::start(Driver::take_over(Socket(TcpStream::from(socket)), handover, WATCH), lun, attention)
    }

    /// Connects and logs in, on a host of its own.
    ///
    /// # Errors
    /// What the network and the target say, and `TimedOut`.
    pub fn log_in(portal: SocketAddr, config: InitiatorConfig, lun: LunAddress, attention: Attention) -> io::Result<Self> {
        let deadline = Instant::now() + LOGIN;
        Self::start(Driver::log_in(Socket(connect(portal, deadline)?), config, deadline)?, lun, attention)
    }

    fn start(driver: Driver<Socket>, lun: LunAddress, attention: Attention) -> io::Result<Self> {
        let shared = Arc::new(Shared { driver: Mutex::new(driver), ended: AtomicBool::new(false) });
        let keeper = Arc::clone(&shared);
        let keeper = thread::Builder::new().name("keeper".into()).spawn(move || keeper.keep())?;
        Ok(Self { shared, lun, attention, keeper: Some(keeper) })
    }

    /// Hears what the logical unit has to tell a new session before anything else, and whether it is ready then.
    ///
    /// # Errors
    /// As [`RemoteSession::command`].
    pub fn settle(&self, cancelled: &AtomicBool) -> Result<(), FaultKind> {
        let ready = [RemoteCommand::new(&TEST_UNIT_READY, Data::None, LOGIN)];
        let mut told = None;
        for _ in 0..ATTEMPTS {
            let completion = self.attempt(cancelled, &ready)?.remove(0);
            told = refusal(&completion);
            if !tells_attention(&completion.sense) {
                break;
            }
        }
        told.map_or(Ok(()), Err)
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
        let carried = self.shared.driver().carry_out(self.lun, commands, &|| cancelled.load(Ordering::Relaxed));
        carried.map_err(|error| {
            warn!(%error, "a remote end is lost");
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
        if let Err(error) = self.shared.driver().log_out(FAREWELL) {
            debug!(%error, "a remote end did not answer the logout");
        }
    }
}

impl Shared {
    fn driver(&self) -> MutexGuard<'_, Driver<Socket>> {
        self.driver.lock().expect("no holder panics")
    }

    /// Lets the session live while nobody has a command for it.
    fn keep(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            thread::park_timeout(KEEP);
            let Ok(mut driver) = self.driver.try_lock() else { continue };
            if let Err(error) = driver.keep() {
                // The next command hears of it.
                return debug!(%error, "a remote end is lost");
            }
        }
    }
}

/// The connection, as the driver sees it. The target has the same: what both share is `protocol`, which makes no system calls.
#[derive(Debug)]
struct Socket(TcpStream);

impl Wire for Socket {
    type Stream = TcpStream;

    fn stream(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wait(&mut self, output: bool, limit: Duration) -> io::Result<bool> {
        let interest = if output { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut polled = [PollFd::new(self.0.as_fd(), interest)];
        match ppoll(&mut polled, Some(TimeSpec::from_duration(limit)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(polled[0].revents().is_some_and(|ready| ready.intersects(!PollFlags::POLLOUT)))
    }

    fn close(&mut self) {
        // The descriptor may be open elsewhere too; one that has ended already cannot be shut down.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection that does not block, made with no more system calls than the cage of a mover on another host has.
fn connect(portal: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let family = if portal.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(portal)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
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
