//! The planner keeps its promises in a world that is slow, out of order and unreliable: seeded simulation.
//!
//! Commands end late and in any order, transfers fail, writers die and contradict each other, admins purge, the daemon
//! restarts from the rows that were written. After every event the planner's own invariants and those held outside it
//! (see `audit.rs`) are checked. `KVTIER_SEEDS` is the number of seeds, `KVTIER_SEED` the first or, alone, the only one.

#[cfg(test)]
#[path = "planner_keeps_its_promises/admin.rs"]
mod admin;
#[cfg(test)]
#[path = "planner_keeps_its_promises/audit.rs"]
mod audit;
#[cfg(test)]
#[path = "planner_keeps_its_promises/chance.rs"]
mod chance;
#[cfg(test)]
#[path = "planner_keeps_its_promises/life.rs"]
mod life;
#[cfg(test)]
#[path = "planner_keeps_its_promises/prompts.rs"]
mod prompts;
#[cfg(test)]
#[path = "planner_keeps_its_promises/puts.rs"]
mod puts;
#[cfg(test)]
#[path = "planner_keeps_its_promises/readers.rs"]
mod readers;
#[cfg(test)]
#[path = "planner_keeps_its_promises/restart.rs"]
mod restart;
#[cfg(test)]
#[path = "planner_keeps_its_promises/slots.rs"]
mod slots;
#[cfg(test)]
#[path = "planner_keeps_its_promises/temper.rs"]
mod temper;
#[cfg(test)]
#[path = "planner_keeps_its_promises/tenants.rs"]
mod tenants;
#[cfg(test)]
#[path = "planner_keeps_its_promises/world.rs"]
mod world;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::world::World;

    const SEEDS: u64 = 3_000;

    #[expect(clippy::disallowed_methods, reason = "how many seeds to try is no part of what is tested")]
    fn number(name: &str) -> Option<u64> {
        std::env::var(name).ok()?.parse().ok()
    }

    /// Lives one seed, and says how to see it again when it breaks. The digest stands for all that happened.
    fn live(seed: u64) -> World {
        let mut world = World::new(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.live())) {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            let recent: Vec<&str> = world.recent.iter().map(String::as_str).collect();
            panic!(
                "seed {seed}: {what}\nrun it again: KVTIER_SEED={seed} cargo nextest run --release --test \
                 planner_keeps_its_promises\nthe last of what happened:\n{}",
                recent.join("\n")
            );
        }
        world
    }

    #[test]
    fn every_promise_is_kept_whatever_the_order_in_which_commands_end() {
        let first = number("KVTIER_SEED");
        let seeds = number("KVTIER_SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
        let next = AtomicU64::new(first.unwrap_or(0));
        let end = first.unwrap_or(0) + seeds;
        let counted = Mutex::new(BTreeMap::new());
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return;
                }
                let world = live(seed);
                let mut counted = counted.lock().unwrap();
                for (name, count) in world.planner.counters().named().into_iter().chain([("events", world.events)]) {
                    *counted.entry(name).or_insert(0) += count;
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                if let Err(panic) = worker.join() {
                    // The others stop at their next seed.
                    next.store(end, Ordering::Relaxed);
                    std::panic::resume_unwind(panic);
                }
            }
        });
        let counted = counted.into_inner().unwrap();
        // A policy that refuses has seen hundreds of requests: its own tests have so many.
        let elsewhere = |name: &str| name.ends_with("_not_admitted");
        let never: Vec<_> = counted.iter().filter(|(name, count)| **count == 0 && !elsewhere(name)).collect();
        assert!(seeds < 100 || never.is_empty(), "what never happens is not tested: {never:?}");
    }

    #[test]
    fn the_same_seed_twice_is_the_same_log_byte_for_byte() {
        for seed in 0..60 {
            assert_eq!(live(seed).digest(), live(seed).digest(), "seed {seed}");
        }
        assert_ne!(live(1).digest(), live(2).digest());
    }
}
