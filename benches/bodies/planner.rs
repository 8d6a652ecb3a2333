//! What `benches/planner.rs` measures: a trace through the planner, and a recency list beside the crate `lru`.

use std::num::NonZeroUsize;
use std::sync::Arc;

use kvtier::plan::{Ask, Facts, Heat, Policy, PolicyKind, Use, Visit};
use kvtier::replay::{GenerateOptions, Generator, HitCurve, SimulateOptions, Simulation, Trace, simulate};
use kvtier::vocab::{BlockKey, Hints, Timestamp};
use lru::LruCache;

/// LRU asks nothing of a block.
const NOBODY: Ask<'_> = &Facts::default;

/// Requests with their keys computed.
pub(crate) struct Workload {
    requests: Vec<(Timestamp, Arc<[BlockKey]>)>,
    /// The same, as a trace.
    trace: Trace,
    /// The same blocks as small numbers, in the order of access.
    accesses: Vec<u32>,
    /// Distinct blocks.
    distinct: u32,
}

/// What a run did, so that it can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) accesses: u64,
    pub(crate) hits: u64,
}

impl Workload {
    /// Conversations with shared heads, in 64-token blocks.
    pub(crate) fn generate(requests: u64) -> Self {
        let options = GenerateOptions { requests, block_tokens: 64, ..GenerateOptions::default() };
        let Ok(generator) = Generator::new(options) else { unreachable!("the default options are good") };
        let trace = Trace::collect(64, generator);
        let mut made = Self { requests: Vec::new(), trace: trace.clone(), accesses: Vec::new(), distinct: 0 };
        for request in trace.requests() {
            let keys =
                request.hash_ids.iter().map(|id| BlockKey::from_bytes(*blake3::hash(&id.to_le_bytes()).as_bytes()));
            made.requests.push((Timestamp(request.timestamp_ms), keys.collect()));
            for id in request.hash_ids.iter().rev() {
                // Ids count up from 0, and a trace of this size has far fewer than 2^32.
                let number = *id as u32;
                made.accesses.push(number);
                made.distinct = made.distinct.max(number + 1);
            }
        }
        made
    }

    pub(crate) fn accesses(&self) -> u64 {
        self.accesses.len() as u64
    }

    pub(crate) fn distinct(&self) -> u32 {
        self.distinct
    }

    /// Two tiers, of an eighth and a half of the distinct blocks; every command is consumed.
    pub(crate) fn through_the_planner(&self, policy: PolicyKind) -> (Run, Simulation) {
        let (ram_blocks, nvme_blocks) = (u64::from(self.distinct / 8), u64::from(self.distinct / 2));
        let mut simulation =
            Simulation::new(SimulateOptions { policy, ..SimulateOptions::new(ram_blocks, nvme_blocks) });
        let mut run = Run { accesses: 0, hits: 0 };
        for (now, keys) in &self.requests {
            let counts = simulation.visit(*now, keys, Hints::default());
            run.accesses += u64::from(counts.asked());
            run.hits += u64::from(counts.hit());
        }
        (run, simulation)
    }

    /// LRU at every capacity, from one pass: what it would hit with a quarter of the distinct blocks, in tokens.
    pub(crate) fn through_the_stack(&self) -> u64 {
        HitCurve::of_lru(&self.trace, |_| {}).hit_tokens(u64::from(self.distinct / 4))
    }

    /// The same from the planner, at one capacity.
    pub(crate) fn through_one_tier(&self) -> u64 {
        simulate(&self.trace, SimulateOptions::lru(u64::from(self.distinct / 4), 0), |_, _| {}).hit_tokens
    }

    /// The planner's own list: numbers in two arrays.
    pub(crate) fn through_our_list(&self, capacity: usize) -> Run {
        let mut policy: Box<dyn Policy> = PolicyKind::Lru.build();
        let mut resident = vec![false; self.distinct as usize];
        let (mut held, mut hits) = (0, 0);
        for block in &self.accesses {
            if resident[*block as usize] {
                policy.touch(0, *block, NOBODY, Use::Read);
                hits += 1;
                continue;
            }
            if held == capacity {
                let Some(victim) = policy.victim(0, &mut |_| true) else { unreachable!("a full list has a victim") };
                policy.remove(victim, NOBODY);
                resident[victim as usize] = false;
                held -= 1;
            }
            policy.insert(0, *block, Heat::Hot, NOBODY, &Visit::default());
            resident[*block as usize] = true;
            held += 1;
        }
        Run { accesses: self.accesses(), hits }
    }

    /// The crate `lru`: a hash map of boxed nodes.
    pub(crate) fn through_the_lru_crate(&self, capacity: usize) -> Run {
        let mut cache = LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN));
        let mut hits = 0;
        for block in &self.accesses {
            if cache.get(block).is_some() {
                hits += 1;
            } else {
                cache.push(*block, ());
            }
        }
        Run { accesses: self.accesses(), hits }
    }
}
