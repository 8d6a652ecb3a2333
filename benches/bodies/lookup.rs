//! What `benches/lookup.rs` measures: lookups among many resident blocks, lookups while blocks come and go, and how long the
//! planner is busy with each event.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use kvtier::cache::lookup::{LeaseRequest, LookupOptions};
use kvtier::cache::put::Piece;
use kvtier::cache::residency::Residency;
use kvtier::cache::{Cache, Chain, Keys, Namespace, Parts};
use kvtier::plan::{
    AdmissionKind, Answer, Command, Event, InstanceNo, Offer, Options, Planner, PolicyKind, PutId, Recovered, Recovery,
    Transfer,
};
use kvtier::replay::{GenerateOptions, Generator};
use kvtier::session::Session;
use kvtier::tiers::RamShelf;
use kvtier::vocab::key::TokenChain;
use kvtier::vocab::limits::{LEASE_TTL_MAX, TOUCHED_AT_ONCE};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{
    BlockKey, ByteCount, ChainRoot, Fingerprint, GroupId, Hints, InstanceId, NamespaceName, NamespaceSpec, Owner,
    OwnerPath, RequestId, Retention, Scope, ScopePath, SlotClass, SlotId, SystemClock, TenantName, TierCounts,
    TierShape, Timestamp,
};

/// Blocks of a long prompt.
pub(crate) const BLOCKS: u32 = 4_096;
/// Tokens of a block.
const BLOCK_TOKENS: u32 = 16;
/// A slot, and what is put into it: enough to be a payload, and too little to measure memory.
const SLOT_BYTES: u32 = 4_096;
const PAYLOAD: [u8; 64] = [7; 64];

/// How long things took, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<u32>);

impl Times {
    fn add(&mut self, since: Instant) {
        self.0.push(u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that this share of all took at most; 1 for the worst.
    pub(crate) fn at(&self, share: f64) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        Duration::from_nanos(times.get((last as f64 * share) as usize).copied().unwrap_or(0).into())
    }

    /// Of two runs of the same things the better time of each.
    fn better(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(time, other)| *time = (*time).min(*other));
    }
}

/// Tokens of a prompt that has no block in common with any other.
fn tokens(prompt: u32) -> Vec<u32> {
    (0..BLOCKS * BLOCK_TOKENS).map(|at| prompt.wrapping_mul(0x9e37_79b9) ^ at.wrapping_mul(2_654_435_761)).collect()
}

fn keys_of(tokens: &[u32]) -> Vec<BlockKey> {
    let scopes = ScopePath::all(Scope::Public);
    let mut chain = TokenChain::new(ChainRoot::new(&Fingerprint([7; 32]), b"", GroupId(0)), &scopes);
    tokens.chunks_exact(BLOCK_TOKENS as usize).map(|tokens| chain.push(tokens, b"")).collect()
}

/// Blocks on NVMe that lookups find, without their bytes.
pub(crate) struct Resident {
    residency: Residency,
    prompts: u32,
    /// It has the keys.
    _planner: Planner,
}

impl Resident {
    /// So many prompts of 4,096 blocks.
    pub(crate) fn new(prompts: u32) -> Self {
        let blocks = prompts * BLOCKS;
        let nvme = TierShape::with_extent(u64::from(blocks.div_ceil(1_024)) << 22, 1 << 22);
        let mut recovery = Recovery::new(Planner::new(Options::new(ram(1 << 12), nvme)), blocks.into());
        let Some(class) = SlotClass::of_bytes(SLOT_BYTES) else { unreachable!("a slot's size") };
        for prompt in 0..prompts {
            let keys = keys_of(&tokens(prompt));
            let row = |(depth, key): (u32, &BlockKey)| {
                let number = prompt * BLOCKS + depth;
                Recovered {
                    key: *key,
                    slot: SlotId { extent: (number >> 10) as u16, index: (number % 1_024) as u16 },
                    class,
                    length: SLOT_BYTES,
                    crc: 0,
                    owner: Owner::default(),
                    payload_max: SLOT_BYTES,
                    parent: depth.checked_sub(1).map(|before| keys[before as usize]),
                    depth,
                    created_s: number,
                    last_use_s: number,
                    expires_s: 0,
                }
            };
            let rows: Vec<Recovered> = (0..).zip(&keys).map(row).collect();
            recovery.rows(&rows, |key| panic!("{key} is stale"));
        }
        let planner = recovery.finish();
        let residency = Residency::new(planner.keys());
        residency.fill(&planner, 1);
        Self { residency, prompts, _planner: planner }
    }

    /// Looks up so many prompts, in an order that no cache can guess: how long the search takes with the prompt's keys at
    /// hand, as a request's are when they were hashed, and how long it takes with the tokens to hash.
    pub(crate) fn lookups(&self, count: u32) -> [Times; 2] {
        let (mut search, mut whole) = (Times::default(), Times::default());
        for at in 0..count {
            let prompt = (at.wrapping_mul(0x9e37_79b9) >> 7) % self.prompts;
            let tokens = tokens(prompt);
            let began = Instant::now();
            let keys = keys_of(&tokens);
            let hashed = Instant::now();
            let found = self.residency.prefix(keys.len(), |at| keys[at]);
            search.add(hashed);
            whole.add(began);
            assert_eq!(found, TierCounts { nvme: BLOCKS, ..TierCounts::default() }, "all of prompt {prompt}");
        }
        [search, whole]
    }
}

fn ram(blocks: u64) -> TierShape {
    TierShape::carve(ByteCount(blocks * u64::from(SLOT_BYTES)))
}

/// A cache in RAM in which some prompts are leased, and others come and go.
pub(crate) struct Churn {
    cache: Arc<Cache>,
    planner: std::thread::JoinHandle<()>,
    namespace: Arc<Namespace>,
    session: Session,
    prompts: u32,
    put: AtomicU64,
}

impl Churn {
    /// Blocks of a prompt that comes and goes.
    pub(crate) const PUT: u32 = 64;

    /// With so many leased prompts of 4,096 blocks, and as much room beside them, which is full.
    pub(crate) fn start(prompts: u32) -> Self {
        let parts = Parts {
            ram: RamShelf::new(ram(u64::from(2 * prompts * BLOCKS))).expect("RAM"),
            nvme: None,
            places: Vec::new(),
            ledger: None,
            policy: PolicyKind::default(),
            admission: AdmissionKind::default(),
            wear_bytes_per_day: None,
            recorder: None,
            clock: Arc::new(SystemClock),
        };
        let (cache, planner) = Cache::start(parts).expect("a cache");
        let spec = NamespaceSpec {
            weights: Weights::Digest(Box::new([1; 32])),
            dtype: "u8".into(),
            layout: "bench".into(),
            block_tokens: BLOCK_TOKENS,
            stride: 1,
            shards: 1,
            groups: 1,
            hash_scheme: HashScheme::Tokens,
            max_payload_bytes: SLOT_BYTES,
            prefill_tokens_per_second: 0,
        };
        let name = NamespaceName::parse("bench").expect("a name");
        let (namespace, _) = cache.register(None, name, spec).expect("a namespace");
        let session = cache.open_session(InstanceId::parse("bench").expect("a name"), "bench").expect("a session");
        let churn = Self { cache, planner, namespace, session, prompts, put: AtomicU64::new(0) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            for prompt in 0..prompts {
                let chain = churn.chain(u64::from(prompt), BLOCKS);
                assert_eq!(churn.store(&chain).await, BLOCKS);
                let request = RequestId::parse(&format!("r{prompt}")).expect("a name");
                let lease = LeaseRequest { session: churn.session.clone(), request, ttl: LEASE_TTL_MAX };
                churn.cache.lookup(&chain, &LookupOptions::default(), Some(lease)).await.expect("a lease");
            }
            for _ in 0..prompts * BLOCKS / Self::PUT {
                churn.put_one().await;
            }
        });
        churn
    }

    fn chain(&self, seed: u64, blocks: u32) -> Chain {
        let key = |block: u32| {
            let name = [seed, u64::from(block)].map(u64::to_le_bytes).concat();
            BlockKey::from_bytes(*blake3::hash(&name).as_bytes())
        };
        let keys = Keys::Known((0..blocks).map(key).collect());
        let tenant = TenantName::parse("bench").expect("a name");
        let owner = Owner { namespace: self.namespace.id, ..Owner::default() };
        Chain::of(Arc::clone(&self.namespace), tenant, owner, keys)
    }

    async fn store(&self, chain: &Chain) -> u32 {
        let (mut walk, _) = self.cache.put(chain).await.expect("a put");
        let wanted: Vec<usize> = walk.wanted().collect();
        for block in wanted {
            let piece = Piece { block: block as u32, offset: 0, length: PAYLOAD.len() as u32, data: &PAYLOAD };
            walk.piece(piece).await.expect("a piece");
        }
        walk.finish().await.expect("the end of a put").accepted
    }

    /// Stores a prompt that nobody has seen, for which another must go; how many of its blocks were taken. A put that meets
    /// thousands of leased blocks in a row is refused.
    async fn put_one(&self) -> u64 {
        let seed = self.put.fetch_add(1, Ordering::Relaxed);
        self.store(&self.chain(1_000_000 + seed, Self::PUT)).await.into()
    }

    /// Stores so many blocks a second until it is told to stop; how many it stored.
    pub(crate) fn put_until(&self, a_second: f64, stop: &AtomicBool) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let began = Instant::now();
        let mut stored = 0;
        runtime.block_on(async {
            while !stop.load(Ordering::Relaxed) {
                stored += self.put_one().await;
                let due = Duration::from_secs_f64(stored as f64 / a_second);
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
        });
        stored
    }

    /// Looks the leased prompts up for so long, and beside each one that has just come or is about to go.
    pub(crate) fn lookups(&self, time: Duration) -> [Times; 2] {
        let leased: Vec<Chain> = (0..self.prompts).map(|prompt| self.chain(prompt.into(), BLOCKS)).collect();
        let (mut kept, mut passing) = (Times::default(), Times::default());
        let began = Instant::now();
        let mut round = 0_u64;
        while began.elapsed() < time {
            let chain = &leased[(round % u64::from(self.prompts)) as usize];
            assert_eq!(self.look(chain, &mut kept), BLOCKS, "leased blocks stay");
            let newest = self.put.load(Ordering::Relaxed);
            let back = round.wrapping_mul(0x9e37_79b9) % u64::from(2 * self.prompts * BLOCKS / Self::PUT);
            self.look(&self.chain(1_000_000 + newest.saturating_sub(back), Self::PUT), &mut passing);
            round += 1;
        }
        [kept, passing]
    }

    fn look(&self, chain: &Chain, times: &mut Times) -> u32 {
        let options = LookupOptions::default();
        let began = Instant::now();
        let mut lookup = std::pin::pin!(self.cache.lookup(chain, &options, None));
        let Poll::Ready(found) = lookup.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("a lookup waits for nobody")
        };
        times.add(began);
        found.expect("an answer").counts.hit()
    }

    pub(crate) fn stop(self) {
        drop(self.cache);
        self.planner.join().expect("the planner ends");
    }
}

/// How long a planner was busy with each event, by kind; the numbers are those of the events in the trace.
pub(crate) type Busy = BTreeMap<&'static str, Times>;

/// Conversations through a planner whose commands are done at once; its events timed one by one. The same trace is taken
/// several times and each event has the best of its times: whoever was pre-empted in one run was not in another.
pub(crate) fn busy(requests: u64, runs: Range<u32>) -> (Busy, Busy) {
    let options = GenerateOptions { requests, block_tokens: 64, ..GenerateOptions::default() };
    let Ok(generator) = Generator::new(options) else { unreachable!("the default options are good") };
    let key = |id: &u64| BlockKey::from_bytes(*blake3::hash(&id.to_le_bytes()).as_bytes());
    let mut distinct = 0;
    let trace: Vec<(Timestamp, Arc<[BlockKey]>)> = generator
        .map(|request| {
            distinct = distinct.max(request.hash_ids.iter().max().map_or(0, |id| id + 1));
            (Timestamp(request.timestamp_ms), request.hash_ids.iter().map(key).collect())
        })
        .collect();
    let shape = |blocks| TierShape::with_extent(blocks * u64::from(SLOT_BYTES), 1 << 22);
    let run = || {
        let mut world = Timed::new(Planner::new(Options {
            write_queue_bytes: u64::MAX,
            ..Options::new(shape(distinct / 32), shape(distinct / 2))
        }));
        trace.iter().zip(1..).for_each(|((now, keys), number)| world.visit(*now, number, keys));
        world.busy
    };
    let first = run();
    let mut best = first.clone();
    for _ in runs.skip(1) {
        for (kind, times) in run() {
            best.entry(kind).or_default().better(&times);
        }
    }
    (first, best)
}

struct Timed {
    planner: Planner,
    commands: Vec<Command>,
    busy: Busy,
}

impl Timed {
    fn new(planner: Planner) -> Self {
        Self { planner, commands: Vec::new(), busy: Busy::new() }
    }

    fn visit(&mut self, now: Timestamp, number: u64, keys: &Arc<[BlockKey]>) {
        let counts = self.planner.prefix(keys);
        let (instance, ttl, put) = (InstanceNo(0), Duration::from_secs(60), PutId(number));
        self.on(now, Event::Lease { instance, request: number.into(), keys: Arc::clone(keys), ttl });
        for key in &keys[counts.ram as usize..counts.hit() as usize] {
            self.on(now, Event::Want { key: *key });
        }
        if let Some(deepest) = keys[..counts.hit() as usize].last() {
            self.on(now, Event::Used { deepest: *deepest, leased: true });
        }
        let (owner, keys, payload_max) = (Owner::default(), Arc::clone(keys), SLOT_BYTES);
        let mut all_wanted = Vec::new();
        let (owners, retention) = (OwnerPath::all(owner), Retention::default());
        let offer =
            Offer { put, parent: None, depth: 0, keys, payload_max, owners, retention, hints: Hints::default() };
        let mut answer = self.on(now, Event::Offer(offer));
        while let Answer::Offered { wanted, more, .. } = answer {
            all_wanted.extend(wanted.into_iter().flatten());
            if !more {
                break;
            }
            answer = self.on(now, Event::OfferMore { put });
        }
        for block in all_wanted {
            self.on(now, Event::Need { block });
        }
        self.on(now, Event::PutEnded { put });
        self.on(now, Event::RequestOver { instance, request: number.into() });
    }

    fn on(&mut self, now: Timestamp, event: Event) -> Answer {
        let answer = self.timed(now, event);
        while !self.commands.is_empty() {
            let ends: Vec<Event> = self.commands.drain(..).filter_map(end).collect();
            for event in ends {
                self.timed(now, event);
            }
        }
        answer
    }

    fn timed(&mut self, now: Timestamp, event: Event) -> Answer {
        // As the daemon's thread does, which looks at its inbox in between.
        loop {
            let began = Instant::now();
            let goes_on = self.planner.catch_up(TOUCHED_AT_ONCE);
            self.busy.entry("touching used chains").or_default().add(began);
            if !goes_on {
                break;
            }
        }
        let times = self.busy.entry(kind(&event)).or_default();
        let began = Instant::now();
        let answer = self.planner.on(now, event, &mut self.commands);
        times.add(began);
        answer
    }
}

/// The kind of an event; those that go through a chain, by its length.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Offer(offer) if offer.keys.len() <= 128 => "Offer of up to 128 blocks",
        Event::Offer(_) => "Offer of more, first part",
        Event::OfferMore { .. } => "a next part",
        Event::Lease { keys, .. } if keys.len() <= 512 => "Lease of up to 512 blocks",
        Event::Lease { .. } => "Lease of up to 2,000 blocks",
        Event::Need { .. } => "Need",
        Event::Filled { .. } => "Filled",
        Event::PutEnded { .. } => "PutEnded",
        Event::Wrote { .. } => "Wrote",
        Event::Erased { .. } => "Erased",
        Event::RamFreed { .. } => "RamFreed",
        Event::Want { .. } => "Want",
        Event::Loaded { .. } => "Loaded",
        Event::Used { .. } => "Used",
        Event::RequestOver { .. } => "RequestOver",
        _ => "other",
    }
}

/// The event with which a command ends, in a world where everything succeeds at once.
fn end(command: Command) -> Option<Event> {
    match command {
        Command::Fill { block, .. } => Some(Event::Filled { block, generation: 1, length: SLOT_BYTES, crc: 0 }),
        Command::Write(write) => Some(Event::Wrote { block: write.block, outcome: Transfer::Done(0) }),
        Command::Load(load) => Some(Event::Loaded { block: load.block, outcome: Transfer::Done(1) }),
        Command::Erase { slot, .. } => Some(Event::Erased { slot }),
        Command::Retire { slot, .. } => Some(Event::RamFreed { slot }),
        Command::Publish { .. }
        | Command::Unpublish { .. }
        | Command::Unloadable { .. }
        | Command::Refuse { .. }
        | Command::Promise { .. }
        | Command::Unpromise { .. } => None,
    }
}
