//! What a live replay counts besides hits.

use std::time::Duration;

use hdrhistogram::CreationError;

use super::super::live_report::{Histograms, LiveFigures, OpenLoop};
use super::latency::Latencies;
use super::pace::Pace;
use super::walk::{Loaded, Times, Visit};

/// A start is late when it is later than a timer's grain and a busy scheduler explain.
const LATE: Duration = Duration::from_millis(10);

pub(super) struct Figures {
    lookup: Latencies,
    load: Latencies,
    put: Latencies,
    request: Latencies,
    lag: Latencies,
    lookup_from_due: Latencies,
    load_from_due: Latencies,
    request_from_due: Latencies,
    late_starts: u64,
    live: LiveFigures,
}

/// What is known at the end of a run.
pub(super) struct End {
    pub(super) pace: Pace,
    pub(super) requests: u64,
    pub(super) took: Duration,
    /// When the last request was due, after the first.
    pub(super) span: Duration,
    pub(super) in_flight_peak: usize,
    pub(super) held_starts: u64,
}

impl Figures {
    pub(super) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            lookup: Latencies::new()?,
            load: Latencies::new()?,
            put: Latencies::new()?,
            request: Latencies::new()?,
            lag: Latencies::new()?,
            lookup_from_due: Latencies::new()?,
            load_from_due: Latencies::new()?,
            request_from_due: Latencies::new()?,
            late_starts: 0,
            live: LiveFigures::default(),
        })
    }

    pub(super) fn add(&mut self, visit: &Visit) {
        self.time(&visit.times);
        let Loaded { bytes, mismatched_blocks, missing_blocks, .. } = visit.loaded;
        self.live.mismatched_blocks += mismatched_blocks;
        self.live.blocks_not_delivered += missing_blocks;
        self.live.bytes_loaded += bytes;
        self.live.bytes_stored += visit.stored_bytes;
        self.live.blocks_dropped += visit.dropped_blocks;
    }

    fn time(&mut self, times: &Times) {
        self.lookup.add(times.lookup);
        times.load.iter().for_each(|load| self.load.add(*load));
        self.put.add(times.put);
        self.request.add(times.request);
        let Some(lag) = times.lag else { return };
        self.late_starts += u64::from(lag > LATE);
        self.lag.add(lag);
        self.lookup_from_due.add(lag + times.looked_up_at);
        if times.load.is_some() {
            self.load_from_due.add(lag + times.loaded_at);
        }
        self.request_from_due.add(lag + times.request);
    }

    pub(super) fn report(mut self, end: &End) -> LiveFigures {
        self.live.seconds = end.took.as_secs_f64();
        self.live.requests_per_second = rate(end.requests, end.took);
        self.live.lookup_us = self.lookup.summary();
        self.live.load_us = self.load.summary();
        self.live.put_us = self.put.summary();
        self.live.request_us = self.request.summary();
        if let Pace::Open { speed, in_flight } = end.pace {
            self.live.open_loop = Some(OpenLoop {
                speed,
                in_flight_max: in_flight as u64,
                in_flight_peak: end.in_flight_peak as u64,
                // Between so many starts there is one gap less.
                intended_per_second: rate(end.requests.saturating_sub(1), end.span),
                achieved_per_second: self.live.requests_per_second,
                late_starts: self.late_starts,
                held_starts: end.held_starts,
                lag_us: self.lag.summary(),
                lookup_from_due_us: self.lookup_from_due.summary(),
                load_from_due_us: self.load_from_due.summary(),
                request_from_due_us: self.request_from_due.summary(),
            });
        }
        self.live.details.histograms = Histograms {
            lookup_us: self.lookup.buckets(),
            load_us: self.load.buckets(),
            put_us: self.put.buckets(),
            request_us: self.request.buckets(),
            lag_us: self.lag.buckets(),
            lookup_from_due_us: self.lookup_from_due.buckets(),
            load_from_due_us: self.load_from_due.buckets(),
            request_from_due_us: self.request_from_due.buckets(),
        };
        self.live
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(requests: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { requests as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn times(lag: Option<Duration>, load: Option<Duration>) -> Times {
        Times { lag, lookup: MS(1), looked_up_at: MS(2), load, loaded_at: MS(5), put: MS(3), request: MS(9) }
    }

    fn end(pace: Pace) -> End {
        End { pace, requests: 3, took: MS(1_500), span: MS(1_000), in_flight_peak: 2, held_starts: 1 }
    }

    #[test]
    fn what_a_request_waited_for_those_before_it_shows_in_the_times_from_due_only() {
        let mut figures = Figures::new().unwrap();
        for lag in [MS(0), MS(10), MS(100)] {
            figures.time(&times(Some(lag), None));
        }
        let live = figures.report(&end(Pace::Open { speed: 1.0, in_flight: 2 }));
        assert_eq!((live.request_us.max, live.request_us.count), (9_000, 3));
        let open = live.open_loop.unwrap();
        assert_eq!((open.request_from_due_us.max / 1_000, open.lookup_from_due_us.max / 1_000), (109, 102));
        assert_eq!((open.late_starts, open.held_starts, open.load_from_due_us.count), (1, 1, 0));
        assert_eq!((open.intended_per_second, open.achieved_per_second), (2.0, 2.0));
    }

    #[test]
    fn a_closed_loop_has_no_times_from_due_and_its_loads_are_of_what_was_loaded() {
        let mut figures = Figures::new().unwrap();
        figures.time(&times(None, None));
        figures.time(&times(None, Some(MS(2))));
        let live = figures.report(&end(Pace::Closed { workers: 1 }));
        assert_eq!((live.lookup_us.count, live.load_us.count, live.open_loop), (2, 1, None));
        assert_eq!((live.requests_per_second, live.details.histograms.load_us.len()), (2.0, 1));
        assert!(live.details.histograms.lag_us.is_empty());
    }
}
