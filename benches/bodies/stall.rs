//! What `benches/stall.rs` measures: how long the planner's turns and leased lookups take in a cache of many blocks, while others
//! store blocks for which others go, inspect and purge, on a catalog whose device is slow.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvtier::cache::lookup::{LeaseRequest, LookupOptions};
use kvtier::cache::put::Piece;
use kvtier::cache::{Cache, Chain, Filter, Keys, Namespace, Parts, TurnTimes};
use kvtier::media::{Device, Io};
use kvtier::plan::{AdmissionKind, PolicyKind};
use kvtier::session::Session;
use kvtier::tiers::{CODEC_RAW, Catalog, NamespaceRow, NvmeShelf, RamShelf, Row, ShardRow};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{
    AccountId, BlockKey, ByteCount, InstanceId, NamespaceId, NamespaceName, NamespaceSpec, Owner, RequestId, SlotClass,
    SlotId, SystemClock, TenantName, TierShape,
};

/// Blocks of a chain, those of the looked-up one included.
pub(crate) const CHAIN: u32 = 64;
const SLOT_BYTES: u32 = 4_096;
const EXTENT_SLOTS: u32 = 16_384;
/// Rows written at a time.
const BATCH: u32 = 20_000;
/// Whose blocks are purged: the first ones.
const PURGED: u32 = 9;
const PAYLOAD: [u8; 64] = [7; 64];

/// A drive that takes everything at once and keeps nothing: what is measured is never read.
struct Sink(u64);

impl Device for Sink {
    fn submit(&self, io: Io) -> Result<(), Io> {
        io.complete(Ok(()));
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "sink"
    }

    fn size(&self) -> u64 {
        self.0
    }

    fn stop(&self) {}
}

fn key(number: u32) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn spec() -> NamespaceSpec {
    NamespaceSpec {
        weights: Weights::Digest(Box::new([1; 32])),
        dtype: "u8".into(),
        layout: "bench".into(),
        block_tokens: 64,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes: SLOT_BYTES,
        prefill_tokens_per_second: 0,
    }
}

fn row(number: u32, purged: u32, class: SlotClass) -> Row {
    let depth = number % CHAIN;
    let created_s = 1_700_000_000 + number / 50;
    let user = if number < purged { PURGED } else { 1 };
    Row {
        slot: SlotId { extent: (number / EXTENT_SLOTS) as u16, index: (number % EXTENT_SLOTS) as u16 },
        class,
        length: SLOT_BYTES,
        codec: CODEC_RAW,
        owner: Owner { namespace: NamespaceId(0), account: AccountId(0), user, writer: 1, ..Owner::default() },
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length: SLOT_BYTES, crc: key(number).hash64() }],
        parent: (depth > 0).then(|| key(number - 1)),
        depth,
        retention: 0,
        created_s,
        last_use_s: created_s,
        expires_s: 0,
    }
}

/// What was seen in a while.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) turns: TurnTimes,
    /// Leased lookups of 64 blocks, in order of time.
    pub(crate) lookups: Vec<Duration>,
    pub(crate) stored: u64,
    pub(crate) evicted: u64,
    pub(crate) inspections: u64,
    /// Blocks purged, and how long that took.
    pub(crate) purged: Option<(u64, Duration)>,
}

impl Seen {
    /// What this share of the lookups took at most.
    pub(crate) fn lookup(&self, share: f64) -> Duration {
        let last = self.lookups.len().saturating_sub(1);
        self.lookups.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

/// What happens beside the lookups.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside {
    /// Others store chains of 64 blocks, for which others go.
    pub(crate) puts: bool,
    /// An admin lists all namespaces this often.
    pub(crate) inspect_every: Option<Duration>,
    /// An admin erases a user's blocks.
    pub(crate) purge: bool,
}

/// A cache whose drive is full.
pub(crate) struct Full {
    cache: Arc<Cache>,
    planner: std::thread::JoinHandle<()>,
    namespace: Arc<Namespace>,
    session: Session,
    blocks: u32,
    requests: AtomicU64,
    catalog: Arc<Catalog>,
}

impl Full {
    /// With so many blocks, a whole number of chains, of which the first `purged` are one user's; every write of the catalog takes so much longer.
    pub(crate) fn start(dir: &Path, blocks: u32, purged: u32, slow: Duration) -> Self {
        let path = dir.join("catalog");
        let class = SlotClass::of_bytes(SLOT_BYTES).expect("a slot size");
        let catalog = Catalog::open(&path).expect("a catalog").catalog;
        let (name, spec) = (NamespaceName::parse("bench").expect("a name"), spec());
        let fingerprint = spec.fingerprint();
        let known = NamespaceRow { id: NamespaceId(0), name: name.clone(), spec: spec.clone(), fingerprint };
        catalog.put_namespace(&known).expect("a namespace");
        for first in (0..blocks).step_by(BATCH as usize) {
            let numbers = first..blocks.min(first + BATCH);
            let batch: Vec<_> = numbers.map(|number| (key(number), row(number, purged, class))).collect();
            catalog.put_batch(batch.iter().map(|(key, row)| (*key, row))).expect("rows");
        }
        let slot = u64::from(SLOT_BYTES);
        let shape = TierShape::with_extent(u64::from(blocks) * slot, u64::from(EXTENT_SLOTS) * slot);
        let catalog = Arc::new(catalog);
        let device = Arc::new(Sink(u64::from(blocks) * slot));
        let parts = Parts {
            ram: RamShelf::new(TierShape::carve(ByteCount(64 << 20))).expect("RAM"),
            nvme: Some(Arc::new(NvmeShelf::new(device, Arc::clone(&catalog), shape))),
            places: Vec::new(),
            ledger: None,
            policy: PolicyKind::default(),
            admission: AdmissionKind::default(),
            wear_bytes_per_day: None,
            recorder: None,
            clock: Arc::new(SystemClock),
        };
        let (cache, planner) = Cache::start(parts).expect("a cache");
        let (namespace, _) = cache.register(None, name, spec).expect("a namespace");
        let session = cache.open_session(InstanceId::parse("bench").expect("a name"), "bench").expect("a session");
        catalog.slow_down(slow);
        Self { cache, planner, namespace, session, blocks, requests: AtomicU64::new(0), catalog }
    }

    fn chain(&self, key: impl Fn(u32) -> BlockKey) -> Chain {
        let keys = Keys::Known((0..CHAIN).map(key).collect());
        let tenant = TenantName::parse("bench").expect("a name");
        let owner = Owner { namespace: self.namespace.id, user: 1, writer: 1, ..Owner::default() };
        Chain::of(Arc::clone(&self.namespace), tenant, owner, keys)
    }

    /// Looks one prompt up under a lease for so long, with that beside it.
    pub(crate) fn look(&self, time: Duration, beside: Beside) -> Seen {
        let stop = AtomicBool::new(false);
        let before = self.status();
        let mut seen = std::thread::scope(|scope| {
            let put = scope.spawn(|| if beside.puts { self.put_until(&stop) } else { 0 });
            let inspected = scope.spawn(|| beside.inspect_every.map_or(0, |every| self.inspect_until(every, &stop)));
            let purged = scope.spawn(|| beside.purge.then(|| self.purge()));
            let mut lookups = self.lookups(time);
            let purged = purged.join().expect("an admin");
            stop.store(true, Ordering::Relaxed);
            lookups.sort_unstable();
            Seen {
                turns: TurnTimes::default(),
                lookups,
                stored: put.join().expect("a writer"),
                evicted: 0,
                inspections: inspected.join().expect("an admin"),
                purged,
            }
        });
        let after = self.status();
        (seen.turns, seen.evicted) = (after.0.since(&before.0), after.1 - before.1);
        seen
    }

    fn status(&self) -> (TurnTimes, u64) {
        let status = runtime().block_on(self.cache.status()).expect("a status");
        (status.turns, status.counters["nvme_evicted"])
    }

    /// The newest chain: the last one to go.
    fn lookups(&self, time: Duration) -> Vec<Duration> {
        let newest = self.blocks / CHAIN * CHAIN - CHAIN;
        let (chain, options) = (self.chain(|block| key(newest + block)), LookupOptions::default());
        let (began, mut times) = (Instant::now(), Vec::new());
        runtime().block_on(async {
            while began.elapsed() < time {
                let number = self.requests.fetch_add(1, Ordering::Relaxed);
                let request = RequestId::parse(&format!("r{number}")).expect("a name");
                let lease = LeaseRequest { session: self.session.clone(), request, ttl: Duration::from_secs(60) };
                let asked = Instant::now();
                let found = self.cache.lookup(&chain, &options, Some(lease)).await.expect("an answer");
                times.push(asked.elapsed());
                assert_eq!(found.counts.hit(), CHAIN, "what is used stays");
                let lease = found.lease.expect("a lease").0.lease;
                assert!(self.cache.release(&self.session, lease).await.expect("an answer"));
            }
        });
        times
    }

    /// Stores chains that nobody has seen; how many blocks.
    fn put_until(&self, stop: &AtomicBool) -> u64 {
        let mut stored = 0;
        runtime().block_on(async {
            while !stop.load(Ordering::Relaxed) {
                let number = self.requests.fetch_add(1, Ordering::Relaxed);
                let name = |block: u32| [number.to_le_bytes(), u64::from(block + 1).to_be_bytes()].concat();
                let chain = self.chain(|block| BlockKey::from_bytes(*blake3::hash(&name(block)).as_bytes()));
                let (mut walk, _) = self.cache.put(&chain).await.expect("a put");
                for block in walk.wanted().collect::<Vec<_>>() {
                    let piece = Piece { block: block as u32, offset: 0, length: PAYLOAD.len() as u32, data: &PAYLOAD };
                    walk.piece(piece).await.expect("a piece");
                }
                stored += u64::from(walk.finish().await.expect("the end of a put").accepted);
                // 6,400 blocks a second at most.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        stored
    }

    fn inspect_until(&self, every: Duration, stop: &AtomicBool) -> u64 {
        let mut inspections = 0;
        while !stop.load(Ordering::Relaxed) {
            let namespaces = runtime().block_on(self.cache.namespaces()).expect("an answer");
            assert!(namespaces[0].1 > u64::from(self.blocks) / 2, "{namespaces:?}");
            inspections += 1;
            std::thread::sleep(every);
        }
        inspections
    }

    fn purge(&self) -> (u64, Duration) {
        let began = Instant::now();
        let filter = Filter { user: Some(PURGED), ..Filter::default() };
        let (blocks, _) = runtime().block_on(self.cache.purge(filter)).expect("a purge");
        (blocks, began.elapsed())
    }

    pub(crate) fn stop(self) {
        self.catalog.slow_down(Duration::ZERO);
        drop(self.cache);
        self.planner.join().expect("the planner ends");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}
