//! Where the blocks of a disk LUN lie: one file here for each kind of place. Every store passes one contract test.
//!
//! A store knows bytes and holes. Block lengths and commands are the LUN's; admission, snapshots and grants the
//! [`crate::volume::Volume`]'s, through which every write to a disk goes.

#[cfg(test)]
mod contract;
pub mod faulty;
pub mod in_place;
pub mod memory;
pub mod null;
pub mod raw;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use protocol::mover::ends::End;
use protocol::units::ByteRange;

use in_place::Mapping;

/// A run of bytes of a store, allocated or reading as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// Where.
    pub range: ByteRange,
    /// False for a hole.
    pub allocated: bool,
}

/// An end of a copy and the files it names: [`protocol::mover::ends::Descriptor`] n is `files[n]`.
#[derive(Debug)]
pub struct LocalEnd {
    /// What the mover is told.
    pub end: End,
    /// What travels beside it.
    pub files: Vec<OwnedFd>,
}

/// Bytes at addresses. Methods block, unless their doc says otherwise; all may be called by many threads at once.
///
/// Overlapping writes that run at once leave either's bytes, sector by sector; nothing here orders them.
pub trait BlockStore: fmt::Debug + Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Bytes that are allocated. Blocks for a moment only.
    ///
    /// # Errors
    /// Whatever the file gives; `Unsupported` for a store that does not know.
    fn allocated(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Blocks. Looks how large the file is by now, or makes it as large as asked for, and takes that as the size. Gives the new size.
    ///
    /// # Errors
    /// Whatever the file gives; `Unsupported` for a store whose size cannot change.
    fn resize(&self, size: Option<u64>) -> io::Result<u64> {
        let _ = size;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A snapshot or a read-only file.
    fn read_only(&self) -> bool;

    /// Fills `into`.
    ///
    /// # Errors
    /// Whatever the file gives; a range beyond the end is `UnexpectedEof`.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Fills `into` if that needs no wait (page cache); `false` leaves `into` in any state. Never blocks.
    ///
    /// # Errors
    /// As [`BlockStore::read_at`].
    fn read_now(&self, at: u64, into: &mut [u8]) -> io::Result<bool> {
        let _ = (at, into);
        Ok(false)
    }

    /// Where a system call may take the blocks from without reading them; `None` for a store that is not made of one file. Never
    /// blocks.
    fn mapping(&self) -> Option<Arc<Mapping>> {
        None
    }

    /// Writes all parts one after the other, without a copy.
    ///
    /// # Errors
    /// Whatever the file gives; `ReadOnlyFilesystem` when [`BlockStore::read_only`].
    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()>;

    /// True where a write only goes to memory, as a rule: it may be tried without a thread that may block. It will still wait
    /// when memory is full of what has not been written back.
    fn buffered(&self) -> bool {
        false
    }

    /// Frees the range; it reads as zeros from then on.
    ///
    /// # Errors
    /// Whatever the file gives.
    fn deallocate(&self, range: ByteRange) -> io::Result<()>;

    /// What was written before this call survives a power loss after it.
    ///
    /// # Errors
    /// Whatever the file gives.
    fn sync(&self) -> io::Result<()>;

    /// Which parts of `range` hold data and which read as zeros, ascending and without gaps; at most `limit` entries,
    /// which may end before `range` does. What is doubtful counts as allocated.
    ///
    /// # Errors
    /// Whatever the file gives.
    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>>;

    /// The store as a mover's source, opened anew and read-only.
    ///
    /// # Errors
    /// Whatever the file gives; `Unsupported` for a store that is not made of files.
    fn source(&self, block_length: u32) -> io::Result<LocalEnd>;

    /// The store as a mover's destination. A mover writes only what a grant covers.
    ///
    /// # Errors
    /// As [`BlockStore::source`].
    fn destination(&self, block_length: u32) -> io::Result<LocalEnd>;
}

/// Checks that `len` bytes from `at` on lie inside a store.
pub(crate) fn within(size: u64, at: u64, len: u64, kind: io::ErrorKind) -> io::Result<()> {
    match at.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(kind, format!("{len} bytes at {at} do not lie inside {size} bytes"))),
    }
}
