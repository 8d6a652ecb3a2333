//! A cache on a data folder, without a gate: the real planner, tiers, index and recovery.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use kvtier::cache::load::{FetchOutcome, FetchRequest, FetchedBlock};
use kvtier::cache::put::{Piece, PutResult};
use kvtier::cache::{Cache, Chain, Keys, Namespace, Parts};
use kvtier::plan::{AdmissionKind, PolicyKind};
use kvtier::session::Session;
use kvtier::tiers::{Catalog, Device, DriveSpec, Folder, IoOptions, NvmeShelf, RamShelf};
use kvtier::vocab::{
    BlockKey, ByteCount, InstanceId, NamespaceName, Owner, RequestId, SystemClock, TenantName, TierShape,
};

use crate::prompts::{PAYLOAD_MAX, Prompt, payload_of, spec};

/// Sixteen extents of one slot each.
pub(crate) const NVME: ByteCount = ByteCount(16 * PAYLOAD_MAX as u64);
/// Less than the drive, so that blocks come back from it; as much as the longest prompt, so that none is refused.
const RAM: ByteCount = ByteCount(10 * PAYLOAD_MAX as u64);

pub(crate) struct Rig {
    pub(crate) cache: Arc<Cache>,
    nvme: Arc<NvmeShelf>,
    planner: JoinHandle<()>,
    namespace: Arc<Namespace>,
    session: Session,
    requests: u64,
    /// Held for its lock.
    _folder: Folder,
}

impl Rig {
    /// Opens the folder as a daemon does, on `drive` or on the folder's own.
    pub(crate) fn open(dir: &Path, drive: Option<Arc<dyn Device>>) -> Self {
        let mut folder = Folder::open(dir, &[DriveSpec::here(NVME)], &SystemClock).unwrap();
        let drive =
            drive.unwrap_or_else(|| folder.open_devices(IoOptions::default(), None).unwrap().remove(0).unwrap());
        let opened = Catalog::open(&folder.catalog()).unwrap();
        assert!(!opened.rebuilt, "a cut log is no damage");
        let nvme = Arc::new(NvmeShelf::new(drive, Arc::new(opened.catalog), folder.shape()));
        let parts = Parts {
            ram: RamShelf::new(TierShape::with_extent(RAM.0, u64::from(PAYLOAD_MAX))).unwrap(),
            nvme: Some(Arc::clone(&nvme)),
            places: Vec::new(),
            ledger: None,
            policy: PolicyKind::Lru,
            admission: AdmissionKind::Always,
            wear_bytes_per_day: None,
            recorder: None,
            clock: Arc::new(SystemClock),
        };
        let (cache, planner) = Cache::start(parts).unwrap();
        let (namespace, _) = cache.register(None, NamespaceName::parse("script").unwrap(), spec()).unwrap();
        let session = cache.open_session(InstanceId::parse("engine").unwrap(), "test").unwrap();
        Self { cache, nvme, planner, namespace, session, requests: 0, _folder: folder }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        self.nvme.catalog()
    }

    /// Ends as a daemon does that is told to stop.
    pub(crate) fn close(self) {
        drop(self.cache);
        self.planner.join().unwrap();
        self.nvme.stop();
    }

    pub(crate) async fn quiesce(&self) {
        assert!(self.cache.quiesce(Duration::from_secs(20)).await.unwrap(), "background work ends");
    }

    fn chain(&self, prompt: &Prompt) -> Chain {
        let owner = Owner { namespace: self.namespace.id, ..Owner::default() };
        let tenant = TenantName::parse("acme").unwrap();
        Chain::of(Arc::clone(&self.namespace), tenant, owner, Keys::Known(prompt.keys()))
    }

    pub(crate) async fn put(&self, prompt: &Prompt) -> PutResult {
        let keys = prompt.keys();
        let (mut walk, _) = self.cache.put(&self.chain(prompt)).await.unwrap();
        for at in walk.wanted().collect::<Vec<_>>() {
            let payload = payload_of(&keys[at]);
            let (block, length) = (at as u32, payload.len() as u32);
            walk.piece(Piece { block, offset: 0, length, data: &payload }).await.unwrap();
        }
        walk.finish().await.unwrap()
    }

    /// Fetches a prompt: how many of its blocks came. Every byte of them is right.
    pub(crate) async fn fetch(&mut self, prompt: &Prompt, promote: bool) -> (u32, FetchOutcome) {
        self.requests += 1;
        let request = FetchRequest {
            session: self.session.clone(),
            request: RequestId::parse(&format!("r{}", self.requests)).unwrap(),
            chain: self.chain(prompt),
            lease: None,
            deadline: tokio::time::Instant::now() + Duration::from_secs(20),
            promote,
        };
        let (sender, mut blocks) = tokio::sync::mpsc::channel(64);
        let fetched = Arc::clone(&self.cache).fetch(request, sender).await;
        let (keys, mut came) = (prompt.keys(), 0);
        while let Some(FetchedBlock { at, bytes, .. }) = blocks.recv().await {
            assert_eq!(at, came, "in order");
            assert!(bytes == payload_of(&keys[at]), "wrong bytes of block {at} of {}", prompt.name);
            came += 1;
        }
        assert_eq!(fetched.blocks_ram + fetched.blocks_nvme, came as u32);
        (came as u32, fetched.outcome)
    }

    /// Where each block of a prompt is, and what was counted: for who has to find out why one is nowhere.
    pub(crate) async fn places(&self, prompt: &Prompt) -> String {
        let mut places = String::new();
        for key in prompt.keys().iter() {
            let block = self.cache.inspect(*key).await.unwrap();
            let (ram, nvme) = block.map_or((None, None), |block| (block.ram_slot, block.nvme_slot));
            places += &format!("{}{} ", if ram.is_some() { "r" } else { "-" }, if nvme.is_some() { "n" } else { "-" });
        }
        let counters = self.cache.status().await.unwrap().counters;
        let moved = counters.iter().filter(|(_, count)| **count > 0);
        places + &format!("{:?}", moved.collect::<Vec<_>>())
    }

    pub(crate) async fn is_on_drive(&self, key: BlockKey) -> bool {
        self.cache.inspect(key).await.unwrap().is_some_and(|block| block.nvme_slot.is_some())
    }
}
