//! What is known of copy operations, by I_T nexus and list identifier, for whoever monitors, ends or fetches from them.
//!
//! One number space for identifiers of 8 and of 32 bits. A nexus that is gone takes its results with it; a copy of it goes on.
//! Runs nothing. SPC-4, "List identifiers for third-party copy commands" and "Held data".

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

use protocol::scsi::{Sense, SenseFormat, Status};
use protocol::xcopy::operation::{CopyOperationStatus, OperationStatus};
use protocol::xcopy::results::{CopyCommandStatus, CopyStatus, FailureDetails};
use protocol::xcopy::{HELD_DATA_LIMIT, ListFormat, RodToken};
use tokio_util::sync::CancellationToken;

use super::jobs::Ended;
use crate::nexus::Nexus;

/// Results kept at most for one I_T nexus; then its oldest go, as the standard allows. With all the held data there may be, 4 MiB.
const KEPT: usize = 64;

/// How far a copy is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Segments begun, the current one included.
    pub segments: AtomicU32,
    /// Bytes written to copy destinations.
    pub written: AtomicU64,
    /// What the mover has told and asked: it stands for the commands that a copy manager sends.
    pub operations: AtomicU32,
    held: Mutex<Option<Held>>,
}

/// Held data, and whether there was more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The last of it.
    pub data: Vec<u8>,
    /// HDD.
    pub discarded: bool,
}

impl Progress {
    /// Takes over what a mover holds; of one that holds too much, the last of it.
    pub fn hold(&self, mut data: Vec<u8>, discarded: bool) {
        data.drain(..data.len().saturating_sub(HELD_DATA_LIMIT));
        *self.held.lock().expect("no holder panics") = Some(Held { data, discarded });
    }
}

/// Which command has begun an operation, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// SERVICE ACTION of THIRD-PARTY COPY OUT.
    pub service_action: u8,
    /// Format of its list, where it is an EXTENDED COPY.
    pub format: Option<ListFormat>,
    /// Bytes of the blocks that TRANSFER COUNT counts, where it does not count bytes.
    pub counts_blocks_of: Option<u64>,
    /// IMMED.
    pub background: bool,
    /// [`crate::lun::Device::address`] of the logical unit it was sent to.
    pub device: usize,
}

/// An operation in the hands of the one who carries it out. Dropped without [`Underway::end`], as when its task panics or is lost, it
/// has failed, and says so: its list identifier is free again.
#[derive(Debug)]
#[must_use = "dropping it says that the operation was lost"]
pub struct Underway {
    /// To be kept up to date.
    pub progress: Arc<Progress>,
    /// Fires when it is to be aborted.
    pub abort: CancellationToken,
    entry: Option<Entry>,
}

/// Where an operation with a list identifier is entered, and how its sense data is written.
#[derive(Debug)]
struct Entry {
    results: Arc<Results>,
    key: Key,
    format: SenseFormat,
}

impl Underway {
    /// One that nobody can ask for: it has no list identifier.
    pub fn unnamed(abort: CancellationToken) -> Self {
        Self { progress: Arc::default(), abort, entry: None }
    }

    /// It has ended like this.
    pub fn end(mut self, ended: &Ended) {
        if let Some(entry) = self.entry.take() {
            entry.results.end(entry.key, ended, entry.format);
        }
    }

    /// It did not begin after all, and is forgotten.
    pub fn withdraw(mut self) {
        if let Some(entry) = self.entry.take()
            && let Some(operation) = entry.results.state().operations.remove(&entry.key)
        {
            operation.over.cancel();
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.results.end(entry.key, &Ended::lost(&self.progress), entry.format);
        }
    }
}

#[derive(Debug)]
struct Operation {
    nexus: Weak<Nexus>,
    origin: Origin,
    order: u64,
    since: Instant,
    progress: Arc<Progress>,
    abort: CancellationToken,
    /// Fires when it has ended.
    over: CancellationToken,
    outcome: Option<Outcome>,
}

#[derive(Debug, Clone)]
struct Outcome {
    how: CopyOperationStatus,
    completion: Status,
    sense: Vec<u8>,
    /// Failure details of a LID1 list; gone once they were fetched.
    details: Option<FailureDetails>,
    held: Option<Held>,
    /// ROD tokens; gone once they were fetched.
    tokens: Vec<(u16, RodToken)>,
    /// RECEIVE COPY STATUS(LID1) was told of it.
    told: bool,
}

type Key = (u64, u32);

#[derive(Debug, Default)]
struct State {
    operations: BTreeMap<Key, Operation>,
    begun: u64,
}

/// All copy operations that can be asked for.
#[derive(Debug, Default)]
pub struct Results {
    state: Mutex<State>,
}

impl Results {
    /// Enters an operation; the results of an earlier one with its identifier go. `abort` is what ends it, `format` that of its sense
    /// data.
    ///
    /// # Errors
    /// OPERATION IN PROGRESS while one with its identifier runs, INVALID FIELD IN PARAMETER LIST when that is of the other format.
    pub fn begin(
        self: &Arc<Self>,
        nexus: &Arc<Nexus>,
        id: u32,
        origin: Origin,
        abort: CancellationToken,
        format: SenseFormat,
    ) -> Result<Underway, Sense> {
        let state = &mut *self.state();
        let operations = &mut state.operations;
        operations.retain(|_, operation| operation.nexus.strong_count() > 0 || operation.outcome.is_none());
        let key = (nexus.id, id);
        if let Some(running) = operations.get(&key).filter(|operation| operation.outcome.is_none()) {
            return Err(match (running.origin.format, origin.format) {
                (Some(one), Some(other)) if one != other => Sense::INVALID_FIELD_IN_PARAMETER_LIST,
                _ => Sense::OPERATION_IN_PROGRESS,
            });
        }
        operations.remove(&key);
        let own = || operations.range((nexus.id, 0)..=(nexus.id, u32::MAX));
        if own().count() >= KEPT {
            let ended = own().filter(|(_, operation)| operation.outcome.is_some());
            if let Some(oldest) = ended.min_by_key(|(_, operation)| operation.order).map(|(key, _)| *key) {
                operations.remove(&oldest);
            }
        }
        state.begun += 1;
        let progress = Arc::<Progress>::default();
        let operation = Operation {
            nexus: Arc::downgrade(nexus),
            origin,
            order: state.begun,
            since: Instant::now(),
            progress: Arc::clone(&progress),
            abort: abort.clone(),
            over: CancellationToken::new(),
            outcome: None,
        };
        state.operations.insert(key, operation);
        Ok(Underway { progress, abort, entry: Some(Entry { results: Arc::clone(self), key, format }) })
    }

    /// An operation has ended.
    fn end(&self, key: Key, ended: &Ended, format: SenseFormat) {
        if let Some(operation) = self.state().operations.get_mut(&key) {
            let response = &ended.response;
            let sense = response.sense.as_ref().map(|sense| sense.emit(format));
            let how = match (ended.terminated, response.status) {
                (true, _) => CopyOperationStatus::Terminated,
                _ if ended.partial => CopyOperationStatus::PartialToken,
                (_, Status::Good) if ended.dropped => CopyOperationStatus::Residual,
                (_, Status::Good) => CopyOperationStatus::Done,
                _ => CopyOperationStatus::Failed,
            };
            let details = sense.clone().map(|sense| FailureDetails { status: response.status as u8, sense });
            operation.outcome = Some(Outcome {
                how,
                completion: if ended.terminated { Status::TaskAborted } else { response.status },
                sense: sense.filter(|_| !ended.terminated).unwrap_or_default(),
                details: details.filter(|_| operation.origin.format == Some(ListFormat::Lid1)),
                held: operation.progress.held.lock().expect("no holder panics").take(),
                tokens: ended.tokens.clone(),
                told: false,
            });
            operation.over.cancel();
        }
    }

    /// Asks an operation that runs to end. Gives what fires when it has; `None` where none runs.
    #[must_use]
    pub fn abort(&self, nexus: u64, id: u32) -> Option<CancellationToken> {
        let state = self.state();
        let operation = state.operations.get(&(nexus, id)).filter(|operation| operation.outcome.is_none())?;
        operation.abort.cancel();
        Some(operation.over.clone())
    }

    /// Asks all operations in the background to end that were sent to a logical unit, by some nexuses or by any. `reset` forgets
    /// those that have ended. Gives what fires when they have.
    #[must_use]
    pub fn abort_background(&self, device: usize, nexuses: Option<&[u64]>) -> Vec<CancellationToken> {
        let mut state = self.state();
        if nexuses.is_none() {
            state.operations.retain(|_, operation| operation.origin.device != device || operation.outcome.is_none());
        }
        let hit = state.operations.iter().filter(|((nexus, _), operation)| {
            let asked = nexuses.is_none_or(|nexuses| nexuses.contains(nexus));
            asked && operation.origin.background && operation.origin.device == device && operation.outcome.is_none()
        });
        hit.map(|(_, operation)| {
            operation.abort.cancel();
            operation.over.clone()
        })
        .collect()
    }

    /// RECEIVE COPY STATUS(LID1). The status of an operation that has ended is told once.
    #[must_use]
    pub fn status(&self, nexus: u64, id: u32) -> Option<CopyStatus> {
        let mut state = self.state();
        let operation = state.operations.get_mut(&(nexus, id))?;
        let progress = Arc::clone(&operation.progress);
        let answer = |status, held_data_discarded| CopyStatus {
            status,
            segments_processed: progress.segments.load(Ordering::Relaxed).try_into().unwrap_or(u16::MAX),
            transferred: progress.written.load(Ordering::Relaxed),
            held_data_discarded,
        };
        let Some(outcome) = &mut operation.outcome else { return Some(answer(CopyCommandStatus::InProgress, false)) };
        if outcome.told {
            return None;
        }
        let done = if outcome.how.is_without_errors() { CopyCommandStatus::Done } else { CopyCommandStatus::Failed };
        let status = answer(done, outcome.held.as_ref().is_some_and(|held| held.discarded));
        // Whoever uses identifiers of 32 bits may still ask.
        outcome.told = operation.origin.format == Some(ListFormat::Lid1);
        state.tidy((nexus, id));
        Some(status)
    }

    /// RECEIVE COPY FAILURE DETAILS(LID1): `None` for an identifier that is not known or still at work, an empty answer where
    /// nothing failed. `discard` drops them, once they were or need not be transferred.
    #[must_use]
    pub fn details(&self, nexus: u64, id: u32, discard: bool) -> Option<Option<FailureDetails>> {
        let mut state = self.state();
        let operation = state.operations.get_mut(&(nexus, id))?;
        // "… no EXTENDED COPY(LID1) command known to the copy manager …"
        let outcome = operation.outcome.as_mut().filter(|_| operation.origin.format == Some(ListFormat::Lid1))?;
        let details = outcome.details.clone();
        if discard {
            outcome.details = None;
            state.tidy((nexus, id));
        }
        Some(details)
    }

    /// RECEIVE COPY DATA(LID1): `None` for an identifier that is not known or still at work. `discard` as in
    /// [`Results::details`].
    #[must_use]
    pub fn held(&self, nexus: u64, id: u32, discard: bool) -> Option<Vec<u8>> {
        let mut state = self.state();
        let outcome = state.operations.get_mut(&(nexus, id))?.outcome.as_mut()?;
        let data = outcome.held.as_ref().map(|held| held.data.clone()).unwrap_or_default();
        if discard {
            outcome.held = None;
            state.tidy((nexus, id));
        }
        Some(data)
    }

    /// What RECEIVE ROD TOKEN INFORMATION tells behind the header: no token before the end. `discard` as in [`Results::details`].
    #[must_use]
    pub fn tokens(&self, nexus: u64, id: u32, discard: bool) -> Vec<(u16, RodToken)> {
        let mut state = self.state();
        let outcome = state.operations.get_mut(&(nexus, id)).and_then(|operation| operation.outcome.as_mut());
        match outcome {
            Some(outcome) if discard => std::mem::take(&mut outcome.tokens),
            Some(outcome) => outcome.tokens.clone(),
            None => Vec::new(),
        }
    }

    /// The shared third-party copy status header.
    #[must_use]
    pub fn operation(&self, nexus: u64, id: u32) -> Option<OperationStatus> {
        let state = self.state();
        let operation = state.operations.get(&(nexus, id))?;
        let outcome = operation.outcome.as_ref();
        if outcome.is_some_and(|outcome| outcome.told) {
            return None;
        }
        let progress = &operation.progress;
        let running = if operation.origin.background { CopyOperationStatus::Background } else { CopyOperationStatus::Foreground };
        Some(OperationStatus {
            service_action: operation.origin.service_action,
            held_data_discarded: outcome.and_then(|outcome| outcome.held.as_ref()).is_some_and(|held| held.discarded),
            status: outcome.map_or(running, |outcome| outcome.how),
            operation_counter: progress.operations.load(Ordering::Relaxed) as u16,
            update_delay_ms: match outcome {
                Some(_) => OperationStatus::NO_MORE_UPDATES,
                // A copy that has run long is likely to run on.
                None => (operation.since.elapsed().as_millis() / 8).clamp(10, 2000) as u32,
            },
            completion_status: outcome.map_or(0, |outcome| outcome.completion as u8),
            transferred: progress.written.load(Ordering::Relaxed) / operation.origin.counts_blocks_of.unwrap_or(1),
            in_blocks: operation.origin.counts_blocks_of.is_some(),
            segments_processed: match operation.origin.format {
                Some(_) => progress.segments.load(Ordering::Relaxed).try_into().unwrap_or(u16::MAX),
                None => 0,
            },
            sense: outcome.map(|outcome| outcome.sense.clone()).unwrap_or_default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    /// An operation of a LID1 list of which all was told is forgotten.
    fn tidy(&mut self, key: Key) {
        let all_told = |outcome: &Outcome| outcome.told && outcome.details.is_none() && outcome.held.is_none();
        if self.operations.get(&key).and_then(|operation| operation.outcome.as_ref()).is_some_and(all_told) {
            self.operations.remove(&key);
        }
    }
}
