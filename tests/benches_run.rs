//! Every bench at a small size, checked for what it computes and never for how long it takes: so they do not rot.

#[cfg(test)]
#[path = "../benches/bodies/hashing.rs"]
mod hashing;
#[cfg(test)]
#[path = "../benches/bodies/lookup.rs"]
mod lookup;
#[cfg(test)]
#[path = "../benches/bodies/planner.rs"]
mod planner;
#[cfg(test)]
#[path = "../benches/bodies/reopen.rs"]
mod reopen;
#[cfg(test)]
#[path = "../benches/bodies/stall.rs"]
mod stall;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use kvtier::cache::lookup::LookupOptions;
    use kvtier::cache::{Chain, Keys};
    use kvtier::vocab::{BlockKey, Owner, TenantName};

    use kvtier::plan::PolicyKind;

    use super::{hashing, lookup, planner, reopen, stall};

    #[test]
    fn the_planner_bench_replays_its_trace() {
        let workload = planner::Workload::generate(60);
        for policy in [PolicyKind::Lru, PolicyKind::default()] {
            let (run, simulation) = workload.through_the_planner(policy);
            assert_eq!(run.accesses, workload.accesses());
            assert!(run.hits > 0 && run.hits < run.accesses, "{run:?}");
            simulation.planner().check().unwrap();
            assert!(simulation.planner().is_quiet());
            let counters = simulation.planner().counters();
            assert!(counters.ram_evicted > 0 && counters.nvme_evicted > 0 && counters.promoted > 0, "{counters:?}");
        }
    }

    #[test]
    fn the_stack_and_the_planner_hit_the_same_tokens() {
        let workload = planner::Workload::generate(60);
        let hit = workload.through_the_stack();
        assert!(hit > 0);
        assert_eq!(hit, workload.through_one_tier());
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

    #[test]
    fn the_lookup_bench_finds_all_prompts_while_others_come_and_go() {
        // It asserts what it finds.
        let times = lookup::Resident::new(3).lookups(10);
        assert_eq!(times.map(|times| times.count()), [10, 10]);
        let churn = lookup::Churn::start(1);
        let stop = AtomicBool::new(false);
        let stored = std::thread::scope(|scope| {
            let putting = scope.spawn(|| churn.put_until(50_000.0, &stop));
            let looked = churn.lookups(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            assert!(looked[0].count() > 0 && looked[0].count() == looked[1].count());
            putting.join().unwrap()
        });
        assert!(stored >= u64::from(lookup::Churn::PUT));
        churn.stop();
    }

    #[test]
    fn the_lookup_bench_times_every_event_of_its_trace() {
        let (first, best) = lookup::busy(60, 0..2);
        let counts = |busy: &lookup::Busy| busy.iter().map(|(kind, times)| (*kind, times.count())).collect::<Vec<_>>();
        assert_eq!(counts(&first), counts(&best));
        let offers = first.iter().filter(|(kind, _)| kind.starts_with("Offer")).map(|(_, times)| times.count());
        assert_eq!(offers.sum::<usize>(), 60);
        for kind in ["Need", "Filled", "Wrote", "Want", "Loaded", "Used", "RamFreed"] {
            assert!(first.get(kind).is_some_and(|times| times.at(1.0).as_nanos() > 0), "{kind}");
            assert!(best[kind].at(1.0) <= first[kind].at(1.0), "{kind}");
        }
        assert!(!first.contains_key("other"));
    }

    #[test]
    fn the_stall_bench_stores_evicts_inspects_and_purges_beside_its_lookups() {
        let folder = tempfile::tempdir().unwrap();
        let (blocks, purged) = (100 * stall::CHAIN, 10 * stall::CHAIN);
        let full = stall::Full::start(folder.path(), blocks, purged, Duration::from_millis(1));
        let beside = stall::Beside { puts: true, inspect_every: Some(Duration::from_millis(1)), purge: true };
        let seen = full.look(Duration::from_millis(300), beside);
        assert!(
            seen.turns.count() > 0 && !seen.lookups.is_empty() && seen.inspections > 0 && seen.stored > 0,
            "{seen:?}"
        );
        assert!(seen.lookup(0.5) <= seen.lookup(1.0) && seen.turns.at(0.5) <= seen.turns.max());
        // Some of them may have gone for what was put.
        assert!(seen.purged.is_some_and(|(gone, _)| gone <= u64::from(purged)), "{seen:?}");
        full.look(Duration::from_millis(300), stall::Beside { puts: true, ..stall::Beside::default() });
        full.stop();
    }

    #[test]
    fn the_reopen_bench_finds_every_block_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let rows = 3 * reopen::GROUP + 100;
        for owners in [reopen::Owners::Few, reopen::Owners::Many] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("catalog");
            reopen::generate(&path, rows, owners);
            let reopened = reopen::Reopened::start(&path, rows);
            let cache = &reopened.cache;
            assert!(reopened.open.as_nanos() > 0 && reopened.start.as_nanos() > 0);
            let keys: Arc<[BlockKey]> = (0..=rows).map(reopen::key).collect();
            let (namespace, tenant) = (cache.names().namespaces()[0].clone(), TenantName::parse("bench").unwrap());
            let chain = Chain::of(namespace, tenant, Owner::default(), Keys::Known(keys));
            let options = LookupOptions { membership: true, ..LookupOptions::default() };
            let found = runtime.block_on(cache.lookup(&chain, &options, None)).unwrap();
            assert_eq!((found.counts.nvme, found.counts.missed), (rows, 1), "every block, and none that has no row");
            for number in (0..rows).step_by(97) {
                let known = runtime.block_on(cache.inspect(reopen::key(number))).unwrap().unwrap();
                let parent = reopen::place_in_chain(number).0.map(reopen::key);
                assert_eq!((known.parent, known.first, known.readable), (parent, parent.is_none(), true), "{number}");
                assert_eq!(known.crc, reopen::key(number).hash64());
            }
            let parts = runtime.block_on(cache.footprint()).unwrap();
            assert!(parts.iter().map(|(_, bytes)| bytes).sum::<usize>() > rows as usize * 100, "{parts:?}");
            reopened.stop();
        }
    }
}
