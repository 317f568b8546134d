//! The index of what was on a tape before the job: a record that is read is held against its sum, and places are found in it.
//!
//! Reads the index beside the image, ahead and in order, as records are read. What the index does not know is not held against
//! anything; framing still is.

use std::fs::File;
use std::os::unix::fs::FileExt;

use protocol::cartridge::TapePosition;
use protocol::cartridge::index::{Entry, SLOT, SumState, entry_offset};

/// Entries read at once: 80 KiB.
const AHEAD: u64 = 1024;

/// Sums by logical object number.
#[derive(Debug)]
pub struct Sums {
    file: File,
    /// Entries of these first objects count.
    objects: u64,
    /// Object number of the first entry in `run`.
    first: u64,
    run: Vec<[u8; SLOT]>,
}

impl Sums {
    /// The index file, which holds the entries of the first `objects` objects.
    #[must_use]
    pub const fn new(file: File, objects: u64) -> Self {
        Self { file, objects, first: 0, run: Vec::new() }
    }

    /// From this object on the tape is written anew.
    pub fn end_at(&mut self, object: u64) {
        self.objects = self.objects.min(object);
    }

    /// CRC32C of the record of `length` bytes that begins at `at`; `None` where it is not known.
    pub fn of(&mut self, at: TapePosition, length: u32) -> Option<u32> {
        if at.object >= self.objects {
            return None;
        }
        let held = self.first..self.first + self.run.len() as u64;
        if !held.contains(&at.object) {
            self.read_ahead(at.object);
        }
        let slot = self.run.get(usize::try_from(at.object.checked_sub(self.first)?).ok()?)?;
        let entry = Entry::parse(slot).ok()?;
        (entry.at == at && entry.length == length && entry.sum_state != SumState::Absent).then_some(entry.sum.crc32c)
    }

    /// Where object `object` begins; `None` where the index does not know.
    pub fn place_of(&mut self, object: u64) -> Option<TapePosition> {
        self.entry(object).map(|entry| entry.at)
    }

    /// Where the first object with `marks` filemarks in front of it begins; `None` where the index knows of none.
    pub fn behind_marks(&mut self, marks: u64) -> Option<TapePosition> {
        let (mut low, mut high) = (0, self.objects);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.read_one(middle)?.at.file < marks { low = middle + 1 } else { high = middle }
        }
        let found = self.read_one(low)?.at;
        (low < self.objects && found.file == marks).then_some(found)
    }

    fn entry(&mut self, object: u64) -> Option<Entry> {
        let held = self.first..self.first + self.run.len() as u64;
        if held.contains(&object) {
            let slot = &self.run[usize::try_from(object - self.first).ok()?];
            return Entry::parse(slot).ok().filter(|entry| entry.at.object == object);
        }
        self.read_one(object)
    }

    /// Without the entries behind it: for jumps.
    fn read_one(&self, object: u64) -> Option<Entry> {
        if object >= self.objects {
            return None;
        }
        let mut slot = [0; SLOT];
        self.file.read_exact_at(&mut slot, entry_offset(object)).ok()?;
        Entry::parse(&slot).ok().filter(|entry| entry.at.object == object)
    }

    fn read_ahead(&mut self, object: u64) {
        let count = AHEAD.min(self.objects - object) as usize;
        let mut bytes = vec![0; count * SLOT];
        self.first = object;
        self.run = match self.file.read_exact_at(&mut bytes, entry_offset(object)) {
            Ok(()) => bytes.as_chunks().0.to_vec(),
            Err(_) => Vec::new(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::cartridge::ObjectKind;
    use protocol::cartridge::sums::RecordSum;

    #[test]
    fn a_sum_is_given_only_for_the_record_that_it_was_taken_of() {
        let file = tempfile::tempfile().unwrap();
        let mut at = TapePosition::BEGINNING;
        let mut places = Vec::new();
        for object in 0..3000_u64 {
            let sum = RecordSum::of(&object.to_be_bytes());
            let kind = ObjectKind::Record;
            let entry = Entry { at, gap: 0, kind, length: 8, wrapped: false, generation: 1, sum_state: SumState::Known, sum };
            file.write_all_at(&entry.emit(), entry_offset(object)).unwrap();
            places.push((at, sum.crc32c));
            at = entry.next();
        }
        let mut sums = Sums::new(file, 2900);
        for (place, crc) in places.iter().take(2900).rev() {
            assert_eq!(sums.of(*place, 8), Some(*crc));
        }
        assert_eq!(sums.of(places[2900].0, 8), None, "an entry that does not count");
        assert_eq!(sums.of(places[7].0, 9), None, "another length");
        assert_eq!(sums.of(TapePosition { offset: 1, ..places[7].0 }, 8), None, "another place");
        assert_eq!((sums.place_of(17), sums.place_of(2900)), (Some(places[17].0), None));
        assert_eq!((sums.behind_marks(0), sums.behind_marks(1)), (Some(TapePosition::BEGINNING), None));
        sums.end_at(7);
        assert_eq!(sums.of(places[7].0, 8), None, "written anew by this job");
        assert_eq!(sums.of(places[6].0, 8), Some(places[6].1));
    }
}
