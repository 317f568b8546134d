//! iSCSI on TCP: listeners, one task per connection, and the way from a decoded command to its reply.
//!
//! ```text
//! Server::listen ─ accept ─→ Connection ─ bytes → protocol::iscsi::Session ─ commands → Device::start
//!    │                          ▲  └─ one vectored write ← replies ← inline | hops (blocking threads) | spawned futures
//!    └ targets by name          └ Message ← other connections: aborts, resets, reinstatement
//!        └ Target: LUNs, sessions by nexus
//! ```
//!
//! A [`Server`] has portals and targets; a login picks the [`Target`] by its name, and from then on the session belongs to that
//! target. Both come and go while others serve.
//!
//! All commands that one wake-up decodes are started together, and what they answer leaves together: that, not the way a file
//! is read, decides how many small commands a second there are. What a command does is the logical unit's; what an iSCSI PDU
//! says is [`protocol::iscsi`]'s. The data of a long WRITE does not wait for its command: it is written as it comes. Follows
//! RFC 7143 and, for task management and nexus loss, SAM-5.

mod commands;
mod connection;
mod gate;
mod half_open;
mod hops;
mod management;
mod memory;
mod pace;
mod portal;
mod socket;
mod streams;
mod target;
#[cfg(test)]
mod tests;
mod turns;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use protocol::control::spec::LimitsSpec;
use protocol::control::{SessionMemory, SessionStatus};
use protocol::iscsi::keys::Wishes;
use protocol::iscsi::login::LoggedIn;
use protocol::iscsi::{TargetConfig, TargetEntry};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub use portal::Portal;
pub use target::Target;

use crate::access::Discovery;
use crate::lun::disk::TRANSFER_MAX;
use crate::metrics::Logins;
use crate::nexus::NexusCounters;
use connection::Connection;
use gate::PortalGate;
use half_open::{HalfOpen, Place};
use management::Message;
use memory::{Memory, Share};
use pace::Pace;
use portal::OpenPortal;
use target::SessionHandle;
use turns::Turns;

/// Connections served at a time, logged in or not; more are closed at once.
const MAX_CONNECTIONS: u32 = 256;
/// Time for a whole login.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that all sessions together hold for commands before each goes on with one at a time.
const MEMORY: u64 = 1 << 30;
/// How long running commands are waited for when the server ends.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// PDUs that come to nothing before a session has to wait: an initiator that recovers from an error sends fewer.
const WASTED_AT_ONCE: u32 = 1024;
/// As many are forgotten each second.
const WASTED_PER_SECOND: u32 = 16 * 1024;
/// How long a session waits at most: one that comes to its senses is not made to suffer for long.
const REST: Duration = Duration::from_millis(100);
/// Initiators whose counters are kept after logout; then those that are logged out are forgotten.
const MAX_COUNTERS: usize = 4096;

/// What sessions are negotiated for; their target may allow other numbers of connections ([`crate::access::Access`]). Nothing of a
/// session outlives its last connection.
const WISHES: Wishes = Wishes { max_connections: 4, error_recovery_level: 1, default_time2retain: 0, ..Wishes::DEFAULT };

/// All that is reached over the network: portals, targets, and how much of it at a time.
#[derive(Debug)]
pub struct Server {
    room: Arc<Semaphore>,
    logins: Logins,
    memory: Arc<Memory>,
    half_open: Arc<HalfOpen>,
    max_connections: u32,
    login_timeout: Duration,
    discovery: RwLock<Arc<Discovery>>,
    shutdown: CancellationToken,
    next_tsih: AtomicU16,
    /// Of the sessions' tasks.
    turns: Turns,
    /// PDUs of all sessions that came to nothing.
    wasted: Mutex<Pace>,
    /// How long a connection that has had something to do looks for more instead of sleeping, in microseconds.
    busy_poll_us: AtomicU64,
    /// By name in lower case: RFC 7143 (4.2.7.1) compares names so.
    targets: RwLock<BTreeMap<String, Arc<Target>>>,
    /// By the address that is listened on.
    portals: Mutex<BTreeMap<SocketAddr, OpenPortal>>,
    /// By initiator name; kept after logout, so that what a backup has carried can be read when it is over.
    counters: Mutex<BTreeMap<String, Arc<NexusCounters>>>,
}

impl Server {
    /// Without portals and targets.
    #[must_use]
    pub fn new(limits: &LimitsSpec) -> Arc<Self> {
        let max_connections = limits.connections.unwrap_or(MAX_CONNECTIONS);
        Arc::new(Self {
            half_open: Arc::default(),
            logins: Logins::default(),
            memory: Memory::new(limits.memory_mib.map_or(MEMORY, |mib| u64::from(mib) << 20)),
            room: Arc::new(Semaphore::new(max_connections as usize)),
            max_connections,
            login_timeout: limits.login_seconds.map_or(LOGIN_TIMEOUT, |seconds| Duration::from_secs(seconds.into())),
            discovery: RwLock::default(),
            shutdown: CancellationToken::new(),
            next_tsih: AtomicU16::new(1),
            turns: Turns::default(),
            wasted: Mutex::new(Pace::new(WASTED_AT_ONCE, WASTED_PER_SECOND).pausing_at_most(REST)),
            busy_poll_us: AtomicU64::new(0),
            targets: RwLock::default(),
            portals: Mutex::default(),
            counters: Mutex::default(),
        })
    }

    /// From now on every connection that has had something to do looks for more for `time` before it sleeps: answers come sooner,
    /// and a processor is busy meanwhile. Zero, as at first, is to sleep at once.
    pub fn busy_poll(&self, time: Duration) {
        self.busy_poll_us.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn busy_poll_time(&self) -> Option<Duration> {
        let time = self.busy_poll_us.load(Ordering::Relaxed);
        (time > 0).then(|| Duration::from_micros(time))
    }

    /// Serves one more target from now on.
    ///
    /// # Errors
    /// The target that has this name already.
    pub fn add_target(self: &Arc<Self>, target: Arc<Target>) -> Result<(), Arc<Target>> {
        let mut targets = self.targets.write().expect("no holder panics");
        match targets.get(&key(target.name())) {
            Some(there) => Err(Arc::clone(there)),
            None => {
                target.belongs_to(self);
                targets.insert(key(target.name()), target);
                Ok(())
            }
        }
    }

    /// Takes a target out: nobody logs in to it any more, and its sessions are closed.
    pub fn remove_target(&self, name: &str) -> Option<Arc<Target>> {
        let target = self.targets.write().expect("no holder panics").remove(&key(name))?;
        target.close();
        Some(target)
    }

    /// The target of a name.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<Arc<Target>> {
        self.targets.read().expect("no holder panics").get(&key(name)).cloned()
    }

    /// All targets, by name.
    #[must_use]
    pub fn targets(&self) -> Vec<Arc<Target>> {
        self.targets.read().expect("no holder panics").values().cloned().collect()
    }

    /// Logins by their result.
    #[must_use]
    pub fn logins(&self) -> &Logins {
        &self.logins
    }

    /// Connections that may be open at a time, logged in or not.
    #[must_use]
    pub fn most_connections(&self) -> u32 {
        self.max_connections
    }

    /// Connections that are open, logged in or not.
    #[must_use]
    pub fn connection_count(&self) -> u64 {
        (self.max_connections as usize).saturating_sub(self.room.available_permits()) as u64
    }

    /// How discovery sessions are treated.
    #[must_use]
    pub fn discovery(&self) -> Arc<Discovery> {
        Arc::clone(&self.discovery.read().expect("no holder panics"))
    }

    /// Chooses how discovery sessions are treated from now on.
    pub fn set_discovery(&self, discovery: Discovery) {
        *self.discovery.write().expect("no holder panics") = Arc::new(discovery);
    }

    /// Accepts no more, asks all initiators to log out, lets running commands end for a moment, and closes.
    pub async fn end(&self) {
        self.shutdown.cancel();
        self.portals().clear();
        // Every connection holds a permit.
        if tokio::time::timeout(SHUTDOWN, self.room.acquire_many(self.max_connections)).await.is_err() {
            warn!("commands still run {SHUTDOWN:?} after the end was asked for: not waited for");
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        portal: Portal,
        permit: OwnedSemaphorePermit,
        place: Place,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let config = TargetConfig {
            portal_group_tag: portal.tag,
            gate: Arc::new(PortalGate::new(Arc::clone(&self), portal, stream.local_addr()?)),
            // Zero is no TSIH. A session is named by initiator, ISID and TSIH, so that one number for two does no harm.
            tsih: self.next_tsih.fetch_add(1, Ordering::Relaxed).max(1),
            login_timeout: self.login_timeout,
            ..session_config()
        };
        let shutdown = self.shutdown.clone();
        let evicted = place.evicted();
        let connection = Connection::new(self, stream, permit, config, place);
        tokio::select! {
            () = connection.run(shutdown) => {}
            // Nothing has to be ended for it: it has no session, or one for discovery.
            () = evicted.cancelled() => {
                debug!("made room for others: it has not logged in");
            }
        }
        Ok(())
    }

    /// The targets that a portal serves and that are to be shown, with every address each is reached at; the one that was dialled
    /// comes first.
    fn entries(&self, reached: SocketAddr, through: &Portal, shown: impl Fn(&Target) -> bool) -> Vec<TargetEntry> {
        let mut addresses: Vec<_> = through.address(reached, reached).map(|here| (through.tag, here)).into_iter().collect();
        for (bound, open) in &*self.portals() {
            let told = open.portal.address(*bound, reached).map(|address| (open.portal.tag, address));
            addresses.extend(told.filter(|told| !addresses.contains(told)));
        }
        let served = |target: &Arc<Target>| TargetEntry {
            name: target.name().to_owned(),
            addresses: addresses
                .iter()
                .filter(|(tag, _)| target.is_in_group(*tag))
                .map(|(tag, address)| format!("{address},{tag}"))
                .collect(),
        };
        self.targets().iter().filter(|target| target.is_in_group(through.tag) && shown(target)).map(served).collect()
    }

    /// Makes the nexus of a login, see [`Target::enter`]. `None` when the target was taken out meanwhile.
    async fn enter(
        &self,
        logged_in: &LoggedIn,
        portal_group: u16,
        messages: mpsc::UnboundedSender<Message>,
    ) -> Option<SessionHandle> {
        let target = self.target(logged_in.target_name.as_ref()?)?;
        let counters = self.counters_of(&logged_in.initiator_name);
        target.enter(logged_in, portal_group, counters, messages).await
    }

    /// The session that a connection wants to join, see [`Target::session`].
    fn session(&self, logged_in: &LoggedIn, portal_group: u16) -> Option<SessionHandle> {
        self.target(logged_in.target_name.as_ref()?)?.session(logged_in, portal_group)
    }

    /// What sessions hold together, and how much they may.
    #[must_use]
    pub fn memory(&self) -> SessionMemory {
        self.memory.status()
    }

    fn share(&self) -> Share {
        Share::of(Arc::clone(&self.memory))
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
                live_sessions: read(&counters.live),
                commands: read(&counters.commands),
                extended_copies: read(&counters.extended_copies),
                data_out: read(&counters.data_out),
                data_in: read(&counters.data_in),
            }
        };
        counters.iter().map(row).collect()
    }

    fn counters_of(&self, initiator: &str) -> Arc<NexusCounters> {
        let mut counters = self.counters.lock().expect("no holder panics");
        if counters.len() >= MAX_COUNTERS && !counters.contains_key(initiator) {
            counters.retain(|_, counters| counters.live.load(Ordering::Relaxed) > 0);
        }
        Arc::clone(counters.entry(initiator.to_owned()).or_default())
    }

    fn portals(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, OpenPortal>> {
        self.portals.lock().expect("no holder panics")
    }
}

/// What all sessions have alike.
fn session_config() -> TargetConfig {
    // What VPD page B0h promises.
    TargetConfig { wishes: WISHES, max_write_length: TRANSFER_MAX as u32, ..Default::default() }
}

/// Bytes that one connection can make the target hold at most, in its buffers of both directions.
#[must_use]
pub const fn most_held_by_connection() -> u64 {
    wire::MOST_HELD
}

/// Bytes that one session can make the target hold at most, beside those of its connections: data on its way to logical units and
/// from them, and what may have to be sent again.
#[must_use]
pub fn most_held_by_session() -> u64 {
    session_config().most_held() + commands::MOST_HELD
}

/// How names are compared.
fn key(name: &str) -> String {
    name.to_lowercase()
}
