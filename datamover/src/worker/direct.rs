//! Without passing through a job's buffers: from disk to disk, and references of a tape's records. By reference where the file system can, else inside the kernel, and holes
//! stay holes.
//!
//! A hole of the source is freed in the destination, never skipped: what was there before must not show through. A snapshot is read
//! by the rule of [`protocol::mover::table`]: what was taken from the live file is looked at afterwards, and what came too late is
//! taken again from the copy store. References and copies inside the kernel obey it as reads do: they hold bytes as they were when
//! they were made.
//!
//! Follows ioctl_ficlonerange(2) and copy_file_range(2).

use std::io;

use bytes::Bytes;
use protocol::mover::table::ReadError;
use protocol::mover::{ByMethod, FaultKind};
use protocol::scsi::sense::CopyEnd;
use protocol::units::ByteRange;

use super::ends::raw::Raw;
use super::ends::{read_fault, view_fault, write_fault};
use super::view::ViewReader;

/// Where bytes come from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// A disk as it is.
    Live(&'a Raw),
    /// A disk as it was.
    View(&'a ViewReader),
}

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

type Failure = (Option<CopyEnd>, FaultKind);

/// Copies a stretch; says how. Where source and destination are the same bytes of one file, all of a stretch is read before any of
/// it is written.
///
/// # Errors
/// The side that failed, and how.
pub fn copy(from: Origin<'_>, to: &Raw, stretch: Stretch) -> Result<ByMethod, Failure> {
    let mut moved = ByMethod::default();
    match from {
        Origin::Live(from) => copy_file(from, to, stretch, &mut moved)?,
        Origin::View(view) => {
            let range = ByteRange { start: stretch.from_at, len: stretch.len };
            let part = |file: &Raw, part: ByteRange, offset: u64| {
                let to_at = stretch.to_at + offset;
                let mut moved = ByMethod::default();
                copy_file(file, to, Stretch { from_at: part.start, to_at, len: part.len }, &mut moved).map(|()| moved)
            };
            moved = view.copy(range, part).map_err(|error| match error {
                ReadError::Lost(_) => (Some(CopyEnd::Source), FaultKind::ViewLost),
                ReadError::File(failure) => failure,
            })?;
        }
    }
    Ok(moved)
}

/// Lets bytes of a tape's image refer to all of those of a disk, or says that they cannot: then nothing is known of them.
#[must_use]
pub fn refer(from: Origin<'_>, from_at: u64, to: &Raw, to_at: u64, len: u64) -> bool {
    match from {
        Origin::Live(from) => from.clone_whole(from_at, to, to_at, len),
        Origin::View(view) => {
            let part = |file: &Raw, part: ByteRange, offset: u64| {
                let whole = file.clone_whole(part.start, to, to_at + offset, part.len);
                if whole { Ok(ByMethod::default()) } else { Err(()) }
            };
            view.copy(ByteRange { start: from_at, len }, part).is_ok()
        }
    }
}

/// Reads bytes of a disk.
///
/// # Errors
/// How it failed.
pub fn read(from: Origin<'_>, at: u64, len: u32) -> Result<Bytes, Failure> {
    let mut data = vec![0; len as usize];
    let read = match from {
        Origin::Live(from) => from.read_at(at, &mut data).map_err(|error| read_fault(&error)),
        Origin::View(view) => view.read_at(at, &mut data).map_err(|error| view_fault(&error)),
    };
    read.map(|()| Bytes::from(data)).map_err(|kind| (Some(CopyEnd::Source), kind))
}

fn copy_file(from: &Raw, to: &Raw, stretch: Stretch, moved: &mut ByMethod) -> Result<(), Failure> {
    if from.same_blocks(to) {
        return through_memory(from, to, stretch, stretch.len, moved);
    }
    // References keep holes by themselves.
    let Some(cloned) = from.clone_to(stretch.from_at, to, stretch.to_at, stretch.len) else {
        return keep_holes(from, to, stretch, moved);
    };
    moved.reference += cloned.len;
    keep_holes(from, to, stretch.first(cloned.start), moved)?;
    keep_holes(from, to, stretch.behind(cloned.end()), moved)
}

fn keep_holes(from: &Raw, to: &Raw, mut rest: Stretch, moved: &mut ByMethod) -> Result<(), Failure> {
    while rest.len > 0 {
        let data = from.next_data(rest.from_at, rest.len);
        let hole = (data.start - rest.from_at).min(rest.len);
        if hole > 0 {
            make_hole(to, ByteRange { start: rest.to_at, len: hole })?;
            moved.holes += hole;
            rest = rest.behind(hole);
            continue;
        }
        let len = rest.len.min(data.end() - rest.from_at).max(1);
        copy_data(from, to, rest.first(len), moved)?;
        rest = rest.behind(len);
    }
    Ok(())
}

impl Stretch {
    const fn behind(self, len: u64) -> Self {
        Self { from_at: self.from_at + len, to_at: self.to_at + len, len: self.len - len }
    }

    const fn first(self, len: u64) -> Self {
        Self { len, ..self }
    }
}

fn copy_data(from: &Raw, to: &Raw, mut rest: Stretch, moved: &mut ByMethod) -> Result<(), Failure> {
    while rest.len > 0 {
        match from.copy_to(rest.from_at, to, rest.to_at, rest.len) {
            Ok(copied) => {
                moved.kernel += copied;
                rest = rest.behind(copied);
            }
            // The two files do not allow it; or one of them failed, and which of them is found out by reading.
            Err(_) => return through_memory(from, to, rest, PIECE, moved),
        }
    }
    Ok(())
}

/// Reads and writes, `piece` bytes at a time.
fn through_memory(from: &Raw, to: &Raw, mut rest: Stretch, piece: u64, moved: &mut ByMethod) -> Result<(), Failure> {
    while rest.len > 0 {
        let len = rest.len.min(piece);
        let mut data = vec![0; len as usize];
        from.read_at(rest.from_at, &mut data).map_err(|error| (Some(CopyEnd::Source), read_fault(&error)))?;
        to.write_at(rest.to_at, &[Bytes::from(data)]).map_err(|error| (Some(CopyEnd::Destination), write_fault(&error)))?;
        moved.buffers += len;
        rest = rest.behind(len);
    }
    Ok(())
}

fn make_hole(to: &Raw, range: ByteRange) -> Result<(), Failure> {
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
