//! The daemon is killed at random moments under a storm of puts, fetches, evictions and settles, again and again on the
//! same folder. No wrong byte leaves it, no block that was said to be on the drive is gone, every acknowledged settle is
//! there once.
//!
//! What `kill -9` shows: the page cache outlives the process, so rows that RocksDB has written are there, and a write
//! past the page cache may be half done when its process dies. What it can't show is a power loss, where rows and bytes
//! vanish apart: `crash_at_every_write` plays that on a device of its own. The seed fixes what each client asks for and
//! when the daemon dies, not how they meet: a failing round is a folder to look at, and is kept.
//!
//! `KVTIER_CRASH_ROUNDS` sets how often it dies, `KVTIER_CRASH_SEED` the seed.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should stop")]
#![expect(clippy::print_stderr, reason = "figures of a run belong beside its result")]
#![expect(clippy::disallowed_methods, reason = "the environment makes a run longer")]

#[path = "crash_torture/bills.rs"]
mod bills;
#[path = "crash_torture/keeper.rs"]
mod keeper;
#[path = "shared/process.rs"]
mod process;
#[path = "crash_torture/prompts.rs"]
mod prompts;
#[path = "crash_torture/round.rs"]
mod round;
#[path = "crash_torture/storm.rs"]
mod storm;

use round::Torture;

const ROUNDS: u64 = 100;
const SEED: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_moment_the_daemon_dies_in_nothing_wrong_is_served_and_nothing_acknowledged_is_lost() {
    let rounds = number("KVTIER_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("KVTIER_CRASH_SEED").unwrap_or(SEED);
    let mut torture = Torture::new(seed);
    for round in 0..rounds {
        torture.round(round).await;
    }
    let figures = torture.end().await;
    eprintln!("seed {seed}: {figures}");
    // A torture that tortures nothing proves nothing.
    assert!(figures.killed_in_puts * 4 > rounds, "many kills come in the middle of puts: {figures}");
    assert!(figures.killed_in_writes * 10 > rounds, "some come in the middle of writes to the drive: {figures}");
    let happened = [
        ("blocks stored", figures.stored),
        ("blocks read", figures.read),
        ("blocks read from the drive", figures.read_from_nvme),
        ("blocks evicted for want of room", figures.nvme_evicted),
        ("blocks evicted by hand", figures.evicted),
        ("blocks purged", figures.purged),
        ("blocks that had to be there", figures.kept),
        ("settles acknowledged", figures.settled),
        ("settles that the kill left in doubt", figures.in_doubt),
    ];
    let never = happened.iter().find(|(_, count)| *count == 0);
    assert!(rounds < 50 || never.is_none(), "{never:?} in {rounds} rounds: {figures}");
}
