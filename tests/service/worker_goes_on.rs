//! A worker takes the best path by itself, and goes on without its daemon where it must.

use std::path::Path;
use std::time::{Duration, Instant};

use kvtier::client::{Chain, Path as Way, ServerAddress, Worker, WorkerOptions};
use kvtier::daemon::{Config, Daemon};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{ByteCount, InstanceId, NamespaceName, NamespaceSpec, TenantName};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Process;
use crate::support::{BLOCK_TOKENS, PAYLOAD, config, payload};
use crate::worker::request;

const MIB: u64 = 1 << 20;
const BLOCKS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn spec() -> NamespaceSpec {
    NamespaceSpec {
        weights: Weights::Digest(Box::new([7; 32])),
        dtype: "u8".into(),
        layout: "test".into(),
        block_tokens: BLOCK_TOKENS,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes: PAYLOAD,
        prefill_tokens_per_second: 0,
    }
}

pub(crate) fn start(address: ServerAddress) -> Worker {
    let (instance, name) = (InstanceId::parse("engine").unwrap(), NamespaceName::parse("test").unwrap());
    let patient = Duration::from_secs(2);
    Worker::start(WorkerOptions { lookup_deadline: patient, ..WorkerOptions::new(address, instance, name, spec()) })
}

fn at(socket: &Path) -> ServerAddress {
    ServerAddress::parse(&format!("unix:{}", socket.display())).unwrap()
}

fn prompt(seed: u32) -> Chain {
    let tokens = (0..BLOCKS * BLOCK_TOKENS).map(|at| seed.wrapping_mul(0x9e37_79b9).wrapping_add(at)).collect();
    Chain::of_tokens(spec().fingerprint(), &TenantName::parse("acme").unwrap(), tokens)
}

pub(crate) async fn store(worker: &Worker, seed: u32) -> u32 {
    let fill = |block, to: &mut [u8]| {
        to.copy_from_slice(&payload(seed, block));
        PAYLOAD
    };
    worker.put(&request("put"), &prompt(seed), fill).await.stored_through
}

/// Blocks that were hit, and how those came that were right: all of them.
pub(crate) async fn read(worker: &Worker, seed: u32) -> (u32, Way) {
    let (id, chain) = (request(&format!("r{seed}")), prompt(seed));
    let hit = worker.lookup(&id, &chain, None).await;
    assert_eq!(hit.tokens, u64::from(hit.blocks * BLOCK_TOKENS));
    // With room between the blocks, as in a pool of larger ones.
    let stride = 5_000;
    let mut bytes = vec![0; BLOCKS as usize * stride];
    let loaded = worker.load(&id, &chain, &hit, &mut bytes, stride).await;
    for block in 0..loaded.blocks {
        let at = block as usize * stride;
        assert!(bytes[at..at + PAYLOAD as usize] == payload(seed, block), "block {block} of {seed}");
        assert_eq!(loaded.lengths[block as usize], PAYLOAD);
    }
    assert_eq!(loaded.receipt.is_empty(), hit.blocks == 0);
    worker.finish(&id, true).await;
    (loaded.blocks, loaded.path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_path_is_taken_without_being_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let both = Config { listen: Some("127.0.0.1:0".parse().unwrap()), ..config(dir.path(), 4 * MIB, 8 * MIB) };
    let daemon = Daemon::start(both).await.unwrap();
    let near = start(at(daemon.socket().unwrap()));
    assert!(near.ready(PATIENCE).await, "{}", near.trouble());
    assert_eq!((near.path(), store(&near, 1).await), (Way::Shared, BLOCKS));
    assert_eq!(read(&near, 1).await, (BLOCKS, Way::Shared));
    assert_eq!(read(&near, 2).await, (0, Way::None), "nothing is hit, nothing is loaded");
    daemon.stop().await;

    let dir = tempfile::tempdir().unwrap();
    let tcp = Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        ..Config::new(dir.path().join("data"), ByteCount(4 * MIB))
    };
    let daemon = Daemon::start(tcp).await.unwrap();
    let far = start(ServerAddress::parse(&daemon.tcp().unwrap().to_string()).unwrap());
    while far.path() == Way::None {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((far.path(), store(&far, 1).await), (Way::Grpc, BLOCKS));
    assert_eq!(read(&far, 1).await, (BLOCKS, Way::Grpc));
    drop(far);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_dies_is_missed_and_used_again_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--ram", "4MiB", "--nvme", "16MiB", "--scrub", "0"];
    let (mut process, address) = Process::start(dir.path(), &args).await;
    let worker = start(address);
    assert!(worker.ready(PATIENCE).await, "{}", worker.trouble());
    for seed in 0..4 {
        assert_eq!(store(&worker, seed).await, BLOCKS);
    }
    // What is stored is on its way to the drive; a daemon that is asked to stop would wait for it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for life in 0..3 {
        assert_eq!(read(&worker, 1).await, (BLOCKS, Way::Shared), "in life {life}");
        process.kill();
        // However long it stays away, a request goes on.
        for seed in 0..20 {
            assert_eq!(read(&worker, seed).await.0, 0, "nobody is there");
            assert_eq!(store(&worker, seed).await, 0);
        }
        assert_eq!(worker.path(), Way::None);
        process = Process::start(dir.path(), &args).await.0;
        assert!(worker.ready(PATIENCE).await, "{}", worker.trouble());
    }
    assert_eq!(read(&worker, 2).await, (BLOCKS, Way::Shared), "the drive is warm, the new arena is mapped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_hangs_is_given_up_after_three_calls_and_tried_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let (process, address) = Process::start(dir.path(), &["--ram", "4MiB", "--scrub", "0"]).await;
    let (instance, name) = (InstanceId::parse("engine").unwrap(), NamespaceName::parse("test").unwrap());
    let options = WorkerOptions::new(address, instance, name, spec());
    let worker = Worker::start(WorkerOptions { lookup_deadline: Duration::from_millis(500), ..options });
    assert!(worker.ready(PATIENCE).await, "{}", worker.trouble());
    assert_eq!((store(&worker, 1).await, read(&worker, 1).await.0), (BLOCKS, BLOCKS));
    let pid = Pid::from_raw(process.child.id() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    // It stops thread by thread, some time after the signal.
    while !stat().contains(") T ") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for call in 0..3 {
        assert_ne!(worker.path(), Way::None, "it is asked once more before call {call}");
        assert_eq!(worker.lookup(&request("r"), &prompt(1), None).await.blocks, 0);
    }
    let began = Instant::now();
    while worker.path() != Way::None {
        assert!(began.elapsed() < PATIENCE, "it is not given up");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(worker.trouble().contains("Lookup"), "{}", worker.trouble());
    for seed in 0..1_000 {
        assert_eq!(worker.lookup(&request("r"), &prompt(seed), None).await.blocks, 0, "without a call");
    }
    kill_process(pid, Signal::CONT).unwrap();
    assert!(worker.ready(PATIENCE).await, "{}", worker.trouble());
    assert_eq!(read(&worker, 1).await.0, BLOCKS, "nothing was lost");
}
