//! Commands that move blocks, compare them, or see to it that they are on the medium.
//!
//! A READ of what the page cache holds is answered at once; all else goes to a thread that may block. Follows SBC-4.

use std::sync::Arc;

use bytes::Bytes;
use protocol::scsi::sbc::Extent;
use protocol::scsi::{CommandSpec, FieldPointer, Sense, Status};
use protocol::units::{BlockCount, ByteRange};

use super::{Disk, fault};
use crate::buffers;
use crate::lun::common::{Reply, answer};
use crate::task::{Execution, Response, Task};
use crate::volume::Admission;

/// Up to this size a READ or WRITE is tried without a thread: copying it takes about as long as the way to a thread and back, and
/// leaves the bytes where the processor that sends them has them at hand.
pub(super) const AT_ONCE_MAX: u64 = 1 << 20;

/// From this size on a READ is answered with the place of its blocks. Below, finding out whether they are there costs as much as
/// copying them.
const IN_PLACE_MIN: u64 = 32 * 1024;

/// The page cache's page.
pub(super) const PAGE: u64 = 4096;

/// What is read at once where nothing has to be kept.
const PIECE: u64 = 1 << 20;

pub(super) fn read(disk: &Arc<Disk>, task: Task, spec: &'static CommandSpec) -> Execution {
    match disk.transferred(&task, &Extent::of(&task.cdb)) {
        Err(sense) => Execution::Done(answer(spec, Err(sense))),
        Ok(range) => start_read(disk, range, &task, spec),
    }
}

/// Reads no more blocks than the initiator has room for: what a session lets run at once is counted by that.
fn start_read(disk: &Arc<Disk>, range: ByteRange, task: &Task, spec: &'static CommandSpec) -> Execution {
    let block = disk.block_length.bytes();
    let len = range.len.min(task.data_in_limit.div_ceil(block).saturating_mul(block));
    if task.in_place
        && let Some(response) = in_place(disk, ByteRange { len, ..range })
    {
        return Execution::Done(Response { transfer_length: Some(range.len), ..response });
    }
    let response = move |data_in| Response { data_in, transfer_length: Some(range.len), ..Response::good() };
    let at = move |offset: usize| range.start + offset as u64;
    if len <= AT_ONCE_MAX {
        // An error is met again, and reported, by the read that may block.
        let store = disk.volume.store();
        if let Some(count) = disk.atomic_writes.now()
            && let Ok(Some(data)) = buffers::filled(len as usize, |offset, into| store.read_now(at(offset), into))
            && disk.atomic_writes.is_still(count)
        {
            return Execution::Done(response(data));
        }
    }
    disk.blocking(spec, move |disk| {
        let store = disk.volume.store();
        let data =
            disk.read_whole(|| buffers::filled(len as usize, |offset, into| store.read_at(at(offset), into).map(|()| true)));
        Ok(response(data.map_err(|error| fault::on_read(&error))?.unwrap_or_default()))
    })
}

/// The answer to a READ with its blocks left where they lie: `None` when they have to be read.
fn in_place(disk: &Disk, range: ByteRange) -> Option<Response> {
    if range.len < IN_PLACE_MIN || !range.len.is_multiple_of(PAGE) {
        return None;
    }
    let mapping = disk.volume.store().mapping()?;
    let data = mapping.piece(range.start, range.len as usize, disk.atomic_writes.none_until_sent()?)?;
    Some(Response { in_place: Some(mapping), ..Response::data(data) })
}

pub(super) fn write(disk: &Arc<Disk>, task: Task, spec: &'static CommandSpec) -> Execution {
    let extent = Extent::of(&task.cdb);
    match disk.transferred(&task, &extent) {
        Err(sense) => Execution::Done(answer(spec, Err(sense))),
        Ok(range) if range.len == 0 => Execution::Done(Response::good()),
        Ok(range) if ends_inside_a_block(disk, &task, range) => Execution::Done(torn(range)),
        Ok(range) => start_write(disk, task, spec, range, range.len),
    }
}

/// Writes Data-Out to `range`, the last or only part of the `moved_by_cdb` bytes that the command moves.
pub(super) fn start_write(
    disk: &Arc<Disk>,
    task: Task,
    spec: &'static CommandSpec,
    range: ByteRange,
    moved_by_cdb: u64,
) -> Execution {
    let force_unit_access = Extent::of(&task.cdb).force_unit_access();
    let work = move |disk: &Disk, task: &Task, admission: &Admission| {
        write_blocks(disk, task, admission, range)?;
        Ok(moved(moved_by_cdb))
    };
    if !force_unit_access && disk.write_cache() && writes_at_once(disk, range) && disk.volume.is_kept(range) {
        return disk.change_at_once(spec, task, work);
    }
    disk.change(spec, task, force_unit_access, work)
}

/// True when fewer bytes came than the CDB says, and no whole blocks: the last one could only be mixed from old and new.
fn ends_inside_a_block(disk: &Disk, task: &Task, range: ByteRange) -> bool {
    let came = task.data_out_len();
    came < range.len && !came.is_multiple_of(disk.block_length.bytes())
}

/// The refusal of such a write, with its residual. FCP-4, "FCP_DL", which RFC 7143 leaves to SCSI.
fn torn(range: ByteRange) -> Response {
    Response { transfer_length: Some(range.len), ..Sense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT.into() }
}

/// Whether bytes can be written without waiting, as far as can be told: whole pages, which nothing has to be read for.
pub(super) fn writes_at_once(disk: &Disk, range: ByteRange) -> bool {
    let whole_pages = range.start.is_multiple_of(PAGE) && range.len.is_multiple_of(PAGE);
    whole_pages && range.len <= AT_ONCE_MAX && disk.volume.writes_at_once()
}

/// Writes what came: an initiator that sends fewer bytes than its CDB says gets its whole blocks written, and a residual.
fn write_blocks(disk: &Disk, task: &Task, admission: &Admission, range: ByteRange) -> Result<u64, Sense> {
    let whole = task.data_out_len().min(range.len) / disk.block_length.bytes() * disk.block_length.bytes();
    let data = first_bytes(&task.data_out, whole);
    let _writing = disk.writers.read().expect("no writer panics");
    disk.volume.write_at(admission, range.start, &data).map_err(|error| fault::on_write(&error))?;
    Ok(whole)
}

/// The first `len` bytes of several pieces, without a copy.
fn first_bytes(parts: &[Bytes], mut len: u64) -> Vec<Bytes> {
    let mut taken = Vec::with_capacity(parts.len());
    for part in parts {
        let bytes = len.min(part.len() as u64);
        if bytes != 0 {
            taken.push(part.slice(..bytes as usize));
        }
        len -= bytes;
    }
    taken
}

/// GOOD for a command that by its CDB takes `bytes` of Data-Out.
pub(super) fn moved(bytes: u64) -> Response {
    Response { transfer_length: Some(bytes), ..Response::good() }
}

/// BYTCHK 00b and 01b write and verify; what differs is how well, and here both compare.
pub(super) fn write_and_verify(disk: &Arc<Disk>, task: Task, spec: &'static CommandSpec) -> Execution {
    let extent = Extent::of(&task.cdb);
    let range = match byte_check_of(&extent, &[0, 1]).and_then(|_| disk.transferred(&task, &extent)) {
        Ok(range) if range.len == 0 => return Execution::Done(Response::good()),
        Ok(range) if ends_inside_a_block(disk, &task, range) => return Execution::Done(torn(range)),
        Ok(range) => range,
        Err(sense) => return Execution::Done(answer(spec, Err(sense))),
    };
    disk.change(spec, task, true, move |disk, task, admission| {
        let written = write_blocks(disk, task, admission, range)?;
        compare(disk, ByteRange { len: written, ..range }, &first_bytes(&task.data_out, written))?;
        Ok(moved(range.len))
    })
}

/// BYTCHK 00b reads the blocks, 01b compares them with as many, 11b compares each with one.
pub(super) fn verify(disk: &Disk, task: &Task) -> Reply {
    let extent = Extent::of(&task.cdb);
    let byte_check = byte_check_of(&extent, &[0, 1, 3])?;
    let range = disk.transferred(task, &extent)?;
    match byte_check {
        0 => {
            read_through(disk, range)?;
            Ok(moved(0))
        }
        1 => {
            let came = task.data_out_len().min(range.len);
            let data = first_bytes(&task.data_out, came);
            disk.read_whole(|| compare(disk, ByteRange { len: came, ..range }, &data))?;
            Ok(moved(range.len))
        }
        _ => {
            let block = one_block(disk, task)?;
            let pattern = vec![block; extent.blocks.0 as usize];
            disk.read_whole(|| compare(disk, range, &pattern))?;
            Ok(moved(disk.block_length.bytes()))
        }
    }
}

/// The BYTCHK of a command that knows the values `served`.
fn byte_check_of(extent: &Extent, served: &[u8]) -> Result<u8, Sense> {
    let byte_check = extent.byte_check();
    match served.contains(&byte_check) {
        true => Ok(byte_check),
        false => Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 2))),
    }
}

/// The one block of Data-Out of a command that repeats it.
///
/// # Errors
/// INVALID FIELD IN CDB where another number of bytes came.
pub(super) fn one_block(disk: &Disk, task: &Task) -> Result<Bytes, Sense> {
    if task.data_out_len() != disk.block_length.bytes() {
        return Err(Sense::INVALID_FIELD_IN_CDB);
    }
    Ok(task.parameter_list())
}

/// MISCOMPARE where the blocks of `range` are not `data`; INFORMATION is the first byte of the data that differs.
pub(super) fn compare(disk: &Disk, range: ByteRange, data: &[Bytes]) -> Result<(), Sense> {
    let mut at = range.start;
    let mut stored = vec![0; PIECE.min(range.len) as usize];
    for piece in data.iter().flat_map(|part| part.chunks(PIECE as usize)) {
        let stored = &mut stored[..piece.len()];
        disk.volume.store().read_at(at, stored).map_err(|error| fault::on_read(&error))?;
        if let Some(differs) = stored.iter().zip(piece).position(|(stored, wanted)| stored != wanted) {
            let offset = at - range.start + differs as u64;
            return Err(Sense::MISCOMPARE_DURING_VERIFY_OPERATION.with_information(offset));
        }
        at += piece.len() as u64;
    }
    Ok(())
}

fn read_through(disk: &Disk, range: ByteRange) -> Result<(), Sense> {
    let mut piece = vec![0; PIECE.min(range.len) as usize];
    let mut at = range.start;
    while at < range.end() {
        let len = PIECE.min(range.end() - at);
        disk.volume.store().read_at(at, &mut piece[..len as usize]).map_err(|error| fault::on_read(&error))?;
        at += len;
    }
    Ok(())
}

/// Flushes everything: a file has no flush of a range that also covers its length and its holes. IMMED is taken and waits all the
/// same: the status then says more than it would have to.
pub(super) fn synchronize_cache(disk: &Disk, task: &Task) -> Reply {
    disk.addressed(task, &Extent::of(&task.cdb))?;
    disk.volume.sync().map_err(|error| fault::on_write(&error))?;
    Ok(Response::good())
}

/// Reads the blocks into the page cache: CONDITION MET when all fit what one command may move, GOOD when only the first did.
/// Zero blocks mean all up to the end.
pub(super) fn pre_fetch(disk: &Disk, task: &Task) -> Reply {
    let extent = Extent::of(&task.cdb);
    let mut range = disk.addressed(task, &extent)?;
    if extent.blocks == BlockCount(0) {
        range.len = disk.capacity().0 * disk.block_length.bytes() - range.start;
    }
    let fits = range.len <= super::TRANSFER_MAX;
    read_through(disk, ByteRange { len: range.len.min(super::TRANSFER_MAX), ..range })?;
    Ok(Response::status(if fits { Status::ConditionMet } else { Status::Good }))
}
