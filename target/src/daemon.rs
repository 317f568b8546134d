//! The running target: what is configured, opened and put together; and what the control socket can ask of it.
//!
//! ```text
//! Config ─→ stores → volumes → disks ┐
//!        ─→ cartridges → tapes       ┴→ LunMap → net::Target ← initiators
//!        ─→ movers ← CopyManager (in every LUN)
//!                     SnapshotService → views → write-protected disks in the same LunMap
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use protocol::control::{ErrorKind, Failure, LunStatus, Snapshot, SnapshotEvent, SnapshotRequest, Status};
use protocol::units::{BlockCount, ByteRange};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::{self, Config};
use crate::lun::Device;
use crate::lun::common::{Common, CopyService, Identity, LogicalUnit};
use crate::lun::disk::Disk;
use crate::lun::tape::Tape;
use crate::mover::Movers;
use crate::net::{Portal, Server, Target};
use crate::nexus::LunMap;
use crate::quiet::Waiting;
use crate::snapshot::{self, SnapshotError, SnapshotService, View};
use crate::store::BlockStore;
use crate::store::null::NullStore;
use crate::store::raw::{RawSpec, RawStore};
use crate::volume::Volume;
use crate::xcopy::CopyManager;

/// Snapshots get LUNs from here on, so that a disk added to the configuration does not take the number of one.
const FIRST_SNAPSHOT_LUN: u16 = 128;

/// How long a mover is waited for at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// A target that has opened all it serves.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    server: Arc<Server>,
    luns: Arc<LunMap>,
    copies: Arc<CopyManager>,
    movers: Arc<Movers>,
    snapshots: SnapshotService,
    views: Mutex<BTreeMap<u64, ServedView>>,
    portal: SocketAddr,
}

/// A live snapshot and the LUN that shows it.
#[derive(Debug)]
struct ServedView {
    view: Arc<View>,
    /// As it was when it was made; what changes is asked of the view.
    made: Snapshot,
}

impl Daemon {
    /// Opens everything, and the port last: who connects finds all LUNs.
    ///
    /// # Errors
    /// Whatever cannot be opened, by name.
    pub async fn start(config: &Config) -> anyhow::Result<Arc<Self>> {
        let data = &config.data;
        std::fs::create_dir_all(data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
        let movers = Movers::new(config.mover.clone());
        // Started now and not with the first copy: whoever cannot copy is told at once.
        let first = Arc::clone(&movers);
        tokio::task::spawn_blocking(move || first.ensure()).await?.context("the mover does not start")?;
        let copies = CopyManager::new(Arc::clone(&movers));
        let luns = Arc::new(LunMap::default());
        for (number, lun) in (0..).zip(&config.luns) {
            let device = open_lun(config, lun, &copies).with_context(|| format!("LUN {number}"))?;
            luns.add(number, device);
        }
        let listener = TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
        let server = Server::new();
        server.busy_poll(config.busy_poll.map_or(Duration::ZERO, |time| time.0));
        if server.add_target(Target::new(config.target.clone(), Arc::clone(&luns))).is_err() {
            anyhow::bail!("target {} is there twice", config.target);
        }
        let portal = server.listen(listener, Portal::default())?;
        Ok(Arc::new(Self {
            config: config.clone(),
            server,
            luns,
            copies,
            movers,
            snapshots: SnapshotService::new(data.clone()),
            views: Mutex::default(),
            portal,
        }))
    }

    /// Where it listens.
    #[must_use]
    pub fn portal(&self) -> SocketAddr {
        self.portal
    }

    /// Lets initiators go, then ends what outlives connections: copies, movers; leaves disks and tapes synchronized.
    pub async fn end(&self) {
        self.server.end().await;
        let movers = Arc::clone(&self.movers);
        let ended = tokio::task::spawn_blocking(move || movers.end());
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            warn!("a mover did not end within {DRAIN:?}");
        }
        for (number, device) in self.luns.all() {
            let synced = tokio::task::spawn_blocking(move || match device {
                Device::Disk(disk) => disk.volume().sync(),
                Device::Tape(tape) => tape.sync(),
                // Every move was recorded before it was answered.
                Device::Changer(_) => Ok(()),
            });
            if let Ok(Err(error)) = synced.await {
                warn!(lun = number, %error, "not synchronized at the end");
            }
        }
    }

    /// Everything there is to say.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            target: self.config.target.clone(),
            portal: self.portal.to_string(),
            luns: self.luns.all().iter().map(|(number, device)| self.lun_status(*number, device)).collect(),
            sessions: self.server.sessions(),
            snapshots: self.views.lock().expect("no holder panics").values().map(ServedView::now).collect(),
            copies: self.copies.status(),
            movers: self.movers.status(),
        }
    }

    fn lun_status(&self, number: u16, device: &Device) -> LunStatus {
        let backing = match self.config.luns.get(usize::from(number)) {
            Some(config::Lun::Disk(disk)) => disk.path.display().to_string(),
            Some(config::Lun::Tape(tape)) => tape.path.display().to_string(),
            None => format!("a moment of LUN {}", self.source_of(number).unwrap_or_default()),
        };
        let naa = device.common().identity.naa.iter().map(|byte| format!("{byte:02x}")).collect();
        match device {
            Device::Disk(disk) => LunStatus {
                lun: number,
                kind: if self.source_of(number).is_some() { "snapshot" } else { "disk" }.to_owned(),
                size: disk.volume().store().size(),
                block_length: Some(disk.block_length().0),
                backing,
                naa,
                tape: None,
                library: None,
                quiet_for_ms: disk.volume().quiet().quiet_for.map(|time| time.as_millis() as u64),
            },
            Device::Tape(tape) => {
                let (capacity, tape) = tape.status();
                let (kind, block_length, quiet_for_ms) = ("tape".to_owned(), None, None);
                let (tape, library) = (Some(tape), None);
                LunStatus { lun: number, kind, size: capacity, block_length, backing, naa, tape, quiet_for_ms, library }
            }
            Device::Changer(changer) => {
                let (kind, block_length, quiet_for_ms) = ("changer".to_owned(), None, None);
                let (tape, library) = (None, Some(changer.status()));
                LunStatus { lun: number, kind, size: 0, block_length, backing, naa, tape, quiet_for_ms, library }
            }
        }
    }

    fn source_of(&self, lun: u16) -> Option<u16> {
        let views = self.views.lock().expect("no holder panics");
        views.values().find(|served| served.made.lun == lun).map(|served| served.made.of_lun)
    }

    /// Waits for quiet, takes the views and serves them as LUNs. Says how the wait goes in `events`, where there is room.
    ///
    /// # Errors
    /// Why there is no snapshot. Then nothing has changed.
    pub async fn snapshot(
        &self,
        request: &SnapshotRequest,
        events: &mpsc::Sender<SnapshotEvent>,
    ) -> Result<Vec<Snapshot>, Failure> {
        let sources = request.luns.iter().map(|lun| self.source(*lun, request)).collect::<Result<Vec<_>, _>>()?;
        let wanted = snapshot::Request {
            sources: sources.iter().map(|(_, source)| source.clone()).collect(),
            quiet: Duration::from_millis(request.quiet_ms),
            timeout: Duration::from_millis(request.timeout_ms),
        };
        let taken = self.snapshots.take(wanted, |waiting| drop(events.try_send(waiting_event(waiting)))).await?;
        info!(luns = ?request.luns, quiet = ?taken.waiting.quiet_for, held = ?taken.held, "snapshot taken");
        let moment = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let mut made = Vec::new();
        for ((disk, _), (of_lun, view)) in sources.iter().zip(request.luns.iter().zip(taken.views)) {
            made.push(self.serve_view(disk, &view, |id, lun, range| Snapshot {
                id,
                of_lun: *of_lun,
                lun,
                range,
                block_length: disk.block_length().0,
                taken_unix_ms: moment(taken.at),
                waited_ms: taken.waiting.waited.as_millis() as u64,
                quiet_for_ms: taken.waiting.quiet_for.as_millis() as u64,
                held_us: taken.held.as_micros() as u64,
                live: true,
                copied_bytes: 0,
            }));
        }
        Ok(made)
    }

    /// What the request means by a LUN number.
    fn source(&self, lun: u16, request: &SnapshotRequest) -> Result<(Arc<Disk>, snapshot::Source), Failure> {
        let refuse = |kind, error: String| Err(Failure { kind, error });
        if request.range.is_some() && request.luns.len() != 1 {
            return refuse(ErrorKind::Invalid, "a range goes with one LUN".to_owned());
        }
        let disk = match self.luns.number(lun) {
            Some(Device::Disk(disk)) => disk,
            Some(Device::Tape(_)) => return refuse(ErrorKind::Invalid, format!("LUN {lun} is a tape; a snapshot is of a disk")),
            Some(Device::Changer(_)) => return refuse(ErrorKind::Invalid, format!("LUN {lun} is a changer; a snapshot is of a disk")),
            None => return refuse(ErrorKind::NotFound, format!("there is no LUN {lun}")),
        };
        if self.source_of(lun).is_some() {
            return refuse(ErrorKind::Invalid, format!("LUN {lun} is a snapshot itself"));
        }
        let range = match request.range {
            None => None,
            Some((lba, blocks)) => {
                let range = disk.block_length().byte_range(lba, BlockCount(blocks));
                match range.filter(|range| range.len > 0 && range.end() <= disk.volume().store().size()) {
                    Some(range) => Some(range),
                    None => return refuse(ErrorKind::Invalid, format!("LUN {lun} has no {blocks} blocks from {lba}")),
                }
            }
        };
        let volume = Arc::clone(disk.volume());
        Ok((disk, snapshot::Source { volume, range }))
    }

    fn serve_view(&self, source: &Disk, view: &Arc<View>, made: impl FnOnce(u64, u16, ByteRange) -> Snapshot) -> Snapshot {
        let backing = format!("snapshot {} of {}", view.id(), source.common().identity.serial);
        let identity = Identity::new(&self.config.target, &backing, "SNAPSHOT");
        let copies: Arc<dyn CopyService> = self.copies.clone();
        let volume = Volume::new(Arc::clone(view) as Arc<dyn BlockStore>);
        let disk = Disk::new(Common::new(identity, Some(copies)), volume, source.block_length());
        let mut views = self.views.lock().expect("no holder panics");
        let lun = self.luns.add(FIRST_SNAPSHOT_LUN, Device::Disk(disk));
        let made = made(view.id(), lun, view.range());
        views.insert(view.id(), ServedView { view: Arc::clone(view), made: made.clone() });
        made
    }

    /// Ends a snapshot: its LUN is gone, and copies that still read it fail.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn drop_snapshot(&self, id: u64) -> Result<(), Failure> {
        let served = self.views.lock().expect("no holder panics").remove(&id);
        let Some(served) = served else {
            return Err(Failure { kind: ErrorKind::NotFound, error: format!("there is no snapshot {id}") });
        };
        self.luns.remove(served.made.lun);
        // Waits for writers that are just copying up for it.
        let ended = tokio::task::spawn_blocking(move || served.view.end()).await;
        ended.map_err(|error| Failure { kind: ErrorKind::Internal, error: error.to_string() })
    }
}

impl ServedView {
    fn now(&self) -> Snapshot {
        let live = self.view.failure().is_none();
        Snapshot { live, copied_bytes: self.view.copied_bytes(), ..self.made.clone() }
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::NeverQuiet(_) => ErrorKind::NeverQuiet,
            SnapshotError::HoldTooLong(_) => ErrorKind::HoldTooLong,
            SnapshotError::Invalid(_) => ErrorKind::Invalid,
            SnapshotError::CopyStore(_) => ErrorKind::SnapshotFailed,
        };
        Self { kind, error: error.to_string() }
    }
}

fn waiting_event(waiting: Waiting) -> SnapshotEvent {
    SnapshotEvent::Waiting {
        waited_ms: waiting.waited.as_millis() as u64,
        quiet_for_ms: waiting.quiet_for.as_millis() as u64,
        writes_seen: waiting.writes_seen,
    }
}

fn open_lun(config: &Config, lun: &config::Lun, copies: &Arc<CopyManager>) -> anyhow::Result<Device> {
    let common = |path: &Path, product: &str| {
        // The name stays the same whatever folder the target is started from.
        let backing = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let service: Arc<dyn CopyService> = copies.clone();
        let common = Common::new(Identity::new(&config.target, &backing.display().to_string(), product), Some(service));
        common.keep_in(&config.data.join("luns"))
    };
    Ok(match lun {
        config::Lun::Disk(disk) => {
            let store = open_store(disk).with_context(|| disk.path.display().to_string())?;
            let length = disk.options.block_length;
            anyhow::ensure!(
                store.size().is_multiple_of(length.bytes()),
                "{} has {} bytes, which is no whole number of {}-byte blocks",
                disk.path.display(),
                store.size(),
                length.0
            );
            Device::Disk(Disk::new(common(&disk.path, "DISK")?, Volume::new(store), disk.options.clone()))
        }
        config::Lun::Tape(tape) => {
            let capacity = tape.capacity.map(|size| size.as_u64());
            let opened =
                Tape::open(common(&tape.path, "TAPE")?, &tape.path, capacity).with_context(|| tape.path.display().to_string())?;
            Device::Tape(opened)
        }
    })
}

fn open_store(disk: &config::Disk) -> io::Result<Arc<dyn BlockStore>> {
    if disk.path == Path::new("/dev/null") {
        let size = disk.size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a disk of nothing wants a size"))?;
        return Ok(Arc::new(NullStore::new(size.as_u64())));
    }
    let store = if disk.options.read_only {
        RawStore::open_read_only(&disk.path)?
    } else {
        RawStore::open(&RawSpec { path: PathBuf::clone(&disk.path), size: disk.size.map(|size| size.as_u64()) })?
    };
    Ok(Arc::new(store))
}
