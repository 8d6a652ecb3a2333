//! A plan as programs see it.

use std::path::Path;

use serde::Serialize;

use super::advice::{Advice, RamPoint, ram};
use super::mix::{Load, Target};
use super::money::Prices;
use super::worth::{Size, Worth};
use crate::replay::{CapacityPlan, PolicyKind, SampleError, TraceInfo};

/// The plan. Field names are a contract: add, never rename.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// As it was named.
    pub(super) trace: String,
    /// Of the program.
    pub(super) version: &'static str,
    pub(super) requests: u64,
    pub(super) prompt_tokens: u64,
    pub(super) distinct_blocks: u64,
    pub(super) largest_request_blocks: u64,
    pub(super) block_tokens: u32,
    pub(super) span_ms: u64,
    /// Absent where neither a model nor a size was named.
    pub(super) bytes_per_token: Option<u64>,
    /// What no capacity can exceed.
    pub(super) infinite_hit_rate: f64,
    /// From which capacity on more brings least.
    pub(super) knee_blocks: Option<u64>,
    /// The fewest blocks with which LRU hits nine tenths of what can be hit.
    pub(super) blocks_for_90_percent: u64,
    /// LRU first, the offline optimum last.
    pub(super) policies: Vec<&'static str>,
    /// One a policy and capacity.
    pub(super) points: Vec<Point>,
    /// One a capacity: what it is worth, under the policy `sizes_policy`.
    pub(super) sizes: Vec<Size>,
    pub(super) sizes_policy: &'static str,
    /// Absent where nothing was left out.
    pub(super) sample: Option<SampleError>,
    pub(super) prices: Prices,
    pub(super) target: Option<Target>,
    pub(super) advice: Advice,
    /// How much of the advised size's hits RAM of each size would hand over, with LRU.
    pub(super) ram: Vec<RamPoint>,
}

/// A policy at a capacity.
#[derive(Debug, Serialize)]
pub(super) struct Point {
    policy: &'static str,
    capacity_blocks: u64,
    capacity_bytes: Option<u64>,
    hit_rate: f64,
    /// Whether it was estimated from a sample: see `sample`.
    sampled: bool,
}

impl Report {
    pub(super) fn of(
        trace: &Path,
        info: &TraceInfo,
        plan: &CapacityPlan,
        bytes_per_token: Option<u64>,
        prices: &Prices,
        target: impl FnOnce(Option<Load>) -> Option<Target>,
    ) -> Self {
        let block_bytes = bytes_per_token.map(|bytes| bytes.saturating_mul(u64::from(info.block_tokens)));
        let bytes = |blocks: u64| block_bytes.map(|bytes| bytes.saturating_mul(blocks));
        let largest_request_blocks = info.request_blocks.map_or(0, |blocks| blocks.max);
        let seconds = info.span_ms as f64 / 1e3;
        let token_bytes = bytes_per_token.map(|bytes| info.prompt_tokens as f64 * bytes as f64);
        let target = target(block_bytes.map(|block_bytes| Load {
            block_bytes,
            largest_request_blocks,
            bytes_per_second: token_bytes.filter(|_| seconds > 0.0).map(|bytes| bytes / seconds),
        }));
        let points = plan.policies.iter().flat_map(|of| {
            plan.capacities.iter().zip(&of.rates).map(move |(blocks, hit_rate)| Point {
                policy: of.policy,
                capacity_blocks: *blocks,
                capacity_bytes: bytes(*blocks),
                hit_rate: *hit_rate,
                sampled: of.is_sampled,
            })
        });
        let default = PolicyKind::default().name();
        let sizes_policy = plan.rates(default).map_or(PolicyKind::Lru.name(), |_| default);
        let worth = Worth::of(info, block_bytes, prices);
        let sizes = worth.sizes(plan, sizes_policy);
        let advice = Advice::of(plan, &sizes, target.as_ref(), &worth);
        Self {
            trace: trace.display().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            requests: info.requests,
            prompt_tokens: info.prompt_tokens,
            distinct_blocks: info.distinct_blocks,
            largest_request_blocks,
            block_tokens: info.block_tokens,
            span_ms: info.span_ms,
            bytes_per_token,
            infinite_hit_rate: plan.lru.ceiling(),
            knee_blocks: plan.knee_blocks,
            blocks_for_90_percent: plan.lru.blocks_for(0.9),
            policies: plan.policies.iter().map(|of| of.policy).collect(),
            points: points.collect(),
            ram: ram(plan, advice, bytes),
            sizes,
            sizes_policy,
            sample: plan.sample,
            prices: prices.clone(),
            target,
            advice,
        }
    }

    /// Hit rates of the policy that money is reckoned with, one a size.
    pub(super) fn rates(&self) -> Vec<f64> {
        self.sizes.iter().map(|size| size.hit_rate).collect()
    }

    /// Hit rates of the policy of that name, one a size.
    pub(super) fn rates_of<'a>(&'a self, policy: &'a str) -> impl Iterator<Item = f64> + 'a {
        self.points.iter().filter(move |point| point.policy == policy).map(|point| point.hit_rate)
    }

    /// Bytes of so many blocks.
    pub(super) fn bytes(&self, blocks: u64) -> Option<u64> {
        let block = self.bytes_per_token.map(|bytes| bytes.saturating_mul(u64::from(self.block_tokens)));
        block.map(|bytes| bytes.saturating_mul(blocks))
    }

    /// What is paid and saved a day at a number of blocks that is one of the sizes.
    pub(super) fn size(&self, blocks: u64) -> Option<&Size> {
        self.sizes.iter().find(|size| size.blocks == blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::super::advice::Reason;
    use super::super::worth::TB;
    use super::*;
    use crate::replay::{GenerateOptions, Generator, PlanOptions, Trace, capacities};

    fn report(prefill: Option<f64>, nvme_tb_month: f64) -> Report {
        let options = GenerateOptions { requests: 300, ..GenerateOptions::default() };
        let trace = Trace::collect(512, Generator::new(options).unwrap());
        let info = TraceInfo::of(&trace);
        let capacities = capacities(20, info.distinct_blocks, 8);
        let options = PlanOptions { capacities: &capacities, policies: &[], threads: 2, sample: None };
        let plan = CapacityPlan::of(&trace, options, |_| {});
        let prices = Prices {
            prefill_per_million: prefill,
            prefill_from: None,
            book: None,
            ram_gb_month: 0.1,
            nvme_tb_month,
            are_placeholders: false,
        };
        Report::of(Path::new("t"), &info, &plan, Some(131_072), &prices, |_| None)
    }

    #[test]
    fn the_advised_size_is_the_one_at_which_most_is_left() {
        let report = report(Some(0.1), 5.0);
        let net = |size: &Size| size.net_per_day.unwrap();
        let most = report.sizes.iter().map(net).fold(f64::NEG_INFINITY, f64::max);
        assert_eq!((report.advice.reason, net(report.size(report.advice.blocks()).unwrap())), (Reason::Net, most));
        for pair in report.sizes.windows(2) {
            // What TBs are worth adds up to what the sizes are worth.
            let tb = (pair[1].bytes.unwrap() - pair[0].bytes.unwrap()) as f64 / TB;
            let more = net(&pair[1]) - net(&pair[0]);
            assert!((pair[1].net_per_tb_day.unwrap() * tb - more).abs() < 1e-6 * more.abs().max(1.0), "{pair:?}");
        }
        let size = &report.sizes[3];
        let sum = size.saved_per_day.unwrap() - size.nvme_per_day.unwrap();
        assert!((sum - net(size)).abs() < 1e-9);
    }

    #[test]
    fn without_prices_it_is_the_knee_and_at_bad_ones_nothing() {
        let without = report(None, 5.0);
        assert_eq!((without.advice.reason, Some(without.advice.blocks())), (Reason::Knee, without.knee_blocks));
        assert_eq!(report(Some(0.000_001), 1e6).advice.reason, Reason::NothingPays);
    }

    #[test]
    fn ram_as_large_as_nvme_hands_over_all_hits() {
        let shares: Vec<f64> = report(None, 5.0).ram.iter().map(|point| point.share).collect();
        assert!(shares.is_sorted() && shares.last() == Some(&1.0) && shares[0] < 0.5, "{shares:?}");
    }
}
