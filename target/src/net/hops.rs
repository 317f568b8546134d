//! Blocking work of one connection, on as few hops to another thread as serve it.
//!
//! Commands of one wake-up share a hop, since the hop costs more than a small read. Two hops run side by side from the start,
//! and a few more when those are held up, so that a long command does not keep the others waiting. Order is not kept: none is
//! asked for between simple tasks.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::scsi::Sense;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::management::{Finished, Message};
use crate::task::Response;

/// Threads that one connection may hold.
const MAX_HOPS: usize = 8;
/// Hops started for the commands of one wake-up.
const HOPS_PER_BATCH: usize = 2;
/// Replies are gathered for so long before the connection is woken for them.
const GATHER: Duration = Duration::from_micros(200);

/// One command's work.
pub(super) struct Job {
    pub run: u64,
    pub abort: CancellationToken,
    pub work: Box<dyn FnOnce() -> Response + Send>,
}

/// The hops of a connection.
#[derive(Clone)]
pub(super) struct Hops {
    queue: Arc<Mutex<Queue>>,
    messages: mpsc::UnboundedSender<Message>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    hops: usize,
    /// Ended, and not told yet: replies are gathered.
    untold: Vec<Finished>,
}

impl Hops {
    pub fn new(messages: mpsc::UnboundedSender<Message>) -> Self {
        Self { queue: Arc::default(), messages }
    }

    /// Starts the commands of one wake-up.
    pub fn start(&self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let more = {
            let mut queue = self.queue();
            let more = batch.len().min(HOPS_PER_BATCH).min(MAX_HOPS - queue.hops);
            queue.jobs.extend(batch);
            queue.hops += more;
            more
        };
        for _ in 0..more {
            let hops = self.clone();
            tokio::task::spawn_blocking(move || hops.work());
        }
    }

    fn work(&self) {
        let mut since = Instant::now();
        let mut finished = None;
        while let Some(job) = self.next(finished.take(), &mut since) {
            finished = Some(Finished { run: job.run, response: execute(job) });
        }
    }

    /// Takes the end of one job and gives the next; without one the hop is over, under the same lock, so that no job and no reply
    /// is left behind.
    fn next(&self, finished: Option<Finished>, since: &mut Instant) -> Option<Job> {
        let mut queue = self.queue();
        queue.untold.extend(finished);
        let job = queue.jobs.pop_front();
        queue.hops -= usize::from(job.is_none());
        if (job.is_none() || since.elapsed() >= GATHER) && !queue.untold.is_empty() {
            *since = Instant::now();
            // A connection that is gone has nobody to answer.
            let _ = self.messages.send(Message::Finished(std::mem::take(&mut queue.untold)));
        }
        job
    }

    /// What has ended and was not told: a job that takes long must not hold up the reply to the one before it.
    pub fn collect(&self) -> Vec<Finished> {
        std::mem::take(&mut self.queue().untold)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder panics")
    }
}

/// `None` for a command that was aborted before its turn.
fn execute(job: Job) -> Option<Response> {
    if job.abort.is_cancelled() {
        return None;
    }
    Some(catch_unwind(AssertUnwindSafe(job.work)).unwrap_or_else(|_| {
        error!(run = job.run, "a command panicked");
        Sense::INTERNAL_TARGET_FAILURE.into()
    }))
}
