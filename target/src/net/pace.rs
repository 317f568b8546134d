//! How fast somebody may do what comes to nothing: so many at once, and beyond that so many each second.
//!
//! Knows neither what is counted nor what waiting means. RFC 7143 (9) leaves such limits to the implementation.

use std::time::{Duration, Instant};

/// What came to nothing, less what is forgotten.
#[derive(Debug)]
pub(super) struct Pace {
    at_once: f64,
    per_second: f64,
    longest: Duration,
    count: f64,
    at: Option<Instant>,
}

impl Pace {
    /// `at_once` are free; `per_second` are forgotten.
    pub fn new(at_once: u32, per_second: u32) -> Self {
        Self { at_once: at_once.into(), per_second: per_second.into(), longest: Duration::MAX, count: 0.0, at: None }
    }

    /// No pause is longer: what came beyond that is forgotten at once.
    pub const fn pausing_at_most(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }

    /// Counts so many more.
    pub fn add(&mut self, count: u32, now: Instant) {
        self.forget(now);
        let most = self.at_once + self.longest.as_secs_f64() * self.per_second;
        self.count = (self.count + f64::from(count)).min(most);
    }

    /// How long to wait before the next.
    pub fn pause(&mut self, now: Instant) -> Duration {
        self.forget(now);
        Duration::from_secs_f64((self.count - self.at_once).max(0.0) / self.per_second)
    }

    fn forget(&mut self, now: Instant) {
        let time = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.count = (self.count - time.as_secs_f64() * self.per_second).max(0.0);
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_free_ones_waits_and_is_forgotten() {
        let mut pace = Pace::new(256, 1000);
        let begin = Instant::now();
        pace.add(256, begin);
        assert_eq!(pace.pause(begin), Duration::ZERO);
        pace.add(100, begin);
        assert_eq!(pace.pause(begin), Duration::from_millis(100));
        assert_eq!(pace.pause(begin + Duration::from_millis(40)), Duration::from_millis(60));
        assert_eq!(pace.pause(begin + Duration::from_secs(9)), Duration::ZERO);
        pace.add(256, begin + Duration::from_secs(9));
        assert_eq!(pace.pause(begin + Duration::from_secs(9)), Duration::ZERO, "nothing is left of what was forgotten");
    }

    #[test]
    fn no_pause_is_longer_than_is_allowed_however_much_came() {
        let longest = Duration::from_millis(100);
        let mut pace = Pace::new(256, 1000).pausing_at_most(longest);
        let begin = Instant::now();
        pace.add(1_000_000, begin);
        assert_eq!(pace.pause(begin), longest);
        pace.add(1, begin + longest);
        assert!(pace.pause(begin + longest) <= Duration::from_millis(2), "the rest is forgotten");
    }
}
