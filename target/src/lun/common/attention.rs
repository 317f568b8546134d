//! Unit attention conditions: what happened to a logical unit that a nexus has not been told yet.
//!
//! A nexus is known from its login or its first command to this logical unit on; what happened before is no news to it.
//! Follows SAM-5, "Unit attention conditions".

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use protocol::scsi::Sense;

use crate::nexus::{Nexus, NexusName};

/// Conditions kept for one nexus. SAM-5 lets a device server drop some; the oldest stay, since a reset says more than what follows.
const PENDING_MAX: usize = 16;
/// Nexuses that are looked up without the lock, by the low bits of their number.
const REMEMBERED: usize = 64;

/// The conditions of one logical unit, by nexus.
#[derive(Debug)]
pub struct Attentions {
    known: Mutex<BTreeMap<u64, Known>>,
    /// Nexuses that are known and have nothing to be told: a command of theirs takes no lock here. Written under the lock.
    content: [AtomicU64; REMEMBERED],
}

#[derive(Debug)]
struct Known {
    name: NexusName,
    pending: VecDeque<Sense>,
}

impl Default for Attentions {
    fn default() -> Self {
        Self { known: Mutex::default(), content: [const { AtomicU64::new(NOBODY) }; REMEMBERED] }
    }
}

/// No nexus has this number.
const NOBODY: u64 = 0;

impl Attentions {
    /// From now on the nexus is told what happens.
    pub fn know(&self, nexus: &Nexus) {
        if !self.is_content(nexus.id) {
            self.known().entry(nexus.id).or_insert_with(|| Known { name: nexus.name(), pending: VecDeque::new() });
        }
    }

    /// Establishes a condition for one known nexus, unless the same one is waiting already.
    pub fn establish(&self, nexus: u64, condition: Sense) {
        if let Some(known) = self.known().get_mut(&nexus) {
            self.push(nexus, known, &condition);
        }
    }

    /// As [`Attentions::establish`], for the nexus of this name, if it is known.
    pub fn establish_by_name(&self, name: &NexusName, condition: &Sense) {
        for (nexus, known) in self.known().iter_mut().filter(|(_, known)| known.name == *name) {
            self.push(*nexus, known, condition);
        }
    }

    /// Establishes a condition for every known nexus but the one that caused it.
    pub fn establish_for_all(&self, condition: &Sense, but: Option<u64>) {
        for (nexus, known) in self.known().iter_mut().filter(|(nexus, _)| Some(**nexus) != but) {
            self.push(*nexus, known, condition);
        }
    }

    /// The next condition to report, which clears it.
    #[must_use]
    pub fn take(&self, nexus: u64) -> Option<Sense> {
        if self.is_content(nexus) {
            return None;
        }
        let mut all = self.known();
        let known = all.get_mut(&nexus)?;
        let condition = known.pending.pop_front();
        if known.pending.is_empty() {
            self.slot(nexus).store(nexus, Ordering::Release);
        }
        condition
    }

    /// Takes back a condition that a nexus has learned of in another way.
    pub fn withdraw(&self, nexus: u64, condition: &Sense) {
        if let Some(known) = self.known().get_mut(&nexus) {
            known.pending.retain(|waiting| waiting != condition);
        }
    }

    /// Drops the nexus and what it was to be told.
    pub fn forget(&self, nexus: u64) {
        self.known().remove(&nexus);
        let _ = self.slot(nexus).compare_exchange(nexus, NOBODY, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Clears all conditions, as a reset does before it establishes its own.
    pub fn clear(&self) {
        self.known().values_mut().for_each(|known| known.pending.clear());
    }

    /// Number and name of every known nexus.
    #[must_use]
    pub fn known_nexuses(&self) -> Vec<(u64, NexusName)> {
        self.known().iter().map(|(nexus, known)| (*nexus, known.name.clone())).collect()
    }

    fn push(&self, nexus: u64, known: &mut Known, condition: &Sense) {
        if known.pending.len() < PENDING_MAX && !known.pending.contains(condition) {
            known.pending.push_back(condition.clone());
        }
        let _ = self.slot(nexus).compare_exchange(nexus, NOBODY, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn is_content(&self, nexus: u64) -> bool {
        self.slot(nexus).load(Ordering::Acquire) == nexus
    }

    fn slot(&self, nexus: u64) -> &AtomicU64 {
        &self.content[nexus as usize % REMEMBERED]
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        self.known.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lun::testing::nexus;

    #[test]
    fn a_condition_is_told_once_to_each_nexus_but_the_one_that_caused_it() {
        let attentions = Attentions::default();
        (1..=3).for_each(|id| attentions.know(&nexus(id, &[])));
        attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, Some(2));
        attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, Some(2));
        assert_eq!(attentions.take(1), Some(Sense::MODE_PARAMETERS_CHANGED));
        assert_eq!(attentions.take(1), None);
        assert_eq!(attentions.take(2), None);
        assert_eq!(attentions.take(3), Some(Sense::MODE_PARAMETERS_CHANGED));
    }

    #[test]
    fn a_condition_that_is_withdrawn_is_not_told() {
        let attentions = Attentions::default();
        attentions.know(&nexus(1, &[]));
        attentions.establish(1, Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
        attentions.establish(1, Sense::CAPACITY_DATA_HAS_CHANGED);
        attentions.withdraw(1, &Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
        assert_eq!((attentions.take(1), attentions.take(1)), (Some(Sense::CAPACITY_DATA_HAS_CHANGED), None));
    }

    #[test]
    fn a_nexus_that_comes_later_is_not_told_what_happened_before() {
        let attentions = Attentions::default();
        attentions.establish_for_all(&Sense::CAPACITY_DATA_HAS_CHANGED, None);
        attentions.know(&nexus(7, &[]));
        assert_eq!(attentions.take(7), None);
    }

    #[test]
    fn nexuses_that_share_a_place_are_told_apart() {
        let attentions = Attentions::default();
        let (one, other) = (nexus(1, &[]), nexus(1 + REMEMBERED as u64, &[]));
        for nexus in [&one, &other] {
            attentions.know(nexus);
            assert_eq!(attentions.take(nexus.id), None);
        }
        attentions.establish(one.id, Sense::POWER_ON_OCCURRED);
        attentions.establish_by_name(&other.name(), &Sense::RESERVATIONS_RELEASED);
        attentions.know(&one);
        assert_eq!(attentions.take(other.id), Some(Sense::RESERVATIONS_RELEASED));
        assert_eq!(attentions.take(one.id), Some(Sense::POWER_ON_OCCURRED));
        attentions.forget(one.id);
        assert_eq!(attentions.take(one.id), None);
    }
}
