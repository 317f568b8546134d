//! The index file: entries on the file by number, and those written since the last sync point in memory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use protocol::cartridge::index::{Entry, Header, SLOT, entry_offset};

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
        let mut index = Self { file, writable, header: header.unwrap_or(fresh), on_file: 0, unsynced: Vec::new() };
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

    /// Reads the entries from the first on, as far as they are whole, of the right generation and follow one on the other.
    /// Returns how many the file has room for, to tell whether all of them were believed.
    pub fn load(&mut self) -> io::Result<u64> {
        let Some(file) = &self.file else { return Ok(0) };
        let there = file.metadata()?.len().saturating_sub(entry_offset(0)) / SLOT as u64;
        let mut next = protocol::cartridge::TapePosition::BEGINNING;
        while next.object < there {
            let entries = read_chunk(file, next.object, CHUNK.min(there - next.object))?;
            let believed = entries.iter().map_while(|slot| Entry::parse(slot).ok());
            let mut count = 0;
            for entry in believed.take_while(|entry| self.header.believes(entry)) {
                if entry.at != next {
                    break;
                }
                next = entry.next();
                count += 1;
            }
            if count < entries.len() {
                break;
            }
        }
        self.on_file = next.object;
        Ok(there)
    }

    /// Forgets entries from `object` on without touching the file: what was believed turned out wrong. [`Index::cut`] follows.
    pub fn distrust(&mut self, object: u64) {
        self.on_file = self.on_file.min(object);
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
                file.write_all_at(&entry.emit(), entry_offset(entry.at.object))
            }
        }
    }

    /// Writes and synchronizes what is in memory. The image must have been synchronized before.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.writable) else { return Ok(()) };
        for entries in self.unsynced.chunks(CHUNK as usize) {
            let slots: Vec<u8> = entries.iter().flat_map(Entry::emit).collect();
            file.write_all_at(&slots, entry_offset(entries[0].at.object))?;
        }
        file.sync_data()?;
        self.on_file += self.unsynced.len() as u64;
        self.unsynced.clear();
        Ok(())
    }

    /// Drops the entries from `object` on, under a new generation, and synchronizes that.
    pub fn cut(&mut self, object: u64) -> io::Result<()> {
        let header = Header { generation: self.header.generation + 1, base: object };
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
