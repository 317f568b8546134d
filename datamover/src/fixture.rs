//! The disk with a real NTFS volume that `offhost demo` backs up, carried inside the program.
//!
//! It is the raw image of a disk of 768 MiB, compressed by zstd to about half a MiB since nearly all of it is zeros; `zstd -d`
//! unpacks it as well. It is not random data: the files below [`FILL`] hold zeros, for whoever uses the disk to fill from a
//! seed of their own. `tests/fixtures/make-ntfs-fixture` made it, `tests/fixtures/README.md` says from what.

use crate::map::DiskMap;
use crate::map::ntfs::view::{File, Place};
use ruzstd::decoding::StreamingDecoder;
use std::io::{self, Read};

/// Bytes of the disk.
pub const SIZE: u64 = 768 << 20;

/// Files below this folder may be overwritten: their sizes come to more than 256 MiB.
pub const FILL: &str = "/fill/";

/// The image as it was committed.
pub const COMPRESSED: &[u8] = include_bytes!("../../tests/fixtures/ntfs.img.zst");

/// The disk from its first byte to its last.
///
/// # Errors
/// None with the committed image; those of the decoder with a damaged one.
pub fn reader() -> io::Result<impl Read + Send> {
    StreamingDecoder::new(COMPRESSED).map_err(io::Error::other)
}

/// What is not zero on the disk, in ascending order, in pieces of at most [`PIECE`] bytes that begin and end on a block of
/// [`GRAIN`] bytes.
#[derive(Debug)]
pub struct Pieces<R> {
    reader: R,
    offset: u64,
    buffer: Vec<u8>,
    /// What `buffer` holds and was not handed out yet.
    at: usize,
    end: usize,
}

/// The pieces of the embedded disk: a raw disk of [`SIZE`] zeros becomes it when they are written.
///
/// # Errors
/// As [`reader`].
pub fn pieces() -> io::Result<Pieces<impl Read + Send>> {
    Ok(Pieces::new(reader()?))
}

impl<R: Read> Pieces<R> {
    /// Cuts any image.
    pub fn new(reader: R) -> Self {
        Self { reader, offset: 0, buffer: vec![0; PIECE], at: 0, end: 0 }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.offset += self.end as u64;
        (self.at, self.end) = (0, 0);
        while self.end < PIECE {
            match self.reader.read(&mut self.buffer[self.end..])? {
                0 => break,
                count => self.end += count,
            }
        }
        Ok(())
    }

    fn step(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        loop {
            if self.at == self.end {
                self.fill()?;
                if self.end == 0 {
                    return Ok(None);
                }
            }
            let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
            let blocks = || self.buffer[self.at..self.end].chunks(GRAIN);
            let skipped: usize = blocks().take_while(|block| is_zero(block)).map(<[u8]>::len).sum();
            let held: usize =
                self.buffer[self.at + skipped..self.end].chunks(GRAIN).take_while(|b| !is_zero(b)).map(<[u8]>::len).sum();
            let start = self.at + skipped;
            self.at = start + held;
            if held > 0 {
                return Ok(Some((self.offset + start as u64, self.buffer[start..self.at].to_vec())));
            }
        }
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// The files that may be overwritten, each with where its clusters are: `(first byte on the disk, length)` in stream order.
pub fn files_to_fill(map: &DiskMap) -> impl Iterator<Item = (File, Vec<(u64, u64)>)> + '_ {
    map.files().filter(|(_, file)| file.path.starts_with(FILL)).filter_map(|(_, file)| {
        let data = file.attributes.iter().find(|attribute| attribute.is_data() && attribute.name.is_empty())?;
        let Place::NonResident { extents, .. } = &data.place else { return None };
        let places: Vec<(u64, u64)> = extents.iter().filter_map(|extent| Some((extent.at?, extent.len))).collect();
        (!data.compressed && !places.is_empty()).then_some((file, places))
    })
}

/// Longest piece in bytes.
pub const PIECE: usize = 1 << 20;

/// A piece holds no zero block of this length.
pub const GRAIN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_put_together_are_the_image() {
        let mut image = vec![0; 3 * PIECE + 100];
        for at in [0, 5000, PIECE - 1, PIECE, 2 * PIECE + 3 * GRAIN, 3 * PIECE + 99] {
            image[at] = 7;
        }
        let mut again = vec![0; image.len()];
        for piece in Pieces::new(image.as_slice()) {
            let (offset, bytes) = piece.unwrap();
            assert!(bytes.len() <= PIECE && offset.is_multiple_of(GRAIN as u64));
            again[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(again, image);
    }

    #[test]
    fn the_embedded_disk_has_its_size_and_is_small() {
        const { assert!(COMPRESSED.len() < 1 << 20) };
        let mut reader = reader().unwrap();
        assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), SIZE);
    }
}
