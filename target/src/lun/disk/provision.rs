//! Commands about which blocks are there: UNMAP, WRITE SAME, GET LBA STATUS.
//!
//! An unmapped block reads as zeros (LBPRZ). Follows SBC-4, "Logical block provisioning".

use std::sync::Arc;

use bytes::Bytes;
use protocol::scsi::sbc::{self, Extent, LbaStatus, UnmapCdb};
use protocol::scsi::{CommandSpec, FieldPointer, Sense};
use protocol::units::{BlockCount, ByteRange, Lba};

use super::transfer::{moved, one_block};
use super::{Disk, fault};
use crate::lun::common::{Reply, answer, data_in, parameter_list};
use crate::store::Allocation;
use crate::task::{Execution, Response, Task};
use crate::volume::Admission;

/// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
pub(super) const UNMAP_DESCRIPTORS_MAX: u32 = 256;
/// MAXIMUM UNMAP LBA COUNT and MAXIMUM WRITE SAME LENGTH, in bytes: what a command may change while a hold waits for it.
pub(super) const CHANGE_MAX: u64 = 256 << 20;
/// Descriptors in one answer of GET LBA STATUS: the initiator asks on from where the last one ends.
const LBA_STATUS_MAX: usize = 256;
/// A block repeated up to this size is written at once.
const PATTERN: u64 = 1 << 20;

pub(super) fn unmap(disk: &Arc<Disk>, task: Task) -> Execution {
    let ranges = match unmap_ranges(disk, &task) {
        Ok(ranges) if ranges.is_empty() => return Execution::Done(Response::good()),
        Ok(ranges) => ranges,
        Err(sense) => return Execution::Done(answer(&sbc::UNMAP, Err(sense))),
    };
    disk.change(&sbc::UNMAP, task, false, move |disk, _, admission| {
        let _writing = disk.writers.read().expect("no writer panics");
        for range in ranges {
            disk.volume.deallocate(admission, range).map_err(|error| fault::on_write(&error))?;
        }
        Ok(Response::good())
    })
}

/// All checked before the first is unmapped.
fn unmap_ranges(disk: &Disk, task: &Task) -> Result<Vec<ByteRange>, Sense> {
    let length = usize::from(task.cdb.read::<UnmapCdb>().parameter_list_length.get());
    if length == 0 {
        return Ok(Vec::new());
    }
    let list = parameter_list(task, length)?;
    let blocks_max = CHANGE_MAX / disk.block_length.bytes();
    let ranges = sbc::unmap_ranges(&list, UNMAP_DESCRIPTORS_MAX as usize, blocks_max)?;
    let checked = ranges.into_iter().map(|(lba, blocks, at)| {
        let field = FieldPointer::parameter(at);
        disk.range_of(lba, blocks).ok_or(Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(field))
    });
    checked.filter(|range| !matches!(range, Ok(range) if range.len == 0)).collect()
}

pub(super) fn write_same(disk: &Arc<Disk>, task: Task, spec: &'static CommandSpec) -> Execution {
    let extent = Extent::of(&task.cdb);
    let (range, block) = match write_same_parts(disk, &task, &extent) {
        Ok(parts) => parts,
        Err(sense) => return Execution::Done(answer(spec, Err(sense))),
    };
    disk.change(spec, task, false, move |disk, task, admission| {
        let _writing = disk.writers.read().expect("no writer panics");
        // UNMAP may unmap only what then reads as the block that was sent.
        if extent.unmap() && block.iter().all(|byte| *byte == 0) {
            disk.volume.deallocate(admission, range).map_err(|error| fault::on_write(&error))?;
        } else {
            repeat(disk, admission, range, &block)?;
        }
        Ok(moved(task.data_out_len()))
    })
}

fn write_same_parts(disk: &Disk, task: &Task, extent: &Extent) -> Result<(ByteRange, Bytes), Sense> {
    let mut range = disk.addressed(task, extent)?;
    // WSNZ is clear: zero means up to the end.
    if extent.blocks == BlockCount(0) {
        range.len = disk.capacity().0 * disk.block_length.bytes() - range.start;
        if range.len == 0 {
            return Err(Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::cdb(2)));
        }
    }
    if range.len > CHANGE_MAX {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(extent.count_field()));
    }
    // Bit 0 is NDOB in the command of sixteen bytes and refused by the usage mask in the other.
    let block = match extent.no_data_out_buffer() {
        true => Bytes::from(vec![0; disk.block_length.0 as usize]),
        false => one_block(disk, task)?,
    };
    Ok((range, block))
}

fn repeat(disk: &Disk, admission: &Admission, range: ByteRange, block: &Bytes) -> Result<(), Sense> {
    let times = PATTERN.min(range.len) / disk.block_length.bytes();
    let pattern = Bytes::from(block.repeat(times as usize));
    let mut at = range.start;
    while at < range.end() {
        let part = pattern.slice(..(pattern.len() as u64).min(range.end() - at) as usize);
        let len = part.len() as u64;
        disk.volume.write_at(admission, at, &[part]).map_err(|error| fault::on_write(&error))?;
        at += len;
    }
    Ok(())
}

pub(super) fn get_lba_status(disk: &Disk, task: &Task) -> Reply {
    let cdb: sbc::ServiceActionIn16Cdb = task.cdb.read();
    let lba = Lba(cdb.logical_block_address.get());
    let capacity = disk.capacity();
    let blocks = capacity.0.checked_sub(lba.0).filter(|blocks| *blocks != 0);
    let beyond = Sense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.at(FieldPointer::cdb(2));
    let range = blocks.and_then(|blocks| disk.range_of(lba, BlockCount(blocks))).ok_or(beyond)?;
    // A descriptor takes sixteen bytes behind a header of eight; one is given however short the allocation length.
    let room = (cdb.allocation_length.get() as usize).saturating_sub(8) / 16;
    let limit = room.clamp(1, LBA_STATUS_MAX);
    let allocation = disk.volume.store().allocation(range, limit).map_err(|error| fault::on_read(&error))?;
    Ok(data_in(sbc::get_lba_status(&whole_blocks(&allocation, disk.block_length.bytes())), cdb.allocation_length.get()))
}

/// A block with an allocated byte counts as mapped: holes shrink to whole blocks, and neighbours of a kind become one.
fn whole_blocks(allocation: &[Allocation], block_length: u64) -> Vec<LbaStatus> {
    let mut statuses: Vec<LbaStatus> = Vec::new();
    for run in allocation {
        let (start, end) = match run.allocated {
            true => (run.range.start / block_length, run.range.end().div_ceil(block_length)),
            false => (run.range.start.div_ceil(block_length), run.range.end() / block_length),
        };
        // The block that the run before has taken is not told again.
        let start = statuses.last().map_or(start, |last| start.max(last.lba.0 + last.blocks.0));
        if start >= end {
            continue;
        }
        match statuses.last_mut() {
            Some(last) if last.mapped == run.allocated && last.lba.0 + last.blocks.0 == start => last.blocks.0 += end - start,
            _ => statuses.push(LbaStatus { lba: Lba(start), blocks: BlockCount(end - start), mapped: run.allocated }),
        }
    }
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_that_begins_inside_a_block_begins_with_the_next_one() {
        let run = |start, len, allocated| Allocation { range: ByteRange { start, len }, allocated };
        let statuses = whole_blocks(&[run(0, 4608, true), run(4608, 7680, false), run(12288, 512, true)], 4096);
        let status = |lba, blocks, mapped| LbaStatus { lba: Lba(lba), blocks: BlockCount(blocks), mapped };
        assert_eq!(statuses, [status(0, 2, true), status(2, 1, false), status(3, 1, true)]);
    }
}
