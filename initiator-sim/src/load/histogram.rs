//! How long many commands took, in bounded memory: buckets that are 1/32 of their power of two wide.

use std::time::Duration;

/// Buckets of each power of two: percentiles are within about 3 % of the truth.
const FINE: u32 = 32;

/// Values below this have a bucket each.
const LINEAR: u64 = FINE as u64;

/// Enough for 2^64 ns.
const BUCKETS: usize = (FINE * (64 - LINEAR.ilog2() + 1)) as usize;

/// Counts of durations.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0 }
    }
}

/// The figures people ask for, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub min_us: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Histogram {
    /// One more.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// All of another's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many were recorded.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// In nanoseconds: the upper edge of the bucket that holds this share of all, and never more than the greatest recorded.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_edge(index).min(self.max_ns);
            }
        }
        self.max_ns
    }

    /// Minimum, mean, percentiles and maximum; zeros when nothing was recorded.
    #[must_use]
    pub fn latency(&self) -> Latency {
        let us = |ns: u64| ns as f64 / 1e3;
        let mean = if self.count == 0 { 0.0 } else { self.sum_ns as f64 / self.count as f64 / 1e3 };
        Latency {
            min_us: if self.count == 0 { 0.0 } else { us(self.min_ns) },
            mean_us: mean,
            p50_us: us(self.quantile_ns(0.50)),
            p90_us: us(self.quantile_ns(0.90)),
            p99_us: us(self.quantile_ns(0.99)),
            p999_us: us(self.quantile_ns(0.999)),
            max_us: us(self.max_ns),
        }
    }
}

fn bucket(ns: u64) -> usize {
    if ns < LINEAR {
        return ns as usize;
    }
    let power = ns.ilog2() - LINEAR.ilog2();
    // The five bits behind the first set one choose the bucket within the power of two.
    let fine = (ns >> power) - LINEAR;
    (FINE * (power + 1)) as usize + fine as usize
}

fn upper_edge(index: usize) -> u64 {
    let (power, fine) = (index as u32 / FINE, index as u64 % u64::from(FINE));
    match power {
        0 => fine,
        power => ((LINEAR + fine + 1) << (power - 1)).wrapping_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_of_a_ramp_are_where_they_should_be() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|us| histogram.record(Duration::from_micros(us)));
        let latency = histogram.latency();
        assert!((latency.p50_us / 500.0 - 1.0).abs() < 0.04, "{latency:?}");
        assert!((latency.p99_us / 990.0 - 1.0).abs() < 0.04, "{latency:?}");
        assert_eq!((latency.min_us, latency.max_us, latency.mean_us), (1.0, 1000.0, 500.5));
    }

    #[test]
    fn nothing_recorded_is_zeros() {
        assert_eq!(Histogram::default().latency().mean_us, 0.0);
        assert_eq!(Histogram::default().latency().p99_us, 0.0);
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_bucket(ns: u64) {
            let index = bucket(ns);
            prop_assert!(index < BUCKETS);
            prop_assert!(upper_edge(index) >= ns);
            prop_assert!(index == 0 || upper_edge(index - 1) < ns);
        }
    }
}
