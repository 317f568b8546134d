//! A snapshot as a mover reads it: from the live file, the copy store and the data block table, which the target passes as open files.
//!
//! The rules and why they hold are in [`protocol::mover::table`]; here are the files. Any number of readers may read at once, and one
//! that is killed leaves nothing behind: it holds no lock and writes nothing that others see.
//!
//! A file is read with `pread` into the caller's own buffer, or copied inside the kernel to a place that is not published. It must not
//! be mapped, spliced or sent: those pass references to pages that a host may still change.

use std::io;
use std::os::fd::OwnedFd;

use protocol::mover::ByMethod;
use protocol::mover::table::{DataBlockTable, Lost, ReadError, Run};
use protocol::units::ByteRange;

use super::ends::raw::Raw;
use crate::sys::SharedWords;

/// Reads one snapshot, or parts of it one behind the other. Addresses are bytes of what is made of it.
#[derive(Debug)]
pub struct ViewReader {
    /// As much of the live file as the view covers.
    live: Raw,
    copies: Raw,
    table: DataBlockTable<SharedWords>,
    /// Parts of the view, each with the address of its first byte, ascending; just one where it is all of it.
    parts: Vec<(u64, ByteRange)>,
}

impl ViewReader {
    /// Takes the files of a `View` end.
    ///
    /// # Errors
    /// `InvalidInput` when the third is no sealed table, or one of another size than `within`.
    pub fn open(
        live: OwnedFd,
        within: ByteRange,
        copies: OwnedFd,
        table: OwnedFd,
        generation: u64,
        block_length: u32,
    ) -> io::Result<Self> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let table = DataBlockTable::open(SharedWords::map(table)?, generation).map_err(|error| invalid(error.to_string()))?;
        if table.grid().view_len() != within.len || within.start.checked_add(within.len).is_none() {
            return Err(invalid(format!("a table for {} bytes over {within:?}", table.grid().view_len())));
        }
        let copies = Raw::new(copies.into(), ByteRange { start: 0, len: within.len }, block_length)?;
        let parts = vec![(0, ByteRange { start: 0, len: within.len })];
        Ok(Self { live: Raw::new(live.into(), within, block_length)?, copies, table, parts })
    }

    /// Shows these parts of the view, one behind the other.
    ///
    /// # Errors
    /// `InvalidInput` for a part that lies outside, or more than can be counted.
    pub fn made_of(self, parts: &[ByteRange]) -> io::Result<Self> {
        let view = self.table.grid().view_len();
        let mut placed = Vec::with_capacity(parts.len());
        let mut at = 0_u64;
        for part in parts.iter().filter(|part| part.len > 0) {
            let inside = part.start.checked_add(part.len).is_some_and(|end| end <= view);
            placed.push((at, *part));
            at = at.checked_add(part.len).filter(|_| inside).ok_or(io::ErrorKind::InvalidInput)?;
        }
        Ok(Self { parts: placed, ..self })
    }

    /// Bytes that can be read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.parts.last().map_or(0, |(at, part)| at + part.len)
    }

    /// The pieces of the view that a range inside [`ViewReader::size`] is made of.
    fn pieces(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> {
        let first = self.parts.partition_point(|(at, part)| at + part.len <= range.start);
        self.parts[first..].iter().take_while(move |(at, _)| *at < range.end()).map(move |(at, part)| {
            let skipped = range.start.saturating_sub(*at);
            let len = (part.len - skipped).min(range.end() - at.max(&range.start));
            ByteRange { start: part.start + skipped, len }
        })
    }

    /// Fills `into` with the bytes the disk had at the snapshot's moment.
    ///
    /// # Errors
    /// [`ReadError::Lost`] when the snapshot has failed or ended: then nothing more can be read through it. [`ReadError::File`] for an
    /// error of a file, and `UnexpectedEof` for a range beyond the end. `into` then holds nothing of use.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> Result<(), ReadError<io::Error>> {
        let inside = at.checked_add(into.len() as u64).is_some_and(|end| end <= self.size());
        if !inside {
            return Err(ReadError::File(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut rest = into;
        for piece in self.pieces(ByteRange { start: at, len: rest.len() as u64 }) {
            let (here, behind) = rest.split_at_mut(piece.len as usize);
            let live = |at, part: &mut [u8]| self.live.read_at(at, part);
            let copies = |at, part: &mut [u8]| self.copies.read_at(at, part);
            self.table.read(piece.start, here, live, copies)?;
            rest = behind;
        }
        Ok(())
    }

    /// Lets `copy` bring the bytes of `range` from one of the two files to their place, which nobody else believes yet. It is told the
    /// bytes of the file and how many bytes of `range` lie before them. Places are the same in both files; bytes that came too late from
    /// the live file are brought again.
    ///
    /// # Errors
    /// [`ReadError::Lost`], and then the place holds nothing of use; else what `copy` gave.
    pub fn copy<E>(
        &self,
        range: ByteRange,
        mut copy: impl FnMut(&Raw, ByteRange, u64) -> Result<ByMethod, E>,
    ) -> Result<ByMethod, ReadError<E>> {
        let mut moved = ByMethod::default();
        let mut before = 0;
        for piece in self.pieces(range) {
            let offset = |part: ByteRange| before + (part.start - piece.start);
            for Run { range, copied } in self.table.runs(piece) {
                let from = if copied { &self.copies } else { &self.live };
                moved += copy(from, range, offset(range)).map_err(ReadError::File)?;
                let late = if copied { Vec::new() } else { self.table.overtaken(range)? };
                for late in late {
                    // These bytes are counted already.
                    copy(&self.copies, late, offset(late)).map_err(ReadError::File)?;
                }
            }
            before += piece.len;
        }
        self.table.check_live()?;
        Ok(moved)
    }

    /// True where blocks of both files begin at this byte.
    #[must_use]
    pub const fn is_block(&self, at: u64) -> bool {
        self.live.is_block(at) && self.copies.is_block(at)
    }

    /// Bytes a block.
    #[must_use]
    pub const fn block_length(&self) -> u32 {
        self.live.block_length()
    }

    /// Whether the snapshot can still be believed.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_live(&self) -> Result<(), Lost> {
        self.table.check_live()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use protocol::mover::table::{Grid, State, TableWriter};

    use super::*;

    const LEN: u64 = 150;
    const CHUNK: u64 = 16;
    const GENERATION: u64 = 42;
    const WITHIN: ByteRange = ByteRange { start: 100, len: LEN };

    fn file(bytes: &[u8]) -> OwnedFd {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.into()
    }

    /// Sealed memory with a table in which the chunks 1 and 9 are copied.
    fn table(state: State) -> OwnedFd {
        let grid = Grid::with_chunk(LEN, CHUNK).unwrap();
        let words: Vec<AtomicU64> = (0..grid.words()).map(|_| AtomicU64::new(0)).collect();
        let table = TableWriter::format(&words[..], grid, GENERATION);
        table.mark_copied(1);
        table.mark_copied(9);
        table.set_state(state);
        let memory = memory(&words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect::<Vec<_>>());
        fcntl(memory.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).unwrap();
        memory
    }

    fn memory(bytes: &[u8]) -> OwnedFd {
        let memory = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        let file = File::from(memory);
        file.write_all_at(bytes, 0).unwrap();
        file.into()
    }

    fn open(table: OwnedFd) -> io::Result<ViewReader> {
        ViewReader::open(file(&[1; 250]), WITHIN, file(&[2; LEN as usize]), table, GENERATION, 1)
    }

    #[test]
    fn each_chunk_comes_from_the_file_that_has_its_old_bytes() {
        let reader = open(table(State::Live)).unwrap();
        let mut into = [0xA5; LEN as usize];
        reader.read_at(0, &mut into).unwrap();
        assert_eq!(into.to_vec(), [&[1; 16][..], &[2; 16], &[1; 112], &[2; 6]].concat());
        assert!(reader.read_at(149, &mut [0; 2]).is_err(), "beyond the end");
    }

    #[test]
    fn parts_of_a_view_lie_one_behind_the_other() {
        let ramp: Vec<u8> = (0..250).map(|byte| byte as u8).collect();
        let part = |start, len| ByteRange { start, len };
        let parts = [part(140, 10), part(0, 20), part(7, 0), part(30, 5)];
        let open = || ViewReader::open(file(&ramp), WITHIN, file(&[2; LEN as usize]), table(State::Live), GENERATION, 1);
        let reader = open().unwrap().made_of(&parts).unwrap();
        // Chunks 1 and 9 come from the copy store: bytes 16 to 31 and 144 to 149.
        let shown = [&ramp[240..244], &[2; 6], &ramp[100..116], &[2; 4], &[2; 2], &ramp[132..135]].concat();
        assert_eq!(reader.size(), 35);
        for (start, end) in [(0, 35), (3, 12), (9, 11), (10, 30), (29, 35), (34, 35)] {
            let mut into = vec![0xA5; end - start];
            reader.read_at(start as u64, &mut into).unwrap();
            assert_eq!(into, shown[start..end], "{start}..{end}");
            let mut copied = vec![0xA5; end - start];
            let range = part(start as u64, (end - start) as u64);
            let copy = |from: &Raw, part: ByteRange, offset: u64| {
                from.read_at(part.start, &mut copied[offset as usize..][..part.len as usize]).map(|()| ByMethod::default())
            };
            reader.copy(range, copy).unwrap();
            assert_eq!(copied, shown[start..end], "{start}..{end}");
        }
        assert!(reader.read_at(34, &mut [0; 2]).is_err(), "beyond the end");
        assert!(open().unwrap().made_of(&[part(149, 2)]).is_err(), "a part that lies outside");
    }

    #[test]
    fn a_lost_snapshot_gives_nothing() {
        for state in [State::Forming, State::Failed, State::Ended] {
            let lost = open(table(state)).unwrap().read_at(16, &mut [0; 1]).unwrap_err();
            assert!(matches!(lost, ReadError::Lost(Lost::State { state: Some(found) }) if found == state));
        }
        let [live, copies] = [file(&[1; 250]), file(&[2; LEN as usize])];
        let other = ViewReader::open(live, WITHIN, copies, table(State::Live), GENERATION + 1, 1).unwrap();
        assert!(matches!(other.read_at(0, &mut [0; 1]), Err(ReadError::Lost(Lost::Generation { .. }))));
    }

    #[test]
    fn memory_that_could_be_cut_and_memory_that_is_no_table_are_refused() {
        let refused = |table| open(table).unwrap_err().kind();
        let unsealed = memory(&[0; 4096]);
        assert_eq!(refused(unsealed), io::ErrorKind::InvalidInput);
        let no_table = memory(&[0; 4096]);
        fcntl(no_table.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        assert_eq!(refused(no_table), io::ErrorKind::InvalidInput);
        assert!(open(file(&[0; 4096])).is_err(), "a plain file has no seals");
    }

    #[test]
    fn a_table_for_another_size_is_refused() {
        let [live, copies] = [file(&[1; 250]), file(&[2; LEN as usize])];
        let larger = ByteRange { start: 0, len: LEN + 1 };
        assert!(ViewReader::open(live, larger, copies, table(State::Live), GENERATION, 1).is_err());
    }
}
