//! A store with all that guards it: the quiet window, holds, snapshots and write grants. Disk LUNs and copies write through this.
//!
//! Every change goes one way: be admitted by the gate, copy up what live snapshots still need, write. Reads need none of it and go
//! to the [`Volume::store`]. It knows nothing of SCSI: block lengths, protection and order are the LUN's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::mover::MAX_GRANT;
use protocol::units::ByteRange;

use crate::quiet::{Gate, QuietStatus};
use crate::snapshot::Trackers;
use crate::store::{BlockStore, LocalEnd};

/// A disk LUN's blocks.
#[derive(Debug)]
pub struct Volume {
    store: Arc<dyn BlockStore>,
    gate: Arc<Gate>,
    trackers: Trackers,
    pace: Pace,
}

/// A write in flight: the quiet window counts it until this is dropped. Owned, so that it can travel to another thread.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gate.end();
    }
}

impl Volume {
    /// Guards `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlockStore>) -> Arc<Self> {
        Arc::new(Self { store, gate: Arc::new(Gate::new()), trackers: Trackers::default(), pace: Pace::new() })
    }

    /// What lies below: for reads, which need no admission.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn BlockStore> {
        &self.store
    }

    /// What its quiet window has seen.
    #[must_use]
    pub fn quiet(&self) -> QuietStatus {
        self.gate.status()
    }

    /// Admits a write at once, or not at all while a hold is on.
    #[must_use]
    pub fn try_admit(&self) -> Option<Admission> {
        self.gate.try_admit().ok().map(|()| Admission { gate: Arc::clone(&self.gate) })
    }

    /// Admits a write; while a hold is on it is parked here without a thread. Dropping the future takes it away.
    pub async fn admit(&self) -> Admission {
        self.gate.admit().await;
        Admission { gate: Arc::clone(&self.gate) }
    }

    /// Whether a write is likely not to wait where [`Volume::is_kept`]: it only goes to memory, and none waited a moment ago.
    #[must_use]
    pub fn writes_at_once(&self) -> bool {
        self.store.buffered() && !self.pace.is_held_up()
    }

    /// True when nothing has to be copied up for a snapshot before `range` is written. It stays so while a write is in flight that was
    /// admitted before.
    #[must_use]
    pub fn is_kept(&self, range: ByteRange) -> bool {
        self.trackers.need_nothing_of(range)
    }

    /// Blocks. Copies up what live snapshots still need of a range that is to be written soon, so that the write finds it done. Changes
    /// nothing on the disk, and so needs no admission: who writes there meanwhile has copied up before, or waits until it is done.
    pub fn keep_ahead(&self, range: ByteRange) {
        self.trackers.preserve(&*self.store, range);
    }

    /// Runs a write that was expected not to wait, and takes note if it did.
    pub fn timed<T>(&self, write: impl FnOnce() -> T) -> T {
        self.pace.timed(write)
    }

    /// Blocks. Copies up what live snapshots still need, then writes.
    ///
    /// # Errors
    /// The store's own only: a snapshot that cannot be kept fails, never the write.
    pub fn write_at(&self, admission: &Admission, at: u64, data: &[Bytes]) -> io::Result<()> {
        let len = data.iter().map(|part| part.len() as u64).sum();
        // A range that fits no disk touches no snapshot, and the store refuses it.
        if let Some(range) = ByteRange::new(at, len) {
            self.preserve(admission, range);
        }
        self.store.write_at(at, data)
    }

    /// Blocks. As [`Volume::write_at`], for UNMAP and WRITE SAME with UNMAP.
    ///
    /// # Errors
    /// As [`Volume::write_at`].
    pub fn deallocate(&self, admission: &Admission, range: ByteRange) -> io::Result<()> {
        if let Some(range) = ByteRange::new(range.start, range.len) {
            self.preserve(admission, range);
        }
        self.store.deallocate(range)
    }

    /// Blocks. What was written before survives a power loss. Passes holds: it changes nothing.
    ///
    /// # Errors
    /// The store's own.
    pub fn sync(&self) -> io::Result<()> {
        self.store.sync()
    }

    /// Lets a mover write a range until the grant is dropped: waits for holds, copies up what live snapshots still need, and counts
    /// as a write in flight. Keep it until the mover says it is done, or until its *process* has ended.
    ///
    /// # Errors
    /// `InvalidInput` for more than [`MAX_GRANT`] bytes or a range beyond the end; `ReadOnlyFilesystem`.
    pub async fn grant(self: &Arc<Self>, range: ByteRange) -> io::Result<WriteGrant> {
        let inside = range.start.checked_add(range.len).is_some_and(|end| end <= self.store.size());
        if range.len > MAX_GRANT || !inside {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{range:?} cannot be granted")));
        }
        if self.store.read_only() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let admission = self.admit().await;
        let volume = Arc::clone(self);
        // The admission goes along: if this future is dropped, the copying up still counts until it ends.
        let copied_up = tokio::task::spawn_blocking(move || {
            volume.preserve(&admission, range);
            admission
        });
        let admission = copied_up.await.map_err(io::Error::other)?;
        Ok(WriteGrant { _admission: admission, range })
    }

    /// The live blocks as a mover's source.
    ///
    /// # Errors
    /// As [`BlockStore::source`].
    pub fn source(&self, block_length: u32) -> io::Result<LocalEnd> {
        self.store.source(block_length)
    }

    /// The blocks as a mover's destination; it writes only what [`Volume::grant`] gave it.
    ///
    /// # Errors
    /// As [`BlockStore::destination`].
    pub fn destination(&self, block_length: u32) -> io::Result<LocalEnd> {
        self.store.destination(block_length)
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    pub(crate) fn trackers(&self) -> &Trackers {
        &self.trackers
    }

    fn preserve(&self, admission: &Admission, range: ByteRange) {
        // An admission of another volume would not hold this one's snapshots back.
        assert!(Arc::ptr_eq(&admission.gate, &self.gate), "admitted by this volume");
        self.trackers.preserve(&*self.store, range);
    }
}

/// Whether writes wait, as they do when memory is full of what has not been written back: then they are to wait on threads made
/// for it.
#[derive(Debug)]
struct Pace {
    made: Instant,
    /// Milliseconds after `made`.
    held_up_until: AtomicU64,
}

impl Pace {
    /// What waits for so long was held up. A thread that loses its processor for a turn is not.
    const HELD_UP: Duration = Duration::from_millis(20);
    /// How long others are then thought to be.
    const HOLDS_FOR: Duration = Duration::from_millis(200);

    fn new() -> Self {
        Self { made: Instant::now(), held_up_until: AtomicU64::new(0) }
    }

    fn is_held_up(&self) -> bool {
        match self.held_up_until.load(Ordering::Relaxed) {
            0 => false,
            until => self.made.elapsed() < Duration::from_millis(until),
        }
    }

    fn timed<T>(&self, write: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = write();
        if began.elapsed() >= Self::HELD_UP {
            let until = self.made.elapsed() + Self::HOLDS_FOR;
            self.held_up_until.store(until.as_millis() as u64, Ordering::Relaxed);
        }
        done
    }
}

/// A range that a mover may write: a write in flight, with nothing left in it that a live snapshot needs.
#[derive(Debug)]
#[must_use = "the mover may write no longer once this is dropped"]
pub struct WriteGrant {
    _admission: Admission,
    range: ByteRange,
}

impl WriteGrant {
    /// What may be written.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        self.range
    }
}
