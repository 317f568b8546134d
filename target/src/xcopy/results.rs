//! What is known of copy operations, by I_T nexus and list identifier, for the RECEIVE COPY commands.
//!
//! A nexus that is gone takes its results with it; a copy of it goes on. SPC-4, "List identifiers for third-party copy commands".

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use protocol::scsi::{Sense, SenseFormat};
use protocol::xcopy::results::{CopyCommandStatus, CopyStatus, FailureDetails};

use crate::nexus::Nexus;
use crate::task::Response;

/// Results kept at most; then the oldest go, as the standard allows.
const KEPT: usize = 1024;

/// How far a copy is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Segments begun, the current one included.
    pub segments: AtomicU32,
    /// Bytes written to copy destinations.
    pub written: AtomicU64,
}

#[derive(Debug)]
struct Operation {
    nexus: Weak<Nexus>,
    order: u64,
    progress: Arc<Progress>,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
struct Outcome {
    failed: bool,
    /// Gone once they were fetched.
    details: Option<FailureDetails>,
    /// Fetched, and kept only for the details.
    told: bool,
}

type Key = (u64, u32);

/// All copy operations that can be asked for.
#[derive(Debug, Default)]
pub struct Results {
    operations: Mutex<(BTreeMap<Key, Operation>, u64)>,
}

impl Results {
    /// Enters an operation; the results of an earlier one with its identifier go.
    ///
    /// # Errors
    /// OPERATION IN PROGRESS while one with its identifier runs.
    pub fn begin(&self, nexus: &Arc<Nexus>, id: u32) -> Result<Arc<Progress>, Sense> {
        let (operations, counter) = &mut *self.operations.lock().expect("no holder panics");
        operations.retain(|_, operation| operation.nexus.strong_count() > 0 || operation.outcome.is_none());
        let key = (nexus.id, id);
        if operations.get(&key).is_some_and(|operation| operation.outcome.is_none()) {
            return Err(Sense::OPERATION_IN_PROGRESS);
        }
        if operations.len() >= KEPT {
            let ended = operations.iter().filter(|(_, operation)| operation.outcome.is_some());
            if let Some(oldest) = ended.min_by_key(|(_, operation)| operation.order).map(|(key, _)| *key) {
                operations.remove(&oldest);
            }
        }
        *counter += 1;
        let progress = Arc::new(Progress::default());
        let operation =
            Operation { nexus: Arc::downgrade(nexus), order: *counter, progress: Arc::clone(&progress), outcome: None };
        operations.insert(key, operation);
        Ok(progress)
    }

    /// Forgets an operation that did not begin after all.
    pub fn withdraw(&self, nexus: u64, id: u32) {
        self.operations.lock().expect("no holder panics").0.remove(&(nexus, id));
    }

    /// An operation has ended with this response.
    pub fn end(&self, nexus: u64, id: u32, response: &Response, format: SenseFormat) {
        let details =
            response.sense.as_ref().map(|sense| FailureDetails { status: response.status as u8, sense: sense.emit(format) });
        let outcome = Outcome { failed: details.is_some(), details, told: false };
        if let Some(operation) = self.operations.lock().expect("no holder panics").0.get_mut(&(nexus, id)) {
            operation.outcome = Some(outcome);
        }
    }

    /// RECEIVE COPY STATUS(LID1). The status of an operation that has ended is told once.
    #[must_use]
    pub fn status(&self, nexus: u64, id: u32) -> Option<CopyStatus> {
        let mut operations = self.operations.lock().expect("no holder panics");
        let operation = operations.0.get_mut(&(nexus, id))?;
        let (segments, written) = (&operation.progress.segments, &operation.progress.written);
        let answer = |status| CopyStatus {
            status,
            segments_processed: segments.load(Ordering::Relaxed).try_into().unwrap_or(u16::MAX),
            transferred: written.load(Ordering::Relaxed),
        };
        let Some(outcome) = &mut operation.outcome else { return Some(answer(CopyCommandStatus::InProgress)) };
        if outcome.told {
            return None;
        }
        let status = answer(if outcome.failed { CopyCommandStatus::Failed } else { CopyCommandStatus::Done });
        outcome.told = true;
        if outcome.details.is_none() {
            operations.0.remove(&(nexus, id));
        }
        Some(status)
    }

    /// RECEIVE COPY FAILURE DETAILS(LID1): `None` for an identifier that is not known or still at work, an empty answer where
    /// nothing failed. `discard` drops them, once they were or need not be transferred.
    #[must_use]
    pub fn details(&self, nexus: u64, id: u32, discard: bool) -> Option<Option<FailureDetails>> {
        let mut operations = self.operations.lock().expect("no holder panics");
        let outcome = operations.0.get_mut(&(nexus, id))?.outcome.as_mut()?;
        let details = outcome.details.clone();
        if discard {
            outcome.details = None;
            if outcome.told {
                operations.0.remove(&(nexus, id));
            }
        }
        Some(details)
    }
}
