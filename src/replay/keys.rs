//! How a trace's block ids become keys.
//!
//! A trace has no tokens: its ids already stand for whole prefixes, as the block hashes of an engine do. So a replay
//! comes in through the same door as vLLM or SGLang, with engine keys, and the cache hashes them once more into its
//! own ([`EngineKeys`](crate::vocab::key::EngineKeys)). No mixing is needed here, only that no two ids collide.

/// The engine's key of a trace's block: 16 opaque bytes, the seed and then the id, both big-endian. Another seed names
/// other blocks, so that replays of one trace against one server can start cold.
#[must_use]
pub fn engine_key(trace_id: u64, seed: u64) -> [u8; 16] {
    (u128::from(seed) << 64 | u128::from(trace_id)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::key::EngineKeys;

    #[test]
    fn ids_and_seeds_never_collide_and_fit_the_engine_key_door() {
        let keys = [engine_key(1, 2), engine_key(2, 1), engine_key(1, 1), engine_key(u64::MAX, 0), engine_key(0, 1)];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
        }
        assert!(EngineKeys::check_length(keys[0].len()).is_ok());
        assert_eq!(engine_key(0x0102, 3), [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
