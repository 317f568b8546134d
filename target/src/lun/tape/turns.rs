//! The order of commands on one drive: each waits for those that came before it.
//!
//! Threads take commands off a queue in order but reach the drive in any. A turn is given back when it is dropped, also of a command
//! that was aborted before it began, so nobody waits for one that never comes.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex};

/// Gives out turns.
#[derive(Debug, Default)]
pub struct Turns {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    waiting: BTreeSet<u64>,
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
        let mut queue = self.shared.queue.lock().expect("no holder panics");
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number);
        Turn { shared: Arc::clone(&self.shared), number }
    }
}

impl Turn {
    /// Blocks until all before it are done.
    pub fn wait(&self) {
        let mut queue = self.shared.queue.lock().expect("no holder panics");
        while queue.waiting.first() != Some(&self.number) {
            queue = self.shared.moved.wait(queue).expect("no holder panics");
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.queue.lock().expect("no holder panics").waiting.remove(&self.number);
        self.shared.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn turns_are_served_in_order_and_dropped_ones_are_skipped() {
        let turns = Turns::default();
        let (first, second, third) = (turns.take(), turns.take(), turns.take());
        let (done, order) = mpsc::channel();
        let late = {
            let done = done.clone();
            thread::spawn(move || {
                third.wait();
                done.send(3).unwrap();
            })
        };
        drop(second);
        first.wait();
        done.send(1).unwrap();
        drop(first);
        late.join().unwrap();
        assert_eq!([order.recv().unwrap(), order.recv().unwrap()], [1, 3]);
    }
}
