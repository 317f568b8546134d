//! What makes WRITE ATOMIC all or nothing: the blocks are written to a journal first.
//!
//! ```text
//! 0      magic, address, length, CRC32C of the data; CRC32C of this header      | 4096   the data
//! ```
//!
//! Data and header are synced together; only then is the disk written and synced, and the header cleared and synced. A header whose
//! sums do not hold is no entry: nothing of that write has reached the disk. One that holds is written again at the next start.
//! So a write is there as a whole or not at all after `kill -9` and after a power loss. What a READ that runs at the same moment sees
//! is not its concern. Follows SBC-4, "Atomic write operations".

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use protocol::wire::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::store::BlockStore;

/// MAXIMUM ATOMIC TRANSFER LENGTH, in bytes: what the journal takes.
pub(super) const ATOMIC_MAX: u64 = 1 << 20;

const MAGIC: [u8; 8] = *b"OFHATOM1";
const DATA_AT: u64 = 4096;

/// The file of one disk.
#[derive(Debug)]
pub(super) struct Journal {
    /// Held from the entry to its end: one atomic write at a time.
    file: Mutex<File>,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    at: U64,
    len: U64,
    data_sum: U64,
    /// Over the fields before.
    sum: U64,
}

const _: () = assert!(size_of::<Header>() == 40);

impl Header {
    fn new(at: u64, data: &[u8]) -> Self {
        let mut header =
            Self { magic: MAGIC, at: at.into(), len: (data.len() as u64).into(), data_sum: crc(data).into(), sum: 0.into() };
        header.sum = header.own_sum().into();
        header
    }

    fn own_sum(&self) -> u64 {
        crc(&self.as_bytes()[..size_of::<Self>() - 8])
    }

    fn is_entry(&self) -> bool {
        self.magic == MAGIC && self.sum.get() == self.own_sum() && self.len.get() <= ATOMIC_MAX
    }
}

fn crc(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes)
}

impl Journal {
    /// Opens or makes the file, and writes to `store` what an earlier life left in it.
    ///
    /// # Errors
    /// Whatever the files give. Then the disk must not be served: it may hold a part of a write.
    pub(super) fn open(path: &Path, store: &dyn BlockStore) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Some((at, data)) = entry(&file)? {
            tracing::warn!(path = %path.display(), at, bytes = data.len(), "an atomic write that was cut is done again");
            store.write_at(at, &[data])?;
            store.sync()?;
            clear(&file)?;
        }
        Ok(Self { file: Mutex::new(file) })
    }

    /// Blocks. From now on `data` gets to `at`, whatever happens, until the entry ends.
    ///
    /// # Errors
    /// Whatever the file gives. Then there is no entry.
    pub(super) fn enter(&self, at: u64, data: &[u8]) -> io::Result<Entry<'_>> {
        let file = self.file.lock().expect("no holder panics");
        file.write_all_at(data, DATA_AT)?;
        file.write_all_at(Header::new(at, data).as_bytes(), 0)?;
        file.sync_data()?;
        Ok(Entry { file })
    }
}

/// An entry that holds. Dropped without an end it is there at the next start.
#[derive(Debug)]
#[must_use]
pub(super) struct Entry<'a> {
    file: MutexGuard<'a, File>,
}

impl Entry<'_> {
    /// Blocks. To be called when the disk is synced: later writes to the same blocks must not be undone by this entry.
    ///
    /// # Errors
    /// Whatever the file gives.
    pub(super) fn end(self) -> io::Result<()> {
        clear(&self.file)
    }
}

fn entry(file: &File) -> io::Result<Option<(u64, Bytes)>> {
    let mut header = [0; size_of::<Header>()];
    if file.metadata()?.len() < DATA_AT {
        return Ok(None);
    }
    file.read_exact_at(&mut header, 0)?;
    let header = Header::read_from_bytes(&header).expect("as long as a header");
    if !header.is_entry() || file.metadata()?.len() < DATA_AT + header.len.get() {
        return Ok(None);
    }
    let mut data = vec![0; header.len.get() as usize];
    file.read_exact_at(&mut data, DATA_AT)?;
    Ok((crc(&data) == header.data_sum.get()).then(|| (header.at.get(), data.into())))
}

fn clear(file: &File) -> io::Result<()> {
    file.write_all_at(&[0; size_of::<Header>()], 0)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lun::testing::MemoryStore;

    fn stored(store: &MemoryStore, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        store.read_at(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_write_that_was_cut_is_made_whole_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (path, store) = (folder.path().join("luns/a.atomic"), MemoryStore::new(1 << 20));
        let journal = Journal::open(&path, &store).unwrap();
        let data = vec![0x5A; 8192];
        // As if the target were killed between two of the disk's blocks.
        let entry = journal.enter(4096, &data).unwrap();
        store.write_at(4096, &[Bytes::from(vec![0x5A; 4096])]).unwrap();
        drop(entry);
        drop(journal);
        Journal::open(&path, &store).unwrap();
        assert_eq!(stored(&store, 4096, 8192), data);
        // The entry has ended: what is written later stays.
        store.write_at(4096, &[Bytes::from(vec![1; 8192])]).unwrap();
        Journal::open(&path, &store).unwrap();
        assert_eq!(stored(&store, 4096, 8192), vec![1; 8192]);
    }

    #[test]
    fn an_entry_that_is_not_whole_is_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let (path, store) = (folder.path().join("a.atomic"), MemoryStore::new(1 << 20));
        let journal = Journal::open(&path, &store).unwrap();
        drop(journal.enter(0, &[7; 4096]).unwrap());
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for (at, byte) in [(DATA_AT + 4095, 8), (12, 1)] {
            let mut before = [0];
            File::open(&path).unwrap().read_exact_at(&mut before, at).unwrap();
            file.write_all_at(&[byte], at).unwrap();
            assert!(entry(&File::open(&path).unwrap()).unwrap().is_none(), "byte {at}");
            file.write_all_at(&before, at).unwrap();
        }
        file.set_len(DATA_AT + 100).unwrap();
        Journal::open(&path, &store).unwrap();
        assert_eq!(stored(&store, 0, 4096), vec![0; 4096]);
    }
}
