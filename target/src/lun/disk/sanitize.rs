//! SANITIZE: BLOCK ERASE, OVERWRITE and EXIT FAILURE MODE.
//!
//! What is erased or overwritten is every block of the store; what a file system, a snapshot of it or a solid state drive below keeps
//! of former contents is out of reach, and so CRYPTO ERASE is not served. Once begun it goes on through aborts, resets and the loss
//! of the nexus. None begins beside a copy that reads or writes the disk, and no such copy beside it; tokens of the disk are cancelled
//! and leases of its views end, since both keep what is to be gone. A snapshot that somebody asked for keeps it too: while there is one,
//! nothing begins. A target that ends meanwhile, by `kill -9` too, comes back in failure mode: nobody reads half-sanitized blocks.
//! Follows SBC-4, "Sanitize operations" and "SANITIZE command".

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::scsi::sbc::{self, OverwriteList, SanitizeCdb};
use protocol::scsi::{CommandSpec, FieldPointer, Sense, Status, spc};
use protocol::units::ByteRange;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, info};

use super::{Disk, fault};
use crate::lun::common::{Kept, Reply, answer, parameter_list};
use crate::task::{Execution, Response, Task};
use crate::volume::Admission;

/// What is erased or overwritten at once.
const PIECE: u64 = 1 << 20;
/// The shortest pause between pieces. The pauses are as long as the work: other logical units want their share of the disk.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);

const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const FAILED: u8 = 2;

/// What a disk knows of its sanitize operation.
#[derive(Debug, Default)]
pub(super) struct Sanitizing {
    /// [`IDLE`], [`RUNNING`] or [`FAILED`]: every command looks at it.
    phase: AtomicU8,
    /// PROGRESS INDICATION, of 65,536.
    progress: AtomicU16,
    record: Mutex<Option<Record>>,
    /// Copies that have the disk open. Locked while `phase` turns to [`RUNNING`].
    copies: Mutex<usize>,
    kept: Option<Kept>,
}

/// A copy that reads or writes a disk, or reads what it was, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Copying {
    disk: Arc<Disk>,
}

impl Drop for Copying {
    fn drop(&mut self) {
        *self.disk.sanitizing.copies() -= 1;
    }
}

impl Disk {
    /// Lets a copy have the disk: no sanitize operation begins before it ends.
    ///
    /// # Errors
    /// Why it may not: the medium is ejected, or a sanitize operation runs or has failed.
    pub fn begin_copy(self: &Arc<Self>) -> Result<Copying, Sense> {
        self.absence().map_or(Ok(()), Err)?;
        self.begin_copy_of_view()
    }

    /// The same for a copy that reads a view of the disk.
    ///
    /// # Errors
    /// A sanitize operation runs or has failed.
    pub fn begin_copy_of_view(self: &Arc<Self>) -> Result<Copying, Sense> {
        let mut copies = self.sanitizing.copies();
        self.sanitizing.refuses(&spc::EXTENDED_COPY).map_or(Ok(()), Err)?;
        *copies += 1;
        Ok(Copying { disk: Arc::clone(self) })
    }

    /// What was kept of the disk for copies is to be had no more.
    pub(super) fn cancel_views(&self) {
        if let Some(copy) = &self.common.copy {
            copy.cancel_views(std::ptr::from_ref(&self.common).addr());
        }
    }
}

/// Kept from before the first block is changed until all is done: one that is found at a start tells of an operation that was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// AUSE: EXIT FAILURE MODE may end the failure mode.
    unrestricted: bool,
}

/// What is done to the blocks.
#[derive(Debug, Clone)]
enum Work {
    Erase,
    Overwrite(OverwriteList),
}

impl Sanitizing {
    /// Takes up what an earlier life left.
    pub(super) fn new(kept: Option<Kept>) -> Self {
        let record = match kept.as_ref().map(Kept::load) {
            Some(Ok(record)) => record,
            // Something was written there: no block is shown before somebody sanitizes anew.
            Some(Err(error)) => {
                error!(%error, "the record of a sanitize operation cannot be read");
                Some(Record { unrestricted: false })
            }
            None => None,
        };
        let phase = AtomicU8::new(if record.is_some() { FAILED } else { IDLE });
        Self { phase, progress: AtomicU16::new(0), record: Mutex::new(record), copies: Mutex::default(), kept }
    }

    /// Why a command is refused now, if so.
    pub(super) fn refuses(&self, spec: &CommandSpec) -> Option<Sense> {
        match self.phase.load(Ordering::Acquire) {
            RUNNING if !passes(spec) => Some(self.in_progress()),
            FAILED if !passes(spec) && spec.opcode != sbc::SANITIZE_BLOCK_ERASE.opcode => Some(Sense::SANITIZE_COMMAND_FAILED),
            _ => None,
        }
    }

    /// What REQUEST SENSE tells.
    pub(super) fn condition(&self) -> Option<Sense> {
        match self.phase.load(Ordering::Acquire) {
            RUNNING => Some(self.in_progress()),
            FAILED => Some(Sense::SANITIZE_COMMAND_FAILED),
            _ => None,
        }
    }

    fn in_progress(&self) -> Sense {
        Sense::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS.with_progress(self.progress.load(Ordering::Relaxed))
    }

    /// Keeps copies and other sanitize operations out. False when one of them is there.
    fn enter(&self) -> bool {
        let copies = self.copies();
        let enters = *copies == 0 && self.phase.load(Ordering::Acquire) != RUNNING;
        if enters {
            self.progress.store(0, Ordering::Relaxed);
            self.phase.store(RUNNING, Ordering::Release);
        }
        enters
    }

    /// Blocks. Records that an operation has begun; without the record none has.
    fn begin(&self, record: Record) -> io::Result<()> {
        let mut current = self.record();
        if let Some(Err(error)) = self.kept.as_ref().map(|kept| kept.save(&record)) {
            self.phase.store(if current.is_some() { FAILED } else { IDLE }, Ordering::Release);
            return Err(error);
        }
        *current = Some(record);
        Ok(())
    }

    /// All is done, or the failure mode is left.
    fn clear(&self) -> io::Result<()> {
        let mut current = self.record();
        if let Some(kept) = &self.kept {
            kept.remove()?;
        }
        *current = None;
        self.phase.store(IDLE, Ordering::Release);
        Ok(())
    }

    fn fail(&self) {
        self.phase.store(FAILED, Ordering::Release);
    }

    fn copies(&self) -> MutexGuard<'_, usize> {
        self.copies.lock().expect("no holder panics")
    }

    fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().expect("no holder panics")
    }
}

/// Commands that are carried out while a sanitize operation runs or has failed. SBC-4, "Sanitize operations".
fn passes(spec: &CommandSpec) -> bool {
    /// INQUIRY, REQUEST SENSE, LOG SENSE, PERSISTENT RESERVE IN, REPORT LUNS, and the REPORT commands of A3h.
    const FREE: [u8; 6] = [0x12, 0x03, 0x4D, 0x5E, 0xA0, 0xA3];
    FREE.contains(&spec.opcode)
}

pub(super) fn block_erase(disk: &Arc<Disk>, task: Task) -> Execution {
    const SPEC: &CommandSpec = &sbc::SANITIZE_BLOCK_ERASE;
    match without_list(&task) {
        Ok(()) => start(disk, task, SPEC, Work::Erase),
        Err(sense) => Execution::Done(answer(SPEC, Err(sense))),
    }
}

pub(super) fn overwrite(disk: &Arc<Disk>, task: Task) -> Execution {
    const SPEC: &CommandSpec = &sbc::SANITIZE_OVERWRITE;
    let length = task.cdb.read::<SanitizeCdb>().parameter_list_length.get();
    let block = disk.block_length.0 as usize;
    let list = match usize::from(length) {
        // Four bytes, and one byte to one block of pattern.
        length if length < 5 || length > 4 + block => Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(7))),
        length => parameter_list(&task, length).and_then(|list| OverwriteList::parse(&list)),
    };
    match list {
        Ok(list) => start(disk, task, SPEC, Work::Overwrite(list)),
        Err(sense) => Execution::Done(answer(SPEC, Err(sense))),
    }
}

/// Nothing to leave is no error; a failure mode that was entered without AUSE is left by a SANITIZE that succeeds only.
pub(super) fn exit_failure_mode(disk: &Disk, task: &Task) -> Reply {
    without_list(task)?;
    let sanitizing = &disk.sanitizing;
    let record = *sanitizing.record();
    match record {
        Some(Record { unrestricted: false }) => Err(Sense::SANITIZE_COMMAND_FAILED),
        Some(Record { unrestricted: true }) => {
            sanitizing.clear().map_err(|error| fault::on_write(&error))?;
            Ok(Response::good())
        }
        None => Ok(Response::good()),
    }
}

fn without_list(task: &Task) -> Result<(), Sense> {
    match task.cdb.read::<SanitizeCdb>().parameter_list_length.get() {
        0 => Ok(()),
        _ => Err(Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(7))),
    }
}

fn start(disk: &Arc<Disk>, task: Task, spec: &'static CommandSpec, work: Work) -> Execution {
    let cdb: SanitizeCdb = task.cdb.read();
    // A hold lasts for a moment, and a copy ends by itself or is aborted: the initiator asks again.
    let busy = || Execution::Done(Response::status(Status::Busy));
    let Some(admission) = disk.volume.try_admit() else { return busy() };
    if *disk.sanitizing.copies() > 0 {
        return busy();
    }
    // A snapshot keeps what is to be gone. No moment comes from here on: the admission is a write that does not end.
    if disk.volume.trackers().any_asked_for() {
        return Execution::Done(answer(spec, Err(Sense::COMMAND_SEQUENCE_ERROR)));
    }
    let (immediate, record) = (cdb.immediate(), Record { unrestricted: cdb.unrestricted_exit() });
    let disk = Arc::clone(disk);
    let begin = move || -> Result<watch::Receiver<Option<bool>>, Response> {
        let failed = |error: io::Error| answer(spec, Err(fault::on_write(&error)));
        if !disk.sanitizing.enter() {
            return Err(Response::status(Status::Busy));
        }
        disk.sanitizing.begin(record).map_err(failed)?;
        // Not before: what is refused changes nothing.
        disk.cancel_views();
        let (ended, end) = watch::channel(None);
        let runner = Arc::clone(&disk);
        let spawned = thread::Builder::new().name("sanitize".into()).spawn(move || {
            let done = run(&runner, &admission, &work);
            let _ = ended.send(Some(done));
        });
        match spawned {
            Ok(_) => Ok(end),
            Err(error) => {
                disk.sanitizing.fail();
                Err(failed(error))
            }
        }
    };
    if immediate {
        return Execution::Blocking(Box::new(move || begin().map_or_else(|refusal| refusal, |_| Response::good())));
    }
    let abort = task.abort;
    Execution::Async(Box::pin(async move {
        let begun = tokio::task::spawn_blocking(begin).await.unwrap_or(Err(Sense::INTERNAL_TARGET_FAILURE.into()));
        let mut end = match begun {
            Ok(end) => end,
            Err(refusal) => return refusal,
        };
        // Whoever asked may give up; the operation does not.
        let done = tokio::select! {
            biased;
            () = abort.cancelled() => return Response::status(Status::TaskAborted),
            done = end.wait_for(Option::is_some) => done.is_ok_and(|done| *done == Some(true)),
        };
        answer(spec, if done { Ok(Response::good()) } else { Err(Sense::SANITIZE_COMMAND_FAILED) })
    }))
}

/// True when all was done.
fn run(disk: &Disk, admission: &Admission, work: &Work) -> bool {
    // Writers that have begun end first, and those that wait go on afterwards.
    let _alone = disk.writers.write().expect("no writer panics");
    let begun = Instant::now();
    let done = carry_out(disk, admission, work).and_then(|()| disk.sanitizing.clear());
    match &done {
        Ok(()) => info!(took = ?begun.elapsed(), "sanitized"),
        Err(error) => {
            error!(%error, "a sanitize operation failed");
            disk.sanitizing.fail();
        }
    }
    done.is_ok()
}

fn carry_out(disk: &Disk, admission: &Admission, work: &Work) -> io::Result<()> {
    let size = disk.capacity().0 * disk.block_length.bytes();
    let total = Total { sanitizing: &disk.sanitizing, bytes: size, passes: work.passes() };
    for pass in 0..work.passes() {
        let pattern = work.pattern(pass, disk.block_length.0 as usize);
        let mut at = 0;
        while at < size {
            let begun = Instant::now();
            let range = ByteRange { start: at, len: PIECE.min(size - at) };
            match &pattern {
                None => disk.volume.deallocate(admission, range)?,
                Some(pattern) => disk.volume.write_at(admission, at, &[pattern.slice(..range.len as usize)])?,
            }
            at = range.end();
            total.reached(pass, at);
            thread::sleep(begun.elapsed().clamp(PAUSE_MIN, PAUSE_MAX));
        }
        disk.volume.sync()?;
    }
    Ok(())
}

impl Work {
    fn passes(&self) -> u64 {
        match self {
            Self::Erase => 1,
            Self::Overwrite(list) => u64::from(list.count),
        }
    }

    /// A piece of what a pass writes; `None` where it erases. INVERT turns every second pass round.
    fn pattern(&self, pass: u64, block: usize) -> Option<Bytes> {
        let Self::Overwrite(list) = self else { return None };
        let turn = if list.invert && pass % 2 == 1 { 0xFF } else { 0 };
        // The pattern begins anew with each block.
        let one: Vec<u8> = list.pattern.iter().cycle().take(block).map(|byte| byte ^ turn).collect();
        Some(Bytes::from(one.repeat(PIECE as usize / block)))
    }
}

/// How far all passes together have come.
struct Total<'a> {
    sanitizing: &'a Sanitizing,
    bytes: u64,
    passes: u64,
}

impl Total<'_> {
    fn reached(&self, pass: u64, at: u64) {
        let part = (u128::from(pass * self.bytes + at) << 16) / u128::from((self.passes * self.bytes).max(1));
        self.sanitizing.progress.store(part.min(0xFFFF) as u16, Ordering::Relaxed);
    }
}
