//! Small traces whose hosts, hits and times one can work out by hand, and generated ones that are held to what must always be so.

use super::super::machine::EXAMPLE;
use super::super::{GenerateOptions, Generator, Trace, TraceRequest, Workload, shared, simulate};
use super::*;

fn options(hosts: usize, routing: Routing) -> HostsOptions {
    HostsOptions { hosts, routing, queued: true, ..HostsOptions::alone(SimulateOptions::lru(1_000, 0), EXAMPLE) }
}

/// Requests of whole blocks of 100 tokens.
fn trace(requests: &[(u64, &[u64])]) -> Trace {
    let request = |(timestamp_ms, ids): &(u64, &[u64])| TraceRequest {
        timestamp_ms: *timestamp_ms,
        input_length: 100 * ids.len() as u64,
        output_length: 1,
        hash_ids: ids.to_vec(),
    };
    Trace::collect(100, requests.iter().map(request))
}

fn ran(options: HostsOptions, trace: &Trace) -> Hosts {
    let mut hosts = Hosts::new(options, trace.block_tokens());
    hosts.run(trace.requests(), |_, _| {});
    hosts
}

/// Milliseconds to each first token, and requests by host.
fn seen(options: HostsOptions, requests: &[(u64, &[u64])]) -> (Vec<u64>, Vec<u64>) {
    let hosts = ran(options, &trace(requests));
    let by_host = hosts.report().by_host.iter().map(|host| host.requests).collect();
    (hosts.first_tokens_us.iter().map(|us| us / 1_000).collect(), by_host)
}

/// A conversation of two turns, another in between, and the first one's third turn.
const TURNS: &[(u64, &[u64])] = &[(0, &[1, 2]), (1_000, &[9, 10, 11]), (2_000, &[1, 2, 3]), (3_000, &[1, 2, 3, 4])];

#[test]
fn in_turn_is_in_turn() {
    // Host 0 has the first and the third, of which it knows two blocks (20 ms); host 1 knows nothing of the fourth.
    assert_eq!(seen(options(2, Routing::RoundRobin), TURNS), (vec![200, 300, 120, 400], vec![2, 2]));
}

#[test]
fn the_least_loaded_is_the_one_with_the_shortest_queue() {
    let requests: &[(u64, &[u64])] = &[(0, &[1, 2, 3]), (100, &[4]), (150, &[5]), (400, &[6])];
    // 0 is busy until 300; 1 until 200, and until 300 with the third; at 400 both are idle, and 1 has had 200 of work.
    assert_eq!(seen(options(2, Routing::LeastLoaded), requests), (vec![300, 100, 150, 100], vec![1, 3]));
}

#[test]
fn turns_stick_to_their_host_even_where_it_is_busy() {
    let requests: &[(u64, &[u64])] = &[(0, &[1, 2]), (10, &[8; 20]), (1_000, &[1, 2, 3]), (1_010, &[1, 2, 3, 4, 5, 6])];
    // The last waits 110 ms for the third on host 0 (20 + 100 - 10), and is loaded meanwhile.
    assert_eq!(seen(options(2, Routing::SessionSticky), requests), (vec![200, 2_000, 120, 410], vec![3, 1]));
}

#[test]
fn the_cache_aware_weighs_a_prefix_against_a_queue() {
    assert_eq!(seen(options(2, Routing::CacheAware), TURNS), (vec![200, 300, 120, 130], vec![3, 1]));
    // Host 0 has two of three blocks, worth 180 ms, and is busy for 990: host 1 computes all three before that.
    let busy: &[(u64, &[u64])] = &[(0, &[1, 2]), (300, &[1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]), (310, &[1, 2, 3])];
    assert_eq!(seen(options(2, Routing::CacheAware), busy), (vec![200, 1_020, 300], vec![2, 1]));
    // Host 0 is busy for 250 more. Host 1 would be sooner by 50 ms, and computes 200 ms more, for which those behind it wait.
    let little: &[(u64, &[u64])] = &[(0, &[1, 2]), (300, &[1, 2, 5, 6, 7]), (370, &[1, 2, 3])];
    assert_eq!(seen(options(2, Routing::CacheAware), little), (vec![200, 320, 350], vec![3, 0]));
}

#[test]
fn conversations_that_share_a_little_do_not_herd_to_the_host_that_had_it_first() {
    let conversation = |first: u64| -> Vec<u64> { std::iter::once(0).chain(first..first + 49).collect() };
    let conversations: Vec<Vec<u64>> = (0..6).map(|nth| conversation(100 * (nth + 1))).collect();
    // Each finds both hosts idle.
    let requests: Vec<(u64, &[u64])> =
        (0..).map(|nth| 60_000 * nth).zip(conversations.iter().map(Vec::as_slice)).collect();
    assert_eq!(seen(options(2, Routing::CacheAware), &requests).1, [3, 3]);
}

#[test]
fn what_a_host_has_evicted_misleads_only_the_approximate() {
    let requests: &[(u64, &[u64])] =
        &[(0, &[1, 2]), (1_000, &[5, 6]), (2_000, &[7, 8, 9, 10]), (3_000, &[1, 2, 3]), (4_000, &[7, 8, 9, 10])];
    let by = |routing| seen(HostsOptions { tiers: SimulateOptions::lru(4, 0), ..options(2, routing) }, requests);
    // The third evicts the first on host 0, so nobody has the fourth's blocks: host 1 gets it, which was given less so far.
    assert_eq!(by(Routing::CacheAware), (vec![200, 200, 400, 300, 40], vec![3, 2]));
    // Who believes that host 0 has them sends it there, where it evicts all but the third's head.
    assert_eq!(by(Routing::CacheApproximate), (vec![200, 200, 400, 300, 310], vec![4, 1]));
}

#[test]
fn a_drive_that_is_too_slow_is_left_alone_and_one_that_is_busy_waited_for() {
    let tiers = SimulateOptions::lru(2, 100);
    // RAM has room for two blocks: when they are asked for again, the first conversation's are on the drive.
    let requests: &[(u64, &[u64])] = &[(0, &[1, 2]), (1_000, &[3, 4]), (2_000, &[1, 2, 5])];
    let alone = |machine| {
        let hosts = ran(HostsOptions::alone(tiers, machine), &trace(requests));
        let prediction = hosts.prediction();
        let times = prediction.times.unwrap();
        (hosts.first_tokens_us[2] / 1_000, times.hit_tokens_not_worth_loading, prediction.nvme_bytes_read)
    };
    assert_eq!(alone(EXAMPLE), (80 + 100, 0, 200_000));
    assert_eq!(alone(Machine { nvme_read: 0.9e6, ..EXAMPLE }), (300, 200, 0));
}

#[test]
fn bytes_and_wear_are_what_one_works_out_by_hand() {
    let tiers = SimulateOptions::lru(10, 100);
    let requests: &[(u64, &[u64])] = &[(0, &[1, 2]), (43_200_000, &[1, 2, 3]), (86_400_000, &[1, 2, 3])];
    let machine = Machine { nvme_write: Some(1e6), ..EXAMPLE };
    let prediction = ran(HostsOptions::alone(tiers, machine), &trace(requests)).prediction();
    // Three blocks of 100 kB are written in a day, to a drive of a hundred; 500 tokens are hit in RAM.
    assert_eq!((prediction.bytes_loaded, prediction.bytes_stored), (500_000, 300_000));
    assert_eq!((prediction.nvme_bytes_read, prediction.nvme_bytes_written), (0, 300_000));
    assert_eq!((prediction.seconds, prediction.nvme_bytes_written_per_day), (86_400.0, Some(300_000.0)));
    assert_eq!((prediction.drive_writes_per_day, prediction.nvme_read_busy), (Some(0.03), Some(0.0)));
    assert_eq!(prediction.nvme_write_busy, Some(0.3 / 86_400.0));
    let times = prediction.times.unwrap();
    assert_eq!((times.loaded_tokens, times.prefill_seconds_saved_per_day), (500, Some(0.5)));
    assert_eq!((times.ttft_computed_us.mean, times.ttft_computed_us.p50), (266_667, 300_000));
    assert_eq!((times.ttft_us.mean, times.ttft_us.p50, times.ttft_us.p99), (116_667, 120_000, 200_000));
}

fn chat(requests: u64) -> Trace {
    let options = GenerateOptions { requests, ..Workload::Chat.options() };
    Trace::collect(options.block_tokens, Generator::new(options).unwrap())
}

/// Hosts that are busy for this share of the time without a cache.
fn loaded(hosts: usize, routing: Routing, tiers: SimulateOptions, load: f64, trace: &Trace) -> HostsOptions {
    let machine = Machine { bytes_per_token: 70_272.0, prefill_rate: Some(30e3), ram: 12e9, nvme_read: 6e9, ..EXAMPLE };
    let speed = super::super::Extent::of(trace.requests()).speed_for(load, hosts, 30e3).unwrap();
    HostsOptions { hosts, routing, queued: true, speed, ..HostsOptions::alone(tiers, machine) }
}

#[test]
fn one_host_hits_what_a_plain_simulation_does_under_every_rule() {
    let trace = chat(400);
    for tiers in [SimulateOptions::lru(700, 2_000), SimulateOptions::lru(900, 0)] {
        let plain = simulate(&trace, tiers, |_, _| {});
        for routing in Routing::ALL {
            let one = ran(HostsOptions { speed: 1.0, ..loaded(1, routing, tiers, 0.8, &trace) }, &trace);
            assert_eq!(one.replay(), plain, "{routing:?}");
            let report = one.report();
            assert_eq!((report.duplicated, report.imbalance.requests.max_over_mean), (0.0, 1.0));
        }
        assert_eq!(ran(HostsOptions::alone(tiers, EXAMPLE), &trace).replay(), plain);
    }
}

#[test]
fn tokens_of_all_hosts_add_up_and_no_first_token_comes_sooner_than_its_rest_is_computed() {
    let trace = chat(600);
    for routing in Routing::ALL {
        let hosts = ran(loaded(4, routing, SimulateOptions::lru(100, 700), 0.9, &trace), &trace);
        let (report, replay) = (hosts.report(), hosts.replay());
        let sum = |of: fn(&super::super::prediction::HostFigures) -> u64| report.by_host.iter().map(of).sum::<u64>();
        assert_eq!(
            (sum(|host| host.requests), sum(|host| host.prompt_tokens)),
            (replay.requests, replay.prompt_tokens)
        );
        assert_eq!(sum(|host| host.hit_tokens), replay.hit_tokens);
        assert_eq!(replay.by_tier.all() + replay.miss_tokens, replay.prompt_tokens);
        let times = report.prediction.times.unwrap();
        assert_eq!(times.loaded_tokens + times.hit_tokens_not_worth_loading, replay.hit_tokens);
        let computed: f64 = hosts.hosts.iter().map(|host| host.computed_s).sum();
        let rest = (replay.prompt_tokens - times.loaded_tokens) as f64 / 30e3;
        assert!((computed - rest).abs() < 1e-3, "{routing:?}: {computed} {rest}");
        assert!(report.distinct_blocks_held <= report.blocks_held && report.blocks_held <= 4 * 700, "{report:?}");
        for host in &hosts.hosts {
            host.simulation.planner().check().unwrap();
        }
    }
}

#[test]
fn one_trace_twice_is_one_report() {
    let trace = chat(200);
    for routing in Routing::ALL {
        let report = || ran(loaded(3, routing, SimulateOptions::lru(100, 700), 0.9, &trace), &trace).report();
        assert_eq!(report(), report());
    }
}

#[test]
fn without_a_cache_everything_is_computed() {
    let trace = chat(300);
    let options = loaded(2, Routing::LeastLoaded, SimulateOptions::lru(100, 700), 0.5, &trace);
    let hosts = ran(HostsOptions { cached: false, ..options }, &trace);
    let report = hosts.report();
    assert_eq!((report.replay.hit_tokens, report.prediction.bytes_loaded, report.blocks_held), (0, 0, 0));
    assert!((report.utilisation - 0.5).abs() < 0.01, "the load that was asked for: {}", report.utilisation);
}

/// Cache-aware hits more than in turn, is sooner, and has no host that works more than a tenth above the mean.
fn is_better(trace: &Trace, tiers: SimulateOptions, load: f64) {
    let of = |routing| ran(loaded(4, routing, tiers, load, trace), trace).report();
    let (turn, aware) = (of(Routing::RoundRobin), of(Routing::CacheAware));
    let ttft = |report: &super::super::HostsReport| report.prediction.times.unwrap().ttft_us;
    assert!(aware.replay.hit_rate > turn.replay.hit_rate + 0.05, "{} {}", aware.replay.hit_rate, turn.replay.hit_rate);
    assert!(ttft(&aware).mean < ttft(&turn).mean && ttft(&aware).p99 < ttft(&turn).p99);
    assert!(aware.imbalance.computing.max_over_mean < 1.1, "{:?}", aware.imbalance);
    assert!(aware.imbalance.requests.max_over_mean < 1.25, "{:?}", aware.imbalance);
    assert!(aware.duplicated < turn.duplicated);
}

#[test]
fn cache_aware_beats_taking_turns_and_stays_balanced_at_every_load() {
    let trace = chat(1_500);
    for load in [0.1, 0.9] {
        is_better(&trace, SimulateOptions::lru(300, 4_000), load);
    }
}

#[test]
fn so_it_does_on_the_published_conversations() {
    let Some(trace) = shared::mooncake("conversation") else { return };
    is_better(&trace, SimulateOptions::lru(1_900, 29_000), 0.9);
}
