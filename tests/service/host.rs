//! A cache without a gate, on two drives in memory of which one fails when told to.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvtier::cache::load::FetchRequest;
use kvtier::cache::lookup::LookupOptions;
use kvtier::cache::put::Piece;
use kvtier::cache::{Cache, Chain, Keys, Namespace, Parts};
use kvtier::media::{Faults, FaultyDevice, MemDevice};
use kvtier::plan::{AdmissionKind, PolicyKind};
use kvtier::tiers::{Catalog, Device, NvmeShelf, RamShelf};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{
    BlockKey, ByteCount, Clock, InstanceId, NamespaceName, NamespaceSpec, Owner, RequestId, SystemClock, TenantName,
    TierShape,
};

use crate::support::payload;

const MIB: u64 = 1 << 20;
/// Room for 16 blocks, so that most are on a drive only.
pub(crate) const RAM: u64 = 64 << 10;

/// A cache on two drives in memory, the second of which fails when told to.
pub(crate) struct Host {
    pub(crate) cache: Arc<Cache>,
    namespace: Arc<Namespace>,
    pub(crate) second: Arc<FaultyDevice>,
    shape: TierShape,
    planner: JoinHandle<()>,
    catalog: Weak<Catalog>,
    _folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::at(Arc::new(SystemClock))
    }

    pub(crate) fn at(clock: Arc<dyn Clock>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Arc::new(Catalog::open(&folder.path().join("catalog")).unwrap().catalog);
        let held = Arc::downgrade(&catalog);
        let (extent, stride) = TierShape::plan(&[MIB; 2]);
        let shape = TierShape::striped(&[MIB; 2], extent, stride);
        let drive = || Arc::new(MemDevice::threaded(MIB).unwrap());
        let second = Arc::new(FaultyDevice::new(drive(), Faults::default(), 1));
        let devices: Vec<Option<Arc<dyn Device>>> = vec![Some(drive()), Some(Arc::<FaultyDevice>::clone(&second))];
        let parts = Parts {
            ram: RamShelf::new(TierShape::carve(ByteCount(RAM))).unwrap(),
            nvme: Some(Arc::new(NvmeShelf::striped(devices, catalog, shape))),
            places: Vec::new(),
            ledger: None,
            policy: PolicyKind::Lru,
            admission: AdmissionKind::Always,
            wear_bytes_per_day: None,
            recorder: None,
            clock,
        };
        let (cache, planner) = Cache::start(parts).unwrap();
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
        Self { cache, namespace, second, shape, planner, catalog: held, _folder: folder }
    }

    /// Closes it. A process that ends while a thread still has the database open may abort.
    pub(crate) fn stop(self) {
        let Self { cache, planner, catalog, second, .. } = self;
        drop((cache, second));
        planner.join().unwrap();
        let started = Instant::now();
        while catalog.strong_count() > 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "somebody keeps the catalog open");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A prompt of one block.
    pub(crate) fn prompt(&self, seed: u8) -> Chain {
        let owner = Owner { namespace: self.namespace.id, ..Owner::default() };
        let tenant = TenantName::parse("acme").unwrap();
        Chain::of(Arc::clone(&self.namespace), tenant, owner, Keys::Known([key(seed)].into()))
    }

    pub(crate) async fn put(&self, seeds: std::ops::Range<u8>) {
        for seed in seeds {
            let (mut walk, _) = self.cache.put(&self.prompt(seed)).await.unwrap();
            let data = payload(seed.into(), 0);
            walk.piece(Piece { block: 0, offset: 0, length: 4096, data: &data }).await.unwrap();
            assert_eq!(walk.finish().await.unwrap().stored_through, 1, "{seed}");
            // One at a time: RAM is small, and holds what is being written.
            assert!(self.cache.quiesce(Duration::from_secs(10)).await.unwrap());
        }
    }

    /// A session, and what it asks: that block.
    pub(crate) fn request(&self, seed: u8, promote: bool) -> FetchRequest {
        let session = self.cache.open_session(InstanceId::parse("engine").unwrap(), "test").unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let request = RequestId::parse(&seed.to_string()).unwrap();
        FetchRequest { session, request, chain: self.prompt(seed), lease: None, deadline, promote }
    }

    /// Whether the block came, with the right bytes.
    pub(crate) async fn fetch(&self, seed: u8) -> bool {
        let request = self.request(seed, true);
        let id = request.session.id;
        let (out, mut blocks) = tokio::sync::mpsc::channel(1);
        let fetched = tokio::spawn(Arc::clone(&self.cache).fetch(request, out));
        let block = blocks.recv().await;
        fetched.await.unwrap();
        self.cache.close_session(id);
        block.map(|block| assert_eq!(block.bytes, payload(seed.into(), 0), "{seed}")).is_some()
    }

    /// On which drive the block is.
    pub(crate) async fn drive(&self, seed: u8) -> Option<u16> {
        let known = self.cache.inspect(key(seed)).await.unwrap()?;
        known.nvme_slot.map(|slot| self.shape.drive_of(slot.extent))
    }

    pub(crate) async fn found(&self, seed: u8) -> bool {
        let found = self.cache.lookup(&self.prompt(seed), &LookupOptions::default(), None).await.unwrap();
        found.counts.hit() == 1
    }
}

/// The key of a prompt's block.
pub(crate) fn key(seed: u8) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&[seed]).as_bytes())
}
