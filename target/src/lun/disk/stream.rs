//! WRITE, piece by piece as its data comes.
//!
//! What is written soon after it has been received is still in the processor's cache, and a long WRITE holds no more than a piece of
//! its data. A piece is written where it stands or not at all: a hold, a writer that has the disk alone, a store that makes writers
//! wait or blocks that are no whole pages leave it to the pieces behind it and at last to the rest, which goes the way of every WRITE.
//! So nothing of the command is under way between two pieces, however long its initiator takes to send the next one: it keeps no hold
//! waiting, and is gone at once when it is aborted.
//!
//! Old blocks that a live snapshot needs are read and kept on another thread, for the whole command once its first piece has come, and
//! no piece is written over any that are not kept. That changes nothing on the disk, and does no harm to a command that is aborted.
//!
//! All that is refused is refused before the first piece. What comes up later, an error of the store as well as a reservation or write
//! protection, ends the command with what it says once its data has come. It does not know how data comes. Follows SBC-4, "WRITE (10)
//! command" and its kin; RFC 7143 (11.7) has the data.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use protocol::scsi::sbc::{self, Extent};
use protocol::scsi::{CommandSpec, SenseFormat};
use protocol::units::ByteRange;

use super::transfer::{AT_ONCE_MAX, PAGE, start_write, writes_at_once};
use super::{Disk, fault, threshold};
use crate::lun::common::{LogicalUnit, admits, begins, formatted};
use crate::metrics::usage::{Meter, Op};
use crate::task::{Attribute, Execution, Response, Task};

/// A WRITE of which some data has come.
pub struct StreamedWrite {
    disk: Arc<Disk>,
    /// Without its data.
    task: Task,
    spec: &'static CommandSpec,
    range: ByteRange,
    /// Bytes at the front of `range` that are written.
    written: u64,
    /// What the command ends with though its data is still to come: that is let pass.
    refused: Option<Response>,
    sense_format: SenseFormat,
    /// From the first piece on.
    meter: Option<Meter>,
    /// Whether live snapshots have what they need of it.
    ahead: Ahead,
}

/// Old blocks that live snapshots need are kept before anything is written over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    NotNeeded,
    Needed,
    /// Not again: a snapshot that is taken meanwhile has the rest wait for all data.
    Asked,
}

impl fmt::Debug for StreamedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamedWrite").field("range", &self.range).field("written", &self.written).finish_non_exhaustive()
    }
}

impl StreamedWrite {
    /// A WRITE that may be written as its data comes: one that would be carried out now, to whole pages, whose initiator sends as
    /// many bytes as its CDB says.
    pub(in crate::lun) fn begin(disk: &Arc<Disk>, task: Task, expected: u64) -> Option<Self> {
        const PLAIN: [u8; 4] = [sbc::WRITE_6.opcode, sbc::WRITE_10.opcode, sbc::WRITE_12.opcode, sbc::WRITE_16.opcode];
        if !PLAIN.contains(&task.cdb.opcode()) {
            return None;
        }
        let spec = begins(&**disk, &task)?;
        let range = disk.transferred(&task, &Extent::of(&task.cdb)).ok()?;
        // Then a piece of whole pages is one of whole blocks.
        let pages = range.start.is_multiple_of(PAGE) && PAGE.is_multiple_of(disk.block_length.bytes());
        if range.len != expected || !pages {
            return None;
        }
        let sense_format = disk.common().sense_format();
        let disk = Arc::clone(disk);
        Some(Self { disk, task, spec, range, written: 0, refused: None, sense_format, meter: None, ahead: Ahead::NotNeeded })
    }

    /// Its place in the order of commands.
    #[must_use]
    pub fn attribute(&self) -> Attribute {
        self.task.attribute
    }

    /// True when none of its data is written.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.written == 0
    }

    /// Writes what it can of the next `held` bytes, which `take` gives as far as it is asked for. Blocks for no longer than it takes
    /// to copy them.
    pub fn write(&mut self, held: u64, take: impl FnOnce(u64) -> Vec<Bytes>) {
        if self.refused.is_none() {
            self.refused = admits(&*self.disk, &self.task).err();
        }
        if self.refused.is_some() {
            self.written += held;
            return drop(take(held));
        }
        let disk = &self.disk;
        let len = (held / PAGE * PAGE).min(AT_ONCE_MAX);
        let piece = ByteRange { len, ..self.rest() };
        if len == 0 || !writes_at_once(disk, piece) {
            return;
        }
        if !disk.volume.is_kept(piece) {
            if self.ahead == Ahead::NotNeeded {
                self.ahead = Ahead::Needed;
            }
            return;
        }
        let Ok(writing) = disk.writers.try_read() else { return };
        let Some(admission) = disk.volume.try_admit() else { return };
        let begin = || Meter::begin(&disk.common.usage, self.task.nexus.id, Op::Write, self.range.len);
        self.meter.get_or_insert_with(begin);
        let data = take(len);
        let done = disk.volume.timed(|| disk.volume.write_at(&admission, piece.start, &data));
        drop(writing);
        threshold::look(disk);
        self.refused = done.err().map(|error| fault::on_write(&error).into());
        self.written += len;
    }

    /// What has to be done before more can be written, on a thread that may block; told once.
    pub fn work_ahead(&mut self) -> Option<impl FnOnce() + Send + 'static> {
        if self.ahead != Ahead::Needed {
            return None;
        }
        self.ahead = Ahead::Asked;
        let (disk, rest) = (Arc::clone(&self.disk), self.rest());
        Some(move || disk.volume.keep_ahead(rest))
    }

    const fn rest(&self) -> ByteRange {
        ByteRange { start: self.range.start + self.written, len: self.range.len - self.written }
    }

    /// Carries out the rest: `task` is the command with all data that was not taken.
    #[must_use]
    pub fn end(self, task: Task) -> Execution {
        let rest = self.rest();
        let Self { disk, spec, range, refused, sense_format, meter, .. } = self;
        let execution = match refused.map_or_else(|| admits(&*disk, &task), Err) {
            Err(refusal) => Execution::Done(refusal),
            Ok(()) => start_write(&disk, task, spec, rest, range.len),
        };
        formatted(execution, sense_format).map(move |response| {
            if let Some(meter) = meter {
                meter.end(response.status, 0);
            }
            response
        })
    }
}
