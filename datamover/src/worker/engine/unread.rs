//! Segments whose data the engine does not read: the writer copies it from disk to disk, or lets a tape's records refer to it.
//!
//! Only where no residue is there or comes about; all else takes its way through buffers. How the bytes get to their place is
//! [`super::super::direct`]'s business.

use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use protocol::cartridge::layout::{ALIGNED_LEAST, ALIGNMENT};
use protocol::mover::{Destination, Move, Source};
use protocol::units::ByteRange;

use super::{Engine, Halt, Input, Op, OpenEnd, Output, Run};

/// Bytes that one operation refers to: between two of them the engine hears that a job is cancelled.
const REFERRED_AT_ONCE: u64 = 64 << 20;
impl Engine<'_> {
    /// Whole records of an aligned cartridge from a disk without residue: the writer lets them refer to its blocks. Gives the bytes
    /// of which this is so. Whether the two files can is tried with the first.
    pub(super) fn refer(&mut self, copy: &Move, process: u64, input: &mut Input) -> Run<u64> {
        let (Source::Blocks { end: from, .. } | Source::Bytes { end: from, .. }) = copy.from else { return Ok(0) };
        let Destination::Stream { end, transfer } = copy.to else { return Ok(0) };
        let (from_at, unit) = (input.at, transfer.bytes());
        let all = process.checked_div(unit).unwrap_or(0);
        let refused = self.no_references.contains(&(from, end));
        if copy.hold || refused || all == 0 || !self.source.is_empty() || !self.destination.is_empty() {
            return Ok(0);
        }
        let source = self.end(from)?;
        let whole_blocks = match (source, self.end(end)?) {
            (OpenEnd::Raw(disk), OpenEnd::Tape(_)) => disk.is_block(from_at),
            (OpenEnd::View(disk), OpenEnd::Tape(_)) => disk.is_block(from_at),
            _ => false,
        };
        let long = transfer.record >= ALIGNED_LEAST && u64::from(transfer.record).is_multiple_of(ALIGNMENT);
        if !whole_blocks || !long || self.tape(end)?.lock().expect("no holder panics").blocks().is_none() {
            return Ok(0);
        }
        self.wait_for_writes_to(source, ByteRange { start: from_at, len: all * unit })?;
        let mut tried = self.references.contains(&(from, end));
        let mut done = 0;
        while done < all {
            let count = if tried { (all - done).min((REFERRED_AT_ONCE / unit).max(1)) } else { 1 };
            let (reply, answer) = sync_channel(1);
            let reply = (!tried).then_some(reply);
            self.send(Op::Refer { from, from_at: from_at + done * unit, end, transfer, count, tried: reply })?;
            done += count;
            if !tried {
                tried = true;
                if !answer.recv().map_err(|_| Halt::Stopped)? {
                    self.no_references.push((from, end));
                    break;
                }
                self.references.push((from, end));
            }
        }
        let bytes = done * unit;
        self.shared.read.fetch_add(bytes, Ordering::Relaxed);
        input.skip(bytes);
        Ok(bytes)
    }

    /// Whole blocks from disk to disk without residue: the writer copies them inside the kernel, and keeps holes.
    pub(super) fn copy_directly(&mut self, copy: &Move, process: u64, output: &Output) -> Run<bool> {
        let (Source::Blocks { end: from, at: from_at } | Source::Bytes { end: from, at: from_at, .. }) = copy.from else {
            return Ok(false);
        };
        let (Destination::Blocks { end: to, .. } | Destination::Bytes { end: to, .. }) = copy.to else { return Ok(false) };
        let (OpenEnd::Raw(_) | OpenEnd::View(_), OpenEnd::Raw(_)) = (self.end(from)?, self.end(to)?) else { return Ok(false) };
        let block = u64::from(self.block_length(from)?);
        let whole_reads = matches!(copy.from, Source::Bytes { .. }) || process.is_multiple_of(block);
        let len = copy.output.unwrap_or(process);
        let exact = !copy.hold && whole_reads && len == process && process.is_multiple_of(output.unit);
        if !exact || process == 0 || !self.source.is_empty() || !self.destination.is_empty() {
            return Ok(false);
        }
        self.shared.read.fetch_add(len, Ordering::Relaxed);
        self.under_way.push((to, ByteRange { start: output.at, len }));
        self.send(Op::Range { from, from_at, end: to, at: output.at, len })?;
        Ok(true)
    }
}
