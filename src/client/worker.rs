//! One process of an engine at its daemon: it takes the best path by itself, and where the daemon is slow or gone it answers
//! "no hit" in time, so that inference goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::breaker::{Takes, Waiting};
use super::link::{Link, Up, WorkerCounts, is_silence, within};
use super::turns::Turns;
use super::unsettled::Resender;
use super::{
    BreakerState, Chain, ClientError, Credentials, FetchOptions, LeaseOptions, LookupOptions, Place, PutResult,
    ServerAddress, Settle, Settling, SpanMut, Unsettled,
};
use crate::vocab::limits::{LEASE_TTL_DEFAULT, SETTLE_PATIENCE, WORKER_LOAD_DEADLINE, WORKER_LOOKUP_DEADLINE};
use crate::vocab::{BlockKey, InstanceId, LeaseId, NamespaceName, NamespaceSpec, RequestId};

/// Who the worker is, and how long it may wait.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// Where the daemon listens.
    pub address: ServerAddress,
    /// What it is shown.
    pub credentials: Credentials,
    /// The same from all processes of an engine, and another from every other engine.
    pub instance: InstanceId,
    /// What this process is, for people.
    pub process: String,
    /// What people call the layout.
    pub namespace: NamespaceName,
    /// The layout.
    pub spec: NamespaceSpec,
    /// A lookup that takes longer is no hit.
    pub lookup_deadline: Duration,
    /// A load that takes longer ends with what has come.
    pub load_deadline: Duration,
    /// Staging memory to store through, where the daemon shares memory; 0 for none.
    pub staging_bytes: u64,
}

impl WorkerOptions {
    /// With the usual deadlines, and 64 MiB of staging memory.
    #[must_use]
    pub fn new(address: ServerAddress, instance: InstanceId, namespace: NamespaceName, spec: NamespaceSpec) -> Self {
        Self {
            address,
            credentials: Credentials::default(),
            instance,
            process: "worker".into(),
            namespace,
            spec,
            lookup_deadline: WORKER_LOOKUP_DEADLINE,
            load_deadline: WORKER_LOAD_DEADLINE,
            staging_bytes: 64 << 20,
        }
    }
}

/// What can be skipped of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Tokens.
    pub tokens: u64,
    /// Blocks, from the first.
    pub blocks: u32,
    /// What protects them.
    pub lease: Option<LeaseId>,
}

/// How bytes came, or went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// The daemon is not there.
    #[default]
    None,
    /// Memory shared with it.
    Shared,
    /// gRPC.
    Grpc,
}

/// What a load has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Blocks that are whole and right, from the first.
    pub blocks: u32,
    /// Bytes of each.
    pub lengths: Vec<u32>,
    /// For [`Worker::settle`], should the daemon restart before.
    pub receipt: Bytes,
    /// How they came.
    pub path: Path,
}

/// One process of an engine. Its calls never fail because of the daemon: what it can't do is a miss.
#[derive(Debug)]
pub struct Worker {
    link: Arc<Link>,
    resender: Resender,
    options: WorkerOptions,
}

impl Worker {
    /// Begins to look for the daemon and answers at once; until it is found there are no hits. Needs a runtime.
    #[must_use]
    pub fn start(options: WorkerOptions) -> Self {
        let link = Arc::new(Link::start(options.clone()));
        Self { resender: Resender::start(Arc::clone(&link)), link, options }
    }

    /// Waits until the daemon is there and its memory is mapped; false where that took longer. For tests and warm-up.
    pub async fn ready(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let Ok(Some(_)) = tokio::time::timeout_at(until, self.link.wait()).await else { return false };
        while Instant::now() < until {
            if self.path() == Path::Shared && self.breaker() == BreakerState::Closed {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.path() != Path::None
    }

    /// How bytes would come now.
    #[must_use]
    pub fn path(&self) -> Path {
        match self.link.up() {
            None => Path::None,
            Some(up) if up.arena.get().is_some() => Path::Shared,
            Some(_) => Path::Grpc,
        }
    }

    /// Whether its calls are sent. While the daemon answers none of them they are not: then each says "no hit" at once, and the
    /// session, its leases and the mapped memory stay. Calls go out again with the daemon's first word.
    #[must_use]
    pub fn breaker(&self) -> BreakerState {
        self.link.breaker()
    }

    /// What happened since it was started, for metrics.
    #[must_use]
    pub fn counts(&self) -> WorkerCounts {
        self.link.counts()
    }

    /// Why the daemon was not there, or did not answer, last, for logs.
    #[must_use]
    pub fn trouble(&self) -> String {
        self.link.trouble()
    }

    /// How much of a prompt can be skipped, leased under the request; nothing where the daemon does not say so in time. A
    /// request that was looked up is to be [finished](Self::finish), whether something was hit or not: an answer that came too
    /// late may have left a lease.
    pub async fn lookup(&self, request: &RequestId, chain: &Chain, prompt_tokens: Option<u64>) -> Hit {
        let Some(up) = self.link.answering() else { return Hit::default() };
        let Some(call) = up.call(Takes::Moments) else { return Hit::default() };
        let asking = self.link.kept().asking(request);
        let lease = LeaseOptions { session: &up.session, request_id: request, ttl: LEASE_TTL_DEFAULT };
        let options = LookupOptions { prompt_tokens, lease: Some(lease), ..LookupOptions::default() };
        let answer = within("Lookup", self.options.lookup_deadline, up.client.lookup(chain, &options)).await;
        call.end(&answer);
        if !answer.as_ref().is_err_and(is_silence) {
            asking.answered();
        }
        let Ok(found) = answer else { return Hit::default() };
        // A hit without a lease was gone when it was to be leased.
        let lease = found.lease.map(|lease| lease.id);
        match lease {
            Some(_) => Hit { tokens: found.hit_tokens, blocks: found.counts.hit(), lease },
            None => Hit::default(),
        }
    }

    /// Brings the blocks of a hit: block `i` to `to[i * stride..]`, each checked against its checksum. Ends with the first that
    /// is not there, is wrong, or is late.
    pub async fn load(&self, request: &RequestId, chain: &Chain, hit: &Hit, to: &mut [u8], stride: usize) -> Loaded {
        let blocks = (hit.blocks as usize).min(to.len() / stride.max(1));
        if blocks == 0 {
            return Loaded::default();
        }
        let Some(up) = self.link.answering() else { return Loaded::default() };
        let chain = chain.head(blocks.saturating_mul(self.named_a_block(chain)));
        let keys = chain.keys_in_turns(&self.options.spec).await;
        let Some(call) = up.call(Takes::Long) else { return Loaded::default() };
        let mut loaded = Loaded { path: Path::Grpc, ..Loaded::default() };
        let job = Job { request, chain: &chain, keys: &keys, lease: hit.lease, stride, call: &call };
        // The calls have this deadline too; theirs is the daemon's to keep.
        let most = self.options.load_deadline.saturating_add(self.options.lookup_deadline);
        let answer = match up.arena.get() {
            Some(_) => {
                loaded.path = Path::Shared;
                within("Load", most, self.copy(&up, &job, to, &mut loaded)).await
            }
            None => within("Fetch", most, self.fetch(&up, &job, to, &mut loaded)).await,
        };
        call.end(&answer);
        loaded
    }

    /// Stores a prompt's blocks: `fill` writes the payload of each that is wanted and says how long it is. Not repeated when it
    /// fails: what was not stored is missed later.
    pub async fn put(
        &self,
        request: &RequestId,
        chain: &Chain,
        mut fill: impl FnMut(u32, &mut SpanMut<'_>) -> u32,
    ) -> PutResult {
        let Some(up) = self.link.answering() else { return PutResult::default() };
        let Some(call) = up.call(Takes::Long) else { return PutResult::default() };
        let payload = self.options.spec.max_payload_bytes;
        let answer = match up.staging.get() {
            Some(staging) => up.client.put_staged(staging, request, chain, payload, fill).await,
            None => {
                let source = |block: usize| {
                    let mut bytes = BytesMut::zeroed(payload as usize);
                    let length = fill(u32::try_from(block).unwrap_or(u32::MAX), &mut SpanMut::of(&mut bytes));
                    bytes.truncate(length as usize);
                    bytes.freeze()
                };
                up.client.put(&up.session, request, chain, source).await
            }
        };
        call.end(&answer);
        answer.unwrap_or_default()
    }

    /// The request is over: its leases end. Where the daemon does not say so within a lookup's deadline, or a lookup of it had no
    /// answer, this returns and the daemon is told later, once it answers; after a minute the leases have ended by themselves.
    pub async fn finish(&self, request: &RequestId, completed: bool) {
        let Some(telling) = self.link.kept().over(request, completed) else { return };
        let Some(up) = self.link.answering() else { return };
        let Some(call) = up.call(Takes::Moments) else { return };
        let over = up.client.finish_request(&up.session, request, completed);
        let answer = within("FinishRequest", self.options.lookup_deadline, over).await;
        call.end(&answer);
        if !answer.as_ref().is_err_and(is_silence) {
            telling.told();
        }
    }

    /// Settles a request. Without an answer within two seconds (the daemon is gone, is slow, or its ledger can't be written) it
    /// is kept and sent again in the background for an hour: the same settle twice is one record. Also where the caller goes
    /// away meanwhile. What is kept is lost with the worker; see [`Worker::settle_kept`].
    pub async fn settle(&self, settle: &Settle) -> Settling {
        let sent = match self.resender.begin(settle) {
            Ok(sent) => sent,
            Err(kept) => return kept,
        };
        let answer = within("Settle", SETTLE_PATIENCE, async {
            let gone = || ClientError::TimedOut { call: "Settle", after: SETTLE_PATIENCE };
            let up = self.link.wait().await.ok_or_else(gone)?;
            let answer = up.client.settle(settle).await;
            self.link.judge(&up, &answer);
            answer
        });
        self.resender.first(sent, answer.await)
    }

    /// What became of settles that had no answer at once: how many wait, and what was given up and why.
    #[must_use]
    pub fn unsettled(&self) -> Unsettled {
        self.resender.told()
    }

    /// Waits until no settle is kept any more, before the process ends; false where that took longer.
    pub async fn settle_kept(&self, patience: Duration) -> bool {
        self.resender.until_empty(patience).await
    }

    /// Tokens or keys that name one block of a chain.
    fn named_a_block(&self, chain: &Chain) -> usize {
        let spec = &self.options.spec;
        chain.named_a_block(spec.block_tokens as usize, spec.stride.max(1) as usize)
    }

    async fn copy(&self, up: &Up, job: &Job<'_>, to: &mut [u8], loaded: &mut Loaded) -> Result<(), ClientError> {
        let Some(arena) = up.arena.get() else { return Ok(()) };
        let deadline = Some(self.options.load_deadline);
        let mut load = up.client.load(&up.session, job.request, job.chain, job.lease, deadline).await?;
        let (until, mut turns) = (Instant::now() + self.options.load_deadline, Turns::default());
        'load: loop {
            let places = load.next_places().await?;
            job.call.heard();
            if places.is_empty() {
                break;
            }
            for place in places {
                let Place { index, length, .. } = place;
                let (at, key) = (index as usize, job.keys.get(index as usize));
                let room =
                    to.get_mut(at * job.stride..(at + 1) * job.stride).and_then(|room| room.get_mut(..length as usize));
                let (Some(room), Some(key)) = (room, key) else { break 'load };
                if !arena.copy_in_turns(&place, key, room, until, &mut turns).await {
                    break 'load;
                }
                loaded.lengths.push(length);
                loaded.blocks += 1;
            }
        }
        loaded.receipt = load.end().await?.receipt;
        Ok(())
    }

    async fn fetch(&self, up: &Up, job: &Job<'_>, to: &mut [u8], loaded: &mut Loaded) -> Result<(), ClientError> {
        let options = FetchOptions {
            lease: job.lease,
            deadline: Some(self.options.load_deadline),
            verify_with: Some(Arc::from(job.keys)),
            ..FetchOptions::default()
        };
        let mut fetch = up.client.fetch(&up.session, job.request, job.chain, options).await?;
        for room in to.chunks_exact_mut(job.stride.max(1)).take(job.keys.len()) {
            let Some(copied) = fetch.next_block_into(room).await? else { break };
            job.call.heard();
            loaded.lengths.push(copied.length);
            loaded.blocks += 1;
        }
        loaded.receipt = fetch.end().await?.receipt;
        Ok(())
    }
}

/// What is to be loaded.
struct Job<'a> {
    request: &'a RequestId,
    chain: &'a Chain,
    keys: &'a [BlockKey],
    lease: Option<LeaseId>,
    stride: usize,
    call: &'a Waiting<'a>,
}
