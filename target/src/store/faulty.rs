//! A store that fails when told to: what tests put where a disk or a copy store goes wrong.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protocol::units::ByteRange;

use super::{Allocation, BlockStore, LocalEnd};

/// Another store with faults in front of it. Without any set it is that store.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn BlockStore>,
    /// Bytes that can still be written before the store is full.
    space: AtomicU64,
    reads_to_fail: AtomicU64,
    delay_us: AtomicU64,
}

impl FaultyStore {
    /// No faults yet.
    #[must_use]
    pub fn new(inner: Arc<dyn BlockStore>) -> Self {
        Self { inner, space: AtomicU64::new(u64::MAX), reads_to_fail: AtomicU64::new(0), delay_us: AtomicU64::new(0) }
    }

    /// After `space` more bytes every write is `StorageFull`.
    pub fn limit_space(&self, space: u64) {
        self.space.store(space, Ordering::SeqCst);
    }

    /// The next `count` reads fail.
    pub fn fail_reads(&self, count: u64) {
        self.reads_to_fail.store(count, Ordering::SeqCst);
    }

    /// Every read and write takes at least so long.
    pub fn delay(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Ordering::SeqCst);
    }

    fn wait(&self) {
        match self.delay_us.load(Ordering::SeqCst) {
            0 => {}
            us => std::thread::sleep(Duration::from_micros(us)),
        }
    }

    fn take(counter: &AtomicU64, count: u64) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(count)).is_ok()
    }
}

impl BlockStore for FaultyStore {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.wait();
        if Self::take(&self.reads_to_fail, 1) {
            return Err(io::Error::other("told to fail this read"));
        }
        self.inner.read_at(at, into)
    }

    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()> {
        self.wait();
        if !Self::take(&self.space, data.iter().map(|part| part.len() as u64).sum()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write_at(at, data)
    }

    fn deallocate(&self, range: ByteRange) -> io::Result<()> {
        self.inner.deallocate(range)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        self.inner.allocation(range, limit)
    }

    fn source(&self, block_length: u32) -> io::Result<LocalEnd> {
        self.inner.source(block_length)
    }

    fn destination(&self, block_length: u32) -> io::Result<LocalEnd> {
        self.inner.destination(block_length)
    }
}
