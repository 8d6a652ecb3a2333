//! Memory that an engine shares with the daemon: blocks are read straight into it and stored from it, and it is left alone once
//! the engine wants it back.

use std::time::Duration;

use kvtier::client::{FetchOutcome, LoadIntoOptions, Pool, RegionId, RegionPlaces};
use kvtier::proto::{
    AttachRegionRequest, CommitRequest, LoadIntoRequest, LoadRequest, PutFromRequest, PutOffer, ReserveRequest,
};
use tonic::Code;

use crate::support::{PAYLOAD, Server, chain, payload, refused, spec};
use crate::worker::{Worker, request};

const MIB: u64 = 1 << 20;
const BLOCKS: u32 = 16;

fn offsets(first: u64) -> Vec<u64> {
    (0..u64::from(BLOCKS)).map(|block| first + block * 8192).collect()
}

fn places(region: RegionId, offsets: Vec<u64>) -> RegionPlaces {
    RegionPlaces { region, offsets, lengths: Vec::new() }
}

/// Loads a prompt to `first` on; how it ended, with its bytes compared.
pub(crate) async fn load(worker: &Worker, pool: &Pool, seed: u32, first: u64) -> kvtier::client::FetchEnd {
    let options = LoadIntoOptions { lease: None, deadline: Some(Duration::from_secs(10)) };
    let chain = worker.chain(seed, BLOCKS);
    let offsets = offsets(first);
    let id = request("load");
    let load = worker.client.load_into(&worker.session, &id, &chain, places(pool.region(), offsets.clone()), options);
    let end = load.await.unwrap().end().await.unwrap();
    for (block, offset) in (0..end.blocks).zip(offsets) {
        let mut bytes = vec![0; PAYLOAD as usize];
        assert!(pool.read(offset, &mut bytes) && bytes == payload(seed, block), "block {block} of {seed}");
    }
    end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_go_straight_into_an_engines_pool_from_either_tier_and_displace_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // RAM for 256 blocks.
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let layout = server.register(spec()).await;
    let worker = Worker::start(dir.path(), "engine", layout.clone()).await;
    for seed in 0..40 {
        server.put(worker.session.id(), chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
        server.quiesce().await;
    }
    let pool = worker.client.attach_pool(&worker.session, MIB).await.unwrap().expect("memory is shared");
    let before = server.status().await;
    for (seed, ram, nvme) in [(39, 16, 0), (0, 0, 16), (38, 16, 0), (1, 0, 16), (0, 0, 16)] {
        let end = load(&worker, &pool, seed, 4096).await;
        let found = (end.outcome, end.blocks, end.blocks_ram, end.blocks_nvme, end.tokens);
        assert_eq!(found, (FetchOutcome::Complete, 16, ram, nvme, 256), "{seed}");
    }
    let after = server.status().await;
    assert_eq!(after.counters["promoted"], before.counters["promoted"], "nothing is held twice");
    assert_eq!(load(&worker, &pool, 99, 4096).await.outcome, FetchOutcome::Miss);
    // A head that is here, a tail that is not.
    let chain = worker.chain(39, BLOCKS + 4);
    let options = LoadIntoOptions::default();
    let id = request("r");
    let load = worker.client.load_into(
        &worker.session,
        &id,
        &chain,
        places(pool.region(), (0..20).map(|block| block * 4096).collect()),
        options,
    );
    let end = load.await.unwrap().end().await.unwrap();
    assert_eq!((end.outcome, end.blocks), (FetchOutcome::Miss, 16));
    drop((pool, worker));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_rule_is_refused_by_name_before_a_byte_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let layout = server.register(spec()).await;
    let worker = Worker::start(dir.path(), "engine", layout.clone()).await;
    let pool = worker.client.attach_pool(&worker.session, 64 << 10).await.unwrap().unwrap();
    let session_id = worker.session.id();
    let into = |session_id, region: RegionId, offset: Vec<u64>| {
        let chain = Some(chain(&layout, 1, 2));
        let load = LoadRequest { session_id, request_id: "r".into(), chain, ..LoadRequest::default() };
        let request = LoadIntoRequest { load: Some(load), region: region.0, offset };
        let mut cache = server.cache();
        async move { cache.load_into(request).await.map(|_| ()) }
    };
    let own = pool.region();
    refused(into(session_id, own, vec![0]).await, Code::InvalidArgument, &["offset has 1", "2 blocks"]);
    refused(into(session_id, own, vec![0, 100]).await, Code::InvalidArgument, &["offset[1] is 100", "4096"]);
    refused(into(session_id, own, vec![0, 64 << 10]).await, Code::InvalidArgument, &["offset[1] is 65536", "65536"]);
    refused(into(session_id, own, vec![0, u64::MAX - 4095]).await, Code::InvalidArgument, &["offset[1]"]);
    refused(into(session_id, own, vec![8192, 8192]).await, Code::FailedPrecondition, &["offset[1] is 8192"]);
    into(session_id, own, vec![8192, 4096]).await.unwrap();
    refused(into(session_id, RegionId(77), vec![0, 4096]).await, Code::NotFound, &["region 77"]);
    let stranger = Worker::start(dir.path(), "stranger", layout.clone()).await;
    refused(
        into(stranger.session.id(), own, vec![0, 4096]).await,
        Code::PermissionDenied,
        &["another engine instance"],
    );

    let from = |region: RegionId, offset: Vec<u64>, length: Vec<u32>| {
        let chain = Some(chain(&layout, 1, 2));
        let offer = Some(PutOffer { session_id, request_id: "r".into(), chain });
        let mut cache = server.cache();
        async move { cache.put_from(PutFromRequest { offer, region: region.0, offset, length }).await.map(|_| ()) }
    };
    refused(from(own, vec![0], vec![]).await, Code::InvalidArgument, &["offset has 1", "2 blocks"]);
    refused(from(own, vec![0, 1], vec![9]).await, Code::InvalidArgument, &["length 1", "2 blocks"]);
    refused(from(own, vec![0, 1], vec![9, 0]).await, Code::InvalidArgument, &["length[1] is 0", "4096"]);
    refused(from(own, vec![0, 1], vec![9, 5000]).await, Code::InvalidArgument, &["length[1] is 5000", "4096"]);
    refused(from(own, vec![0, 65_000], vec![]).await, Code::InvalidArgument, &["offset[1] is 65000"]);

    let attach = |handle, bytes| {
        let mut cache = server.cache();
        async move { cache.attach_region(AttachRegionRequest { session_id, bytes, handle }).await.map(|_| ()) }
    };
    refused(attach(55, 4096).await, Code::NotFound, &["handle 55"]);
    refused(attach(0, 100).await, Code::InvalidArgument, &["bytes is 100", "4096"]);
    refused(attach(0, 8 << 30).await, Code::ResourceExhausted, &["bytes is 8589934592"]);
    // Memory that could be cut short under the daemon's hands.
    let open = tempfile::tempfile_in("/dev/shm").unwrap();
    open.set_len(4096).unwrap();
    let fd = std::os::fd::AsFd::as_fd(&open);
    let attached = worker.client.attach_region(&worker.session, fd, 4096).await;
    assert!(attached.unwrap_err().to_string().contains("F_SEAL_SHRINK"));

    let reserve =
        ReserveRequest { session_id, chain: Some(chain(&layout, 1, 2)), request_id: "r".into(), ..Default::default() };
    refused(server.cache().reserve(reserve).await, Code::FailedPrecondition, &["staging", "AttachRegion"]);
    let staging = worker.client.stage(&worker.session, 64 << 10).await.unwrap().unwrap();
    let into_staging = into(session_id, staging.region(), vec![0, 4096]).await;
    refused(into_staging, Code::InvalidArgument, &["staging memory", "Reserve"]);
    let commit = CommitRequest { session_id, reservation: 5, ..Default::default() };
    refused(server.cache().commit(commit).await, Code::FailedPrecondition, &["reservation 5"]);
    drop((pool, worker, stranger));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_from_a_pool_or_through_staging_memory_is_fetched_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 4 * MIB, 8 * MIB).await;
    let layout = server.register(spec()).await;
    let worker = Worker::start(dir.path(), "engine", layout.clone()).await;
    let Worker { client, session, .. } = &worker;
    let pool = client.attach_pool(session, MIB).await.unwrap().unwrap();
    for block in 0..BLOCKS {
        assert!(pool.write(100 + u64::from(block) * 5000, &payload(1, block)));
    }
    let unaligned: Vec<u64> = (0..u64::from(BLOCKS)).map(|block| 100 + block * 5000).collect();
    let region = pool.region();
    let put = |seed| {
        let (chain, places) = (worker.chain(seed, BLOCKS), places(region, unaligned.clone()));
        async move { client.put_from(session, &request("put"), &chain, places).await.unwrap() }
    };
    let stored = put(1).await;
    assert_eq!((stored.stored_through, stored.accepted_blocks, stored.dropped_blocks), (16, 16, 0));
    assert_eq!(worker.fetched(1, BLOCKS).await, 16);
    assert_eq!(put(1).await.accepted_blocks, 0, "what is here is not copied again");

    // Ten times what the staging memory holds.
    let staging = client.stage(session, 80 << 10).await.unwrap().expect("memory is shared");
    let mut filled = Vec::new();
    let blocks = 200;
    let (id, chain) = (request("staged"), worker.chain(2, blocks));
    let stored = client.put_staged(&staging, &id, &chain, PAYLOAD, |block, to| {
        filled.push(block);
        assert!(to.write(0, &payload(2, block)));
        PAYLOAD
    });
    let stored = stored.await.unwrap();
    assert_eq!((stored.wanted_blocks, stored.stored_through, stored.accepted_blocks), (200, 200, 200), "{stored:?}");
    assert_eq!(filled, (0..blocks).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(worker.fetched(2, blocks).await, blocks);
    // A longer chain: only its tail is wanted, and the answer speaks of all of it.
    let (mut asked, longer) = (0, worker.chain(2, blocks + 3));
    let tail = client.put_staged(&staging, &id, &longer, PAYLOAD, |block, to| {
        asked += 1;
        assert!(to.write(0, &payload(2, block)[..7]));
        7
    });
    let tail = tail.await.unwrap();
    assert_eq!((tail.stored_through, tail.accepted_blocks, asked), (203, 3, 3));
    let again = client.put_staged(&staging, &id, &longer, PAYLOAD, |_, _| 0).await.unwrap();
    assert_eq!((again.stored_through, server.daemon.cache().reservations()), (203, 0));
    drop((pool, staging, worker));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_shared_goes_with_it_at_once_and_its_siblings_may_use_it_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let layout = server.register(spec()).await;
    let (rank, sibling) = (
        Worker::start(dir.path(), "engine", layout.clone()).await,
        Worker::start(dir.path(), "engine", layout.clone()).await,
    );
    server.put(rank.session.id(), chain(&layout, 1, BLOCKS), |block| payload(1, block)).await;
    let pool = rank.client.attach_pool(&rank.session, MIB).await.unwrap().unwrap();
    let staging = rank.client.stage(&rank.session, MIB).await.unwrap().unwrap();
    assert_eq!(load(&sibling, &pool, 1, 0).await.blocks, 16, "the scheduler names a rank's memory");
    let reserve = ReserveRequest {
        session_id: rank.session.id(),
        chain: Some(chain(&layout, 2, BLOCKS)),
        request_id: "r".into(),
        ..Default::default()
    };
    let reserved = server.cache().reserve(reserve).await.unwrap().into_inner();
    assert_eq!(reserved.offset.len(), 16);
    let held = || (server.daemon.cache().sessions().regions().held(), server.daemon.cache().reservations());
    assert_eq!(held(), ((2, MIB), 1));
    drop((staging, rank));
    for _ in 0..500 {
        if held() == ((0, 0), 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(held(), ((0, 0), 0));
    let commit =
        CommitRequest { session_id: sibling.session.id(), reservation: reserved.reservation, ..Default::default() };
    refused(server.cache().commit(commit).await, Code::FailedPrecondition, &["not held by this session"]);
    let options = LoadIntoOptions::default();
    let (id, chain) = (request("r"), sibling.chain(1, BLOCKS));
    let load = sibling.client.load_into(&sibling.session, &id, &chain, places(pool.region(), offsets(0)), options);
    assert_eq!(load.await.unwrap_err().code(), Some(Code::NotFound));
    drop((pool, sibling));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_request_holds_nothing_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let layout = server.register(spec()).await;
    let worker = Worker::start(dir.path(), "engine", layout.clone()).await;
    let Worker { client, session, .. } = &worker;
    for seed in 0..40 {
        server.put(session.id(), chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
        server.quiesce().await;
    }
    let pool = client.attach_pool(session, MIB).await.unwrap().unwrap();
    let staging = client.stage(session, MIB).await.unwrap().unwrap();
    for round in 0..20_u32 {
        let id = request(&format!("r{round}"));
        let reserve = ReserveRequest {
            session_id: session.id(),
            chain: Some(chain(&layout, 1_000, BLOCKS)),
            request_id: id.as_str().into(),
            ..Default::default()
        };
        server.cache().reserve(reserve).await.unwrap();
        let leased = server.try_lookup(session.id(), id.as_str(), chain(&layout, round, BLOCKS), 60_000).await.unwrap();
        assert!(leased.lease.is_some());
        let options = LoadIntoOptions::default();
        let chain = worker.chain(round, BLOCKS);
        let load = client.load_into(session, &id, &chain, places(pool.region(), offsets(0)), options).await.unwrap();
        if round % 2 == 0 {
            // Its reader has lost interest, the drive has not heard of it.
            drop(load);
        }
        client.finish_request(session, &id, round % 3 == 0).await.unwrap();
        client.finish_request(session, &id, false).await.unwrap();
        let pattern = vec![0xa5; 128 << 10];
        assert!(pool.write(0, &pattern));
        let mut seen = vec![0; pattern.len()];
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(pool.read(0, &mut seen) && seen == pattern, "written to after its request was finished");
        let status = server.status().await;
        assert_eq!((status.leases, server.daemon.cache().reservations()), (0, 0));
    }
    drop((pool, staging, worker));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_is_refused_gives_its_staging_memory_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 16 * 4096, MIB).await;
    let layout = server.register(spec()).await;
    let worker = Worker::start(dir.path(), "engine", layout.clone()).await;
    let session = worker.session.id();
    server.put(session, chain(&layout, 1, BLOCKS), |block| payload(1, block)).await;
    // All of RAM.
    let leased = server.try_lookup(session, "lease", chain(&layout, 1, BLOCKS), 60_000).await.unwrap();
    assert_eq!(leased.lease.unwrap().blocks, BLOCKS);
    let staging = worker.client.stage(&worker.session, 80 << 10).await.unwrap().unwrap();
    for round in 0..3 {
        let (id, prompt) = (request(&format!("put-{round}")), worker.chain(2, 60));
        let stored = worker.client.put_staged(&staging, &id, &prompt, PAYLOAD, |_, _| PAYLOAD).await.unwrap();
        assert_eq!((stored.accepted_blocks, stored.drop_reason.contains("RAM has no room")), (0, true), "{stored:?}");
        assert_eq!(server.daemon.cache().reservations(), 0, "in round {round}");
    }
    drop((staging, worker));
    server.stop().await;
}
