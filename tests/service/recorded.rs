//! A daemon records its lookups; what it recorded, simulated, hits what the trace behind it does.

use std::path::Path;

use kvtier::client::ServerAddress;
use kvtier::daemon::{Config, Daemon};
use kvtier::replay::live::{LiveOptions, replay};
use kvtier::replay::{
    GenerateOptions, Generator, ReplayReport, SimulateOptions, Trace, TraceInfo, TraceOptions, open_trace, simulate,
    simulate_requests,
};
use kvtier::vocab::TenantName;

use crate::support::{Gate, Server, config};

const MIB: u64 = 1 << 20;
const BLOCK: u32 = 16 << 10;

fn trace() -> Trace {
    let options = GenerateOptions { requests: 200, ..GenerateOptions::default() };
    let block_tokens = options.block_tokens;
    Trace::collect(block_tokens, Generator::new(options).unwrap())
}

async fn start(dir: &Path, record: &Path) -> Server {
    let config = Config { record: Some(record.to_owned()), ..config(dir, 3 * MIB, 6 * MIB) };
    let daemon = Daemon::start(config).await.unwrap();
    let gate = Gate::connect(&dir.join("kvtier.sock")).await;
    Server { daemon, gate }
}

async fn replayed(server: &Server, trace: &Trace) -> ReplayReport {
    let address = ServerAddress::parse(&format!("unix:{}", server.daemon.socket().unwrap().display())).unwrap();
    let options = LiveOptions {
        block_bytes: BLOCK,
        quiesce_between: true,
        settle: true,
        ..LiveOptions::new(TenantName::parse("replay").unwrap())
    };
    replay(&address, trace, &options, |_, _| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_simulated_hits_what_the_trace_behind_it_does() {
    let (trace, dir) = (trace(), tempfile::tempdir().unwrap());
    let record = dir.path().join("record.jsonl.zst");
    let server = start(dir.path(), &record).await;
    let live = replayed(&server, &trace).await;
    let mut counters = server.status().await.counters;
    while counters["recorded_requests"] < 200 {
        // Written behind the lookups' backs.
        tokio::task::yield_now().await;
        counters = server.status().await.counters;
    }
    assert_eq!(counters["recording_dropped"], 0);
    server.stop().await;
    let blocks = |mib: u64| mib * MIB / u64::from(BLOCK);
    let options = SimulateOptions::new(blocks(3), blocks(6));
    let open = || open_trace(&record, &TraceOptions::default()).unwrap();
    let recorded = simulate_requests(open(), options, |_, _, _| {}).unwrap();
    assert_eq!(recorded, simulate(&trace, options, |_, _| {}));
    let mut requests = open();
    let info = TraceInfo::of_requests(&mut requests, |_| {}).unwrap();
    let hits = info.recorded.unwrap();
    assert_eq!((hits.engine_tokens, hits.ram_tokens, hits.nvme_tokens), (0, live.by_tier.ram, live.by_tier.nvme));
    assert!(hits.ram_tokens > 0 && hits.nvme_tokens > 0, "both tiers were hit");
    let of_trace = TraceInfo::of(&trace);
    assert_eq!((info.distinct_blocks, info.output_tokens), (of_trace.distinct_blocks, of_trace.output_tokens));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_starts_again_leaves_the_recording_that_is_there_and_shares_no_id_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.jsonl");
    let all = trace();
    let trace = Trace::collect(512, all.requests().take(5).map(|request| request.to_owned()));
    for _ in 0..2 {
        let server = start(dir.path(), &record).await;
        let options = LiveOptions { block_bytes: BLOCK, ..LiveOptions::new(TenantName::parse("replay").unwrap()) };
        let address = ServerAddress::parse(&format!("unix:{}", server.daemon.socket().unwrap().display())).unwrap();
        replay(&address, &trace, &options, |_, _| {}).await.unwrap();
        server.stop().await;
    }
    let [one, other] = [record.clone(), dir.path().join("record-2.jsonl")].map(|path| std::fs::read(path).unwrap());
    let both = dir.path().join("both.jsonl");
    std::fs::write(&both, [one, other].concat()).unwrap();
    let read = |path: &Path| {
        let mut requests = open_trace(path, &TraceOptions::default()).unwrap();
        TraceInfo::of_requests(&mut requests, |_| {}).unwrap()
    };
    let (one, both) = (read(&record), read(&both));
    assert_eq!((one.requests, both.requests), (5, 10));
    assert_eq!(both.distinct_blocks, 2 * one.distinct_blocks);
}
