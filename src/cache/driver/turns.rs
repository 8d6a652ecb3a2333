//! How long the planner's turns take: the time between two looks at its inbox, everything included, while there is work.
//!
//! The thread counts each turn in two tables, a coarse one as metrics have it and a fine one for quantiles; others read
//! them at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper ends of the buckets of `/metrics`, in microseconds: 1 µs to 1 s.
const ENDS_US: [u64; 19] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000,
];
/// The fine table has so many buckets for each power of two of nanoseconds: a quantile is at most an eighth too high.
const PARTS: usize = 8;
const FINE: usize = 64 * PARTS;

/// The tables. Only the planner's thread writes them.
#[derive(Debug)]
pub(super) struct Turns {
    coarse: [AtomicU64; ENDS_US.len() + 1],
    fine: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Turns {
    fn default() -> Self {
        let fine = std::iter::repeat_with(AtomicU64::default).take(FINE).collect();
        Self { coarse: Default::default(), fine, sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }
}

impl Turns {
    fn count(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let coarse = ENDS_US.partition_point(|end| end * 1_000 < ns);
        self.coarse[coarse].fetch_add(1, Ordering::Relaxed);
        self.fine[fine(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    pub(super) fn times(&self) -> TurnTimes {
        let read = |counts: &[AtomicU64]| counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        TurnTimes {
            coarse: read(&self.coarse),
            fine: read(&self.fine),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
            max: Duration::from_nanos(self.max_ns.load(Ordering::Relaxed)),
        }
    }
}

/// The number of a time's bucket in the fine table.
fn fine(ns: u64) -> usize {
    let power = (ns | 1).ilog2();
    let part = if power < 3 { 0 } else { (ns >> (power - 3)) as usize % PARTS };
    power as usize * PARTS + part
}

/// The first time that is beyond a bucket of the fine table, in nanoseconds.
fn end_of(bucket: usize) -> u64 {
    let (power, part) = ((bucket / PARTS) as u32, (bucket % PARTS) as u64);
    if power < 3 { 2 << power } else { (PARTS as u64 + part + 1).saturating_mul(1 << (power - 3)) }
}

/// Times of turns, as counted until now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TurnTimes {
    coarse: Vec<u64>,
    fine: Vec<u64>,
    sum: Duration,
    max: Duration,
}

impl TurnTimes {
    /// All turns.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.coarse.iter().sum()
    }

    /// What they have taken together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest one since the start.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Buckets as metrics have them: the most seconds of each, and how many turns it has that no bucket before it has. The
    /// last one has no end.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let ends = ENDS_US.iter().map(|end| *end as f64 / 1e6).chain([f64::INFINITY]);
        ends.zip(self.coarse.iter().copied())
    }

    /// What this share of the turns has taken at most, an eighth more at worst; zero where there were none.
    #[must_use]
    pub fn at(&self, share: f64) -> Duration {
        let all = self.fine.iter().sum::<u64>();
        let wanted = (all as f64 * share).ceil() as u64;
        let mut so_far = 0;
        let bucket = self.fine.iter().position(|count| {
            so_far += count;
            so_far >= wanted.max(1)
        });
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_nanos(end_of(bucket)).min(self.max))
    }

    /// Those since `before`. The longest is then only known as its bucket's end.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: &[u64], before: &[u64]| -> Vec<u64> {
            now.iter().enumerate().map(|(at, now)| now - before.get(at).copied().unwrap_or(0)).collect()
        };
        let fine = less(&self.fine, &before.fine);
        let last = fine.iter().rposition(|count| *count > 0);
        let max = last.map_or(Duration::ZERO, |bucket| Duration::from_nanos(end_of(bucket)).min(self.max));
        let sum = self.sum.saturating_sub(before.sum);
        Self { coarse: less(&self.coarse, &before.coarse), fine, sum, max }
    }
}

/// The turn under way.
pub(super) struct Turn {
    turns: Arc<Turns>,
    began: Option<Instant>,
}

impl Turn {
    pub(super) fn new(turns: Arc<Turns>) -> Self {
        Self { turns, began: None }
    }

    /// The inbox is looked at: the turn ends, and the next begins.
    pub(super) fn end(&mut self) {
        let now = Instant::now();
        if let Some(began) = self.began.replace(now) {
            self.turns.count(now - began);
        }
    }

    /// A message came after a wait, which was nobody's turn.
    pub(super) fn begin(&mut self) {
        self.began = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_a_bucket_that_ends_just_above_it() {
        for ns in (0..5_000).chain((0..60).map(|power| (1_u64 << power) - 1)).chain([u64::MAX / 2]) {
            let end = end_of(fine(ns));
            assert!(ns < end && (ns < 16 || end - ns <= ns / 8 + 1), "{ns} in a bucket that ends at {end}");
        }
    }

    #[test]
    fn quantiles_maximum_and_buckets_are_those_of_the_turns() {
        let turns = Turns::default();
        for _ in 0..990 {
            turns.count(Duration::from_micros(1));
        }
        let before = turns.times();
        for _ in 0..10 {
            turns.count(Duration::from_millis(3));
        }
        let times = turns.times();
        assert_eq!((times.count(), times.max()), (1_000, Duration::from_millis(3)));
        assert_eq!(times.sum(), Duration::from_micros(990 + 30_000));
        assert!(times.at(0.5) < Duration::from_nanos(1_200) && times.at(0.5) >= Duration::from_micros(1));
        assert!(times.at(0.999) >= Duration::from_millis(3));
        let buckets: Vec<(f64, u64)> = times.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(buckets, [(1e-6, 990), (5e-3, 10)]);
        let since = times.since(&before);
        assert_eq!((since.count(), since.at(0.5)), (10, Duration::from_millis(3)));
        assert_eq!(TurnTimes::default().at(0.5), Duration::ZERO);
    }
}
