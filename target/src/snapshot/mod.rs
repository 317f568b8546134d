//! Static views of disks, taken at one moment and kept by copy on write.
//!
//! A view costs nothing until the disk is written; then each chunk's old bytes go to a copy store, a sparse file without a name,
//! before the chunk changes. Readers, in this process ([`View`]) or in a mover, need no lock and no message: they look at the data
//! block table. [`protocol::mover::table`] has its layout, its rules and why they hold.
//!
//! - *Birth*: copy store and table are made first. Then the disks are quiet ([`crate::quiet`]) and held, the writes in flight end,
//!   the table is published, and writes go on: each serves all views of its disk out of one read.
//! - *Death*: readers are told, then writers stop to serve it. A view does not outlive the target.
//! - A copy store that is full or fails costs the view, never a host's write.
//!
//! It makes no LUN of a view and keeps no list of them; that is [`crate::control`]'s. Block lengths are the LUN's.

mod tracker;
mod view;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use protocol::mover::table::Grid;
use protocol::units::ByteRange;

use self::tracker::Tracker;
pub(crate) use self::tracker::Trackers;
pub use self::view::View;
use crate::quiet::{HoldTooLong, NeverQuiet, Waiting, await_quiet};
use crate::store::BlockStore;
use crate::store::raw::RawStore;
use crate::volume::Volume;

/// Views of one disk at one time: each adds to the cost of a write.
pub const VIEWS_LIMIT: usize = 64;

/// What to take a view of.
#[derive(Debug, Clone)]
pub struct Source {
    /// The disk.
    pub volume: Arc<Volume>,
    /// Bytes of it; all when `None`. Nothing outside is copied on write.
    pub range: Option<ByteRange>,
    /// Who wants it.
    pub keeper: Keeper,
}

/// Who wants a view, and so what becomes of it when what the disk held is to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// Somebody asked for it by itself: the disk is not sanitized before it is given up.
    Asker,
    /// A token or a lease, which is cancelled then.
    Copies,
}

impl Source {
    fn checked_range(&self) -> Result<ByteRange, SnapshotError> {
        let size = self.volume.store().size();
        let range = self.range.unwrap_or(ByteRange { start: 0, len: size });
        let inside = range.start.checked_add(range.len).is_some_and(|end| end <= size);
        if range.len == 0 || !inside {
            return Err(SnapshotError::Invalid(format!("{} bytes at {} of a disk of {size}", range.len, range.start)));
        }
        Ok(range)
    }
}

/// Asks for views of one or several disks at one moment.
#[derive(Debug, Clone)]
pub struct Request {
    /// One view each, in this order.
    pub sources: Vec<Source>,
    /// How long nothing may be written before; zero takes the views at once.
    pub quiet: Duration,
    /// When to give up waiting.
    pub timeout: Duration,
}

/// Views of one moment.
#[derive(Debug)]
pub struct Taken {
    /// In the order asked for.
    pub views: Vec<Arc<View>>,
    /// The moment.
    pub at: SystemTime,
    /// How the wait went, up to the moment.
    pub waiting: Waiting,
    /// How long writes were held.
    pub held: Duration,
}

/// Why there is no snapshot. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk was never quiet for long enough.
    #[error(transparent)]
    NeverQuiet(#[from] NeverQuiet),
    /// The hold could not finish in time.
    #[error(transparent)]
    HoldTooLong(#[from] HoldTooLong),
    /// The request makes no sense.
    #[error("no snapshot can be taken: {0}")]
    Invalid(String),
    /// No copy store or table could be made.
    #[error("the copy store cannot be made: {0}")]
    CopyStore(#[source] io::Error),
}

type MakeCopyStore = dyn Fn(u64) -> io::Result<Arc<dyn BlockStore>> + Send + Sync;

/// Takes snapshots.
pub struct SnapshotService {
    make_copy_store: Arc<MakeCopyStore>,
    taken: AtomicU64,
    /// What generations are counted from: the tables of a target's former life have others.
    generations: u64,
}

impl fmt::Debug for SnapshotService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotService")
            .field("taken", &self.taken)
            .field("generations", &self.generations)
            .finish_non_exhaustive()
    }
}

impl SnapshotService {
    /// Copy stores will lie in `folder`, which exists, as sparse files without a name.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self::with_copy_stores(move |size| Ok(Arc::new(RawStore::unnamed(&folder, size)?)))
    }

    /// Copy stores are what `make` makes of a size: stores of that many bytes, all of it a hole.
    #[must_use]
    pub fn with_copy_stores(make: impl Fn(u64) -> io::Result<Arc<dyn BlockStore>> + Send + Sync + 'static) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let generations = since_1970.as_micros() as u64;
        Self { make_copy_store: Arc::new(make), taken: AtomicU64::new(0), generations }
    }

    /// Waits until all disks asked for are quiet and takes views of them at that moment. `progress` is called about twice a second.
    /// Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// [`SnapshotError`]; then nothing was changed, and all held writes go on.
    pub async fn take(&self, request: Request, progress: impl FnMut(Waiting)) -> Result<Taken, SnapshotError> {
        self.prepare(&request.sources).await?.take(request.quiet, request.timeout, progress).await
    }

    /// Allocates all that views need, before a write is held.
    ///
    /// # Errors
    /// As [`SnapshotService::take`], but for those of the wait.
    pub async fn prepare(&self, sources: &[Source]) -> Result<Prepared, SnapshotError> {
        if sources.is_empty() {
            return Err(SnapshotError::Invalid("no disk is named".into()));
        }
        let mut views = Vec::new();
        for source in sources {
            let range = source.checked_range()?;
            let grid = Grid::of(range.len).ok_or_else(|| SnapshotError::Invalid(format!("{} bytes", range.len)))?;
            if source.volume.trackers().count() >= VIEWS_LIMIT {
                return Err(SnapshotError::Invalid(format!("the disk has {VIEWS_LIMIT} snapshots already")));
            }
            let id = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
            let generation = self.generations.wrapping_add(id);
            let (make_copy_store, keeper) = (Arc::clone(&self.make_copy_store), source.keeper);
            let make = move || Tracker::new(range, grid, generation, make_copy_store(range.len)?, keeper);
            let made = tokio::task::spawn_blocking(make).await;
            let tracker = made.unwrap_or_else(|panic| Err(io::Error::other(panic))).map_err(SnapshotError::CopyStore)?;
            views.push(Arc::new(View::new(id, Arc::clone(&source.volume), Arc::new(tracker))));
        }
        Ok(Prepared { views })
    }
}

/// Views whose moment has not come. Their files are there, so that a mover can be given them; until it has come, reads fail.
#[derive(Debug)]
pub struct Prepared {
    views: Vec<Arc<View>>,
}

impl Prepared {
    /// In the order asked for.
    #[must_use]
    pub fn views(&self) -> &[Arc<View>] {
        &self.views
    }

    /// Waits until all disks are quiet; that moment is the views'. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// As [`SnapshotService::take`].
    pub async fn take(self, quiet: Duration, timeout: Duration, progress: impl FnMut(Waiting)) -> Result<Taken, SnapshotError> {
        let gates = self.views.iter().map(|view| Arc::clone(view.volume().gate()));
        let hold = await_quiet(gates, quiet, timeout, progress).await?;
        hold.drained().await?;
        let at = SystemTime::now();
        let waiting = hold.waiting();
        let held = hold.commit(|| self.views.iter().for_each(|view| view.publish()))?;
        Ok(Taken { views: self.views, at, waiting, held })
    }
}

#[cfg(test)]
mod tests;
