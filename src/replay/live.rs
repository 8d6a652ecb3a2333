//! A replay of a trace against a running daemon: real gRPC, real bytes, each of them compared.
//!
//! Every request is what a worker would do: look up with a lease, fetch what is hit, put what is missed, release. It is
//! the order in which [`simulate`](super::simulate::simulate) tells the planner, so that both count the same hits when
//! requests go one at a time and the daemon comes to rest between them.

mod figures;
mod walk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet};

use self::figures::Figures;
use self::walk::{Visit, Worker};
use super::{ReplayReport, Tally, Trace};
use crate::client::{Client, ClientError, Credentials, ServerAddress, Session};
use crate::vocab::key::EngineKeys;
use crate::vocab::limits::FETCH_DEADLINE_DEFAULT;
use crate::vocab::namespace::{HashScheme, SpecError, Weights};
use crate::vocab::{
    BillingId, ByteCount, ChainRoot, Fingerprint, GroupId, InstanceId, NamespaceName, NamespaceSpec, RequestId, Scope,
    ScopePath, TenantName, TierShape, WordError,
};

/// How to replay.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Payload of a block, in bytes.
    pub block_bytes: u32,
    /// Whose blocks they are.
    pub tenant: TenantName,
    /// Requests under way at a time; each worker starts the next one when it is done with its own.
    pub workers: usize,
    /// Wait after each request until the daemon's background work is done.
    pub quiesce_between: bool,
    /// Settle each request.
    pub settle: bool,
    /// Comes before a request's number in its billing id. A ledger that has seen a replay wants another word for the
    /// next one, whose figures differ.
    pub billing_prefix: String,
    /// Names other blocks when it is another, so that a replay can start cold on a warm daemon.
    pub seed: u64,
    /// Deadline of a fetch.
    pub deadline: Duration,
    /// Stop after this many requests.
    pub max_requests: Option<u64>,
    /// What the report calls the daemon's policy.
    pub policy: String,
    /// What the daemon is shown.
    pub credentials: Credentials,
}

impl LiveOptions {
    /// One request at a time, with 64 KiB blocks, unsettled.
    #[must_use]
    pub fn new(tenant: TenantName) -> Self {
        Self {
            block_bytes: 64 << 10,
            tenant,
            workers: 1,
            quiesce_between: false,
            settle: false,
            billing_prefix: String::new(),
            seed: 0,
            deadline: FETCH_DEADLINE_DEFAULT,
            max_requests: None,
            policy: "server".to_owned(),
            credentials: Credentials::default(),
        }
    }
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// It could not begin.
    #[error("{0}")]
    Start(#[from] ClientError),
    /// The trace or an option does not make a namespace.
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// An option does not make a word.
    #[error("{0}")]
    Word(#[from] WordError),
    /// A request's call has no answer. Requests are counted from 0, in the trace's order.
    #[error("request {number}: {call}: {source}")]
    Request {
        /// Which request.
        number: u64,
        /// Which of its calls.
        call: &'static str,
        /// Why.
        source: ClientError,
    },
    /// The daemon did not come to rest.
    #[error("request {number}: the daemon's background work went on for more than {}", format_args!("{after:?}"))]
    Restless {
        /// After which request.
        number: u64,
        /// How long it was waited for.
        after: Duration,
    },
    /// The daemon derives another key from the same engine key, so no byte could be compared.
    #[error(
        "request {number}: the daemon's key of the last block is not the one computed here: two versions don't fit"
    )]
    Keys {
        /// Which request.
        number: u64,
    },
    /// A task of this program failed.
    #[error("a worker failed: {0}")]
    Worker(#[from] JoinError),
    /// No latencies can be recorded.
    #[error("latencies: {0}")]
    Latency(#[from] hdrhistogram::CreationError),
}

/// The layout that a replay declares. Its weights' digest is made up, so that blocks are written to drives as real ones.
///
/// # Errors
/// When the trace's `block_tokens` or `block_bytes` is out of bounds.
pub fn namespace_spec(block_tokens: u32, block_bytes: u32) -> Result<NamespaceSpec, SpecError> {
    let weights = Weights::Digest(Box::new(*blake3::hash(b"kvtier replay").as_bytes()));
    NamespaceSpec {
        weights,
        dtype: "u8".into(),
        layout: "replay".into(),
        block_tokens,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Engine("kvtier-replay:v1".into()),
        max_payload_bytes: block_bytes,
        prefill_tokens_per_second: 0,
    }
    .checked()
}

/// What all workers of a replay share.
#[derive(Debug)]
struct Run {
    options: LiveOptions,
    session: Session,
    fingerprint: Fingerprint,
    block_tokens: u32,
    keys: EngineKeys,
}

impl Run {
    async fn start(client: &Client, options: &LiveOptions, block_tokens: u32) -> Result<Self, LiveError> {
        let spec = namespace_spec(block_tokens, options.block_bytes)?;
        let instance = InstanceId::parse(&format!("replay-{:032x}", rand::random::<u128>()))?;
        let session = client.open_session(&instance, "replay").await?;
        let name = NamespaceName::parse("replay")?;
        let (fingerprint, _) =
            client.register_namespace(Some(&session), &name, &spec, Some(spec.fingerprint())).await?;
        // What a chain without scopes means: the tenant, from its first block on.
        let scopes = ScopePath::all(Scope::Tenant(options.tenant.clone()));
        let keys = EngineKeys::new(ChainRoot::new(&fingerprint, b"", GroupId(0)), &scopes);
        Ok(Self { options: options.clone(), session, fingerprint, block_tokens, keys })
    }

    fn request_id(number: u64) -> Result<RequestId, WordError> {
        RequestId::parse(&number.to_string())
    }

    fn billing_id(&self, number: u64) -> Result<BillingId, WordError> {
        BillingId::parse(&format!("{}{number}", self.options.billing_prefix))
    }
}

/// Replays a trace against the daemon at `address`. `progress` is called after each request with how many are done.
///
/// # Errors
/// Names the request that could not be replayed. What the cache forgets or drops is no error but a figure.
pub async fn replay(
    address: &ServerAddress,
    trace: &Trace,
    options: &LiveOptions,
    mut progress: impl FnMut(u64, &Tally),
) -> Result<ReplayReport, LiveError> {
    let client = Client::connect_as(address, &options.credentials).await?;
    let run = Arc::new(Run::start(&client, options, trace.block_tokens()).await?);
    let (mut tally, mut figures) = (Tally::default(), Figures::new()?);
    // A connection each: one alone is served by one task, on one core.
    let mut idle = vec![client.clone()];
    while idle.len() < options.workers {
        idle.push(Client::connect_as(address, &options.credentials).await?);
    }
    let most = options.max_requests.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let mut requests = (0..).zip(trace.requests().take(most));
    let mut visits: JoinSet<Result<Visit, LiveError>> = JoinSet::new();
    let started = Instant::now();
    let mut done = 0;
    loop {
        while let Some(client) = idle.pop() {
            let Some((number, request)) = requests.next() else { break };
            let worker = Worker { run: Arc::clone(&run), client };
            visits.spawn(worker.visit(number, request.to_owned()));
        }
        // Dropped on an error, the set ends the other workers.
        let Some(visit) = visits.join_next().await else { break };
        let visit = visit??;
        tally.add(&visit.request.view(), visit.counts, trace.block_tokens());
        figures.add(&visit);
        idle.push(visit.client);
        done += 1;
        progress(done, &tally);
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut report = tally.report(&options.policy, 0);
    report.live = Some(figures.report(done, seconds));
    let status = client.status().await?;
    let blocks = |tier: Option<crate::client::TierStatus>| {
        blocks_of(tier.map_or(0, |tier| tier.capacity_bytes), options.block_bytes)
    };
    let (ram, nvme) = (blocks(status.ram), blocks(status.nvme));
    report.capacity_blocks = if nvme > 0 { nvme } else { ram };
    (report.ram_blocks, report.nvme_blocks) = (Some(ram), Some(nvme));
    Ok(report)
}

/// Blocks of one size that a tier of so many bytes holds.
fn blocks_of(capacity_bytes: u64, block_bytes: u32) -> u64 {
    let shape = TierShape::carve(ByteCount(capacity_bytes));
    let class = shape.class_for(block_bytes);
    let extents = (0..=u16::MAX).take(usize::try_from(shape.extents()).unwrap_or(usize::MAX));
    extents.map(|extent| u64::from(shape.slots(extent, class))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mooncake_trace_makes_a_namespace_whose_blocks_are_written_to_drives() {
        let spec = namespace_spec(512, 1 << 20).unwrap();
        assert!(spec.persistent());
        assert_eq!(namespace_spec(513, 1).unwrap_err().field, "block_tokens");
        assert_eq!(namespace_spec(512, 0).unwrap_err().field, "max_payload_bytes");
    }

    #[test]
    fn the_report_counts_the_blocks_that_fit_a_tier() {
        assert_eq!(blocks_of(1 << 30, 64 << 10), 16_384);
        assert_eq!(blocks_of(0, 64 << 10), 0);
    }
}
