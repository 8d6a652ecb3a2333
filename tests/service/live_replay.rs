//! A live replay through gRPC with real bytes counts what the simulation of the same tiers predicts: exactly, with the
//! background work done between requests.
//!
//! `KVTIER_TRACE` names a Mooncake file to do it on, instead of a generated trace.

use kvtier::client::ServerAddress;
use kvtier::replay::live::{LiveOptions, replay};
use kvtier::replay::{GenerateOptions, Generator, SimulateOptions, Trace, TraceOptions, read_trace, simulate};
use kvtier::vocab::TenantName;

use crate::support::Server;

const MIB: u64 = 1 << 20;

fn trace() -> Trace {
    if let Ok(path) = std::env::var("KVTIER_TRACE") {
        return read_trace(path.as_ref(), &TraceOptions::default()).unwrap();
    }
    let options = GenerateOptions { requests: 300, ..GenerateOptions::default() };
    let block_tokens = options.block_tokens;
    Trace::collect(block_tokens, Generator::new(options).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiesced_replay_counts_exactly_what_its_simulation_does() {
    let trace = trace();
    let dir = tempfile::tempdir().unwrap();
    let (ram, nvme) = if std::env::var("KVTIER_TRACE").is_ok() { (1024, 8192) } else { (3, 6) };
    let block = 16 << 10;
    let server = Server::start(dir.path(), ram * MIB, nvme * MIB).await;
    let address = ServerAddress::parse(&format!("unix:{}", server.daemon.socket().unwrap().display())).unwrap();
    let options = LiveOptions {
        block_bytes: block,
        quiesce_between: true,
        ..LiveOptions::new(TenantName::parse("replay").unwrap())
    };
    let live = replay(&address, &trace, &options, |_, _| {}).await.unwrap();
    let blocks = |mib: u64| mib * MIB / u64::from(block);
    let options = SimulateOptions::lru(blocks(ram), blocks(nvme));
    let simulated = simulate(&trace, options, |_, _| {});
    eprintln!("{live:?}\n{:?}", server.status().await.counters);
    assert_eq!(live.live.as_ref().unwrap().mismatched_blocks, 0);
    assert_eq!((live.ram_blocks, live.nvme_blocks), (Some(blocks(ram)), Some(blocks(nvme))));
    assert_eq!((live.hit_tokens, live.by_tier), (simulated.hit_tokens, simulated.by_tier));
    assert!(live.by_tier.ram > 0 && live.by_tier.nvme > 0, "both tiers were hit");
    server.stop().await;
}
