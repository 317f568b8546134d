//! The only `unsafe` of this crate: system calls that no safe wrapper covers, each with the reason why it is sound.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Reads what the page cache holds and never waits for a device: `preadv2` with `RWF_NOWAIT`.
///
/// `None` when it would have to wait, or where the file system cannot tell (tmpfs).
///
/// # Errors
/// Whatever else the call gives.
pub fn read_cached(file: BorrowedFd<'_>, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
    let at = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    let part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: `part` is one valid element that describes `into`, which is borrowed mutably for the whole call.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, libc::RWF_NOWAIT) };
    match Errno::result(read) {
        Ok(read) => Ok(Some(read.unsigned_abs())),
        Err(Errno::EAGAIN | Errno::EOPNOTSUPP | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the exclusive lock of an open file at once; false when another open file has it.
///
/// It is never taken back: it lies on the open file, which descriptors passed to a mover share, and goes when the last is closed.
///
/// # Errors
/// Whatever else `flock` gives.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: no memory is involved.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Sets how many bytes a socket waits for before it says that there is something to read: `SO_RCVLOWAT`, socket(7). The end of the
/// stream and errors are told at once all the same.
///
/// # Errors
/// Whatever the call gives.
pub fn set_receive_low_water_mark(socket: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

/// Whether a socket that is bound to all addresses of IPv6 leaves those of IPv4 alone: `IPV6_V6ONLY`, ipv6(7). Before it is bound.
///
/// # Errors
/// Whatever the call gives.
pub fn set_ipv6_only(socket: BorrowedFd<'_>, only: bool) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only.into())
}

fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    let (value, len) = (&raw const value, size_of::<i32>() as libc::socklen_t);
    // SAFETY: `value` points to an int of `len` bytes that lives through the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.cast(), len) };
    Ok(Errno::result(set).map(drop)?)
}

/// Words of memory that other processes map too.
#[derive(Debug)]
pub struct SharedWords {
    first: NonNull<AtomicU64>,
    words: NonZeroUsize,
}

// SAFETY: the memory belongs to the mapping, not to a thread, and is reached through atomics only.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Zeroed memory, and the descriptor by which another process maps it.
    ///
    /// Sealed against a change of size (or a mover could cut it and a look at it would be SIGBUS) and against new writers. Its pages
    /// are there from the start, so that no store into it fails later for want of memory.
    ///
    /// # Errors
    /// Whatever the system gives for want of memory or descriptors.
    pub fn sealed(words: NonZeroUsize) -> io::Result<(Self, OwnedFd)> {
        let bytes = words.checked_mul(const { NonZeroUsize::new(8).unwrap() }).ok_or(io::ErrorKind::InvalidInput)?;
        let file = memfd_create(c"offhost-table", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let len = i64::try_from(bytes.get()).map_err(|_| io::ErrorKind::InvalidInput)?;
        fallocate(&file, FallocateFlags::empty(), 0, len)?;
        // SAFETY: a new mapping at an address of the kernel's choice; the size is fixed by the seals below for as long as it lives.
        let first = unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &file, 0)? };
        let mapped = Self { first: first.cast(), words };
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((mapped, file))
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, holds this many words and lives as long as `self`; all access is atomic.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.words.get()) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.first.cast(), self.words.get() * 8) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}

/// Opens the same file anew and for reading only: an open file of its own, without its locks and without its right to write.
/// Works for files without a name too.
///
/// # Errors
/// Whatever `open` gives, as where `/proc` is not mounted.
pub fn reopen_read_only(file: impl AsFd) -> io::Result<OwnedFd> {
    File::open(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())).map(OwnedFd::from)
}
