//! What reading a trace as it comes costs: at most 100 bytes a distinct block, at its worst, which is when tables have just grown.
#![cfg(feature = "server")]
#![expect(unsafe_code, reason = "an allocator that counts is one")]
#![expect(clippy::print_stderr, reason = "figures of a run belong beside its result")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use kvtier::replay::{CurveMaker, RequestView, SimulateOptions, Survey, TraceOptions, open_trace, simulate_requests};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is the system's; only numbers are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A table of 2^19 places is full to seven eighths with fewer, so that it has just grown.
const BLOCKS: u64 = 470_000;
const BLOCKS_OF_REQUEST: u64 = 100;

/// Each prompt comes twice, the second time after all of them came.
fn requests(mut each: impl FnMut(&RequestView<'_>)) {
    for number in 0..2 * BLOCKS / BLOCKS_OF_REQUEST {
        let first = number % (BLOCKS / BLOCKS_OF_REQUEST) * BLOCKS_OF_REQUEST;
        let ids: Vec<u64> =
            (first..first + BLOCKS_OF_REQUEST).map(|id| id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let (timestamp_ms, input_length) = (number * 37, BLOCKS_OF_REQUEST * 16);
        each(&RequestView { timestamp_ms, input_length, output_length: 1, hash_ids: &ids });
    }
}

fn bytes_a_block(job: impl FnOnce()) -> f64 {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    job();
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let bytes = (PEAK.load(Ordering::Relaxed) - before) as f64 / BLOCKS as f64;
    bytes
}

/// The same as a file in Mooncake's format.
fn file() -> String {
    let mut lines = String::new();
    requests(|request| {
        let RequestView { timestamp_ms, input_length, output_length, hash_ids } = request;
        let ids = hash_ids.iter().map(|id| (id >> 1).to_string()).collect::<Vec<_>>().join(",");
        let line = format!(
            r#"{{"timestamp":{timestamp_ms},"input_length":{input_length},"output_length":{output_length},"hash_ids":[{ids}]}}"#
        );
        lines.extend([line.as_str(), "\n"]);
    });
    lines
}

#[test]
fn a_survey_a_curve_and_a_simulated_lru_take_at_most_100_bytes_a_distinct_block() {
    let survey = bytes_a_block(|| {
        let mut survey = Survey::new(16);
        requests(|request| survey.add(request));
        assert_eq!(survey.conclude().distinct_blocks, BLOCKS);
    });
    let curve = bytes_a_block(|| {
        let mut maker = CurveMaker::new(16);
        requests(|request| maker.add(request));
        assert_eq!(maker.finish().hit_tokens(BLOCKS), BLOCKS * 16);
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace.jsonl");
    std::fs::write(&path, file()).unwrap();
    let lru = bytes_a_block(|| {
        let trace = open_trace(&path, &TraceOptions { block_tokens: Some(16), ..TraceOptions::default() }).unwrap();
        let report = simulate_requests(trace, SimulateOptions::lru(BLOCKS, 0), |_, _, _| {}).unwrap();
        assert_eq!(report.hit_tokens, BLOCKS * 16);
    });
    eprintln!("bytes a distinct block: trace info {survey:.1}, LRU's curve {curve:.1}, a simulated LRU {lru:.1}");
    assert!(survey <= 100.0 && curve <= 100.0 && lru <= 100.0, "{survey} {curve} {lru}");
}
