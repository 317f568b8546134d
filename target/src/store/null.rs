//! No blocks at all: `/dev/null` with a size. Reads are zeros, writes are forgotten.
//!
//! What a load on it reaches is the limit of everything but the store: network, protocol, and the load's own program.

use std::io;

use bytes::Bytes;
use protocol::units::ByteRange;

use super::{Allocation, BlockStore, LocalEnd, within};

/// A store that keeps nothing; no mover can reach it.
#[derive(Debug)]
pub struct NullStore {
    size: u64,
}

impl NullStore {
    /// Of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self { size }
    }
}

impl BlockStore for NullStore {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        within(self.size, at, into.len() as u64, io::ErrorKind::UnexpectedEof)?;
        into.fill(0);
        Ok(())
    }

    fn read_now(&self, at: u64, into: &mut [u8]) -> io::Result<bool> {
        self.read_at(at, into).map(|()| true)
    }

    fn write_at(&self, at: u64, data: &[Bytes]) -> io::Result<()> {
        let len = data.iter().map(|part| part.len() as u64).sum();
        within(self.size, at, len, io::ErrorKind::InvalidInput)
    }

    fn buffered(&self) -> bool {
        true
    }

    fn deallocate(&self, range: ByteRange) -> io::Result<()> {
        within(self.size, range.start, range.len, io::ErrorKind::InvalidInput)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocation(&self, range: ByteRange, _limit: usize) -> io::Result<Vec<Allocation>> {
        within(self.size, range.start, range.len, io::ErrorKind::UnexpectedEof)?;
        Ok(vec![Allocation { range, allocated: false }])
    }

    fn source(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn destination(&self, _block_length: u32) -> io::Result<LocalEnd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_nothing_but_its_bounds() {
        let store = NullStore::new(4096);
        store.write_at(0, &[Bytes::from_static(b"gone")]).unwrap();
        let mut found = [7; 4];
        store.read_at(0, &mut found).unwrap();
        assert_eq!(found, [0; 4]);
        assert!(store.write_at(4093, &[Bytes::from_static(b"over")]).is_err());
        assert!(store.read_at(4096, &mut found[..1]).is_err());
    }
}
