//! Sums that are still to come: how many records lack them, and taking them from the medium without the drive.
//!
//! A record that was placed by reference has no sums. Reading it may take long, so it is done beside the drive, on a file of its own:
//! [`Cartridge::find_unsummed`] gives out one record, [`Unsummed::take`] reads it, [`Cartridge::keep_sum`] takes the sum if nothing has
//! happened to the record meanwhile. Cutting gives all later objects a new generation, so that an entry which is still the same has
//! the data that was read.
//!
//! Does not say when there is time for it. Such sums tell later damage and prove nothing about the writing: [`SumState::Recomputed`].

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use protocol::cartridge::ObjectKind;
use protocol::cartridge::index::{Entry, SumState};
use protocol::cartridge::sums::RecordSum;
use tracing::warn;

use super::image::Image;
use super::{Cartridge, Metadata, Partition, ReadError, open};

/// Entries looked at by one search: about a millisecond.
const SEARCHED_AT_ONCE: u64 = 4096;

/// Records that lack their sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Absent {
    /// How many.
    pub records: u64,
    /// Bytes of them on the medium.
    pub bytes: u64,
}

impl Absent {
    /// Counts an object that came; most have sums.
    pub fn add(&mut self, entry: &Entry) {
        if entry.sum_state == SumState::Absent {
            self.records += 1;
            self.bytes += u64::from(entry.length);
        }
    }

    /// An object as it was counted is gone, or has its sums now.
    pub fn remove(&mut self, entry: &Entry) {
        if entry.sum_state == SumState::Absent {
            self.records = self.records.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(entry.length.into());
        }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { records: self.records + other.records, bytes: self.bytes + other.bytes }
    }
}

/// Entries that are counted together.
pub(super) const STRETCH: u64 = 4096;

/// Records of an index that lack their sums, counted stretch by stretch: a cut takes those behind it away without reading them.
#[derive(Debug, Default)]
pub(super) struct AbsentByStretch {
    total: Absent,
    /// By the number of the stretch; only those that have any.
    stretches: BTreeMap<u64, Absent>,
}

impl AbsentByStretch {
    pub const fn total(&self) -> Absent {
        self.total
    }

    /// Whether the stretch of an object has any.
    pub fn has_any(&self, object: u64) -> bool {
        self.stretches.contains_key(&(object / STRETCH))
    }

    /// Counts an object that came.
    pub fn add(&mut self, entry: &Entry) {
        if entry.sum_state == SumState::Absent {
            self.total.add(entry);
            self.stretches.entry(entry.at.object / STRETCH).or_default().add(entry);
        }
    }

    /// An object as it was counted is gone, or has its sums now.
    pub fn remove(&mut self, entry: &Entry) {
        let stretch = entry.at.object / STRETCH;
        let Some(counted) = self.stretches.get_mut(&stretch) else { return };
        counted.remove(entry);
        self.total.remove(entry);
        if counted.records == 0 {
            self.stretches.remove(&stretch);
        }
    }

    /// Nothing counts any more from `object` on, with which a stretch begins.
    pub fn remove_from(&mut self, object: u64) {
        debug_assert!(object.is_multiple_of(STRETCH));
        for gone in self.stretches.split_off(&(object / STRETCH)).into_values() {
            self.total.records -= gone.records;
            self.total.bytes -= gone.bytes;
        }
    }
}

/// What came of a search for a record without sums.
#[derive(Debug)]
pub enum Search {
    /// This one.
    Found(Unsummed),
    /// None so far; there are more entries to look at.
    Further,
    /// None that could be read, or none that could be given its sums.
    None,
}

/// A record without sums, and where it can be read.
#[derive(Debug)]
pub struct Unsummed {
    entry: Entry,
    image: Image,
    partition: Arc<()>,
}

impl Unsummed {
    /// Bytes of the record on the medium.
    #[must_use]
    pub const fn length(&self) -> u32 {
        self.entry.length
    }

    /// Reads the record and takes its sums.
    ///
    /// # Errors
    /// [`ReadError`]; also where the record has gone meanwhile.
    pub fn take(&self) -> Result<RecordSum, ReadError> {
        let mut data = BytesMut::zeroed(self.entry.length as usize);
        self.image.read_record(&self.entry, &mut data)?;
        Ok(RecordSum::of(&data))
    }
}

impl Cartridge {
    /// Records of all partitions whose sums are still to come.
    #[must_use]
    pub fn absent(&self) -> Absent {
        self.partitions.iter().map(Partition::absent).fold(Absent::default(), Absent::and)
    }

    /// The same of a cartridge that nobody has open, as far as its indexes tell; none of one that is write-protected. Locks nothing.
    ///
    /// # Errors
    /// Label or index cannot be read.
    pub fn absent_in(folder: &Path) -> io::Result<Absent> {
        let metadata = Metadata::load(folder)?;
        let partitions = if metadata.write_protect { 0 } else { metadata.partition_sizes().len() };
        (0..partitions).try_fold(Absent::default(), |absent, number| Ok(absent.and(open::absent_in_index(folder, number)?)))
    }

    /// Goes on with the search for a record without sums, a piece.
    pub fn find_unsummed(&mut self) -> Search {
        let mut searches = self.partitions.iter_mut().map(Partition::find_unsummed);
        searches.find(|search| !matches!(search, Search::None)).unwrap_or(Search::None)
    }

    /// Takes what [`Unsummed::take`] came to. False when the record has no sums by it: it has changed since, as if nobody had read it,
    /// or it cannot be read, which is told once; it is then passed over until the cartridge is opened again.
    pub fn keep_sum(&mut self, record: &Unsummed, sum: Result<RecordSum, ReadError>) -> bool {
        let mut partitions = self.partitions.iter_mut();
        let partition = partitions.find(|partition| Arc::ptr_eq(&partition.identity, &record.partition));
        partition.is_some_and(|partition| partition.keep_sum(&record.entry, sum))
    }
}

impl Partition {
    /// Records whose sums are still to come.
    #[must_use]
    pub const fn absent(&self) -> Absent {
        self.index.absent()
    }

    fn find_unsummed(&mut self) -> Search {
        if self.absent().records == 0 || !self.writable {
            return Search::None;
        }
        self.search().unwrap_or_else(|error| {
            // Nothing but opening it again makes an index better.
            self.search_from = self.end().object;
            self.tell(&error);
            Search::None
        })
    }

    fn search(&mut self) -> io::Result<Search> {
        // Most often the next entry is one.
        for at_once in [16, SEARCHED_AT_ONCE] {
            let entries = self.index.run(self.search_from, at_once)?;
            if entries.is_empty() {
                return Ok(Search::None);
            }
            if let Some(entry) = entries.iter().find(|entry| lacks_sums(entry)) {
                self.search_from = entry.at.object;
                let (image, partition) = (self.image.unlocked()?, Arc::clone(&self.identity));
                return Ok(Search::Found(Unsummed { entry: *entry, image, partition }));
            }
            self.search_from += entries.len() as u64;
        }
        Ok(Search::Further)
    }

    fn keep_sum(&mut self, entry: &Entry, sum: Result<RecordSum, ReadError>) -> bool {
        if !self.index.get(entry.at.object).is_ok_and(|found| found == Some(*entry)) {
            return false;
        }
        self.search_from = entry.at.object + 1;
        let kept = sum.and_then(|sum| Ok(self.index.recompute(entry, sum)?));
        self.sums.cut(entry.at.file);
        if let Err(error) = &kept {
            self.tell(&error);
        }
        if self.absent().records == 0 && !self.dirty {
            // Without it they would be taken again after a power loss, no more.
            if let Err(error) = self.sync() {
                self.tell(&error);
            }
        }
        kept.is_ok()
    }

    fn tell(&mut self, error: &dyn std::fmt::Display) {
        warn!(from = self.search_from, %error, "{UNREADABLE}");
        if !self.notes.iter().any(|note| note.starts_with(UNREADABLE)) {
            self.notes.push(format!("{UNREADABLE}: {error}"));
        }
    }
}

/// Begins the one note about all of them.
const UNREADABLE: &str = "there are records whose sums cannot be taken";

fn lacks_sums(entry: &Entry) -> bool {
    entry.kind == ObjectKind::Record && entry.sum_state == SumState::Absent
}

#[cfg(test)]
impl Cartridge {
    /// Leaves all records as a copy by reference does. Their sums are absent once it is opened again.
    pub(crate) fn take_sums_away(&mut self) {
        for partition in &mut self.partitions {
            for object in 0..partition.end().object {
                let entry = partition.index.get(object).unwrap().unwrap();
                if entry.kind == ObjectKind::Record {
                    partition.index.replace(Entry { sum_state: SumState::Absent, sum: RecordSum::default(), ..entry }).unwrap();
                }
            }
            partition.index.flush().unwrap();
        }
    }
}
