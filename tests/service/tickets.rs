//! Tickets as a scheduler uses them: it hands in what waits, looks at what has come, and asks nothing in its loop.

use std::time::{Duration, Instant};

use kvtier::client::{LeaseOptions, LookupOptions, Ticket};
use kvtier::proto::NamespaceSpec;
use tonic::Code;

use crate::support::{Server, chain, payload, spec};
use crate::worker::{Worker, request};

const MIB: u64 = 1 << 20;
const BLOCKS: u32 = 8;

/// A daemon that has `prompts` on NVMe only, and a worker.
async fn cold(dir: &std::path::Path, ram: u64, prompts: u32, spec: NamespaceSpec) -> (Server, Worker) {
    let server = Server::start(dir, ram, 64 * MIB).await;
    let (session, stream) = server.session("writer").await;
    let layout = server.register(spec.clone()).await;
    for seed in 0..prompts {
        let stored = server.put(session, chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
        assert_eq!(stored.stored_through, BLOCKS, "{stored:?}");
        if seed % 50 == 49 {
            // RAM has room for few that wait for the drive.
            server.quiesce().await;
        }
    }
    server.quiesce().await;
    drop(stream);
    server.stop().await;
    let server = Server::start(dir, ram, 64 * MIB).await;
    let layout = server.register(spec).await;
    let worker = Worker::start(dir, "engine", layout).await;
    (server, worker)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} has not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn prefetch(worker: &Worker, seed: u32) -> Ticket {
    let deadline = Some(Duration::from_secs(60));
    let id = request(&format!("r{seed}"));
    worker.client.prefetch(&worker.session, &id, &worker.chain(seed, BLOCKS), 0, deadline).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_polls_a_thousand_waiting_requests_and_its_loop_makes_no_call() {
    let dir = tempfile::tempdir().unwrap();
    // Half of RAM is what tickets may hold: 1,024 blocks of the 8,000 that are wanted.
    let (server, worker) = cold(dir.path(), 8 * MIB, 1_000, spec()).await;
    let mut waiting = Vec::new();
    for seed in 0..1_000 {
        let ticket = prefetch(&worker, seed).await;
        assert_eq!((ticket.hit_tokens, ticket.blocks_ram + ticket.blocks_nvme), (128, 8), "{seed}");
        waiting.push((seed, ticket));
    }
    assert_eq!(server.daemon.cache().tickets(), 1_000);
    let (mut steps, mut polls) = (0, 0_usize);
    let mut served = 0;
    while !waiting.is_empty() {
        steps += 1;
        assert!(steps < 20_000, "{served} served of 1,000");
        // The scheduler's step: `readiness` can't wait and can't call, it is no async function.
        let ready: Vec<usize> = (0..waiting.len()).filter(|at| waiting[*at].1.readiness().done).collect();
        polls += waiting.len();
        for at in ready.into_iter().rev() {
            let (seed, ticket) = waiting.remove(at);
            assert_eq!(ticket.readiness().ready_blocks, BLOCKS, "{seed}");
            let found = worker.client.lookup(&worker.chain(seed, BLOCKS), &LookupOptions::default()).await.unwrap();
            assert_eq!(found.counts.ram, BLOCKS, "what is said to be ready is in RAM");
            worker.client.finish_request(&worker.session, &request(&format!("r{seed}")), true).await.unwrap();
            served += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    eprintln!("{served} served in {steps} steps, {polls} polls");
    assert_eq!(server.daemon.cache().tickets(), 0);
    assert_eq!(server.status().await.leases, 0);
    drop(worker);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_has_the_same_ticket_until_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let (server, worker) = cold(dir.path(), 4 * MIB, 2, spec()).await;
    let first = prefetch(&worker, 0).await;
    let again = prefetch(&worker, 0).await;
    assert_eq!((first.number(), first.lease), (again.number(), again.lease));
    assert_eq!(first.lease.unwrap().blocks, BLOCKS);
    drop(first);
    until("the prefix", || again.readiness().done).await;
    assert_eq!(again.readiness().ready_blocks, BLOCKS);
    // The engine takes 3 blocks: the lease is cut to them.
    worker.client.accept(&worker.session, &again, 33).await.unwrap();
    worker.client.accept(&worker.session, &again, 33).await.unwrap();
    let lease = again.lease.unwrap();
    let renewed = worker.client.renew(&worker.session, lease.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(renewed.blocks, 3);
    worker.client.finish_request(&worker.session, &request("r0"), true).await.unwrap();
    worker.client.finish_request(&worker.session, &request("r0"), true).await.unwrap();
    let ended = worker.client.accept(&worker.session, &again, 16).await.unwrap_err();
    assert_eq!(ended.code(), Some(Code::FailedPrecondition));
    let ended = worker.client.renew(&worker.session, lease.id, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(ended.code(), Some(Code::FailedPrecondition));
    assert_ne!(prefetch(&worker, 0).await.number(), again.number());
    // Nothing known: nothing leased, and nothing to wait for.
    let unknown = prefetch(&worker, 77).await;
    assert_eq!((unknown.hit_tokens, unknown.lease), (0, None));
    until("the end of nothing", || unknown.readiness().done).await;
    // A process that dies takes its tickets along; its instance's last one the leases.
    drop(worker);
    until("the end", || server.daemon.cache().tickets() == 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_is_trimmed_where_prefill_is_faster_than_the_load() {
    // 4 KiB for 16 tokens: a drive of 1 GB/s brings 3.9 million tokens a second, RAM at 3 GB/s 11.7.
    for (rate, nvme, tokens) in [(0, 6, 128), (1_000_000, 6, 128), (6_000_000, 0, 32), (50_000_000, 0, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let spec = NamespaceSpec { prefill_tokens_per_second: rate, ..spec() };
        let (server, worker) = cold(dir.path(), 4 * MIB, 1, spec).await;
        // Two blocks in RAM, six on the drive.
        assert_eq!(worker.fetched(0, 2).await, 2);
        let ticket = prefetch(&worker, 0).await;
        assert_eq!((ticket.hit_tokens, ticket.blocks_nvme), (tokens, nvme), "at {rate} tokens a second");
        let lease = LeaseOptions { session: &worker.session, request_id: &request("l"), ttl: Duration::from_secs(9) };
        let options = LookupOptions { lease: Some(lease), ..LookupOptions::default() };
        let found = worker.client.lookup(&worker.chain(0, BLOCKS), &options).await.unwrap();
        assert_eq!(found.hit_tokens, 128, "a lookup says what is there");
        drop(worker);
        server.stop().await;
    }
}
