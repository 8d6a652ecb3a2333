//! A drive that fails while the daemon runs goes out alone: its blocks are misses, all others are hit, puts go on, and the
//! status and a metric say so.

use std::sync::Arc;
use std::time::Duration;

use kvtier::cache::drives::DriveState;
use kvtier::cache::load::FetchRequest;
use kvtier::cache::lookup::LookupOptions;
use kvtier::cache::put::Piece;
use kvtier::cache::{Cache, Chain, Keys, Namespace, Parts};
use kvtier::daemon::{Config, Daemon};
use kvtier::media::{Faults, FaultyDevice, MemDevice};
use kvtier::plan::{AdmissionKind, PolicyKind};
use kvtier::proto;
use kvtier::tiers::{Catalog, Device, NvmeShelf, RamShelf};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{
    BlockKey, ByteCount, InstanceId, NamespaceName, NamespaceSpec, Owner, RequestId, SystemClock, TenantName, TierShape,
};

use crate::metrics::{ask, parse};
use crate::several_drives::two_drives;
use crate::support::{Gate, chain, payload, spec};

const MIB: u64 = 1 << 20;
/// Room for 16 blocks, so that most are on a drive only.
const RAM: u64 = 64 << 10;

/// A cache on two drives in memory, the second of which fails when told to.
struct Host {
    cache: Arc<Cache>,
    namespace: Arc<Namespace>,
    second: Arc<FaultyDevice>,
    shape: TierShape,
    _folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap().catalog;
        let (extent, stride) = TierShape::plan(&[MIB; 2]);
        let shape = TierShape::striped(&[MIB; 2], extent, stride);
        let drive = || Arc::new(MemDevice::threaded(MIB).unwrap());
        let second = Arc::new(FaultyDevice::new(drive(), Faults::default(), 1));
        let devices: Vec<Option<Arc<dyn Device>>> = vec![Some(drive()), Some(Arc::<FaultyDevice>::clone(&second))];
        let parts = Parts {
            ram: RamShelf::new(TierShape::carve(ByteCount(RAM))).unwrap(),
            nvme: Some(Arc::new(NvmeShelf::striped(devices, Arc::new(catalog), shape))),
            places: Vec::new(),
            ledger: None,
            policy: PolicyKind::Lru,
            admission: AdmissionKind::Always,
            wear_bytes_per_day: None,
            clock: Arc::new(SystemClock),
        };
        let (cache, _planner) = Cache::start(parts).unwrap();
        let spec = NamespaceSpec {
            weights: Weights::Digest(Box::new([7; 32])),
            dtype: "u8".into(),
            layout: "test".into(),
            block_tokens: 16,
            stride: 1,
            shards: 1,
            groups: 1,
            hash_scheme: HashScheme::Tokens,
            max_payload_bytes: 4096,
            prefill_tokens_per_second: 0,
        };
        let (namespace, _) = cache.register(None, NamespaceName::parse("test").unwrap(), spec).unwrap();
        Self { cache, namespace, second, shape, _folder: folder }
    }

    /// A prompt of one block.
    fn prompt(&self, seed: u8) -> Chain {
        Chain {
            namespace: Arc::clone(&self.namespace),
            tenant: TenantName::parse("acme").unwrap(),
            owner: Owner { namespace: self.namespace.id, ..Owner::default() },
            depth: 0,
            parent: None,
            keys: Keys::Known([key(seed)].into()),
            tokens: None,
        }
    }

    async fn put(&self, seeds: std::ops::Range<u8>) {
        for seed in seeds {
            let (mut walk, _) = self.cache.put(&self.prompt(seed)).await.unwrap();
            let data = payload(seed.into(), 0);
            walk.piece(Piece { block: 0, offset: 0, length: 4096, data: &data }).await.unwrap();
            assert_eq!(walk.finish().await.unwrap().stored_through, 1, "{seed}");
            // One at a time: RAM is small, and holds what is being written.
            assert!(self.cache.quiesce(Duration::from_secs(10)).await.unwrap());
        }
    }

    /// Whether the block came, with the right bytes.
    async fn fetch(&self, seed: u8) -> bool {
        let session = self.cache.open_session(InstanceId::parse("engine").unwrap()).unwrap();
        let (id, chain) = (session.id, self.prompt(seed));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let request = RequestId::parse(&seed.to_string()).unwrap();
        let request = FetchRequest { session, request, chain, lease: None, deadline, promote: true };
        let (out, mut blocks) = tokio::sync::mpsc::channel(1);
        let fetched = tokio::spawn(Arc::clone(&self.cache).fetch(request, out));
        let block = blocks.recv().await;
        fetched.await.unwrap();
        self.cache.close_session(id);
        block.map(|block| assert_eq!(block.bytes, payload(seed.into(), 0), "{seed}")).is_some()
    }

    /// On which drive the block is.
    async fn drive(&self, seed: u8) -> Option<u16> {
        let known = self.cache.inspect(key(seed)).await.unwrap()?;
        known.nvme_slot.map(|slot| self.shape.drive_of(slot.extent))
    }

    async fn found(&self, seed: u8) -> bool {
        let found = self.cache.lookup(&self.prompt(seed), &LookupOptions::default(), None).await.unwrap();
        found.counts.hit() == 1
    }
}

fn key(seed: u8) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&[seed]).as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_keeps_failing_loses_its_own_blocks_and_the_cache_goes_on_with_the_rest() {
    let host = Host::new();
    host.put(0..100).await;
    let mut drives = Vec::new();
    for seed in 0..100 {
        drives.push(host.drive(seed).await);
    }
    let on = |drive| drives.iter().filter(|on| **on == Some(drive)).count();
    assert!(on(0) >= 32 && on(1) >= 32 && on(0) + on(1) == 100, "{drives:?}");

    host.second.set_faults(Faults { read_error: 1.0, write_error: 1.0, ..Faults::default() });
    for (seed, drive) in (0..100).zip(&drives) {
        let came = host.fetch(seed).await;
        assert!(came || *drive == Some(1), "block {seed} of the drive that works");
    }
    assert!(host.cache.quiesce(Duration::from_secs(10)).await.unwrap(), "what is lost is let go in the end");
    let status = host.cache.status().await.unwrap();
    let states: Vec<DriveState> = status.drives.iter().map(|drive| drive.state).collect();
    assert_eq!(states, [DriveState::Ok, DriveState::Out]);
    assert!(status.drives[1].note.contains("taken out") && status.drives[1].stats.read_errors >= 16, "{status:?}");
    assert_eq!(status.drives[1].used.0, 0, "nothing is kept on a drive that is out");
    for (seed, drive) in (0..100).zip(&drives) {
        // Those that RAM had kept are readable from there.
        let in_ram = host.cache.inspect(key(seed)).await.unwrap().is_some_and(|known| known.ram_slot.is_some());
        assert_eq!(host.found(seed).await, *drive == Some(0) || in_ram, "{seed}");
    }

    let writes = status.drives[1].stats;
    host.put(100..130).await;
    for seed in 100..130 {
        assert_eq!(host.drive(seed).await, Some(0), "{seed} goes to the drive that is left");
    }
    for seed in 100..130 {
        assert!(host.fetch(seed).await, "{seed}");
    }
    let status = host.cache.status().await.unwrap();
    assert_eq!(status.drives[1].stats, writes, "nothing is tried on a drive that is out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drives_file_that_is_cut_off_from_outside_is_a_drive_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { metrics: "127.0.0.1:0".parse().ok(), ..two_drives(dir.path(), RAM, MIB) };
    let daemon = Daemon::start(config).await.unwrap();
    let gate = Gate::connect(&dir.path().join("kvtier.sock")).await;
    let (session, stream) = gate.session("engine").await;
    let layout = gate.register(spec()).await;
    for seed in 0..100 {
        gate.put(session, chain(&layout, seed, 1), |block| payload(seed, block)).await;
        gate.quiesce().await;
    }
    let before = gate.status().await;
    let own = std::fs::read_dir(dir.path().join("second")).unwrap().next().unwrap().unwrap().path();
    std::fs::File::options().write(true).open(own.join("1.kv")).unwrap().set_len(0).unwrap();
    let mut hit = 0;
    for seed in 0..100 {
        let (payloads, _) = gate.fetch(session, &format!("r{seed}"), chain(&layout, seed, 1)).await;
        assert!(payloads.iter().all(|bytes| *bytes == payload(seed, 0)), "{seed}");
        hit += payloads.len() as u64;
    }
    gate.quiesce().await;
    let status = gate.status().await;
    assert_eq!(status.drives[1].state(), proto::DriveState::Out);
    assert_eq!(status.drives[0].state(), proto::DriveState::Ok);
    assert!(
        hit >= before.drives[0].writes && hit < 100,
        "{hit} of 100, {} on the drive that is left",
        before.drives[0].writes
    );
    let samples = parse(&ask(daemon.metrics().unwrap(), "GET", "/metrics").await.2);
    assert_eq!(samples["kvtier_drive_out{drive=\"1\"}"], 1.0);
    assert_eq!(samples["kvtier_drive_out{drive=\"0\"}"], 0.0);
    assert!(samples["kvtier_nvme_read_errors_total{drive=\"1\"}"] >= 16.0);
    let again = gate.put(session, chain(&layout, 200, 1), |block| payload(200, block)).await;
    assert_eq!(again.stored_through, 1, "puts go on");
    drop((stream, gate));
    daemon.stop().await;
}
