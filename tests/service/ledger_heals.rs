//! A ledger that can't be written for a while: what is said of it meanwhile, what workers do, and that it goes on by itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kvtier::client::{Client, Settle, Settling, UsageFilter, UsageRecord, Worker};
use kvtier::ledger::Ledger;
use kvtier::proto;
use kvtier::vocab::{BillingId, Fingerprint, InstanceId, RequestId, TenantName, UsageDetail};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tonic::Code;

use crate::process::Process;
use crate::support::{self, Server, spec};
use crate::worker_goes_on::{read, start, store};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn settle(billing_id: &str, cached_tokens: u64) -> Settle {
    Settle {
        tenant: TenantName::parse("acme").unwrap(),
        billing_id: BillingId::parse(billing_id).unwrap(),
        attempt: 0,
        instance: InstanceId::parse("engine").unwrap(),
        request_id: RequestId::parse("r1").unwrap(),
        fingerprint: fingerprint(),
        prompt_tokens: 256,
        cached_tokens,
        attested_tokens: 0,
        written_tokens: 0,
        output_tokens: 7,
        receipts: Vec::new(),
        labels: BTreeMap::new(),
        detail: UsageDetail::default(),
    }
}

fn fingerprint() -> Fingerprint {
    crate::worker_goes_on::spec().fingerprint()
}

/// Lets the daemon's files become no longer than this.
fn limit(process: &Process, current: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(process.child.id()).unwrap()).unwrap();
    prlimit(Some(pid), Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn ledger_of(client: &Client) -> proto::LedgerStatus {
    client.status().await.unwrap().ledger.unwrap()
}

async fn records(client: &Client) -> Vec<UsageRecord> {
    let mut export = client.export_usage(Some(0)).await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = export.next().await.unwrap() {
        records.push(record);
    }
    records
}

/// A worker and a daemon whose ledger takes settles no more.
async fn full(dir: &std::path::Path) -> (Process, Client, Worker) {
    let (process, address) = Process::start(dir, &["--ram", "4MiB", "--nvme", "0"]).await;
    let client = Client::connect(&address).await.unwrap();
    let worker = start(address);
    assert!(worker.ready(PATIENCE).await);
    // More than the log's lines need, and less than is settled here.
    limit(&process, Some(8 << 10));
    until("the ledger's log is full", async || {
        let answer = client.settle(&settle(&format!("before-{}", rand::random::<u64>()), 0)).await;
        answer.err().map(|error| assert_eq!(error.code(), Some(Code::Unavailable), "{error}"))
    })
    .await;
    (process, client, worker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_keeps_what_is_not_settled_and_settles_it_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, client, worker) = full(dir.path()).await;
    let ledger = ledger_of(&client).await;
    assert!(!ledger.writable && ledger.trouble.contains("File too large"), "{ledger:?}");
    assert!(ledger.refused["unavailable"] > 0);
    assert_eq!(store(&worker, 1).await, 16, "caching goes on");
    assert_eq!(read(&worker, 1).await.0, 16);
    // The request's delivery is on one bill: the other one claims nothing of it.
    for (billing_id, cached_tokens) in [("b-1", 256), ("b-2", 0), ("b-1", 256)] {
        assert!(matches!(worker.settle(&settle(billing_id, cached_tokens)).await, Settling::Kept));
    }
    // It can't be proven: the daemon will say no when it is asked again.
    assert!(matches!(worker.settle(&settle("b-3", 9_999)).await, Settling::Kept));
    let before = worker.unsettled();
    assert_eq!((before.waiting, before.given_up()), (4, 0));

    limit(&process, None);
    assert!(worker.settle_kept(PATIENCE).await, "{:?}", worker.unsettled());
    let after = worker.unsettled();
    assert_eq!((after.settled_late, after.refused, after.given_up()), (3, 1, 1), "{after:?}");
    let last = after.last.unwrap();
    assert_eq!(last.billing_id.as_str(), "b-3", "{last:?}");
    assert!(last.why.contains("9999"), "{last:?}");
    assert!(matches!(worker.settle(&settle("b-4", 0)).await, Settling::Settled(_)));
    let billed: Vec<_> = records(&client).await.into_iter().map(|record| record.billing_id).collect();
    let mut of_worker: Vec<_> = billed.iter().filter(|id| id.starts_with("b-")).collect();
    of_worker.sort();
    assert_eq!(of_worker, ["b-1", "b-2", "b-4"], "each once, and no other");
    let ledger = ledger_of(&client).await;
    assert!(ledger.writable && ledger.trouble.is_empty(), "{ledger:?}");
    let log = process.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("ledger")).collect();
    assert_eq!(lines.len(), 2, "one line when it begins and one when it is over:\n{log}");
    assert!(lines[0].contains("the ledger can't be written") && lines[0].contains("File too large"), "{log}");
    assert!(lines[1].contains("the ledger can be written again"), "{log}");
    assert!(
        lines[1].contains("refused=") && !lines[1].contains("refused=0 "),
        "how many were refused meanwhile:\n{log}"
    );
    process.kill();
    let audit = kvtier::offline::audit(&dir.path().join("data")).unwrap();
    assert_eq!(audit.differences, 0, "{:?}", audit.examples);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_settles_after_a_daemon_that_was_killed_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, _client, worker) = full(dir.path()).await;
    assert!(matches!(worker.settle(&settle("b-1", 0)).await, Settling::Kept));
    process.kill();
    assert!(matches!(worker.settle(&settle("b-2", 0)).await, Settling::Kept));
    let (_process, address) = Process::start(dir.path(), &["--ram", "4MiB", "--nvme", "0"]).await;
    assert!(worker.settle_kept(PATIENCE).await, "{:?}", worker.unsettled());
    assert_eq!(worker.unsettled().settled_late, 2);
    let client = Client::connect(&address).await.unwrap();
    let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap();
    assert_eq!(total.records as usize, records(&client).await.len());
    for billing_id in ["b-1", "b-2"] {
        assert!(client.settle(&settle(billing_id, 0)).await.unwrap().repeated);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settle_whose_caller_goes_away_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (process, address) = Process::start(dir.path(), &["--ram", "4MiB", "--nvme", "0"]).await;
    let worker = start(address.clone());
    assert!(worker.ready(PATIENCE).await);
    let settle = settle("b-1", 0);
    {
        let mut settling = Box::pin(worker.settle(&settle));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(settling.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }
    assert_eq!(worker.unsettled().waiting, 1);
    assert!(worker.settle_kept(PATIENCE).await);
    let client = Client::connect(&address).await.unwrap();
    assert!(client.settle(&settle).await.unwrap().repeated);
    drop(process);
}

// What keeps it from being opened here is another who has it open; on a host it is a disk that is full at the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_could_not_be_opened_at_the_start_is_opened_later_with_its_quotas() {
    let dir = tempfile::tempdir().unwrap();
    let quota = proto::SetQuotaRequest {
        tenant: "acme".into(),
        nvme: Some(proto::TierQuota { limit_bytes: Some(MIB), ..Default::default() }),
        ..Default::default()
    };
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    server.admin().set_quota(quota.clone()).await.unwrap();
    server.stop().await;
    let other = Ledger::open(&dir.path().join("data/ledger")).unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let layout = server.register(spec()).await;
    let request = proto::SettleRequest {
        tenant: "acme".into(),
        billing_id: "b-1".into(),
        instance: "engine".into(),
        request_id: "r".into(),
        fingerprint: layout,
        prompt_tokens: 16,
        ..Default::default()
    };
    support::refused(server.usage().settle(request.clone()).await, Code::Unavailable, &["in use by another process"]);
    assert!(!server.status().await.ledger.unwrap().writable);
    let limited = async || {
        let accounts = server.admin().inspect_accounts(proto::InspectAccountsRequest {}).await.unwrap().into_inner();
        accounts.accounts.iter().any(|account| account.nvme.is_some_and(|quota| quota.limit_bytes == Some(MIB)))
    };
    assert!(!limited().await);
    drop(other);
    until("it is opened", async || server.status().await.ledger.unwrap().writable.then_some(())).await;
    until("its quotas are in force", async || limited().await.then_some(())).await;
    assert!(!server.usage().settle(request.clone()).await.unwrap().into_inner().repeated);
    server.stop().await;
}
