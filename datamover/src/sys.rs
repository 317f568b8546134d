//! The only `unsafe` of this crate: system calls that no safe wrapper covers, each with the reason why it is sound.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::{SFlag, fstat};

/// Words of memory that another process writes, mapped for reading.
///
/// Only loads, and only relaxed ones beside fences: the pages are not writable, and other orderings may need to write.
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
    /// Maps sealed memory; what is behind the last whole word is left out.
    ///
    /// # Errors
    /// `InvalidInput` when its size is not sealed, or it is empty: a look at memory that was cut meanwhile would end the process.
    /// Else what `mmap` gives.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate)?;
        let words = usize::try_from(fstat(&file)?.st_size).ok().and_then(|bytes| NonZeroUsize::new(bytes / 8));
        let Some(words) = words.filter(|_| seals.contains(SealFlag::F_SEAL_SHRINK)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "memory that is empty, or whose size is not sealed"));
        };
        let bytes = words.saturating_mul(const { NonZeroUsize::new(8).unwrap() });
        // SAFETY: a new mapping at an address of the kernel's choice; the seal keeps the size for as long as it lives.
        let first = unsafe { mmap(None, bytes, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &file, 0)? };
        Ok(Self { first: first.cast(), words })
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

/// Reads from a socket, and takes the files that travel beside the bytes. Gives the bytes read; 0 when the other side is gone.
///
/// # Errors
/// What `recvmsg` gives; `InvalidData` when more files came than fit, since the kernel has dropped some.
pub fn receive(socket: &UnixStream, into: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut room = nix::cmsg_space!([RawFd; SCM_MAX_FD]);
    let mut parts = [io::IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more files beside a message than there is room for"));
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel has just made these descriptors for us, and nothing else knows their numbers.
            files.extend(descriptors.into_iter().map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    Ok(message.bytes)
}

/// Lets `len` bytes of `to` refer to blocks of `from` (FICLONERANGE): nothing is read or written but the file system's own tables.
///
/// # Errors
/// What the system gives; `EOPNOTSUPP`, `EXDEV` and `EINVAL` where file systems, files or alignment do not allow it.
pub fn clone_range(from: BorrowedFd<'_>, from_at: u64, to: BorrowedFd<'_>, to_at: u64, len: u64) -> io::Result<()> {
    let range =
        libc::file_clone_range { src_fd: from.as_raw_fd().into(), src_offset: from_at, src_length: len, dest_offset: to_at };
    // SAFETY: the request takes a pointer to this structure, reads it before it returns and keeps nothing of it.
    Errno::result(unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONERANGE, &raw const range) })?;
    Ok(())
}

/// Sets the priority of this thread's input and output among others: best effort, 0 first to 7 last; 4 is what others have.
///
/// # Errors
/// What the system gives.
pub fn set_io_priority(level: u8) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    const THIS_THREAD: libc::c_int = 0;
    const CLASS_BEST_EFFORT: libc::c_int = 2;
    const CLASS_SHIFT: libc::c_int = 13;
    let priority = CLASS_BEST_EFFORT << CLASS_SHIFT | libc::c_int::from(level.min(7));
    // SAFETY: takes three numbers, no memory.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, priority) })?;
    Ok(())
}

/// The socket that the parent process left open under a number.
///
/// # Errors
/// When nothing, or something that is no socket, is open there, or for the streams that are written to.
pub fn inherited_socket(number: RawFd) -> io::Result<UnixStream> {
    // Standard input may be the socket: so it reaches this process and no other child of the target. Nothing here reads it else.
    if number < 0 || number == 1 || number == 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a stream for output is no mover socket"));
    }
    // SAFETY: borrowed for this look only; a number that is not open gives EBADF.
    let status = fstat(unsafe { BorrowedFd::borrow_raw(number) })?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFSOCK {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("file descriptor {number} is no socket")));
    }
    // SAFETY: open, as just seen; the program calls this once, before it opens anything, so nothing else owns it.
    Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// As many files as Linux lets travel beside one message.
const SCM_MAX_FD: usize = 253;
