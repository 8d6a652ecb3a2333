//! A daemon that is stopped for a while, as by a debugger, a snapshot of its machine or a host that swaps: its workers go on
//! without it, lose nothing that it holds for them, and use it again with its first word.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvtier::client::{BreakerState, Client, Hit, LookupOptions, Path as Way, ServerAddress, Worker, WorkerOptions};
use kvtier::vocab::limits::{BREAKER_PROBE_MAX, WORKER_LOOKUP_DEADLINE};
use kvtier::vocab::{InstanceId, NamespaceName};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Process;
use crate::support::{BLOCK_TOKENS, PAYLOAD, payload};
use crate::worker::request;
use crate::worker_goes_on::{BLOCKS, prompt, spec, store};

const WORKERS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than usual, because tests share their processors.
const DEADLINE: Duration = Duration::from_millis(100);

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Stops it; stopped when this returns. That happens thread by thread, some time after the signal.
    async fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let stopped = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.unwrap().path().join("stat")).is_ok_and(|stat| stat.contains(") T "))
        };
        while !std::fs::read_dir(&tasks).unwrap().all(stopped) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn resume(&self) {
        self.signal(Signal::CONT);
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what} has not come");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn start(address: ServerAddress, number: u32, lookup_deadline: Duration) -> Worker {
    let instance = InstanceId::parse(&format!("engine-{number}")).unwrap();
    let options = WorkerOptions::new(address, instance, NamespaceName::parse("test").unwrap(), spec());
    let worker = Worker::start(WorkerOptions { lookup_deadline, staging_bytes: 1 << 20, ..options });
    assert!(worker.ready(PATIENCE).await && worker.path() == Way::Shared, "{}", worker.trouble());
    worker
}

/// Blocks that a hit's load brings, all of them right.
async fn loaded(worker: &Worker, id: &str, seed: u32, hit: &Hit) -> (u32, Way) {
    let mut bytes = vec![0; (BLOCKS * PAYLOAD) as usize];
    let loaded = worker.load(&request(id), &prompt(seed), hit, &mut bytes, PAYLOAD as usize).await;
    for (block, bytes) in (0..loaded.blocks).zip(bytes.chunks(PAYLOAD as usize)) {
        assert!(bytes == payload(seed, block), "block {block} of {seed}");
    }
    (loaded.blocks, loaded.path)
}

/// What a worker's requests have seen.
#[derive(Default)]
struct Seen {
    hits: AtomicU64,
    loads: AtomicU64,
    /// The longest that a lookup took, in microseconds.
    longest: AtomicU64,
}

/// A scheduler: lookups one after another, each finished.
async fn look(worker: Arc<Worker>, number: u32, seen: Arc<Seen>, over: Arc<AtomicBool>) {
    for round in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let id = request(&format!("look-{number}-{round}"));
        let began = Instant::now();
        let hit = worker.lookup(&id, &prompt(number), None).await;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap();
        seen.longest.fetch_max(took, Ordering::Relaxed);
        assert_eq!(hit.tokens, u64::from(hit.blocks * BLOCK_TOKENS));
        seen.hits.fetch_add(u64::from(hit.blocks == BLOCKS), Ordering::Relaxed);
        worker.finish(&id, true).await;
        assert_eq!(worker.path(), Way::Shared, "the mapping stays");
        // As an engine's step would.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A rank: what is hit is loaded. A load that a pause holds up goes on after it.
async fn load(worker: Arc<Worker>, number: u32, seen: Arc<Seen>, over: Arc<AtomicBool>) {
    for round in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("load-{number}-{round}");
        let hit = worker.lookup(&request(&id), &prompt(number), None).await;
        let (blocks, _) = loaded(&worker, &id, number, &hit).await;
        seen.loads.fetch_add(u64::from(blocks == BLOCKS), Ordering::Relaxed);
        worker.finish(&request(&id), true).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Eight workers at work, and a lease of each over a prompt.
struct Fleet {
    process: Process,
    address: ServerAddress,
    workers: Vec<Arc<Worker>>,
    held: Vec<Hit>,
    seen: Vec<Arc<Seen>>,
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Fleet {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args = ["--ram", "8MiB", "--nvme", "16MiB", "--scrub", "0"];
        let (process, address) = Process::start(dir.path(), &args).await;
        let (mut workers, mut held, mut seen, mut tasks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let over = Arc::new(AtomicBool::new(false));
        for number in 0..WORKERS {
            let worker = Arc::new(start(address.clone(), number, DEADLINE).await);
            assert_eq!(store(&worker, number).await, BLOCKS);
            let mut hit = Hit::default();
            until("a lease", async || {
                hit = worker.lookup(&request("held"), &prompt(number), None).await;
                hit.blocks == BLOCKS && hit.lease.is_some()
            })
            .await;
            let one = Arc::new(Seen::default());
            tasks.push(tokio::spawn(look(Arc::clone(&worker), number, Arc::clone(&one), Arc::clone(&over))));
            tasks.push(tokio::spawn(load(Arc::clone(&worker), number, Arc::clone(&one), Arc::clone(&over))));
            workers.push(worker);
            held.push(hit);
            seen.push(one);
        }
        let fleet = Self { process, address, workers, held, seen, over, tasks, _dir: dir };
        fleet.hits_again("at the start").await;
        fleet
    }

    /// Waits until each worker has hit and loaded something that it has asked for from now on.
    async fn hits_again(&self, when: &str) {
        let counts = |seen: &Arc<Seen>| [&seen.hits, &seen.loads].map(|count| count.load(Ordering::Relaxed));
        let of = || self.seen.iter().flat_map(counts).collect::<Vec<_>>();
        let before = of();
        // One may be under way already.
        until(when, async || of().iter().zip(&before).all(|(now, before)| *now > before + 1)).await;
    }

    /// Pauses the daemon; how long until the first worker, and until the last, had a hit again.
    async fn pause(&self, length: Duration) -> (Duration, Duration) {
        self.process.pause().await;
        self.seen.iter().for_each(|seen| seen.longest.store(0, Ordering::Relaxed));
        // What it had answered before it stopped.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let hits = |seen: &Arc<Seen>| seen.hits.load(Ordering::Relaxed);
        let before: Vec<_> = self.seen.iter().map(hits).collect();
        tokio::time::sleep(length).await;
        for (seen, before) in self.seen.iter().zip(&before) {
            assert!(hits(seen) <= before + 1, "a daemon that is stopped answers nothing");
            let longest = Duration::from_micros(seen.longest.load(Ordering::Relaxed));
            assert!(longest < 20 * DEADLINE, "a lookup took {longest:?}");
        }
        let (before, began): (Vec<_>, _) = (self.seen.iter().map(hits).collect(), Instant::now());
        self.process.resume();
        let mut first = None;
        until("a hit after the pause", async || {
            let back = self.seen.iter().zip(&before).filter(|(seen, before)| hits(seen) > **before).count();
            first = first.or_else(|| (back > 0).then(|| began.elapsed()));
            back == self.seen.len()
        })
        .await;
        let last = began.elapsed();
        self.hits_again("after the pause").await;
        (first.unwrap(), last)
    }

    /// Ends all; nothing was lost.
    async fn end(self, pauses: u64, paused: Duration) {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let probes_of_a_long_pause = paused.as_secs() / BREAKER_PROBE_MAX.as_secs();
        for (number, (worker, held)) in (0..).zip(self.workers.iter().zip(&self.held)) {
            let counts = worker.counts();
            eprintln!("worker {number}: {counts:?}");
            assert_eq!(counts.sessions, 1, "the session of before lives");
            assert!(counts.opened >= 1 && counts.paused_calls > 0, "{counts:?}");
            // Machines under load have pauses of their own.
            assert!(counts.opened < 20 * pauses, "{counts:?}");
            assert!(counts.probes <= counts.opened + probes_of_a_long_pause, "a probe a stall: {counts:?}");
            until("calls", async || worker.breaker() == BreakerState::Closed).await;
            // With a lease that had ended this is refused.
            assert_eq!(loaded(worker, "held", number, held).await, (BLOCKS, Way::Shared), "its lease lives");
            until("the kept ends' end", async || worker.counts().kept_finishes == 0).await;
            assert_eq!(worker.counts().lost_finishes, 0);
        }
        let client = Client::connect(&self.address).await.unwrap();
        until("the leases' end", async || client.status().await.unwrap().leases == u64::from(WORKERS)).await;
    }
}

/// Of the pause, in milliseconds; a longer one may be tried by hand.
fn pause_length() -> Duration {
    let ms = std::env::var("KVTIER_PAUSE_MS").ok().and_then(|ms| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or(2_000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_under_eight_workers_costs_no_session_no_lease_and_no_mapping_and_hits_are_back_after_it() {
    let fleet = Fleet::start().await;
    let length = pause_length();
    let (first, last) = fleet.pause(length).await;
    eprintln!("paused for {length:?}: the first worker hits {first:?} after it, all of them {last:?} after it");
    fleet.end(1, length).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_of_any_length_one_after_another_cost_no_session_either() {
    for seed in 0..2 {
        let (fleet, mut chance) = (Fleet::start().await, Pcg64::seed_from_u64(seed));
        // One long enough to be noticed, and some that may be too short for that.
        let mut lengths = vec![Duration::from_millis(600)];
        lengths.extend((0..6).map(|_| Duration::from_millis(chance.random_range(1..500))));
        for length in &lengths {
            let (_, last) = fleet.pause(*length).await;
            eprintln!("seed {seed}: paused for {length:?}, all hit {last:?} after it");
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..50))).await;
        }
        fleet.end(lengths.len() as u64, lengths.iter().sum()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_ends_during_a_pause_keeps_its_lease_no_longer_than_that() {
    let dir = tempfile::tempdir().unwrap();
    let (process, address) = Process::start(dir.path(), &["--ram", "4MiB", "--scrub", "0"]).await;
    let (worker, client) = (start(address.clone(), 1, DEADLINE).await, Client::connect(&address).await.unwrap());
    assert_eq!(store(&worker, 1).await, BLOCKS);
    for id in ["ends", "ends too", "goes on"].map(|id| id.replace(' ', "-")) {
        until("a lease", async || worker.lookup(&request(&id), &prompt(1), None).await.lease.is_some()).await;
    }
    let leases = async || client.status().await.unwrap().leases;
    assert_eq!(leases().await, 3);
    process.pause().await;
    // The first is sent, and waits in vain; the others are not, once calls are stopped.
    let first = async { worker.finish(&request("ends"), true).await };
    let others = async {
        until("the breaker", async || {
            worker.lookup(&request("other"), &prompt(1), None).await;
            worker.breaker() != BreakerState::Closed
        })
        .await;
        worker.finish(&request("ends-too"), false).await;
        worker.finish(&request("goes-on"), true).await;
        worker.finish(&request("other"), true).await;
    };
    tokio::join!(first, others);
    assert_eq!(worker.counts().kept_finishes, 4);
    process.resume();
    until("a hit", async || worker.lookup(&request("goes-on"), &prompt(1), None).await.blocks == BLOCKS).await;
    until("the ends", async || worker.counts().kept_finishes == 0).await;
    until("the leases' end", async || leases().await <= 1).await;
    assert_eq!((worker.counts().sessions, worker.counts().lost_finishes), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_calls_that_are_given_up_during_a_pause_end_no_session() {
    let dir = tempfile::tempdir().unwrap();
    let (process, address) = Process::start(dir.path(), &["--ram", "4MiB", "--scrub", "0"]).await;
    let worker = start(address.clone(), 1, DEADLINE).await;
    assert_eq!(store(&worker, 1).await, BLOCKS);
    // A client without a breaker, as those of other languages are.
    let client = Client::connect(&address).await.unwrap();
    let session = client.open_session(&InstanceId::parse("plain").unwrap(), "plain").await.unwrap();
    process.pause().await;
    let (began, given_up) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let (client, given_up) = (client.clone(), Arc::clone(&given_up));
            tokio::spawn(async move {
                while began.elapsed() < Duration::from_secs(1) {
                    let (chain, options) = (prompt(1), LookupOptions::default());
                    let asked = tokio::time::timeout(WORKER_LOOKUP_DEADLINE, client.lookup(&chain, &options)).await;
                    given_up.fetch_add(u64::from(asked.is_err()), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    process.resume();
    until("an answer", async || client.lookup(&prompt(1), &LookupOptions::default()).await.is_ok()).await;
    let given_up = given_up.load(Ordering::Relaxed);
    assert!(given_up > 64, "{given_up}");
    eprintln!("{given_up} calls were given up");
    assert!(session.is_open(), "{}", session.closed().await);
    assert!(client.release(&session, kvtier::vocab::LeaseId(1)).await.is_ok(), "and the daemon knows it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_could_not_be_mapped_during_a_pause_is_mapped_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_process, address) = Process::start(dir.path(), &["--ram", "4MiB", "--scrub", "0"]).await;
    // The small socket says nothing, as that of a paused daemon.
    let (socket, aside) = (dir.path().join("s.arena"), dir.path().join("aside"));
    std::fs::rename(&socket, &aside).unwrap();
    let silent = UnixListener::bind(&socket).unwrap();
    let (instance, name) = (InstanceId::parse("engine").unwrap(), NamespaceName::parse("test").unwrap());
    let worker = Worker::start(WorkerOptions::new(address, instance, name, spec()));
    assert!(worker.ready(Duration::from_secs(3)).await);
    assert_eq!(worker.path(), Way::Grpc, "it serves without");
    std::fs::rename(&aside, &socket).unwrap();
    drop(silent);
    until("the mapping", async || worker.path() == Way::Shared).await;
    assert_eq!(worker.counts().sessions, 1);
}
