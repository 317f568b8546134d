//! What several movers have filled behind the end of data, published by the one process that knows the order: this one.
//!
//! The end of data holds the end word until the first piece is whole, and its first word is written last; then the same again where the
//! second begins. So what a crash leaves is what was published, and all behind it is cut when the image is opened.
//!
//! Follows the order of writes of [`protocol::cartridge::append`].

use std::io;

use protocol::cartridge::append::Durability;
use protocol::cartridge::index::Entry;
use protocol::cartridge::report::Appended;
use protocol::cartridge::{ObjectKind, TapePosition};

use super::Partition;

impl Partition {
    /// Publishes objects that were filled behind the end of data, which is then at `end`.
    ///
    /// # Errors
    /// `InvalidData` when they do not follow on the end of data, do not reach to `end`, or the image does not hold their frames: nothing
    /// of them counts then. Else the file system's own, as of any write.
    pub fn publish(&mut self, filled: &[Appended], end: TapePosition, durability: Durability) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let placed = filled.iter().map(|object| self.place_filled(object)).collect::<io::Result<Vec<_>>>();
        let entries = match placed {
            Ok(entries) if self.appender.end() == end => entries,
            placed => {
                self.appender.abandon();
                return Err(placed.err().unwrap_or_else(|| unlike(end)));
            }
        };
        if entries.is_empty() {
            return Ok(());
        }
        self.dirty = true;
        match durability {
            Durability::Process => self.commit()?,
            Durability::Power => self.perform(durability).map_err(|error| self.in_doubt(error))?,
        }
        self.enter(&entries)
    }

    fn place_filled(&mut self, object: &Appended) -> io::Result<Entry> {
        let placement = self.appender.record(object.length.into()).map_err(|_| unlike(object.at))?;
        let said = (object.at, object.gap, object.kind);
        if said != (placement.at, placement.gap, ObjectKind::Record) || !self.image.is_filled(&placement)? {
            return Err(unlike(object.at));
        }
        let entry = self.entry(object.at, object.kind, object.length, object.sum_state, object.sum);
        Ok(Entry { gap: object.gap, ..entry })
    }

    /// Gives back the room of what was filled and not published; nobody fills any more.
    pub fn discard_unpublished(&self) {
        self.image.discard_behind(self.end().offset);
    }

    /// Whether `count` objects from `object` on are records of `length` bytes that are not in an envelope.
    ///
    /// # Errors
    /// As [`Partition::object`].
    pub fn has_records(&self, mut object: u64, count: u64, length: u32) -> io::Result<bool> {
        let Some(end) = object.checked_add(count).filter(|end| *end <= self.end().object) else { return Ok(false) };
        while object < end {
            let entries = self.index.run(object, end - object)?;
            let alike = |entry: &Entry| entry.kind == ObjectKind::Record && entry.length == length && !entry.wrapped;
            if entries.is_empty() || !entries.iter().all(alike) {
                return Ok(false);
            }
            object += entries.len() as u64;
        }
        Ok(true)
    }
}

fn unlike(at: TapePosition) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what was filled at {at:?} is not what was said"))
}
