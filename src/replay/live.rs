//! A replay of a trace against a running daemon: real gRPC, real bytes, each of them compared.
//!
//! Every request is what a worker would do: look up with a lease, fetch what is hit, put what is missed, release. It is
//! the order in which [`simulate`](super::simulate::simulate) tells the planner, so that both count the same hits when
//! requests go one at a time and the daemon comes to rest between them.

mod cost;
mod figures;
mod latency;
mod pace;
mod run;
mod timeline;
mod walk;

use std::time::Duration;

use tokio::task::JoinError;

pub use self::pace::Pace;
use self::run::Running;
use super::{ReplayReport, Tally, Trace};
use crate::client::{Client, ClientError, Credentials, ServerAddress, Session};
use crate::vocab::key::EngineKeys;
use crate::vocab::limits::FETCH_DEADLINE_DEFAULT;
use crate::vocab::namespace::{HashScheme, SpecError, Weights};
use crate::vocab::{
    BillingId, ByteCount, ChainRoot, Fingerprint, GroupId, InstanceId, NamespaceName, NamespaceSpec, RequestId, Scope,
    ScopePath, TenantName, TierShape, WordError,
};

/// Connections of a replay; more requests than that share them. Two files each where the daemon is embedded.
const CONNECTIONS_MAX: usize = 64;

/// How to replay.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Payload of a block, in bytes.
    pub block_bytes: u32,
    /// Whose blocks they are.
    pub tenant: TenantName,
    /// When requests start.
    pub pace: Pace,
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
    /// Whether the daemon is of this process, whose costs are then those of both.
    pub embedded: bool,
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
            pace: Pace::Closed { workers: 1 },
            quiesce_between: false,
            settle: false,
            billing_prefix: String::new(),
            seed: 0,
            deadline: FETCH_DEADLINE_DEFAULT,
            max_requests: None,
            embedded: false,
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

/// Replays a trace against the daemon at `address`. `progress` is called after each request, and now and then where requests
/// wait for their time, with how many are done.
///
/// # Errors
/// Names the request that could not be replayed. What the cache forgets or drops is no error but a figure.
pub async fn replay(
    address: &ServerAddress,
    trace: &Trace,
    options: &LiveOptions,
    progress: impl FnMut(u64, &Tally),
) -> Result<ReplayReport, LiveError> {
    let client = Client::connect_as(address, &options.credentials).await?;
    let run = Run::start(&client, options, trace.block_tokens()).await?;
    let most = options.pace.in_flight_max();
    let mut connections = vec![client.clone()];
    // One alone is served by one task, on one core.
    while connections.len() < most.min(CONNECTIONS_MAX) {
        connections.push(Client::connect_as(address, &options.credentials).await?);
    }
    let idle = connections.iter().cycle().take(most).cloned().collect();
    // Not everybody may ask: then there are no figures of the server.
    let before = client.status().await.ok();
    let done = Running::new(run, trace, client.clone())?.run(idle, progress).await?;
    let mut report = done.tally.report("server", 0);
    let after = client.status().await.ok();
    if let Some(after) = &after {
        let blocks = |tier: Option<&crate::client::TierStatus>| {
            blocks_of(tier.map_or(0, |tier| tier.capacity_bytes), options.block_bytes)
        };
        let (ram, nvme) = (blocks(after.ram.as_ref()), blocks(after.nvme.as_ref()));
        report.capacity_blocks = if nvme > 0 { nvme } else { ram };
        (report.ram_blocks, report.nvme_blocks) = (Some(ram), Some(nvme));
        if !after.policy.is_empty() {
            report.policy.clone_from(&after.policy);
        }
    }
    let mut live = done.figures;
    if let (Some(before), Some(after)) = (before, after) {
        live.server = Some(cost::between(&before, &after, done.resident_bytes_max, options.embedded));
        (live.details.server_version, live.details.admission) = (after.version, after.admission);
    }
    report.live = Some(live);
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
