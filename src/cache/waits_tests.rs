//! Claims about waiting: no walk waits longer than its caller said, and none keeps others waiting for what it computes.

mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout};

    use crate::cache::load::{FetchOutcome, FetchRequest};
    use crate::cache::put::Piece;
    use crate::cache::ticket::PrefetchRequest;
    use crate::cache::{Cache, Chain, Error, Keys, Namespace, Parts};
    use crate::media::{Faults, FaultyDevice, MemDevice};
    use crate::plan::{AdmissionKind, Event, PolicyKind};
    use crate::session::{Region, Session};
    use crate::tiers::{Catalog, NvmeShelf, RamShelf};
    use crate::vocab::key::EngineKeys;
    use crate::vocab::limits::{KEYS_AT_ONCE, REQUEST_BLOCKS_MAX};
    use crate::vocab::namespace::{HashScheme, Weights};
    use crate::vocab::{
        BlockKey, ByteCount, ChainRoot, GroupId, InstanceId, LeaseId, NamespaceName, NamespaceSpec, Owner, RequestId,
        Scope, ScopePath, SystemClock, TenantName, TierShape,
    };

    const PAYLOAD: u32 = 4_096;
    /// Long enough for any host, and shorter than for ever.
    const HANGS: Duration = Duration::from_secs(60);
    /// A caller's patience, where nothing happens by then.
    const SOON: Duration = Duration::from_millis(20);
    /// And where a block is to be copied by then, on whatever host.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// A cache of 16 blocks of RAM over a drive in memory that fails when told to.
    struct Host {
        cache: Arc<Cache>,
        namespace: Arc<Namespace>,
        drive: Arc<FaultyDevice>,
        planner: JoinHandle<()>,
        _folder: tempfile::TempDir,
    }

    fn key(chain: u8, block: u8) -> BlockKey {
        BlockKey::from_bytes(*blake3::hash(&[chain, block]).as_bytes())
    }

    fn payload(chain: u8, block: u8) -> Vec<u8> {
        (0..PAYLOAD).map(|at| (at as u8).wrapping_mul(31) ^ chain ^ block.rotate_left(4)).collect()
    }

    impl Host {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let catalog = Arc::new(Catalog::open(&folder.path().join("catalog")).unwrap().catalog);
            let drive =
                Arc::new(FaultyDevice::new(Arc::new(MemDevice::threaded(1 << 20).unwrap()), Faults::default(), 1));
            let shape = TierShape::carve(ByteCount(1 << 20));
            let parts = Parts {
                ram: RamShelf::new(TierShape::carve(ByteCount(16 * u64::from(PAYLOAD)))).unwrap(),
                nvme: Some(Arc::new(NvmeShelf::new(Arc::<FaultyDevice>::clone(&drive), catalog, shape))),
                places: Vec::new(),
                ledger: None,
                policy: PolicyKind::Lru,
                admission: AdmissionKind::Always,
                wear_bytes_per_day: None,
                recorder: None,
                clock: Arc::new(SystemClock),
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
                max_payload_bytes: PAYLOAD,
                prefill_tokens_per_second: 0,
            };
            let (namespace, _) = cache.register(None, NamespaceName::parse("test").unwrap(), spec).unwrap();
            Self { cache, namespace, drive, planner, _folder: folder }
        }

        fn stop(self) {
            let Self { cache, planner, drive, .. } = self;
            drop((cache, drive));
            planner.join().unwrap();
        }

        fn of(&self, keys: Keys) -> Chain {
            let owner = Owner { namespace: self.namespace.id, ..Owner::default() };
            Chain::of(Arc::clone(&self.namespace), TenantName::parse("acme").unwrap(), owner, keys)
        }

        fn chain(&self, chain: u8, blocks: u8) -> Chain {
            self.of(Keys::Known((0..blocks).map(|block| key(chain, block)).collect()))
        }

        /// An engine's own keys, as many as a request may have: none of them is known.
        fn long_chain(&self) -> Chain {
            let tenant = TenantName::parse("acme").unwrap();
            let root = ChainRoot::new(&self.namespace.fingerprint, &[], GroupId(0));
            let roots = EngineKeys::new(root, &ScopePath::all(Scope::Tenant(tenant)));
            let packed: Vec<u8> = (0..REQUEST_BLOCKS_MAX as u64).flat_map(u64::to_le_bytes).collect();
            self.of(Keys::Engine { roots, packed: Bytes::from(packed), key_len: 8, stride: 1, first: 0 })
        }

        async fn put(&self, chain: u8, blocks: u8) {
            let (mut walk, _) = self.cache.put(&self.chain(chain, blocks)).await.unwrap();
            for block in walk.wanted().collect::<Vec<_>>() {
                let data = payload(chain, block as u8);
                let piece = Piece { block: block as u32, offset: 0, length: PAYLOAD, data: &data };
                walk.piece(piece).await.unwrap();
            }
            walk.finish().await.unwrap();
            assert!(self.cache.quiesce(HANGS).await.unwrap());
        }

        /// Stores chain 0 of three blocks, of which only the first is in RAM any more.
        async fn put_half_in_ram(&self) {
            self.put(0, 3).await;
            let in_ram = |block| self.cache.residency.get(&key(0, block)).unwrap().ram.is_some();
            for other in 1..200 {
                if in_ram(0) && !in_ram(1) {
                    return;
                }
                self.put(other, 1).await;
            }
            panic!("chains go from their tails");
        }

        /// Keeps the planner busy until what it gives is dropped; where `full`, its inbox takes nothing more.
        fn stick(&self, full: bool) -> std::sync::mpsc::SyncSender<()> {
            let (go_on, wait) = std::sync::mpsc::sync_channel(1);
            let (begin, begun) = std::sync::mpsc::sync_channel(1);
            let cache = Arc::clone(&self.cache);
            tokio::spawn(async move {
                let look = cache.driver.look(move |_| {
                    begin.send(()).unwrap();
                    wait.recv().ok();
                });
                look.await.ok();
            });
            tokio::task::block_in_place(|| begun.recv().unwrap());
            while full && self.cache.driver.try_tell(Event::Tick) {}
            go_on
        }

        fn session(&self) -> Session {
            self.cache.open_session(InstanceId::parse("engine").unwrap(), "test").unwrap()
        }

        fn request(&self, session: &Session, chain: Chain, patience: Duration) -> FetchRequest {
            let (session, request) = (session.clone(), RequestId::parse("r").unwrap());
            FetchRequest { session, request, chain, lease: None, deadline: Instant::now() + patience, promote: true }
        }
    }

    /// A wait that ends, or the test does.
    async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
        match timeout(HANGS, wait).await {
            Ok(result) => result,
            Err(_) => panic!("{what} waits for the planner past its deadline"),
        }
    }

    async fn loads_end(host: &Host, session: &Session, full: bool) {
        let request = |blocks, patience| host.request(session, host.chain(0, blocks), patience);

        let (out, mut came) = mpsc::channel(8);
        let fetched = in_time("a fetch", Arc::clone(&host.cache).fetch(request(3, SOON), out)).await;
        assert_eq!((fetched.outcome, fetched.blocks_ram), (FetchOutcome::Deadline, 1), "{full}");
        assert_eq!(came.recv().await.unwrap().bytes, payload(0, 0));

        let (out, mut came) = mpsc::channel(8);
        let located = in_time("a load", Arc::clone(&host.cache).locate(request(3, SOON), out)).await;
        assert_eq!((located.outcome, located.blocks_ram), (FetchOutcome::Deadline, 1), "{full}");
        assert_eq!(came.recv().await.unwrap().places.len(), 1);
        assert!(host.cache.locate_at_once(&request(1, SOON)).is_some(), "what is in RAM asks nobody");

        let region = Region::make(3 * u64::from(PAYLOAD)).unwrap();
        let load = host.cache.load_into(request(3, PATIENCE), &region, &[0, 4_096, 8_192]).unwrap();
        let (out, _progress) = mpsc::channel(8);
        let loaded = in_time("a load into memory", Arc::clone(&host.cache).fill(load, out)).await;
        assert_eq!((loaded.outcome, loaded.blocks_ram), (FetchOutcome::Deadline, 1), "{full}");
        assert_eq!(region.claim(0, PAYLOAD as usize).unwrap().span().to_vec(), payload(0, 0));
    }

    async fn asks_end(host: &Host, session: &Session, full: bool) {
        let FetchRequest { session, chain, deadline, .. } = host.request(session, host.chain(0, 3), SOON);
        let request = RequestId::parse(&format!("ticket-{full}")).unwrap();
        let lease = Some(LeaseId(1));
        in_time("a lease's check", host.cache.check_lease(&session, lease, deadline)).await.unwrap();
        let prefetch = PrefetchRequest { session, request, chain, already_computed: 1, deadline };
        let promised = in_time("a prefetch", host.cache.prefetch(prefetch)).await.unwrap();
        assert_eq!((promised.counts.hit(), promised.hit_tokens, promised.lease), (1, 16, None), "what the engine has");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whatever_asks_for_bytes_ends_at_its_deadline_with_what_is_there_while_the_planner_is_stuck() {
        for full in [false, true] {
            let host = Host::new();
            host.put_half_in_ram().await;
            let session = host.session();
            let stuck = host.stick(full);
            loads_end(&host, &session, full).await;
            asks_end(&host, &session, full).await;
            drop(stuck);
            assert!(host.cache.quiesce(HANGS).await.unwrap());
            // Nothing of it was lost.
            let (out, mut came) = mpsc::channel(8);
            let request = host.request(&session, host.chain(0, 3), HANGS);
            let fetched = tokio::spawn(Arc::clone(&host.cache).fetch(request, out));
            // What is not taken pins a slot that the next block may wait for.
            while came.recv().await.is_some() {}
            let fetched = fetched.await.unwrap();
            assert_eq!((fetched.outcome, fetched.blocks_ram + fetched.blocks_nvme), (FetchOutcome::Complete, 3));
            host.stop();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_load_into_memory_ends_before_a_block_that_is_not_what_it_was() {
        let host = Host::new();
        host.put_half_in_ram().await;
        host.drive.set_faults(Faults { bit_flip: 1.0, ..Faults::default() });
        let region = Region::make(3 * u64::from(PAYLOAD)).unwrap();
        let request = host.request(&host.session(), host.chain(0, 3), HANGS);
        let load = host.cache.load_into(request, &region, &[0, 4_096, 8_192]).unwrap();
        let (out, _progress) = mpsc::channel(8);
        let loaded = in_time("a load into memory", Arc::clone(&host.cache).fill(load, out)).await;
        assert_eq!((loaded.outcome, loaded.blocks_ram, loaded.blocks_nvme), (FetchOutcome::Miss, 1, 0));
        assert!(region.claim(0, 3 * PAYLOAD as usize).is_some(), "the memory is the engine's again");
        host.stop();
    }

    /// On one thread, a task that counts its turns while another works.
    async fn turns_beside<T>(work: impl Future<Output = T>) -> (T, usize) {
        let turns = Arc::new(AtomicUsize::new(0));
        let counter = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move {
                loop {
                    turns.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }
        });
        let result = work.await;
        counter.abort();
        (result, turns.load(Ordering::Relaxed))
    }

    async fn staged(host: &Host, instance: &str) -> Session {
        let session = host.cache.open_session(InstanceId::parse(instance).unwrap(), "test").unwrap();
        host.cache.attach(&session, 0, 1 << 20).await.unwrap();
        session
    }

    #[tokio::test]
    async fn the_keys_of_a_long_chain_are_hashed_between_other_tasks_turns() {
        let host = Host::new();
        let (session, chain) = (staged(&host, "engine").await, host.long_chain());
        let request = RequestId::parse("r").unwrap();
        let least = REQUEST_BLOCKS_MAX / KEYS_AT_ONCE - 1;
        let (reserved, turns) = turns_beside(host.cache.reserve(&session, &request, &chain, None, 4)).await;
        let reserved = reserved.unwrap();
        assert_eq!((reserved.wanted.len(), reserved.offsets.len()), (REQUEST_BLOCKS_MAX, 4));
        assert!(turns >= 2 * least, "{turns} turns: while it is hashed, and while it is looked up");
        let (_, turns) = turns_beside(chain.keys_in_turns(REQUEST_BLOCKS_MAX)).await;
        assert!(turns >= least, "{turns} turns");
        let options = crate::cache::lookup::LookupOptions { membership: true, ..Default::default() };
        let (found, turns) = turns_beside(host.cache.lookup(&chain, &options, None)).await;
        assert!(found.unwrap().counts.hit() == 0 && turns >= least, "{turns} turns");
        host.stop();
    }

    #[tokio::test]
    async fn a_session_that_reserves_keeps_no_other_waiting_and_grants_no_block_twice() {
        let host = Host::new();
        let (one, other) = (staged(&host, "one").await, staged(&host, "other").await);
        let (request, chain) = (RequestId::parse("r").unwrap(), host.long_chain());
        let reserve = |session, blocks| host.cache.reserve(session, &request, &chain, None, blocks);
        // Two at once, for one request: begun together, each takes thousands of steps.
        let (first, second) = tokio::join!(reserve(&one, 8), reserve(&one, 8));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!((first.wanted[..8].to_vec(), second.wanted[0]), ((0..8).collect::<Vec<_>>(), 8));
        // One is in the middle of it.
        let turn = host.cache.reservations.turn_of(&one);
        let its_turn = turn.lock().await;
        let waits = timeout(SOON, reserve(&one, 1)).await.is_err();
        let reserved = in_time("another session", reserve(&other, 8)).await.unwrap();
        assert_eq!((waits, reserved.wanted[0]), (true, 0), "another request of that name");
        drop(its_turn);
        assert_eq!(host.cache.reservations(), 3);
        host.cache.end_reservations(one.number, request.digest());
        assert_eq!(host.cache.reservations(), 1);
        host.cache.close_session(other.id);
        assert_eq!(host.cache.reservations(), 0);
        let gone = host.cache.reserve(&other, &request, &chain, None, 8).await.unwrap_err();
        assert!(matches!(gone, Error::Refused(_)), "{gone}");
        host.stop();
    }
}
