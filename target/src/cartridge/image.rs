//! The image file of one partition: positioned reads and writes around the rules of [`protocol::cartridge`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use nix::sys::uio::pwritev;
use nix::unistd::{Whence, lseek};
use protocol::cartridge::ObjectKind;
use protocol::cartridge::append::Placement;
use protocol::cartridge::frame::{self, END_OF_MEDIUM, FILEMARK, WORD, WRAPPED, Word};
use protocol::cartridge::index::Entry;
use protocol::cartridge::scan::{self, Image as _};
use tracing::{debug, warn};

use super::ReadError;
use crate::sys;

/// An open, locked image.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    writable: bool,
}

/// A shorter image is truncated at once.
const REPLACED_FROM: u64 = 64 << 20;
/// Room in the file system for what is appended before the old image has given back its own.
const ROOM_BESIDE: u64 = 256 << 20;

/// Parts a single `pwritev` takes (IOV_MAX).
const MAX_PARTS: usize = 1024;

impl Image {
    /// Opens and locks; for reading only where it may not be written. `None` when somebody else has it.
    pub fn open(path: &Path, writable: bool) -> io::Result<Option<Self>> {
        let open = |write| OpenOptions::new().read(true).write(write).open(path);
        let (file, writable) = match open(writable) {
            Err(error)
                if writable && matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                (open(false)?, false)
            }
            file => (file?, writable),
        };
        // Who had it may have replaced it since it was opened here: then it is nobody's image any more.
        let mine = sys::try_lock(&file)? && is_at(&file, path)?;
        Ok(mine.then(|| Self { path: path.to_owned(), file, writable }))
    }

    pub const fn opened_for_writing(&self) -> bool {
        self.writable
    }

    /// The same open file, lock included.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// The same image for reading only, opened anew: its lock is not held by this.
    ///
    /// # Errors
    /// For want of descriptors.
    pub fn unlocked(&self) -> io::Result<Self> {
        let file = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        Ok(Self { path: self.path.clone(), file, writable: false })
    }

    pub fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// For [`scan`].
    pub fn reader(&self) -> impl scan::Image<Error = io::Error> + '_ {
        |at: u64, into: &mut [u8]| match self.file.read_at(into, at) {
            // An offset no file can have lies behind the end of this one.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(0),
            other => other,
        }
    }

    /// True when the words in the image are those of this object, and a gap lies in front of them that is as long as its own.
    pub fn frames(&self, entry: &Entry) -> io::Result<bool> {
        if entry.gap > 0 && scan::behind_gap(&mut self.reader(), entry.at.offset)? != first_word(entry) {
            return Ok(false);
        }
        Ok(match scan::forward(&mut self.reader(), first_word(entry))? {
            scan::Found::Record { length, class, .. } => {
                entry.kind == ObjectKind::Record && entry.length == length && entry.wrapped == (class == WRAPPED)
            }
            scan::Found::Filemark { .. } => entry.kind == ObjectKind::Filemark,
            _ => false,
        })
    }

    /// True when as much of this object's first word as there is in the image is the object's.
    pub fn begins(&self, entry: &Entry) -> io::Result<bool> {
        let word = match entry.kind {
            ObjectKind::Record if entry.wrapped => frame::wrapped_word(entry.length),
            ObjectKind::Record => frame::record_word(entry.length),
            ObjectKind::Filemark => FILEMARK.to_le_bytes(),
        };
        let mut found = [0; WORD as usize];
        let read = self.reader().read_at(first_word(entry), &mut found)?;
        Ok(found[..read] == word[..read])
    }

    /// True when the byte at `at` lies in a hole of the file: it was never written, so its zero is no filemark.
    pub fn hole_at(&self, at: u64) -> io::Result<bool> {
        let offset = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
        match lseek(&self.file, offset, Whence::SeekData) {
            Ok(data) => Ok(data > offset),
            Err(Errno::ENXIO) => Ok(true),
            // A file system that cannot tell has no holes.
            Err(Errno::EINVAL) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads a record's data and compares the words around it.
    pub fn read_record(&self, entry: &Entry, into: &mut [u8]) -> Result<(), ReadError> {
        let (object, offset) = (entry.at.object, first_word(entry));
        let framing = ReadError::Framing { object, offset };
        let (first, last) = match scan::forward(&mut self.reader(), offset)? {
            scan::Found::Record { class: 8, .. } => return Err(ReadError::MarkedBad { object }),
            scan::Found::Record { length, at, next, .. } if length as usize == into.len() => (at, next),
            _ => return Err(framing),
        };
        debug_assert_eq!(last - first, frame::record_size(entry.length));
        self.file.read_exact_at(into, first + WORD).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => framing,
            _ => error.into(),
        })
    }

    /// Writes an object's place but for a commit word.
    pub fn write(&self, placement: &Placement, data: &[Bytes]) -> io::Result<()> {
        let head = placement.head();
        let parts: Vec<&[u8]> =
            std::iter::once(&head[..]).chain(data.iter().map(|part| &part[..])).chain([placement.tail()]).collect();
        self.write_parts(placement.write_at(), &parts)
    }

    /// True when all that [`Image::write`] puts around this object's data is there.
    pub fn is_filled(&self, placement: &Placement) -> io::Result<bool> {
        let there = |at: u64, bytes: &[u8]| {
            let mut found = vec![0; bytes.len()];
            match self.file.read_exact_at(&mut found, at) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                read => read.map(|()| found == bytes),
            }
        };
        let tail = placement.tail();
        Ok(there(placement.write_at(), &placement.head())? && there(placement.next().offset - tail.len() as u64, tail)?)
    }

    /// Fills a stretch with filemarks.
    pub fn write_marks(&self, from: u64, to: u64) -> io::Result<()> {
        const { assert!(FILEMARK == 0) };
        self.file.write_all_at(&vec![0; to.saturating_sub(from) as usize], from)
    }

    pub fn write_word(&self, at: u64, word: [u8; 4]) -> io::Result<()> {
        self.file.write_all_at(&word, at)
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Ends the image at its beginning.
    ///
    /// The room of a long one takes long to give back, so another file takes its place and it is freed beside what comes then. A crash
    /// finds one of the two whole: the new one is on the medium before it takes the name, and the old one is touched only when
    /// nothing can bring it back. Where that cannot be done it is truncated.
    ///
    /// # Errors
    /// The file system's own.
    pub fn clear(&mut self) -> io::Result<()> {
        let successor = if self.is_worth_replacing()? { self.successor() } else { None };
        let Some((path, successor)) = successor else { return self.cut(0) };
        if let Err(error) = fs::rename(&path, &self.path) {
            warn!(image = %self.path.display(), %error, "truncated, since it cannot be replaced");
            let _ = fs::remove_file(&path);
            return self.cut(0);
        }
        let old = std::mem::replace(&mut self.file, successor);
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        // Not merely closed: a mover may still have it open, and would keep the room. Failure to start leaves it to the last close.
        let freed = thread::Builder::new().name("free-image".into()).spawn(move || old.set_len(0));
        if let Err(error) = freed {
            warn!(%error, "the room of an old image is given back later");
        }
        Ok(())
    }

    fn is_worth_replacing(&self) -> io::Result<bool> {
        let system = fstatvfs(&self.file)?;
        let room = system.blocks_available().saturating_mul(system.fragment_size());
        Ok(self.size()? >= REPLACED_FROM && room >= ROOM_BESIDE)
    }

    /// An empty image beside this one, locked and synchronized; `None` where none can be made.
    fn successor(&self) -> Option<(PathBuf, File)> {
        let path = self.path.with_extension("tap.new");
        let make = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
            file.set_permissions(self.file.metadata()?.permissions())?;
            file.write_all_at(&END_OF_MEDIUM.to_le_bytes(), 0)?;
            file.sync_all()?;
            io::Result::Ok(sys::try_lock(&file)?.then_some(file))
        };
        let made = make().unwrap_or_else(|error| {
            debug!(image = %self.path.display(), %error, "truncated, since no other can be made beside it");
            None
        });
        made.map(|file| (path, file))
    }

    /// Ends the image at `at`.
    pub fn cut(&self, at: u64) -> io::Result<()> {
        self.file.set_len(at)?;
        self.end_at(at)
    }

    /// Ends the image at `at`, and leaves what lies behind.
    pub fn end_at(&self, at: u64) -> io::Result<()> {
        self.write_word(at, END_OF_MEDIUM.to_le_bytes())
    }

    /// Gives back the room of writes that failed behind a committed end. Nothing depends on it but room, so failure is only told.
    pub fn discard_behind(&self, end: u64) {
        let behind = |size: u64| size > end + WORD;
        let cut = || {
            let mut word = [0; 4];
            if behind(self.size()?) && self.file.read_exact_at(&mut word, end).is_ok() && Word::parse(word) == Word::End {
                self.file.set_len(end + WORD)?;
            }
            io::Result::Ok(())
        };
        if let Err(error) = cut() {
            warn!(%error, "unpublished bytes stay behind the end of the image");
        }
    }

    fn write_parts(&self, mut at: u64, parts: &[&[u8]]) -> io::Result<()> {
        for parts in parts.chunks(MAX_PARTS) {
            let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut slices = slices.as_mut_slice();
            IoSlice::advance_slices(&mut slices, 0);
            while !slices.is_empty() {
                let offset = i64::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
                match pwritev(&self.file, slices, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        at += written as u64;
                        IoSlice::advance_slices(&mut slices, written);
                    }
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }
}

/// True when the path names this file.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, fs::metadata(path)?);
    Ok((opened.dev(), opened.ino()) == (named.dev(), named.ino()))
}

/// Byte of the image at which an object's own word stands, behind its gap.
const fn first_word(entry: &Entry) -> u64 {
    entry.at.offset + entry.gap as u64
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn image_of(folder: &Path, size: u64) -> (PathBuf, Image) {
        let path = folder.join("p0.tap");
        File::create(&path).unwrap().set_len(size).unwrap();
        let image = Image::open(&path, true).unwrap().unwrap();
        (path, image)
    }

    #[test]
    fn a_long_image_is_replaced_and_gives_back_its_room_though_a_mover_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut image) = image_of(folder.path(), REPLACED_FROM);
        let of_mover = image.share().unwrap();
        image.clear().unwrap();
        assert!(is_at(&image.file, &path).unwrap() && !is_at(&of_mover, &path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), END_OF_MEDIUM.to_le_bytes());
        assert!(Image::open(&path, true).unwrap().is_none(), "the new one is locked as the old one was");
        let until = Instant::now() + Duration::from_secs(60);
        while of_mover.metadata().unwrap().len() > 0 {
            assert!(Instant::now() < until, "the old one keeps its room");
            thread::sleep(Duration::from_millis(1));
        }
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["p0.tap"]);
    }

    #[test]
    fn a_short_image_is_truncated_and_one_that_cannot_be_replaced_too() {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut image) = image_of(folder.path(), REPLACED_FROM - 1);
        image.clear().unwrap();
        assert!(is_at(&image.share().unwrap(), &path).unwrap());
        image.file.set_len(REPLACED_FROM).unwrap();
        // Nobody can make a file where a folder is.
        fs::create_dir(path.with_extension("tap.new")).unwrap();
        let before = image.file.metadata().unwrap().ino();
        image.clear().unwrap();
        assert_eq!(image.file.metadata().unwrap().ino(), before);
        assert_eq!(fs::read(&path).unwrap(), END_OF_MEDIUM.to_le_bytes());
    }
}
