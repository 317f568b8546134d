//! The task set of a logical unit: which command may begin, by the task attributes of all that are there.
//!
//! One set for all I_T nexuses, as TST 000b of the control mode page says. SIMPLE commands among themselves begin at once and cost
//! one atomic addition; order is only kept while a command of another attribute is in the set: HEAD OF QUEUE begins at once, ORDERED
//! when all older ones have ended, SIMPLE when all HEAD OF QUEUE and all older ORDERED ones have. There is no ACA. Does not run
//! commands. Follows SAM-5, "Task set management".

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::task::Attribute;

/// One command that keeps others in order, in [`TaskSet::state`]; below it, SIMPLE commands that have begun.
const STRICT: u64 = 1 << 32;

/// Called when a command may begin that had to wait.
pub type Wake = Box<dyn FnOnce() + Send>;

/// See the module.
#[derive(Debug, Default)]
pub struct TaskSet {
    /// Commands that are HEAD OF QUEUE or ORDERED, times [`STRICT`], and SIMPLE ones that have begun.
    state: AtomicU64,
    order: Mutex<Order>,
}

#[derive(Debug, Default)]
struct Order {
    next: u64,
    heads: usize,
    /// An ORDERED command has begun.
    ordered: bool,
    /// By age.
    dormant: VecDeque<Dormant>,
}

struct Dormant {
    number: u64,
    ordered: bool,
    wake: Wake,
}

impl fmt::Debug for Dormant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dormant").field("number", &self.number).field("ordered", &self.ordered).finish_non_exhaustive()
    }
}

/// The place of a command in the set, until it is dropped: when the command has ended, or never will begin.
#[derive(Debug)]
pub struct Place {
    set: Arc<TaskSet>,
    attribute: Attribute,
    /// Of one that had to wait.
    number: Option<u64>,
}

impl TaskSet {
    /// Takes a command in. When it may not begin at once, `wake` makes what tells that it may.
    pub fn enter(self: &Arc<Self>, attribute: Attribute, wake: impl FnOnce() -> Wake) -> Place {
        let place = |number| Place { set: Arc::clone(self), attribute, number };
        if attribute == Attribute::Simple {
            if self.state.fetch_add(1, Ordering::SeqCst) < STRICT {
                return place(None);
            }
            let mut order = self.order();
            self.state.fetch_sub(1, Ordering::SeqCst);
            return place(self.wait(&mut order, false, wake));
        }
        let mut order = self.order();
        self.state.fetch_add(STRICT, Ordering::SeqCst);
        if attribute == Attribute::HeadOfQueue {
            order.heads += 1;
            return place(None);
        }
        place(self.wait(&mut order, true, wake))
    }

    /// Puts a command behind all others, and lets begin who may, itself included: then it has no number.
    fn wait(&self, order: &mut Order, ordered: bool, wake: impl FnOnce() -> Wake) -> Option<u64> {
        let number = order.next;
        order.next += 1;
        order.dormant.push_back(Dormant { number, ordered, wake: Box::new(|| ()) });
        self.promote(order);
        let waiting = order.dormant.back_mut().filter(|last| last.number == number)?;
        waiting.wake = wake();
        Some(number)
    }

    /// Lets begin, from the oldest on, who may.
    fn promote(&self, order: &mut Order) {
        while order.heads == 0
            && !order.ordered
            && let Some(first) = order.dormant.front()
        {
            if first.ordered {
                if !self.state.load(Ordering::SeqCst).is_multiple_of(STRICT) {
                    return;
                }
                order.ordered = true;
            } else {
                self.state.fetch_add(1, Ordering::SeqCst);
            }
            if let Some(first) = order.dormant.pop_front() {
                (first.wake)();
            }
        }
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().expect("no holder panics")
    }
}

impl Place {
    /// True when the command may begin.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.number.is_none_or(|number| !self.set.order().dormant.iter().any(|waiting| waiting.number == number))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let set = &self.set;
        if self.attribute == Attribute::Simple && self.number.is_none() {
            if set.state.fetch_sub(1, Ordering::SeqCst) >= STRICT {
                set.promote(&mut set.order());
            }
            return;
        }
        let mut order = set.order();
        let waiting = self.number.and_then(|number| order.dormant.iter().position(|waiting| waiting.number == number));
        match (waiting, self.attribute) {
            (Some(at), _) => drop(order.dormant.remove(at)),
            (None, Attribute::Simple) => drop(set.state.fetch_sub(1, Ordering::SeqCst)),
            (None, Attribute::Ordered) => order.ordered = false,
            (None, Attribute::HeadOfQueue) => order.heads -= 1,
        }
        if self.attribute != Attribute::Simple {
            set.state.fetch_sub(STRICT, Ordering::SeqCst);
        }
        set.promote(&mut order);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use proptest::prelude::*;

    use super::*;
    use Attribute::{HeadOfQueue, Ordered, Simple};

    fn enter(set: &Arc<TaskSet>, attribute: Attribute) -> (Place, Receiver<()>) {
        let (woken, told) = channel();
        let place = set.enter(attribute, move || Box::new(move || woken.send(()).unwrap_or_default()));
        (place, told)
    }

    #[test]
    fn simple_commands_do_not_wait_for_each_other() {
        let set = Arc::new(TaskSet::default());
        let places: Vec<_> = (0..3).map(|_| enter(&set, Simple)).collect();
        assert!(places.iter().all(|(place, _)| place.may_begin()));
    }

    #[test]
    fn ordered_waits_for_all_older_and_holds_up_all_younger() {
        let set = Arc::new(TaskSet::default());
        let (older, _) = enter(&set, Simple);
        let (ordered, told) = enter(&set, Ordered);
        let (younger, younger_told) = enter(&set, Simple);
        assert!(!ordered.may_begin() && !younger.may_begin());
        drop(older);
        told.try_recv().expect("the ordered one is told");
        assert!(ordered.may_begin() && !younger.may_begin());
        drop(ordered);
        younger_told.try_recv().expect("the younger one is told");
        drop(younger);
        assert_eq!(set.state.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn head_of_queue_passes_all_that_wait_and_holds_up_what_comes_behind_it() {
        let set = Arc::new(TaskSet::default());
        let (simple, _) = enter(&set, Simple);
        let (ordered, _) = enter(&set, Ordered);
        let (head, _) = enter(&set, HeadOfQueue);
        assert!(head.may_begin() && !ordered.may_begin());
        drop(simple);
        assert!(!ordered.may_begin(), "a head of queue is there");
        drop(head);
        assert!(ordered.may_begin());
    }

    #[test]
    fn one_that_is_aborted_while_it_waits_holds_up_nobody() {
        let set = Arc::new(TaskSet::default());
        let (older, _) = enter(&set, Simple);
        let (ordered, _) = enter(&set, Ordered);
        let (younger, _) = enter(&set, Simple);
        drop(ordered);
        assert!(younger.may_begin());
        drop((older, younger));
        assert_eq!(set.state.load(Ordering::SeqCst), 0);
    }

    proptest! {
        /// Whatever comes and goes: no ORDERED command runs beside an older or younger one but HEAD OF QUEUE, and all come to run.
        #[test]
        fn order_holds_and_everybody_comes_to_run(steps in proptest::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..60)) {
            let set = Arc::new(TaskSet::default());
            let mut there: Vec<(Place, Receiver<()>)> = Vec::new();
            for (step, at) in steps {
                let attribute = [Simple, Ordered, HeadOfQueue].get(usize::from(step));
                if let Some(attribute) = attribute {
                    there.push(enter(&set, *attribute));
                } else if !there.is_empty() {
                    there.remove(at.index(there.len()));
                }
                for (at, (place, _)) in there.iter().enumerate() {
                    let blocks = |other: &Place| other.attribute != HeadOfQueue;
                    if place.attribute == Ordered && place.may_begin() {
                        prop_assert!(there[..at].iter().all(|(older, _)| !blocks(older)));
                        prop_assert!(there[at + 1..].iter().all(|(younger, _)| !blocks(younger) || !younger.may_begin()));
                    }
                }
            }
            while let Some(at) = there.iter().position(|(place, _)| place.may_begin()) {
                there.remove(at);
            }
            prop_assert!(there.is_empty(), "somebody waits for nobody");
            prop_assert_eq!(set.state.load(Ordering::SeqCst), 0);
        }
    }
}
