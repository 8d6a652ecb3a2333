//! Lookups at scale: a 4,096-block lookup among 10 thousand, 1 million and 10 million resident blocks (claim: it grows less
//! than twofold), lookups in process while 50 thousand blocks a second come and go (claim: their p99 is at most twice that
//! of an idle cache), and how long the planner is busy with one event (claim: at most 50 µs).
//!
//! `cargo bench --bench lookup` needs 3 GB of memory; words after `--` choose parts: `scale`, `churn`, `busy`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that can't run should stop; its figures are its output"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[path = "bodies/lookup.rs"]
mod bodies;

use bodies::{BLOCKS, Churn, Resident, Times};

/// Blocks a second that come, and that go.
const CHURN: f64 = 50_000.0;
/// A measurement of lookups.
const LOOK: Duration = Duration::from_secs(3);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    if wanted("scale") {
        scale();
    }
    if wanted("churn") {
        churn();
    }
    if wanted("busy") {
        busy();
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn say(what: &str, times: &Times) {
    let [median, p99, p9999, worst] = [0.5, 0.99, 0.9999, 1.0].map(|share| micros(times.at(share)));
    let count = times.count();
    println!("  {what:<28} median {median:8.2} µs, p99 {p99:8.2}, p99.99 {p9999:8.2}, worst {worst:8.2} ({count})");
}

fn scale() {
    println!("a lookup of {BLOCKS} blocks, all resident:");
    for prompts in [3, 245, 2_442] {
        let resident = Resident::new(prompts);
        resident.lookups(50);
        let [search, whole] = resident.lookups(2_000);
        println!(" among {} blocks", prompts * BLOCKS);
        say("search", &search);
        say("hash 65,536 tokens, search", &whole);
    }
}

fn churn() {
    println!("lookups in process, alone and while blocks come and go:");
    let churn = Churn::start(8);
    for round in 1..4 {
        let [kept, passing] = churn.lookups(LOOK);
        println!(" round {round}, alone");
        say("4,096 leased blocks", &kept);
        say("64 blocks, here or gone", &passing);
        let stop = AtomicBool::new(false);
        let (([kept, passing], stored), took) = std::thread::scope(|scope| {
            let began = Instant::now();
            let putting = scope.spawn(|| churn.put_until(CHURN, &stop));
            let times = churn.lookups(LOOK);
            stop.store(true, Ordering::Relaxed);
            ((times, putting.join().expect("a writer")), began.elapsed())
        });
        println!(" round {round}, while {:.0} blocks a second come and go", stored as f64 / took.as_secs_f64());
        say("4,096 leased blocks", &kept);
        say("64 blocks, here or gone", &passing);
    }
    churn.stop();
}

fn busy() {
    println!("the planner, by event, over conversations in 64-token blocks; each event the best of 7 runs:");
    let (first, best) = bodies::busy(20_000, 0..7);
    for (kind, times) in &best {
        say(kind, times);
    }
    println!(" the same, as one run has them (with pre-emption):");
    for (kind, times) in &first {
        say(kind, times);
    }
}
