//! Movers on other hosts: they connect, prove themselves, and are movers like any other from then on, but that they get no files.
//!
//! ```text
//! far mover ◀── TCP: sealed messages ──▶ relay ◀── socket pair ──▶ Mover
//! ```
//!
//! Who connects and proves nothing costs little: few at a time, for a few seconds, a few hundred bytes each. Knows nothing of jobs.
//! The exchange is [`protocol::mover::attach`]'s.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use protocol::mover::attach::{Admitting, Proved, Seal, Secret};
use protocol::mover::sealed;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{info, warn};

use super::{Mover, Movers};

/// Peers that have connected and proved nothing yet; more are hung up on.
const HALF_OPEN: usize = 8;
/// Time for the whole exchange.
const EXCHANGE: Duration = Duration::from_secs(5);
/// A mover that the network keeps from us for so long is lost; it gives itself up as soon.
const SILENCE: Duration = Duration::from_secs(20);
/// Pause after an accept that failed for want of something, as of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two probes of a connection on which nothing is said.
const PROBE: u32 = 5;

/// A port on which movers attach. Closed when dropped; those that are attached stay.
#[derive(Debug)]
pub struct Attachments {
    secret: Arc<Mutex<Secret>>,
    task: JoinHandle<()>,
}

impl Drop for Attachments {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Attachments {
    /// Lets movers that know `secret` attach at `listener`, which listens on `address`.
    #[must_use]
    pub fn open(listener: TcpListener, address: SocketAddr, secret: Secret, movers: &Arc<Movers>) -> Self {
        info!(%address, "movers of other hosts attach");
        let secret = Arc::new(Mutex::new(secret));
        let task = tokio::spawn(accept(listener, Arc::clone(&secret), Arc::downgrade(movers)));
        Self { secret, task }
    }

    /// From now on this is what movers have to know.
    pub fn set_secret(&self, secret: Secret) {
        *self.secret.lock().expect("no holder panics") = secret;
    }

    /// Returns when the address is free for others.
    pub async fn close(mut self) {
        self.task.abort();
        // Aborted, as it should be.
        let _ = (&mut self.task).await;
    }
}

async fn accept(listener: TcpListener, secret: Arc<Mutex<Secret>>, movers: Weak<Movers>) {
    let half_open = Arc::new(Semaphore::new(HALF_OPEN));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a mover cannot be let in");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (Ok(place), Some(movers)) = (Arc::clone(&half_open).try_acquire_owned(), movers.upgrade()) else { continue };
        let secret = secret.lock().expect("no holder panics").clone();
        spawn_blocking(move || {
            let exchanged = stream.into_std().and_then(|stream| exchange(stream, secret));
            drop(place);
            let attached = exchanged.and_then(|(name, stream, seals)| attach(&movers, name, peer, stream, seals));
            if let Err(error) = attached {
                warn!(%peer, %error, "no mover attaches");
            }
        });
    }
}

/// What the mover's messages are opened with, and ours sealed.
type Seals = (Seal, Seal);

fn exchange(stream: TcpStream, secret: Secret) -> io::Result<(String, TcpStream, Seals)> {
    stream.set_nonblocking(false)?;
    let mut peer = Until { stream: &stream, deadline: Instant::now() + EXCHANGE };
    let intro = sealed::receive(&mut peer)?;
    let (admitting, challenge) = Admitting::new(secret, intro, rand::random()).map_err(refused)?;
    sealed::send(&mut peer, &challenge)?;
    let proved: Proved = sealed::receive(&mut peer)?;
    let (name, proved, open, seal) = admitting.proved(proved).map_err(refused)?;
    sealed::send(&mut peer, &proved)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    setsockopt(&stream, sockopt::KeepAlive, &true)?;
    setsockopt(&stream, sockopt::TcpKeepIdle, &PROBE)?;
    setsockopt(&stream, sockopt::TcpKeepInterval, &PROBE)?;
    setsockopt(&stream, sockopt::TcpUserTimeout, &(SILENCE.as_millis() as u32))?;
    Ok((name, stream, (open, seal)))
}

fn attach(movers: &Arc<Movers>, name: String, peer: SocketAddr, far: TcpStream, (open, seal): Seals) -> io::Result<()> {
    let (ours, relayed) = UnixStream::pair()?;
    let closed = Arc::new(AtomicBool::new(false));
    let (sends, receives) = ((far.try_clone()?, relayed.try_clone()?), (far.try_clone()?, relayed.try_clone()?));
    let is_closed = Arc::clone(&closed);
    let let_go = Arc::new(AtomicBool::new(false));
    let lets_go = Arc::clone(&let_go);
    thread::Builder::new().name("to-mover".into()).spawn(move || {
        let (far, near) = sends;
        let ended = sealed::seal_all(&near, &far, seal);
        // What the other thread finds then is our own doing, or the network's.
        lets_go.store(!ended.as_ref().is_err_and(is_closed_there), Ordering::Relaxed);
        hang_up(&far, &near, ended);
    })?;
    thread::Builder::new().name("from-mover".into()).spawn(move || {
        let (far, near) = receives;
        let ended = sealed::open_all(&far, &near, open);
        // Its end has closed the connection: the process is gone, and its other connections with it.
        let by_it = ended.as_ref().map_or_else(is_closed_there, |()| true);
        is_closed.store(by_it && !let_go.load(Ordering::Relaxed), Ordering::Relaxed);
        hang_up(&far, &near, ended);
    })?;
    let mover = Mover::attach(ours, name, peer, closed).inspect_err(|_| {
        let _ = far.shutdown(Shutdown::Both);
    })?;
    info!(%peer, name = mover.name(), "a mover on another host is attached");
    movers.take_in(mover)
}

/// The system at the other end says that nobody has the connection any more.
fn is_closed_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn hang_up(far: &TcpStream, near: &UnixStream, ended: io::Result<()>) {
    if let Err(error) = ended {
        info!(%error, "the connection of a mover on another host ends");
    }
    let _ = far.shutdown(Shutdown::Both);
    let _ = near.shutdown(Shutdown::Both);
}

/// How long after its connection was lost a mover that is cut off may still be at work: it notices as soon as we do.
pub(super) const CUT_OFF: Duration = SILENCE.saturating_add(Duration::from_secs(10));

/// A stream on which all reads and writes together take no longer than up to a moment.
struct Until<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Until<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(into)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn refused(error: protocol::mover::attach::AttachError) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, error)
}
