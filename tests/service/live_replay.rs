//! A live replay through gRPC with real bytes counts what the simulation of the same tiers predicts: exactly, with the
//! background work done between requests, and within half a point with eight workers.
//!
//! `KVTIER_TRACE` names a Mooncake file to do it on, instead of a generated trace.

use kvtier::client::{Client, Credentials, ServerAddress};
use kvtier::replay::live::{LiveOptions, Pace, replay};
use kvtier::replay::{
    GenerateOptions, Generator, ReplayReport, SimulateOptions, Trace, TraceOptions, TraceRequest, predict, read_trace,
    simulate,
};
use kvtier::vocab::TenantName;

use crate::support::Server;

const MIB: u64 = 1 << 20;
const BLOCK: u32 = 16 << 10;

fn trace(requests: u64) -> Trace {
    if let Ok(path) = std::env::var("KVTIER_TRACE") {
        return read_trace(path.as_ref(), &TraceOptions::default()).unwrap();
    }
    let options = GenerateOptions { requests, ..GenerateOptions::default() };
    let block_tokens = options.block_tokens;
    Trace::collect(block_tokens, Generator::new(options).unwrap())
}

fn options() -> LiveOptions {
    LiveOptions { block_bytes: BLOCK, ..LiveOptions::new(TenantName::parse("replay").unwrap()) }
}

fn address(server: &Server) -> ServerAddress {
    ServerAddress::parse(&format!("unix:{}", server.daemon.socket().unwrap().display())).unwrap()
}

async fn replayed(trace: &Trace, tiers: (u64, u64), options: &LiveOptions) -> ReplayReport {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), tiers.0 * MIB, tiers.1 * MIB).await;
    let report = replay(&address(&server), trace, options, |_, _| {}).await.unwrap();
    eprintln!("{report:?}\n{:?}", server.status().await.counters);
    server.stop().await;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiesced_replay_counts_exactly_what_its_simulation_does() {
    // Enough requests for the default policy to have learnt, and to let go what RAM still has.
    let trace = trace(1_500);
    let (ram, nvme) = if std::env::var("KVTIER_TRACE").is_ok() { (256, 1024) } else { (3, 6) };
    let live = replayed(&trace, (ram, nvme), &LiveOptions { quiesce_between: true, ..options() }).await;
    let blocks = |mib: u64| mib * MIB / u64::from(BLOCK);
    let simulated = simulate(&trace, SimulateOptions::new(blocks(ram), blocks(nvme)), |_, _| {});
    assert_eq!(live.live.as_ref().unwrap().mismatched_blocks, 0);
    assert_eq!((live.ram_blocks, live.nvme_blocks), (Some(blocks(ram)), Some(blocks(nvme))));
    assert_eq!((live.hit_tokens, live.by_tier), (simulated.hit_tokens, simulated.by_tier));
    assert!(live.by_tier.ram > 0 && live.by_tier.nvme > 0, "both tiers were hit");
    let lru = simulate(&trace, SimulateOptions::lru(blocks(ram), blocks(nvme)), |_, _| {});
    assert_ne!(lru.hit_tokens, live.hit_tokens, "it was not LRU all the time");
    // The server itself says with which sizes and rules to predict it.
    let predicted = predict(&trace, &live, |_| {}).unwrap();
    assert_eq!((predicted.hit_tokens, predicted.by_tier), (live.hit_tokens, live.by_tier));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_eight_workers_a_replay_hits_what_its_simulation_does_within_half_a_point() {
    let trace = trace(2_000);
    let options = LiveOptions { pace: Pace::Closed { workers: 8 }, ..options() };
    let mut live = replayed(&trace, (16, 48), &options).await;
    for _ in 0..2 {
        if live.live.as_ref().unwrap().blocks_dropped == 0 {
            break;
        }
        // The drive was too busy with others to take all blocks: no simulation knows of that.
        live = replayed(&trace, (16, 48), &options).await;
    }
    let predicted = predict(&trace, &live, |_| {}).unwrap();
    if live.live.as_ref().unwrap().blocks_dropped == 0 {
        assert!(predicted.difference_points.abs() < 0.5, "{predicted:?}");
    } else {
        eprintln!("skipped: the drive takes blocks too slowly here to compare hits");
    }
    assert!(live.hit_rate > 0.2 && live.by_tier.nvme > 0, "there was something to hit: {live:?}");
    let figures = live.live.unwrap();
    assert_eq!((figures.mismatched_blocks, figures.request_us.count, figures.put_us.count), (0, 2_000, 2_000));
    assert_eq!(figures.open_loop, None);
}

/// So many requests at one time, of blocks that nobody else has.
fn burst(requests: u64) -> Trace {
    let request = |number| TraceRequest {
        timestamp_ms: 7_000,
        input_length: 512 * 64,
        output_length: 1,
        hash_ids: (number * 64..(number + 1) * 64).collect(),
    };
    Trace::collect(512, (0..requests).map(request))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_open_loop_what_waits_for_others_is_counted_and_its_times_begin_when_it_was_due() {
    let open = LiveOptions { pace: Pace::Open { speed: 10.0, in_flight: 2 }, ..options() };
    let live = replayed(&burst(40), (64, 0), &open).await.live.unwrap();
    let open = live.open_loop.unwrap();
    assert_eq!((open.in_flight_max, open.in_flight_peak, open.held_starts), (2, 2, 38), "all were due at once");
    assert_eq!((open.lag_us.count, live.request_us.count, open.load_from_due_us.count), (40, 40, 0));
    // The last one waited for nineteen before it, and that is not seen from its start.
    assert!(open.lag_us.max > 5 * live.request_us.p50, "{open:?} {:?}", live.request_us);
    assert!(open.request_from_due_us.max >= open.lag_us.max, "{open:?}");
    assert!(open.request_from_due_us.p50 > live.request_us.p50, "{open:?}");
    let counted = |buckets: &[(u64, u64)]| buckets.iter().map(|(_, count)| count).sum::<u64>();
    let histograms = &live.details.histograms;
    assert_eq!((counted(&histograms.request_from_due_us), counted(&histograms.load_us)), (40, 0));
    assert_eq!(live.details.timeline.iter().map(|row| row.requests).sum::<u64>(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_starts_no_request_before_its_time() {
    let request = |at| TraceRequest { timestamp_ms: at, input_length: 512, output_length: 1, hash_ids: vec![at] };
    let trace = Trace::collect(512, [50_000, 50_100, 80_000].map(request));
    let open = LiveOptions { pace: Pace::Open { speed: 100.0, in_flight: 16 }, ..options() };
    let live = replayed(&trace, (16, 0), &open).await.live.unwrap();
    assert!(live.seconds >= 0.3, "the last one is due after 300 ms: {}", live.seconds);
    let open = live.open_loop.unwrap();
    assert!((open.intended_per_second - 2.0 / 0.3).abs() < 1e-6, "{open:?}");
    assert_eq!((open.held_starts, open.speed), (0, 100.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replay_costs_the_server_is_what_it_counted_meanwhile() {
    let trace = trace(200);
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 3 * MIB, 64 * MIB).await;
    let client = Client::connect_as(&address(&server), &Credentials::default()).await.unwrap();
    let options = LiveOptions { quiesce_between: true, ..options() };
    let first = replay(&address(&server), &trace, &options, |_, _| {}).await.unwrap().live.unwrap();
    let written = client.status().await.unwrap().drives[0].device_written_bytes;
    let cost = first.server.unwrap();
    assert_eq!((cost.drive_written_bytes, cost.blocks_before), (written, 0));
    assert!(cost.drive_written_bytes >= first.bytes_stored && cost.drive_read_bytes > 0, "{cost:?}");
    assert!(cost.server_cpu_seconds > Some(0.0) && cost.process_cpu_seconds.is_none(), "{cost:?}");
    assert!(cost.server_resident_bytes_max >= cost.server_resident_bytes, "{cost:?}");
    let again = LiveOptions { embedded: true, ..options };
    let again = replay(&address(&server), &trace, &again, |_, _| {}).await.unwrap().live.unwrap();
    let cost = again.server.unwrap();
    assert_eq!((cost.drive_written_bytes, again.bytes_stored), (0, 0), "all was there");
    assert!(cost.blocks_before > 0 && cost.process_cpu_seconds > Some(0.0), "{cost:?}");
    server.stop().await;
}
