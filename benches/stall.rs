//! What may hold the planner, and with it a lookup: its turns, and leased lookups of 64 blocks, in a cache of a million
//! blocks, alone and beside puts for which others go, an inspection every 100 ms and a purge of 100,000 blocks, on a catalog
//! each of whose writes takes 5 ms longer than it should (claim: the p99 of lookups moves by at most half beside inspections or
//! a purge, their worst is at most 5 ms on an idle machine).
//!
//! `cargo bench --bench stall` takes a minute; `cargo bench --bench stall -- 200000 20000` has fewer blocks, and purges fewer.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that can't run should stop; its figures are its output"
)]

use std::time::Duration;

#[path = "bodies/stall.rs"]
mod bodies;

use bodies::{Beside, Full, Seen};

const LOOK: Duration = Duration::from_secs(8);
/// What a slow device adds to each write of the catalog.
const SLOW: Duration = Duration::from_millis(5);
const INSPECT_EVERY: Duration = Duration::from_millis(100);

fn main() {
    let words: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let blocks = words.first().copied().unwrap_or(1_000_000);
    let purged = words.get(1).copied().unwrap_or(blocks / 10);
    let folder = tempfile::tempdir().expect("a folder");
    let full = Full::start(folder.path(), blocks, purged, SLOW);
    println!("{blocks} blocks; each write of the catalog takes {} ms longer:", SLOW.as_millis());
    let (puts, inspect_every) = (true, Some(INSPECT_EVERY));
    for (what, beside) in [
        ("alone", Beside::default()),
        ("beside puts", Beside { puts, ..Beside::default() }),
        ("beside inspections", Beside { inspect_every, ..Beside::default() }),
        ("beside all, and a purge", Beside { puts, inspect_every, purge: true }),
        ("alone again", Beside::default()),
    ] {
        say(what, &full.look(LOOK, beside));
    }
    full.stop();
}

fn say(what: &str, seen: &Seen) {
    let micros = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6);
    let line = |at: &dyn Fn(f64) -> Duration| {
        let [median, p99, p999, worst] = [0.5, 0.99, 0.999, 1.0].map(|share| micros(at(share)));
        format!("p50 {median:>8} µs, p99 {p99:>8}, p99.9 {p999:>8}, worst {worst:>8}")
    };
    println!(" {what}: {} blocks stored, {} evicted, {} inspections", seen.stored, seen.evicted, seen.inspections);
    if let Some((blocks, took)) = seen.purged {
        println!("  {blocks} blocks purged in {:.2} s", took.as_secs_f64());
    }
    println!("  turns of the planner  {} ({})", line(&|share| seen.turns.at(share)), seen.turns.count());
    println!("  leased lookups        {} ({})", line(&|share| seen.lookup(share)), seen.lookups.len());
}
