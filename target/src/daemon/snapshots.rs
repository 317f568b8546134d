//! Snapshots as LUNs: taken when a disk is quiet, served beside their sources, dropped by name or with their lease.
//!
//! Their LUNs come and go without a unit attention: who asked for one looks at it, and the others have no use for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::control::{ErrorKind, Failure, Snapshot, SnapshotEvent, SnapshotRequest};
use protocol::units::{BlockCount, ByteRange};
use tokio::sync::mpsc;
use tracing::info;

use super::{Daemon, refuse};
use crate::lun::Device;
use crate::lun::common::{Common, CopyService, Identity, LogicalUnit};
use crate::lun::disk::Disk;
use crate::net::Target;
use crate::quiet::Waiting;
use crate::snapshot::{self, Keeper, SnapshotError, View};
use crate::store::BlockStore;
use crate::volume::Volume;

/// Snapshots get LUNs from here on, so that a disk added to the configuration does not take the number of one.
const FIRST_SNAPSHOT_LUN: u16 = 128;

/// A live snapshot and the LUN that shows it.
#[derive(Debug)]
pub(super) struct ServedView {
    view: Arc<View>,
    target: Arc<Target>,
    /// As it was when it was made; what changes is asked of the view.
    made: Snapshot,
}

impl Daemon {
    /// The LUN that a LUN of a target is a snapshot of, if it is one.
    pub(super) fn source_of(&self, target: &str, lun: u16) -> Option<u16> {
        let views = self.views.lock().expect("no holder panics");
        views.values().find(|served| served.target.name() == target && served.made.lun == lun).map(|served| served.made.of_lun)
    }

    /// How many live snapshots there are of a LUN of a target.
    pub(super) fn snapshots_of(&self, target: &str, lun: u16) -> usize {
        let views = self.views.lock().expect("no holder panics");
        views.values().filter(|served| served.target.name() == target && served.made.of_lun == lun).count()
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
        let target = self.snapshot_target(request)?;
        let sources = request.luns.iter().map(|lun| self.source(&target, *lun, request)).collect::<Result<Vec<_>, _>>()?;
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
            made.push(self.serve_view(&target, disk, &view, |id, lun, range| Snapshot {
                id,
                target: target.name().to_owned(),
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

    /// The target that a request names, or the only one.
    fn snapshot_target(&self, request: &SnapshotRequest) -> Result<Arc<Target>, Failure> {
        let targets = self.server.targets();
        match (&request.target, targets.as_slice()) {
            (Some(name), _) => self
                .server
                .target(name)
                .ok_or_else(|| Failure { kind: ErrorKind::NotFound, error: format!("there is no target {name}") }),
            (None, [only]) => Ok(Arc::clone(only)),
            (None, []) => refuse(ErrorKind::NotFound, "there is no target"),
            (None, _) => refuse(ErrorKind::Invalid, "there are several targets: name the one whose LUNs are meant"),
        }
    }

    /// What the request means by a LUN number.
    fn source(&self, target: &Target, lun: u16, request: &SnapshotRequest) -> Result<(Arc<Disk>, snapshot::Source), Failure> {
        if request.range.is_some() && request.luns.len() != 1 {
            return refuse(ErrorKind::Invalid, "a range goes with one LUN");
        }
        let disk = match target.luns().number(lun) {
            Some(Device::Disk(disk)) => disk,
            Some(_) => return refuse(ErrorKind::Invalid, format!("LUN {lun} is no disk; a snapshot is of a disk")),
            None => return refuse(ErrorKind::NotFound, format!("there is no LUN {lun}")),
        };
        if self.source_of(target.name(), lun).is_some() {
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
        Ok((disk, snapshot::Source { volume, range, keeper: Keeper::Asker }))
    }

    fn serve_view(
        &self,
        target: &Arc<Target>,
        source: &Disk,
        view: &Arc<View>,
        made: impl FnOnce(u64, u16, ByteRange) -> Snapshot,
    ) -> Snapshot {
        let backing = format!("snapshot {} of {}", view.id(), source.common().identity.serial);
        let identity = Identity::new(target.name(), &backing, "SNAPSHOT");
        let copies: Arc<dyn CopyService> = self.copies.clone();
        let volume = Volume::new(Arc::clone(view) as Arc<dyn BlockStore>);
        let disk = Disk::new(Common::new(identity, Some(copies)), volume, source.block_length());
        let mut views = self.views.lock().expect("no holder panics");
        let lun = target.add_lun(FIRST_SNAPSHOT_LUN, Device::Disk(disk));
        let made = made(view.id(), lun, view.range());
        views.insert(view.id(), ServedView { view: Arc::clone(view), target: Arc::clone(target), made: made.clone() });
        made
    }

    /// Ends a snapshot: its LUN is gone, and copies that still read it fail.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn drop_snapshot(&self, id: u64) -> Result<(), Failure> {
        let served = self.views.lock().expect("no holder panics").remove(&id);
        let Some(served) = served else {
            return refuse(ErrorKind::NotFound, format!("there is no snapshot {id}"));
        };
        served.target.remove_lun(served.made.lun);
        // Waits for writers that are just copying up for it.
        let ended = tokio::task::spawn_blocking(move || served.view.end()).await;
        ended.map_err(|error| Failure { kind: ErrorKind::Internal, error: error.to_string() })
    }
}

impl ServedView {
    pub(super) fn now(&self) -> Snapshot {
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
