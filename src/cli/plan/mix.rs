//! Flags of the cheapest tiers for a hit rate, and what was found.

use clap::Args;
use serde::Serialize;

use super::super::{CliError, size};
use super::money::Prices;
use crate::replay::{CapacityPlan, MixOptions, OPTIMUM, PolicyKind, Rates, Tiers, cheapest};
use crate::vocab::ByteCount;

/// How much of a drive's bandwidth hits may take on average: traffic comes in bursts.
const BANDWIDTH_SHARE: f64 = 0.5;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Find the cheapest RAM and NVMe that hit this share of all prompt tokens, from 0 to 1.
    #[arg(long, value_name = "HITRATE", value_parser = share)]
    target: Option<f64>,
    /// With --target: this share of the hits must come from RAM, from 0 to 1.
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "target")]
    ram_share: Option<f64>,
    /// With --target: what the drives read in a second. Hits from NVMe take half of it at most, on average over the trace.
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--nvme-bandwidth"), requires = "target")]
    nvme_bandwidth: Option<ByteCount>,
}

/// What a target takes. Field names are a contract: add, never rename.
#[derive(Debug, Serialize)]
pub(super) struct Target {
    pub(super) hit_rate: f64,
    /// The most that any policy of the plan hits at any of its sizes.
    pub(super) most: f64,
    /// The cheapest first; empty where no size reaches it.
    pub(super) mixes: Vec<Found>,
}

/// One way to reach it.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) policy: &'static str,
    /// `ram` or `ram+nvme`.
    pub(super) tiers: &'static str,
    pub(super) ram_blocks: u64,
    pub(super) ram_bytes: u64,
    pub(super) nvme_blocks: u64,
    pub(super) nvme_bytes: u64,
    pub(super) hit_rate: f64,
    /// Share of the hits that come from RAM.
    pub(super) ram_share: f64,
    pub(super) cost_month: f64,
}

/// What of a trace decides about tiers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) block_bytes: u64,
    pub(super) largest_request_blocks: u64,
    /// Bytes that would be read in a second if all prompt tokens were hits; nothing where all came at once.
    pub(super) bytes_per_second: Option<f64>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it must be a share from 0 to 1, such as 0.3".to_owned())
}

impl Flags {
    pub(super) fn check(&self, bytes_per_token: Option<u64>) -> Result<(), CliError> {
        match (self.target, bytes_per_token) {
            (Some(target), None) => {
                Err(CliError::usage("--target", &target, "with --model or --bytes-per-token".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whatever reaches the target, of the policies that a daemon can have.
    pub(super) fn target(&self, plan: &CapacityPlan, load: Option<Load>, prices: &Prices) -> Option<Target> {
        let (target, load) = (self.target?, load?);
        let bandwidth = self.nvme_bandwidth.map(|bytes| bytes.0 as f64 * BANDWIDTH_SHARE);
        let nvme_share_max = bandwidth.zip(load.bytes_per_second).map_or(1.0, |(least, all)| least / all);
        let options = MixOptions {
            target,
            ram_share: self.ram_share.unwrap_or(0.0),
            nvme_share_max,
            ram_blocks_min: load.largest_request_blocks,
            block_bytes: load.block_bytes,
            ram_gb_month: prices.ram_gb_month,
            nvme_tb_month: prices.nvme_tb_month,
        };
        let (mut mixes, mut most) = (Vec::new(), 0.0_f64);
        for policy in plan.policies.iter().filter(|policy| policy.policy != OPTIMUM) {
            let rates = match policy.policy == PolicyKind::Lru.name() {
                true => Rates::Exact(&plan.lru),
                false => Rates::Points(&plan.capacities, &policy.rates),
            };
            most = most.max(rates.most());
            let bytes = |blocks: u64| blocks.saturating_mul(load.block_bytes);
            mixes.extend(cheapest(rates, &options).into_iter().map(|mix| Found {
                policy: policy.policy,
                tiers: if mix.tiers == Tiers::Ram { "ram" } else { "ram+nvme" },
                ram_blocks: mix.ram_blocks,
                ram_bytes: bytes(mix.ram_blocks),
                nvme_blocks: mix.nvme_blocks,
                nvme_bytes: bytes(mix.nvme_blocks),
                hit_rate: mix.hit_rate,
                ram_share: mix.ram_share,
                cost_month: mix.cost_month,
            }));
        }
        mixes.sort_by(|one, other| one.cost_month.total_cmp(&other.cost_month));
        Some(Target { hit_rate: target, most, mixes })
    }
}
