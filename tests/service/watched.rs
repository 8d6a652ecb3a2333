//! A part of the daemon that ends on its own ends the daemon: at once, after health has said so, with a last word that names
//! it; and a restart finds what a kill would have left. A second signal ends a stop that takes long.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kvtier::daemon::FAILED;
use kvtier::proto::{self, put_request};
use kvtier::vocab::limits::DRAIN_MAX;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Gate, chain, payload, spec};

/// Longer than anything here takes, and shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// `kvtier serve` as a supervisor runs it.
struct Supervised {
    child: Child,
    dir: PathBuf,
}

impl Supervised {
    /// Starts it on the folder `data` of `dir`; with `fault`, that goes wrong at SIGUSR1.
    fn spawn(dir: &Path, fault: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
        command
            .args(["serve", "--ram", "256KiB", "--nvme", "16MiB", "--scrub", "0", "--data-dir"])
            .arg(dir.join("data"));
        command.arg("--socket").arg(dir.join("s")).args(args).env("KVTIER_TEST_FAULT", fault);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(dir.join("log")).unwrap());
        Self { child: command.spawn().unwrap(), dir: dir.into() }
    }

    /// The same, serving when this returns.
    async fn start(dir: &Path, fault: &str, args: &[&str]) -> (Self, Gate) {
        let mut daemon = Self::spawn(dir, fault, args);
        daemon.until_log("ready").await;
        let gate = Gate::connect(&dir.join("s")).await;
        (daemon, gate)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    fn last_line(&self) -> String {
        self.log().lines().last().unwrap_or_default().to_owned()
    }

    async fn until_log(&mut self, words: &str) {
        let started = Instant::now();
        while !self.log().contains(words) {
            assert_eq!(self.child.try_wait().unwrap(), None, "it has ended without {words:?}:\n{}", self.log());
            assert!(started.elapsed() < PATIENCE, "{words:?} is not in\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Its exit status, once it has ended; `poke` is done again and again until then.
    async fn ended(&mut self, poke: impl AsyncFn()) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
            tokio::time::timeout(Duration::from_millis(500), poke()).await.ok();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a load balancer hears of a service until its stream ends, from a connection of its own.
async fn heard(socket: &Path, service: &str) -> JoinHandle<Vec<ServingStatus>> {
    let channel = Endpoint::try_from(format!("unix:{}", socket.display())).unwrap().connect().await.unwrap();
    let request = HealthCheckRequest { service: service.into() };
    let mut said = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    let mut all = vec![said.message().await.unwrap().unwrap().status()];
    tokio::spawn(async move {
        while let Ok(Some(next)) = said.message().await {
            all.push(next.status());
        }
        all
    })
}

fn settle(layout: &bytes::Bytes, billing_id: &str) -> proto::SettleRequest {
    proto::SettleRequest {
        tenant: "acme".into(),
        billing_id: billing_id.into(),
        instance: "engine".into(),
        request_id: billing_id.into(),
        fingerprint: layout.clone(),
        prompt_tokens: 128,
        output_tokens: 7,
        ..Default::default()
    }
}

/// Chains, each of so many blocks, of which RAM can't hold all.
const STORED: (u32, u32) = (3, 40);

async fn store(gate: &Gate) -> bytes::Bytes {
    let (session, _stream) = gate.session("engine").await;
    let layout = gate.register(spec()).await;
    for seed in 0..STORED.0 {
        gate.put(session, chain(&layout, seed, STORED.1), |block| payload(seed, block)).await;
    }
    gate.quiesce().await;
    layout
}

/// Uses every part: a connection on each address, a write to the drive and reads of it, a settle.
async fn use_all(dir: &Path, layout: &bytes::Bytes, seed: u32) {
    let endpoint = Endpoint::try_from(format!("unix:{}", dir.join("s").display())).unwrap();
    drop(tokio::net::UnixStream::connect(dir.join("s.arena")).await);
    let Ok(channel) = endpoint.connect().await else { return };
    let mut usage = proto::usage_client::UsageClient::new(channel.clone());
    usage.settle(settle(layout, &format!("poke-{seed}"))).await.ok();
    let mut sessions = proto::sessions_client::SessionsClient::new(channel.clone());
    let open = proto::OpenSessionRequest { instance: "poke".into(), process: "test".into(), ..Default::default() };
    let Ok(session) = sessions.open_session(proto::OpenSessionRequest { protocol_revision: 1, ..open }).await else {
        return;
    };
    let mut session = session.into_inner();
    let Ok(Some(event)) = session.message().await else { return };
    let Some(proto::session_event::Event::Opened(opened)) = event.event else { return };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send(offer(opened.session_id, chain(layout, STORED.0 + seed, 1))).await.unwrap();
    let data = payload(seed, 0);
    let length = u32::try_from(data.len()).unwrap();
    let piece = proto::BlockPiece { block: 0, length, data: data.into(), ..Default::default() };
    let data = proto::PutData { pieces: vec![piece] };
    sender.send(proto::PutRequest { request: Some(put_request::Request::Data(data)) }).await.unwrap();
    drop(sender);
    let mut cache = proto::cache_client::CacheClient::new(channel);
    if let Ok(replies) = cache.put(tokio_stream::wrappers::ReceiverStream::new(receiver)).await {
        let mut replies = replies.into_inner();
        while let Ok(Some(_)) = replies.message().await {}
    }
    let (session_id, read) = (opened.session_id, Some(chain(layout, seed % STORED.0, STORED.1)));
    let fetch = proto::FetchRequest { session_id, request_id: "read".into(), chain: read, ..Default::default() };
    if let Ok(replies) = cache.fetch(fetch).await {
        let mut replies = replies.into_inner();
        while let Ok(Some(_)) = replies.message().await {}
    }
}

fn offer(session_id: u64, chain: proto::Chain) -> proto::PutRequest {
    let offer = proto::PutOffer { session_id, request_id: "put".into(), chain: Some(chain) };
    proto::PutRequest { request: Some(put_request::Request::Offer(offer)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planner_that_panics_ends_the_daemon_and_a_restart_is_as_warm_as_its_drives_and_has_every_settle() {
    const CHAINS: u32 = 8;
    const BLOCKS: u32 = 10;
    const SETTLES: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let (mut daemon, gate) = Supervised::start(dir.path(), "planner", &[]).await;
    let (session, _stream) = gate.session("engine").await;
    let layout = gate.register(spec()).await;
    for seed in 0..CHAINS {
        gate.put(session, chain(&layout, seed, BLOCKS), |block| payload(seed, block)).await;
        // RAM holds fewer than all: a put that finds nothing but blocks under way to the drive would be refused.
        gate.quiesce().await;
    }
    assert_eq!(gate.status().await.nvme.unwrap().blocks, u64::from(CHAINS * BLOCKS), "all are on the drive");
    for number in 0..SETTLES {
        gate.usage().settle(settle(&layout, &format!("b-{number}"))).await.unwrap();
    }
    let mut said = Vec::new();
    for service in ["", "kvtier.v1.Cache", "kvtier.v1.Sessions", "kvtier.v1.Usage", "kvtier.v1.Admin"] {
        said.push((service, heard(&dir.path().join("s"), service).await));
    }
    let armed = Instant::now();
    daemon.signal(Signal::USR1);
    let status = daemon.ended(async || {}).await;
    eprintln!(
        "{:?} from the signal to the end, of which up to 250 ms are for the planner's next tick",
        armed.elapsed()
    );
    assert_eq!(status, Some(i32::from(FAILED)), "{}", daemon.log());
    let last = daemon.last_line();
    assert!(
        last.contains("planner") && last.contains("panicked at src/") && last.contains("a test has planner panic"),
        "{last}"
    );
    for (service, said) in said {
        assert_eq!(said.await.unwrap(), [ServingStatus::Serving, ServingStatus::NotServing], "{service:?}");
    }
    assert!(!daemon.log().contains("were written to the drives"), "nothing is flushed by what is broken");

    let (mut daemon, gate) = Supervised::start(dir.path(), "", &[]).await;
    assert_eq!(gate.status().await.nvme.unwrap().blocks, u64::from(CHAINS * BLOCKS));
    let (session, _stream) = gate.session("engine").await;
    for seed in 0..CHAINS {
        let (payloads, _) = gate.fetch(session, &format!("r{seed}"), chain(&layout, seed, BLOCKS)).await;
        let right = (0..BLOCKS).map(|block| payload(seed, block)).collect::<Vec<_>>();
        assert!(payloads == right, "{seed}: {} of {BLOCKS}", payloads.len());
    }
    let bill = gate.usage().summarize_usage(proto::SummarizeUsageRequest::default()).await.unwrap().into_inner();
    assert_eq!(bill.total.unwrap().records, SETTLES);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(async || {}).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_part_that_panics_ends_the_daemon_by_its_name() {
    let probe = tempfile::tempdir().unwrap();
    let (_probe, gate) = Supervised::start(probe.path(), "", &[]).await;
    let has_ring = gate.status().await.nvme.unwrap().kind.starts_with("io_uring");
    let rings: &[_] = if has_ring { &["kvtier-io-ring", "kvtier-io-done", "kvtier-io-wrote"] } else { &[] };
    let access = probe.path().join("access.toml");
    std::fs::write(&access, "").unwrap();
    let access = ["--access", access.to_str().unwrap()];
    let with_access = access.as_slice();
    let with_threads = ["--io", "pread"].as_slice();
    let parts =
        [("kvtier-nvme-0", with_threads), ("ledger", &[]), ("rows", &[]), ("time", &[]), ("health", &[])].into_iter();
    let sockets = [("Unix socket server", [].as_slice()), ("arena socket", &[]), ("access file", with_access)];
    for (part, args) in parts.chain(rings.iter().map(|part| (*part, [].as_slice()))).chain(sockets) {
        let dir = tempfile::tempdir().unwrap();
        let (mut daemon, gate) = Supervised::start(dir.path(), part, args).await;
        let layout = if args == with_access { bytes::Bytes::new() } else { store(&gate).await };
        let said = heard(&dir.path().join("s"), "").await;
        daemon.signal(Signal::USR1);
        let seed = std::sync::atomic::AtomicU32::new(0);
        let poke = async || use_all(dir.path(), &layout, seed.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).await;
        assert_eq!(daemon.ended(poke).await, Some(i32::from(FAILED)), "{part}:\n{}", daemon.log());
        let last = daemon.last_line();
        assert!(last.contains(part) && last.contains("panicked at src/"), "{part}: {last}");
        assert_eq!(said.await.unwrap(), [ServingStatus::Serving, ServingStatus::NotServing], "{part}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_can_be_done_without_ends_alone_and_health_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("r.jsonl");
    let (mut daemon, gate) = Supervised::start(dir.path(), "record", &["--record", record.to_str().unwrap()]).await;
    daemon.signal(Signal::USR1);
    daemon.until_log("degraded").await;
    let status = gate.status().await;
    assert_eq!(status.health[0].state(), proto::HealthState::Degraded);
    assert!(status.health[0].serving && status.health[0].reasons[0].contains("record panicked at src/"), "{status:?}");
    let (session, _stream) = gate.session("engine").await;
    let layout = gate.register(spec()).await;
    let stored = gate.put(session, chain(&layout, 1, 4), |block| payload(1, block)).await;
    assert_eq!(stored.stored_through, 4, "the cache goes on");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(async || {}).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_stop_that_waits_for_a_request() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut daemon, gate) = Supervised::start(dir.path(), "", &[]).await;
        let (session, _stream) = gate.session("engine").await;
        let layout = gate.register(spec()).await;
        // A put whose worker sends nothing after its offer.
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        sender.send(offer(session, chain(&layout, 1, 1))).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut replies = gate.cache().put(stream).await.unwrap().into_inner();
        replies.message().await.unwrap().unwrap();
        let stopping = Instant::now();
        daemon.signal(signal);
        daemon.until_log("draining").await;
        daemon.signal(signal);
        assert_eq!(daemon.ended(async || {}).await, Some(status), "{}", daemon.log());
        assert!(stopping.elapsed() < DRAIN_MAX, "it was the signal that ended it");
        assert!(daemon.last_line().contains("a second signal"), "{}", daemon.log());
        drop((sender, replies));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_during_a_slow_start_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Supervised::spawn(dir.path(), "recovery", &[]);
    let said = loop {
        if dir.path().join("s").exists() {
            break heard(&dir.path().join("s"), "").await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(async || {}).await, Some(0));
    assert!(!dir.path().join("s").exists(), "its socket is gone");
    assert_eq!(said.await.unwrap(), [ServingStatus::NotServing]);
}
