//! What the bench of settles does, with its size as a parameter: the small one runs as a test.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use kvtier::client::{Client, ServerAddress, Settle, UsageFilter};
use kvtier::daemon::{Config, Daemon};
use kvtier::replay::live::namespace_spec;
use kvtier::vocab::{BillingId, ByteCount, Fingerprint, InstanceId, NamespaceName, RequestId, TenantName};
use tokio::task::JoinSet;

/// A daemon and one connection to it.
pub(crate) struct Meter {
    runtime: tokio::runtime::Runtime,
    client: Client,
    fingerprint: Fingerprint,
    daemon: Daemon,
    settled: u64,
    folder: tempfile::TempDir,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let config =
            Config { socket: Some(socket.clone()), ..Config::new(folder.path().join("data"), ByteCount(4 << 20)) };
        let (daemon, client, fingerprint) = runtime.block_on(async {
            let daemon = Daemon::start(config).await.expect("a daemon");
            let address = ServerAddress::parse(&format!("unix:{}", socket.display())).expect("an address");
            let client = Client::connect(&address).await.expect("a connection");
            let (name, spec) =
                (NamespaceName::parse("bench").expect("a word"), namespace_spec(16, 4096).expect("a spec"));
            let registered = client.register_namespace(None, &name, &spec, None).await;
            (daemon, client, registered.expect("a namespace").0)
        });
        Self { runtime, client, fingerprint, daemon, settled: 0, folder }
    }

    /// Settles `count` requests, `in_flight` at a time, each acknowledged once it is on the drive; how long it took.
    pub(crate) fn settle(&mut self, in_flight: u64, count: u64) -> Duration {
        let began = Instant::now();
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for task in 0..in_flight {
                let (client, fingerprint, first) = (self.client.clone(), self.fingerprint, self.settled);
                tasks.spawn(async move {
                    for number in (first + task..first + count).step_by(in_flight as usize) {
                        client.settle(&request(fingerprint, number)).await.expect("a record");
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
    assert_eq!(audit.differences, 0, "{audit:?}");
    audit.records
}

fn request(fingerprint: Fingerprint, number: u64) -> Settle {
    Settle {
        tenant: TenantName::parse(&format!("tenant-{}", number % 16)).expect("a word"),
        billing_id: BillingId::parse(&format!("chatcmpl-{number:016x}")).expect("a word"),
        attempt: 0,
        instance: InstanceId::parse("engine").expect("a word"),
        request_id: RequestId::parse(&format!("r-{number}")).expect("a word"),
        fingerprint,
        prompt_tokens: 8_000,
        cached_tokens: 0,
        attested_tokens: 1_024,
        written_tokens: 6_976,
        output_tokens: 500,
        receipts: Vec::new(),
        labels: BTreeMap::from([("class".into(), "interactive".into())]),
        detail: kvtier::vocab::UsageDetail::default(),
    }
}
