//! Workers that die, are stopped, lose their connection or leak: what is theirs goes with them, what is others' stays, and
//! nobody ever gets wrong bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvtier::cache::lookup::{LeaseRequest, LookupOptions};
use kvtier::cache::put::Piece;
use kvtier::client::{Client, LeaseOptions, Path as Way, ServerAddress};
use kvtier::proto::{CommitRequest, ReserveRequest};
use kvtier::session::Session;
use kvtier::vocab::limits::PIN_GRACE;
use kvtier::vocab::{InstanceId, LeaseId, RequestId, Timestamp, VirtualClock};
use rustix::process::Signal;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tonic::Code;

use crate::host::Host;
use crate::process::Process;
use crate::rank::Rank;
use crate::shared_arena::Mapped;
use crate::support::{Server, chain, payload, refused, spec};
use crate::worker::{Worker, request};
use crate::worker_goes_on;

const MIB: u64 = 1 << 20;
const BLOCKS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(30);

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what} has not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Server {
    async fn store(&self, session: u64, layout: &bytes::Bytes, seeds: std::ops::Range<u32>) {
        for seed in seeds {
            self.put(session, chain(layout, seed, BLOCKS), |block| payload(seed, block)).await;
            self.quiesce().await;
        }
    }

    /// Regions, bytes of staging memory, and reservations.
    fn held(&self) -> (usize, u64, usize) {
        let cache = self.daemon.cache();
        let (regions, staging) = cache.sessions().regions().held();
        (regions, staging, cache.reservations())
    }
}

/// Leases a prompt that is there.
async fn lease(worker: &Worker, id: &str, seed: u32) -> kvtier::client::Lease {
    let request_id = &request(id);
    let lease = Some(LeaseOptions { session: &worker.session, request_id, ttl: Duration::from_secs(60) });
    let options = kvtier::client::LookupOptions { lease, ..kvtier::client::LookupOptions::default() };
    worker.client.lookup(&worker.chain(seed, BLOCKS), &options).await.unwrap().lease.expect("it is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rank_that_dies_takes_along_what_is_its_own_and_the_last_one_the_instances_leases() {
    let dir = tempfile::tempdir().unwrap();
    // RAM for 256 blocks.
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("writer").await;
    let layout = server.register(spec()).await;
    server.store(session, &layout, 1..2).await;
    let mut ranks: Vec<Rank> = (0..3).map(|_| Rank::start(dir.path(), "engine", &layout)).collect();
    for rank in &mut ranks {
        assert_eq!((rank.ask("share"), rank.ask("lease 1 60000"), rank.ask("find 1")), (vec![16], vec![16], vec![16]));
    }
    assert_eq!((server.held(), server.status().await.leases), ((6, 3 * MIB, 3), 3));
    for left in [2, 1] {
        drop(ranks.remove(0));
        until("a rank's end", async || server.held() == (2 * left, left as u64 * MIB, left)).await;
        assert_eq!(server.status().await.leases, 3, "they are the instance's");
        server.store(session, &layout, 100..140).await;
        for rank in &mut ranks {
            assert_eq!((rank.ask("copy"), rank.ask("fill 1")), (vec![16], vec![16]), "the others go on");
        }
    }
    drop(ranks);
    until("the last one's end", async || server.status().await.leases == 0).await;
    assert_eq!((server.held(), server.daemon.cache().sessions().len()), ((0, 0, 0), 1));
    drop(stream);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_was_stopped_past_its_lease_finds_its_blocks_gone_and_asks_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("writer").await;
    let layout = server.register(spec()).await;
    server.store(session, &layout, 1..2).await;
    let mut rank = Rank::start(dir.path(), "engine", &layout);
    assert_eq!((rank.ask("lease 1 300"), rank.ask("find 1"), rank.ask("copy")), (vec![16], vec![16], vec![16]));
    rank.signal(Signal::STOP);
    until("the lease's end", async || server.status().await.leases == 0).await;
    // More than twice what RAM has room for.
    server.store(session, &layout, 100..140).await;
    rank.signal(Signal::CONT);
    assert_eq!(rank.ask("copy"), [0], "other blocks are there now");
    assert_eq!((rank.ask("lease 1 60000"), rank.ask("find 1"), rank.ask("copy")), (vec![16], vec![16], vec![16]));
    drop((rank, stream));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_whose_middle_a_worker_was_stopped_is_right_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("writer").await;
    let layout = server.register(spec()).await;
    server.store(session, &layout, 0..50).await;
    let mut rank = Rank::start(dir.path(), "engine", &layout);
    rank.ask("race");
    for round in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        rank.signal(Signal::STOP);
        // Every slot of RAM gets another block.
        let first = round % 2 * 20;
        server.store(session, &layout, 100 + first..100 + first + 20).await;
        rank.signal(Signal::CONT);
    }
    let figures = rank.ask("halt");
    eprintln!("{figures:?} blocks copied right, and gone before the copy was done");
    assert!(figures[0] > 0 && figures[1] > 0);
    drop((rank, stream));
    server.stop().await;
}

/// A socket before the daemon's whose connections can be cut without a word.
struct Cable {
    cuts: watch::Sender<u32>,
    connected: Arc<AtomicUsize>,
    address: ServerAddress,
    laying: tokio::task::JoinHandle<()>,
}

impl Cable {
    fn lay(dir: &Path) -> Self {
        let (from, to) = (dir.join("cable"), dir.join("kvtier.sock"));
        let listener = UnixListener::bind(&from).unwrap();
        let (cuts, cut) = watch::channel(0);
        let connected = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connected);
        let laying = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = UnixStream::connect(&to).await.unwrap();
                let mut cut = cut.clone();
                cut.mark_unchanged();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        let address = ServerAddress::parse(&format!("unix:{}", from.display())).unwrap();
        Self { cuts, connected, address, laying }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.laying.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_socket_is_cut_ends_and_with_the_last_one_its_leases() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("writer").await;
    let layout = server.register(spec()).await;
    server.store(session, &layout, 1..2).await;
    let cable = Cable::lay(dir.path());
    let engine = InstanceId::parse("engine").unwrap();
    let open = async || {
        let client = Client::connect(&cable.address).await.unwrap();
        let session = client.open_session(&engine, "rank").await.unwrap();
        Worker { client, session, layout: layout.clone() }
    };
    let (sibling, rank) = (Worker::start(dir.path(), "engine", layout.clone()).await, open().await);
    let former = lease(&rank, "r", 1).await;
    let pool = rank.client.attach_pool(&rank.session, MIB).await.unwrap().unwrap();
    assert_eq!(server.held(), (1, 0, 0));
    cable.cut();
    tokio::time::timeout(PATIENCE, rank.session.closed()).await.expect("its worker is told");
    until("the session's end", async || server.daemon.cache().sessions().get(rank.session.id()).is_err()).await;
    assert_eq!((server.held(), server.status().await.leases), ((0, 0, 0), 1));
    sibling.client.renew(&sibling.session, former.id, Duration::from_secs(60)).await.expect("its instance lives");

    let next = open().await;
    assert_eq!(lease(&next, "r", 1).await.id, former.id, "the request is the same one's");
    drop(sibling);
    cable.cut();
    until("the leases' end", async || server.status().await.leases == 0).await;
    let last = open().await;
    let ended = last.client.renew(&last.session, former.id, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(ended.code(), Some(Code::FailedPrecondition));
    assert_ne!(lease(&last, "r", 1).await.id, former.id);
    assert_eq!(last.fetched(1, BLOCKS).await, BLOCKS);
    drop((pool, rank, next, last, stream));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_socket_is_cut_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 4 * MIB, 8 * MIB).await;
    let cable = Cable::lay(dir.path());
    let worker = worker_goes_on::start(cable.address.clone());
    assert!(worker.ready(PATIENCE).await, "{}", worker.trouble());
    assert_eq!(worker_goes_on::store(&worker, 1).await, BLOCKS);
    for cuts in 1..4 {
        assert_eq!(worker_goes_on::read(&worker, 1).await, (BLOCKS, Way::Shared), "before cut {cuts}");
        let before = cable.connected.load(Ordering::Relaxed);
        cable.cut();
        until("a new connection", async || cable.connected.load(Ordering::Relaxed) > before).await;
        assert!(worker.ready(PATIENCE).await, "{}", worker.trouble());
    }
    assert_eq!(worker_goes_on::read(&worker, 1).await, (BLOCKS, Way::Shared));
    until("the former sessions' end", async || server.daemon.cache().sessions().len() == 1).await;
    drop(worker);
    until("the worker's end", async || server.daemon.cache().sessions().is_empty()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_daemon_told_is_safe_to_read_and_names_nothing_in_the_next_ones_memory() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--ram", "1MiB", "--nvme", "16MiB", "--scrub", "0"];
    // The helpers look for this name.
    std::os::unix::fs::symlink(dir.path().join("s"), dir.path().join("kvtier.sock")).unwrap();
    let (mut process, _) = Process::start(dir.path(), &args).await;
    let gate = crate::support::Gate::connect(&dir.path().join("s")).await;
    let layout = gate.register(spec()).await;
    let before = Mapped::of(Worker::start(dir.path(), "engine", layout.clone()).await).await;
    for seed in 0..4 {
        gate.put(before.session.id(), chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
    }
    gate.quiesce().await;
    let mut told = Vec::new();
    for seed in 0..4 {
        let (places, _) = before.places(seed).await;
        assert_eq!(before.copy(seed, &places), 16);
        told.push((seed, places));
    }
    let former = lease(&before, "r", 1).await;
    process.kill();
    tokio::time::timeout(PATIENCE, before.session.closed()).await.expect("its worker is told");
    drop(gate);
    process = Process::start(dir.path(), &args).await.0;
    let after = Mapped::of(Worker::start(dir.path(), "engine", layout.clone()).await).await;
    // The same slots, at the same point of their lives, hold other blocks.
    let gate = crate::support::Gate::connect(&dir.path().join("s")).await;
    for seed in 100..104 {
        gate.put(after.session.id(), chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
    }
    for (seed, places) in &told {
        assert_eq!(before.copy(*seed, places), 16, "nobody writes to the dead one's memory any more");
        let mut bytes = vec![0; 4096];
        let taken = places.iter().filter(|place| after.arena.copy(place, None, &mut bytes)).count();
        assert_eq!(taken, 0, "a place of the one before");
    }
    let ended = after.client.renew(&after.session, former.id, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(ended.code(), Some(Code::FailedPrecondition));
    let (places, _) = after.places(1).await;
    assert_eq!(after.copy(1, &places), 16, "it comes from the drive");
    process.kill();
    drop((before, after));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_with_the_same_name_and_pid_has_nothing_of_the_former() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 8 * MIB).await;
    let (session, stream) = server.session("writer").await;
    let layout = server.register(spec()).await;
    server.store(session, &layout, 1..2).await;
    // Both are this process.
    let first = Worker::start(dir.path(), "engine", layout.clone()).await;
    let former = lease(&first, "r", 1).await;
    let pool = first.client.attach_pool(&first.session, MIB).await.unwrap().unwrap();
    let staging = first.client.stage(&first.session, MIB).await.unwrap().unwrap();
    let of = |session_id| ReserveRequest {
        session_id,
        chain: Some(chain(&layout, 2, BLOCKS)),
        request_id: "r".into(),
        ..Default::default()
    };
    let reservation = server.cache().reserve(of(first.session.id())).await.unwrap().into_inner().reservation;
    let prompt = first.chain(1, BLOCKS);
    let ticket = first.client.prefetch(&first.session, &request("t"), &prompt, 0, None).await.unwrap();
    let former_id = first.session.id();
    drop(first);
    until("the former's end", async || server.daemon.cache().sessions().get(former_id).is_err()).await;

    let second = Worker::start(dir.path(), "engine", layout.clone()).await;
    let Worker { client, session, .. } = &second;
    assert_ne!(session.id(), former_id);
    refused(server.cache().reserve(of(former_id)).await, Code::NotFound, &["session_id", "not open"]);
    refused(server.cache().reserve(of(session.id())).await, Code::FailedPrecondition, &["no staging memory"]);
    let commit = CommitRequest { session_id: session.id(), reservation, ..Default::default() };
    refused(server.cache().commit(commit).await, Code::FailedPrecondition, &["not held by this session"]);
    let renewed = client.renew(session, former.id, Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(renewed.code(), Some(Code::FailedPrecondition | Code::PermissionDenied)), "{renewed}");
    let accepted = client.accept(session, &ticket, 16).await.unwrap_err();
    assert_eq!(accepted.code(), Some(Code::FailedPrecondition));
    for region in [pool.region(), staging.region()] {
        assert!(!client.detach_region(session, region).await.unwrap());
    }
    until("the former's leases' end", async || server.status().await.leases == 0).await;
    assert_eq!(server.held(), (0, 0, 0));
    assert_ne!(lease(&second, "r", 1).await.id, former.id, "the same request is another's");
    drop((pool, staging, second, stream));
    server.stop().await;
}

/// Leases one block for ten minutes.
async fn lease_block(host: &Host, session: &Session, seed: u8) -> LeaseId {
    let request = RequestId::parse(&format!("r{seed}")).unwrap();
    let lease = LeaseRequest { session: session.clone(), request, ttl: Duration::from_secs(600) };
    let found = host.cache.lookup(&host.prompt(seed), &LookupOptions::default(), Some(lease)).await.unwrap();
    found.lease.expect("it is there").0.lease
}

/// Whether a put of one block is taken.
async fn is_taken(host: &Host, seed: u8) -> bool {
    let (mut walk, _) = host.cache.put(&host.prompt(seed)).await.unwrap();
    let data = payload(seed.into(), 0);
    walk.piece(Piece { block: 0, offset: 0, length: 4096, data: &data }).await.unwrap();
    walk.finish().await.unwrap().accepted == 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaks_leases_until_ram_is_full_stops_the_others_for_half_a_minute_at_most() {
    let clock = Arc::new(VirtualClock::default());
    clock.set(Timestamp(1_700_000_000_000));
    let host = Host::at(Arc::<VirtualClock>::clone(&clock));
    // Block 50 is on a drive only, once RAM's 16 slots have had others.
    host.put(50..51).await;
    let open = |name| host.cache.open_session(InstanceId::parse(name).unwrap(), "test").unwrap();
    let (leaky, other) = (open("leaky"), open("other"));
    host.put(0..16).await;
    let others = lease_block(&host, &other, 15).await;
    let mut leaked = Vec::new();
    for seed in 0..15 {
        leaked.push(lease_block(&host, &leaky, seed).await);
    }
    assert!(!is_taken(&host, 100).await, "everything in RAM is leased");
    assert!(host.fetch(50).await, "what is on a drive is read past RAM");
    clock.advance(PIN_GRACE);
    // The others may have half of RAM; more would be a leak, too.
    for seed in 101..108 {
        assert!(is_taken(&host, seed).await, "{seed}");
        lease_block(&host, &other, seed).await;
        assert!(host.cache.quiesce(PATIENCE).await.unwrap());
        assert!(host.fetch(50).await);
    }
    let ttl = Duration::from_secs(600);
    host.cache.renew(&other, others, ttl).await.expect("it is no leak");
    let mut kept = 0;
    for lease in leaked {
        kept += u32::from(host.cache.renew(&leaky, lease, ttl).await.is_ok());
    }
    assert_eq!(kept, 8);
    host.cache.close_session(leaky.id);
    host.cache.close_session(other.id);
    host.stop();
}
