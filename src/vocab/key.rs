//! The key scheme: 32 bytes of keyed BLAKE3 (<https://github.com/BLAKE3-team/BLAKE3-specs>) a block.
//!
//! From tokens, each key *keys* the hash of the next block: `key[i] = BLAKE3(key = key[i-1], tokens ‖ tail)`, where the
//! tail is there only when the scope changes or the block carries a digest of its own. A 16-token block is then one
//! compression. From engines that hash for themselves, keys are independent of each other, so that a search hashes
//! only what it probes.

use std::fmt;

use super::limits::{ENGINE_KEY_BYTES_MAX, ENGINE_KEY_BYTES_MIN};
use super::{Fingerprint, GroupId, ScopePath};

/// The identity of a block's content: layout, adapter, group, scope and every token up to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey([u8; 32]);

impl BlockKey {
    /// A key from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key from its words.
    #[must_use]
    pub fn from_words(words: [u64; 4]) -> Self {
        let mut bytes = [0; 32];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(bytes)
    }

    /// The key as four words.
    #[must_use]
    pub fn words(&self) -> [u64; 4] {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        words
    }

    /// 64 bits of the key: as good as any hash of it, since the key is one already.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        self.words()[0]
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where every chain of a (namespace, adapter, group) begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainRoot([u8; 32]);

impl ChainRoot {
    /// Mixes what the bytes of a block depend on besides tokens and scope. `adapter` is the digest of a LoRA or the like;
    /// empty for none.
    #[must_use]
    pub fn new(fingerprint: &Fingerprint, adapter: &[u8], group: GroupId) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kvtier 2026 chain root v1");
        hasher.update(&fingerprint.0);
        hasher.update(&[group.0]);
        hasher.update(adapter);
        Self(*hasher.finalize().as_bytes())
    }
}

/// Hashes the blocks of one prompt, in order.
#[derive(Clone, Debug)]
pub struct TokenChain<'a> {
    previous: [u8; 32],
    scopes: &'a ScopePath,
    next_scope: usize,
    block: u32,
    message: Vec<u8>,
}

impl<'a> TokenChain<'a> {
    /// Starts at block 0.
    #[must_use]
    pub fn new(root: ChainRoot, scopes: &'a ScopePath) -> Self {
        Self { previous: root.0, scopes, next_scope: 0, block: 0, message: Vec::new() }
    }

    /// Goes on after a piece of the chain whose last key and length are known (`chain_offset` of the RPCs).
    #[must_use]
    pub fn resume(previous: BlockKey, scopes: &'a ScopePath, block: u32) -> Self {
        let next_scope = scopes.steps().iter().filter(|(from, _)| *from < block).count();
        Self { previous: previous.0, scopes, next_scope, block, message: Vec::new() }
    }

    /// The key of the next block. `tokens` has exactly the namespace's `block_tokens`, which makes the message
    /// unambiguous; `extra` is the digest of what else the block depends on (images and the like), mostly empty.
    pub fn push(&mut self, tokens: &[u32], extra: &[u8]) -> BlockKey {
        self.message.clear();
        for token in tokens {
            self.message.extend_from_slice(&token.to_le_bytes());
        }
        let scope = match self.scopes.steps().get(self.next_scope) {
            Some((from, scope)) if *from == self.block => {
                self.next_scope += 1;
                scope.encode()
            }
            _ => Vec::new(),
        };
        if !scope.is_empty() || !extra.is_empty() {
            for part in [&scope, extra] {
                self.message.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
                self.message.extend_from_slice(part);
            }
        }
        self.previous = *blake3::keyed_hash(&self.previous, &self.message).as_bytes();
        self.block += 1;
        BlockKey(self.previous)
    }
}

/// An engine's own key of a length that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key_len is {0}, it must be 8 to 128 bytes")]
pub struct EngineKeyLength(pub usize);

/// Keys of engines that hash for themselves; any block can be computed alone.
#[derive(Clone, Debug)]
pub struct EngineKeys {
    roots: Vec<(u32, [u8; 32])>,
}

impl EngineKeys {
    /// One root for each scope of the chain.
    #[must_use]
    pub fn new(root: ChainRoot, scopes: &ScopePath) -> Self {
        let keyed = |scope: &super::Scope| *blake3::keyed_hash(&root.0, &scope.encode()).as_bytes();
        Self { roots: scopes.steps().iter().map(|(from, scope)| (*from, keyed(scope))).collect() }
    }

    /// Whether an engine key of `length` bytes can be used.
    ///
    /// # Errors
    /// Unless it is 8 to 128.
    pub fn check_length(length: usize) -> Result<(), EngineKeyLength> {
        if (ENGINE_KEY_BYTES_MIN..=ENGINE_KEY_BYTES_MAX).contains(&length) {
            Ok(())
        } else {
            Err(EngineKeyLength(length))
        }
    }

    /// The key of block number `block`, for which the engine has `engine_key`.
    #[must_use]
    pub fn key(&self, block: u32, engine_key: &[u8]) -> BlockKey {
        let at = self.roots.partition_point(|(from, _)| *from <= block).saturating_sub(1);
        let root = self.roots.get(at).map_or([0; 32], |(_, root)| *root);
        BlockKey(*blake3::keyed_hash(&root, engine_key).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{Scope, TenantName};

    fn root() -> ChainRoot {
        ChainRoot::new(&Fingerprint([3; 32]), b"", GroupId(0))
    }

    fn tenant(name: &str) -> Scope {
        Scope::Tenant(TenantName::parse(name).unwrap())
    }

    fn chain(scopes: &ScopePath, blocks: &[[u32; 16]]) -> Vec<BlockKey> {
        let mut chain = TokenChain::new(root(), scopes);
        blocks.iter().map(|tokens| chain.push(tokens, b"")).collect()
    }

    /// Pinned: a change here makes every stored block unreachable, so it needs a new format version.
    #[test]
    fn the_scheme_is_pinned_by_a_golden_key() {
        let keys = chain(&ScopePath::all(Scope::Public), &[[1; 16], [2; 16]]);
        assert_eq!(keys[1].to_string(), "436dcc8d6e8862067d88afcf32ae59f9fda4a187db341ad2450e1c8b028a0bd1");
    }

    #[test]
    fn a_shared_head_has_shared_keys_and_a_private_tail_has_not() {
        let narrowing = |name| ScopePath::new(vec![(0, Scope::Public), (1, tenant(name))]).unwrap();
        let (a, b) = (chain(&narrowing("a"), &[[1; 16], [2; 16]]), chain(&narrowing("b"), &[[1; 16], [2; 16]]));
        assert_eq!(a[0], b[0]);
        assert_ne!(a[1], b[1]);
    }

    #[test]
    fn a_chain_in_pieces_is_the_same_chain() {
        let scopes = ScopePath::new(vec![(0, Scope::Public), (2, tenant("a"))]).unwrap();
        let blocks = [[1; 16], [2; 16], [3; 16], [4; 16]];
        let whole = chain(&scopes, &blocks);
        for cut in 1..4 {
            let mut rest = TokenChain::resume(whole[cut - 1], &scopes, u32::try_from(cut).unwrap());
            let pieces: Vec<_> = blocks[cut..].iter().map(|tokens| rest.push(tokens, b"")).collect();
            assert_eq!(pieces, whole[cut..]);
        }
    }

    #[test]
    fn whatever_the_bytes_depend_on_changes_the_key() {
        let public = ScopePath::all(Scope::Public);
        let base = TokenChain::new(root(), &public).push(&[1; 16], b"");
        let others = [
            TokenChain::new(ChainRoot::new(&Fingerprint([4; 32]), b"", GroupId(0)), &public).push(&[1; 16], b""),
            TokenChain::new(ChainRoot::new(&Fingerprint([3; 32]), b"lora", GroupId(0)), &public).push(&[1; 16], b""),
            TokenChain::new(ChainRoot::new(&Fingerprint([3; 32]), b"", GroupId(1)), &public).push(&[1; 16], b""),
            TokenChain::new(root(), &ScopePath::all(tenant("a"))).push(&[1; 16], b""),
            TokenChain::new(root(), &public).push(&[1; 16], b"image"),
            TokenChain::new(root(), &public).push(&[2; 16], b""),
        ];
        for other in others {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn engine_keys_are_independent_and_follow_the_scope() {
        let scopes = ScopePath::new(vec![(0, Scope::Public), (2, tenant("a"))]).unwrap();
        let keys = EngineKeys::new(root(), &scopes);
        let other = EngineKeys::new(root(), &ScopePath::all(Scope::Public));
        assert_eq!(keys.key(1, b"12345678"), other.key(7, b"12345678"));
        assert_ne!(keys.key(2, b"12345678"), other.key(2, b"12345678"));
        assert_eq!(EngineKeys::check_length(7), Err(EngineKeyLength(7)));
    }

    #[test]
    fn hex_reads_back() {
        let key = BlockKey::from_bytes([0xab; 32]);
        assert_eq!(BlockKey::from_hex(&key.to_string()), Some(key));
        assert_eq!(BlockKey::from_hex("ab"), None);
    }
}
