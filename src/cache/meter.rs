//! What the walks count: numbers since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lookup::Found;

/// Counters of lookups and deliveries.
#[derive(Debug, Default)]
pub struct Meter {
    lookups: AtomicU64,
    hit_tokens: AtomicU64,
    miss_tokens: AtomicU64,
    blocks_engine: AtomicU64,
    blocks_ram: AtomicU64,
    blocks_nvme: AtomicU64,
    blocks_missed: AtomicU64,
    delivered_ram: AtomicU64,
    delivered_nvme: AtomicU64,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Meter {
    pub(super) fn looked_up(&self, found: &Found) {
        add(&self.lookups, 1);
        add(&self.hit_tokens, found.hit_tokens);
        add(&self.miss_tokens, found.miss_tokens);
        add(&self.blocks_engine, found.counts.engine.into());
        add(&self.blocks_ram, found.counts.ram.into());
        add(&self.blocks_nvme, found.counts.nvme.into());
        add(&self.blocks_missed, found.counts.missed.into());
    }

    pub(super) fn delivered(&self, blocks: u32, from_nvme: u32) {
        add(&self.delivered_ram, u64::from(blocks - from_nvme));
        add(&self.delivered_nvme, from_nvme.into());
    }

    /// Tokens that lookups found, and tokens that they missed.
    #[must_use]
    pub fn tokens(&self) -> (u64, u64) {
        (self.hit_tokens.load(Ordering::Relaxed), self.miss_tokens.load(Ordering::Relaxed))
    }

    /// All other counters, by name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 7] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("lookups", get(&self.lookups)),
            ("lookup_blocks_engine", get(&self.blocks_engine)),
            ("lookup_blocks_ram", get(&self.blocks_ram)),
            ("lookup_blocks_nvme", get(&self.blocks_nvme)),
            ("lookup_blocks_missed", get(&self.blocks_missed)),
            ("delivered_blocks_ram", get(&self.delivered_ram)),
            ("delivered_blocks_nvme", get(&self.delivered_nvme)),
        ]
    }
}
