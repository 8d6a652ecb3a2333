//! How long a daemon takes to know its blocks again, and what knowing them costs: a catalog of 10 million blocks (claim:
//! under 20 s on two cores, at most 136 bytes of RAM a block), beside a bare scan of the same rows on one thread and two.
//!
//! `cargo bench --bench reopen` takes minutes and 2 GB of disk; `cargo bench --bench reopen -- 1000000` is smaller. Every
//! figure comes from a process of its own, so that what one leaves in memory is no other's.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that can't run should stop; its figures are its output"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rocksdb::{DB, Options, ReadOptions};

#[path = "bodies/reopen.rs"]
mod bodies;

use bodies::{Owners, Reopened};

const ROWS: u32 = 10_000_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["generate", path, rows, owners] => {
            let owners = if *owners == "many" { Owners::Many } else { Owners::Few };
            bodies::generate(Path::new(path), rows.parse().expect("a number"), owners);
        }
        ["scan", path, threads] => scan(Path::new(path), threads.parse().expect("a number")),
        ["reopen", path, rows] => reopen(Path::new(path), rows.parse().expect("a number")),
        [] => measure(ROWS),
        [rows, ..] => measure(rows.parse().expect("how many rows")),
    }
}

fn measure(rows: u32) {
    for (owners, what) in [("few", "64 users"), ("many", "a user for every 16 blocks")] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("catalog");
        let path = path.to_str().expect("a path");
        println!("{rows} blocks of {what}:");
        let started = Instant::now();
        child(&["generate", path, &rows.to_string(), owners]);
        println!("  generated in {:.1} s", started.elapsed().as_secs_f64());
        for threads in ["1", "2"] {
            child(&["scan", path, threads]);
        }
        for _ in 0..2 {
            child(&["reopen", path, &rows.to_string()]);
        }
    }
}

fn child(words: &[&str]) {
    let this = std::env::current_exe().expect("the path of this program");
    let ended = Command::new(this).args(words).stdin(Stdio::null()).status().expect("a process");
    assert!(ended.success(), "{words:?}: {ended}");
}

/// The limit: all rows through RocksDB's own iterators, untouched.
fn scan(path: &Path, threads: u8) {
    let started = Instant::now();
    let families = ["default", "blocks", "namespaces", "tenants", "meta"];
    let db = DB::open_cf_for_read_only(&Options::default(), path, families, false).expect("a database");
    let opened = started.elapsed();
    let count = |thread: u8| {
        let (step, mut options) = (256 / u16::from(threads), ReadOptions::default());
        let (from, to) = (u16::from(thread) * step, (u16::from(thread) + 1) * step);
        if to < 256 {
            options.set_iterate_upper_bound([to as u8]);
        }
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        let mut rows = db.raw_iterator_cf_opt(db.cf_handle("blocks").expect("blocks"), options);
        rows.seek([from as u8]);
        let (mut count, mut bytes) = (0_u64, 0);
        while let Some((key, value)) = rows.item() {
            (count, bytes) = (count + 1, bytes + key.len() + value.len());
            rows.next();
        }
        rows.status().expect("rows");
        (count, bytes)
    };
    let found = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || count(thread))).collect();
        let found = readers.into_iter().map(|reader| reader.join().expect("a reader"));
        found.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    });
    let seconds = (started.elapsed() - opened).as_secs_f64();
    println!("  bare scan on {threads} threads: {seconds:.2} s ({} rows, {} MB)", found.0, found.1 / 1_000_000);
}

fn reopen(path: &Path, rows: u32) {
    let before = resident("VmRSS:");
    let reopened = Reopened::start(path, rows);
    let (after, most) = (resident("VmRSS:"), resident("VmHWM:"));
    let a_block = |bytes: u64| bytes as f64 / f64::from(rows);
    println!(
        "  reopened in {:.2} s (database {:.2} s, blocks {:.2} s); {:.1} bytes of RAM a block, {:.1} at the most",
        (reopened.open + reopened.start).as_secs_f64(),
        reopened.open.as_secs_f64(),
        reopened.start.as_secs_f64(),
        a_block(after - before),
        a_block(most - before),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let parts = runtime.block_on(reopened.cache.footprint()).expect("the planner's word");
    let all: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    let parts: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {:.1}", a_block(*bytes as u64))).collect();
    println!("    asked of the allocator: {:.1} ({})", a_block(all as u64), parts.join(", "));
    reopened.stop();
}

/// Bytes of this process's memory, by a line of `/proc/self/status`.
fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let kib = status.lines().find_map(|of| of.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a line of /proc/self/status") << 10
}
