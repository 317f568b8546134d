//! Views for agents that cannot ask for one: the policy `xcopy_view = "lease"` of a disk.
//!
//! The first copy of an I_T nexus from such a disk onto a tape waits until the disk is quiet and takes a view of it; later ones
//! read that same view, so that what lies on a tape is of one moment though it took many commands. A lease ends when the tape is
//! rewound or unloaded, by a command to it or by its changer, a reservation of the nexus is released, the nexus or the disk is
//! gone, or nobody has used it for a minute. Who rewinds or unloads a tape of another target is not seen here: the next copy onto it
//! finds it at its beginning, and the lease ends then. Copies that read its view by then still end. A view that is lost is not replaced before its lease ends: its copies fail, and nobody gets one half of this
//! moment and the other half of another.
//!
//! What has no such policy is read as it is. Follows no standard: SPC-4 leaves open what a copy source shows while it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use protocol::mover::RemoteTarget;
use protocol::scsi::{LunAddress, Sense, Status};
use protocol::units::ByteRange;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::plan::{Plan, PlannedEnd};
use super::tokens::{Moment, Rod, no_view};
use crate::lun::common::{LeaseEnd, LogicalUnit};
use crate::lun::disk::{Copying, Disk};
use crate::nexus::Nexus;
use crate::remote::RemoteUnit;
use crate::snapshot::{Keeper, SnapshotService, Source};
use crate::task::Response;

/// So long nobody need use a lease.
const IDLE: Duration = Duration::from_secs(60);

/// I_T nexus, and [`crate::lun::Device::address`] of the disk.
type Key = (u64, usize);

/// One disk's view for one nexus.
#[derive(Debug)]
struct Lease {
    key: Key,
    initiator: String,
    /// Whose turn it is to take the view.
    taking: tokio::sync::Mutex<()>,
    taken: OnceLock<Taken>,
    usage: Mutex<Usage>,
}

#[derive(Debug)]
struct Taken {
    rod: Arc<Rod>,
    at: SystemTime,
}

#[derive(Debug)]
struct Usage {
    /// Addresses of the tapes that were written from it.
    tapes: BTreeSet<usize>,
    /// The same of other targets.
    remote_tapes: Vec<(RemoteTarget, LunAddress)>,
    copies: usize,
    last_used: Instant,
}

impl Lease {
    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().expect("no holder panics")
    }

    /// One of the tapes of other targets that were written from it has been rewound since.
    fn finds_rewound(&self, tapes: &[Arc<RemoteUnit>]) -> bool {
        let usage = self.usage();
        let written =
            |tape: &RemoteUnit| usage.remote_tapes.iter().any(|(target, lun)| *target == tape.target && *lun == tape.lun);
        // A copy that is under way may not have come to its first record.
        usage.copies == 0 && tapes.iter().any(|tape| tape.stood_at.is_some_and(|place| place.object == 0) && written(tape))
    }

    fn ends_with(&self, end: LeaseEnd) -> bool {
        let (nexus, disk) = self.key;
        let has_tape = |tape| self.usage().tapes.contains(&tape);
        match end {
            LeaseEnd::Tape { tape } => has_tape(tape),
            LeaseEnd::Reservation { nexus: of, device } => nexus == of && (disk == device || has_tape(device)),
            LeaseEnd::Nexus { nexus: lost } => nexus == lost,
            LeaseEnd::Disk { disk: gone } => disk == gone,
        }
    }
}

/// A lease's view, while a copy reads it.
#[derive(Debug)]
pub struct Leased {
    lease: Arc<Lease>,
    _copying: Copying,
}

impl Drop for Leased {
    fn drop(&mut self) {
        let mut usage = self.lease.usage();
        usage.copies -= 1;
        usage.last_used = Instant::now();
    }
}

/// What a copy wants of a disk whose policy is to lease views.
struct Wanted {
    /// In the plan.
    end: usize,
    disk: Arc<Disk>,
    tapes: Vec<usize>,
    remote_tapes: Vec<Arc<RemoteUnit>>,
}

/// What is told of a lease.
#[derive(Debug)]
pub struct LeaseFacts {
    /// [`crate::lun::Device::address`] of the disk.
    pub disk: usize,
    /// iSCSI name.
    pub initiator: String,
    /// The moment.
    pub taken: SystemTime,
    /// Copies that read it now.
    pub copies: usize,
    /// Bytes saved by copy on write.
    pub copied_bytes: u64,
    /// False when reads of it fail.
    pub live: bool,
}

/// All leases of a process.
#[derive(Debug, Default)]
pub struct Leases {
    leases: Mutex<BTreeMap<Key, Arc<Lease>>>,
}

impl Leases {
    /// Lets a plan read views where the policy of its disks says so: those that the nexus has, or new ones of one common moment.
    ///
    /// # Errors
    /// BUSY when the disks are not quiet in time. Then nothing was changed.
    pub async fn lease(
        self: &Arc<Self>,
        plan: &mut Plan,
        nexus: &Nexus,
        snapshots: &SnapshotService,
        cancelled: &CancellationToken,
    ) -> Result<(), Response> {
        let wanted = wanted(plan);
        let leased = wanted.iter().map(|wanted| self.enter(nexus, wanted)).collect::<Result<Vec<_>, _>>()?;
        take(&wanted, &leased, plan.background, snapshots, cancelled).await?;
        for (wanted, leased) in wanted.iter().zip(&leased) {
            let taken = leased.lease.taken.get().expect("each was taken");
            plan.ends[wanted.end] = PlannedEnd::Rod(Arc::clone(&taken.rod));
        }
        plan.leased.extend(leased);
        Ok(())
    }

    fn enter(self: &Arc<Self>, nexus: &Nexus, wanted: &Wanted) -> Result<Leased, Sense> {
        let copying = wanted.disk.begin_copy()?;
        let key = (nexus.id, std::ptr::from_ref(wanted.disk.common()).addr());
        let mut leases = self.leases();
        if leases.get(&key).is_some_and(|lease| lease.finds_rewound(&wanted.remote_tapes)) {
            info!(nexus = nexus.id, initiator = nexus.initiator, "the lease of a view ends: its remote tape has been rewound");
            leases.remove(&key);
        }
        let lease = leases.entry(key).or_insert_with(|| {
            let usage = Usage { tapes: BTreeSet::new(), remote_tapes: Vec::new(), copies: 0, last_used: Instant::now() };
            let lease = Arc::new(Lease {
                key,
                initiator: nexus.initiator.clone(),
                taking: tokio::sync::Mutex::default(),
                taken: OnceLock::new(),
                usage: Mutex::new(usage),
            });
            self.end_when_idle(&lease);
            lease
        });
        let mut usage = lease.usage();
        usage.copies += 1;
        usage.tapes.extend(&wanted.tapes);
        for tape in &wanted.remote_tapes {
            let place = (tape.target.clone(), tape.lun);
            if !usage.remote_tapes.contains(&place) {
                usage.remote_tapes.push(place);
            }
        }
        Ok(Leased { lease: Arc::clone(lease), _copying: copying })
    }

    fn end_when_idle(self: &Arc<Self>, lease: &Arc<Lease>) {
        let (leases, lease) = (Arc::downgrade(self), Arc::downgrade(lease));
        let next = move || leases.upgrade()?.next_look(&lease.upgrade()?, Instant::now());
        tokio::spawn(async move {
            while let Some(next) = next() {
                tokio::time::sleep_until(next.into()).await;
            }
        });
    }

    /// When a lease may have been idle for long enough; `None` when it has been.
    fn next_look(&self, lease: &Arc<Lease>, now: Instant) -> Option<Instant> {
        let mut leases = self.leases();
        let idle_at = match &*lease.usage() {
            Usage { copies: 0, last_used, .. } => *last_used + IDLE,
            _ => now + IDLE,
        };
        if idle_at > now {
            return Some(idle_at);
        }
        if leases.get(&lease.key).is_some_and(|known| Arc::ptr_eq(known, lease)) {
            info!(nexus = lease.key.0, initiator = lease.initiator, "an idle lease of a view ends");
            leases.remove(&lease.key);
        }
        None
    }

    /// Something happened that ends leases.
    pub fn end(&self, why: LeaseEnd) {
        self.leases().retain(|_, lease| {
            let ends = lease.ends_with(why);
            if ends {
                info!(nexus = lease.key.0, initiator = lease.initiator, ?why, "the lease of a view ends");
            }
            !ends
        });
    }

    /// Those that have their views.
    #[must_use]
    pub fn facts(&self) -> Vec<LeaseFacts> {
        let leases: Vec<_> = self.leases().values().cloned().collect();
        let facts = |lease: Arc<Lease>| {
            let Taken { rod, at } = lease.taken.get()?;
            Some(LeaseFacts {
                disk: lease.key.1,
                initiator: lease.initiator.clone(),
                taken: *at,
                copies: lease.usage().copies,
                copied_bytes: rod.copied_bytes(),
                live: rod.is_kept(),
            })
        };
        leases.into_iter().filter_map(facts).collect()
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Lease>>> {
        self.leases.lock().expect("no holder panics")
    }
}

/// Disks of which blocks go onto tapes and whose policy is to lease views, in one order for all copies. One that the same list writes
/// is read as it is: "the relative order of writes and reads on the same blocks" is that of the segments.
fn wanted(plan: &Plan) -> Vec<Wanted> {
    let is_written = |disk: &Arc<Disk>| {
        plan.ends.iter().any(|end| matches!(end, PlannedEnd::Destination(written) if Arc::ptr_eq(written, disk)))
    };
    let mut wanted: Vec<Wanted> = Vec::new();
    for (end, planned) in plan.ends.iter().enumerate() {
        let PlannedEnd::Source(disk) = planned else { continue };
        if disk.view_rules().lease
            && !is_written(disk)
            && let Some((tapes, remote_tapes)) = plan.tapes_fed_by(end)
        {
            wanted.push(Wanted { end, disk: Arc::clone(disk), tapes, remote_tapes });
        }
    }
    // Two copies that wait for each other's disks would wait for ever.
    wanted.sort_by_key(|wanted| std::ptr::from_ref(wanted.disk.common()).addr());
    wanted
}

/// Takes the views that are not there yet, at the first moment at which all their disks are quiet.
async fn take(
    wanted: &[Wanted],
    leased: &[Leased],
    background: bool,
    snapshots: &SnapshotService,
    cancelled: &CancellationToken,
) -> Result<(), Response> {
    let moment = wanted.iter().map(|wanted| Moment::quiet(&wanted.disk, background)).reduce(Moment::and);
    let Some(moment) = moment else { return Ok(()) };
    let deadline = Instant::now() + moment.timeout;
    let mut turns = Vec::new();
    for Leased { lease, .. } in leased {
        // Another copy of the nexus may be waiting for the same moment.
        let turn = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Err(Moment::cancelled()),
            turn = timeout_at(deadline.into(), lease.taking.lock()) => turn,
        };
        turns.push(turn.map_err(|_| Response::status(Status::Busy))?);
    }
    let missing = || wanted.iter().zip(leased).filter(|(_, leased)| leased.lease.taken.get().is_none());
    let bytes = |disk: &Disk| ByteRange { start: 0, len: disk.capacity().0 * disk.block_length().bytes() };
    let sources = missing().map(|(wanted, _)| {
        let (volume, range) = (Arc::clone(wanted.disk.volume()), Some(bytes(&wanted.disk)));
        Source { volume, range, keeper: Keeper::Copies }
    });
    let sources: Vec<Source> = sources.collect();
    if sources.is_empty() {
        return Ok(());
    }
    let prepared = snapshots.prepare(&sources).await.map_err(|error| no_view(&error))?;
    let views = prepared.views().to_vec();
    let timeout = deadline.saturating_duration_since(Instant::now());
    let at = Moment { timeout, ..moment }.take(prepared, cancelled).await?;
    for ((wanted, leased), view) in missing().zip(views) {
        let parts = vec![ByteRange { start: 0, len: view.range().len }];
        let rod = Arc::new(Rod::new(view, parts, wanted.disk.block_length()));
        leased.lease.taken.set(Taken { rod, at }).expect("whose turn it is is alone");
        info!(nexus = leased.lease.key.0, initiator = leased.lease.initiator, "a view is leased");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
