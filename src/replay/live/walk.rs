//! One request of a live replay, as a worker makes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::super::{TraceRequest, keys, payload};
use super::{LiveError, Run};
use crate::client::{
    Chain, Client, ClientError, FetchEnd, FetchOptions, LeaseOptions, Lookup, LookupOptions, PutResult, Settle,
};
use crate::vocab::crc::payload_crc;
use crate::vocab::{BlockKey, LeaseId, RequestId, TierCounts};

/// A lease outlives the slowest fetch and put of its request.
const LEASE_TTL: Duration = Duration::from_secs(300);
/// How long the daemon may take to come to rest: a full write queue on a slow drive.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// One worker: a connection, and what it shares with the others.
pub(super) struct Worker {
    pub(super) run: Arc<Run>,
    pub(super) client: Client,
}

/// What came of a request, with the connection for the next one.
pub(super) struct Visit {
    pub(super) client: Client,
    pub(super) request: TraceRequest,
    pub(super) counts: TierCounts,
    pub(super) times: Times,
    pub(super) loaded: Loaded,
    pub(super) stored_bytes: u64,
    pub(super) dropped_blocks: u64,
}

/// How long a request and its calls took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// How long after it was due it began, where it was due at a time.
    pub(super) lag: Option<Duration>,
    pub(super) lookup: Duration,
    /// From its beginning to the lookup's answer.
    pub(super) looked_up_at: Duration,
    /// Where there was something to load.
    pub(super) load: Option<Duration>,
    /// From its beginning to the last byte.
    pub(super) loaded_at: Duration,
    pub(super) put: Duration,
    /// From its beginning to its end, without waiting for the daemon to come to rest.
    pub(super) request: Duration,
}

/// What a fetch brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    pub(super) tokens: u64,
    pub(super) mismatched_blocks: u64,
    /// Blocks of the lease that did not come.
    pub(super) missing_blocks: u64,
    receipt: Bytes,
}

/// The blocks of one request.
struct Blocks {
    id: RequestId,
    chain: Chain,
    keys: Vec<BlockKey>,
}

impl Worker {
    /// One request from its lookup to its release. `due` is when it was to start.
    pub(super) async fn visit(
        self,
        number: u64,
        request: TraceRequest,
        due: Option<Instant>,
    ) -> Result<Visit, LiveError> {
        let failed = |call| move |source| LiveError::Request { number, call, source };
        let began = Instant::now();
        let mut times = Times { lag: due.map(|due| began.saturating_duration_since(due)), ..Times::default() };
        let blocks = self.blocks(number, &request)?;
        let started = Instant::now();
        let found = self.lookup(&blocks, &request).await.map_err(failed("lookup"))?;
        (times.lookup, times.looked_up_at) = (started.elapsed(), began.elapsed());
        if found.last_key.as_ref() != blocks.keys.last() {
            return Err(LiveError::Keys { number });
        }
        let lease = found.lease.map(|lease| lease.id);
        let mut loaded = Loaded::default();
        if found.counts.hit() > 0 {
            let started = Instant::now();
            loaded = self.load(&blocks, found.counts.hit(), lease).await.map_err(failed("fetch"))?;
            (times.load, times.loaded_at) = (Some(started.elapsed()), began.elapsed());
        }
        let started = Instant::now();
        let stored = self.store(&blocks).await.map_err(failed("put"))?;
        times.put = started.elapsed();
        if let Some(lease) = lease {
            self.client.release(&self.run.session, lease).await.map_err(failed("release"))?;
        }
        times.request = began.elapsed();
        self.rest(number).await?;
        if self.run.options.settle {
            let started = Instant::now();
            let settle = self.bill(number, &request, &blocks.id, &loaded, &stored)?;
            self.client.settle(&settle).await.map_err(failed("settle"))?;
            times.request += started.elapsed();
        }
        let stored_bytes = u64::from(stored.accepted_blocks) * u64::from(self.run.options.block_bytes);
        let dropped_blocks = stored.dropped_blocks.into();
        let (client, counts) = (self.client, found.counts);
        Ok(Visit { client, request, counts, times, loaded, stored_bytes, dropped_blocks })
    }

    /// Waits until the daemon's background work is done, where that was asked for.
    async fn rest(&self, number: u64) -> Result<(), LiveError> {
        let failed = |source| LiveError::Request { number, call: "quiesce", source };
        if self.run.options.quiesce_between && !self.client.quiesce(QUIET_MAX).await.map_err(failed)? {
            return Err(LiveError::Restless { number, after: QUIET_MAX });
        }
        Ok(())
    }

    fn blocks(&self, number: u64, request: &TraceRequest) -> Result<Blocks, LiveError> {
        let Run { options, fingerprint, keys, .. } = &*self.run;
        let (key_len, packed, keys) = name_blocks(&request.hash_ids, options.seed, |at, key| keys.key(at, key));
        let chain = Chain::of_engine_keys(*fingerprint, &options.tenant, key_len, packed).hints(request.hints());
        Ok(Blocks { id: Run::request_id(number)?, chain, keys })
    }

    async fn lookup(&self, blocks: &Blocks, request: &TraceRequest) -> Result<Lookup, ClientError> {
        let lease = LeaseOptions { session: &self.run.session, request_id: &blocks.id, ttl: LEASE_TTL };
        let prompt_tokens = Some(request.input_length);
        let options = LookupOptions { prompt_tokens, lease: Some(lease), ..LookupOptions::default() };
        self.client.lookup(&blocks.chain, &options).await
    }

    /// Fetches what was hit, and compares every byte with what its key says.
    async fn load(&self, blocks: &Blocks, hit: u32, lease: Option<LeaseId>) -> Result<Loaded, ClientError> {
        // With a stride of 1, a key is a block.
        let chain = blocks.chain.head(hit as usize);
        let deadline = Some(self.run.options.deadline);
        let options = FetchOptions { lease, deadline, ..FetchOptions::default() };
        let mut fetch = self.client.fetch(&self.run.session, &blocks.id, &chain, options).await?;
        let mut loaded = Loaded::default();
        while let Some(block) = fetch.next_block().await? {
            let key = blocks.keys.get(block.index as usize);
            let expected = self.run.options.block_bytes as usize;
            loaded.mismatched_blocks += u64::from(!is_right(key, &block.bytes, block.crc, expected));
            loaded.bytes += block.bytes.len() as u64;
        }
        let FetchEnd { blocks, tokens, receipt, .. } = fetch.end().await?;
        loaded.blocks = blocks.into();
        loaded.missing_blocks = u64::from(hit.saturating_sub(blocks));
        (loaded.tokens, loaded.receipt) = (tokens, receipt);
        Ok(loaded)
    }

    async fn store(&self, blocks: &Blocks) -> Result<PutResult, ClientError> {
        let length = self.run.options.block_bytes as usize;
        let source = |block: usize| {
            let mut bytes = BytesMut::zeroed(length);
            if let Some(key) = blocks.keys.get(block) {
                payload::fill(key, &mut bytes);
            }
            bytes.freeze()
        };
        self.client.put(&self.run.session, &blocks.id, &blocks.chain, source).await
    }

    fn bill(
        &self,
        number: u64,
        request: &TraceRequest,
        id: &RequestId,
        loaded: &Loaded,
        stored: &PutResult,
    ) -> Result<Settle, LiveError> {
        let Run { options, session, fingerprint, block_tokens, .. } = &*self.run;
        let written = u64::from(stored.accepted_blocks) * u64::from(*block_tokens);
        Ok(Settle {
            tenant: options.tenant.clone(),
            billing_id: self.run.billing_id(number)?,
            attempt: 1,
            instance: session.instance().clone(),
            request_id: id.clone(),
            fingerprint: *fingerprint,
            prompt_tokens: request.input_length,
            // The last block may be partial.
            cached_tokens: loaded.tokens.min(request.input_length),
            attested_tokens: 0,
            // The last block is mostly not full.
            written_tokens: written.min(request.input_length - loaded.tokens.min(request.input_length)),
            output_tokens: request.output_length,
            receipts: Some(loaded.receipt.clone()).filter(|receipt| !receipt.is_empty()).into_iter().collect(),
            labels: std::collections::BTreeMap::new(),
            detail: crate::vocab::UsageDetail::default(),
        })
    }
}

/// The engine's keys, packed, with their length; and the cache's own.
fn name_blocks(ids: &[u64], seed: u64, key: impl Fn(u32, &[u8]) -> BlockKey) -> (u32, Bytes, Vec<BlockKey>) {
    let mut packed = BytesMut::new();
    let mut own = Vec::with_capacity(ids.len());
    let mut key_len = 0;
    for (at, id) in (0..).zip(ids) {
        let engine_key = keys::engine_key(*id, seed);
        key_len = u32::try_from(engine_key.len()).unwrap_or(u32::MAX);
        packed.put_slice(&engine_key);
        own.push(key(at, &engine_key));
    }
    (key_len.max(8), packed.freeze(), own)
}

/// Whether bytes are what was stored under their key, and the checksum theirs.
fn is_right(key: Option<&BlockKey>, bytes: &[u8], crc: u64, expected: usize) -> bool {
    let right = |key: &BlockKey| payload::check(key, bytes) && payload_crc(key, bytes) == crc;
    bytes.len() == expected && key.is_some_and(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_right_only_with_its_own_bytes_all_of_them_and_their_checksum() {
        let (key, other) = (BlockKey::from_bytes([1; 32]), BlockKey::from_bytes([2; 32]));
        let mut bytes = vec![0; 100];
        payload::fill(&key, &mut bytes);
        let crc = payload_crc(&key, &bytes);
        assert!(is_right(Some(&key), &bytes, crc, 100));
        assert!(!is_right(Some(&other), &bytes, payload_crc(&other, &bytes), 100));
        assert!(!is_right(Some(&key), &bytes, crc ^ 1, 100));
        assert!(!is_right(Some(&key), &bytes[..99], payload_crc(&key, &bytes[..99]), 100));
        assert!(!is_right(None, &bytes, crc, 100));
        bytes[50] ^= 1;
        assert!(!is_right(Some(&key), &bytes, payload_crc(&key, &bytes), 100));
    }

    #[test]
    fn blocks_are_named_by_the_engine_and_by_the_cache_in_the_same_order() {
        let (key_len, packed, own) = name_blocks(&[7, 8], 3, |at, engine| {
            let mut key = [0; 32];
            key[..16].copy_from_slice(engine);
            key[31] = u8::try_from(at).unwrap();
            BlockKey::from_bytes(key)
        });
        assert_eq!((key_len, packed.len()), (16, 32));
        assert_eq!(packed[16..], keys::engine_key(8, 3));
        assert_eq!((&own[1].as_bytes()[..16], own[1].as_bytes()[31]), (&packed[16..], 1));
        assert_eq!(name_blocks(&[], 3, |_, _| BlockKey::from_bytes([0; 32])).0, 8);
    }
}
