//! A run of blocks as a request names it, with keys computed as they are asked for.

use std::sync::Arc;

use bytes::Bytes;

use super::error::Error;
use super::names::Namespace;
use crate::vocab::key::EngineKeys;
use crate::vocab::limits::{KEYS_AT_ONCE, REQUEST_BLOCKS_MAX};
use crate::vocab::{BlockKey, Furthest, Hints, Owner, OwnerPath, Retention, TenantName};

/// Where a chain's keys come from.
#[derive(Clone, Debug)]
pub enum Keys {
    /// All known: hashed from tokens, or given.
    Known(Arc<[BlockKey]>),
    /// The engine's own; each is hashed when it is asked for, so that a search hashes only what it probes.
    Engine {
        /// Roots of the chain's scopes.
        roots: EngineKeys,
        /// The engine's keys, one after another.
        packed: Bytes,
        /// Bytes of a key.
        key_len: usize,
        /// Engine keys of a block; the last of them names it.
        stride: usize,
        /// Blocks before the first.
        first: u32,
    },
}

impl Keys {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Known(keys) => keys.len(),
            Self::Engine { packed, key_len, stride, .. } => packed.len() / (key_len * stride).max(1),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of block `at`, which must be below `len()`.
    #[must_use]
    pub fn key(&self, at: usize) -> BlockKey {
        match self {
            Self::Known(keys) => keys[at],
            Self::Engine { roots, packed, key_len, stride, first } => {
                let start = (at * stride + stride - 1) * key_len;
                let block = first + u32::try_from(at).unwrap_or(u32::MAX);
                roots.key(block, &packed[start..start + key_len])
            }
        }
    }
}

/// A run of blocks of one prompt.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Which layout.
    pub namespace: Arc<Namespace>,
    /// Whose account.
    pub tenant: TenantName,
    /// Whose blocks they are when they are stored.
    pub owners: OwnerPath,
    /// How long they are kept then.
    pub retention: Retention,
    /// What their writer says of the request.
    pub hints: Hints,
    /// How far they may go.
    pub furthest: Furthest,
    /// How many blocks come before the first one named here.
    pub depth: u32,
    /// The block before the first one, where the chain comes in pieces.
    pub parent: Option<BlockKey>,
    /// The keys.
    pub keys: Keys,
    /// Tokens named, where the request has tokens: also those of a last block that is not full.
    pub tokens: Option<u64>,
}

impl Chain {
    /// A whole chain of one owner, stored as far and for as long as there is room.
    #[must_use]
    pub fn of(namespace: Arc<Namespace>, tenant: TenantName, owner: Owner, keys: Keys) -> Self {
        let (owners, retention, furthest) = (OwnerPath::all(owner), Retention::default(), Furthest::default());
        let hints = Hints::default();
        Self { namespace, tenant, owners, retention, hints, furthest, depth: 0, parent: None, keys, tokens: None }
    }

    /// Blocks named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no block is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of block `at` of this run. `at` must be below `len()`.
    #[must_use]
    pub fn key(&self, at: usize) -> BlockKey {
        self.keys.key(at)
    }

    /// The keys of the first `blocks` blocks.
    #[must_use]
    pub fn keys(&self, blocks: usize) -> Arc<[BlockKey]> {
        match &self.keys {
            Keys::Known(keys) if keys.len() == blocks => Arc::clone(keys),
            _ => (0..blocks.min(self.len())).map(|at| self.key(at)).collect(),
        }
    }

    /// As [`keys`](Self::keys), hashed some at a time, so that a long chain keeps no other task of its thread waiting.
    pub async fn keys_in_turns(&self, blocks: usize) -> Arc<[BlockKey]> {
        let blocks = blocks.min(self.len());
        if matches!(self.keys, Keys::Known(_)) || blocks <= KEYS_AT_ONCE {
            return self.keys(blocks);
        }
        let mut keys = Vec::with_capacity(blocks);
        while keys.len() < blocks {
            let end = blocks.min(keys.len() + KEYS_AT_ONCE);
            keys.extend((keys.len()..end).map(|at| self.key(at)));
            tokio::task::yield_now().await;
        }
        keys.into()
    }

    /// The same run with keys that were hashed before.
    #[must_use]
    pub fn with_keys(&self, keys: Arc<[BlockKey]>) -> Self {
        Self { keys: Keys::Known(keys), ..self.clone() }
    }

    /// The same run, cut off after `blocks` blocks.
    #[must_use]
    pub fn head(&self, blocks: usize) -> Self {
        let keys = if blocks < self.len() { Keys::Known(self.keys(blocks)) } else { self.keys.clone() };
        Self { keys, ..self.clone() }
    }

    /// Tokens of `blocks` whole blocks.
    #[must_use]
    pub fn tokens_of(&self, blocks: u32) -> u64 {
        u64::from(blocks) * u64::from(self.namespace.spec.block_tokens)
    }

    /// Refuses a run that is longer than a request may be.
    ///
    /// # Errors
    /// Past 65,536 blocks.
    pub fn checked(self) -> Result<Self, Error> {
        let blocks = self.len();
        if blocks > REQUEST_BLOCKS_MAX { Err(Error::too_many_blocks(blocks)) } else { Ok(self) }
    }
}
