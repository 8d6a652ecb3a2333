//! An LRU of one tier without the planner, which counts the same hits: a list of the ids of blocks is all it takes.
//!
//! What LRU holds is what was touched last, as much as there is room for, whatever the order in which the rest went. So there is nothing
//! to decide, and hits are counted without a catalog, leases or slots.

use std::num::NonZeroUsize;

use ::lru::LruCache;

use super::RequestView;
use crate::vocab::TierCounts;

/// Blocks by when they were touched last.
pub(super) struct LruTier {
    held: Option<LruCache<u64, ()>>,
}

impl LruTier {
    /// An empty one for so many blocks.
    pub(super) fn new(blocks: u64) -> Self {
        // Not with room for all of them from the start: a tier may be larger than the trace.
        let blocks = NonZeroUsize::new(usize::try_from(blocks).unwrap_or(usize::MAX));
        let held = blocks.map(|blocks| {
            let mut held = LruCache::unbounded();
            held.resize(blocks);
            held
        });
        Self { held }
    }

    /// A request's unbroken run from its first block on; then all of it is touched, from its last block to its first.
    pub(super) fn visit(&mut self, request: &RequestView<'_>) -> TierCounts {
        let mut run = 0;
        if let Some(held) = &mut self.held {
            run = request.hash_ids.iter().take_while(|id| held.contains(*id)).count();
            for id in request.hash_ids.iter().rev() {
                held.push(*id, ());
            }
        }
        let count = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
        TierCounts { ram: count(run), missed: count(request.hash_ids.len() - run), ..TierCounts::default() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{SimulateOptions, Tally, Trace, TraceRequest, shared, simulate};
    use super::*;

    fn tally(trace: &Trace, blocks: u64) -> Tally {
        let (mut tier, mut tally) = (LruTier::new(blocks), Tally::default());
        for request in trace.requests() {
            tally.add(&request, tier.visit(&request), trace.block_tokens());
        }
        tally
    }

    fn is_what_the_planner_counts(trace: &Trace, blocks: u64) {
        let by_planner = simulate(trace, SimulateOptions::lru(blocks, 0), |_, _| {});
        assert_eq!(tally(trace, blocks).report("lru", blocks), by_planner, "{blocks} blocks");
    }

    #[test]
    fn the_planner_counts_the_same_on_the_traces() {
        for name in ["conversation", "synthetic"] {
            let Some(trace) = shared::mooncake(name) else { return };
            [100, 1_000, 10_000, 1_000_000].into_iter().for_each(|blocks| is_what_the_planner_counts(&trace, blocks));
        }
    }

    proptest! {
        #[test]
        fn the_planner_counts_the_same_on_any_trace(
            chains in prop::collection::vec((0..4_u64, 1..12_usize, 0..10_u64), 1..60),
            blocks in 1..50_u64,
        ) {
            let request = |(root, blocks, partial): (u64, usize, u64)| {
                let hash_ids: Vec<u64> = (0..blocks as u64).map(|depth| root * 100 + depth).collect();
                let input_length = blocks as u64 * 10 - partial;
                TraceRequest { timestamp_ms: 0, input_length, output_length: 1, hash_ids }
            };
            is_what_the_planner_counts(&Trace::collect(10, chains.into_iter().map(request)), blocks);
        }
    }
}
