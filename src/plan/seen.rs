//! Blocks that were used once and not written: a second use is known as one even when RAM has forgotten the first.
//!
//! Two generations of hashes: when the newer is full the older is dropped, so a first use is remembered for at least as
//! many others as a generation holds, in bounded memory and without a clock.

use hashbrown::HashTable;

use crate::vocab::BlockKey;
use crate::vocab::limits::SEEN_BLOCKS;

/// Hashes of keys. A collision writes a block at its first use, which costs a write and nothing else.
#[derive(Debug, Default)]
pub(super) struct Seen {
    newer: HashTable<u64>,
    older: HashTable<u64>,
}

impl Seen {
    /// Whether the block was seen before; it is from now on.
    pub(super) fn again(&mut self, key: &BlockKey) -> bool {
        let hash = key.hash64();
        let has = |table: &HashTable<u64>| table.find(hash, |other| *other == hash).is_some();
        if has(&self.newer) {
            return true;
        }
        let again = has(&self.older);
        if self.newer.len() >= SEEN_BLOCKS {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert_unique(hash, hash, |other| *other);
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> BlockKey {
        BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn a_block_is_remembered_for_a_generation_and_forgotten_after_two() {
        let mut seen = Seen::default();
        assert!(!seen.again(&key(0)));
        assert!(seen.again(&key(0)));
        for number in 1..SEEN_BLOCKS as u64 + 1 {
            seen.again(&key(number));
        }
        assert!(seen.again(&key(1)), "in the older generation");
        for number in 0..2 * SEEN_BLOCKS as u64 {
            seen.again(&key(10_000_000 + number));
        }
        assert!(!seen.again(&key(5)));
        assert!(seen.newer.len() <= SEEN_BLOCKS && seen.older.len() <= SEEN_BLOCKS);
    }
}
