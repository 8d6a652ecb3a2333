//! What `benches/hashing.rs` measures: keys from tokens, and keys from an engine's own.

use kvtier::vocab::key::{EngineKeys, TokenChain};
use kvtier::vocab::{BlockKey, ChainRoot, Fingerprint, GroupId, Scope, ScopePath};

/// Tokens of a block: the least that an engine uses, so the dearest a token.
pub(crate) const BLOCK_TOKENS: usize = 16;
/// Bytes of an engine's key: vLLM's and SGLang's SHA-256.
pub(crate) const ENGINE_KEY_BYTES: usize = 32;

fn root() -> ChainRoot {
    ChainRoot::new(&Fingerprint([7; 32]), b"", GroupId(0))
}

/// A prompt of whole blocks.
pub(crate) fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|token| token.wrapping_mul(2_654_435_761) >> 15).collect()
}

/// The last key of the prompt's chain, which depends on all others.
pub(crate) fn last_key_of_tokens(prompt: &[u32]) -> Option<BlockKey> {
    let scopes = ScopePath::all(Scope::Public);
    let mut chain = TokenChain::new(root(), &scopes);
    prompt.chunks_exact(BLOCK_TOKENS).map(|tokens| chain.push(tokens, b"")).last()
}

/// Packed keys, as the wire brings them.
pub(crate) fn engine_keys(count: usize) -> Vec<u8> {
    (0..count as u64).flat_map(|number| *blake3::hash(&number.to_le_bytes()).as_bytes()).collect()
}

/// All keys folded into one, so that none can be left out.
pub(crate) fn fold_engine_keys(packed: &[u8]) -> [u8; 32] {
    let keys = EngineKeys::new(root(), &ScopePath::all(Scope::Public));
    let mut folded = [0; 32];
    for (block, engine_key) in (0..).zip(packed.chunks_exact(ENGINE_KEY_BYTES)) {
        let key = keys.key(block, engine_key);
        folded.iter_mut().zip(key.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
    }
    folded
}
