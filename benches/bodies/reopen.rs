//! What `benches/reopen.rs` measures: a data folder's catalog of many blocks, made up, and a cache that starts from it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvtier::cache::{Cache, Parts};
use kvtier::media::MemDevice;
use kvtier::plan::{AdmissionKind, PolicyKind};
use kvtier::tiers::{CODEC_RAW, Catalog, NamespaceRow, NvmeShelf, RamShelf, Row, ShardRow};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{
    AccountId, BlockKey, ByteCount, NamespaceId, NamespaceName, NamespaceSpec, Owner, SlotClass, SlotId, SystemClock,
    TierShape,
};

/// Blocks of a chain; as many prompts of 4,096 tokens in 64-token blocks have.
const CHAIN: u32 = 64;
/// Blocks that chains of a group have in common.
const HEAD: u32 = 16;
/// Chains that have a head in common.
const CHAINS: u32 = 16;
/// Blocks of a group: one head, and what each chain has after it.
pub(crate) const GROUP: u32 = HEAD + CHAINS * (CHAIN - HEAD);
/// Rows written at a time.
const BATCH: u32 = 20_000;
/// A payload, and the slot that holds it.
const SLOT_BYTES: u32 = 1 << 20;

/// Who owns the blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owners {
    /// 64 users in turn, a group each.
    Few,
    /// A user of its own for every 16 blocks.
    Many,
}

/// A cache that was started.
pub(crate) struct Reopened {
    pub(crate) cache: Arc<Cache>,
    planner: std::thread::JoinHandle<()>,
    /// Opening the database.
    pub(crate) open: Duration,
    /// From there until every block is readable.
    pub(crate) start: Duration,
}

pub(crate) fn key(number: u32) -> BlockKey {
    BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// The block before a block, and how many come before it.
pub(crate) fn place_in_chain(number: u32) -> (Option<u32>, u32) {
    let (group, within) = (number / GROUP * GROUP, number % GROUP);
    match within.checked_sub(HEAD).map(|tail| tail % (CHAIN - HEAD)) {
        None => (within.checked_sub(1).map(|before| group + before), within),
        Some(0) => (Some(group + HEAD - 1), HEAD),
        Some(tail) => (Some(number - 1), HEAD + tail),
    }
}

fn row(number: u32, owners: Owners, class: SlotClass) -> Row {
    let (parent, depth) = place_in_chain(number);
    let user = match owners {
        Owners::Few => 1 + number / GROUP % 64,
        Owners::Many => 1 + number / 16,
    };
    let created_s = 1_700_000_000 + number / 50;
    Row {
        slot: SlotId { extent: (number >> 10) as u16, index: (number % 1_024) as u16 },
        class,
        length: SLOT_BYTES,
        codec: CODEC_RAW,
        owner: Owner { namespace: NamespaceId(0), account: AccountId(0), user, writer: 1, ..Owner::default() },
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length: SLOT_BYTES, crc: key(number).hash64() }],
        parent: parent.map(key),
        depth,
        retention: 0,
        created_s,
        last_use_s: created_s,
        expires_s: 0,
    }
}

/// Fills a catalog with `rows` rows, in the order in which a daemon would have written them.
pub(crate) fn generate(path: &Path, rows: u32, owners: Owners) {
    let catalog = Catalog::open(path).expect("a catalog").catalog;
    let spec = NamespaceSpec {
        weights: Weights::Digest(Box::new([1; 32])),
        dtype: "bf16".into(),
        layout: "bench".into(),
        block_tokens: 64,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes: SLOT_BYTES,
        prefill_tokens_per_second: 0,
    };
    let (name, fingerprint) = (NamespaceName::parse("bench").expect("a name"), spec.fingerprint());
    catalog.put_namespace(&NamespaceRow { id: NamespaceId(0), name, spec, fingerprint }).expect("a namespace");
    let class = SlotClass::of_bytes(SLOT_BYTES).expect("a slot size");
    for first in (0..rows).step_by(BATCH as usize) {
        let batch: Vec<_> =
            (first..rows.min(first + BATCH)).map(|number| (key(number), row(number, owners, class))).collect();
        catalog.put_batch(batch.iter().map(|(key, row)| (*key, row))).expect("rows");
    }
}

impl Reopened {
    /// Starts a cache from the catalog at `path`, on a drive of 1 GiB extents that has all the slots and none of the bytes.
    pub(crate) fn start(path: &Path, rows: u32) -> Self {
        let bytes = u64::from(rows.div_ceil(1_024)) << 30;
        let shape = TierShape::with_extent(bytes, 1 << 30);
        let started = Instant::now();
        let catalog = Catalog::open(path).expect("a catalog").catalog;
        let open = started.elapsed();
        let device = Arc::new(MemDevice::inline(bytes));
        let parts = Parts {
            ram: RamShelf::new(TierShape::carve(ByteCount(16 << 20))).expect("RAM"),
            nvme: Some(Arc::new(NvmeShelf::new(device, Arc::new(catalog), shape))),
            places: Vec::new(),
            ledger: None,
            policy: PolicyKind::default(),
            admission: AdmissionKind::default(),
            wear_bytes_per_day: None,
            recorder: None,
            clock: Arc::new(SystemClock),
        };
        let (cache, planner) = Cache::start(parts).expect("a cache");
        Self { cache, planner, open, start: started.elapsed() - open }
    }

    /// Ends it, and waits until its files are closed.
    pub(crate) fn stop(self) {
        drop(self.cache);
        self.planner.join().expect("the planner ends");
    }
}
