//! How a caller names a run of blocks.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::proto::{self, chain::Blocks, scope_step};
use crate::vocab::key::{EngineKeys, TokenChain};
use crate::vocab::limits::TURN_TOKENS;
use crate::vocab::{
    BlockKey, ChainRoot, Fingerprint, Furthest, GroupId, Hints, NamespaceSpec, Retention, Scope, ScopePath, TenantName,
};

/// A run of blocks of one prompt. Built from tokens, an engine's keys or kvtier's own, then narrowed by what else the
/// bytes depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    wire: proto::Chain,
    /// What the daemon takes the scopes to be.
    scopes: ScopePath,
}

impl Chain {
    /// A prompt's tokens, for kvtier to hash.
    #[must_use]
    pub fn of_tokens(fingerprint: Fingerprint, tenant: &TenantName, tokens: Vec<u32>) -> Self {
        let extras = Vec::new();
        Self::new(fingerprint, tenant, Blocks::Tokens(proto::Tokens { tokens, extras }))
    }

    /// Keys of an engine that hashes for itself, `key_len` bytes each, one after another.
    #[must_use]
    pub fn of_engine_keys(fingerprint: Fingerprint, tenant: &TenantName, key_len: u32, keys: Bytes) -> Self {
        Self::new(fingerprint, tenant, Blocks::EngineKeys(proto::EngineKeys { key_len, keys }))
    }

    /// kvtier's own keys.
    #[must_use]
    pub fn of_block_keys(fingerprint: Fingerprint, tenant: &TenantName, keys: &[BlockKey]) -> Self {
        let mut packed = BytesMut::with_capacity(keys.len() * 32);
        keys.iter().for_each(|key| packed.put_slice(key.as_bytes()));
        Self::new(fingerprint, tenant, Blocks::BlockKeys(packed.freeze()))
    }

    fn new(fingerprint: Fingerprint, tenant: &TenantName, blocks: Blocks) -> Self {
        let wire = proto::Chain {
            fingerprint: Bytes::copy_from_slice(&fingerprint.0),
            tenant: tenant.as_str().to_owned(),
            blocks: Some(blocks),
            ..proto::Chain::default()
        };
        Self { wire, scopes: ScopePath::all(Scope::Tenant(tenant.clone())) }
    }

    /// The digest of an adapter that the bytes depend on.
    #[must_use]
    pub fn adapter(mut self, digest: Bytes) -> Self {
        self.wire.adapter_digest = digest;
        self
    }

    /// Which layers.
    #[must_use]
    pub fn group(mut self, group: GroupId) -> Self {
        self.wire.group = group.0.into();
        self
    }

    /// Who may see the blocks. Without it: the tenant, for the whole chain.
    #[must_use]
    pub fn scopes(mut self, scopes: &ScopePath) -> Self {
        self.scopes = scopes.clone();
        self.wire.scopes = scopes.steps().iter().map(|(from, scope)| wire_step(*from, scope)).collect();
        self
    }

    /// How far its blocks may go when they are stored, and how long they are kept.
    #[must_use]
    pub fn storing(mut self, furthest: Furthest, retention: Retention) -> Self {
        let furthest_tier = match furthest {
            Furthest::Nothing => proto::FurthestTier::Nothing,
            Furthest::Ram => proto::FurthestTier::Ram,
            Furthest::Nvme => proto::FurthestTier::Nvme,
        };
        let storing = self.wire.storing.get_or_insert_default();
        (storing.furthest_tier, storing.retention) = (furthest_tier.into(), retention.to_string());
        self
    }

    /// What is known of the request that stores it.
    #[must_use]
    pub fn hints(mut self, hints: Hints) -> Self {
        let storing = self.wire.storing.get_or_insert_default();
        (storing.output_tokens, storing.again) = (hints.output_tokens, hints.again);
        self
    }

    /// What the tenant's gateway has signed for the request, for a caller that has no right of its own to act for the tenant.
    #[must_use]
    pub fn grant(mut self, grant: &str) -> Self {
        self.wire.grant = grant.to_owned();
        self
    }

    /// The run goes on after `offset` blocks, of which `parent` is the last.
    #[must_use]
    pub fn after(mut self, offset: u32, parent: BlockKey) -> Self {
        self.wire.chain_offset = offset;
        self.wire.parent_key = Bytes::copy_from_slice(parent.as_bytes());
        self
    }

    /// What block number `block` of the whole chain depends on besides its tokens, such as an image. Only chains of
    /// tokens have such.
    #[must_use]
    pub fn extra(mut self, block: u32, digest: Bytes) -> Self {
        if let Some(Blocks::Tokens(tokens)) = &mut self.wire.blocks {
            tokens.extras.push(proto::BlockExtra { block, digest });
        }
        self
    }

    /// The same chain with only its first `count` tokens or keys: what a fetch names after a lookup said how many are
    /// there. (`stride` engine keys make a block, `block_tokens` tokens do.)
    #[must_use]
    pub fn head(&self, count: usize) -> Self {
        let mut chain = self.clone();
        match &mut chain.wire.blocks {
            Some(Blocks::Tokens(tokens)) => tokens.tokens.truncate(count),
            Some(Blocks::EngineKeys(keys)) => keys.keys.truncate(count.saturating_mul(keys.key_len as usize)),
            Some(Blocks::BlockKeys(keys)) => keys.truncate(count.saturating_mul(32)),
            None => {}
        }
        chain
    }

    /// Tokens or keys that name one block: what [`head`](Self::head) counts.
    pub(super) fn named_a_block(&self, block_tokens: usize, stride: usize) -> usize {
        match &self.wire.blocks {
            Some(Blocks::Tokens(_)) => block_tokens,
            Some(Blocks::EngineKeys(_)) => stride,
            Some(Blocks::BlockKeys(_)) | None => 1,
        }
    }

    /// The keys of its whole blocks, as the daemon computes them for a namespace of this layout: what payloads are checked
    /// with.
    #[must_use]
    pub fn keys(&self, spec: &NamespaceSpec) -> Vec<BlockKey> {
        self.each_key(spec).collect()
    }

    /// The same on a thread that has other tasks, too: a prompt of a million tokens takes some milliseconds.
    pub(super) async fn keys_in_turns(&self, spec: &NamespaceSpec) -> Vec<BlockKey> {
        let a_turn = (TURN_TOKENS / spec.block_tokens.max(1) as usize).max(1);
        let (mut each, mut keys) = (self.each_key(spec), Vec::new());
        loop {
            let before = keys.len();
            keys.extend(each.by_ref().take(a_turn));
            if keys.len() < before + a_turn {
                return keys;
            }
            tokio::task::yield_now().await;
        }
    }

    fn each_key(&self, spec: &NamespaceSpec) -> Box<dyn Iterator<Item = BlockKey> + Send + '_> {
        let wire = &self.wire;
        let (stride, block_tokens) = (spec.stride.max(1) as usize, spec.block_tokens.max(1) as usize);
        let group = GroupId(u8::try_from(wire.group).unwrap_or_default());
        let root = || {
            let fingerprint = <[u8; 32]>::try_from(&wire.fingerprint[..]).unwrap_or_default();
            ChainRoot::new(&Fingerprint(fingerprint), &wire.adapter_digest, group)
        };
        let key = |bytes: &[u8]| bytes.try_into().map(BlockKey::from_bytes).ok();
        match &wire.blocks {
            Some(Blocks::Tokens(tokens)) => {
                let mut hasher = match key(&wire.parent_key).filter(|_| wire.chain_offset > 0) {
                    Some(parent) => TokenChain::resume(parent, &self.scopes, wire.chain_offset),
                    None => TokenChain::new(root(), &self.scopes),
                };
                let extras = tokens.extras.iter().rev().map(|extra| (extra.block, &extra.digest));
                // Of two for one block the first, as the chain was written.
                let extras: HashMap<u32, &Bytes> = extras.collect();
                let keys = (wire.chain_offset..)
                    .zip(tokens.tokens.chunks_exact(block_tokens))
                    .map(move |(block, tokens)| hasher.push(tokens, extras.get(&block).map_or(&[], |extra| extra)));
                Box::new(keys)
            }
            Some(Blocks::EngineKeys(engine)) => {
                let (roots, key_len) = (EngineKeys::new(root(), &self.scopes), (engine.key_len as usize).max(1));
                let last = move |group: &[u8]| group.len() - key_len;
                let keys = (wire.chain_offset..)
                    .zip(engine.keys.chunks_exact(key_len * stride))
                    .map(move |(block, group)| roots.key(block, &group[last(group)..]));
                Box::new(keys)
            }
            Some(Blocks::BlockKeys(keys)) => Box::new(keys.chunks_exact(32).filter_map(key)),
            None => Box::new(std::iter::empty()),
        }
    }

    pub(super) fn to_wire(&self) -> proto::Chain {
        self.wire.clone()
    }
}

fn wire_step(from_block: u32, scope: &Scope) -> proto::ScopeStep {
    let scope = match scope {
        Scope::Public => scope_step::Scope::Public(true),
        Scope::Domain(domain) => scope_step::Scope::Domain(domain.as_str().to_owned()),
        Scope::Tenant(tenant) => scope_step::Scope::Tenant(tenant.as_str().to_owned()),
        Scope::User(_, user, salt) => scope_step::Scope::User(proto::UserScope {
            user: user.as_str().to_owned(),
            salt: Bytes::copy_from_slice(salt),
        }),
    };
    proto::ScopeStep { from_block, scope: Some(scope) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::namespace::{HashScheme, Weights};

    fn tenant() -> TenantName {
        TenantName::parse("acme").unwrap()
    }

    fn spec() -> NamespaceSpec {
        NamespaceSpec {
            weights: Weights::Digest(Box::new([1; 32])),
            dtype: "u8".into(),
            layout: "test".into(),
            block_tokens: 16,
            stride: 2,
            shards: 1,
            groups: 1,
            hash_scheme: HashScheme::Tokens,
            max_payload_bytes: 4096,
            prefill_tokens_per_second: 0,
        }
    }

    #[test]
    fn a_head_has_the_first_keys_of_whatever_names_the_blocks() {
        let fingerprint = Fingerprint([1; 32]);
        let engine = Chain::of_engine_keys(fingerprint, &tenant(), 8, Bytes::from_static(b"00000000111111112222"));
        let Some(Blocks::EngineKeys(keys)) = engine.head(1).to_wire().blocks else { panic!() };
        assert_eq!(&keys.keys[..], b"00000000");
        let own = Chain::of_block_keys(fingerprint, &tenant(), &[BlockKey::from_bytes([7; 32]); 3]);
        let Some(Blocks::BlockKeys(keys)) = own.head(2).to_wire().blocks else { panic!() };
        assert_eq!(keys.len(), 64);
        let tokens = Chain::of_tokens(fingerprint, &tenant(), vec![1, 2, 3]);
        let Some(Blocks::Tokens(tokens)) = tokens.head(9).to_wire().blocks else { panic!() };
        assert_eq!(tokens.tokens, [1, 2, 3]);
    }

    #[tokio::test]
    async fn keys_made_in_turns_are_the_same_whatever_names_the_blocks() {
        let spec = spec();
        let (fingerprint, blocks) = (Fingerprint([1; 32]), TURN_TOKENS / 16 * 2 + 3);
        let image = Bytes::from_static(b"an image");
        let tokens = Chain::of_tokens(fingerprint, &tenant(), (0..blocks as u32 * 16).collect());
        let engine = Chain::of_engine_keys(fingerprint, &tenant(), 8, vec![7; blocks * 16].into());
        let own = Chain::of_block_keys(fingerprint, &tenant(), &vec![BlockKey::from_bytes([7; 32]); blocks]);
        for chain in [tokens.clone().extra(5, image), tokens.clone(), engine, own] {
            let keys = chain.keys_in_turns(&spec).await;
            assert_eq!((keys.len(), &keys), (blocks, &chain.keys(&spec)));
        }
        let turns = {
            let (mut turns, mut hashing) = (0, std::pin::pin!(tokens.keys_in_turns(&spec)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            while hashing.as_mut().poll(&mut context).is_pending() {
                turns += 1;
            }
            turns
        };
        assert_eq!(turns, 2, "others have the thread in between");
    }

    #[test]
    fn scopes_are_sent_with_the_block_from_which_they_hold() {
        let scopes = ScopePath::new(vec![(0, Scope::Public), (4, Scope::Tenant(tenant()))]).unwrap();
        let wire = Chain::of_tokens(Fingerprint([1; 32]), &tenant(), vec![]).scopes(&scopes).to_wire();
        assert_eq!(wire.scopes.iter().map(|step| step.from_block).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(wire.scopes[1].scope, Some(scope_step::Scope::Tenant("acme".into())));
    }
}
