//! A long erase: what lies behind a position is overwritten, and only then cut off.
//!
//! The data ends at the position from the first step on; a crash later leaves that end, and the bytes that were not yet overwritten to
//! the file system. What a file system that copies on write, a snapshot of it or a solid state drive below keeps of former contents is
//! out of reach. Follows SSC-4, "ERASE(6) command", LONG bit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use protocol::cartridge::TapePosition;
use protocol::cartridge::append::Appender;
use protocol::cartridge::frame::WORD;

use super::{Partition, WriteError};

/// Overwritten at once.
const PIECE: usize = 1 << 20;

/// What is left to be overwritten.
#[derive(Debug)]
pub struct Erasure {
    file: File,
    from: u64,
    to: u64,
}

impl Erasure {
    /// Overwrites with zeros and synchronizes; `go_on` is told after each piece how much of how much is done, and may end it. Needs
    /// nothing of the partition, which nobody may write meanwhile.
    ///
    /// # Errors
    /// The file system's own.
    pub fn overwrite(&self, mut go_on: impl FnMut(u64, u64) -> bool) -> io::Result<()> {
        let (zeros, size) = (vec![0; PIECE], self.to - self.from);
        let mut done = 0;
        while done < size && go_on(done, size) {
            let piece = (size - done).min(PIECE as u64);
            self.file.write_all_at(&zeros[..piece as usize], self.from + done)?;
            done += piece;
        }
        self.file.sync_data()
    }
}

impl Partition {
    /// Ends the data at a position, for good, and leaves what lies behind to be overwritten; then comes [`Partition::end_erase`].
    ///
    /// # Errors
    /// When it is protected, or the file system fails.
    pub fn begin_erase(&mut self, at: TapePosition) -> Result<Erasure, WriteError> {
        if !self.writable {
            return Err(WriteError::Protected);
        }
        self.sync()?;
        if at.object < self.end().object {
            // As in a cut: the index first, so that no old sum meets new data.
            self.index
                .cut(at.object)
                .and_then(|()| self.image.end_at(at.offset))
                .and_then(|()| self.image.sync())
                .map_err(|error| self.in_doubt(error))?;
            self.appender = Appender::new(at, self.limits());
            self.sums.cut(at.file);
        }
        let from = self.end().offset + WORD;
        Ok(Erasure { file: self.image.share()?, from, to: self.image.size()?.max(from) })
    }

    /// Gives back the room of what was overwritten.
    ///
    /// # Errors
    /// The file system's own.
    pub fn end_erase(&mut self) -> Result<(), WriteError> {
        self.image.cut(self.end().offset).and_then(|()| self.image.sync()).map_err(|error| WriteError::Io(self.in_doubt(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;

    use super::*;
    use crate::cartridge::{Cartridge, Metadata, Stored};

    #[test]
    fn what_lies_behind_the_position_is_overwritten_before_it_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        Cartridge::create(folder.path(), &Metadata::new("ERASE1L8", 64 << 20)).unwrap();
        let mut cartridge = Cartridge::open(folder.path()).unwrap();
        let partition = &mut cartridge.partitions_mut()[0];
        let records = [Bytes::from_static(b"kept"), Bytes::from(vec![0xAB; 3 << 20]), Bytes::from_static(b"secret")];
        for record in &records {
            let written = partition.append_records([Stored { parts: std::slice::from_ref(record), wrapped: false }]);
            assert!(written.error.is_none());
        }
        let at = partition.position_of(1).unwrap();
        let erasure = partition.begin_erase(at).unwrap();
        assert_eq!(partition.end(), at, "the data ends before anything is overwritten");
        let mut told = Vec::new();
        erasure
            .overwrite(|done, of| {
                told.push((done, of));
                true
            })
            .unwrap();
        let image = fs::read(folder.path().join("p0.tap")).unwrap();
        let end = (at.offset + WORD) as usize;
        assert!(image.len() > end + (3 << 20) && image[end..].iter().all(|byte| *byte == 0), "overwritten in place");
        assert_eq!(told.iter().map(|(done, _)| done >> 20).collect::<Vec<_>>(), [0, 1, 2, 3]);
        drop(erasure);
        partition.end_erase().unwrap();
        assert_eq!(fs::metadata(folder.path().join("p0.tap")).unwrap().len(), end as u64);
        drop(cartridge);
        let cartridge = Cartridge::open(folder.path()).unwrap();
        let partition = &cartridge.partitions()[0];
        assert_eq!(partition.end(), at);
        assert_eq!(partition.read(&partition.object(0).unwrap().unwrap()).unwrap(), b"kept"[..]);
    }

    #[test]
    fn a_target_that_dies_in_between_finds_the_data_ended() {
        let folder = tempfile::tempdir().unwrap();
        Cartridge::create(folder.path(), &Metadata::new("ERASE2L8", 64 << 20)).unwrap();
        let mut cartridge = Cartridge::open(folder.path()).unwrap();
        let partition = &mut cartridge.partitions_mut()[0];
        for data in [&b"kept"[..], &[7; 100_000], b"behind"] {
            let record = Bytes::copy_from_slice(data);
            assert!(partition.append_records([Stored { parts: &[record], wrapped: false }]).error.is_none());
        }
        partition.sync().unwrap();
        let at = partition.position_of(1).unwrap();
        partition.begin_erase(at).unwrap().overwrite(|done, _| done == 0).unwrap();
        drop(cartridge);
        let cartridge = Cartridge::open(folder.path()).unwrap();
        assert_eq!(cartridge.partitions()[0].end(), at);
        assert!(cartridge.writable(), "{:?}", cartridge.notes());
    }
}
