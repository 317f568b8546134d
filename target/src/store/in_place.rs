//! Blocks that are sent from where the page cache has them.
//!
//! Reading a large piece into a buffer and sending that copies it twice; half of a READ's time went there. Instead the socket is given
//! the place of the blocks in a mapping of the file, and copies them as it takes them. So they are what they are *when they are sent*:
//! who hands them out keeps the command open until then, and replaces what a slow peer leaves waiting ([`Mapping::copy_of`]).
//!
//! Not for what is looked at before it is sent (digests), nor for what may have to be sent twice (recovery levels above 0), nor
//! for a mover's reading under a snapshot, which has rules of its own.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::sys::FileMapping;

/// A file and where its page cache is mapped.
#[derive(Debug)]
pub struct Mapping {
    memory: FileMapping,
    file: File,
}

/// The same mapping, not an equal one.
impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Mapping {}

/// Bytes of a mapping, and a claim that lasts as long as somebody may send them.
struct Piece<C> {
    mapping: Arc<Mapping>,
    at: usize,
    len: usize,
    _claim: C,
}

impl<C> AsRef<[u8]> for Piece<C> {
    fn as_ref(&self) -> &[u8] {
        self.mapping.memory.unread(self.at, self.len)
    }
}

impl Mapping {
    /// Maps the first `size` bytes of a file; `None` where that cannot be done: then blocks are read into buffers.
    #[must_use]
    pub fn of(file: &File, size: u64) -> Option<Arc<Self>> {
        let len = NonZeroUsize::new(usize::try_from(size).ok()?)?;
        let memory = FileMapping::new(file, len).ok()?;
        Some(Arc::new(Self { memory, file: file.try_clone().ok()? }))
    }

    /// The bytes of a range for a system call to copy, and for nobody to look at; `None` when the page cache does not hold all of
    /// them. `claim` is dropped when the last reference to them is.
    pub fn piece(self: &Arc<Self>, at: u64, len: usize, claim: impl Send + 'static) -> Option<Bytes> {
        let at = usize::try_from(at).ok()?;
        self.memory.is_resident(at, len).then(|| Bytes::from_owner(Piece { mapping: Arc::clone(self), at, len, _claim: claim }))
    }

    /// What a piece, or a part of one, holds now; `None` for bytes of another origin. May block for as long as a page takes that has
    /// left the cache since.
    ///
    /// # Errors
    /// Whatever the file gives; `UnexpectedEof` for what was cut off.
    pub fn copy_of(&self, piece: &Bytes) -> Option<io::Result<Bytes>> {
        let at = self.memory.offset_of(piece)?;
        let mut copy = vec![0; piece.len()];
        Some(self.file.read_exact_at(&mut copy, at as u64).map(|()| copy.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(len: usize) -> (File, Arc<Mapping>) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; len], 0).unwrap();
        let mapping = Mapping::of(&file, len as u64).unwrap();
        (file, mapping)
    }

    /// What a system call finds there.
    fn sent(piece: &Bytes) -> io::Result<Vec<u8>> {
        let into = tempfile::tempfile()?;
        into.write_all_at(piece, 0)?;
        let mut found = vec![0; piece.len()];
        into.read_exact_at(&mut found, 0).map(|()| found)
    }

    #[test]
    fn a_piece_is_what_the_file_holds_when_it_is_sent() {
        let (file, mapping) = mapped(1 << 20);
        let claim = Arc::new(());
        let piece = mapping.piece(4096, 8192, Arc::clone(&claim)).unwrap();
        file.write_all_at(&[9; 4096], 8192).unwrap();
        assert_eq!(sent(&piece).unwrap(), [[7; 4096], [9; 4096]].concat());
        let part = piece.slice(4096..);
        drop(piece);
        assert_eq!(Arc::strong_count(&claim), 2, "a part is still there");
        assert_eq!(mapping.copy_of(&part).unwrap().unwrap(), [9; 4096][..]);
        assert!(mapping.copy_of(&Bytes::from(vec![1, 2])).is_none());
        drop(part);
        assert_eq!(Arc::strong_count(&claim), 1);
    }

    #[test]
    fn nothing_outside_the_file_and_no_hole_of_a_sparse_one() {
        let (file, mapping) = mapped(8192);
        assert!(mapping.piece(4096, 8192, ()).is_none());
        assert!(mapping.piece(u64::MAX, 1, ()).is_none());
        file.set_len(1 << 30).unwrap();
        let wider = Mapping::of(&file, 1 << 30).unwrap();
        assert!(wider.piece(1 << 29, 65536, ()).is_none(), "nobody has read it yet");
    }

    #[test]
    fn what_was_cut_off_is_an_error_and_not_the_end_of_the_process() {
        let (file, mapping) = mapped(65536);
        let piece = mapping.piece(0, 65536, ()).unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(sent(&piece).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert_eq!(mapping.copy_of(&piece).unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
