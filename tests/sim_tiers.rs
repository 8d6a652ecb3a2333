//! Planner and real tiers in a world that fails, lies, dies and comes back: seeded simulation on one thread, with a
//! clock of its own.
//!
//! The planner, the RAM arena, the NVMe shelf and the catalog are the daemon's own; the drive is one in memory that
//! queues, errs and lies by seed (`drive.rs`), and `hands.rs` does what the daemon's planner thread does. Every byte that
//! leaves is compared with what its key says, and the planner's invariants are checked after every event. `KVTIER_SEEDS`
//! is the number of seeds, `KVTIER_SEED` the first or, alone, the only one.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should stop")]
#![expect(clippy::print_stderr, reason = "figures of a run belong beside its result")]
#![expect(clippy::disallowed_methods, reason = "how many seeds to try is no part of what is tested")]

#[path = "planner_keeps_its_promises/chance.rs"]
mod chance;
#[path = "sim_tiers/crash.rs"]
mod crash;
#[path = "sim_tiers/drive.rs"]
mod drive;
#[path = "sim_tiers/hands.rs"]
mod hands;
#[path = "sim_tiers/life.rs"]
mod life;
#[path = "planner_keeps_its_promises/prompts.rs"]
mod prompts;
#[path = "sim_tiers/readers.rs"]
mod readers;
#[path = "sim_tiers/world.rs"]
mod world;
#[path = "sim_tiers/writers.rs"]
mod writers;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kvtier::tiers::Catalog;
use world::World;

const SEEDS: u64 = 3_000;
/// Lives that share one database. Opening one takes longer than a life; what lives have deleted slows it down.
const LIVES_OF_A_DATABASE: u64 = 64;

/// All that can happen. What never happens is not tested.
const KINDS: &[&str] = &[
    "EIO on read",
    "EIO on write",
    "ENOSPC",
    "batches lost with the power",
    "block evicted by hand",
    "block filled",
    "block orphaned",
    "block purged",
    "block read from RAM",
    "completion held back",
    "crash",
    "deletion undone by a power loss",
    "drive taken out",
    "evicted from NVMe",
    "evicted from RAM",
    "flipped bit",
    "lease",
    "lease lapsed",
    "load",
    "load at a crash",
    "lost write",
    "peek",
    "peek of what RAM has no room for",
    "power loss",
    "queue full for a read",
    "queue full for a write",
    "recovered block",
    "short read",
    "short write",
    "slot refused after all",
    "torn write",
    "write at a crash, done",
    "write at a crash, not done",
    "write at a crash, torn",
    "write undone by a power loss",
    "writer died",
    "wrong bytes found",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A database that several lives use, one after the other.
struct Database {
    catalog: Arc<Catalog>,
    lives: u64,
    _folder: tempfile::TempDir,
}

impl Database {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Arc::new(Catalog::open(&folder.path().join("catalog")).unwrap().catalog);
        Self { catalog, lives: 0, _folder: folder }
    }

    /// Lives one seed, and says how to see it again when it breaks.
    fn live(&mut self, seed: u64) -> World {
        self.lives += 1;
        if self.lives > LIVES_OF_A_DATABASE {
            *self = Self::new();
        }
        let mut world = World::new(seed, Arc::clone(&self.catalog));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.live())) {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            let recent: Vec<&str> = world.recent.iter().map(String::as_str).collect();
            panic!(
                "seed {seed}: {what}\nrun it again: KVTIER_SEED={seed} cargo nextest run --release --test sim_tiers\n\
                 {:?}\nthe last of what happened:\n{}",
                world.temper,
                recent.join("\n")
            );
        }
        world
    }
}

#[test]
fn no_wrong_byte_leaves_and_no_block_is_lost_without_a_fault() {
    let first = number("KVTIER_SEED");
    let seeds = number("KVTIER_SEEDS").unwrap_or(if first.is_some() { 1 } else { SEEDS });
    let next = AtomicU64::new(first.unwrap_or(0));
    let end = first.unwrap_or(0) + seeds;
    let counted = Mutex::new(BTreeMap::<&str, u64>::new());
    let work = || {
        let mut database = Database::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let world = database.live(seed);
            let mut counted = counted.lock().unwrap();
            for (kind, count) in world.counts {
                *counted.entry(kind).or_default() += count;
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
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
    eprintln!("{seeds} seeds: {counted:?}");
    let never: Vec<_> = KINDS.iter().filter(|kind| !counted.contains_key(*kind)).collect();
    assert!(seeds < 100 || never.is_empty(), "what never happens is not tested: {never:?}");
}

#[test]
fn the_same_seed_twice_is_the_same_log_byte_for_byte() {
    let (mut one, mut other) = (Database::new(), Database::new());
    for seed in 0..40 {
        assert_eq!(one.live(seed).digest(), other.live(seed).digest(), "seed {seed}");
    }
    assert_ne!(one.live(1).digest(), other.live(2).digest());
}
