//! The copy manager of all logical units of a target.
//!
//! Takes THIRD-PARTY COPY OUT and IN, decides at once what can be decided at once, and lets jobs run beside the commands that began
//! them. Follows SPC-4, "Third-party copy command usage" and the commands' own clauses.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use protocol::control::{CopyStatus, MoverStatus};
use protocol::mover::ByMethod;
use protocol::scsi::sense::{CopyEnd, FieldPointer};
use protocol::scsi::{DeviceType, Sense, Status};
use protocol::xcopy::results::{OperatingParameters, held_data_lid1, third_party_copy_page};
use protocol::xcopy::token::{all_rod_tokens, token_descriptors};
use protocol::xcopy::{CscdName, List, ListError, ListIdUsage, MAX_CONCURRENT_COPIES, PopulateToken, WriteUsingToken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::duty::admitted;
use super::jobs::{self, Ended, Means};
use super::leases::LeaseFacts;
use super::plan::{Plan, plan};
use super::results::{Origin, Progress, Results, Underway};
use super::tokens::{self, Tokens, Write};
use super::turns::Turns;
use crate::lun::Device;
use crate::lun::common::{CopyService, LeaseEnd, data_in, parameter_list};
use crate::lun::disk::Disk;
use crate::mover::Movers;
use crate::nexus::Nexus;
use crate::remote::RemoteEnds;
use crate::snapshot::SnapshotService;
use crate::task::{Execution, Response, Task};

/// Jobs that move data at once; others wait for their turn. Bounds the memory of movers.
const JOBS_AT_ONCE: usize = 4;

/// Serves third-party copy commands.
#[derive(Debug)]
pub struct CopyManager {
    pub(super) means: Arc<Means>,
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
    /// Lets `movers` do the work, and takes views of disks by `snapshots`.
    #[must_use]
    pub fn new(movers: Arc<Movers>, snapshots: Arc<SnapshotService>) -> Arc<Self> {
        Arc::new(Self {
            means: Arc::new(Means { movers, snapshots, tokens: Arc::default(), leases: Arc::default() }),
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

    /// Views that nexuses have of disks whose policy is "lease".
    #[must_use]
    pub fn leases(&self) -> Vec<LeaseFacts> {
        self.means.leases.facts()
    }

    /// The mover processes.
    #[must_use]
    pub fn movers(&self) -> Vec<MoverStatus> {
        self.means.movers.status()
    }

    /// EXTENDED COPY: all checks that need no waiting, then what waits for the job, in the foreground or beside it.
    fn extended_copy(&self, device: &Device, task: Task) -> Result<Execution, Sense> {
        let Some(bytes) = copy_parameters(&task)? else { return Ok(Execution::Done(Response::good())) };
        let service_action = service_action(&task);
        let parse = if service_action == EXTENDED_COPY_LID4 { List::parse_lid4 } else { List::parse_lid1 };
        let list = Arc::new(parse(&bytes, device_type(device)).map_err(refused)?);
        // What has to be logged in to is planned beside other commands.
        let plan = (!names_remote_ends(&list)).then(|| plan(&list, device, &task, &self.remotes, &self.means.tokens));
        let named = (list.usage != ListIdUsage::None).then_some(list.id);
        let (format, background) = (Some(list.format), list.immediate);
        let origin = Origin { service_action, format, counts_blocks_of: None, background, device: device.address() };
        let Some((underway, admitted)) = self.enter(device, &task, named, origin)? else { return Ok(task_set_full()) };
        if let Some(ended) = plan.as_ref().and_then(|plan| nothing_to_do(plan, &underway.progress)) {
            underway.end(&ended);
            return Ok(Execution::Done(if background { Response::good() } else { finished(ended, &list) }));
        }
        info!(nexus = task.nexus.id, initiator = task.nexus.initiator, list = ?named, background, segments = list.segments.len(), "EXTENDED COPY");
        let (means, remotes, nexus) = (Arc::clone(&self.means), Arc::clone(&self.remotes), Arc::clone(&task.nexus));
        let (listed, device) = (Arc::clone(&list), device.clone());
        let leased = lease_views(plan, Arc::clone(&nexus), Arc::clone(&means), underway.abort.clone());
        let job = self.in_turn(list.priority, &underway, leased, async move |plan, progress, abort| {
            let plan = match plan {
                Some(plan) => plan,
                None => plan_with_remotes(listed, device, task, remotes, Arc::clone(&means.tokens)).await,
            };
            match nothing_to_do(&plan, &progress) {
                Some(ended) => ended,
                None => jobs::run(plan, nexus, &means, &progress, &abort).await,
            }
        });
        Ok(launch(underway, admitted, background, job, move |ended| finished(ended, &list)))
    }

    /// POPULATE TOKEN. No mover is needed: the disk is quiet, and from then on writes keep what was there.
    fn populate_token(&self, device: &Device, task: &Task) -> Result<Execution, Response> {
        let Device::Disk(disk) = device else { return Err(Sense::INVALID_COMMAND_OPERATION_CODE.into()) };
        let Some(bytes) = copy_parameters(task)? else { return Ok(Execution::Done(Response::good())) };
        let list = PopulateToken::parse(&bytes).map_err(refused)?;
        let background = list.immediate;
        let populate = tokens::populate(disk, task.nexus.id, list)?;
        admitted(&task.nexus, device, CopyEnd::Source)?;
        let Some((underway, admitted)) = self.enter_token(device, disk, task, background)? else { return Ok(task_set_full()) };
        let (means, progress, abort) = (Arc::clone(&self.means), Arc::clone(&underway.progress), underway.abort.clone());
        info!(nexus = task.nexus.id, initiator = task.nexus.initiator, background, "POPULATE TOKEN");
        let job = async move { populate.run(&means.snapshots, &means.tokens, &progress, &abort).await };
        Ok(launch(underway, admitted, background, job, |ended| ended.response))
    }

    /// WRITE USING TOKEN: a copy from the token's ROD to the ranges of the list.
    fn write_using_token(&self, device: &Device, task: &Task) -> Result<Execution, Response> {
        let Device::Disk(disk) = device else { return Err(Sense::INVALID_COMMAND_OPERATION_CODE.into()) };
        let Some(bytes) = copy_parameters(task)? else { return Ok(Execution::Done(Response::good())) };
        let list = WriteUsingToken::parse(&bytes).map_err(refused)?;
        let background = list.immediate;
        if let Some(sense) = disk.write_protection() {
            return Err(sense.into());
        }
        let Write { plan, wanted, there } = tokens::write(disk, &list, &self.means.tokens)?;
        admitted(&task.nexus, device, CopyEnd::Destination)?;
        let Some((underway, admitted)) = self.enter_token(device, disk, task, background)? else { return Ok(task_set_full()) };
        let (means, nexus) = (Arc::clone(&self.means), Arc::clone(&task.nexus));
        info!(nexus = task.nexus.id, initiator = task.nexus.initiator, background, blocks = there.0, "WRITE USING TOKEN");
        let job = self.in_turn(USUAL_PRIORITY, &underway, ready(Ok(plan)), async move |plan, progress, abort| {
            let ended = match plan.steps.is_empty() {
                true => Response::good().into(),
                false => jobs::run(plan, nexus, &means, &progress, &abort).await,
            };
            Write::completed(wanted, there, ended)
        });
        Ok(launch(underway, admitted, background, job, |ended| ended.response))
    }

    /// Enters an operation that a token command begins. Its list identifier is in the CDB.
    fn enter_token(
        &self,
        device: &Device,
        disk: &Disk,
        task: &Task,
        background: bool,
    ) -> Result<Option<(Underway, OwnedSemaphorePermit)>, Sense> {
        let cdb = task.cdb.basic();
        let id = u32::from_be_bytes([cdb[6], cdb[7], cdb[8], cdb[9]]);
        let counts_blocks_of = Some(disk.block_length().bytes());
        let (service_action, device_address) = (service_action(task), device.address());
        let origin = Origin { service_action, format: None, counts_blocks_of, background, device: device_address };
        self.enter(device, task, Some(id), origin)
    }

    /// Enters an operation; `None` when there are as many as may be.
    fn enter(
        &self,
        device: &Device,
        task: &Task,
        named: Option<u32>,
        origin: Origin,
    ) -> Result<Option<(Underway, OwnedSemaphorePermit)>, Sense> {
        let Ok(admitted) = Arc::clone(&self.admitted).try_acquire_owned() else { return Ok(None) };
        let abort = if origin.background { CancellationToken::new() } else { task.abort.child_token() };
        let underway = match named {
            Some(id) => self.results.begin(&task.nexus, id, origin, abort, device.common().sense_format())?,
            None => Underway::unnamed(abort),
        };
        Ok(Some((underway, admitted)))
    }

    /// A job that moves data, once it is its turn. What `first` waits for it waits for without one: it holds up no other copy.
    fn in_turn<T, F>(
        &self,
        priority: u8,
        underway: &Underway,
        first: impl Future<Output = Result<T, Response>> + Send + 'static,
        job: impl FnOnce(T, Arc<Progress>, CancellationToken) -> F + Send + 'static,
    ) -> impl Future<Output = Ended> + Send + 'static
    where
        T: Send + 'static,
        F: Future<Output = Ended> + Send + 'static,
    {
        let (turns, counters) = (Arc::clone(&self.turns), Arc::clone(&self.counters));
        let (progress, abort) = (Arc::clone(&underway.progress), underway.abort.clone());
        async move {
            let planned = match first.await {
                Ok(planned) => planned,
                Err(response) => return Ended { terminated: abort.is_cancelled(), ..response.into() },
            };
            let turn = tokio::select! {
                biased;
                () = abort.cancelled() => None,
                turn = turns.take(priority) => Some(turn),
            };
            match turn {
                Some(_turn) => counters.count(job(planned, progress, abort)).await,
                None => Ended { terminated: true, ..Response::from(Sense::COMMANDS_CLEARED_BY_DEVICE_SERVER).into() },
            }
        }
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
            0x07 => {
                let id = list_identifier(task);
                let status = results.operation(nexus, id)?;
                let tokens = if status.status.is_without_errors() { results.tokens(nexus, id, false) } else { Vec::new() };
                let data = status.emit_with(&token_descriptors(tokens.iter().map(|(cscd, token)| (*cscd, token))));
                if is_taken(&data) && !status.status.is_in_progress() {
                    let _ = results.tokens(nexus, id, true);
                }
                Some(data)
            }
            0x08 => Some(all_rod_tokens(&self.means.tokens.of(device.address()))),
            _ => None,
        }
    }

    /// A logical unit is no longer served: nobody copies from what its tokens stand for any more.
    pub fn revoke(&self, device: &Device) {
        self.means.tokens.revoke(device.address());
        self.means.leases.end(LeaseEnd::Disk { disk: device.address() });
    }
}

/// Lets an operation that was entered run, and answers as `finish` says or, in the background, at once.
fn launch(
    underway: Underway,
    admitted: OwnedSemaphorePermit,
    background: bool,
    job: impl Future<Output = Ended> + Send + 'static,
    finish: impl FnOnce(Ended) -> Response + Send + 'static,
) -> Execution {
    let progress = Arc::clone(&underway.progress);
    let work = async move {
        let _admitted = admitted;
        let ended = job.await;
        match ended.response.status {
            // BUSY is not how a copy ends, but that it did not begin.
            Status::Busy if !background => underway.withdraw(),
            _ => underway.end(&ended),
        }
        finish(ended)
    };
    if background {
        tokio::spawn(work);
        return Execution::Done(Response::good());
    }
    Execution::Async(Box::pin(async move {
        // A task of its own: when the nexus is lost and nobody waits for this response, the copy still goes on.
        tokio::spawn(work).await.unwrap_or_else(|_| Ended::lost(&progress).response)
    }))
}

/// The parameter list of a command that begins a copy; `None` where there is none: "… no data shall be transferred. This condition shall
/// not be considered an error."
fn copy_parameters(task: &Task) -> Result<Option<Bytes>, Sense> {
    let cdb = task.cdb.basic();
    match u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]]) as usize {
        0 => Ok(None),
        length => parameter_list(task, length).map(Some),
    }
}

/// What is wrong with a list, told.
fn refused(error: ListError) -> Sense {
    debug!(%error, "parameter list of a copy refused");
    error.sense()
}

/// As many copies as there may be: not now.
fn task_set_full() -> Execution {
    Execution::Done(Response::status(Status::TaskSetFull))
}

/// SERVICE ACTION.
fn service_action(task: &Task) -> u8 {
    task.cdb.basic()[1] & 0x1F
}

fn names_remote_ends(list: &List) -> bool {
    list.cscds.iter().any(|cscd| matches!(cscd.name, CscdName::Iscsi(_) | CscdName::Served(_)))
}

/// The plan with the views that it is to read. What is not planned yet gets its views when it is.
async fn lease_views(
    plan: Option<Plan>,
    nexus: Arc<Nexus>,
    means: Arc<Means>,
    abort: CancellationToken,
) -> Result<Option<Plan>, Response> {
    let Some(mut plan) = plan else { return Ok(None) };
    means.leases.lease(&mut plan, &nexus, &means.snapshots, &abort).await?;
    Ok(Some(plan))
}

async fn plan_with_remotes(list: Arc<List>, device: Device, task: Task, remotes: Arc<RemoteEnds>, tokens: Arc<Tokens>) -> Plan {
    let planned = spawn_blocking(move || plan(&list, &device, &task, &remotes, &tokens)).await;
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
const POPULATE_TOKEN: u8 = 0x10;
const WRITE_USING_TOKEN: u8 = 0x11;
const COPY_OPERATION_ABORT: u8 = 0x1C;
/// PRIORITY of what has no such field: that of other commands.
const USUAL_PRIORITY: u8 = 1;

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
        let begun = match service_action(&task) {
            COPY_OPERATION_ABORT => self.abort(&task).map_err(Response::from),
            POPULATE_TOKEN => self.populate_token(&device, &task),
            WRITE_USING_TOKEN => self.write_using_token(&device, &task),
            _ => self.extended_copy(&device, task).map_err(Response::from),
        };
        begun.unwrap_or_else(|refusal| {
            debug!(status = ?refusal.status, sense = ?refusal.sense, "THIRD-PARTY COPY OUT refused");
            Execution::Done(refusal)
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
        if nexuses.is_none() {
            self.means.leases.end(LeaseEnd::Disk { disk: device.address() });
        }
        Box::pin(async move {
            for one in over {
                one.cancelled().await;
            }
        })
    }

    fn cancel_views(&self, disk: usize) {
        self.means.tokens.cancel(disk);
        self.means.leases.end(LeaseEnd::Disk { disk });
    }

    fn lease_ends(&self, why: LeaseEnd) {
        self.means.leases.end(why);
    }

    fn third_party_copy_page(&self, device: &Device) -> Vec<u8> {
        let block_length = if let Device::Disk(disk) = device { Some(disk.block_length()) } else { None };
        third_party_copy_page(device_type(device), block_length)
    }
}

const fn device_type(device: &Device) -> DeviceType {
    match device {
        Device::Disk(_) => DeviceType::Disk,
        Device::Tape(_) => DeviceType::Tape,
        Device::Changer(_) => DeviceType::Changer,
    }
}
