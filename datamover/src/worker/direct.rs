//! Disk to disk without passing through a job's buffers: inside the kernel where it can, and holes stay holes.
//!
//! A hole of the source is freed in the destination, never skipped: what was there before must not show through.

use std::io;

use bytes::Bytes;
use nix::unistd::Whence;
use protocol::mover::FaultKind;
use protocol::scsi::sense::CopyEnd;
use protocol::units::ByteRange;

use super::ends::raw::Raw;
use super::ends::{read_fault, write_fault};

/// Bytes to copy.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// First byte of the copy source.
    pub from_at: u64,
    /// First byte of the copy destination.
    pub to_at: u64,
    /// Bytes.
    pub len: u64,
}

type Copied = Result<(), (Option<CopyEnd>, FaultKind)>;

/// Copies a stretch. Where source and destination are the same bytes of one file, all of a stretch is read before any of it is
/// written.
///
/// # Errors
/// The side that failed, and how.
pub fn copy(from: &Raw, to: &Raw, stretch: Stretch) -> Copied {
    if from.same_blocks(to) {
        return through_memory(from, to, stretch, stretch.len);
    }
    let mut rest = stretch;
    while rest.len > 0 {
        let data = from.seek(rest.from_at, Whence::SeekData).unwrap_or(rest.from_at).max(rest.from_at) - rest.from_at;
        let hole = data.min(rest.len);
        if hole > 0 {
            make_hole(to, ByteRange { start: rest.to_at, len: hole })?;
            rest = rest.behind(hole);
            continue;
        }
        let end = from.seek(rest.from_at, Whence::SeekHole).filter(|end| *end > rest.from_at);
        let len = end.map_or(rest.len, |end| rest.len.min(end - rest.from_at));
        copy_data(from, to, Stretch { len, ..rest })?;
        rest = rest.behind(len);
    }
    Ok(())
}

impl Stretch {
    const fn behind(self, len: u64) -> Self {
        Self { from_at: self.from_at + len, to_at: self.to_at + len, len: self.len - len }
    }
}

fn copy_data(from: &Raw, to: &Raw, mut rest: Stretch) -> Copied {
    while rest.len > 0 {
        match from.copy_to(rest.from_at, to, rest.to_at, rest.len) {
            Ok(copied) => rest = rest.behind(copied),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return through_memory(from, to, rest, PIECE),
            // One call, two files: which of them failed is found out by reading.
            Err(_) => return through_memory(from, to, rest, PIECE),
        }
    }
    Ok(())
}

/// Reads and writes, `piece` bytes at a time.
fn through_memory(from: &Raw, to: &Raw, mut rest: Stretch, piece: u64) -> Copied {
    while rest.len > 0 {
        let len = rest.len.min(piece);
        let mut data = vec![0; len as usize];
        from.read_at(rest.from_at, &mut data).map_err(|error| (Some(CopyEnd::Source), read_fault(&error)))?;
        to.write_at(rest.to_at, &[Bytes::from(data)]).map_err(|error| (Some(CopyEnd::Destination), write_fault(&error)))?;
        rest = rest.behind(len);
    }
    Ok(())
}

fn make_hole(to: &Raw, range: ByteRange) -> Copied {
    let failed = |error: io::Error| (Some(CopyEnd::Destination), write_fault(&error));
    match to.punch(range) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        punched => return punched.map_err(failed),
    }
    let zeros = Bytes::from(vec![0; PIECE as usize]);
    let mut at = range.start;
    while at < range.end() {
        let len = PIECE.min(range.end() - at);
        to.write_at(at, &[zeros.slice(..len as usize)]).map_err(failed)?;
        at += len;
    }
    Ok(())
}

/// Bytes copied through memory at once.
const PIECE: u64 = 1 << 20;
