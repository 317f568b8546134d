//! The copy manager of all logical units of a target.
//!
//! Takes THIRD-PARTY COPY OUT and IN, decides at once what can be decided at once, and lets jobs run beside the commands that began
//! them. Follows SPC-4, "Third-party copy command usage" and the commands' own clauses.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use protocol::control::{CopyStatus, MoverStatus};
use protocol::mover::ByMethod;
use protocol::scsi::sense::FieldPointer;
use protocol::scsi::{DeviceType, Sense, Status};
use protocol::xcopy::results::{OperatingParameters, held_data_lid1, third_party_copy_page};
use protocol::xcopy::{CscdName, List, ListIdUsage, MAX_CONCURRENT_COPIES};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::jobs::{self, Ended};
use super::plan::{Plan, plan};
use super::results::{Origin, Progress, Results, Underway};
use super::turns::Turns;
use crate::lun::Device;
use crate::lun::common::{CopyService, data_in, parameter_list};
use crate::mover::Movers;
use crate::remote::RemoteEnds;
use crate::task::{Execution, Response, Task};

/// Jobs that move data at once; others wait for their turn. Bounds the memory of movers.
const JOBS_AT_ONCE: usize = 4;

/// Serves third-party copy commands.
#[derive(Debug)]
pub struct CopyManager {
    movers: Arc<Movers>,
    remotes: Arc<RemoteEnds>,
    results: Arc<Results>,
    counters: Arc<Counters>,
    /// Copies that run or wait.
    admitted: Arc<Semaphore>,
    turns: Arc<Turns>,
}

#[derive(Debug, Default)]
struct Counters {
    running: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    segments: AtomicU64,
    bytes: Mutex<ByMethod>,
}

impl CopyManager {
    /// Lets `movers` do the work.
    #[must_use]
    pub fn new(movers: Arc<Movers>) -> Arc<Self> {
        Arc::new(Self {
            movers,
            remotes: Arc::default(),
            results: Arc::default(),
            counters: Arc::default(),
            admitted: Arc::new(Semaphore::new(usize::from(MAX_CONCURRENT_COPIES))),
            turns: Turns::new(JOBS_AT_ONCE),
        })
    }

    /// The logical units of other targets that copies may use.
    #[must_use]
    pub const fn remotes(&self) -> &Arc<RemoteEnds> {
        &self.remotes
    }

    /// Copies since the target started.
    #[must_use]
    pub fn status(&self) -> CopyStatus {
        let counter = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes = *self.counters.bytes.lock().expect("no holder panics");
        CopyStatus {
            running: counter(&self.counters.running),
            done: counter(&self.counters.done),
            failed: counter(&self.counters.failed),
            segments: counter(&self.counters.segments),
            bytes_moved: bytes.total(),
            bytes_by_method: bytes,
        }
    }

    /// The mover processes.
    #[must_use]
    pub fn movers(&self) -> Vec<MoverStatus> {
        self.movers.status()
    }

    /// EXTENDED COPY: all checks that need no waiting, then what waits for the job, in the foreground or beside it.
    fn begin(&self, device: &Device, task: Task) -> Result<Execution, Sense> {
        let cdb = task.cdb.basic();
        let length = u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]]) as usize;
        if length == 0 {
            // "… no data shall be transferred. This condition shall not be considered an error."
            return Ok(Execution::Done(Response::good()));
        }
        let service_action = cdb[1] & 0x1F;
        let bytes = parameter_list(&task, length)?;
        let parse = if service_action == EXTENDED_COPY_LID4 { List::parse_lid4 } else { List::parse_lid1 };
        let list = Arc::new(parse(&bytes, device_type(device)).map_err(|error| {
            debug!(%error, "EXTENDED COPY list refused");
            error.sense()
        })?);
        // What has to be logged in to is planned beside other commands.
        let plan = (!names_remote_ends(&list)).then(|| plan(&list, device, &task, &self.remotes));
        let Ok(admitted) = Arc::clone(&self.admitted).try_acquire_owned() else {
            return Ok(Execution::Done(jobs::task_set_full()));
        };
        let (format, background) = (Some(list.format), list.immediate);
        let abort = if background { CancellationToken::new() } else { task.abort.child_token() };
        let named = (list.usage != ListIdUsage::None).then_some(list.id);
        let origin = Origin { service_action, format, background, device: device.address() };
        let underway = match named {
            Some(id) => self.results.begin(&task.nexus, id, origin, abort, device.common().sense_format())?,
            None => Underway::unnamed(abort),
        };
        if let Some(ended) = plan.as_ref().and_then(|plan| nothing_to_do(plan, &underway.progress)) {
            underway.end(&ended);
            return Ok(Execution::Done(if background { Response::good() } else { finished(ended, &list) }));
        }
        info!(nexus = task.nexus.id, initiator = task.nexus.initiator, list = ?named, background, segments = list.segments.len(), "EXTENDED COPY");
        let (movers, turns, counters) = (Arc::clone(&self.movers), Arc::clone(&self.turns), Arc::clone(&self.counters));
        let (sender, progress) = (Arc::clone(&task.nexus), Arc::clone(&underway.progress));
        let (remotes, device) = (Arc::clone(&self.remotes), device.clone());
        let work = async move {
            let _admitted = admitted;
            let turn = tokio::select! {
                biased;
                () = underway.abort.cancelled() => None,
                turn = turns.take(list.priority) => Some(turn),
            };
            let ended = match turn {
                Some(_turn) => {
                    let job = async {
                        let plan = match plan {
                            Some(plan) => plan,
                            None => plan_with_remotes(Arc::clone(&list), device, task, remotes).await,
                        };
                        match nothing_to_do(&plan, &underway.progress) {
                            Some(ended) => ended,
                            None => jobs::run(plan, sender, &movers, &underway.progress, &underway.abort).await,
                        }
                    };
                    counters.count(job).await
                }
                None => Ended { terminated: true, ..Response::from(Sense::COMMANDS_CLEARED_BY_DEVICE_SERVER).into() },
            };
            match ended.response.status {
                // BUSY is not how a copy ends, but that it did not begin.
                Status::Busy if !background => underway.withdraw(),
                _ => underway.end(&ended),
            }
            finished(ended, &list)
        };
        if background {
            tokio::spawn(work);
            return Ok(Execution::Done(Response::good()));
        }
        Ok(Execution::Async(Box::pin(async move {
            // A task of its own: when the nexus is lost and nobody waits for this response, the copy still goes on.
            tokio::spawn(work).await.unwrap_or_else(|_| Ended::lost(&progress).response)
        })))
    }

    /// COPY OPERATION ABORT: answers when nothing of the operation moves any more.
    fn abort(&self, task: &Task) -> Result<Execution, Sense> {
        let over = self.results.abort(task.nexus.id, list_identifier(task)).ok_or(UNKNOWN_LIST)?;
        Ok(Execution::Async(Box::pin(async move {
            over.cancelled().await;
            Response::good()
        })))
    }

    /// The parameter data of a RECEIVE COPY command; `None` for a list identifier of which nothing is known.
    fn parameter_data(&self, device: &Device, task: &Task, allocation_length: u32) -> Option<Vec<u8>> {
        let (nexus, results) = (task.nexus.id, &self.results);
        let cdb = task.cdb.basic();
        let lid1 = u32::from(cdb[2]);
        // "… shall discard after all has been transferred, or with the ALLOCATION LENGTH field set to zero."
        let is_taken = |data: &[u8]| allocation_length == 0 || data.len() as u64 <= u64::from(allocation_length);
        match cdb[1] & 0x1F {
            0x00 => results.status(nexus, lid1).map(|status| status.emit().to_vec()),
            0x01 => {
                let data = results.held(nexus, lid1, false).map(|held| held_data_lid1(&held))?;
                if is_taken(&data) {
                    let _ = results.held(nexus, lid1, true);
                }
                Some(data)
            }
            0x03 => Some(OperatingParameters::of(device_type(device)).emit()),
            0x04 => {
                let data = results.details(nexus, lid1, false)?.map_or(vec![0; 4], |details| details.emit());
                if is_taken(&data) {
                    let _ = results.details(nexus, lid1, true);
                }
                Some(data)
            }
            0x05 => results.operation(nexus, list_identifier(task)).map(|status| status.emit()),
            0x06 => {
                let id = list_identifier(task);
                let status = results.operation(nexus, id)?;
                let held = if status.status.is_without_errors() { results.held(nexus, id, false)? } else { Vec::new() };
                let data = status.emit_with(&held);
                if is_taken(&data) && !status.status.is_in_progress() {
                    let _ = results.held(nexus, id, true);
                }
                Some(data)
            }
            _ => None,
        }
    }
}

fn names_remote_ends(list: &List) -> bool {
    list.cscds.iter().any(|cscd| !matches!(cscd.name, CscdName::Designator(_)))
}

async fn plan_with_remotes(list: Arc<List>, device: Device, task: Task, remotes: Arc<RemoteEnds>) -> Plan {
    let planned = spawn_blocking(move || plan(&list, &device, &task, &remotes)).await;
    planned.unwrap_or_else(|_| Plan::refusing(Sense::INTERNAL_TARGET_FAILURE))
}

/// How a copy ends of which no segment can be carried out, or that has none.
fn nothing_to_do(plan: &Plan, progress: &Progress) -> Option<Ended> {
    plan.steps.is_empty().then(|| {
        progress.segments.fetch_max(plan.refused.is_some().into(), Ordering::Relaxed);
        Ended::from(plan.refused.clone().map_or_else(Response::good, Response::from))
    })
}

/// What the initiator is told: with G_SENSE, GOOD brings the number of segments along.
fn finished(ended: Ended, list: &List) -> Response {
    let segments = ended.segments;
    match ended.response {
        response if list.good_with_sense && response.status == Status::Good => {
            let sense = Sense::EXTENDED_COPY_INFORMATION_AVAILABLE.with_command_specific(segments);
            Response { sense: Some(sense), ..response }
        }
        response => response,
    }
}

/// LIST IDENTIFIER of 32 bits, where all commands have it that have one in the CDB.
fn list_identifier(task: &Task) -> u32 {
    let cdb = task.cdb.basic();
    u32::from_be_bytes([cdb[2], cdb[3], cdb[4], cdb[5]])
}

/// No copy operation of this nexus has the list identifier.
const UNKNOWN_LIST: Sense = Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2));

/// Service actions of THIRD-PARTY COPY OUT.
const EXTENDED_COPY_LID4: u8 = 0x01;
const COPY_OPERATION_ABORT: u8 = 0x1C;

/// One more that runs, until it is dropped: also with a task that is lost.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn of(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    async fn count(&self, job: impl Future<Output = Ended>) -> Ended {
        let running = Running::of(&self.running);
        let ended = job.await;
        drop(running);
        let good = ended.response.status == Status::Good;
        (if good { &self.done } else { &self.failed }).fetch_add(1, Ordering::Relaxed);
        self.segments.fetch_add(ended.segments, Ordering::Relaxed);
        *self.bytes.lock().expect("no holder panics") += ended.written;
        ended
    }
}

impl CopyService for CopyManager {
    fn third_party_copy_out(self: Arc<Self>, device: Device, task: Task) -> Execution {
        let begun = match task.cdb.basic()[1] & 0x1F {
            COPY_OPERATION_ABORT => self.abort(&task),
            _ => self.begin(&device, task),
        };
        begun.unwrap_or_else(|sense| {
            debug!(%sense, "THIRD-PARTY COPY OUT refused");
            Execution::Done(sense.into())
        })
    }

    fn receive_copy(&self, device: &Device, task: &Task) -> Response {
        let cdb = task.cdb.basic();
        let allocation_length = u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]]);
        match self.parameter_data(device, task, allocation_length) {
            Some(data) => data_in(data, allocation_length),
            None => UNKNOWN_LIST.into(),
        }
    }

    fn abort_background(&self, device: &Device, nexuses: Option<&[u64]>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let over = self.results.abort_background(device.address(), nexuses);
        Box::pin(async move {
            for one in over {
                one.cancelled().await;
            }
        })
    }

    fn third_party_copy_page(&self, device: &Device) -> Vec<u8> {
        third_party_copy_page(device_type(device))
    }
}

const fn device_type(device: &Device) -> DeviceType {
    match device {
        Device::Disk(_) => DeviceType::Disk,
        Device::Tape(_) => DeviceType::Tape,
        Device::Changer(_) => DeviceType::Changer,
    }
}
