//! When the requests of a live replay start.

use std::time::{Duration, Instant};

use super::super::Trace;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// A closed loop: each of so many workers starts the next request when it is done with its own.
    Closed {
        /// Requests under way at a time.
        workers: usize,
    },
    /// An open loop: at the trace's times, whatever is still under way, as users come.
    Open {
        /// The times are divided by this.
        speed: f64,
        /// Requests under way at a time, at most: past it they wait, and the report says so.
        in_flight: usize,
    },
}

impl Pace {
    /// Requests under way at a time, at most.
    #[must_use]
    pub fn in_flight_max(self) -> usize {
        match self {
            Self::Closed { workers } => workers,
            Self::Open { in_flight, .. } => in_flight,
        }
    }

    /// When the last of a trace's first `requests` requests is to start, after the first; nothing in a closed loop.
    #[must_use]
    pub fn span(self, trace: &Trace, requests: u64) -> Option<Duration> {
        let last = usize::try_from(requests).unwrap_or(usize::MAX).min(trace.len()).checked_sub(1)?;
        let mut times = trace.requests().map(|request| request.timestamp_ms);
        let first = times.next()?;
        self.after(first, if last == 0 { first } else { times.nth(last - 1)? })
    }

    /// When a request is to start, after the trace's first one.
    fn after(self, first_ms: u64, timestamp_ms: u64) -> Option<Duration> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { speed, .. } => {
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of a trace are far below 2^53")]
                let seconds = timestamp_ms.saturating_sub(first_ms) as f64 / 1_000.0 / speed;
                Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
            }
        }
    }
}

/// A pace with its beginning.
pub(super) struct Schedule {
    pace: Pace,
    started: Instant,
    first_ms: u64,
}

impl Schedule {
    pub(super) fn new(pace: Pace, started: Instant, trace: &Trace) -> Self {
        let first_ms = trace.requests().next().map_or(0, |request| request.timestamp_ms);
        Self { pace, started, first_ms }
    }

    /// When a request of this time is due; nothing where it is as soon as somebody is free.
    pub(super) fn due(&self, timestamp_ms: u64) -> Option<Instant> {
        let after = self.pace.after(self.first_ms, timestamp_ms)?;
        self.started.checked_add(after)
    }
}

/// Until it is time.
pub(super) async fn wait(due: Option<Instant>) {
    // A timer would round what is past by less than its grain up to it.
    if let Some(due) = due.filter(|due| *due > Instant::now()) {
        tokio::time::sleep_until(due.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::TraceRequest;
    use super::*;

    fn trace() -> Trace {
        let request =
            |timestamp_ms| TraceRequest { timestamp_ms, input_length: 1, output_length: 1, hash_ids: vec![1] };
        Trace::collect(16, [5_000, 6_000, 11_000].map(request))
    }

    #[test]
    fn a_trace_played_twice_as_fast_takes_half_as_long_from_its_first_request_on() {
        let (open, started) = (Pace::Open { speed: 2.0, in_flight: 8 }, Instant::now());
        let schedule = Schedule::new(open, started, &trace());
        let due = [5_000, 6_000, 11_000].map(|at| schedule.due(at).unwrap() - started);
        assert_eq!(due, [0, 500, 3_000].map(Duration::from_millis));
        let spans = [1, 2, 3, 9].map(|requests| open.span(&trace(), requests).unwrap());
        assert_eq!(spans, [0, 500, 3_000, 3_000].map(Duration::from_millis));
        assert_eq!(open.span(&Trace::default(), 1), None);
    }

    #[test]
    fn a_closed_loop_has_no_times() {
        let closed = Pace::Closed { workers: 3 };
        assert_eq!((closed.span(&trace(), 3), closed.in_flight_max()), (None, 3));
        assert_eq!(Schedule::new(closed, Instant::now(), &trace()).due(6_000), None);
    }
}
