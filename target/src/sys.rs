//! The only `unsafe` of this crate: system calls that no safe wrapper covers, each with the reason why it is sound.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use bytes::BufMut;
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

/// Gives this thread the least of the processor, and the lowest priority of its input and output that is still served in time: nice 19,
/// and the last of the best-effort class. The idle class would starve, and with it whoever waits for a lock that the thread holds.
///
/// # Errors
/// Whatever the calls give.
pub fn yield_to_others() -> io::Result<()> {
    const THIS_THREAD: libc::id_t = 0;
    const WHO_PROCESS: libc::c_int = 1;
    const LAST_OF_BEST_EFFORT: libc::c_int = 2 << 13 | 7;
    // SAFETY: both calls take three numbers, no memory.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS as libc::__priority_which_t, THIS_THREAD, 19) })?;
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, LAST_OF_BEST_EFFORT) })?;
    Ok(())
}

/// Reads what a socket has, up to the room in `into`, and never waits.
///
/// # Errors
/// `WouldBlock` when there is nothing; else whatever `recv` gives.
pub fn receive(socket: BorrowedFd<'_>, into: &mut impl BufMut) -> io::Result<usize> {
    let room = into.chunk_mut();
    // SAFETY: `room` is valid for its length and borrowed mutably for the whole call.
    let read = unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_DONTWAIT) };
    let read = Errno::result(read)?.unsigned_abs();
    // SAFETY: the call has filled so many bytes of the chunk.
    unsafe { into.advance_mut(read) };
    Ok(read)
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

/// A file mapped as a whole, to be read by system calls only.
///
/// Others write the file meanwhile, or cut it; a system call that reads what is gone fails with EFAULT, where a load would end the
/// process by SIGBUS.
#[derive(Debug)]
pub struct FileMapping {
    first: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the memory belongs to the mapping, not to a thread, and is never written through it.
unsafe impl Send for FileMapping {}
// SAFETY: as above.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Bytes of a page.
    pub const PAGE: usize = 4096;

    /// Maps the first `len` bytes. Takes addresses, no memory.
    ///
    /// # Errors
    /// Whatever `mmap` gives, as for a file that cannot be mapped or for want of addresses.
    pub fn new(file: &File, len: NonZeroUsize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let first = unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0)? };
        Ok(Self { first: first.cast(), len })
    }

    /// True when the page cache holds all pages of the range: `mincore`. False for a range that is not inside.
    #[must_use]
    pub fn is_resident(&self, at: usize, len: usize) -> bool {
        const PAGES: usize = 512;
        let start = at - at % Self::PAGE;
        let Some(end) = at.checked_add(len).filter(|end| *end <= self.len.get()) else { return false };
        (start..end).step_by(PAGES * Self::PAGE).all(|at| {
            let mut pages = [0; PAGES];
            let len = (end - at).min(PAGES * Self::PAGE);
            // SAFETY: the range lies in the mapping; `pages` has a byte for each of its pages.
            let looked = unsafe { libc::mincore(self.first.as_ptr().add(at).cast(), len, pages.as_mut_ptr()) };
            looked == 0 && pages[..len.div_ceil(Self::PAGE)].iter().all(|page| page & 1 == 1)
        })
    }

    /// Where in the file a piece of memory lies, if it does.
    #[must_use]
    pub fn offset_of(&self, piece: &[u8]) -> Option<usize> {
        let offset = piece.as_ptr().addr().checked_sub(self.first.addr().get())?;
        offset.checked_add(piece.len()).filter(|end| *end <= self.len.get()).map(|_| offset)
    }

    /// The bytes where they lie, to be named to a system call that copies them. Empty for a range that is not inside.
    ///
    /// What they are may change at any time, so nothing in this process may look at them: not to compare, to sum or to copy them.
    #[must_use]
    pub fn unread(&self, at: usize, len: usize) -> &[u8] {
        if at.checked_add(len).is_none_or(|end| end > self.len.get()) {
            return &[];
        }
        // SAFETY: inside the mapping, which lives as long as `self`. That others change the bytes does no harm as long as they are
        // not looked at, which is the rule above.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr().add(at), len) }
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.first.cast(), self.len.get()) };
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
