//! What a live replay counts besides hits.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

use super::walk::{Loaded, Visit};
use crate::replay::report::{Latency, LiveFigures};

/// An hour: longer than any call may take.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits of a quantile.
const DIGITS: u8 = 3;

pub(super) struct Figures {
    lookup_us: Histogram<u64>,
    load_us: Histogram<u64>,
    live: LiveFigures,
}

impl Figures {
    pub(super) fn new() -> Result<Self, CreationError> {
        let histogram = || Histogram::new_with_max(LATENCY_US_MAX, DIGITS);
        Ok(Self { lookup_us: histogram()?, load_us: histogram()?, live: LiveFigures::default() })
    }

    pub(super) fn add(&mut self, visit: &Visit) {
        self.lookup_us.saturating_record(micros(visit.lookup));
        if let Some(load) = visit.load {
            self.load_us.saturating_record(micros(load));
        }
        let Loaded { bytes, mismatched_blocks, missing_blocks, .. } = visit.loaded;
        self.live.mismatched_blocks += mismatched_blocks;
        self.live.blocks_not_delivered += missing_blocks;
        self.live.bytes_loaded += bytes;
        self.live.bytes_stored += visit.stored_bytes;
        self.live.blocks_dropped += visit.dropped_blocks;
    }

    pub(super) fn report(mut self, requests: u64, seconds: f64) -> LiveFigures {
        self.live.seconds = seconds;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = if seconds > 0.0 { requests as f64 / seconds } else { 0.0 };
        self.live.requests_per_second = rate;
        self.live.lookup_us = quantiles(&self.lookup_us);
        self.live.load_us = quantiles(&self.load_us);
        self.live
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn quantiles(histogram: &Histogram<u64>) -> Latency {
    Latency { p50: histogram.value_at_quantile(0.50), p99: histogram.value_at_quantile(0.99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded_and_zero_for_nothing() {
        let mut figures = Figures::new().unwrap();
        (1..=100).for_each(|us| figures.lookup_us.saturating_record(us));
        let live = figures.report(100, 2.0);
        assert_eq!((live.lookup_us, live.load_us), (Latency { p50: 50, p99: 99 }, Latency::default()));
        assert!((live.requests_per_second - 50.0).abs() < 1e-9);
    }
}
