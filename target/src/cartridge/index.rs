//! The index file: entries on the file by number, and those written since the last sync point in memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use protocol::cartridge::TapePosition;
use protocol::cartridge::index::{Entry, Header, SLOT, SumState, entry_offset};
use protocol::cartridge::sums::RecordSum;

use super::absent::{Absent, AbsentByStretch, STRETCH};

/// Entries read or written at once.
const CHUNK: u64 = 4096;

/// The index of one partition. Every object of the image has an entry once the cartridge is open.
#[derive(Debug)]
pub struct Index {
    /// `None` where the folder cannot be written and has no index: everything is in memory then.
    file: Option<File>,
    writable: bool,
    header: Header,
    on_file: u64,
    unsynced: Vec<Entry>,
    absent: AbsentByStretch,
    /// An entry on the file was replaced since the last flush.
    replaced: bool,
}

/// What [`Index::load`] found on the file.
#[derive(Debug)]
pub struct Loaded {
    /// Entries that the file has room for, to tell whether all of them were believed.
    pub room: u64,
    /// Entries that a crash tore while their sums were written, as far as they still tell what they are.
    pub torn: Vec<Entry>,
}

impl Index {
    /// Opens the file and reads its header; the second value tells whether one held.
    ///
    /// Where none does, the file is emptied and begun anew, if it may be written.
    pub fn open(path: &Path, writable: bool) -> io::Result<(Self, bool)> {
        let file = match OpenOptions::new().read(true).write(writable).create(writable).truncate(false).open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !writable => None,
            Err(error) => return Err(error),
        };
        let mut slots = [0; 2 * SLOT];
        let read = file.as_ref().map_or(Ok(0), |file| read_up_to(file, &mut slots, 0))?;
        let header = Header::choose(&slots).filter(|_| read >= SLOT);
        let fresh = Header { generation: 1, base: 0 };
        let mut index = Self {
            file,
            writable,
            header: header.unwrap_or(fresh),
            on_file: 0,
            unsynced: Vec::new(),
            absent: AbsentByStretch::default(),
            replaced: false,
        };
        if header.is_none() {
            index.start_over()?;
        }
        Ok((index, header.is_some()))
    }

    /// The file opened anew and read-only, and of how many objects it holds the entries.
    ///
    /// # Errors
    /// For want of descriptors.
    pub fn share(&self) -> io::Result<Option<(File, u64)>> {
        use std::os::fd::AsRawFd;
        let Some(file) = &self.file else { return Ok(None) };
        Ok(Some((File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?, self.on_file)))
    }

    /// Reads the entries from the first on, as far as they are of the right generation and follow one on the other; those that were
    /// torn where they can be written again.
    pub fn load(&mut self) -> io::Result<Loaded> {
        let mut loaded = Loaded { room: 0, torn: Vec::new() };
        let Some(file) = &self.file else { return Ok(loaded) };
        loaded.room = file.metadata()?.len().saturating_sub(entry_offset(0)) / SLOT as u64;
        let mut next = TapePosition::BEGINNING;
        'file: while next.object < loaded.room {
            for slot in read_chunk(file, next.object, CHUNK.min(loaded.room - next.object))? {
                let whole = Entry::parse(&slot).ok();
                let entry = whole.or_else(|| self.writable.then(|| Entry::parse_torn(&slot).ok()).flatten());
                let Some(entry) = entry.filter(|entry| self.header.believes(entry) && entry.at == next) else { break 'file };
                if whole.is_none() {
                    loaded.torn.push(entry);
                }
                self.absent.add(&entry);
                next = entry.next();
            }
        }
        self.on_file = next.object;
        loaded.torn.iter().try_for_each(|entry| self.replace(*entry))?;
        Ok(loaded)
    }

    /// Forgets entries from `object` on without touching the file: what was believed turned out wrong. [`Index::cut`] follows.
    pub fn distrust(&mut self, object: u64) {
        if object < self.on_file {
            self.discount(object);
            self.on_file = object;
        }
    }

    /// Records whose sums are absent.
    pub const fn absent(&self) -> Absent {
        self.absent.total()
    }

    pub const fn generation(&self) -> u32 {
        self.header.generation
    }

    /// Entries on the file and in memory.
    pub fn len(&self) -> u64 {
        self.on_file + self.unsynced.len() as u64
    }

    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The entry of an object; `None` behind the last.
    pub fn get(&self, object: u64) -> io::Result<Option<Entry>> {
        if object >= self.on_file {
            return Ok(usize::try_from(object - self.on_file).ok().and_then(|n| self.unsynced.get(n)).copied());
        }
        let file = self.file.as_ref().expect("entries on a file have one");
        let mut slot = [0; SLOT];
        file.read_exact_at(&mut slot, entry_offset(object))?;
        let entry = Entry::parse(&slot).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if entry.at.object != object {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the index entry of object {object} is another's")));
        }
        Ok(Some(entry))
    }

    /// Entries from `object` on, at most `limit`, in one read where they are on the file.
    pub fn run(&self, object: u64, limit: u64) -> io::Result<Vec<Entry>> {
        let count = limit.min(CHUNK);
        if object >= self.on_file {
            let from = usize::try_from(object - self.on_file).unwrap_or(usize::MAX).min(self.unsynced.len());
            return Ok(self.unsynced[from..].iter().take(count as usize).copied().collect());
        }
        let file = self.file.as_ref().expect("entries on a file have one");
        read_chunk(file, object, count.min(self.on_file - object))?
            .iter()
            .map(|slot| Entry::parse(slot).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
            .collect()
    }

    /// Logical object number of the first object with at least `marks` filemarks in front of it; the length when there is none.
    pub fn first_behind_mark(&self, marks: u64) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.get(middle)?.expect("below the length");
            if entry.at.file < marks { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// Takes an entry that follows the last.
    pub fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.at.object, self.len());
        self.absent.add(&entry);
        self.unsynced.push(entry);
    }

    /// Puts another entry in the place of an object's; on the file it survives a power loss from the next flush on.
    pub fn replace(&mut self, entry: Entry) -> io::Result<()> {
        match entry.at.object.checked_sub(self.on_file) {
            Some(later) => {
                let place = usize::try_from(later).ok().and_then(|later| self.unsynced.get_mut(later));
                *place.ok_or(io::ErrorKind::InvalidInput)? = entry;
                Ok(())
            }
            None => {
                let file = self.file.as_ref().filter(|_| self.writable).ok_or(io::ErrorKind::ReadOnlyFilesystem)?;
                self.replaced = true;
                file.write_all_at(&entry.emit(), entry_offset(entry.at.object))
            }
        }
    }

    /// Gives a record whose sums are absent these; as [`Index::replace`].
    pub fn recompute(&mut self, entry: &Entry, sum: RecordSum) -> io::Result<()> {
        self.replace(Entry { sum_state: SumState::Recomputed, sum, ..*entry })?;
        self.absent.remove(entry);
        Ok(())
    }

    /// Some entry on the file was replaced and may not survive a power loss.
    pub const fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// Writes and synchronizes what is in memory. The image must have been synchronized before.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.writable) else { return Ok(()) };
        for entries in self.unsynced.chunks(CHUNK as usize) {
            let slots: Vec<u8> = entries.iter().flat_map(Entry::emit).collect();
            file.write_all_at(&slots, entry_offset(entries[0].at.object))?;
        }
        file.sync_data()?;
        self.replaced = false;
        self.on_file += self.unsynced.len() as u64;
        self.unsynced.clear();
        Ok(())
    }

    /// Drops the entries from `object` on, under a new generation, and synchronizes that.
    pub fn cut(&mut self, object: u64) -> io::Result<()> {
        let header = Header { generation: self.header.generation + 1, base: object };
        self.discount(object);
        if let Some(file) = &self.file {
            file.write_all_at(&header.emit(), header.offset())?;
            file.sync_data()?;
            // The header alone already takes the old entries' word away; this gives back their room.
            file.set_len(entry_offset(object))?;
            file.sync_data()?;
        }
        self.header = header;
        let kept = usize::try_from(object.saturating_sub(self.on_file)).unwrap_or(usize::MAX);
        self.unsynced.truncate(kept);
        self.on_file = self.on_file.min(object);
        Ok(())
    }

    /// The entries from `object` on count no more. One that cannot be read any longer is taken for one with sums.
    fn discount(&mut self, object: u64) {
        let whole = object.next_multiple_of(STRETCH);
        self.absent.remove_from(whole);
        // Of the stretch that is cut through only the entries tell.
        if self.absent.has_any(object) {
            for object in object..whole.min(self.len()) {
                if let Ok(Some(entry)) = self.get(object) {
                    self.absent.remove(&entry);
                }
            }
        }
    }

    fn start_over(&mut self) -> io::Result<()> {
        if !self.writable {
            self.file = None;
            return Ok(());
        }
        if let Some(file) = &self.file {
            file.set_len(0)?;
            file.set_len(entry_offset(0))?;
            file.write_all_at(&self.header.emit(), self.header.offset())?;
            file.sync_all()?;
        }
        Ok(())
    }
}

fn read_chunk(file: &File, object: u64, count: u64) -> io::Result<Vec<[u8; SLOT]>> {
    let mut bytes = vec![0; count as usize * SLOT];
    let read = read_up_to(file, &mut bytes, entry_offset(object))?;
    Ok(bytes[..read].as_chunks().0.to_vec())
}

fn read_up_to(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
