//! The running target: what is configured, opened and put together; and what the control socket can ask of it.
//!
//! ```text
//! Config ─→ stores → volumes → disks ┐
//!        ─→ cartridges → tapes       ┴→ net::Target ┐
//!        ─→ portals                                 ┴→ net::Server ← initiators
//!        ─→ movers ← CopyManager (in every LUN)
//!                     SnapshotService → views → write-protected disks among the same LUNs
//! ```
//!
//! | module | what |
//! |---|---|
//! | `apply` | from what runs to what is wanted, one change at a time or a whole file |
//! | `devices` | a LUN's device |
//! | `listening` | portals, and where movers of other hosts attach |
//! | `operator` | cartridges in and out of a library |
//! | `secrets` | which files of secrets are others by now |
//! | `snapshots` | views, and the LUNs that show them |
//! | `status` | what there is to say |
//! | `sums` | the thread that takes sums which copies by reference left out |

mod apply;
mod devices;
mod edit;
mod listening;
mod operator;
mod secrets;
mod snapshots;
mod status;
mod sums;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use protocol::control::{ErrorKind, Failure, MoverSettings};
use tracing::{info, warn};

use crate::config::{Config, Source};
use crate::library::Libraries;
use crate::lun::tape::Bell;
use crate::mover::Movers;
use crate::mover::attach::Attachments;
use crate::net::{self, Server};
use crate::snapshot::SnapshotService;
use crate::xcopy::CopyManager;
use listening::Listening;
use secrets::SecretFiles;
use snapshots::ServedView;
use sums::SumTaker;

/// How long a mover is waited for at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// A target that has opened all it serves.
#[derive(Debug)]
pub struct Daemon {
    source: Source,
    server: Arc<Server>,
    copies: Arc<CopyManager>,
    movers: Arc<Movers>,
    /// Where movers of other hosts attach.
    attachments: Mutex<Option<Attachments>>,
    libraries: Arc<Libraries>,
    /// Rings when there may be sums to take.
    bell: Arc<Bell>,
    snapshots: Arc<SnapshotService>,
    views: Mutex<BTreeMap<u64, ServedView>>,
    sums: Mutex<Option<SumTaker>>,
    /// What runs.
    config: Mutex<Config>,
    /// Where its secrets came from.
    secret_files: Mutex<SecretFiles>,
    portals: Mutex<Vec<Listening>>,
    /// Held while something is changed: one change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Daemon {
    /// Opens everything, and the ports last: who connects finds all LUNs.
    ///
    /// # Errors
    /// Whatever cannot be opened, by name.
    pub async fn start(source: Source, config: Config) -> anyhow::Result<Arc<Self>> {
        let data = &config.data;
        std::fs::create_dir_all(data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
        let movers = Movers::new(config.mover.clone());
        // Started now and not with the first copy: whoever cannot copy is told at once.
        let first = Arc::clone(&movers);
        tokio::task::spawn_blocking(move || first.ensure()).await?.context("the mover does not start")?;
        let snapshots = Arc::new(SnapshotService::new(data.clone()));
        let daemon = Arc::new(Self {
            source,
            server: Server::new(&config.limits),
            copies: CopyManager::new(Arc::clone(&movers), Arc::clone(&snapshots)),
            movers,
            attachments: Mutex::default(),
            libraries: Arc::default(),
            bell: Arc::default(),
            snapshots,
            views: Mutex::default(),
            sums: Mutex::default(),
            config: Mutex::new(Config { targets: Vec::new(), portals: Vec::new(), ..config.clone() }),
            secret_files: Mutex::default(),
            portals: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        });
        let sums_rate = config.limits.sums_mib_per_second.unwrap_or(sums::DEFAULT_MIB_PER_SECOND);
        daemon.apply(config, &[]).await.map_err(|failure| anyhow::anyhow!(failure.error))?;
        if sums_rate > 0 {
            let (server, libraries, bell) = (&daemon.server, &daemon.libraries, &daemon.bell);
            let (server, libraries, bell) = (Arc::clone(server), Arc::clone(libraries), Arc::clone(bell));
            let taker = SumTaker::start(server, libraries, bell, u64::from(sums_rate) << 20)?;
            *daemon.sums.lock().expect("no holder panics") = Some(taker);
        }
        info!(
            connections = daemon.server.most_connections(),
            connection_mib = net::most_held_by_connection() >> 20,
            session_mib = net::most_held_by_session() >> 20,
            together_mib = daemon.server.memory().limit >> 20,
            "memory of connections and sessions is bounded, each by"
        );
        Ok(daemon)
    }

    /// What carries out copies.
    #[must_use]
    pub const fn movers(&self) -> &Arc<Movers> {
        &self.movers
    }

    /// Chooses how many movers there are and how fast, for copies that run too.
    ///
    /// # Errors
    /// Numbers that cannot be, and movers that cannot be started; then the settings hold all the same.
    pub async fn set_movers(&self, settings: MoverSettings) -> Result<(), Failure> {
        let _changing = self.changing.lock().await;
        settings.check().map_err(|error| Failure { kind: ErrorKind::Invalid, error })?;
        {
            let mut running = self.running();
            running.movers = running.movers.with(&settings);
        }
        let movers = Arc::clone(&self.movers);
        let set = tokio::task::spawn_blocking(move || movers.set(settings)).await;
        let set = set.map_err(std::io::Error::other).and_then(|set| set);
        set.map_err(|error| Failure { kind: ErrorKind::Internal, error: error.to_string() })
    }

    /// Where it listens: the first portal.
    #[must_use]
    pub fn portal(&self) -> Option<SocketAddr> {
        self.portals().first().map(|portal| portal.address)
    }

    /// What runs.
    #[must_use]
    pub fn config(&self) -> Config {
        self.running().clone()
    }

    /// Takes and gives back every lock that a session needs to come, go and be seen. Blocks when one is stuck.
    #[must_use]
    pub fn is_responsive(&self) -> bool {
        let sessions: usize = self.server.targets().iter().map(|target| target.session_count()).sum();
        drop(self.running());
        sessions < usize::MAX
    }

    /// Lets initiators go, then ends what outlives connections: copies, movers; leaves disks and tapes synchronized.
    pub async fn end(&self) {
        self.server.end().await;
        let movers = Arc::clone(&self.movers);
        let ended = tokio::task::spawn_blocking(move || movers.end());
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            warn!("a mover did not end within {DRAIN:?}");
        }
        let sums = self.sums.lock().expect("no holder panics").take();
        // Behind the record that it reads.
        let _ = tokio::task::spawn_blocking(move || drop(sums)).await;
        for target in self.server.targets() {
            for (number, device) in target.luns().all() {
                let synced = tokio::task::spawn_blocking(move || devices::synchronize(&device));
                if let Ok(Err(error)) = synced.await {
                    warn!(target = target.name(), lun = number, %error, "not synchronized at the end");
                }
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Config> {
        self.config.lock().expect("no holder panics")
    }

    fn portals(&self) -> MutexGuard<'_, Vec<Listening>> {
        self.portals.lock().expect("no holder panics")
    }

    fn secret_files(&self) -> MutexGuard<'_, SecretFiles> {
        self.secret_files.lock().expect("no holder panics")
    }

    fn attachments(&self) -> MutexGuard<'_, Option<Attachments>> {
        self.attachments.lock().expect("no holder panics")
    }
}

/// No, because of what was asked.
fn refuse<T>(kind: ErrorKind, error: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { kind, error: error.into() })
}
