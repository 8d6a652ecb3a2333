//! What each size is worth in money a day.

use serde::Serialize;

use super::money::Prices;
use crate::replay::mix::MONTH_DAYS;
use crate::replay::{CapacityPlan, OPTIMUM, PolicyKind, TraceInfo};

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;
const GB: f64 = 1e9;
pub(super) const TB: f64 = 1e12;

/// A capacity.
#[derive(Debug, Serialize)]
pub(super) struct Size {
    pub(super) blocks: u64,
    pub(super) bytes: Option<u64>,
    pub(super) lru: f64,
    pub(super) belady: f64,
    /// Of the policy that money is reckoned with.
    pub(super) hit_rate: f64,
    /// Prompt tokens a day that need no prefill, at the trace's pace.
    pub(super) hit_tokens_per_day: Option<f64>,
    /// What computing them would cost.
    pub(super) saved_per_day: Option<f64>,
    /// What customers pay less for them.
    pub(super) forgone_per_day: Option<f64>,
    /// What so much NVMe costs.
    pub(super) nvme_per_day: Option<f64>,
    /// What is saved, less what the NVMe costs and what customers pay less.
    pub(super) net_per_day: Option<f64>,
    /// What a TB between the capacity before and this one saves.
    pub(super) saved_per_tb_day: Option<f64>,
    /// The same, less what customers pay less and what the TB costs.
    pub(super) net_per_tb_day: Option<f64>,
}

/// A trace's pace, and prices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worth<'a> {
    prices: &'a Prices,
    /// Of all prompts; absent where all came at once.
    tokens_per_day: Option<f64>,
    block_bytes: Option<u64>,
}

impl<'a> Worth<'a> {
    pub(super) fn of(info: &TraceInfo, block_bytes: Option<u64>, prices: &'a Prices) -> Self {
        let days = (info.span_ms > 0).then(|| info.span_ms as f64 / DAY_MS);
        Self { prices, tokens_per_day: days.map(|days| info.prompt_tokens as f64 / days), block_bytes }
    }

    /// What computing the hits would cost a day.
    pub(super) fn saved(&self, hit_rate: f64) -> Option<f64> {
        self.a_day(self.prices.prefill_per_million, hit_rate)
    }

    /// What tiers of so many blocks cost a day.
    pub(super) fn cost(&self, ram_blocks: u64, nvme_blocks: u64) -> Option<f64> {
        let bytes = |blocks: u64| self.block_bytes.map(|bytes| blocks as f64 * bytes as f64);
        let ram = bytes(ram_blocks)? / GB * self.prices.ram_gb_month;
        Some((ram + bytes(nvme_blocks)? / TB * self.prices.nvme_tb_month) / MONTH_DAYS)
    }

    /// So much a million tokens, of this share of all.
    fn a_day(&self, price: Option<f64>, share: f64) -> Option<f64> {
        price.zip(self.tokens_per_day).map(|(price, tokens)| price * share * tokens / 1e6)
    }

    /// Every capacity of a plan, under one of its policies.
    pub(super) fn sizes(&self, plan: &CapacityPlan, policy: &str) -> Vec<Size> {
        let rates = |policy: &str| plan.rates(policy).unwrap_or_default();
        let (lru, belady, hits) = (rates(PolicyKind::Lru.name()), rates(OPTIMUM), rates(policy));
        let hit_worth = self.prices.hit_worth();
        let mut before = (0, 0.0);
        let mut sizes = Vec::new();
        for (at, blocks) in plan.capacities.iter().copied().enumerate() {
            let hit_rate = hits[at];
            let (more_blocks, more) = (blocks - before.0, hit_rate - before.1);
            let more_tb = self.block_bytes.map(|bytes| more_blocks as f64 * bytes as f64 / TB);
            let left = |share: f64, blocks: u64| Some(self.a_day(hit_worth, share)? - self.cost(0, blocks)?);
            sizes.push(Size {
                blocks,
                bytes: self.block_bytes.map(|bytes| bytes.saturating_mul(blocks)),
                lru: lru[at],
                belady: belady[at],
                hit_rate,
                hit_tokens_per_day: self.tokens_per_day.map(|tokens| tokens * hit_rate),
                saved_per_day: self.saved(hit_rate),
                forgone_per_day: self.a_day(self.prices.forgone_per_million(), hit_rate),
                nvme_per_day: self.cost(0, blocks),
                net_per_day: left(hit_rate, blocks),
                saved_per_tb_day: self.saved(more).zip(more_tb).map(|(saved, tb)| saved / tb),
                net_per_tb_day: left(more, more_blocks).zip(more_tb).map(|(left, tb)| left / tb),
            });
            before = (blocks, hit_rate);
        }
        sizes
    }
}
