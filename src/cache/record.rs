//! What a recording hears of requests: their lookups, without tokens, and what became known of them later. A lookup never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use super::chain::{Chain, Keys};
use super::lookup::{Found, LeaseRequest};
use crate::session::Session;
use crate::vocab::limits::{RECORD_QUEUE_BLOCKS, RECORD_QUEUE_REQUESTS};
use crate::vocab::{InstanceId, RequestId, TierCounts, Timestamp};

/// Which request, of all engines: the digests of its engine's name and of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    instance: u128,
    request: u128,
}

impl Asker {
    /// The digest of its engine's name.
    #[must_use]
    pub fn instance(&self) -> u128 {
        self.instance
    }

    /// Of an engine's instance, and a request as it names it.
    #[must_use]
    pub fn new(instance: &InstanceId, request: &RequestId) -> Self {
        Self { instance: instance.digest(), request: request.digest() }
    }
}

/// The first lookup of a request.
#[derive(Debug)]
pub struct LookedUp {
    /// Which request.
    pub asker: Asker,
    /// When.
    pub at: Timestamp,
    /// The number of its namespace.
    pub namespace: u16,
    /// The digest of its tenant's name.
    pub tenant: u128,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Its blocks.
    pub keys: Keys,
    /// What was found.
    pub counts: TierCounts,
}

/// What a recording hears.
#[derive(Debug)]
pub enum Heard {
    /// A lookup that takes a lease: it stands for a request.
    LookedUp(Box<LookedUp>),
    /// A request is over: the next lookup of its name is another request.
    Over(Asker),
    /// How many tokens a request's output had.
    Output(Asker, u64),
    /// An engine is gone, and all its requests are over: the digest of its name.
    Gone(u128),
}

/// What waits to be recorded, and what came of the rest.
#[derive(Debug, Default)]
struct Shared {
    waiting_blocks: AtomicUsize,
    recorded: AtomicU64,
    dropped: AtomicU64,
}

/// Tells a recording. What it has no room for is dropped and counted.
#[derive(Clone, Debug)]
pub struct Recorder {
    to: SyncSender<Heard>,
    shared: Arc<Shared>,
}

/// Hears what a [`Recorder`] tells, until the cache is gone.
#[derive(Debug)]
pub struct Recorded {
    from: Receiver<Heard>,
    shared: Arc<Shared>,
}

/// A recorder, and who hears it.
#[must_use]
pub fn recording() -> (Recorder, Recorded) {
    let (to, from) = sync_channel(RECORD_QUEUE_REQUESTS);
    let shared = Arc::<Shared>::default();
    (Recorder { to, shared: Arc::clone(&shared) }, Recorded { from, shared })
}

impl Recorder {
    /// Who asks, if this lookup stands for a request: of its whole chain, with a lease.
    pub(super) fn asker(chain: &Chain, lease: Option<&LeaseRequest>) -> Option<Asker> {
        let lease = lease.filter(|_| chain.depth == 0)?;
        Some(Asker::new(&lease.session.instance, &lease.request))
    }

    pub(super) fn looked_up(&self, asker: Asker, at: Timestamp, chain: &Chain, prompt_tokens: u64, found: &Found) {
        let blocks = chain.len();
        let waiting = self.shared.waiting_blocks.fetch_add(blocks, Ordering::Relaxed);
        let heard = || LookedUp {
            asker,
            at,
            namespace: chain.namespace.id.0,
            tenant: chain.tenant.digest(),
            block_tokens: chain.namespace.spec.block_tokens,
            prompt_tokens,
            keys: chain.keys.clone(),
            counts: found.counts,
        };
        let has_room = waiting + blocks <= RECORD_QUEUE_BLOCKS;
        if !has_room || self.tell(Heard::LookedUp(Box::new(heard()))).is_err() {
            self.shared.waiting_blocks.fetch_sub(blocks, Ordering::Relaxed);
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn over(&self, session: &Session, request: &RequestId) {
        self.tell(Heard::Over(Asker::new(&session.instance, request))).ok();
    }

    pub(super) fn gone(&self, instance: &InstanceId) {
        self.tell(Heard::Gone(instance.digest())).ok();
    }

    pub(super) fn output(&self, instance: &InstanceId, request: &RequestId, tokens: u64) {
        if tokens > 0 {
            self.tell(Heard::Output(Asker::new(instance, request), tokens)).ok();
        }
    }

    fn tell(&self, heard: Heard) -> Result<(), TrySendError<Heard>> {
        self.to.try_send(heard)
    }

    /// Counters for the status, by name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 2] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("recorded_requests", get(&self.shared.recorded)), ("recording_dropped", get(&self.shared.dropped))]
    }
}

impl Recorded {
    /// What is told, one after the other.
    #[must_use]
    pub fn from(&self) -> &Receiver<Heard> {
        &self.from
    }

    /// A lookup is dealt with: whether its line was written, or it is none, or nothing is written any more.
    pub fn done(&self, lookup: &LookedUp, outcome: Outcome) {
        self.shared.waiting_blocks.fetch_sub(lookup.keys.len(), Ordering::Relaxed);
        let counter = match outcome {
            Outcome::Written => &self.shared.recorded,
            Outcome::Known => return,
            Outcome::Dropped => &self.shared.dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were not recorded so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

/// What came of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has a line.
    Written,
    /// Its request had one before.
    Known,
    /// Nothing is written any more.
    Dropped,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Namespace;
    use crate::vocab::namespace::{HashScheme, Weights};
    use crate::vocab::{BlockKey, Fingerprint, NamespaceId, NamespaceName, NamespaceSpec, Owner, TenantName};

    fn chain(blocks: usize) -> Chain {
        let spec = NamespaceSpec {
            weights: Weights::Digest(Box::new([1; 32])),
            dtype: "u8".into(),
            layout: "test".into(),
            block_tokens: 16,
            stride: 1,
            shards: 1,
            groups: 1,
            hash_scheme: HashScheme::Tokens,
            max_payload_bytes: 1,
            prefill_tokens_per_second: 0,
        };
        let (name, fingerprint) = (NamespaceName::parse("n").unwrap(), Fingerprint([0; 32]));
        let namespace = Arc::new(Namespace { id: NamespaceId(0), name, fingerprint, spec });
        let keys = Keys::Known(vec![BlockKey::from_bytes([0; 32]); blocks].into());
        Chain::of(namespace, TenantName::parse("t").unwrap(), Owner::default(), keys)
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let (recorder, recorded) = recording();
        let asker = Asker { instance: 1, request: 2 };
        let tell = |blocks| recorder.looked_up(asker, Timestamp(0), &chain(blocks), 0, &Found::default());
        tell(RECORD_QUEUE_BLOCKS);
        tell(1);
        assert_eq!(recorder.named(), [("recorded_requests", 0), ("recording_dropped", 1)]);
        let Ok(Heard::LookedUp(lookup)) = recorded.from().try_recv() else { panic!("the first one is there") };
        recorded.done(&lookup, Outcome::Written);
        (0..RECORD_QUEUE_REQUESTS + 3).for_each(|_| tell(1));
        assert_eq!(recorder.named(), [("recorded_requests", 1), ("recording_dropped", 4)]);
        drop(recorded);
        tell(1);
        assert_eq!(recorder.named()[1].1, 5);
    }
}
