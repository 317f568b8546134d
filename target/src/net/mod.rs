//! iSCSI on TCP: the listener, one task per connection, and the way from a decoded command to its reply.
//!
//! ```text
//! Target::serve ─ accept ─→ Connection ─ bytes → protocol::iscsi::Session ─ commands → Device::start
//!                              ▲  └─ one vectored write ← replies ← inline | hops (blocking threads) | spawned futures
//!                              └ Message ← other connections: aborts, resets, reinstatement
//! ```
//!
//! All commands that one wake-up decodes are started together, and what they answer leaves together: that, not the way a file
//! is read, decides how many small commands a second there are. What a command does is the logical unit's; what an iSCSI PDU
//! says is [`protocol::iscsi`]'s. Follows RFC 7143 and, for task management and nexus loss, SAM-5.

mod connection;
mod hops;
mod management;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protocol::control::SessionStatus;
use protocol::iscsi::keys::Wishes;
use protocol::iscsi::login::LoggedIn;
use protocol::iscsi::{TargetConfig, TargetEntry};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info_span, warn};

use crate::lun::disk::TRANSFER_MAX;
use crate::nexus::{LunMap, Nexus, NexusCounters};
use connection::Connection;
use management::Message;

/// Connections served at a time, logged in or not; more are closed at once.
const MAX_CONNECTIONS: usize = 256;
/// Portal group of the only portal.
const PORTAL_GROUP_TAG: u16 = 1;
/// How often it is said that a new session still waits for the one it takes the place of.
const REINSTATEMENT: Duration = Duration::from_secs(10);
/// How long running commands are waited for when the target ends.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// Pause after an accept that failed for want of something, as of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An iSCSI target: its name, its LUNs, and who is logged in.
#[derive(Debug)]
pub struct Target {
    name: String,
    luns: Arc<LunMap>,
    wishes: Wishes,
    next_nexus: AtomicU64,
    next_tsih: AtomicU16,
    /// By initiator name; kept after logout, so that what a backup has carried can be read when it is over.
    counters: Mutex<BTreeMap<String, Arc<NexusCounters>>>,
    /// By nexus id.
    sessions: Mutex<BTreeMap<u64, SessionHandle>>,
}

/// A session that is logged in, as others see it.
#[derive(Debug, Clone)]
struct SessionHandle {
    nexus: Arc<Nexus>,
    messages: mpsc::UnboundedSender<Message>,
    /// Fires when the session and all it ran have ended.
    ended: CancellationToken,
}

impl Target {
    /// A target nobody is logged in to.
    #[must_use]
    pub fn new(name: impl Into<String>, luns: Arc<LunMap>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            luns,
            wishes: Wishes::default(),
            next_nexus: AtomicU64::new(1),
            next_tsih: AtomicU16::new(1),
            counters: Mutex::default(),
            sessions: Mutex::default(),
        })
    }

    /// iSCSI name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Serves initiators until `shutdown`; then asks them to log out, lets running commands end for a moment, and closes.
    ///
    /// # Errors
    /// When the listener is of no more use.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => continue,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_passing(&error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                warn!(%peer, limit = MAX_CONNECTIONS, "connection refused: too many");
                continue;
            };
            let (target, shutdown) = (Arc::clone(&self), shutdown.clone());
            let serving = async move {
                if let Err(error) = target.connection(stream, shutdown).await {
                    debug!(%error, "connection lost");
                }
                drop(permit);
            };
            connections.spawn(serving.instrument(info_span!("connection", %peer)));
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, drained).await.is_err() {
            warn!("commands still run {SHUTDOWN:?} after the end was asked for: not waited for");
        }
        Ok(())
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, shutdown: CancellationToken) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let portal = stream.local_addr()?;
        let entry = TargetEntry { name: self.name.clone(), addresses: vec![format!("{portal},{PORTAL_GROUP_TAG}")] };
        let config = TargetConfig {
            targets: vec![entry],
            portal_group_tag: PORTAL_GROUP_TAG,
            // Zero is no TSIH; two sessions of the same number are no harm while each has one connection.
            tsih: self.next_tsih.fetch_add(1, Ordering::Relaxed).max(1),
            wishes: self.wishes,
            // What VPD page B0h promises.
            max_write_length: TRANSFER_MAX as u32,
            ..Default::default()
        };
        Connection::new(self, stream, config).run(shutdown).await
    }

    /// Counters of every initiator that was ever logged in, by name.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionStatus> {
        let counters = self.counters.lock().expect("no holder panics");
        let row = |(initiator, counters): (&String, &Arc<NexusCounters>)| {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            SessionStatus {
                initiator: initiator.clone(),
                live: read(&counters.live) > 0,
                sessions: read(&counters.sessions),
                commands: read(&counters.commands),
                extended_copies: read(&counters.extended_copies),
                data_out: read(&counters.data_out),
                data_in: read(&counters.data_in),
            }
        };
        counters.iter().map(row).collect()
    }

    /// Makes the nexus of a login, once the session it takes the place of has ended: as long as a write of that one may still
    /// land, the new one must not write. RFC 7143 (6.3.5), session reinstatement.
    async fn enter(&self, logged_in: &LoggedIn, messages: mpsc::UnboundedSender<Message>) -> SessionHandle {
        let handle = SessionHandle {
            nexus: Arc::new(Nexus {
                id: self.next_nexus.fetch_add(1, Ordering::Relaxed),
                initiator: logged_in.initiator_name.clone(),
                isid: logged_in.isid,
                luns: Arc::clone(&self.luns),
                counters: self.counters_of(&logged_in.initiator_name),
            }),
            messages,
            ended: CancellationToken::new(),
        };
        let former: Vec<_> = {
            let mut sessions = self.handles();
            let alike = |other: &&SessionHandle| {
                (&other.nexus.initiator, other.nexus.isid) == (&handle.nexus.initiator, handle.nexus.isid)
            };
            let former = sessions.values().filter(alike).cloned().collect();
            sessions.insert(handle.nexus.id, handle.clone());
            former
        };
        for session in former {
            debug!(nexus = session.nexus.id, "reinstated by a new session");
            let _ = session.messages.send(Message::Close);
            while tokio::time::timeout(REINSTATEMENT, session.ended.cancelled()).await.is_err() {
                warn!(nexus = session.nexus.id, "a login waits: the session it takes the place of still runs commands");
            }
        }
        handle.nexus.counters.sessions.fetch_add(1, Ordering::Relaxed);
        handle.nexus.counters.live.fetch_add(1, Ordering::Relaxed);
        handle
    }

    /// Takes a session out whose commands have all ended.
    fn leave(&self, handle: &SessionHandle) {
        for (_, device) in self.luns.all() {
            device.common().nexus_lost(handle.nexus.id);
        }
        handle.nexus.counters.live.fetch_sub(1, Ordering::Relaxed);
        self.handles().remove(&handle.nexus.id);
        handle.ended.cancel();
    }

    fn counters_of(&self, initiator: &str) -> Arc<NexusCounters> {
        Arc::clone(self.counters.lock().expect("no holder panics").entry(initiator.to_owned()).or_default())
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<u64, SessionHandle>> {
        self.sessions.lock().expect("no holder panics")
    }
}

/// An accept that fails like this may succeed later. accept(2): errors of the new socket itself, and want of descriptors or memory.
fn is_passing(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let kinds = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
    kinds.contains(&error.kind()) || matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}
