//! A speed limit, in bytes a second, that may change while it is waited for.
//!
//! What has been moved is owed and paid off by time, so a transfer of any size is let through at once and waited for afterwards: the
//! mean rate holds over more than one transfer. Does not wait by itself.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A limit that several threads may share.
#[derive(Debug)]
pub struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Absent: as fast as it goes.
    bytes_per_second: Option<u64>,
    /// Bytes that are not paid for yet, at `as_of`.
    owed: u64,
    as_of: Instant,
}

impl Throttle {
    /// Nothing is owed; zero stands for one byte a second.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>, now: Instant) -> Self {
        Self { state: Mutex::new(State { bytes_per_second, owed: 0, as_of: now }) }
    }

    /// What is owed from now on is paid at another rate.
    pub fn set(&self, bytes_per_second: Option<u64>, now: Instant) {
        let mut state = self.settled(now);
        state.bytes_per_second = bytes_per_second;
    }

    /// So many bytes have been moved.
    pub fn book(&self, bytes: u64, now: Instant) {
        let mut state = self.settled(now);
        state.owed = state.owed.saturating_add(bytes);
    }

    /// How long it takes, at the rate of this moment, until nothing is owed.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        let state = self.settled(now);
        state.bytes_per_second.map_or(Duration::ZERO, |rate| {
            let nanoseconds = u128::from(state.owed) * NANOSECONDS / u128::from(rate.max(1));
            Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        })
    }

    fn settled(&self, now: Instant) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("no holder panics");
        let elapsed = now.saturating_duration_since(state.as_of).as_nanos();
        let paid = state
            .bytes_per_second
            .map_or(u64::MAX, |rate| u64::try_from(elapsed * u128::from(rate.max(1)) / NANOSECONDS).unwrap_or(u64::MAX));
        // A look too soon to pay a byte leaves the time to the next one.
        if paid > 0 {
            state.owed = state.owed.saturating_sub(paid);
            state.as_of = now;
        }
        state
    }
}

const NANOSECONDS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_rate_holds_and_a_change_counts_at_once() {
        let start = Instant::now();
        let throttle = Throttle::new(Some(1000), start);
        throttle.book(3000, start);
        assert_eq!(throttle.wait(start), Duration::from_secs(3));
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.wait(later), Duration::from_secs(2));
        throttle.set(Some(4000), later);
        assert_eq!(throttle.wait(later), Duration::from_millis(500));
        throttle.set(None, later);
        assert_eq!(throttle.wait(later), Duration::ZERO);
    }

    #[test]
    fn without_a_limit_nothing_is_owed_later() {
        let start = Instant::now();
        let throttle = Throttle::new(None, start);
        throttle.book(u64::MAX, start);
        let later = start + Duration::from_secs(1);
        throttle.set(Some(1), later);
        assert_eq!(throttle.wait(later), Duration::ZERO);
    }

    #[test]
    fn many_looks_pay_as_much_as_one() {
        let start = Instant::now();
        let throttle = Throttle::new(Some(10), start);
        throttle.book(10, start);
        let looks = (1..1000).map(|look| throttle.wait(start + Duration::from_millis(look)));
        assert!(looks.last().unwrap() <= Duration::from_millis(100));
        assert_eq!(throttle.wait(start + Duration::from_secs(1)), Duration::ZERO);
    }
}
