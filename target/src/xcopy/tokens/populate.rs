//! From ranges of a disk to a ROD, and the moment it shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use protocol::scsi::{Sense, Status};
use protocol::units::{BlockCount, ByteRange};
use protocol::xcopy::rod::{
    DEFAULT_INACTIVITY_TIMEOUT, DEFAULT_TOKEN_LIFETIME, MIN_TOKEN_LIFETIME, RangeDescriptor, RodCscd, RodToken, RodType,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{Rod, Tokens};
use crate::lun::disk::{Copying, Disk};
use crate::snapshot::{Keeper, Prepared, SnapshotError, SnapshotService, Source};
use crate::task::Response;
use crate::xcopy::plan::{Plan, PlannedEnd};

/// RODs that one list may populate: each is a view, with two files that are open and a cost for every write to its disk.
pub(super) const RODS_EACH: usize = 16;

/// What a token lives by. Zero seconds without a use are no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    lifetime_s: u32,
    inactivity_s: u32,
}

impl Terms {
    /// What POPULATE TOKEN asks for.
    #[must_use]
    pub const fn of_populate_token(inactivity_timeout: u32) -> Self {
        let inactivity_s = if inactivity_timeout == 0 { DEFAULT_INACTIVITY_TIMEOUT } else { inactivity_timeout };
        Self { lifetime_s: DEFAULT_TOKEN_LIFETIME, inactivity_s }
    }

    /// What a ROD CSCD descriptor asks for.
    #[must_use]
    pub fn of_cscd(rod: &RodCscd) -> Self {
        Self { lifetime_s: rod.lifetime.max(MIN_TOKEN_LIFETIME), inactivity_s: rod.inactivity_timeout }
    }

    pub(super) fn lifetime(self) -> Duration {
        Duration::from_secs(self.lifetime_s.into())
    }

    pub(super) fn inactivity(self) -> Option<Duration> {
        (self.inactivity_s > 0).then(|| Duration::from_secs(self.inactivity_s.into()))
    }
}

/// When a view is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// How long nothing may be written before.
    pub quiet: Duration,
    /// How long that is waited for.
    pub timeout: Duration,
}

impl Moment {
    /// The first quiet one of a disk, given up in time for a command in the foreground or in the background.
    #[must_use]
    pub fn quiet(disk: &Disk, background: bool) -> Self {
        let rules = disk.view_rules();
        Self { quiet: rules.quiet, timeout: rules.timeout(background) }
    }

    /// Of a ROD: "using the method that consumes the fewest resources" is not to wait.
    #[must_use]
    pub fn of(kind: RodType, disk: &Disk, background: bool) -> Self {
        let first = Self::quiet(disk, background);
        if kind == RodType::ChangeVulnerable { Self { quiet: Duration::ZERO, ..first } } else { first }
    }

    /// One that suits two disks.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { quiet: self.quiet.max(other.quiet), timeout: self.timeout.min(other.timeout) }
    }

    /// Waits for it, and gives its time.
    ///
    /// # Errors
    /// BUSY when it does not come in time; [`Moment::cancelled`] when `cancelled`. Then nothing was changed.
    pub async fn take(self, prepared: Prepared, cancelled: &CancellationToken) -> Result<SystemTime, Response> {
        let taken = tokio::select! {
            biased;
            () = cancelled.cancelled() => return Err(Self::cancelled()),
            taken = prepared.take(self.quiet, self.timeout, |_| ()) => taken,
        };
        match taken {
            Ok(taken) => {
                info!(quiet = ?taken.waiting.quiet_for, waited = ?taken.waiting.waited, held = ?taken.held, "view taken for a copy");
                Ok(taken.at)
            }
            Err(error) => Err(no_view(&error)),
        }
    }

    /// What is told of a command that was aborted while it waited.
    #[must_use]
    pub fn cancelled() -> Response {
        Sense::COMMANDS_CLEARED_BY_DEVICE_SERVER.into()
    }
}

/// Why there is no view, to whoever wanted a ROD.
#[must_use]
pub fn no_view(error: &SnapshotError) -> Response {
    debug!(%error, "no view for a copy");
    match error {
        SnapshotError::NeverQuiet(_) | SnapshotError::HoldTooLong(_) => Response::status(Status::Busy),
        SnapshotError::Invalid(_) | SnapshotError::CopyStore(_) => Sense::INSUFFICIENT_RESOURCES_TO_CREATE_ROD.into(),
    }
}

/// A ROD that segments of a list populate.
#[derive(Debug)]
pub struct Populating {
    /// The logical unit that the list was sent to.
    pub disk: Arc<Disk>,
    /// What is made.
    pub kind: RodType,
    /// In the order of the ROD; each lies on the disk.
    pub ranges: Vec<RangeDescriptor>,
    /// R_TOKEN: the id of its CSCD descriptor, and what its token lives by.
    pub returns: Option<(u16, Terms)>,
    /// The segment that populates it last: its moment.
    pub last_segment: u32,
    /// A segment has used it: nothing is added any more.
    pub used: bool,
}

/// Views that are taken in the middle of a copy, by the segment before which they are.
pub type Moments = BTreeMap<u32, (Moment, Prepared)>;

/// RODs of a copy, with all that they need allocated.
pub struct Populated {
    /// When they are populated.
    pub moments: Moments,
    /// Those of which tokens are to be made at the end.
    pub returned: Vec<Returned>,
    /// To be kept for as long as they are copied from: a mover has their files, not their views.
    pub kept: Vec<(Arc<Rod>, Copying)>,
}

/// A ROD of which a token is to be made.
pub struct Returned {
    id: u16,
    disk: Arc<Disk>,
    kind: RodType,
    rod: Arc<Rod>,
    terms: Terms,
}

impl Returned {
    /// Makes the token.
    ///
    /// # Errors
    /// As [`Tokens::make`].
    pub fn token(self, maker: u64, tokens: &Arc<Tokens>) -> Result<(u16, RodToken), Sense> {
        Ok((self.id, tokens.make(maker, &self.disk, self.kind, self.rod, self.terms)?))
    }
}

impl Populated {
    /// Prepares the RODs that segments of `plan` populate, and makes them its ends.
    ///
    /// # Errors
    /// INSUFFICIENT RESOURCES TO CREATE ROD, also for more than [`RODS_EACH`]; what the disk refuses copies with.
    pub async fn prepare(plan: &mut Plan, rods: Vec<Populating>, snapshots: &SnapshotService) -> Result<Self, Response> {
        let (mut moments, mut returned, mut kept) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (index, populating) in rods.into_iter().enumerate() {
            if kept.len() == RODS_EACH {
                return Err(Sense::INSUFFICIENT_RESOURCES_TO_CREATE_ROD.into());
            }
            let Some((rod, prepared)) = prepare(snapshots, &populating.disk, &populating.ranges).await? else { continue };
            let rod = Arc::new(rod);
            kept.push((Arc::clone(&rod), populating.disk.begin_copy()?));
            for end in &mut plan.ends {
                if matches!(end, PlannedEnd::Populated(other) if *other == index) {
                    *end = PlannedEnd::Rod(Arc::clone(&rod));
                }
            }
            moments.insert(populating.last_segment, (Moment::of(populating.kind, &populating.disk, plan.background), prepared));
            if let Some((id, terms)) = populating.returns {
                returned.push(Returned { id, disk: populating.disk, kind: populating.kind, rod, terms });
            }
        }
        Ok(Self { moments, returned, kept })
    }
}

/// Allocates what the view of a ROD needs. `None` for a ROD of nothing.
///
/// # Errors
/// INSUFFICIENT RESOURCES TO CREATE ROD.
pub async fn prepare(
    snapshots: &SnapshotService,
    disk: &Disk,
    ranges: &[RangeDescriptor],
) -> Result<Option<(Rod, Prepared)>, Response> {
    let bytes = |range: &RangeDescriptor| disk.block_length().byte_range(range.lba, BlockCount(range.blocks.into()));
    let on_disk: Vec<ByteRange> = ranges.iter().filter(|range| range.blocks > 0).filter_map(bytes).collect();
    let ends = (on_disk.iter().map(|range| range.start).min(), on_disk.iter().map(|range| range.end()).max());
    let (Some(start), Some(end)) = ends else { return Ok(None) };
    // Nothing outside of it is copied on write.
    let hull = ByteRange { start, len: end - start };
    let source = Source { volume: Arc::clone(disk.volume()), range: Some(hull), keeper: Keeper::Copies };
    let prepared = snapshots.prepare(&[source]).await.map_err(|error| no_view(&error))?;
    let parts = on_disk.into_iter().map(|range| ByteRange { start: range.start - start, len: range.len }).collect();
    Ok(Some((Rod::new(Arc::clone(&prepared.views()[0]), parts, disk.block_length()), prepared)))
}
