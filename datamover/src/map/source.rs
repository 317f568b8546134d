//! Where the map reads from: a file, a block device, or (in [`crate::agent`]) a LUN behind an iSCSI session.
//!
//! It does not cache: the parsers ask for few and large pieces, since each read may be a round trip to a target.
//! Every byte read is counted, for a backup prints how much metadata it has carried.

use super::extents::Extents;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use protocol::units::ByteRange;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest piece that a parser asks for in one read, in bytes.
pub const MAX_READ: usize = 1 << 20;

/// Something with a size that can be read at any byte.
///
/// All methods take `&self`, so that one source serves several readers.
pub trait ReadAt: Send + Sync {
    /// In bytes.
    fn size(&self) -> u64;

    /// Bytes in one logical block; a partition table counts in these.
    fn block_length(&self) -> u32;

    /// Fills the whole buffer from byte `offset`. Any alignment is allowed; see [`read_rounded`] for sources made of blocks.
    ///
    /// # Errors
    /// What the device said; [`io::ErrorKind::UnexpectedEof`] behind the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Bytes carried since the source was opened, rounding included.
    fn bytes_read(&self) -> u64;

    /// The parts of `range` that were ever written. All of it, where the source cannot tell.
    ///
    /// # Errors
    /// What the device said.
    fn allocated(&self, range: ByteRange) -> io::Result<Extents> {
        Ok(Extents::from(range))
    }
}

/// Reads any bytes from a source that is read in whole blocks: `read` gets an aligned offset and an aligned buffer.
///
/// # Errors
/// Those of `read`.
pub fn read_rounded(
    block_length: u32,
    offset: u64,
    buffer: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let block = u64::from(block_length.max(1));
    let (head, len) = (offset % block, buffer.len() as u64);
    if head == 0 && len.is_multiple_of(block) {
        return read(offset, buffer);
    }
    let mut whole = vec![0; (head + len).next_multiple_of(block) as usize];
    read(offset - head, &mut whole)?;
    buffer.copy_from_slice(&whole[head as usize..][..buffer.len()]);
    Ok(())
}

/// An image file or a block device, opened for reading only.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: u64,
    block_length: u32,
    carried: AtomicU64,
}

impl FileSource {
    /// Opens `path`; `block_length` in bytes is what a partition table in it counts in.
    ///
    /// # Errors
    /// Those of opening and of finding the size.
    pub fn open(path: &Path, block_length: u32) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).open(path)?;
        // A block device has no length in its metadata, but its end can be sought.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, size, block_length, carried: AtomicU64::new(0) })
    }
}

impl ReadAt for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_length(&self) -> u32 {
        self.block_length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        self.carried.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn bytes_read(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    fn allocated(&self, range: ByteRange) -> io::Result<Extents> {
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end().min(self.size) {
            let data = match lseek(&self.file, at as i64, Whence::SeekData) {
                Ok(data) => data as u64,
                Err(Errno::ENXIO) => break,
                // A device or file system without holes.
                Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(Extents::from(range)),
                Err(error) => return Err(error.into()),
            };
            let hole = lseek(&self.file, data as i64, Whence::SeekHole)? as u64;
            let end = hole.min(range.end());
            if let Some(piece) = end.checked_sub(data).and_then(|len| ByteRange::new(data, len)) {
                found.push(piece);
            }
            at = hole;
        }
        Ok(found.into())
    }
}

#[cfg(test)]
pub(crate) mod memory {
    use super::*;

    /// A source for tests.
    pub(crate) struct Memory(pub Vec<u8>, pub AtomicU64);

    impl Memory {
        pub(crate) fn new(bytes: Vec<u8>) -> Self {
            Self(bytes, AtomicU64::new(0))
        }
    }

    impl ReadAt for Memory {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn block_length(&self) -> u32 {
            512
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let from = usize::try_from(offset).ok().and_then(|from| self.0.get(from..)?.get(..buffer.len()));
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            Ok(())
        }

        fn bytes_read(&self) -> u64 {
            self.1.load(Ordering::Relaxed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_source_of_blocks_can_be_read_at_any_byte() {
        let data: Vec<u8> = (0..64).collect();
        let read = |offset: u64, buffer: &mut [u8]| {
            assert_eq!((offset % 16, buffer.len() % 16), (0, 0));
            buffer.copy_from_slice(&data[offset as usize..][..buffer.len()]);
            Ok(())
        };
        for (offset, len) in [(0, 16), (3, 5), (15, 2), (16, 48), (1, 63)] {
            let mut buffer = vec![0; len];
            read_rounded(16, offset, &mut buffer, read).unwrap();
            assert_eq!(buffer, data[offset as usize..][..len]);
        }
    }

    #[test]
    fn a_hole_in_a_file_is_not_allocated_and_reads_are_counted() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 65536]).unwrap();
        file.as_file().set_len(1 << 22).unwrap();
        let source = FileSource::open(file.path(), 512).unwrap();
        let allocated = source.allocated(ByteRange { start: 0, len: 1 << 22 }).unwrap();
        assert!(allocated.covers(ByteRange { start: 0, len: 65536 }));
        source.read_at(100, &mut [0; 300]).unwrap();
        assert_eq!(source.bytes_read(), 300);
        assert!(source.read_at((1 << 22) - 1, &mut [0; 2]).is_err());
    }
}
