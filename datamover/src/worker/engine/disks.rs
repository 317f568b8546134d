//! How disks are read: ahead of the writer, small extents together, and nothing that an earlier segment is still writing.
//!
//! What may be read together is [`super::super::gather`]'s to say. Writes nothing by itself.
//!
//! Follows SPC-4, "EXTENDED COPY command processing".

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use protocol::mover::{EndIndex, FaultKind};
use protocol::units::ByteRange;

use super::super::buffers::BUFFER;
use super::super::ends::{read_fault, view_fault};
use super::super::gather::Extent;
use super::{Engine, Halt, Op, OpenEnd, Run, source_fault};

impl Engine<'_> {
    /// Blocks as they are, beside the residue.
    pub(super) fn block_image(&mut self, from: EndIndex, from_at: u64, to: EndIndex, range: ByteRange) -> Run {
        self.under_way.push((to, range));
        if let (OpenEnd::Raw(_), OpenEnd::Raw(_)) = (self.end(from)?, self.end(to)?) {
            self.shared.read.fetch_add(range.len, Ordering::Relaxed);
            return self.send(Op::Range { from, from_at, end: to, at: range.start, len: range.len });
        }
        let residue = std::mem::take(&mut self.source);
        let mut done = 0;
        while done < range.len {
            let len = (range.len - done).min(BUFFER as u64);
            self.read_blocks(from, from_at + done, len)?;
            let data = self.source.split_to(len);
            self.send(Op::Blocks { end: to, at: range.start + done, data })?;
            done += len;
        }
        self.source = residue;
        Ok(())
    }

    /// Source data from a disk.
    pub(super) fn read_blocks(&mut self, end: EndIndex, at: u64, len: u64) -> Run {
        let from = self.end(end)?;
        if len == 0 {
            return Err(Halt::Fault(None, FaultKind::BadJob));
        }
        self.wait_for_writes_to(from, ByteRange { start: at, len })?;
        match self.read_ahead(Extent { end, at, len })? {
            Some((bytes, range)) => self.source.push_part(bytes, range),
            None => {
                let mut buffer = self.pool.take(&self.shared.stopped).ok_or(Halt::Stopped)?;
                fill(from, at, &mut buffer[..len as usize], self.cancelled())?;
                self.source.push_pooled(buffer.freeze(len as usize));
            }
        }
        self.shared.read.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// A small extent, read together with those of the segments that follow; `None` where they are not worth it.
    fn read_ahead(&mut self, wanted: Extent) -> Run<Option<(Bytes, Range<usize>)>> {
        if !wanted.is_small() {
            return Ok(None);
        }
        while self.ahead.is_used_up() {
            let planned = self.ahead.plan(wanted, self.following, |extent| match self.end(extent.end) {
                // What a remote disk says of an extent is to be said of the segment that wants it.
                Ok(OpenEnd::RemoteDisk(_)) => false,
                Ok(from) => !self.is_under_way(from, ByteRange { start: extent.at, len: extent.len }),
                Err(_) => false,
            });
            let Some(planned) = planned else { break };
            let into = match self.pool.try_take() {
                Some(buffer) => buffer,
                // All buffers are full of what comes first.
                None if !self.ahead.is_empty() => break,
                None => self.pool.take(&self.shared.stopped).ok_or(Halt::Stopped)?,
            };
            self.ahead.order(planned, into);
        }
        Ok(self.ahead.take(wanted))
    }

    /// "The relative order of writes and reads on the same blocks … does not differ from their order in the segment descriptor list."
    pub(super) fn wait_for_writes_to(&mut self, from: &OpenEnd, range: ByteRange) -> Run {
        if self.is_under_way(from, range) { self.settle_writes() } else { Ok(()) }
    }

    /// An earlier segment writes there and may not have done so yet.
    fn is_under_way(&self, from: &OpenEnd, range: ByteRange) -> bool {
        self.under_way.iter().any(|(end, written)| {
            let same = match (self.ends.get(usize::from(end.0)), from) {
                (Some(OpenEnd::Raw(to)), OpenEnd::Raw(from)) => to.same_blocks(from),
                (Some(to @ OpenEnd::RemoteDisk(_)), OpenEnd::RemoteDisk(_)) => std::ptr::eq(to, from),
                _ => false,
            };
            same && written.overlaps(range)
        })
    }
}

/// How extents are read ahead; says whether they could be. Whose fault it is shows when a segment reads its own.
pub fn reads<'a>(ends: &'a [OpenEnd], cancelled: &'a AtomicBool) -> impl Fn(&Extent, &mut [u8]) -> bool + 'a {
    move |extent, into| ends.get(usize::from(extent.end.0)).is_some_and(|end| fill(end, extent.at, into, cancelled).is_ok())
}

/// Reads bytes of a disk.
fn fill(from: &OpenEnd, at: u64, into: &mut [u8], cancelled: &AtomicBool) -> Run {
    match from {
        OpenEnd::Raw(raw) => raw.read_at(at, into).map_err(|error| source_fault(read_fault(&error))),
        OpenEnd::View(view) => view.read_at(at, into).map_err(|error| source_fault(view_fault(&error))),
        OpenEnd::NullBlock | OpenEnd::NullStream => Err(source_fault(FaultKind::Null)),
        OpenEnd::RemoteDisk(disk) => disk.read_at(cancelled, at, into).map_err(source_fault),
        OpenEnd::Tape(_) | OpenEnd::RemoteTape(_) => Err(Halt::Fault(None, FaultKind::BadJob)),
    }
}
