//! A live replay second by second.

use std::time::Duration;

use hdrhistogram::CreationError;

use super::super::Tally;
use super::super::live_report::TimelineRow;
use super::latency::Latencies;
use super::walk::Visit;

/// A row is about so long.
pub(super) const ROW_EVERY: Duration = Duration::from_secs(1);
/// A day of rows. What comes later is in the last one.
const ROWS_MAX: usize = 86_400;

pub(super) struct Timeline {
    rows: Vec<TimelineRow>,
    lookup: Latencies,
    /// The row under way, and the tally at its beginning.
    row: TimelineRow,
    before: Tally,
}

impl Timeline {
    pub(super) fn new() -> Result<Self, CreationError> {
        Ok(Self { rows: Vec::new(), lookup: Latencies::new()?, row: TimelineRow::default(), before: Tally::default() })
    }

    pub(super) fn add(&mut self, visit: &Visit) {
        self.lookup.add(visit.times.lookup);
        self.row.bytes_loaded += visit.loaded.bytes;
        self.row.bytes_stored += visit.stored_bytes;
    }

    /// A second is over.
    pub(super) fn tick(&mut self, at: Duration, tally: &Tally, in_flight: usize, resident_bytes: u64) {
        if self.rows.len() < ROWS_MAX {
            self.end_row(at, tally, in_flight, resident_bytes);
        }
    }

    /// All rows, the last of which may be shorter.
    pub(super) fn end(mut self, at: Duration, tally: &Tally, resident_bytes: u64) -> Vec<TimelineRow> {
        self.end_row(at, tally, 0, resident_bytes);
        self.rows
    }

    fn end_row(&mut self, at: Duration, tally: &Tally, in_flight: usize, resident_bytes: u64) {
        self.rows.push(TimelineRow {
            at_s: at.as_secs_f64(),
            requests: tally.requests() - self.before.requests(),
            prompt_tokens: tally.prompt_tokens() - self.before.prompt_tokens(),
            hit_tokens: tally.hit_tokens() - self.before.hit_tokens(),
            lookup_p99_us: self.lookup.summary().p99,
            in_flight: in_flight as u64,
            resident_bytes,
            ..self.row
        });
        (self.before, self.row) = (*tally, TimelineRow::default());
        self.lookup.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::RequestView;
    use super::*;
    use crate::vocab::TierCounts;

    #[test]
    fn each_row_has_what_ended_in_it_and_all_rows_together_the_run() {
        let (mut timeline, mut tally) = (Timeline::new().unwrap(), Tally::default());
        let request = RequestView { timestamp_ms: 0, input_length: 20, output_length: 1, hash_ids: &[0, 1] };
        let mut rows = Vec::new();
        for second in 1..=3 {
            for _ in 0..second {
                tally.add(&request, TierCounts { ram: 1, missed: 1, ..TierCounts::default() }, 10);
            }
            timeline.row.bytes_loaded = second;
            timeline.lookup.add(Duration::from_micros(second));
            rows.push((second, second * 20, second * 10, second, second));
            if second < 3 {
                timeline.tick(Duration::from_secs(second), &tally, 4, 9);
            }
        }
        let found = timeline.end(Duration::from_millis(2_500), &tally, 9);
        let figures =
            |row: &TimelineRow| (row.requests, row.prompt_tokens, row.hit_tokens, row.bytes_loaded, row.lookup_p99_us);
        assert_eq!(found.iter().map(figures).collect::<Vec<_>>(), rows);
        assert_eq!((found[0].in_flight, found[2].in_flight, found[2].at_s), (4, 0, 2.5));
    }
}
