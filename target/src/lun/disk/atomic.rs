//! Commands that read, decide and write as one step, and the write that is all or nothing.
//!
//! One step against all other commands to the LUN, whose writers wait meanwhile; not against a mover, which reads and writes only what
//! a copy names. A READ or VERIFY sees all of an atomic write or nothing: it goes on beside one, and begins again if one came between.
//! Follows SBC-4, "COMPARE AND WRITE command",
//! "ORWRITE(16) command" and "Atomic write operations".

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use protocol::scsi::sbc::{self, Extent};
use protocol::scsi::{CommandSpec, Sense};
use protocol::units::ByteRange;

use super::journal::ATOMIC_MAX;
use super::transfer::{compare, moved};
use super::{Disk, fault};
use crate::lun::common::answer;
use crate::task::{Execution, Response, Task};
use crate::volume::Admission;

/// How often an atomic write looks whether the blocks of older READs have been sent.
const IN_PLACE_PAUSE: Duration = Duration::from_micros(200);

/// Counts the beginnings and the ends of atomic writes, so that a READ costs no lock while there are none.
#[derive(Debug, Default)]
pub(super) struct AtomicWrites {
    count: AtomicU64,
    /// One more for each READ whose blocks are still to be sent from where they lie.
    in_place: Arc<()>,
}

impl AtomicWrites {
    /// Until the end of what `write` does, blocks may be torn. One at a time: the caller has the disk's writers locked.
    pub(super) fn torn<T>(&self, write: impl FnOnce() -> T) -> T {
        self.count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // New ones see the count; what a slow initiator leaves waiting is replaced soon.
        while Arc::strong_count(&self.in_place) > 1 {
            thread::sleep(IN_PLACE_PAUSE);
        }
        let done = write();
        self.count.fetch_add(1, Ordering::SeqCst);
        done
    }

    /// Keeps atomic writes from beginning until it is dropped; `None` while there is one.
    pub(super) fn none_until_sent(&self) -> Option<Arc<()>> {
        let claim = Arc::clone(&self.in_place);
        fence(Ordering::SeqCst);
        self.now().map(|_| claim)
    }

    /// What [`AtomicWrites::is_still`] takes; `None` while blocks may be torn.
    pub(super) fn now(&self) -> Option<u64> {
        Some(self.count.load(Ordering::SeqCst)).filter(|count| count.is_multiple_of(2))
    }

    /// True when what was read since [`AtomicWrites::now`] is whole.
    pub(super) fn is_still(&self, count: u64) -> bool {
        fence(Ordering::SeqCst);
        self.count.load(Ordering::SeqCst) == count
    }
}

impl Disk {
    /// Blocks. Reads blocks of which no atomic write shows a part.
    pub(super) fn read_whole<T>(&self, mut read: impl FnMut() -> T) -> T {
        if let Some(count) = self.atomic_writes.now() {
            let got = read();
            if self.atomic_writes.is_still(count) {
                return got;
            }
        }
        let _no_atomic_write = self.writers.read().expect("no writer panics");
        read()
    }
}

/// MAXIMUM COMPARE AND WRITE LENGTH, in blocks.
pub(super) const COMPARE_AND_WRITE_MAX: u8 = 128;

/// Data-Out is what to compare with, then what to write.
pub(super) fn compare_and_write(disk: &Arc<Disk>, task: Task) -> Execution {
    const SPEC: &CommandSpec = &sbc::COMPARE_AND_WRITE;
    let extent = Extent::of(&task.cdb);
    let range = match compare_and_write_range(disk, &task, &extent) {
        Ok(range) if range.len == 0 => return Execution::Done(Response::good()),
        Ok(range) => range,
        Err(sense) => return Execution::Done(answer(SPEC, Err(sense))),
    };
    disk.change(SPEC, task, extent.force_unit_access(), move |disk, task, admission| {
        let data = task.parameter_list();
        let (wanted, new) = (data.slice(..range.len as usize), data.slice(range.len as usize..2 * range.len as usize));
        let _alone = disk.writers.write().expect("no writer panics");
        compare(disk, range, &[wanted])?;
        disk.volume.write_at(admission, range.start, &[new]).map_err(|error| fault::on_write(&error))?;
        Ok(moved(2 * range.len))
    })
}

fn compare_and_write_range(disk: &Disk, task: &Task, extent: &Extent) -> Result<ByteRange, Sense> {
    if extent.blocks.0 > COMPARE_AND_WRITE_MAX.into() {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(extent.count_field()));
    }
    let range = disk.transferred(task, extent)?;
    match task.data_out_len() == 2 * range.len {
        true => Ok(range),
        // Where the two halves lie would be a guess.
        false => Err(Sense::INVALID_FIELD_IN_CDB.at(extent.count_field())),
    }
}

/// All or nothing, also against `kill -9` and power loss: by way of the journal, and so synced before its status.
pub(super) fn write_atomic(disk: &Arc<Disk>, task: Task) -> Execution {
    const SPEC: &CommandSpec = &sbc::WRITE_ATOMIC_16;
    let extent = Extent::of(&task.cdb);
    let range = match write_atomic_range(disk, &task, &extent) {
        Ok(range) if range.len == 0 => return Execution::Done(Response::good()),
        Ok(range) => range,
        Err(sense) => return Execution::Done(answer(SPEC, Err(sense))),
    };
    disk.change(SPEC, task, false, move |disk, task, admission| {
        let data = task.parameter_list().slice(..range.len as usize);
        let _alone = disk.writers.write().expect("no writer panics");
        journaled(disk, admission, range, data).map_err(|error| fault::on_write(&error))?;
        Ok(moved(range.len))
    })
}

fn write_atomic_range(disk: &Disk, task: &Task, extent: &Extent) -> Result<ByteRange, Sense> {
    let range = disk.transferred(task, extent)?;
    // Fewer bytes than the CDB says would be half a write.
    if range.len > ATOMIC_MAX || task.data_out_len() < range.len {
        return Err(Sense::INVALID_FIELD_IN_CDB.at(extent.count_field()));
    }
    Ok(range)
}

fn journaled(disk: &Disk, admission: &Admission, range: ByteRange, data: Bytes) -> io::Result<()> {
    let Some(journal) = &disk.journal else { return Err(io::ErrorKind::Unsupported.into()) };
    let mut before = vec![0; range.len as usize];
    disk.volume.store().read_at(range.start, &mut before)?;
    let entry = journal.enter(range.start, &data)?;
    let write = |data| disk.volume.write_at(admission, range.start, &[data]).and_then(|()| disk.volume.sync());
    let written = disk.atomic_writes.torn(|| {
        // Nothing of it may be left if it fails, as far as a failing disk lets that be done.
        write(data).inspect_err(|_| drop(write(before.into())))
    });
    written.and(entry.end())
}

/// Data-Out is ORed into the blocks.
pub(super) fn orwrite(disk: &Arc<Disk>, task: Task) -> Execution {
    const SPEC: &CommandSpec = &sbc::ORWRITE_16;
    let extent = Extent::of(&task.cdb);
    let too_short = Sense::INVALID_FIELD_IN_CDB.at(extent.count_field());
    let range = match disk.transferred(&task, &extent) {
        Ok(range) if range.len == 0 => return Execution::Done(Response::good()),
        Ok(range) if task.data_out_len() < range.len => return Execution::Done(answer(SPEC, Err(too_short))),
        Ok(range) => range,
        Err(sense) => return Execution::Done(answer(SPEC, Err(sense))),
    };
    disk.change(SPEC, task, extent.force_unit_access(), move |disk, task, admission| {
        let mut blocks = vec![0; range.len as usize];
        let _alone = disk.writers.write().expect("no writer panics");
        disk.volume.store().read_at(range.start, &mut blocks).map_err(|error| fault::on_read(&error))?;
        let bits = task.data_out.iter().flat_map(|part| part.iter());
        blocks.iter_mut().zip(bits).for_each(|(block, bits)| *block |= bits);
        disk.volume.write_at(admission, range.start, &[Bytes::from(blocks)]).map_err(|error| fault::on_write(&error))?;
        Ok(moved(range.len))
    })
}
