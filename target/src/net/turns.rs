//! When a session that always has more to do lets the others have their turn.
//!
//! To yield to the runtime costs several system calls and wakes another of its threads, far more than a turn is worth to a session that
//! is alone. So it is done when somebody else has had a turn meanwhile, and now and then to let somebody begin.

use std::sync::atomic::{AtomicU64, Ordering};

/// Turns in a row that a session takes without a look at who else waits: 2 to 3 ms.
const ALONE_MOST: u32 = 8;

/// Who had the last turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: AtomicU64,
    entered: AtomicU64,
}

/// What one session knows of its turns.
#[derive(Debug)]
pub(super) struct OwnTurns {
    name: u64,
    in_a_row: u32,
}

impl Turns {
    pub fn enter(&self) -> OwnTurns {
        OwnTurns { name: self.entered.fetch_add(1, Ordering::Relaxed) + 1, in_a_row: 0 }
    }

    /// Counts a turn that could go on; true when it is time to yield.
    pub fn is_over(&self, own: &mut OwnTurns) -> bool {
        own.in_a_row += 1;
        let alone = self.is_alone(own);
        if !alone {
            self.last.store(own.name, Ordering::Relaxed);
        }
        let over = !alone || own.in_a_row >= ALONE_MOST;
        if over {
            own.in_a_row = 0;
        }
        over
    }

    /// True when nobody else has had a turn since the own last one.
    pub fn is_alone(&self, own: &OwnTurns) -> bool {
        self.last.load(Ordering::Relaxed) == own.name
    }

    /// Notes a turn that ended by itself.
    pub fn note(&self, own: &OwnTurns) {
        if !self.is_alone(own) {
            self.last.store(own.name, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_goes_on_for_a_while_and_who_is_not_yields_each_time() {
        let turns = Turns::default();
        let (mut one, mut other) = (turns.enter(), turns.enter());
        assert!(turns.is_over(&mut one), "nobody knows yet that it is alone");
        assert!((1..ALONE_MOST).all(|_| !turns.is_over(&mut one)));
        assert!(turns.is_over(&mut one), "somebody may want to begin");
        assert!(!turns.is_over(&mut one));
        turns.note(&other);
        assert!(turns.is_over(&mut one));
        assert!(turns.is_over(&mut other) && turns.is_over(&mut one), "both yield to each other");
    }
}
