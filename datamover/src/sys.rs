//! The only `unsafe` of this crate: system calls that no safe wrapper covers, each with the reason why it is sound.
#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

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
