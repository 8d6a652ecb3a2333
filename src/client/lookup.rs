//! How long a prefix can be skipped, and the right to read it.

use std::time::Duration;

use bytes::Bytes;

use super::{Chain, Client, ClientError, Session};
use crate::proto::{self, LookupMode, LookupRequest, ReleaseRequest, RenewRequest};
use crate::vocab::{BlockKey, LeaseId, RequestId, TierCounts};

/// What a lookup asks besides the chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookupOptions<'a> {
    /// Each block by itself instead of the unbroken run.
    pub membership: bool,
    /// Blocks from the chain's start that the engine has in GPU memory.
    pub already_computed_blocks: u32,
    /// Tokens of the whole prompt, where the chain has keys; `None`: whole blocks.
    pub prompt_tokens: Option<u64>,
    /// A lease on what is hit.
    pub lease: Option<LeaseOptions<'a>>,
}

/// A lease that a lookup asks for. Asking again for the same request gives the same lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseOptions<'a> {
    /// Whose.
    pub session: &'a Session,
    /// For which request.
    pub request_id: &'a RequestId,
    /// How long it lives unless renewed.
    pub ttl: Duration,
}

/// The right to read a prefix until it is released or ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// Blocks that it protects, from block 0.
    pub blocks: u32,
    /// Until it ends by itself.
    pub ttl: Duration,
}

/// What a lookup found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Tokens that can be skipped.
    pub hit_tokens: u64,
    /// Tokens that can't.
    pub miss_tokens: u64,
    /// Blocks by where they are.
    pub counts: TierCounts,
    /// Which blocks are there, lowest bit first; empty unless asked.
    pub membership: Bytes,
    /// The lease, where one was asked for and something was hit.
    pub lease: Option<Lease>,
    /// The key of the last block named.
    pub last_key: Option<BlockKey>,
}

impl Client {
    /// Asks how much of a chain is cached.
    ///
    /// # Errors
    /// For a chain that breaks a rule, an unknown namespace, or too many leases.
    pub async fn lookup(&self, chain: &Chain, options: &LookupOptions<'_>) -> Result<Lookup, ClientError> {
        let mode = if options.membership { LookupMode::Membership } else { LookupMode::Prefix };
        let lease = options.lease;
        let request = LookupRequest {
            session_id: lease.map_or(0, |lease| lease.session.id()),
            request_id: lease.map_or_else(String::new, |lease| lease.request_id.as_str().to_owned()),
            chain: Some(chain.to_wire()),
            mode: mode.into(),
            already_computed_blocks: options.already_computed_blocks,
            prompt_tokens: options.prompt_tokens.unwrap_or(0),
            // 0 would mean none.
            lease_ttl_ms: lease.map_or(0, |lease| millis(lease.ttl).max(1)),
        };
        let reply = self.answer("Lookup", self.cache_service().lookup(request)).await?;
        let last_key = match reply.last_key.len() {
            0 => None,
            _ => Some(block_key(&reply.last_key)?),
        };
        Ok(Lookup {
            hit_tokens: reply.hit_tokens,
            miss_tokens: reply.miss_tokens,
            counts: TierCounts {
                engine: reply.blocks_engine,
                ram: reply.blocks_ram,
                nvme: reply.blocks_nvme,
                missed: reply.blocks_missed,
            },
            membership: reply.membership,
            lease: reply.lease.and_then(lease_of),
            last_key,
        })
    }

    /// Ends a lease; whether this call ended it.
    ///
    /// # Errors
    /// For another instance's lease.
    pub async fn release(&self, session: &Session, lease: LeaseId) -> Result<bool, ClientError> {
        let request = ReleaseRequest { session_id: session.id(), lease_id: lease.0 };
        Ok(self.answer("Release", self.cache_service().release(request)).await?.released)
    }

    /// Gives a lease more time, from now.
    ///
    /// # Errors
    /// When it has ended, or is another instance's.
    pub async fn renew(&self, session: &Session, lease: LeaseId, ttl: Duration) -> Result<Lease, ClientError> {
        let request = RenewRequest { session_id: session.id(), lease_id: lease.0, ttl_ms: millis(ttl) };
        let reply = self.answer("Renew", self.cache_service().renew(request)).await?;
        reply.lease.and_then(lease_of).ok_or_else(|| ClientError::protocol("a renewed lease without its number"))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn block_key(bytes: &[u8]) -> Result<BlockKey, ClientError> {
    let key = <[u8; 32]>::try_from(bytes);
    key.map(BlockKey::from_bytes).map_err(|_| ClientError::protocol(format!("a block's key of {} bytes", bytes.len())))
}

pub(super) fn lease_of(lease: proto::Lease) -> Option<Lease> {
    let proto::Lease { lease_id, blocks, ttl_ms } = lease;
    (lease_id != 0).then(|| Lease { id: LeaseId(lease_id), blocks, ttl: Duration::from_millis(ttl_ms) })
}
