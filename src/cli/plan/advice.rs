//! What to buy, and how much of its hits RAM would hand over.

use serde::Serialize;

use super::mix::Target;
use super::worth::{Size, Worth};
use crate::replay::CapacityPlan;

/// What to buy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Advice {
    pub(super) reason: Reason,
    pub(super) ram_blocks: u64,
    pub(super) nvme_blocks: u64,
    pub(super) hit_rate: f64,
    /// What computing the hits would cost a day.
    pub(super) saved_per_day: Option<f64>,
    /// What the tiers cost a day.
    pub(super) cost_per_day: Option<f64>,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// The cheapest that reaches the target.
    Target,
    /// The net of a day is highest.
    Net,
    /// The net of a day is below zero at any size.
    NothingPays,
    /// More brings least for what it takes.
    Knee,
    /// Nine tenths of what can be hit.
    NinetyPercent,
}

/// RAM above NVMe of the advised size.
#[derive(Debug, Serialize)]
pub(super) struct RamPoint {
    pub(super) blocks: u64,
    pub(super) bytes: Option<u64>,
    /// Of all hits.
    pub(super) share: f64,
}

impl Advice {
    pub(super) fn of(plan: &CapacityPlan, sizes: &[Size], target: Option<&Target>, worth: &Worth<'_>) -> Self {
        let (reason, ram_blocks, nvme_blocks, hit_rate) = chosen(plan, sizes, target);
        let saved_per_day = worth.saved(hit_rate);
        let cost_per_day = worth.cost(ram_blocks, nvme_blocks);
        Self { reason, ram_blocks, nvme_blocks, hit_rate, saved_per_day, cost_per_day }
    }

    /// The size that bounds what is hit.
    pub(super) fn blocks(self) -> u64 {
        self.nvme_blocks.max(self.ram_blocks)
    }
}

/// Why, blocks of RAM, blocks of NVMe, and the hit rate.
fn chosen(plan: &CapacityPlan, sizes: &[Size], target: Option<&Target>) -> (Reason, u64, u64, f64) {
    if let Some(mix) = target.and_then(|target| target.mixes.first()) {
        let (ram_blocks, nvme_blocks) = (mix.ram_blocks, mix.nvme_blocks);
        return (Reason::Target, ram_blocks, nvme_blocks, mix.hit_rate);
    }
    let net = |size: &&Size| size.net_per_day.unwrap_or(f64::NEG_INFINITY);
    let best = sizes.iter().max_by(|one, other| net(one).total_cmp(&net(other)));
    let knee = || plan.knee_blocks.map(|blocks| (Reason::Knee, blocks));
    let (reason, nvme_blocks) = match best.and_then(|size| Some((size, size.net_per_day?))) {
        Some((size, net)) if net > 0.0 => (Reason::Net, size.blocks),
        Some(_) => (Reason::NothingPays, 0),
        None => knee().unwrap_or_else(|| (Reason::NinetyPercent, plan.lru.blocks_for(0.9))),
    };
    let known = sizes.iter().find(|size| size.blocks == nvme_blocks);
    let hit_rate = known.map_or_else(|| plan.lru.hit_rate(nvme_blocks), |size| size.hit_rate);
    (reason, 0, nvme_blocks, hit_rate)
}

/// RAM of every size up to the advised one, or up to the knee where none is advised.
pub(super) fn ram(plan: &CapacityPlan, advice: Advice, bytes: impl Fn(u64) -> Option<u64>) -> Vec<RamPoint> {
    let nvme = Some(advice.blocks()).filter(|blocks| *blocks > 0).or(plan.knee_blocks).unwrap_or(0);
    let all = plan.lru.hit_tokens(nvme);
    if all == 0 {
        return Vec::new();
    }
    let below = plan.capacities.iter().copied().filter(|blocks| *blocks < nvme);
    let point = |blocks: u64| {
        let share = plan.lru.hit_tokens(blocks) as f64 / all as f64;
        RamPoint { blocks, bytes: bytes(blocks), share }
    };
    below.chain([nvme]).map(point).collect()
}
