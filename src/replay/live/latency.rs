//! Histograms of latencies.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

use super::super::live_report::{Buckets, Latency};

/// An hour: longer than any call may take.
const MICROS_MAX: u64 = 3_600_000_000;
/// Significant digits of a quantile.
const DIGITS: u8 = 3;

/// Microseconds of one kind.
pub(super) struct Latencies {
    histogram: Histogram<u64>,
    /// A bucket would only say the most that it may have.
    max: u64,
}

impl Latencies {
    pub(super) fn new() -> Result<Self, CreationError> {
        Ok(Self { histogram: Histogram::new_with_max(MICROS_MAX, DIGITS)?, max: 0 })
    }

    pub(super) fn add(&mut self, took: Duration) {
        let took = micros(took);
        self.histogram.saturating_record(took);
        self.max = self.max.max(took);
    }

    pub(super) fn summary(&self) -> Latency {
        let at = |share| self.histogram.value_at_quantile(share).min(self.max);
        let (max, count) = (self.max, self.histogram.len());
        Latency { p50: at(0.50), p90: at(0.90), p99: at(0.99), p999: at(0.999), max, count }
    }

    pub(super) fn buckets(&self) -> Buckets {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    pub(super) fn clear(&mut self) {
        self.histogram.reset();
        self.max = 0;
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(micros: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        micros.into_iter().for_each(|us| latencies.add(Duration::from_micros(us)));
        latencies
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded_and_zero_for_nothing() {
        let summary = latencies(1..=1_000).summary();
        assert_eq!(summary, Latency { p50: 500, p90: 900, p99: 990, p999: 999, max: 1_000, count: 1_000 });
        assert_eq!(Latencies::new().unwrap().summary(), Latency::default());
    }

    #[test]
    fn the_longest_is_exact_and_no_quantile_is_above_it() {
        let summary = latencies([9_000]).summary();
        assert_eq!((summary.p50, summary.p999, summary.max), (9_000, 9_000, 9_000));
    }

    #[test]
    fn buckets_have_every_value_once_and_none_that_is_empty() {
        assert_eq!(latencies([7, 3, 7, 100]).buckets(), [(3, 1), (7, 2), (100, 1)]);
        let many = latencies((1..=5_000).map(|at| at * at)).buckets();
        assert_eq!(many.iter().map(|(_, count)| count).sum::<u64>(), 5_000);
        assert!(many.is_sorted_by(|a, b| a.0 < b.0) && many.iter().all(|(_, count)| *count > 0));
        let mut cleared = latencies([1]);
        cleared.clear();
        assert_eq!(cleared.buckets(), []);
    }
}
