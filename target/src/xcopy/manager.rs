//! The copy manager of all logical units of a target.
//!
//! Takes EXTENDED COPY(LID1) and the RECEIVE COPY commands, decides at once what can be decided at once, and lets jobs run beside
//! the commands that began them. Follows SPC-4, "EXTENDED COPY(LID1) command" and "RECEIVE COPY …(LID1) command".

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use protocol::control::{CopyStatus, MoverStatus};
use protocol::mover::ByMethod;
use protocol::scsi::sense::FieldPointer;
use protocol::scsi::{DeviceType, Sense, Status};
use protocol::xcopy::results::{OperatingParameters, third_party_copy_page};
use protocol::xcopy::{List, ListIdUsage, MAX_CONCURRENT_COPIES};
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::jobs;
use super::plan::plan;
use super::results::{Progress, Results};
use crate::lun::Device;
use crate::lun::common::{CopyService, data_in, parameter_list};
use crate::mover::Movers;
use crate::task::{Execution, Response, Task};

/// Jobs that move data at once; others wait for their turn. Bounds the memory of movers.
const JOBS_AT_ONCE: usize = 4;

/// Serves third-party copy commands.
#[derive(Debug)]
pub struct CopyManager {
    movers: Arc<Movers>,
    results: Arc<Results>,
    counters: Arc<Counters>,
    /// Copies that run or wait.
    admitted: Arc<Semaphore>,
    turns: Arc<Semaphore>,
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
            results: Arc::default(),
            counters: Arc::default(),
            admitted: Arc::new(Semaphore::new(usize::from(MAX_CONCURRENT_COPIES))),
            turns: Arc::new(Semaphore::new(JOBS_AT_ONCE)),
        })
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

    /// All checks that need no waiting, then a future that waits for the job.
    fn begin(&self, device: &Device, task: Task) -> Result<Execution, Sense> {
        let cdb = task.cdb.basic();
        let length = u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]]) as usize;
        if length == 0 {
            // "… no data shall be transferred. This condition shall not be considered an error."
            return Ok(Execution::Done(Response::good()));
        }
        let bytes = parameter_list(&task, length)?;
        let list = List::parse_lid1(&bytes, device_type(device)).map_err(|error| {
            debug!(%error, "EXTENDED COPY list refused");
            error.sense()
        })?;
        let plan = plan(&list, device, &task);
        let Ok(admitted) = Arc::clone(&self.admitted).try_acquire_owned() else {
            return Ok(Execution::Done(jobs::task_set_full()));
        };
        let named = (list.usage != ListIdUsage::None).then_some(list.id);
        let progress = match named {
            Some(id) => self.results.begin(&task.nexus, id)?,
            None => Arc::new(Progress::default()),
        };
        if plan.steps.is_empty() {
            progress.segments.fetch_max(plan.refused.is_some().into(), Ordering::Relaxed);
            let response = plan.refused.map_or_else(Response::good, Response::from);
            if let Some(id) = named {
                self.results.end(task.nexus.id, id, &response, device.common().sense_format());
            }
            return Ok(Execution::Done(response));
        }
        let (movers, turns, counters) = (Arc::clone(&self.movers), Arc::clone(&self.turns), Arc::clone(&self.counters));
        let (results, nexus, abort) = (Arc::clone(&self.results), task.nexus.id, task.abort.clone());
        let format = device.common().sense_format();
        info!(nexus, initiator = task.nexus.initiator, list = ?named, segments = plan.steps.len(), "EXTENDED COPY");
        let work = async move {
            let _admitted = admitted;
            let turn = tokio::select! {
                biased;
                () = abort.cancelled() => None,
                turn = turns.acquire_owned() => turn.ok(),
            };
            let response = match turn {
                Some(_turn) => counters.count(jobs::run(plan, &movers, &progress, &abort)).await,
                None => Sense::COMMANDS_CLEARED_BY_DEVICE_SERVER.into(),
            };
            match named {
                // BUSY is not how a copy ends, but that it did not begin.
                Some(id) if response.status == Status::Busy => results.withdraw(nexus, id),
                Some(id) => results.end(nexus, id, &response, format),
                None => {}
            }
            response
        };
        Ok(Execution::Async(Box::pin(async move {
            // A task of its own: when the nexus is lost and nobody waits for this response, the copy still goes on.
            tokio::spawn(work).await.unwrap_or_else(|_| Sense::INTERNAL_TARGET_FAILURE.into())
        })))
    }
}

impl Counters {
    async fn count(&self, job: impl Future<Output = jobs::Ended>) -> Response {
        self.running.fetch_add(1, Ordering::Relaxed);
        let ended = job.await;
        self.running.fetch_sub(1, Ordering::Relaxed);
        let good = ended.response.status == Status::Good;
        (if good { &self.done } else { &self.failed }).fetch_add(1, Ordering::Relaxed);
        self.segments.fetch_add(ended.segments, Ordering::Relaxed);
        *self.bytes.lock().expect("no holder panics") += ended.written;
        ended.response
    }
}

impl CopyService for CopyManager {
    fn extended_copy(self: Arc<Self>, device: Device, task: Task) -> Execution {
        self.begin(&device, task).unwrap_or_else(|sense| {
            debug!(%sense, "EXTENDED COPY refused");
            Execution::Done(sense.into())
        })
    }

    fn receive_copy(&self, device: &Device, task: &Task) -> Response {
        let cdb = task.cdb.basic();
        let allocation_length = u32::from_be_bytes([cdb[10], cdb[11], cdb[12], cdb[13]]);
        let (nexus, id) = (task.nexus.id, u32::from(cdb[2]));
        let data = match cdb[1] & 0x1F {
            0x00 => self.results.status(nexus, id).map(|status| status.emit().to_vec()),
            0x03 => Some(OperatingParameters::of(device_type(device)).emit()),
            0x04 => {
                // Dropped once they were transferred whole, or when nothing of them is wanted.
                let whole = self.results.details(nexus, id, false).map(|details| details.map_or(vec![0; 4], |d| d.emit()));
                if whole
                    .as_ref()
                    .is_some_and(|whole| allocation_length == 0 || whole.len() as u64 <= u64::from(allocation_length))
                {
                    let _ = self.results.details(nexus, id, true);
                }
                whole
            }
            _ => return Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb_bit(1, 4)).into(),
        };
        match data {
            Some(data) => data_in(data, allocation_length),
            None => Sense::INVALID_FIELD_IN_CDB.at(FieldPointer::cdb(2)).into(),
        }
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
