//! The order of commands on one device that does one thing after the other: each waits for those that came before it.
//!
//! No thread waits: a command whose turn has come is given one, so that any number of connections hold up no other logical unit. A
//! turn is given back when it is dropped, also of a command that was aborted before it began, so nobody waits for one that never
//! comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use protocol::scsi::{Sense, Status};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::task::{Execution, Job, Response};

/// Gives out turns.
#[derive(Debug, Default)]
pub struct Turns {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// Who is to be told, by age.
    waiting: BTreeMap<u64, Option<oneshot::Sender<()>>>,
}

/// A place in the order.
#[derive(Debug)]
pub struct Turn {
    shared: Arc<Shared>,
    number: u64,
}

impl Turns {
    /// The next place.
    pub fn take(&self) -> Turn {
        let mut queue = self.shared.queue();
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number, None);
        Turn { shared: Arc::clone(&self.shared), number }
    }
}

impl Turn {
    /// Runs a command that may block when all before it are done, unless it is aborted first.
    ///
    /// `now` says how it is run when its turn has come already.
    pub fn run(self, abort: CancellationToken, now: fn(Job) -> Execution, run: Job) -> Execution {
        let run = |turn: Self| {
            Box::new(move || {
                let _turn = turn;
                run()
            })
        };
        let Some(come) = self.when_come() else { return now(run(self)) };
        Execution::Async(Box::pin(async move {
            let aborted = tokio::select! {
                biased;
                () = abort.cancelled() => true,
                _ = come => false,
            };
            if aborted {
                return Response::status(Status::TaskAborted);
            }
            let ended = tokio::task::spawn_blocking(run(self)).await;
            ended.unwrap_or_else(|_| Sense::INTERNAL_TARGET_FAILURE.into())
        }))
    }

    /// What tells that all before it are done; `None` when they are.
    fn when_come(&self) -> Option<oneshot::Receiver<()>> {
        let mut queue = self.shared.queue();
        if queue.waiting.first_key_value().is_some_and(|(first, _)| *first == self.number) {
            return None;
        }
        let (tell, told) = oneshot::channel();
        queue.waiting.insert(self.number, Some(tell));
        Some(told)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder panics")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.waiting.remove(&self.number);
        if let Some(mut first) = queue.waiting.first_entry()
            && let Some(tell) = first.get_mut().take()
        {
            // One that was dropped meanwhile tells the next itself.
            let _ = tell.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(log: &Arc<Mutex<Vec<u8>>>, name: u8) -> Job {
        let log = Arc::clone(log);
        Box::new(move || {
            log.lock().unwrap().push(name);
            Response::good()
        })
    }

    async fn finish(execution: Execution) -> Response {
        match execution {
            Execution::Done(response) => response,
            Execution::Blocking(run) | Execution::Alone(run) => run(),
            Execution::Async(future) => future.await,
        }
    }

    #[tokio::test]
    async fn turns_are_served_in_order_and_dropped_ones_are_skipped() {
        let (turns, log) = (Turns::default(), Arc::default());
        let (first, second, third) = (turns.take(), turns.take(), turns.take());
        let free = CancellationToken::new;
        let late = tokio::spawn(finish(third.run(free(), Execution::Blocking, noted(&log, 3))));
        let first = first.run(free(), Execution::Blocking, noted(&log, 1));
        assert!(matches!(first, Execution::Blocking(_)), "its turn has come");
        drop(second);
        finish(first).await;
        late.await.unwrap();
        assert_eq!(*log.lock().unwrap(), [1, 3]);
    }

    #[tokio::test]
    async fn one_that_is_aborted_before_its_turn_never_runs() {
        let (turns, log) = (Turns::default(), Arc::default());
        let (first, second) = (turns.take(), turns.take());
        let abort = CancellationToken::new();
        let second = tokio::spawn(finish(second.run(abort.clone(), Execution::Blocking, noted(&log, 2))));
        abort.cancel();
        assert_eq!(second.await.unwrap().status, Status::TaskAborted);
        finish(first.run(CancellationToken::new(), Execution::Blocking, noted(&log, 1))).await;
        assert_eq!(*log.lock().unwrap(), [1]);
    }
}
