//! What the bench of settles does, with its size as a parameter: the small one runs as a test.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kvtier::client::{Chain, Client, FetchOptions, ServerAddress, Session, Settle, UsageFilter};
use kvtier::daemon::{Config, Daemon};
use kvtier::replay::live::namespace_spec;
use kvtier::vocab::{BillingId, ByteCount, Fingerprint, InstanceId, NamespaceName, RequestId, TenantName};
use tokio::task::JoinSet;

const TENANTS: u64 = 16;
/// Tokens of the block that a request with a hit was delivered.
const HIT: u64 = 16;

/// A daemon and one connection to it.
pub(crate) struct Meter {
    runtime: tokio::runtime::Runtime,
    client: Client,
    session: Arc<Session>,
    fingerprint: Fingerprint,
    daemon: Daemon,
    settled: u64,
    /// Requests up to this one were delivered a block.
    delivered: u64,
    folder: tempfile::TempDir,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let config =
            Config { socket: Some(socket.clone()), ..Config::new(folder.path().join("data"), ByteCount(4 << 20)) };
        let (daemon, client, session, fingerprint) = runtime.block_on(async {
            let daemon = Daemon::start(config).await.expect("a daemon");
            let address = ServerAddress::parse(&format!("unix:{}", socket.display())).expect("an address");
            let client = Client::connect(&address).await.expect("a connection");
            let (name, spec) =
                (NamespaceName::parse("bench").expect("a word"), namespace_spec(16, 4096).expect("a spec"));
            let registered = client.register_namespace(None, &name, &spec, None).await;
            let instance = InstanceId::parse("engine").expect("a word");
            let session = Arc::new(client.open_session(&instance, "bench").await.expect("a session"));
            let fingerprint = registered.expect("a namespace").0;
            for number in 0..TENANTS {
                let (request, source) = (request_id(number), |_| Bytes::from(vec![7; 4096]));
                let stored = client.put(&session, &request, &chain(fingerprint, number), source).await;
                assert_eq!(stored.expect("a put").stored_through, 1, "it is stored");
            }
            (daemon, client, session, fingerprint)
        });
        Self { runtime, client, session, fingerprint, daemon, settled: 0, delivered: 0, folder }
    }

    /// Delivers a block to each of the next `count` requests, which then settle it as a hit.
    pub(crate) fn deliver(&mut self, count: u64) {
        self.delivered = self.settled + count;
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for task in 0..64 {
                let (client, session, fingerprint) = (self.client.clone(), Arc::clone(&self.session), self.fingerprint);
                let numbers = (self.settled + task..self.delivered).step_by(64);
                tasks.spawn(async move {
                    for number in numbers {
                        let (request, chain) = (request_id(number), chain(fingerprint, number));
                        let fetch = client.fetch(&session, &request, &chain, FetchOptions::default()).await;
                        let end = fetch.expect("a fetch").end().await.expect("its end");
                        assert_eq!(end.tokens, HIT, "it is delivered");
                    }
                });
            }
            tasks.join_all().await;
        });
    }

    /// Settles `count` requests, `in_flight` at a time, each acknowledged once it is on the drive; how long it took.
    pub(crate) fn settle(&mut self, in_flight: u64, count: u64) -> Duration {
        let began = Instant::now();
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for task in 0..in_flight {
                let (client, fingerprint, first) = (self.client.clone(), self.fingerprint, self.settled);
                let delivered = self.delivered;
                tasks.spawn(async move {
                    for number in (first + task..first + count).step_by(in_flight as usize) {
                        let hit = if number < delivered { HIT } else { 0 };
                        client.settle(&request(fingerprint, number, hit)).await.expect("a record");
                    }
                });
            }
            tasks.join_all().await;
        });
        self.settled += count;
        began.elapsed()
    }

    /// Writes 4 KiB of a file that has them already and syncs, `count` times, on the same drive: for the scale. A sync takes
    /// 0.1 to 12 ms, as the drive has it.
    pub(crate) fn sync(&self, count: u32) -> Duration {
        let file = File::create(self.folder.path().join("synced")).expect("a file");
        let write = |page: u32| file.write_all_at(&[7; 4096], u64::from(page) * 4096);
        (0..count).try_for_each(write).and_then(|()| file.sync_all()).expect("a drive");
        let began = Instant::now();
        for page in 0..count {
            write(page).and_then(|()| file.sync_data()).expect("a drive");
        }
        began.elapsed()
    }

    /// The sequences of all records, as an export brings them.
    pub(crate) fn export(&self) -> Vec<u64> {
        self.runtime.block_on(async {
            let mut export = self.client.export_usage(Some(0)).await.expect("an export");
            let mut sequences = Vec::new();
            while let Some(record) = export.next().await.expect("a record") {
                sequences.push(record.sequence);
            }
            sequences
        })
    }

    /// Ends it; records settled as the ledger sums them, and as its audit finds them afterwards.
    pub(crate) fn stop(self) -> (u64, u64) {
        let summed = self.runtime.block_on(self.client.summarize_usage(&UsageFilter::default())).expect("sums");
        let data = self.folder.path().join("data");
        self.runtime.block_on(self.daemon.stop());
        (summed.total.map_or(0, |total| total.records), audited(&data))
    }
}

fn audited(data: &Path) -> u64 {
    let audit = kvtier::offline::audit(data).expect("a ledger");
    assert_eq!((audit.differences, audit.deliveries.billed_tokens), (0, audit.hit_tokens.unsigned_abs()), "{audit:?}");
    audit.records
}

fn tenant(number: u64) -> TenantName {
    TenantName::parse(&format!("tenant-{}", number % TENANTS)).expect("a word")
}

fn request_id(number: u64) -> RequestId {
    RequestId::parse(&format!("r-{number}")).expect("a word")
}

/// The one block of the tenant's prompt.
fn chain(fingerprint: Fingerprint, number: u64) -> Chain {
    Chain::of_engine_keys(fingerprint, &tenant(number), 12, Bytes::from_static(b"block-000000"))
}

fn request(fingerprint: Fingerprint, number: u64, hit: u64) -> Settle {
    Settle {
        tenant: tenant(number),
        billing_id: BillingId::parse(&format!("chatcmpl-{number:016x}")).expect("a word"),
        attempt: 0,
        instance: InstanceId::parse("engine").expect("a word"),
        request_id: request_id(number),
        fingerprint,
        prompt_tokens: 8_000,
        cached_tokens: hit,
        attested_tokens: 1_024,
        written_tokens: 6_976,
        output_tokens: 500,
        receipts: Vec::new(),
        labels: BTreeMap::from([("class".into(), "interactive".into())]),
        detail: kvtier::vocab::UsageDetail::default(),
    }
}
