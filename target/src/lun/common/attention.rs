//! Unit attention conditions: what happened to a logical unit that a nexus has not been told yet.
//!
//! A nexus is known from its first command to this logical unit on, and that command is told why it has to begin anew: I_T NEXUS
//! LOSS OCCURRED where one of its name was lost, else POWER ON, RESET, OR BUS DEVICE RESET OCCURRED. That says more than POWER ON
//! OCCURRED would have to, but libiscsi's `iscsi-ls` tries again for no other code. What happened while a nexus was away is covered
//! by that. Of what waits for a nexus the condition that says most comes first, and it replaces those that it says as well.
//! Follows SAM-5, "Unit attention conditions" and "I_T nexus loss", and RFC 7143 (6.3.5.1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use protocol::scsi::Sense;

use crate::nexus::{Nexus, NexusName};

/// What a nexus is told that is new to a logical unit.
const POWER_ON: Sense = Sense::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED;
/// Conditions kept for one nexus. SAM-5 lets a device server drop some; the oldest stay, since a reset says more than what follows.
const PENDING_MAX: usize = 16;
/// Lost nexuses of which something is retained. SAM-5, "I_T nexus loss": without that one that comes back is a new one.
const AWAY_MAX: usize = 256;
/// Nexuses that are looked up without the lock, by the low bits of their number.
const REMEMBERED: usize = 64;

/// The conditions of one logical unit, by nexus.
#[derive(Debug)]
pub struct Attentions {
    nexuses: Mutex<Nexuses>,
    /// Nexuses that are known and have nothing to be told: a command of theirs takes no lock here. Written under the lock.
    content: [AtomicU64; REMEMBERED],
}

#[derive(Debug, Default)]
struct Nexuses {
    known: BTreeMap<u64, Known>,
    /// What those that were lost are told when they are back; the longest lost first.
    away: VecDeque<(NexusName, Sense)>,
}

#[derive(Debug)]
struct Known {
    name: NexusName,
    pending: VecDeque<Sense>,
}

impl Default for Attentions {
    fn default() -> Self {
        Self { nexuses: Mutex::default(), content: [const { AtomicU64::new(NOBODY) }; REMEMBERED] }
    }
}

/// No nexus has this number.
const NOBODY: u64 = 0;

impl Attentions {
    /// From now on the nexus is told what happens; the first time also why it has to begin anew.
    pub fn know(&self, nexus: &Nexus) {
        if self.is_content(nexus.id) {
            return;
        }
        let nexuses = &mut *self.nexuses();
        nexuses.known.entry(nexus.id).or_insert_with(|| {
            let name = nexus.name();
            let left = nexuses.away.iter().position(|(away, _)| *away == name).and_then(|at| nexuses.away.remove(at));
            Known { name, pending: VecDeque::from([left.map_or(POWER_ON, |(_, condition)| condition)]) }
        });
    }

    /// Establishes a condition for one known nexus, unless the same one is waiting already.
    pub fn establish(&self, nexus: u64, condition: &Sense) {
        if let Some(known) = self.nexuses().known.get_mut(&nexus) {
            self.push(nexus, known, condition);
        }
    }

    /// As [`Attentions::establish`], for the nexus of this name, if it is known.
    pub fn establish_by_name(&self, name: &NexusName, condition: &Sense) {
        for (nexus, known) in self.nexuses().known.iter_mut().filter(|(_, known)| known.name == *name) {
            self.push(*nexus, known, condition);
        }
    }

    /// Establishes a condition for every known nexus but the one that caused it.
    pub fn establish_for_all(&self, condition: &Sense, but: Option<u64>) {
        for (nexus, known) in self.nexuses().known.iter_mut().filter(|(nexus, _)| Some(**nexus) != but) {
            self.push(*nexus, known, condition);
        }
    }

    /// BUS DEVICE RESET FUNCTION OCCURRED for every nexus, those that are away included.
    pub fn reset(&self) {
        const RESET: Sense = Sense::BUS_DEVICE_RESET_FUNCTION_OCCURRED;
        self.establish_for_all(&RESET, None);
        let nexuses = &mut *self.nexuses();
        let less = nexuses.away.iter_mut().filter(|(_, condition)| precedence(condition) > precedence(&RESET));
        less.for_each(|(_, condition)| *condition = RESET);
    }

    /// The next condition to report, which clears it.
    #[must_use]
    pub fn take(&self, nexus: u64) -> Option<Sense> {
        if self.is_content(nexus) {
            return None;
        }
        let mut nexuses = self.nexuses();
        let known = nexuses.known.get_mut(&nexus)?;
        let condition = known.pending.pop_front();
        if known.pending.is_empty() {
            self.slot(nexus).store(nexus, Ordering::Release);
        }
        condition
    }

    /// True when a nexus has something to be told.
    #[must_use]
    pub fn has(&self, nexus: u64) -> bool {
        !self.is_content(nexus) && self.nexuses().known.get(&nexus).is_some_and(|known| !known.pending.is_empty())
    }

    /// Takes back a condition that a nexus has learned of in another way.
    pub fn withdraw(&self, nexus: u64, condition: &Sense) {
        if let Some(known) = self.nexuses().known.get_mut(&nexus) {
            known.pending.retain(|waiting| waiting != condition);
        }
    }

    /// The nexus is lost: what it was to be told is gone, and a later one of its name is told so, or what it was not told and says
    /// more.
    pub fn forget(&self, nexus: u64) {
        let mut nexuses = self.nexuses();
        if let Some(Known { name, mut pending }) = nexuses.known.remove(&nexus) {
            let untold = pending.pop_front().filter(|first| precedence(first) < precedence(&Sense::I_T_NEXUS_LOSS_OCCURRED));
            if nexuses.away.len() == AWAY_MAX {
                nexuses.away.pop_front();
            }
            nexuses.away.push_back((name, untold.unwrap_or(Sense::I_T_NEXUS_LOSS_OCCURRED)));
        }
        let _ = self.slot(nexus).compare_exchange(nexus, NOBODY, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Number and name of every known nexus.
    #[must_use]
    pub fn known_nexuses(&self) -> Vec<(u64, NexusName)> {
        self.nexuses().known.iter().map(|(nexus, known)| (*nexus, known.name.clone())).collect()
    }

    fn push(&self, nexus: u64, known: &mut Known, condition: &Sense) {
        let own = precedence(condition);
        if own < LOWEST {
            if known.pending.front().is_some_and(|first| precedence(first) <= own) {
                return;
            }
            known.pending.clear();
        }
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

    fn nexuses(&self) -> MutexGuard<'_, Nexuses> {
        self.nexuses.lock().expect("no holder panics")
    }
}

/// Precedence of conditions that do not mean that the nexus has to begin anew.
const LOWEST: u8 = 3;

/// Zero says most. SAM-5, "Unit attention condition precedence"; of the conditions there those that are established here.
fn precedence(condition: &Sense) -> u8 {
    match condition {
        _ if *condition == POWER_ON => 0,
        _ if *condition == Sense::BUS_DEVICE_RESET_FUNCTION_OCCURRED => 1,
        _ if *condition == Sense::I_T_NEXUS_LOSS_OCCURRED => 2,
        _ => LOWEST,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lun::testing::nexus;

    /// Three nexuses that have been told that the power is on.
    fn told() -> Attentions {
        let attentions = Attentions::default();
        for id in 1..=3 {
            attentions.know(&nexus(id, &[]));
            assert_eq!(attentions.take(id), Some(POWER_ON));
        }
        attentions
    }

    #[test]
    fn a_condition_is_told_once_to_each_nexus_but_the_one_that_caused_it() {
        let attentions = told();
        attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, Some(2));
        attentions.establish_for_all(&Sense::MODE_PARAMETERS_CHANGED, Some(2));
        assert_eq!(attentions.take(1), Some(Sense::MODE_PARAMETERS_CHANGED));
        assert_eq!(attentions.take(1), None);
        assert_eq!(attentions.take(2), None);
        assert_eq!(attentions.take(3), Some(Sense::MODE_PARAMETERS_CHANGED));
    }

    #[test]
    fn a_condition_that_is_withdrawn_is_not_told() {
        let attentions = told();
        attentions.establish(1, &Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
        attentions.establish(1, &Sense::CAPACITY_DATA_HAS_CHANGED);
        attentions.withdraw(1, &Sense::REPORTED_LUNS_DATA_HAS_CHANGED);
        assert_eq!((attentions.take(1), attentions.take(1)), (Some(Sense::CAPACITY_DATA_HAS_CHANGED), None));
    }

    #[test]
    fn a_nexus_that_comes_later_is_told_of_the_power_and_not_of_what_happened_before() {
        let attentions = Attentions::default();
        attentions.establish_for_all(&Sense::CAPACITY_DATA_HAS_CHANGED, None);
        let late = nexus(7, &[]);
        for condition in [Some(POWER_ON), None] {
            attentions.know(&late);
            assert_eq!(attentions.take(7), condition);
        }
    }

    #[test]
    fn a_nexus_that_was_lost_and_is_back_is_told_so_once() {
        let attentions = told();
        attentions.establish(1, &Sense::MODE_PARAMETERS_CHANGED);
        attentions.forget(1);
        // Its name is what counts: a session has a number of its own.
        let back = Nexus { id: 9, ..Arc::into_inner(nexus(1, &[])).unwrap() };
        attentions.know(&back);
        assert_eq!((attentions.take(9), attentions.take(9)), (Some(Sense::I_T_NEXUS_LOSS_OCCURRED), None));
    }

    #[test]
    fn what_says_more_replaces_what_says_less() {
        let attentions = told();
        attentions.establish(1, &Sense::MODE_PARAMETERS_CHANGED);
        attentions.know(&nexus(4, &[]));
        attentions.forget(2);
        attentions.reset();
        attentions.establish(1, &Sense::CAPACITY_DATA_HAS_CHANGED);
        let reset = Sense::BUS_DEVICE_RESET_FUNCTION_OCCURRED;
        assert_eq!([1, 1, 1].map(|id| attentions.take(id)), [Some(reset.clone()), Some(Sense::CAPACITY_DATA_HAS_CHANGED), None]);
        assert_eq!([4, 4].map(|id| attentions.take(id)), [Some(POWER_ON), None]);
        attentions.know(&nexus(2, &[]));
        assert_eq!([2, 2].map(|id| attentions.take(id)), [Some(reset), None], "it was away when the reset came");
    }

    #[test]
    fn what_was_not_told_before_the_loss_and_says_more_is_told_after_it() {
        let attentions = Attentions::default();
        let nexus = nexus(1, &[]);
        attentions.know(&nexus);
        attentions.forget(1);
        attentions.know(&nexus);
        assert_eq!([1, 1].map(|id| attentions.take(id)), [Some(POWER_ON), None]);
    }

    #[test]
    fn names_that_come_and_go_take_no_more_than_their_room() {
        let attentions = Attentions::default();
        for id in 1..=AWAY_MAX as u64 + 50 {
            attentions.know(&nexus(id, &[]));
            attentions.forget(id);
        }
        assert_eq!(attentions.nexuses().away.len(), AWAY_MAX);
    }

    #[test]
    fn nexuses_that_share_a_place_are_told_apart() {
        let attentions = Attentions::default();
        let (one, other) = (nexus(1, &[]), nexus(1 + REMEMBERED as u64, &[]));
        for nexus in [&one, &other] {
            attentions.know(nexus);
            assert_eq!([nexus.id; 2].map(|id| attentions.take(id)), [Some(POWER_ON), None]);
        }
        attentions.establish(one.id, &Sense::MODE_PARAMETERS_CHANGED);
        attentions.establish_by_name(&other.name(), &Sense::RESERVATIONS_RELEASED);
        attentions.know(&one);
        assert_eq!(attentions.take(other.id), Some(Sense::RESERVATIONS_RELEASED));
        assert_eq!(attentions.take(one.id), Some(Sense::MODE_PARAMETERS_CHANGED));
        attentions.forget(one.id);
        assert_eq!(attentions.take(one.id), None);
    }
}
