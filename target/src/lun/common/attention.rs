//! Unit attention conditions: what happened to a logical unit that a nexus has not been told yet.
//!
//! A nexus is known from its first command to this logical unit on; what happened before is no news to it, so that no condition
//! waits for a nexus that has just logged in. Follows SAM-5, "Unit attention conditions".

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use protocol::scsi::Sense;

/// Conditions kept for one nexus. SAM-5 lets a device server drop some; the oldest stay, since a reset says more than what follows.
const PENDING_MAX: usize = 16;

/// The conditions of one logical unit, by nexus.
#[derive(Debug, Default)]
pub struct Attentions {
    pending: Mutex<BTreeMap<u64, VecDeque<Sense>>>,
}

impl Attentions {
    /// From now on the nexus is told what happens.
    pub fn know(&self, nexus: u64) {
        self.pending().entry(nexus).or_default();
    }

    /// Establishes a condition for one nexus, unless the same one is waiting already.
    pub fn establish(&self, nexus: u64, condition: Sense) {
        push(self.pending().entry(nexus).or_default(), condition);
    }

    /// Establishes a condition for every known nexus but the one that caused it.
    pub fn establish_for_all(&self, condition: &Sense, but: Option<u64>) {
        for (_, queue) in self.pending().iter_mut().filter(|(nexus, _)| Some(**nexus) != but) {
            push(queue, condition.clone());
        }
    }

    /// The next condition to report, which clears it.
    #[must_use]
    pub fn take(&self, nexus: u64) -> Option<Sense> {
        self.pending().entry(nexus).or_default().pop_front()
    }

    /// Drops the nexus and what it was to be told.
    pub fn forget(&self, nexus: u64) {
        self.pending().remove(&nexus);
    }

    /// Clears all conditions, as a reset does before it establishes its own.
    pub fn clear(&self) {
        self.pending().values_mut().for_each(VecDeque::clear);
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, VecDeque<Sense>>> {
        self.pending.lock().expect("no holder panics")
    }
}

fn push(queue: &mut VecDeque<Sense>, condition: Sense) {
    if queue.len() < PENDING_MAX && !queue.contains(&condition) {
        queue.push_back(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_told_once_to_each_nexus_but_the_one_that_caused_it() {
        let attentions = Attentions::default();
        (1..=3).for_each(|nexus| attentions.know(nexus));
        attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, Some(2));
        attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, Some(2));
        assert_eq!(attentions.take(1), Some(Sense::MODE_PARAMETERS_CHANGED));
        assert_eq!(attentions.take(1), None);
        assert_eq!(attentions.take(2), None);
        assert_eq!(attentions.take(3), Some(Sense::MODE_PARAMETERS_CHANGED));
    }

    #[test]
    fn a_nexus_that_comes_later_is_not_told_what_happened_before() {
        let attentions = Attentions::default();
        attentions.establish_for_all(&Sense::CAPACITY_DATA_HAS_CHANGED, None);
        attentions.know(7);
        assert_eq!(attentions.take(7), None);
    }
}
