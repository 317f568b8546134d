//! A mover on another host: connects to its target, proves itself, has the target prove itself, and is a mover from then on.
//!
//! It gets no files: it works on remote ends, to which it logs in with credentials of its own ([`super::credentials`]). When the target
//! is gone, or the network is silent for too long, the process ends with whatever it was doing, and only with it the connection: so the
//! target knows that nothing of it moves any more. Who comes again is another process ([`super::kept`]). The exchange is
//! [`protocol::mover::attach`]'s.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use protocol::mover::attach::{Attaching, SECRET_LEAST, SECRET_MOST, Seal, Secret};
use protocol::mover::sealed;
use tracing::info;

/// Time for the connection, and for each answer of the exchange.
const EXCHANGE: Duration = Duration::from_secs(10);
/// A target that the network keeps from us for so long is lost.
const SILENCE: Duration = Duration::from_secs(20);
/// Between two probes of a connection on which nothing is said.
const PROBE: u32 = 5;

/// A connection on which both sides have proved themselves. Has no thread yet, so that the process can be caged first.
#[derive(Debug)]
pub struct Attached {
    far: TcpStream,
    ours: UnixStream,
    relayed: UnixStream,
    seal: Seal,
    open: Seal,
}

/// Attaches to a target that was reached.
///
/// # Errors
/// What the network gives; `PermissionDenied` when either does not prove to know the secret.
pub fn attach(far: TcpStream, secret: Secret, name: String) -> io::Result<Attached> {
    far.set_nodelay(true)?;
    far.set_read_timeout(Some(EXCHANGE))?;
    far.set_write_timeout(Some(SILENCE))?;
    let mut nonce = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    let (attaching, intro) = Attaching::new(secret, name, nonce);
    sealed::send(&far, &intro)?;
    let (proving, proved) = attaching.challenged(sealed::receive(&far)?).map_err(refused)?;
    sealed::send(&far, &proved)?;
    let (seal, open) = proving.proved(sealed::receive(&far)?).map_err(refused)?;
    far.set_read_timeout(None)?;
    setsockopt(&far, sockopt::KeepAlive, &true)?;
    setsockopt(&far, sockopt::TcpKeepIdle, &PROBE)?;
    setsockopt(&far, sockopt::TcpKeepInterval, &PROBE)?;
    setsockopt(&far, sockopt::TcpUserTimeout, &(SILENCE.as_millis() as u32))?;
    let (ours, relayed) = UnixStream::pair()?;
    Ok(Attached { far, ours, relayed, seal, open })
}

impl Attached {
    /// Carries messages from now on; gives the socket on which the target then speaks as it does to a mover of its own.
    ///
    /// # Errors
    /// What the system gives.
    pub fn relay(self) -> io::Result<UnixStream> {
        let Self { far, ours, relayed, seal, open } = self;
        let (sends, receives) = ((far.try_clone()?, relayed.try_clone()?), (far, relayed));
        thread::Builder::new().name("to-target".into()).spawn(move || {
            let (far, near) = sends;
            end(&near, sealed::seal_all(&near, &far, seal));
        })?;
        thread::Builder::new().name("from-target".into()).spawn(move || {
            let (far, near) = receives;
            end(&near, sealed::open_all(&far, &near, open));
            // Nothing that this process does may outlive the connection: that ends with it.
            std::mem::forget(far);
        })?;
        Ok(ours)
    }
}

/// Connects to a target.
///
/// # Errors
/// What the network gives for the last of its addresses.
pub fn connect(target: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{target} has no address"));
    for address in target.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, EXCHANGE) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The socket on which the process listens ends, and so does the process.
fn end(near: &UnixStream, ended: io::Result<()>) {
    info!(?ended, "the connection to the target ends");
    let _ = near.shutdown(Shutdown::Both);
}

/// Reads a secret from a file that is its owner's alone.
///
/// # Errors
/// What the system gives, and `InvalidInput` for a file that others may read or that holds too little.
pub fn read_secret(path: &Path) -> io::Result<Secret> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
        return Err(invalid(format!("{} must be a file of mode 0600", path.display())));
    }
    let mut bytes = Vec::with_capacity(SECRET_MOST as usize);
    file.take(SECRET_MOST).read_to_end(&mut bytes)?;
    Secret::new(bytes).ok_or_else(|| invalid(format!("{} holds fewer than {SECRET_LEAST} bytes", path.display())))
}

fn refused(error: protocol::mover::attach::AttachError) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, error)
}
