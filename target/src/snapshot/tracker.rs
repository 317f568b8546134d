//! The writers' side of snapshots: what a write must do before it may change a byte.
//!
//! A [`Tracker`] is one snapshot: its data block table, its copy store, and which chunks are being copied now. [`Trackers`] are all
//! those of one disk. The rules are those of [`protocol::mover::table`]; what is added here is the claim, which is seen inside
//! the target only: of several writers on one clean chunk one copies, the others wait, and all write after that.
//!
//! A writer never waits while it holds a claim, so claims cannot wait for each other.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock};

use bytes::BytesMut;
use protocol::mover::table::{Grid, State, TableWriter};
use protocol::units::ByteRange;
use tracing::warn;

use super::Keeper;
use crate::store::BlockStore;
use crate::sys::SharedWords;

/// A write is served in windows of this size, and live bytes are read in pieces of it: what one writer holds in memory.
const WINDOW: u64 = 1 << 20;
/// Pieces of data and hole asked for at once.
const ALLOCATIONS: usize = 256;

/// One snapshot, as its disk's writers see it.
#[derive(Debug)]
pub(super) struct Tracker {
    /// The bytes of the disk it covers.
    range: ByteRange,
    table: TableWriter<SharedWords>,
    table_file: OwnedFd,
    copies: Arc<dyn BlockStore>,
    copying: Mutex<HashSet<u64>>,
    given_back: Condvar,
    failure: OnceLock<String>,
    copied_bytes: AtomicU64,
    keeper: Keeper,
}

/// What is to be done about a chunk.
enum Standing<'a> {
    /// Nothing: it is copied, or the snapshot is lost.
    Served,
    /// Another writer copies it.
    Copying,
    /// We copy it.
    Ours(Claim<'a>),
}

/// The right, and the duty, to copy one chunk. Dropped unfulfilled it fails the snapshot.
struct Claim<'a> {
    tracker: &'a Tracker,
    chunk: u64,
}

impl Tracker {
    /// A snapshot that nobody serves yet. All that it needs is allocated here, before any write is held.
    pub(super) fn new(
        range: ByteRange,
        grid: Grid,
        generation: u64,
        copies: Arc<dyn BlockStore>,
        keeper: Keeper,
    ) -> io::Result<Self> {
        let words = grid.words().try_into().map_err(io::Error::other)?;
        let (words, table_file) = SharedWords::sealed(words)?;
        Ok(Self {
            range,
            table: TableWriter::format(words, grid, generation),
            table_file,
            copies,
            copying: Mutex::default(),
            given_back: Condvar::new(),
            failure: OnceLock::new(),
            copied_bytes: AtomicU64::new(0),
            keeper,
        })
    }

    pub(super) fn range(&self) -> ByteRange {
        self.range
    }

    pub(super) fn table(&self) -> &TableWriter<SharedWords> {
        &self.table
    }

    pub(super) fn table_file(&self) -> &OwnedFd {
        &self.table_file
    }

    pub(super) fn copies(&self) -> &Arc<dyn BlockStore> {
        &self.copies
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes.load(Ordering::Relaxed)
    }

    /// From here on nothing that is read through the table is believed; what readers already have stays true.
    fn fail(&self, why: &io::Error) {
        if self.failure.set(why.to_string()).is_ok() {
            warn!(range = ?self.range, %why, "the snapshot fails: old bytes could not be kept");
        }
        self.table.set_state(State::Failed);
    }

    /// The chunks that a range of the *disk* touches.
    fn touched(&self, range: ByteRange) -> std::ops::Range<u64> {
        match range.intersection(self.range) {
            Some(part) => self.table.grid().touched(ByteRange { start: part.start - self.range.start, len: part.len }),
            None => 0..0,
        }
    }

    fn stand(&self, chunk: u64) -> Standing<'_> {
        // Without the lock first: the usual write meets a chunk that was copied long ago.
        if self.is_served(chunk) {
            return Standing::Served;
        }
        let mut copying = self.copying();
        if self.is_served(chunk) {
            Standing::Served
        } else if copying.insert(chunk) {
            Standing::Ours(Claim { tracker: self, chunk })
        } else {
            Standing::Copying
        }
    }

    fn is_served(&self, chunk: u64) -> bool {
        self.table.is_copied(chunk) || self.table.state() != Some(State::Live)
    }

    fn wait_for(&self, chunk: u64) {
        let copying = self.copying();
        let _copying = self.given_back.wait_while(copying, |copying| copying.contains(&chunk)).expect("no holder panics");
    }

    fn copying(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.copying.lock().expect("no holder panics")
    }
}

impl Claim<'_> {
    /// The chunk's bytes on the disk.
    fn range(&self) -> ByteRange {
        let chunk = self.tracker.table.grid().bytes_of(self.chunk);
        ByteRange { start: self.tracker.range.start + chunk.start, len: chunk.len }
    }

    /// Keeps what of `piece`, bytes of the disk, belongs to the chunk.
    fn keep(&self, piece: ByteRange, bytes: &bytes::Bytes) {
        let Some(part) = piece.intersection(self.range()).filter(|_| self.is_wanted()) else { return };
        let start = (part.start - piece.start) as usize;
        let bytes = bytes.slice(start..start + part.len as usize);
        match self.tracker.copies.write_at(part.start - self.tracker.range.start, &[bytes]) {
            Ok(()) => {
                self.tracker.copied_bytes.fetch_add(part.len, Ordering::Relaxed);
            }
            Err(error) => self.tracker.fail(&error),
        }
    }

    fn is_wanted(&self) -> bool {
        self.tracker.table.state() == Some(State::Live)
    }

    /// All of the chunk is in the copy store, or the snapshot has failed.
    fn fulfil(self) {
        if self.is_wanted() {
            self.tracker.table.mark_copied(self.chunk);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.tracker.is_served(self.chunk) {
            self.tracker.fail(&io::Error::other("a writer ended before it had kept a chunk"));
        }
        self.tracker.copying().remove(&self.chunk);
        self.tracker.given_back.notify_all();
    }
}

/// The snapshots that a disk's writes must serve.
#[derive(Debug, Default)]
pub(crate) struct Trackers {
    live: RwLock<Arc<[Arc<Tracker>]>>,
}

impl Trackers {
    /// How many writes have to serve.
    pub(crate) fn count(&self) -> usize {
        self.current().len()
    }

    /// True while a write to `range` has nothing to copy up.
    pub(crate) fn need_nothing_of(&self, range: ByteRange) -> bool {
        let live = self.live.read().expect("no holder panics");
        live.iter().all(|tracker| tracker.touched(range).all(|chunk| tracker.is_served(chunk)))
    }

    /// True while somebody wants one who is not a copy.
    pub(crate) fn any_asked_for(&self) -> bool {
        self.current().iter().any(|tracker| tracker.keeper == Keeper::Asker)
    }

    /// *Birth*: to be called while no write is in flight. Every write admitted later serves it.
    pub(super) fn publish(&self, tracker: Arc<Tracker>) {
        tracker.table.set_state(State::Live);
        let mut live = self.live.write().expect("no holder panics");
        *live = live.iter().cloned().chain([tracker]).collect();
    }

    /// *Death*: readers are told first. Writers that still serve it keep it alive until they are through.
    pub(super) fn unpublish(&self, tracker: &Arc<Tracker>) {
        tracker.table.set_state(State::Ended);
        let mut live = self.live.write().expect("no holder panics");
        *live = live.iter().filter(|other| !Arc::ptr_eq(other, tracker)).cloned().collect();
    }

    /// Blocks. Copies up what live snapshots still need of `range`; an admitted writer calls it before it changes a byte there.
    /// Never fails: a snapshot that cannot be kept has failed when it returns.
    pub(crate) fn preserve(&self, live: &dyn BlockStore, range: ByteRange) {
        let trackers = self.current();
        if trackers.is_empty() {
            return;
        }
        let mut at = range.start;
        while at < range.end() {
            let window = ByteRange { start: at, len: WINDOW.min(range.end() - at) };
            preserve_window(&trackers, live, window);
            at = window.end();
        }
    }

    /// As they are now. A write that is admitted may keep the list: nothing is published while it is in flight.
    fn current(&self) -> Arc<[Arc<Tracker>]> {
        Arc::clone(&self.live.read().expect("no holder panics"))
    }
}

/// Returns when all chunks that `window` touches are served, by us or by others.
fn preserve_window(trackers: &[Arc<Tracker>], live: &dyn BlockStore, window: ByteRange) {
    loop {
        let mut ours = Vec::new();
        let mut others = Vec::new();
        for tracker in trackers {
            for chunk in tracker.touched(window) {
                match tracker.stand(chunk) {
                    Standing::Served => {}
                    Standing::Copying => others.push((tracker, chunk)),
                    Standing::Ours(claim) => ours.push(claim),
                }
            }
        }
        copy_up(live, ours);
        if others.is_empty() {
            return;
        }
        for (tracker, chunk) in others {
            tracker.wait_for(chunk);
        }
    }
}

/// Fulfils the claims of several snapshots out of one read of the live bytes.
fn copy_up(live: &dyn BlockStore, mut claims: Vec<Claim<'_>>) {
    claims.sort_by_key(|claim| claim.range().start);
    for hull in merged(claims.iter().map(Claim::range)) {
        let mut at = hull.start;
        while at < hull.end() {
            let piece = ByteRange { start: at, len: WINDOW.min(hull.end() - at) };
            if let Err(error) = copy_piece(live, piece, &claims) {
                let touched = claims.iter().filter(|claim| claim.range().overlaps(piece));
                touched.for_each(|claim| claim.tracker.fail(&error));
            }
            at = piece.end();
        }
    }
    claims.into_iter().for_each(Claim::fulfil);
}

/// Holes stay holes: the copy store is one hole to begin with.
fn copy_piece(live: &dyn BlockStore, piece: ByteRange, claims: &[Claim<'_>]) -> io::Result<()> {
    let mut at = piece.start;
    while at < piece.end() {
        let rest = ByteRange { start: at, len: piece.end() - at };
        let parts = live.allocation(rest, ALLOCATIONS)?;
        at = parts.last().map_or(rest.end(), |part| part.range.end());
        for part in parts.into_iter().filter(|part| part.allocated) {
            let mut bytes = BytesMut::zeroed(part.range.len as usize);
            live.read_at(part.range.start, &mut bytes)?;
            let bytes = bytes.freeze();
            claims.iter().for_each(|claim| claim.keep(part.range, &bytes));
        }
    }
    Ok(())
}

/// Ranges in ascending order of their starts, those that touch made one.
fn merged(ranges: impl Iterator<Item = ByteRange>) -> Vec<ByteRange> {
    let mut merged: Vec<ByteRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end() => last.len = last.end().max(range.end()) - last.start,
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_several_grids_are_read_once() {
        let range = |start, len| ByteRange { start, len };
        let ranges = [range(0, 64), range(32, 64), range(96, 4), range(200, 8), range(200, 2)];
        assert_eq!(merged(ranges.into_iter()), [range(0, 100), range(200, 8)]);
    }
}
