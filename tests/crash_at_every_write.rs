//! A scripted run on a cache, and a crash after each write to its drive and each batch of its index: half done, and done.
//!
//! The run is recorded: every write that reached the device, and how long RocksDB's log was at that moment. A crash after
//! event number n is then a folder with the writes before it and the log cut there: what a killed process leaves, since
//! one thread did all of it in that order. (`crash_torture` has the real kills, where order is the kernel's.) A power loss
//! is the same with the last writes lost or torn though their rows are there, or with the last rows lost though the
//! writes are there.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should stop")]
#![expect(clippy::print_stderr, reason = "figures of a run belong beside its result")]

#[path = "crash_at_every_write/crash.rs"]
mod crash;
#[path = "crash_at_every_write/prompts.rs"]
mod prompts;
#[path = "crash_at_every_write/recording.rs"]
mod recording;
#[path = "crash_at_every_write/rig.rs"]
mod rig;
#[path = "crash_at_every_write/script.rs"]
mod script;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crash::{Crash, Found, crashes, power_losses};
use script::Recorded;

/// Opening a database syncs a dozen times: crashes wait for the drive more than for a core.
const THREADS: usize = 8;

/// Tries every crash; what was found in all.
fn try_all(recorded: &Recorded, crashes: &[Crash]) -> Found {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Found::default()));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        while let Some(crash) = crashes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let one = runtime.block_on(crash.happen(recorded, dir.path()));
            found.lock().unwrap().add(&one);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                next.store(usize::MAX / 2, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn a_crash_at_any_write_or_batch_loses_what_was_under_way_and_nothing_else() {
    let recorded = script::record(true);
    let crashes = crashes(&recorded);
    let found = try_all(&recorded, &crashes);
    eprintln!(
        "{} writes and {} batches, {} crashes: {} rows recovered, {} blocks read right, {} without an ancestor",
        recorded.writes.len(),
        recorded.batches.len(),
        crashes.len(),
        found.rows,
        found.read,
        found.orphaned,
    );
    assert!(recorded.writes.len() >= 40 && recorded.batches.len() >= 20, "the script is worth its crashes");
    assert_eq!((found.corrupt, found.stale, found.lost), (0, 0, 0), "corrupt, stale and lost");
    assert!(found.orphaned > 0, "some crash separates a block from its ancestor");
}

#[test]
fn a_power_loss_at_any_write_makes_misses_and_never_wrong_bytes() {
    let recorded = script::record(false);
    let losses = power_losses(&recorded);
    let found = try_all(&recorded, &losses);
    eprintln!(
        "{} power losses: {} rows recovered, {} blocks read right, {} stale rows, {} of them met by readers",
        losses.len(),
        found.rows,
        found.read,
        found.stale,
        found.lost,
    );
    assert_eq!(found.corrupt, 0, "what a power loss leaves is stale, not corrupt");
    assert!(found.stale > 0 && found.lost > 0, "some rows outlive their bytes");
}
