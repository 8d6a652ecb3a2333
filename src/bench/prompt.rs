//! The prompts that figures are taken with, named as an engine names them: by hashes of its own.

use bytes::Bytes;

use crate::client::Chain;
use crate::vocab::key::EngineKeys;
use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{BlockKey, ChainRoot, Fingerprint, GroupId, NamespaceSpec, Scope, ScopePath, TenantName, WordError};

/// Bytes of an engine's key: vLLM's and SGLang's SHA-256.
const KEY_LEN: u32 = 32;

/// One prompt.
pub(super) struct Prompt {
    /// What a request names: an engine's hashes.
    pub(super) chain: Chain,
    /// The keys of its blocks, for who checks their bytes.
    pub(super) keys: Vec<BlockKey>,
    /// The same prompt named by those, for who has them.
    pub(super) by_key: Chain,
}

impl Prompt {
    /// Prompt number `number`: no two have a block in common.
    pub(super) fn new(fingerprint: Fingerprint, number: u64, blocks: u32) -> Result<Self, WordError> {
        let tenant = TenantName::parse("bench")?;
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&number.to_le_bytes());
        let packed: Bytes =
            (0..blocks).flat_map(|block| *blake3::keyed_hash(&salt, &block.to_le_bytes()).as_bytes()).collect();
        let root = ChainRoot::new(&fingerprint, b"", GroupId(0));
        let keys = EngineKeys::new(root, &ScopePath::all(Scope::Tenant(tenant.clone())));
        let keys: Vec<BlockKey> =
            (0..).zip(packed.chunks_exact(KEY_LEN as usize)).map(|(block, key)| keys.key(block, key)).collect();
        let by_key = Chain::of_block_keys(fingerprint, &tenant, &keys);
        Ok(Self { chain: Chain::of_engine_keys(fingerprint, &tenant, KEY_LEN, packed), keys, by_key })
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u32 {
        u32::try_from(self.keys.len()).unwrap_or(u32::MAX)
    }
}

/// The layout of all of them.
pub(super) fn spec(block_bytes: u32) -> NamespaceSpec {
    NamespaceSpec {
        weights: Weights::Digest(Box::new([1; 32])),
        dtype: "u8".into(),
        layout: "bench".into(),
        block_tokens: 16,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Engine("bench".into()),
        max_payload_bytes: block_bytes,
        prefill_tokens_per_second: 0,
    }
}
