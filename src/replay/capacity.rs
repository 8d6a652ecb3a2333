//! Hit rate against capacity: of LRU, in one pass for all capacities, and of the offline optimum, at some.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{HitCurve, Trace, optimum};

/// What tiers of several sizes hit.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacityPlan {
    /// Of LRU, at any capacity.
    pub lru: HitCurve,
    /// At some capacities, from small to large.
    pub points: Vec<CapacityPoint>,
    /// The capacity from which on more is worth least for what it takes; absent where nothing is ever hit.
    pub knee_blocks: Option<u64>,
}

/// A tier of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapacityPoint {
    /// Blocks that it holds.
    pub blocks: u64,
    /// Token-weighted hit rate of LRU, from cold.
    pub lru: f64,
    /// The same of the offline optimum.
    pub optimum: f64,
}

/// Where a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// So many requests of the one pass for LRU are done.
    Lru(u64),
    /// So many capacities of the optimum are done.
    Optimum(u64),
}

impl CapacityPlan {
    /// Of a trace, at these capacities, with so many threads. `progress` is called with how far it is.
    #[must_use]
    pub fn of(trace: &Trace, capacities: &[u64], threads: usize, progress: impl Fn(Stage) + Sync) -> Self {
        let lru = HitCurve::of_lru(trace, |done| progress(Stage::Lru(done)));
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let optima = Mutex::new(vec![0.0; capacities.len()]);
        thread::scope(|scope| {
            for _ in 0..threads.clamp(1, capacities.len().max(1)) {
                scope.spawn(|| {
                    while let Some((at, blocks)) = take(&next, capacities) {
                        let rate = optimum(trace, blocks, |_, _| {}).hit_rate;
                        optima.lock().unwrap_or_else(PoisonError::into_inner)[at] = rate;
                        progress(Stage::Optimum(done.fetch_add(1, Ordering::Relaxed) as u64 + 1));
                    }
                });
            }
        });
        let optima = optima.into_inner().unwrap_or_else(PoisonError::into_inner);
        let point =
            |(blocks, optimum): (&u64, f64)| CapacityPoint { blocks: *blocks, lru: lru.hit_rate(*blocks), optimum };
        let points: Vec<CapacityPoint> = capacities.iter().zip(optima).map(point).collect();
        let knee_blocks = knee(&points);
        Self { lru, points, knee_blocks }
    }
}

fn take(next: &AtomicUsize, capacities: &[u64]) -> Option<(usize, u64)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    capacities.get(at).map(|blocks| (at, *blocks))
}

/// Where LRU's curve lies farthest above the line from its first point to its last: the knee of Kneedle (Satopää et al., ICDCSW 2011)
/// without its smoothing, since the curve is exact.
fn knee(points: &[CapacityPoint]) -> Option<u64> {
    let (first, last) = (points.first()?, points.last()?);
    let (width, height) = ((last.blocks - first.blocks) as f64, last.lru - first.lru);
    if width <= 0.0 || height <= 0.0 {
        return None;
    }
    let above = |point: &CapacityPoint| (point.lru - first.lru) / height - (point.blocks - first.blocks) as f64 / width;
    let knee = points.iter().max_by(|one, other| above(one).total_cmp(&above(other)))?;
    // On the line there is none: two points, or a curve that is as steep at its end as at its beginning.
    (above(knee) > 0.0).then_some(knee.blocks)
}

/// So many capacities from one to another, each larger than the one before by the same factor, both ends included.
#[must_use]
pub fn capacities(least: u64, most: u64, count: u32) -> Vec<u64> {
    let (least, most) = (least.max(1), most.max(least.max(1)));
    let steps = f64::from(count.max(2) - 1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between least and most")]
    let at = |step: u32| (least as f64 * (most as f64 / least as f64).powf(f64::from(step) / steps)).round() as u64;
    let mut capacities: Vec<u64> = (0..count.max(2)).map(at).collect();
    if let Some(last) = capacities.last_mut() {
        *last = most;
    }
    capacities.dedup();
    capacities
}

#[cfg(test)]
mod tests {
    use super::super::{GenerateOptions, Generator, SimulateOptions, simulate};
    use super::*;

    #[test]
    fn a_plan_is_what_a_simulation_of_each_capacity_says() {
        let options = GenerateOptions { requests: 400, ..GenerateOptions::default() };
        let trace = Trace::collect(512, Generator::new(options).unwrap());
        let sizes = capacities(50, 4_000, 6);
        let stages = Mutex::new(Vec::new());
        let plan = CapacityPlan::of(&trace, &sizes, 2, |stage| stages.lock().unwrap().push(stage));
        for point in &plan.points {
            let simulated = simulate(&trace, SimulateOptions::lru(point.blocks, 0), |_, _| {}).hit_rate;
            assert_eq!(point.lru, simulated, "{}", point.blocks);
            assert!(point.optimum >= point.lru && point.optimum <= plan.lru.ceiling(), "{point:?}");
        }
        assert_eq!(plan, CapacityPlan::of(&trace, &sizes, 1, |_| {}), "however many work on it");
        let stages = stages.into_inner().unwrap();
        assert!(stages.contains(&Stage::Lru(400)) && stages.contains(&Stage::Optimum(6)), "{stages:?}");
    }

    #[test]
    fn capacities_go_up_by_one_factor_and_both_ends_are_there() {
        assert_eq!(capacities(10, 10_000, 4), [10, 100, 1_000, 10_000]);
        assert_eq!(capacities(1, 3, 9), [1, 2, 3]);
        assert_eq!(capacities(0, 0, 5), [1]);
    }

    #[test]
    fn the_knee_is_where_more_begins_to_bring_less() {
        let point = |(blocks, lru)| CapacityPoint { blocks, lru, optimum: lru };
        let points = [(1, 0.0), (10, 0.30), (20, 0.50), (100, 0.55), (200, 0.56)].map(point);
        assert_eq!(knee(&points), Some(20));
        assert_eq!(knee(&[(1, 0.0), (10, 0.0)].map(point)), None);
        assert_eq!(knee(&[(5, 0.2), (10, 0.4)].map(point)), None);
        assert_eq!(knee(&[]), None);
    }
}
