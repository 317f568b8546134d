//! A snapshot as its readers inside the target see it: a read-only store.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use protocol::mover::ends::{Descriptor, End};
use protocol::mover::table::ReadError;
use protocol::units::ByteRange;

use super::tracker::Tracker;
use crate::store::{Allocation, BlockStore, LocalEnd, within};
use crate::sys;
use crate::volume::Volume;

/// A static view: a read-only store whose byte 0 is the first byte of its range. It ends when the last owner drops it, or by
/// [`View::end`]; reads and copies of it fail from then on.
#[derive(Debug)]
pub struct View {
    id: u64,
    volume: Arc<Volume>,
    tracker: Arc<Tracker>,
}

impl View {
    pub(super) fn new(id: u64, volume: Arc<Volume>, tracker: Arc<Tracker>) -> Self {
        Self { id, volume, tracker }
    }

    /// Unlike every other view of this process's life.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The disk it is a view of.
    #[must_use]
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// The bytes of the disk it shows.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        self.tracker.range()
    }

    /// Why reads of it fail, once they do.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let lost = self.tracker.table().check_live().err()?;
        Some(self.tracker.failure().map_or_else(|| lost.to_string(), |why| format!("{lost}: {why}")))
    }

    /// Bytes saved by copy on write so far.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.tracker.copied_bytes()
    }

    /// Ends it now: reads and copies of it fail from here on, and the disk's writes no longer serve it.
    pub fn end(&self) {
        self.volume.trackers().unpublish(&self.tracker);
    }

    /// The disk's writes serve it from here on: to be called while none is in flight.
    pub(super) fn publish(&self) {
        self.volume.trackers().publish(Arc::clone(&self.tracker));
    }

    /// An address in the view as one on the disk.
    fn on_disk(&self, at: u64) -> u64 {
        self.range().start + at
    }

    fn live_allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        let on_disk = ByteRange { start: self.on_disk(range.start), len: range.len };
        let mut found = self.volume.store().allocation(on_disk, limit)?;
        found.iter_mut().for_each(|part| part.range.start -= self.range().start);
        Ok(found)
    }

    fn lost(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
        self.failure().map_or_else(|| io::Error::other(error), io::Error::other)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why a read that must not wait did not come to its end.
enum NotNow {
    MustWait,
    File(io::Error),
}

impl NotNow {
    fn unless(read: io::Result<bool>) -> Result<(), Self> {
        if read.map_err(Self::File)? { Ok(()) } else { Err(Self::MustWait) }
    }
}

impl BlockStore for View {
    fn size(&self) -> u64 {
        self.range().len
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        within(self.size(), at, into.len() as u64, io::ErrorKind::UnexpectedEof)?;
        let live = |at, part: &mut [u8]| self.volume.store().read_at(self.on_disk(at), part);
        let copies = |at, part: &mut [u8]| self.tracker.copies().read_at(at, part);
        self.tracker.table().read(at, into, live, copies).map_err(|error| match error {
            ReadError::Lost(lost) => self.lost(lost),
            ReadError::File(error) => error,
        })
    }

    fn read_now(&self, at: u64, into: &mut [u8]) -> io::Result<bool> {
        within(self.size(), at, into.len() as u64, io::ErrorKind::UnexpectedEof)?;
        let live = |at, part: &mut [u8]| NotNow::unless(self.volume.store().read_now(self.on_disk(at), part));
        let copies = |at, part: &mut [u8]| NotNow::unless(self.tracker.copies().read_now(at, part));
        match self.tracker.table().read(at, into, live, copies) {
            Ok(()) => Ok(true),
            Err(ReadError::File(NotNow::MustWait)) => Ok(false),
            Err(ReadError::File(NotNow::File(error))) => Err(error),
            Err(ReadError::Lost(lost)) => Err(self.lost(lost)),
        }
    }

    fn write_at(&self, _at: u64, _data: &[Bytes]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn deallocate(&self, _range: ByteRange) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    /// Nothing to do: a view does not outlive the target.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        within(self.size(), range.start, range.len, io::ErrorKind::UnexpectedEof)?;
        let table = self.tracker.table();
        let mut found: Vec<Allocation> = Vec::new();
        let mut at = range.start;
        while at < range.end() && found.len() < limit {
            let rest = ByteRange { start: at, len: range.end() - at };
            let Some(run) = table.runs(rest).next() else { break };
            let parts = if run.copied {
                self.tracker.copies().allocation(run.range, limit - found.len())?
            } else {
                let parts = self.live_allocation(run.range, limit - found.len())?;
                let seen = ByteRange { start: at, len: parts.last().map_or(at, |part| part.range.end()) - at };
                if !table.overtaken(seen).map_err(|lost| self.lost(lost))?.is_empty() {
                    // Chunks went to the copy store meanwhile; the next look finds them there. Bits are never cleared: it ends.
                    continue;
                }
                parts
            };
            at = parts.last().map_or(range.end(), |part| part.range.end());
            for part in parts {
                match found.last_mut() {
                    Some(last) if last.allocated == part.allocated => last.range.len += part.range.len,
                    _ => found.push(part),
                }
            }
        }
        table.check_live().map_err(|lost| self.lost(lost))?;
        Ok(found)
    }

    fn source(&self, block_length: u32) -> io::Result<LocalEnd> {
        let (live, on_disk) = raw(self.volume.store().source(block_length)?)?;
        let (copies, _) = raw(self.tracker.copies().source(block_length)?)?;
        let table = sys::reopen_read_only(self.tracker.table_file())?;
        let end = End::View {
            live: Descriptor(0),
            within: ByteRange { start: on_disk.start + self.range().start, len: self.range().len },
            parts: Vec::new(),
            copies: Descriptor(1),
            table: Descriptor(2),
            generation: self.tracker.table().generation(),
            block_length,
        };
        Ok(LocalEnd { end, files: vec![live, copies, table] })
    }

    fn destination(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// The one file of a raw end, and the bytes of it that are the store.
fn raw(end: LocalEnd) -> io::Result<(std::os::fd::OwnedFd, ByteRange)> {
    match (end.end, <[_; 1]>::try_from(end.files)) {
        (End::Raw { within, .. }, Ok([file])) => Ok((file, within)),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
