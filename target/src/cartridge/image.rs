//! The image file of one partition: positioned reads and writes around the rules of [`protocol::cartridge`].

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::uio::pwritev;
use nix::unistd::{Whence, lseek};
use protocol::cartridge::ObjectKind;
use protocol::cartridge::append::Placement;
use protocol::cartridge::frame::{self, END_OF_MEDIUM, FILEMARK, WORD, WRAPPED, Word};
use protocol::cartridge::index::Entry;
use protocol::cartridge::scan::{self, Image as _};
use tracing::warn;

use super::ReadError;
use crate::sys;

/// An open, locked image.
#[derive(Debug)]
pub struct Image {
    file: File,
    writable: bool,
}

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
        Ok(sys::try_lock(&file)?.then_some(Self { file, writable }))
    }

    pub const fn opened_for_writing(&self) -> bool {
        self.writable
    }

    /// The same open file, lock included.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
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

/// Byte of the image at which an object's own word stands, behind its gap.
const fn first_word(entry: &Entry) -> u64 {
    entry.at.offset + entry.gap as u64
}
