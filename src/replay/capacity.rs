//! Hit rate against capacity: of LRU, in one pass for all capacities, of the other policies and the offline optimum at some.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{HitCurve, OPTIMUM, PolicyKind, Sample, SampleError, SimulateOptions, Trace, optimum, simulate};

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions<'a> {
    /// Capacities in blocks, from small to large.
    pub capacities: &'a [u64],
    /// Policies beside LRU and the optimum, which are always there.
    pub policies: &'a [PolicyKind],
    /// How many work on it.
    pub threads: usize,
    /// Replay about this share of the trace's conversations; absent for all. LRU's own curve is always of all.
    pub sample: Option<f64>,
}

/// What tiers of several sizes hit.
#[derive(Clone, Debug, PartialEq)]
pub struct CapacityPlan {
    /// Of LRU, at any capacity.
    pub lru: HitCurve,
    /// In blocks, from small to large.
    pub capacities: Vec<u64>,
    /// LRU first, the optimum last.
    pub policies: Vec<PolicyRates>,
    /// The capacity from which on more is worth least for what it takes; absent where nothing is ever hit.
    pub knee_blocks: Option<u64>,
    /// Absent where nothing was left out.
    pub sample: Option<SampleError>,
}

/// Hit rates of one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRates {
    /// Its name.
    pub policy: &'static str,
    /// Token-weighted, from cold; one a capacity of the plan.
    pub rates: Vec<f64>,
    /// Whether they were estimated from a sample.
    pub is_sampled: bool,
}

/// Where a plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// So many requests of the one pass for LRU are done.
    Lru(u64),
    /// So many of so many capacities of the other policies are done.
    Points(u64, u64),
}

/// Who decides what goes: a policy, or the future.
#[derive(Clone, Copy, Debug)]
enum Who {
    Policy(PolicyKind),
    Optimum,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Policy(policy) => policy.name(),
            Self::Optimum => OPTIMUM,
        }
    }

    fn hit_rate(self, trace: &Trace, blocks: u64) -> f64 {
        match self {
            Self::Policy(policy) => {
                simulate(trace, SimulateOptions { policy, ..SimulateOptions::lru(blocks, 0) }, |_, _| {}).hit_rate
            }
            Self::Optimum => optimum(trace, blocks, |_, _| {}).hit_rate,
        }
    }
}

impl CapacityPlan {
    /// Of a trace. `progress` is called with how far it is.
    #[must_use]
    pub fn of(trace: &Trace, options: PlanOptions<'_>, progress: impl Fn(Stage) + Sync) -> Self {
        let PlanOptions { capacities, threads, .. } = options;
        let lru = HitCurve::of_lru(trace, |done| progress(Stage::Lru(done)));
        let exact: Vec<f64> = capacities.iter().map(|blocks| lru.hit_rate(*blocks)).collect();
        let sample = options.sample.map(|rate| Sample::of(trace, rate));
        // What can be hit at all is known of both, and by how much it differs, the rates do too.
        let sampled = sample.as_ref().map(|sample| {
            let curve = HitCurve::of_lru(&sample.trace, |_| {});
            let scale = if curve.ceiling() > 0.0 { lru.ceiling() / curve.ceiling() } else { 1.0 };
            let rates = capacities.iter().map(|blocks| curve.hit_rate(sample.blocks(*blocks)) * scale);
            (scale, rates.collect::<Vec<f64>>())
        });
        let scale = sampled.as_ref().map(|(scale, _)| *scale);
        let others = options.policies.iter().filter(|policy| **policy != PolicyKind::Lru);
        let others: Vec<Who> = others.map(|policy| Who::Policy(*policy)).chain([Who::Optimum]).collect();
        let found = replayed(sample.as_ref(), trace, (capacities, &others), threads, &progress);
        let mut policies =
            vec![PolicyRates { policy: PolicyKind::Lru.name(), rates: exact.clone(), is_sampled: false }];
        for (who, rates) in others.iter().zip(found) {
            let scaled = |rate: f64| scale.map_or(rate, |scale| (rate * scale).min(lru.ceiling()));
            let rates = rates.into_iter().map(scaled).collect();
            policies.push(PolicyRates { policy: who.name(), rates, is_sampled: sample.is_some() });
        }
        let knee_blocks = knee(capacities, &exact);
        let sample = sample.zip(sampled).map(|(sample, (_, sampled))| error(&sample, &exact, &sampled));
        Self { lru, capacities: capacities.to_vec(), policies, knee_blocks, sample }
    }

    /// Hit rates of the policy of that name.
    #[must_use]
    pub fn rates(&self, policy: &str) -> Option<&[f64]> {
        self.policies.iter().find(|rates| rates.policy == policy).map(|rates| rates.rates.as_slice())
    }
}

fn error(sample: &Sample, exact: &[f64], sampled: &[f64]) -> SampleError {
    let off: Vec<f64> = exact.iter().zip(sampled).map(|(exact, sampled)| (exact - sampled).abs()).collect();
    SampleError {
        rate: sample.rate,
        requests: sample.trace.len() as u64,
        lru_error_max: off.iter().copied().fold(0.0, f64::max),
        lru_error_mean: off.iter().sum::<f64>() / off.len().max(1) as f64,
    }
}

/// Each of these at each capacity, the large ones first: they take longest, and the others fill the gaps.
fn replayed(
    sample: Option<&Sample>,
    trace: &Trace,
    (capacities, others): (&[u64], &[Who]),
    threads: usize,
    progress: &(impl Fn(Stage) + Sync),
) -> Vec<Vec<f64>> {
    let places = (0..capacities.len()).rev().flat_map(|size| (0..others.len()).map(move |who| (who, size)));
    let places: Vec<(usize, usize)> = places.collect();
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = Mutex::new(vec![vec![0.0; capacities.len()]; others.len()]);
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, places.len().max(1)) {
            scope.spawn(|| {
                while let Some((who, size)) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let blocks = capacities[*size];
                    let rate = match sample {
                        Some(sample) => others[*who].hit_rate(&sample.trace, sample.blocks(blocks)),
                        None => others[*who].hit_rate(trace, blocks),
                    };
                    found.lock().unwrap_or_else(PoisonError::into_inner)[*who][*size] = rate;
                    let done = done.fetch_add(1, Ordering::Relaxed) as u64 + 1;
                    progress(Stage::Points(done, places.len() as u64));
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Where LRU's curve lies farthest above the line from its first point to its last: the knee of Kneedle (Satopää et al., ICDCSW 2011)
/// without its smoothing, since the curve is exact.
fn knee(capacities: &[u64], rates: &[f64]) -> Option<u64> {
    let ((first, low), (last, high)) = ((capacities.first()?, rates.first()?), (capacities.last()?, rates.last()?));
    let (width, height) = ((last - first) as f64, high - low);
    if width <= 0.0 || height <= 0.0 {
        return None;
    }
    let above = |(blocks, rate): (&u64, &f64)| (rate - low) / height - (blocks - first) as f64 / width;
    let points = capacities.iter().zip(rates);
    let knee = points.max_by(|one, other| above(*one).total_cmp(&above(*other)))?;
    // On the line there is none: two points, or a curve that is as steep at its end as at its beginning.
    (above(knee) > 0.0).then_some(*knee.0)
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
    use super::super::{GenerateOptions, Generator, shared};
    use super::*;

    fn options(capacities: &[u64]) -> PlanOptions<'_> {
        PlanOptions { capacities, policies: &PolicyKind::ALL, threads: 2, sample: None }
    }

    #[test]
    fn a_plan_is_what_a_simulation_of_each_capacity_says() {
        let made = GenerateOptions { requests: 400, ..GenerateOptions::default() };
        let trace = Trace::collect(512, Generator::new(made).unwrap());
        let sizes = capacities(50, 4_000, 4);
        let stages = Mutex::new(Vec::new());
        let plan = CapacityPlan::of(&trace, options(&sizes), |stage| stages.lock().unwrap().push(stage));
        let names: Vec<&str> = plan.policies.iter().map(|rates| rates.policy).collect();
        let expected: Vec<&str> = PolicyKind::ALL.map(PolicyKind::name).into_iter().chain([OPTIMUM]).collect();
        assert_eq!(names, expected);
        let best = plan.rates(OPTIMUM).unwrap();
        for policy in PolicyKind::ALL {
            for (at, blocks) in sizes.iter().enumerate() {
                let options = SimulateOptions { policy, ..SimulateOptions::lru(*blocks, 0) };
                let simulated = simulate(&trace, options, |_, _| {}).hit_rate;
                assert_eq!(plan.rates(policy.name()).unwrap()[at], simulated, "{policy:?} {blocks}");
                assert!(best[at] >= plan.rates("lru").unwrap()[at] && best[at] <= plan.lru.ceiling(), "{plan:?}");
            }
        }
        let alone = PlanOptions { threads: 1, ..options(&sizes) };
        assert_eq!(plan, CapacityPlan::of(&trace, alone, |_| {}), "however many work on it");
        let stages = stages.into_inner().unwrap();
        let points = PolicyKind::ALL.len() as u64 * 4;
        assert!(stages.contains(&Stage::Lru(400)) && stages.contains(&Stage::Points(points, points)), "{stages:?}");
    }

    #[test]
    fn a_sample_is_near_the_whole_and_says_how_near() {
        let Some(trace) = shared::mooncake("conversation") else { return };
        let sizes = capacities(2_000, 180_000, 6);
        let exact = CapacityPlan::of(&trace, PlanOptions { policies: &[], ..options(&sizes) }, |_| {});
        let part = PlanOptions { policies: &[], sample: Some(0.2), ..options(&sizes) };
        let sampled = CapacityPlan::of(&trace, part, |_| {});
        let error = sampled.sample.unwrap();
        assert!(error.lru_error_max > 0.0 && error.lru_error_mean <= error.lru_error_max, "{error:?}");
        assert!((0.15..0.25).contains(&error.rate), "{error:?}");
        assert_eq!(exact.rates("lru"), sampled.rates("lru"), "its curve is of all");
        let pairs = exact.rates(OPTIMUM).unwrap().iter().zip(sampled.rates(OPTIMUM).unwrap());
        for (exact, sampled) in pairs {
            assert!((exact - sampled).abs() < 0.02, "{exact} {sampled} {error:?}");
        }
        assert!(sampled.policies[1].is_sampled && !exact.policies[1].is_sampled && exact.sample.is_none());
    }

    #[test]
    fn capacities_go_up_by_one_factor_and_both_ends_are_there() {
        assert_eq!(capacities(10, 10_000, 4), [10, 100, 1_000, 10_000]);
        assert_eq!(capacities(1, 3, 9), [1, 2, 3]);
        assert_eq!(capacities(0, 0, 5), [1]);
    }

    #[test]
    fn the_knee_is_where_more_begins_to_bring_less() {
        assert_eq!(knee(&[1, 10, 20, 100, 200], &[0.0, 0.30, 0.50, 0.55, 0.56]), Some(20));
        assert_eq!(knee(&[1, 10], &[0.0, 0.0]), None);
        assert_eq!(knee(&[5, 10], &[0.2, 0.4]), None);
        assert_eq!(knee(&[], &[]), None);
    }
}
