//! Blocks that lie in a sparse file, or on a block device, exactly as they are on the LUN.
//!
//! Buffered, as movers are too: one page cache is what makes their reads and our writes agree. No format, no header: any
//! tool that knows raw images can use the file while no target serves it.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::uio::pwritev;
use nix::unistd::{Whence, fdatasync, lseek};
use protocol::mover::ends::{Descriptor, End};
use protocol::units::ByteRange;

use super::in_place::Mapping;
use super::{Allocation, BlockStore, LocalEnd, within};
use crate::sys;

/// How long a file is waited for that somebody else has locked: a mover of a target that died may still end its last write.
const LOCK_WAIT: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };
/// `pwritev` takes no more parts than this (IOV_MAX of Linux).
const PARTS_AT_ONCE: usize = 1024;
/// Zeros are written in pieces of this size where the file cannot free blocks.
const ZEROS: usize = 256 * 1024;

/// Which file to open. With a size it is made if it is not there; without one it must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSpec {
    /// File or block device.
    pub path: PathBuf,
    /// Bytes; what is there already must have just this size.
    pub size: Option<u64>,
}

/// A file or block device, opened exclusively.
#[derive(Debug)]
pub struct RawStore {
    file: File,
    path: PathBuf,
    size: AtomicU64,
    read_only: bool,
    /// On tmpfs, which refuses reads that may not wait since none of its reads does.
    in_memory: bool,
    /// Of the whole file.
    mapping: RwLock<Option<Arc<Mapping>>>,
}

impl RawStore {
    /// Opens what `spec` names, and makes the file when it is not there and a size is given.
    ///
    /// # Errors
    /// `ResourceBusy` when another process holds it; `InvalidInput` when it has another size than asked for, or none; else what
    /// the system gives.
    pub fn open(spec: &RawSpec) -> io::Result<Self> {
        let existing = Self::open_existing(&spec.path, false);
        match (existing, spec.size) {
            (Err(error), Some(size)) if error.kind() == io::ErrorKind::NotFound => Self::create(&spec.path, size),
            (Ok(store), Some(size)) if store.size() != size => {
                let what = format!("{} has {} bytes, {size} were asked for", spec.path.display(), store.size());
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
            (existing, _) => existing,
        }
    }

    /// Opens an existing file or block device that nobody writes.
    ///
    /// # Errors
    /// As [`RawStore::open`].
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        Self::open_existing(path, true)
    }

    /// A file of zeros without a name in `folder`, all of it a hole; it is gone when its last descriptor is closed.
    ///
    /// # Errors
    /// Whatever the system gives.
    pub fn unnamed(folder: &Path, size: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder).or_else(|_| {
                // Not every file system makes files without a name. This one loses it before anything is in it.
                let path = folder.join(format!(".offhost-unnamed-{}-{:?}", std::process::id(), thread::current().id()));
                let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
                std::fs::remove_file(&path).map(|()| file)
            })?;
        file.set_len(size)?;
        Ok(Self::new(file, folder, size, false))
    }

    /// Where the blocks lie.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn new(file: File, path: &Path, size: u64, read_only: bool) -> Self {
        let in_memory = fstatfs(&file).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC);
        let mapping = RwLock::new(Mapping::of(&file, size));
        Self { file, path: path.to_path_buf(), size: AtomicU64::new(size), read_only, in_memory, mapping }
    }

    fn create(path: &Path, size: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        lock(&file, path)?;
        file.set_len(size)?;
        Ok(Self::new(file, path, size, false))
    }

    fn open_existing(path: &Path, read_only: bool) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is no file and no block device", path.display()),
            ));
        }
        // On a block device O_EXCL is a claim against mounts and other users; on a file it means nothing without O_CREAT.
        let exclusive = if kind.is_block_device() { libc::O_EXCL } else { 0 };
        let file = OpenOptions::new().read(true).write(!read_only).custom_flags(exclusive).open(path)?;
        lock(&file, path)?;
        let size = lseek(&file, 0, Whence::SeekEnd)?.unsigned_abs();
        if size == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no blocks", path.display())));
        }
        Ok(Self::new(file, path, size, read_only))
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn write_zeros(&self, range: ByteRange) -> io::Result<()> {
        let zeros = vec![0; ZEROS.min(usize::try_from(range.len).unwrap_or(ZEROS))];
        let mut at = range.start;
        while at < range.end() {
            let part = &zeros[..zeros.len().min(usize::try_from(range.end() - at).unwrap_or(ZEROS))];
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn end(&self, file: OwnedFd, block_length: u32) -> LocalEnd {
        let within = ByteRange { start: 0, len: self.size() };
        LocalEnd { end: End::Raw { file: Descriptor(0), within, block_length }, files: vec![file] }
    }

    /// The next byte from `at` on that is data or hole, or the end of the store.
    fn seek(&self, at: u64, whence: Whence) -> io::Result<u64> {
        let offset = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        match lseek(&self.file, offset, whence) {
            Ok(found) => Ok(found.unsigned_abs().min(self.size())),
            Err(Errno::ENXIO) => Ok(self.size()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl BlockStore for RawStore {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn allocated(&self) -> io::Result<u64> {
        const UNIT_OF_ST_BLOCKS: u64 = 512;
        let metadata = self.file.metadata()?;
        match metadata.file_type().is_file() {
            true => Ok(metadata.blocks() * UNIT_OF_ST_BLOCKS),
            // A block device does not say.
            false => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn resize(&self, size: Option<u64>) -> io::Result<u64> {
        if let Some(size) = size {
            self.writable()?;
            self.file.set_len(size)?;
        }
        let size = lseek(&self.file, 0, Whence::SeekEnd)?.unsigned_abs();
        if size == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no blocks", self.path.display())));
        }
        self.size.store(size, Ordering::Relaxed);
        *self.mapping.write().expect("no holder panics") = Mapping::of(&self.file, size);
        Ok(size)
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        within(self.size(), at, into.len() as u64, io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(into, at)
    }

    fn read_now(&self, at: u64, into: &mut [u8]) -> io::Result<bool> {
        within(self.size(), at, into.len() as u64, io::ErrorKind::UnexpectedEof)?;
        if self.in_memory {
            return self.file.read_exact_at(into, at).map(|()| true);
        }
        Ok(sys::read_cached(self.file.as_fd(), at, into)? == Some(into.len()))
    }

    fn mapping(&self) -> Option<Arc<Mapping>> {
        self.mapping.read().expect("no holder panics").clone()
    }

    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()> {
        self.writable()?;
        let len = data.iter().map(|part| part.len() as u64).sum();
        within(self.size(), at, len, io::ErrorKind::InvalidInput)?;
        let mut at = at;
        for parts in data.chunks(PARTS_AT_ONCE) {
            let mut parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut rest = parts.as_mut_slice();
            while rest.iter().any(|part| !part.is_empty()) {
                let offset = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
                match pwritev(&self.file, rest, offset) {
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

    fn buffered(&self) -> bool {
        true
    }

    fn deallocate(&self, range: ByteRange) -> io::Result<()> {
        self.writable()?;
        within(self.size(), range.start, range.len, io::ErrorKind::InvalidInput)?;
        let (Ok(start), Ok(len)) = (i64::try_from(range.start), i64::try_from(range.len)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if len == 0 {
            return Ok(());
        }
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&self.file, punch, start, len) {
            Ok(()) => Ok(()),
            // It must read as zeros from now on, whether the blocks can be freed or not.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => self.write_zeros(range),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fdatasync(&self.file)?)
    }

    fn allocation(&self, range: ByteRange, limit: usize) -> io::Result<Vec<Allocation>> {
        within(self.size(), range.start, range.len, io::ErrorKind::UnexpectedEof)?;
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end() && found.len() < limit {
            let data = match self.seek(at, Whence::SeekData) {
                Ok(data) => data,
                // A block device does not say. Doubtful counts as allocated.
                Err(_) => {
                    found.push(Allocation { range: ByteRange { start: at, len: range.end() - at }, allocated: true });
                    break;
                }
            };
            let allocated = data == at;
            let end = if allocated { self.seek(at, Whence::SeekHole)? } else { data }.clamp(at, range.end());
            if end == at {
                // The file changed between the two calls; look again.
                continue;
            }
            found.push(Allocation { range: ByteRange { start: at, len: end - at }, allocated });
            at = end;
        }
        Ok(found)
    }

    fn source(&self, block_length: u32) -> io::Result<LocalEnd> {
        Ok(self.end(sys::reopen_read_only(&self.file)?, block_length))
    }

    /// The open file itself, with its lock: a target that starts anew waits for the last mover of its former life to close it.
    fn destination(&self, block_length: u32) -> io::Result<LocalEnd> {
        self.writable()?;
        Ok(self.end(self.file.try_clone()?.into(), block_length))
    }
}

fn lock(file: &File, path: &Path) -> io::Result<()> {
    let give_up = Instant::now() + LOCK_WAIT;
    while !sys::try_lock(file)? {
        if Instant::now() >= give_up {
            let what = format!("{} is in use by another process (or by a mover of a target that died)", path.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
