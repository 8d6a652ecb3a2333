//! Every bench at a small size, checked for what it computes and never for how long it takes: so they do not rot.

#[cfg(test)]
#[path = "../benches/bodies/hashing.rs"]
mod hashing;
#[cfg(test)]
#[path = "../benches/bodies/planner.rs"]
mod planner;

#[cfg(test)]
mod tests {
    use super::{hashing, planner};

    #[test]
    fn the_planner_bench_replays_its_trace() {
        let workload = planner::Workload::generate(60);
        let (run, simulation) = workload.through_the_planner();
        assert_eq!(run.accesses, workload.accesses());
        assert!(run.hits > 0 && run.hits < run.accesses, "{run:?}");
        simulation.planner().check().unwrap();
        assert!(simulation.planner().is_quiet());
        let counters = simulation.planner().counters();
        assert!(counters.ram_evicted > 0 && counters.nvme_evicted > 0 && counters.promoted > 0, "{counters:?}");
    }

    #[test]
    fn both_recency_lists_hit_the_same() {
        let workload = planner::Workload::generate(60);
        for capacity in [1, 10, workload.distinct() as usize / 4, workload.distinct() as usize] {
            assert_eq!(workload.through_our_list(capacity), workload.through_the_lru_crate(capacity), "{capacity}");
        }
    }

    #[test]
    fn the_hashing_bench_hashes_every_token_and_key() {
        let mut prompt = hashing::prompt(10 * hashing::BLOCK_TOKENS);
        let key = hashing::last_key_of_tokens(&prompt).unwrap();
        prompt[0] ^= 1;
        assert_ne!(hashing::last_key_of_tokens(&prompt), Some(key));
        let mut packed = hashing::engine_keys(10);
        assert_eq!(packed.len(), 10 * hashing::ENGINE_KEY_BYTES);
        let folded = hashing::fold_engine_keys(&packed);
        *packed.last_mut().unwrap() ^= 1;
        assert_ne!(hashing::fold_engine_keys(&packed), folded);
    }
}
