//! Blocks that lie in a file or block device as they are on the LUN.
//!
//! Files are byte-addressed, so that part of a block is written without reading it first; on a block device the kernel reads
//! around the edges. Buffered, as the target is: one page cache makes both agree.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::uio::pwritev;
use nix::unistd::{Whence, lseek};
use protocol::units::ByteRange;

use crate::sys;

/// `pwritev` takes no more parts than this (IOV_MAX of Linux).
pub const PARTS_AT_ONCE: usize = 1024;

/// Fewer bytes are copied sooner than referred to, and leave the file in fewer pieces.
const CLONE_LEAST: u64 = 64 << 10;

/// In memory holes in fewer bytes are not looked for: it would take longer than to copy them.
const LOOK_LEAST: u64 = 1 << 20;

/// A file's identity: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId(u64, u64);

/// Blocks of a file.
#[derive(Debug)]
pub struct Raw {
    file: File,
    within: ByteRange,
    block_length: u32,
    id: FileId,
    /// Bytes of the file system's blocks: what references are made of.
    unit: u64,
    /// Where a hole begins is found out by looking at every page.
    in_memory: bool,
    /// Data, as far as was looked.
    known_data: Mutex<ByteRange>,
}

impl Raw {
    /// The LUN is the part `within` of the file.
    ///
    /// # Errors
    /// What the system gives.
    pub fn new(file: File, within: ByteRange, block_length: u32) -> io::Result<Self> {
        let stat = fstat(&file)?;
        let system = fstatfs(&file)?;
        let (unit, in_memory) = (system.block_size().unsigned_abs(), system.filesystem_type() == TMPFS_MAGIC);
        let known_data = Mutex::new(ByteRange { start: 0, len: 0 });
        Ok(Self { file, within, block_length, id: FileId(stat.st_dev, stat.st_ino), unit, in_memory, known_data })
    }

    /// Bytes a block.
    #[must_use]
    pub const fn block_length(&self) -> u32 {
        self.block_length
    }

    /// True when both are the same bytes of one file, so that an address means the same in both.
    #[must_use]
    pub fn same_blocks(&self, other: &Self) -> bool {
        self.id == other.id && self.within == other.within
    }

    /// Fills `into`.
    ///
    /// # Errors
    /// `UnexpectedEof` behind the LUN's end, and what the file gives.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, self.place(at, into.len() as u64)?)
    }

    /// Writes all parts one after the other.
    ///
    /// # Errors
    /// `UnexpectedEof` behind the LUN's end, and what the file gives.
    pub fn write_at(&self, at: u64, parts: &[Bytes]) -> io::Result<()> {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        write_parts(&self.file, self.place(at, len)?, parts)
    }

    /// The first stretch of data at or behind `at`, empty at the LUN's end; of `len` bytes from there on it tells the truth. What is
    /// doubtful counts as data, and what has become a hole since it was looked at too.
    #[must_use]
    pub fn next_data(&self, at: u64, len: u64) -> ByteRange {
        let mut known = self.known_data.lock().expect("no holder panics");
        if !known.range().contains(&at) {
            let start = self.seek(at, Whence::SeekData).unwrap_or(at).max(at);
            let hole = if self.in_memory && len < LOOK_LEAST { None } else { self.seek(start, Whence::SeekHole) };
            let end = hole.filter(|hole| *hole > start);
            let data = ByteRange { start, len: end.unwrap_or_else(|| self.within.len.max(start)) - start };
            if end.is_none() {
                return data;
            }
            *known = data;
        }
        let start = known.start.max(at);
        ByteRange { start, len: known.end() - start }
    }

    /// The first byte at or behind `at` that is data, or that is a hole: `None` where the file does not say. What lies behind the
    /// file's end is neither: a file that is shorter than its LUN has lost something, and reading it says so.
    fn seek(&self, at: u64, whence: Whence) -> Option<u64> {
        let offset = i64::try_from(self.within.start.checked_add(at)?).ok()?;
        match lseek(&self.file, offset, whence) {
            Ok(found) => Some(found.unsigned_abs().saturating_sub(self.within.start).min(self.within.len)),
            Err(Errno::ENXIO) => {
                let size = fstat(&self.file).ok()?.st_size.unsigned_abs();
                Some(size.saturating_sub(self.within.start).min(self.within.len))
            }
            Err(_) => None,
        }
    }

    /// Frees a range; it reads as zeros from then on.
    ///
    /// # Errors
    /// `Unsupported` where the file cannot, and what the file gives.
    pub fn punch(&self, range: ByteRange) -> io::Result<()> {
        let place = self.place(range.start, range.len)?;
        let (Ok(start), Ok(len)) = (i64::try_from(place), i64::try_from(range.len)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, punch, start, len) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Err(io::ErrorKind::Unsupported.into()),
            done => Ok(done?),
        }
    }

    /// Lets another refer to blocks of this. Gives the part of the `len` bytes that it now refers to, counted from the first of
    /// them: whole blocks of the file system. `None` where files or places do not allow it.
    #[must_use]
    pub fn clone_to(&self, at: u64, to: &Self, to_at: u64, len: u64) -> Option<ByteRange> {
        let (from_place, to_place) = (self.place(at, len).ok()?, to.place(to_at, len).ok()?);
        let unit = self.unit.max(to.unit).max(1);
        let head = from_place.next_multiple_of(unit) - from_place;
        let whole = len.checked_sub(head)? / unit * unit;
        if from_place % unit != to_place % unit || whole < CLONE_LEAST {
            return None;
        }
        let cloned = sys::clone_range(self.file.as_fd(), from_place + head, to.file.as_fd(), to_place + head, whole);
        // Whatever the reason: a copy tells errors of the files apart, and cures all others.
        cloned.ok().map(|()| ByteRange { start: head, len: whole })
    }

    /// Lets all of another's `len` bytes refer to this; false where not all of them can.
    #[must_use]
    pub fn clone_whole(&self, at: u64, to: &Self, to_at: u64, len: u64) -> bool {
        self.clone_to(at, to, to_at, len) == Some(ByteRange { start: 0, len })
    }

    /// True where blocks of the file begin at this byte.
    #[must_use]
    pub const fn is_block(&self, at: u64) -> bool {
        self.within.start.wrapping_add(at).is_multiple_of(if self.unit == 0 { 1 } else { self.unit })
    }

    /// Copies inside the kernel; gives how many bytes, at least one.
    ///
    /// # Errors
    /// `Unsupported` where the two files do not allow it, and what the files give.
    pub fn copy_to(&self, at: u64, to: &Self, to_at: u64, len: u64) -> io::Result<u64> {
        let signed = |place: u64| i64::try_from(place).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let (mut from_place, mut to_place) = (signed(self.place(at, len)?)?, signed(to.place(to_at, len)?)?);
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        match copy_file_range(self.file.as_fd(), Some(&mut from_place), to.file.as_fd(), Some(&mut to_place), count) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => Ok(copied as u64),
            Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => Err(io::ErrorKind::Unsupported.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Byte of the file for a byte of the LUN.
    fn place(&self, at: u64, len: u64) -> io::Result<u64> {
        match at.checked_add(len) {
            Some(end) if end <= self.within.len => Ok(self.within.start + at),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Writes all parts one after the other, from a byte of a file on.
///
/// # Errors
/// What the file gives.
pub fn write_parts(file: &File, mut at: u64, parts: &[Bytes]) -> io::Result<()> {
    for parts in parts.chunks(PARTS_AT_ONCE) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        while rest.iter().any(|part| !part.is_empty()) {
            let offset = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
            match pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}
