//! Whose copy runs next: so many at once, the others by priority and then by age.
//!
//! A copy that runs is not held up by one of a higher priority. Follows SPC-4, "PRIORITY field".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// See the module.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    next: u64,
    /// By PRIORITY, of which 0 is the highest, and order of arrival.
    waiting: BTreeMap<(u8, u64), oneshot::Sender<Turn>>,
}

/// The right to run, until it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Turns>);

impl Turns {
    /// `count` copies run at once.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { free: count, next: 0, waiting: BTreeMap::new() }) })
    }

    /// Waits for a turn. Who gives up waiting loses nothing for the others.
    pub async fn take(self: &Arc<Self>, priority: u8) -> Turn {
        let turn = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn(Arc::clone(self));
            }
            let (sender, turn) = oneshot::channel();
            let place = (priority, state.next);
            state.next += 1;
            state.waiting.insert(place, sender);
            turn
        };
        turn.await.expect("a sender is dropped only after it has sent")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.state();
            match state.waiting.pop_first() {
                Some((_, waiting)) => waiting,
                None => {
                    state.free += 1;
                    return;
                }
            }
        };
        // One that has given up lets its turn drop, which passes it on.
        drop(next.send(Self(Arc::clone(&self.0))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_highest_priority_goes_first_and_who_gives_up_is_passed_over() {
        let turns = Turns::new(1);
        let running = turns.take(7).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let wait = |priority: u8, name: &'static str| {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            tokio::spawn(async move {
                let _turn = turns.take(priority).await;
                order.lock().unwrap().push(name);
            })
        };
        let mut waiters = Vec::new();
        for (priority, name) in [(3, "late"), (1, "first"), (1, "second"), (0, "gives up")] {
            waiters.push(wait(priority, name));
            tokio::task::yield_now().await;
        }
        while turns.state().waiting.len() < 4 {
            tokio::task::yield_now().await;
        }
        waiters.pop().unwrap().abort();
        tokio::task::yield_now().await;
        drop(running);
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["first", "second", "late"]);
        assert_eq!(turns.state().free, 1);
    }
}
