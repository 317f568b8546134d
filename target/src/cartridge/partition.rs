//! One partition of a cartridge: a tape image with its index.
//!
//! Opening decides what is there; from then on every object of the image has its entry in the index, and the end is known. All
//! methods block; a partition is used by one thread at a time. Positions are the drive's: a partition has none.
//!
//! Knows no SCSI and no label. Follows the rules of [`protocol::cartridge`].

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocol::cartridge::append::{AppendError, Appender, Durability, Limits, Step};
use protocol::cartridge::index::{Entry, SumState};
use protocol::cartridge::report::Appended;
use protocol::cartridge::sums::{FileSums, RecordSum};
use protocol::cartridge::{ObjectKind, TapePosition};

use super::image::Image;
use super::index::Index;
use super::sums::SumsCache;

/// Entries kept in memory before a sync point is forced, so that memory and the walk after a crash stay bounded.
pub(super) const MAX_UNSYNCED_ENTRIES: usize = 16_384;

/// Filemarks written at once: their entries are in memory until they are synchronized.
const MARKS_AT_ONCE: usize = 131_072;

/// Why nothing, or not all, was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The cartridge may not be written.
    #[error("the cartridge is write-protected")]
    Protected,
    /// The end of the medium, or a record no tape takes.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The file system below; what was committed before is still there.
    #[error("writing the image: {0}")]
    Io(#[from] io::Error),
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system below.
    #[error("reading the image: {0}")]
    Io(#[from] io::Error),
    /// The words around the record are not those it was written with.
    #[error("the framing of object {object} at byte {offset} is damaged")]
    Framing {
        /// Logical object number.
        object: u64,
        /// Byte of the image.
        offset: u64,
    },
    /// The data is not what was written.
    #[error("the data of object {object} has CRC32C {computed:08x}, written was {stored:08x}")]
    Checksum {
        /// Logical object number.
        object: u64,
        /// In the index.
        stored: u32,
        /// Of the data as read.
        computed: u32,
    },
    /// A record that was already bad when the image was made (class 8).
    #[error("object {object} is marked as read with an error")]
    MarkedBad {
        /// Logical object number.
        object: u64,
    },
}

/// A record as it is to lie on the medium.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Its bytes, in order.
    pub parts: &'a [Bytes],
    /// They are an [`protocol::cartridge::envelope`] with what is in it.
    pub wrapped: bool,
}

/// What a run of writes came to.
#[derive(Debug)]
pub struct Written {
    /// Objects that were committed.
    pub objects: u64,
    /// Behind the last of them.
    pub position: TapePosition,
    /// The early-warning point has been passed.
    pub early_warning: bool,
    /// Why not all were.
    pub error: Option<WriteError>,
}

/// An open partition. Nobody else has it open: the image is locked for as long as a descriptor of it lives.
#[derive(Debug)]
pub struct Partition {
    pub(super) limits: Limits,
    pub(super) image: Image,
    pub(super) index: Index,
    pub(super) appender: Appender,
    pub(super) writable: bool,
    /// Something was written since the last sync point.
    pub(super) dirty: bool,
    pub(super) sums: SumsCache,
    /// No record in front of this object lacks its sums, but for those that could not be read.
    pub(super) search_from: u64,
    /// Unlike that of every other open partition.
    pub(super) identity: Arc<()>,
    pub(super) notes: Vec<String>,
}

impl Partition {
    /// What was found and done when it was opened, for people.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// False for a write-protected one, and for one that is damaged: what lies behind the damage must not be cut off.
    #[must_use]
    pub const fn writable(&self) -> bool {
        self.writable
    }

    /// Behind the last object: end of data.
    #[must_use]
    pub const fn end(&self) -> TapePosition {
        self.appender.committed()
    }

    /// Room and warning point, in bytes of the image.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The medium was divided anew.
    pub(super) const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.appender = Appender::new(self.appender.committed(), limits);
    }

    /// A descriptor of the image that shares its lock: who is given it keeps the cartridge locked, also beyond this process.
    ///
    /// # Errors
    /// For want of descriptors.
    pub fn share_image(&self) -> io::Result<File> {
        self.image.share()
    }

    /// The index, read-only, and of how many objects it holds the sums; `None` for a cartridge that has none.
    ///
    /// # Errors
    /// For want of descriptors.
    pub fn share_index(&self) -> io::Result<Option<(File, u64)>> {
        self.index.share()
    }

    /// The object with this logical object number; `None` at the end of data.
    ///
    /// # Errors
    /// When the index cannot be read, or an entry in it has been damaged since the cartridge was opened.
    pub fn object(&self, object: u64) -> io::Result<Option<Entry>> {
        self.index.get(object)
    }

    /// Where the object with this number begins; the end of data for all numbers behind it.
    ///
    /// # Errors
    /// As [`Partition::object`].
    pub fn position_of(&self, object: u64) -> io::Result<TapePosition> {
        Ok(self.index.get(object)?.map_or(self.end(), |entry| entry.at))
    }

    /// Logical object number of the filemark that ends tape file `file`; `None` when there are not so many.
    ///
    /// # Errors
    /// As [`Partition::object`].
    pub fn filemark(&self, file: u64) -> io::Result<Option<u64>> {
        if file >= self.end().file { Ok(None) } else { self.index.first_behind_mark(file + 1).map(|object| Some(object - 1)) }
    }

    /// The data of a record, checked against its framing and its sum.
    ///
    /// # Errors
    /// [`ReadError`]; nothing of a damaged record is given away.
    pub fn read(&self, entry: &Entry) -> Result<Bytes, ReadError> {
        let mut data = BytesMut::zeroed(entry.length as usize);
        self.image.read_record(entry, &mut data)?;
        if entry.sum_state != SumState::Absent {
            let computed = protocol::cartridge::sums::crc32c(&data);
            if computed != entry.sum.crc32c {
                return Err(ReadError::Checksum { object: entry.at.object, stored: entry.sum.crc32c, computed });
            }
        }
        Ok(data.freeze())
    }

    /// Takes the sums of a record that was placed without them, from its data as it lies on the medium: they tell later damage, and
    /// prove nothing about the writing. Other objects are left as they are.
    ///
    /// # Errors
    /// [`ReadError`]: also where the index cannot be written.
    pub fn recompute(&mut self, entry: &Entry) -> Result<(), ReadError> {
        if entry.sum_state != SumState::Absent || entry.kind != ObjectKind::Record || !self.writable {
            return Ok(());
        }
        let sum = RecordSum::of(&self.read(entry)?);
        self.index.recompute(entry, sum)?;
        self.sums.cut(entry.at.file);
        Ok(())
    }

    /// Appends records behind the end of data and commits them together, against the end of this process.
    ///
    /// What fits and could be written counts, also when an error is told.
    pub fn append_records<'a>(&mut self, records: impl IntoIterator<Item = Stored<'a>>) -> Written {
        let mut records = records.into_iter();
        self.append(|partition| partition.append_all(&mut records))
    }

    /// Appends filemarks. As [`Partition::append_records`].
    pub fn append_filemarks(&mut self, count: u32) -> Written {
        self.append(|partition| partition.append_marks(count as usize))
    }

    /// Cuts the cartridge at a position, which becomes the end of data.
    ///
    /// The index goes first and under a new generation, so that a crash in between cannot give an old sum to new data. Then the
    /// image is truncated, and the end word written: a file that ends where a word would be reads as ended, so no moment in
    /// between shows half a word. One that is cut at its beginning may be replaced by another file: see [`Image::clear`].
    ///
    /// # Errors
    /// When it is protected, or the file system fails.
    pub fn cut(&mut self, at: TapePosition) -> Result<(), WriteError> {
        if !self.writable {
            return Err(WriteError::Protected);
        }
        if at.object >= self.end().object {
            return Ok(());
        }
        self.sync()?;
        self.index
            .cut(at.object)
            .and_then(|()| if at.offset == 0 { self.image.clear() } else { self.image.cut(at.offset) })
            .and_then(|()| self.image.sync())
            .map_err(|error| self.in_doubt(error))?;
        self.appender = Appender::new(at, self.limits());
        self.sums.cut(at.file);
        self.search_from = self.search_from.min(at.object);
        Ok(())
    }

    /// A sync point: everything committed before survives a power loss after it.
    ///
    /// # Errors
    /// The file system's own. What was synchronized before is not in doubt, what was written since is.
    pub fn sync(&mut self) -> io::Result<()> {
        if !self.dirty {
            return if self.index.is_replaced() { self.index.flush() } else { Ok(()) };
        }
        if !self.writable {
            return Err(io::Error::other("what was written is in doubt after an earlier error"));
        }
        self.perform(Durability::Power).map_err(|error| self.in_doubt(error))?;
        // The index is not the truth: without room for it, its entries wait in memory for the next sync point.
        self.index.flush()?;
        self.dirty = false;
        Ok(())
    }

    /// Takes over what a mover has published in the image behind the end of data.
    ///
    /// # Errors
    /// `InvalidData` when the objects do not follow on the end of data or the image does not show them; the cartridge is then to
    /// be opened anew.
    pub fn adopt(&mut self, appended: &[Appended]) -> io::Result<()> {
        let mut end = self.end();
        for object in appended {
            let entry = self.entry(object.at, object.kind, object.length, object.sum_state, object.sum);
            let entry = Entry { gap: object.gap, ..entry };
            if entry.at != end || entry.length > protocol::cartridge::MAX_RECORD_LENGTH || !self.image.frames(&entry)? {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no object begins at {:?}", object.at)));
            }
            end = entry.next();
            self.dirty = true;
            self.sums.append(&entry);
            self.index.push(entry);
            self.appender = Appender::new(end, self.limits());
            if self.index.unsynced() >= MAX_UNSYNCED_ENTRIES {
                self.sync()?;
            }
        }
        Ok(())
    }

    /// The sums of up to `limit` tape files from number `from` on.
    ///
    /// # Errors
    /// As [`Partition::object`].
    pub fn file_sums(&mut self, from: u64, limit: usize) -> io::Result<Vec<FileSums>> {
        self.sums.files(&self.index, self.appender.committed(), from, limit)
    }

    fn append(&mut self, append: impl FnOnce(&mut Self) -> Result<(), WriteError>) -> Written {
        let before = self.end().object;
        let error = append(self).err();
        if matches!(error, Some(WriteError::Io(_))) {
            self.image.discard_behind(self.end().offset);
        }
        let end = self.end();
        let early_warning = self.appender.early_warning();
        Written { objects: end.object - before, position: end, early_warning, error }
    }

    /// Commits after every [`BATCH`] objects, so that what precedes an error counts and memory stays bounded.
    fn append_all<'a>(&mut self, records: &mut impl Iterator<Item = Stored<'a>>) -> Result<(), WriteError> {
        const BATCH: usize = 1024;
        if !self.writable {
            return Err(WriteError::Protected);
        }
        let mut entries = Vec::new();
        loop {
            entries.clear();
            let placed = records.by_ref().take(BATCH).try_for_each(|record| {
                entries.push(self.place(record)?);
                Ok::<(), WriteError>(())
            });
            // The object that failed to be written may be placed already; it must not be committed with the others.
            if matches!(placed, Err(WriteError::Io(_))) {
                self.appender.abandon();
                return placed;
            }
            if entries.is_empty() {
                return placed;
            }
            self.dirty = true;
            self.commit()?;
            self.enter(&entries)?;
            placed?;
        }
    }

    /// Takes entries of what was published.
    pub(super) fn enter(&mut self, entries: &[Entry]) -> io::Result<()> {
        entries.iter().for_each(|entry| {
            self.sums.append(entry);
            self.index.push(*entry);
        });
        if self.index.unsynced() >= MAX_UNSYNCED_ENTRIES { self.sync() } else { Ok(()) }
    }

    /// All marks of a batch in one write, since each is but a word of zeros.
    fn append_marks(&mut self, mut left: usize) -> Result<(), WriteError> {
        if !self.writable {
            return Err(WriteError::Protected);
        }
        while left > 0 {
            let (mut entries, mut write_at) = (Vec::new(), None);
            let placed = (0..left.min(MARKS_AT_ONCE)).try_for_each(|_| {
                let mark = self.appender.filemark()?;
                write_at.get_or_insert(mark.write_at());
                entries.push(self.entry(mark.at, mark.kind, mark.length, SumState::Known, RecordSum::default()));
                Ok::<(), WriteError>(())
            });
            let Some(write_at) = write_at else { return placed };
            if let Err(error) = self.image.write_marks(write_at, self.appender.end().offset) {
                self.appender.abandon();
                return Err(error.into());
            }
            self.dirty = true;
            self.commit()?;
            self.sums.append_marks(&entries);
            left -= entries.len();
            entries.drain(..).for_each(|entry| self.index.push(entry));
            if self.index.unsynced() >= MAX_UNSYNCED_ENTRIES {
                self.sync()?;
            }
            placed?;
        }
        Ok(())
    }

    /// Publishes what was placed. Without room for the end word nothing was published, and nothing is lost; an error in the
    /// publishing write itself leaves a doubt that only reading the image again takes away.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        let end = self.end();
        let steps = self.appender.commit(Durability::Process);
        for (n, step) in steps.iter().enumerate() {
            let Step::Write { at, word } = *step else { continue };
            if let Err(error) = self.image.write_word(at, word) {
                self.appender = Appender::new(end, self.limits());
                return Err(if n == 0 { error } else { self.in_doubt(error) });
            }
        }
        Ok(())
    }

    pub(super) fn in_doubt(&mut self, error: io::Error) -> io::Error {
        self.writable = false;
        self.notes.push(format!("the image is in doubt after an error ({error}): protected until loaded again"));
        error
    }

    fn place(&mut self, Stored { parts, wrapped }: Stored<'_>) -> Result<Entry, WriteError> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let placement = if wrapped { self.appender.wrapped(length) } else { self.appender.record(length) }?;
        let sum = RecordSum::of_parts(parts.iter().map(|part| &part[..]));
        self.image.write(&placement, parts)?;
        let entry = self.entry(placement.at, placement.kind, placement.length, SumState::Known, sum);
        Ok(Entry { wrapped, gap: placement.gap, ..entry })
    }

    pub(super) fn entry(&self, at: TapePosition, kind: ObjectKind, length: u32, sum_state: SumState, sum: RecordSum) -> Entry {
        Entry { at, gap: 0, kind, length, wrapped: false, generation: self.index.generation(), sum_state, sum }
    }

    pub(super) fn perform(&mut self, durability: Durability) -> io::Result<()> {
        let Self { appender, image, .. } = self;
        appender.commit(durability).into_iter().try_for_each(|step| match step {
            Step::Write { at, word } => image.write_word(at, word),
            Step::Sync => image.sync(),
        })
    }
}
