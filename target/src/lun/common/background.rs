//! Operations that go on after the status of their command, because IMMED asked for that.
//!
//! One at a time on a logical unit. Whoever wants the medium meanwhile is told by [`Background::not_ready`] that it is not ready, and
//! REQUEST SENSE tells how far it is. What goes wrong after the status is a deferred error for the nexus that sent the command. The
//! operation outlives an abort of its command and the loss of its nexus; a reset stops it, `kill -9` ends it as a power loss would.
//!
//! Knows no medium: what is done, and which state an operation that was stopped leaves, is the device's business. Follows SSC-4,
//! IMMED bit of REWIND, LOCATE, ERASE, FORMAT MEDIUM, SET CAPACITY, LOAD UNLOAD and VERIFY, and SPC-4, "Deferred errors".

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::{fmt, thread};

use protocol::scsi::{CommandSpec, Sense, Status};
use tracing::{error, info};

use super::{LogicalUnit, Reply};
use crate::task::Response;

/// What is done behind the status, where IMMED is set.
type Work<D> = Box<dyn FnOnce(&D, &Operation) -> Reply + Send>;

/// A command that may take long, in its two parts.
pub struct Lasting<D> {
    /// What is told of it while it goes on.
    pub told: Told,
    /// IMMED: the status follows on the check.
    pub immediate: bool,
    /// What has to be well before anything is begun. Its refusal is the status of the command, IMMED or not.
    pub check: Box<dyn FnOnce(&D) -> Reply + Send>,
    /// The work.
    pub run: Work<D>,
}

impl<D> fmt::Debug for Lasting<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lasting").field("told", &self.told).field("immediate", &self.immediate).finish_non_exhaustive()
    }
}

/// What is told of an operation while it goes on; the progress indication is added.
#[derive(Debug, Clone)]
pub struct Told {
    /// To commands that want the medium, and to TEST UNIT READY.
    pub not_ready: Sense,
    /// To REQUEST SENSE.
    pub condition: Sense,
}

/// An operation under way.
#[derive(Debug)]
pub struct Operation {
    told: Told,
    /// PROGRESS INDICATION, of 65,536.
    progress: AtomicU16,
    stopped: AtomicBool,
}

impl Operation {
    fn new(told: Told) -> Self {
        Self { told, progress: AtomicU16::new(0), stopped: AtomicBool::new(false) }
    }

    /// So much of the work is done.
    pub fn advance(&self, done: u64, of: u64) {
        let progress = u128::from(done) * 65_536 / u128::from(of.max(1));
        self.progress.store(u16::try_from(progress).unwrap_or(u16::MAX), Ordering::Relaxed);
    }

    /// A reset wants it to end: to be asked between pieces of the work.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn with_progress(&self, sense: &Sense) -> Sense {
        sense.clone().with_progress(self.progress.load(Ordering::Relaxed))
    }
}

/// The operation of one logical unit, if there is one.
#[derive(Debug, Default)]
pub struct Background {
    running: Mutex<Option<Arc<Operation>>>,
}

impl Background {
    /// Why the medium cannot be had; `None` when no operation is under way.
    #[must_use]
    pub fn not_ready(&self) -> Option<Sense> {
        self.running().as_ref().map(|operation| operation.with_progress(&operation.told.not_ready))
    }

    /// What REQUEST SENSE tells of the operation under way.
    #[must_use]
    pub fn condition(&self) -> Option<Sense> {
        self.running().as_ref().map(|operation| operation.with_progress(&operation.told.condition))
    }

    /// A reset: what is under way is to end soon.
    pub fn stop(&self) {
        if let Some(operation) = &*self.running() {
            operation.stopped.store(true, Ordering::Relaxed);
        }
    }

    fn begin(&self, told: Told) -> Result<Arc<Operation>, Sense> {
        let mut running = self.running();
        match &*running {
            Some(other) => Err(other.with_progress(&other.told.not_ready)),
            None => Ok(Arc::clone(running.insert(Arc::new(Operation::new(told))))),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Arc<Operation>>> {
        self.running.lock().expect("no holder panics")
    }
}

/// The operation of a device has ended when this is dropped, however that comes about.
struct Ending<D: LogicalUnit> {
    device: Arc<D>,
}

impl<D: LogicalUnit> Drop for Ending<D> {
    fn drop(&mut self) {
        *self.device.common().background.running() = None;
    }
}

/// Carries out a command of `nexus`: to its end, or with IMMED to the end of its check. Blocks.
pub(in crate::lun) fn carry_out<D: LogicalUnit>(
    device: &Arc<D>,
    nexus: u64,
    spec: &'static CommandSpec,
    work: Lasting<D>,
) -> Reply {
    let Lasting { told, immediate, check, run } = work;
    if !immediate {
        if let Some(in_progress) = device.common().background.not_ready() {
            return Err(in_progress);
        }
        let checked = check(device)?;
        return if checked.status == Status::Good { run(device, &Operation::new(told)) } else { Ok(checked) };
    }
    // First, so that from here on nobody else begins anything with the medium.
    let operation = device.common().background.begin(told)?;
    let ending = Ending { device: Arc::clone(device) };
    let checked = check(device)?;
    if checked.status != Status::Good {
        return Ok(checked);
    }
    let thread = thread::Builder::new().name(spec.name.to_lowercase()).spawn(move || {
        let device = &ending.device;
        match run(device, &operation) {
            Ok(_) => info!(command = spec.name, stopped = operation.is_stopped(), "ended in the background"),
            Err(sense) => {
                info!(command = spec.name, %sense, "failed in the background");
                // Before the operation is over: the first command that is admitted again is told.
                device.common().attentions.establish(nexus, &Sense { deferred: true, ..sense });
            }
        }
    });
    match thread {
        Ok(_) => Ok(Response::good()),
        Err(error) => {
            error!(%error, command = spec.name, "no thread for an operation in the background");
            Err(Sense::INTERNAL_TARGET_FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_operation_is_told_how_far_the_first_is() {
        let background = Background::default();
        let told = || Told {
            not_ready: Sense::LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS,
            condition: Sense::ERASE_OPERATION_IN_PROGRESS,
        };
        assert_eq!((background.not_ready(), background.condition()), (None, None));
        let operation = background.begin(told()).unwrap();
        operation.advance(1, 4);
        let refused = Sense::LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS.with_progress(0x4000);
        assert_eq!(background.begin(told()).unwrap_err(), refused);
        operation.advance(4, 4);
        assert_eq!(background.condition(), Some(Sense::ERASE_OPERATION_IN_PROGRESS.with_progress(0xFFFF)));
        background.stop();
        assert!(operation.is_stopped());
    }
}
