//! Reading a volume: clusters by number, and the bytes of a stream through its run list.
//!
//! It caches nothing and asks for at most [`MAX_READ`] bytes at once.

use super::boot::Geometry;
use super::runs::Run;
use crate::map::source::{MAX_READ, ReadAt};
use protocol::units::ByteRange;
use std::io;

/// A volume at its place on a LUN.
#[derive(Clone, Copy)]
pub struct Device<'a> {
    /// The whole LUN.
    pub source: &'a dyn ReadAt,
    /// The partition.
    pub range: ByteRange,
    /// Of the volume in it.
    pub geometry: Geometry,
}

impl Device<'_> {
    /// Byte position of a cluster on the LUN. The cluster must be one of the volume's.
    #[must_use]
    pub const fn position(&self, lcn: u64) -> u64 {
        self.range.start + lcn * self.geometry.cluster
    }

    /// As [`Device::position`], where a cluster is only said to be the volume's; `None` for one that is not.
    #[must_use]
    pub fn position_of(&self, lcn: u64) -> Option<u64> {
        (lcn < self.geometry.clusters).then(|| self.position(lcn))
    }

    /// Bytes of a run on the LUN; `None` for a hole.
    #[must_use]
    pub fn bytes_of(&self, run: Run) -> Option<ByteRange> {
        run.start().map(|lcn| ByteRange { start: self.position(lcn), len: run.clusters * self.geometry.cluster })
    }
}

/// The bytes of a stream, in its own order.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    pieces: Vec<Piece>,
    len: u64,
}

/// `at` is `None` for a hole.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    len: u64,
    at: Option<u64>,
}

impl Stream {
    /// Joins runs that touch. What a hole longer than 64 bits of bytes would hide is cut off.
    #[must_use]
    pub fn new(device: &Device<'_>, runs: &[Run]) -> Self {
        let mut stream = Self::default();
        for run in runs {
            stream.append(device, *run);
        }
        stream
    }

    /// Adds a run at the end.
    pub fn append(&mut self, device: &Device<'_>, run: Run) {
        let at = run.start().map(|lcn| device.position(lcn));
        let room = u64::MAX - self.len;
        let len = run.clusters.saturating_mul(device.geometry.cluster).min(room);
        match self.pieces.last_mut() {
            Some(last) if last.at.and_then(|start| start.checked_add(last.len)) == at && at.is_some() => last.len += len,
            _ => self.pieces.push(Piece { offset: self.len, len, at }),
        }
        self.len += len;
    }

    /// Mapped bytes, holes included.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Byte position on the LUN of one byte of the stream.
    #[must_use]
    pub fn position(&self, offset: u64) -> Option<u64> {
        self.cut(offset, 1).next()?.at
    }

    /// Bytes `offset..offset + len` when they lie in one piece on the LUN.
    #[must_use]
    pub fn contiguous(&self, offset: u64, len: u64) -> Option<u64> {
        self.cut(offset, len).next().filter(|piece| piece.len == len)?.at
    }

    /// Fills the buffer; holes read as zero.
    ///
    /// # Errors
    /// Those of the source; [`io::ErrorKind::UnexpectedEof`] behind the mapped bytes.
    pub fn read(&self, source: &dyn ReadAt, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut rest = buffer;
        for piece in self.cut(offset, rest.len() as u64) {
            let (mut part, behind) = std::mem::take(&mut rest).split_at_mut(piece.len as usize);
            rest = behind;
            let Some(mut at) = piece.at else {
                part.fill(0);
                continue;
            };
            while !part.is_empty() {
                let (now, later) = part.split_at_mut(part.len().min(MAX_READ));
                source.read_at(at, now)?;
                at += now.len() as u64;
                part = later;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn cut(&self, offset: u64, len: u64) -> impl Iterator<Item = Piece> + '_ {
        let end = offset.saturating_add(len);
        let first = self.pieces.partition_point(|piece| piece.offset + piece.len <= offset);
        self.pieces[first..].iter().take_while(move |piece| piece.offset < end).map(move |piece| {
            let from = offset.max(piece.offset);
            let to = end.min(piece.offset + piece.len);
            Piece { offset: from, len: to - from, at: piece.at.map(|at| at + (from - piece.offset)) }
        })
    }
}
