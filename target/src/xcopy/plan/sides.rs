//! Sources and destinations of a segment: what they have to be, and which bytes or records of them take part.
//!
//! Decides nothing about residue. Follows SPC-4, "Segment descriptors" and tables 115 and 138.

use std::sync::Arc;

use protocol::mover::ends::End;
use protocol::mover::{Action, Destination, EndIndex, RemoteUnit as RemoteKind, Source, Transfer};
use protocol::scsi::sense::{CopyEnd, Sense};
use protocol::units::Lba;
use protocol::xcopy::{MAX_STREAM_TRANSFER, MAX_TRANSFER_RECORDS};

use super::{Checked, Cscd, PlannedEnd, Planner, Unit};
use crate::remote::RemoteUnit;

impl Planner<'_> {
    /// The tape that 10h, 11h or 12h moves.
    pub(super) fn tape(&mut self, checked: &Checked<'_>, cscd: &Cscd) -> Result<EndIndex, Sense> {
        match &cscd.unit {
            Unit::Tape(_) | Unit::RemoteTape(_) => Ok(self.end_of(cscd)),
            // "… as if an unreachable CSCD had been encountered."
            Unit::NullStream => Err(checked.abort(Sense::COPY_TARGET_DEVICE_NOT_REACHABLE)),
            Unit::Disk(_) | Unit::RemoteDisk(_) | Unit::NullBlock | Unit::Rod(_) => Err(checked.wrong_device(6)),
        }
    }

    /// Whole blocks of a source, and how many bytes they are.
    pub(super) fn block_source(
        &mut self,
        checked: &Checked<'_>,
        cscd: Option<&Cscd>,
        lba: Lba,
        blocks: u16,
    ) -> Result<(Source, u64), Sense> {
        let cscd = cscd.ok_or_else(|| checked.wrong_device(4))?;
        match &cscd.unit {
            Unit::NullBlock => {
                let end = self.end_of(cscd);
                Ok((Source::Blocks { end, at: 0 }, u64::from(blocks) * u64::from(NULL_BLOCK_LENGTH)))
            }
            unit => {
                let disk = Blocks::to_read(unit).ok_or_else(|| checked.wrong_device(4))?;
                let bytes = u64::from(blocks) * disk.unit;
                let at = disk.byte_of(lba).ok_or_else(|| checked.refused(CopyEnd::Source, out_of_range()))?;
                if !self.residue {
                    disk.within(at, bytes).ok_or_else(|| checked.refused(CopyEnd::Source, out_of_range()))?;
                }
                Ok((Source::Blocks { end: self.end_of(cscd), at }, bytes))
            }
        }
    }

    /// Whole blocks of a destination, and how many bytes they are.
    pub(super) fn block_destination(
        &mut self,
        checked: &mut Checked<'_>,
        cscd: &Cscd,
        lba: Lba,
        blocks: u16,
    ) -> Result<(Destination, u64), Sense> {
        match &cscd.unit {
            Unit::NullBlock => {
                let end = self.end_of(cscd);
                Ok((Destination::Blocks { end, at: 0 }, u64::from(blocks) * u64::from(NULL_BLOCK_LENGTH)))
            }
            unit => {
                let disk = Blocks::of(unit).ok_or_else(|| checked.wrong_device(6))?;
                let bytes = u64::from(blocks) * disk.unit;
                checked.notes.residual_unit = Some(disk.unit);
                let at = disk.byte_of(lba).and_then(|at| disk.within(at, bytes));
                let at = at.ok_or_else(|| checked.refused(CopyEnd::Destination, out_of_range()))?;
                Ok((Destination::Blocks { end: self.writable(checked, unit)?, at }, bytes))
            }
        }
    }

    pub(super) fn byte_source(
        &mut self,
        checked: &Checked<'_>,
        cscd: Option<&Cscd>,
        lba: Lba,
        offset: u16,
        bytes: u32,
    ) -> Result<Source, Sense> {
        let cscd = cscd.ok_or_else(|| checked.wrong_device(4))?;
        match &cscd.unit {
            Unit::NullBlock => Ok(Source::Bytes { end: self.end_of(cscd), at: 0, len: u64::from(bytes) }),
            unit => {
                let disk = Blocks::to_read(unit).ok_or_else(|| checked.wrong_device(4))?;
                let at = disk.byte_of(lba).and_then(|at| at.checked_add(u64::from(offset)));
                let at = at.and_then(|at| disk.within(at, u64::from(bytes)));
                let at = at.ok_or_else(|| checked.refused(CopyEnd::Source, out_of_range()))?;
                Ok(Source::Bytes { end: self.end_of(cscd), at, len: u64::from(bytes) })
            }
        }
    }

    pub(super) fn byte_destination(
        &mut self,
        checked: &mut Checked<'_>,
        cscd: &Cscd,
        lba: Lba,
        offset: u16,
        bytes: u32,
    ) -> Result<Destination, Sense> {
        match &cscd.unit {
            Unit::NullBlock => Ok(Destination::Bytes { end: self.end_of(cscd), at: 0 }),
            unit => {
                let disk = Blocks::of(unit).ok_or_else(|| checked.wrong_device(6))?;
                checked.notes.residual_unit = Some(disk.unit);
                let at = disk.byte_of(lba).and_then(|at| at.checked_add(u64::from(offset)));
                let at = at.and_then(|at| disk.within(at, u64::from(bytes)));
                let at = at.ok_or_else(|| checked.refused(CopyEnd::Destination, out_of_range()))?;
                Ok(Destination::Bytes { end: self.writable(checked, unit)?, at })
            }
        }
    }

    /// A disk as a destination.
    pub(super) fn writable(&mut self, checked: &Checked<'_>, unit: &Unit) -> Result<EndIndex, Sense> {
        let (protection, end) = match unit {
            Unit::Disk(disk) => (disk.write_protection(), PlannedEnd::Destination(Arc::clone(disk))),
            Unit::RemoteDisk(disk) => (protection(disk), PlannedEnd::Remote(Arc::clone(disk))),
            _ => return Err(checked.wrong_device(6)),
        };
        match protection {
            Some(sense) => Err(checked.refused(CopyEnd::Destination, sense)),
            None => Ok(self.plan.add(end)),
        }
    }

    pub(super) fn stream_source_of(
        &mut self,
        checked: &Checked<'_>,
        cscd: Option<&Cscd>,
        transfer_length: u32,
        field: u16,
        moves: bool,
    ) -> Result<Source, Sense> {
        let cscd = cscd.ok_or_else(|| checked.wrong_device(4))?;
        self.stream_source(checked, cscd, transfer_length, field, moves)
    }

    pub(super) fn stream_source(
        &mut self,
        checked: &Checked<'_>,
        cscd: &Cscd,
        transfer_length: u32,
        field: u16,
        moves: bool,
    ) -> Result<Source, Sense> {
        let transfer = transfer(checked, cscd, transfer_length, field, moves)?;
        if let Unit::Tape(tape) = &cscd.unit
            && let Some(sense) = tape.refuses_records_to_copies(&self.task.nexus)
        {
            return Err(checked.refused(CopyEnd::Source, sense));
        }
        match self.stream(cscd) {
            Some(end) => Ok(Source::Stream { end, transfer }),
            None => Err(checked.wrong_device(4)),
        }
    }

    pub(super) fn stream_destination(
        &mut self,
        checked: &mut Checked<'_>,
        cscd: &Cscd,
        transfer_length: u32,
        moves: bool,
    ) -> Result<Destination, Sense> {
        self.stream_destination_at(checked, cscd, transfer_length, 9, moves)
    }

    pub(super) fn stream_destination_at(
        &mut self,
        checked: &mut Checked<'_>,
        cscd: &Cscd,
        transfer_length: u32,
        field: u16,
        moves: bool,
    ) -> Result<Destination, Sense> {
        let transfer = transfer(checked, cscd, transfer_length, field, moves)?;
        checked.notes.residual_unit = Some(cscd.fixed.map_or(1, u64::from));
        if let Unit::Tape(tape) = &cscd.unit
            && let Some(sense) = tape.refuses_copied_records(&self.task.nexus)
        {
            return Err(checked.refused(CopyEnd::Destination, sense));
        }
        if let Unit::RemoteTape(tape) = &cscd.unit
            && let Some(sense) = protection(tape)
        {
            return Err(checked.refused(CopyEnd::Destination, sense));
        }
        match self.stream(cscd) {
            Some(end) => Ok(Destination::Stream { end, transfer }),
            None => Err(checked.wrong_device(6)),
        }
    }

    pub(super) fn stream(&mut self, cscd: &Cscd) -> Option<EndIndex> {
        match &cscd.unit {
            Unit::Tape(_) | Unit::RemoteTape(_) | Unit::NullStream => Some(self.end_of(cscd)),
            Unit::Disk(_) | Unit::RemoteDisk(_) | Unit::NullBlock | Unit::Rod(_) => None,
        }
    }

    /// The end that is read, or that is a stream.
    fn end_of(&mut self, cscd: &Cscd) -> EndIndex {
        let end = cscd.end.get().unwrap_or_else(|| self.plan.add(cscd.planned()));
        cscd.end.set(Some(end));
        end
    }

    /// 13h: both are tapes, and not the same.
    pub(super) fn tape_image(
        &mut self,
        checked: &Checked<'_>,
        source: Option<&Cscd>,
        destination: &Cscd,
        filemarks: u32,
    ) -> Result<Action, Sense> {
        let to = self.tape(checked, destination)?;
        for (cscd, end) in [(source, CopyEnd::Source), (Some(destination), CopyEnd::Destination)] {
            let Some(Unit::Tape(tape)) = cscd.map(|cscd| &cscd.unit) else { continue };
            let refusal = match end {
                CopyEnd::Source => tape.refuses_records_to_copies(&self.task.nexus),
                CopyEnd::Destination => tape.refuses_copied_records(&self.task.nexus),
            };
            if let Some(sense) = refusal {
                return Err(checked.refused(end, sense));
            }
        }
        let source = source.ok_or_else(|| checked.wrong_device(4))?;
        let from = match &source.unit {
            Unit::Tape(_) | Unit::RemoteTape(_) => self.end_of(source),
            Unit::NullStream => return Err(checked.abort(Sense::COPY_TARGET_DEVICE_NOT_REACHABLE)),
            _ => return Err(checked.wrong_device(4)),
        };
        // One drive cannot stand at two places.
        if from == to { Err(checked.wrong_device(6)) } else { Ok(Action::TapeImage { from, to, filemarks }) }
    }

    /// 16h: as many blocks as are asked for and as both disks have. Neither has protection information.
    pub(super) fn block_image(
        &mut self,
        checked: &mut Checked<'_>,
        (source, destination): (Option<&Cscd>, &Cscd),
        (from, to): (Lba, Lba),
        blocks: u64,
    ) -> Result<Action, Sense> {
        let source = source.ok_or_else(|| checked.wrong_device(4))?;
        if [source, destination].into_iter().any(|cscd| matches!(cscd.unit, Unit::NullBlock)) {
            return Err(checked.abort(Sense::COPY_TARGET_DEVICE_NOT_REACHABLE));
        }
        let from_disk = Blocks::to_read(&source.unit).ok_or_else(|| checked.wrong_device(4))?;
        let to_disk = Blocks::of(&destination.unit).ok_or_else(|| checked.wrong_device(6))?;
        if from_disk.unit != to_disk.unit {
            return Err(checked.abort(Sense::INCORRECT_COPY_TARGET_DEVICE_TYPE));
        }
        let rest = |disk: &Blocks, lba: Lba| (disk.size / disk.unit).checked_sub(lba.0).filter(|rest| *rest > 0);
        let readable = rest(&from_disk, from).ok_or_else(|| checked.refused(CopyEnd::Source, out_of_range()))?;
        let room = rest(&to_disk, to).ok_or_else(|| checked.refused(CopyEnd::Destination, out_of_range()))?;
        let wanted = if blocks == 0 { u64::MAX } else { blocks };
        let unit = from_disk.unit;
        checked.notes.residual_unit = Some(unit);
        Ok(Action::BlockImage {
            from: self.end_of(source),
            from_at: from.0 * unit,
            to: self.writable(checked, &destination.unit)?,
            to_at: to.0 * unit,
            len: wanted.min(readable).min(room) * unit,
        })
    }
}

/// How large a disk is, wherever it is.
struct Blocks {
    /// Bytes a block.
    unit: u64,
    /// Bytes of the disk.
    size: u64,
}

impl Blocks {
    fn of(unit: &Unit) -> Option<Self> {
        match unit {
            Unit::Disk(disk) => {
                let unit = disk.block_length().bytes();
                Some(Self { unit, size: disk.capacity().0 * unit })
            }
            Unit::RemoteDisk(disk) => match disk.kind {
                RemoteKind::Disk { block_length, len } => Some(Self { unit: u64::from(block_length), size: len }),
                RemoteKind::Tape => None,
            },
            _ => None,
        }
    }

    /// Of a disk or a ROD as a source.
    fn to_read(unit: &Unit) -> Option<Self> {
        match unit {
            Unit::Rod(rod) => Some(Self { unit: rod.block_length, size: rod.size }),
            unit => Self::of(unit),
        }
    }

    /// First byte of a block that may also be the one behind the last.
    fn byte_of(&self, lba: Lba) -> Option<u64> {
        lba.0.checked_mul(self.unit)
    }

    /// `at`, when `len` bytes from there on lie on the disk.
    fn within(&self, at: u64, len: u64) -> Option<u64> {
        at.checked_add(len).filter(|end| *end <= self.size).map(|_| at)
    }
}

/// What the configuration keeps from being written is write-protected.
fn protection(unit: &RemoteUnit) -> Option<Sense> {
    (!unit.writable).then_some(Sense::WRITE_PROTECTED)
}

/// Table "Stream device transfer lengths". A length of zero moves nothing, so it goes only where nothing is to be moved.
fn transfer(checked: &Checked<'_>, cscd: &Cscd, length: u32, field: u16, moves: bool) -> Result<Transfer, Sense> {
    let transfer = match cscd.fixed {
        Some(record) => Transfer { record, records: length, fixed: true },
        None => Transfer { record: length, records: 1, fixed: false },
    };
    let too_long = transfer.bytes() > u64::from(MAX_STREAM_TRANSFER) || transfer.records > MAX_TRANSFER_RECORDS;
    if too_long || (moves && length == 0) {
        return Err(checked.invalid(field));
    }
    Ok(transfer)
}

const fn out_of_range() -> Sense {
    Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
}

/// A null logical unit has no block length of its own.
const NULL_BLOCK_LENGTH: u32 = 512;

pub(super) const fn null_block() -> End {
    End::NullBlock { block_length: NULL_BLOCK_LENGTH }
}
