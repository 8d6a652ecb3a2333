//! What policies hit: the figures that the default was chosen by, and that it is nowhere much worse than LRU.

use super::chance::Chance;
use super::{GenerateOptions, Generator, PolicyKind, SimulateOptions, Trace, TraceRequest, Workload, shared, simulate};

fn hit_rate(trace: &Trace, policy: PolicyKind, blocks: u64) -> f64 {
    simulate(trace, SimulateOptions { policy, ..SimulateOptions::lru(blocks, 0) }, |_, _| {}).hit_rate
}

/// The first requests of a workload; fewer where they are long.
fn sample(kind: Workload, requests: u64) -> Trace {
    let options = kind.options();
    let block_tokens = options.block_tokens;
    let requests = if kind == Workload::Agent { requests / 6 } else { requests };
    let generator = Generator::new(GenerateOptions { requests, ..options }).unwrap();
    Trace::collect(block_tokens, generator)
}

/// Capacities, the share of the way from LRU to the optimum that is to be gone at least, and what LRU and the optimum hit
/// (`reference/policies.md` and the golden figures).
const CONVERSATION: [(u64, f64, f64, f64); 4] = [
    (1_000, 0.25, 0.0454, 0.1944),
    (3_000, 0.30, 0.0666, 0.3003),
    (10_000, 0.17, 0.2157, 0.3736),
    (30_000, 0.2, 0.3322, 0.3736),
];
const SYNTHETIC: [(u64, f64, f64, f64); 4] = [
    (1_000, 0.10, 0.0857, 0.2819),
    (3_000, 0.14, 0.1942, 0.4549),
    (10_000, 0.30, 0.4318, 0.6292),
    (30_000, 0.5, 0.6356, 0.6512),
];

#[test]
fn the_default_goes_a_good_part_of_the_way_from_lru_to_the_optimum() {
    for (name, points) in [("conversation", CONVERSATION), ("synthetic", SYNTHETIC)] {
        let Some(trace) = shared::mooncake(name) else { return };
        for (blocks, least, lru, optimum) in points {
            let share = (hit_rate(&trace, PolicyKind::default(), blocks) - lru) / (optimum - lru);
            assert!(share >= least, "{name}, {blocks} blocks: {share:.3} of the way, at least {least}");
        }
    }
}

#[test]
fn the_default_is_nowhere_worse_than_lru_by_more_than_a_tenth_of_a_point() {
    for kind in Workload::ALL {
        let trace = sample(kind, 1_200);
        // An agent's prompts are a thousand blocks long: the smaller tiers hold none of them.
        for blocks in [100, 400, 1_500, 6_000, 25_000] {
            let [own, lru] = [PolicyKind::default(), PolicyKind::Lru].map(|policy| hit_rate(&trace, policy, blocks));
            assert!(own > lru - 0.001, "{kind:?}, {blocks} blocks: {own:.4}, LRU {lru:.4}");
        }
    }
}

/// Prompts of some eight blocks that come back by how recently they were used, about `depth` prompts later, and by nothing else.
fn recency(seed: u64, depth: f64) -> Trace {
    let mut chance = Chance::new(seed);
    let (mut stack, mut blocks) = (Vec::<Vec<u64>>::new(), 0);
    let request = |number: u64| {
        let back = (chance.exponential() * depth) as usize;
        let hash_ids = if chance.below(10) < 3 || back >= stack.len() {
            let first = blocks;
            blocks += 2 + chance.below(14);
            (first..blocks).collect()
        } else {
            stack.remove(stack.len() - 1 - back)
        };
        stack.push(hash_ids.clone());
        let (input_length, output_length) = (512 * hash_ids.len() as u64, 1 + chance.below(1_000));
        TraceRequest { timestamp_ms: 100 * number, input_length, output_length, hash_ids }
    };
    Trace::collect(512, (0..10_000).map(request))
}

#[test]
fn where_recency_is_all_there_is_the_default_loses_next_to_nothing_to_lru() {
    for (seed, depth) in [(1, 100.0), (2, 100.0), (3, 400.0)] {
        let trace = recency(seed, depth);
        for blocks in [300, 1_000, 3_000] {
            let [own, lru] = [PolicyKind::default(), PolicyKind::Lru].map(|policy| hit_rate(&trace, policy, blocks));
            assert!(own > lru - 0.001, "depth {depth}, {blocks} blocks: {own:.4}, LRU {lru:.4}");
        }
    }
}

#[test]
fn every_policy_keeps_the_planners_invariants() {
    let trace = sample(Workload::Retrieval, 900);
    for policy in PolicyKind::ALL {
        for (ram_blocks, nvme_blocks) in [(120, 0), (60, 300)] {
            let options = SimulateOptions { policy, ..SimulateOptions::lru(ram_blocks, nvme_blocks) };
            let mut simulation = super::Simulation::new(options);
            for (number, request) in trace.requests().enumerate() {
                simulation.request(&request, trace.block_tokens());
                // Each, until the tiers are full; then some.
                if number < 60 || number % 20 == 0 {
                    simulation.planner().check().unwrap();
                }
            }
            let counters = simulation.planner().counters();
            let refused = counters.ram_not_admitted + counters.nvme_not_admitted;
            assert_eq!(refused > 0, policy == PolicyKind::Gittins, "{policy:?} refused {refused}");
        }
    }
}
