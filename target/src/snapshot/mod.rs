//! Static views of disks, taken at one moment, kept by copy on write.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use protocol::units::ByteRange;

use crate::quiet::{HoldTooLong, NeverQuiet, Waiting};
use crate::store::{Allocation, BlockStore, LocalEnd};
use crate::volume::Volume;

/// The snapshots that a volume's writes must serve.
#[derive(Debug, Default)]
pub(crate) struct Trackers {}

impl Trackers {
    /// Blocks. Copies up what live snapshots still need of `range`; to be called by an admitted writer before it writes.
    pub(crate) fn preserve(&self, _live: &dyn BlockStore, _range: ByteRange) {}
}

/// What to take a view of.
#[derive(Debug, Clone)]
pub struct Source {
    /// The disk.
    pub volume: Arc<Volume>,
    /// Bytes of it; all when `None`. Nothing outside is copied on write.
    pub range: Option<ByteRange>,
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
    #[error("{0}")]
    Invalid(String),
    /// No copy store or table could be made.
    #[error("the copy store cannot be made: {0}")]
    CopyStore(#[source] io::Error),
}

/// Makes snapshots; their copy stores are files without a name in one folder.
#[derive(Debug)]
pub struct SnapshotService {
    _folder: PathBuf,
}

impl SnapshotService {
    /// Copy stores will lie in `folder`, which exists.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { _folder: folder }
    }

    /// Waits for quiet and takes the views.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn take(&self, _request: Request, _progress: impl FnMut(Waiting)) -> Result<Taken, SnapshotError> {
        Err(SnapshotError::CopyStore(io::ErrorKind::Unsupported.into()))
    }
}

/// A static view: a read-only store. It ends when the last owner drops it, or by [`View::end`].
#[derive(Debug)]
pub struct View {
    range: ByteRange,
}

impl View {
    /// Unlike every other view of this process's life.
    #[must_use]
    pub fn id(&self) -> u64 {
        0
    }

    /// The bytes of the disk it shows.
    #[must_use]
    pub fn range(&self) -> ByteRange {
        self.range
    }

    /// Why reads of it fail, once they do.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        None
    }

    /// Bytes saved by copy on write so far.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        0
    }

    /// Ends it now: reads and copies of it fail from here on, and the disk's writes no longer serve it.
    pub fn end(&self) {}
}

impl BlockStore for View {
    fn size(&self) -> u64 {
        self.range.len
    }

    fn read_only(&self) -> bool {
        true
    }

    fn read_at(&self, _at: u64, _into: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _at: u64, _data: &[Bytes]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn deallocate(&self, _range: ByteRange) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, _range: ByteRange, _limit: usize) -> io::Result<Vec<Allocation>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn source(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn destination(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
