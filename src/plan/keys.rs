//! The keys of all blocks by number, each stored once. The planner writes them; lookups compare with them too, on other
//! threads and without asking it.
//!
//! The words of a key are plain atomics: what orders them is the lock under which a number is published. A number is
//! published after its key was written, and its key is not written again before it was withdrawn (the planner keeps a
//! number that has become vacant until its next event), so that whoever finds a published number finds its own key.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::vocab::BlockKey;
use crate::vocab::limits::BLOCKS_MAX;

/// Keys of a chunk: 512 KiB.
const CHUNK: usize = 1 << 14;
/// Chunks of a shelf, and shelves in all: 4 KiB each.
const SHELF: usize = 1 << 8;

type Words = [AtomicU64; 4];
type Shelf = Box<[OnceLock<Box<[Words]>>]>;

/// The keys.
#[derive(Debug)]
pub(super) struct Keys {
    shelves: Box<[OnceLock<Shelf>]>,
}

impl Default for Keys {
    fn default() -> Self {
        const { assert!(BLOCKS_MAX as usize == CHUNK * SHELF * SHELF, "every number has its place") };
        Self { shelves: blank(SHELF) }
    }
}

impl Keys {
    /// Writes the key of a number. The caller is the only one who writes.
    pub(super) fn set(&self, number: u32, key: &BlockKey) {
        let (shelf, chunk, at) = place(number);
        let chunk = self.shelves[shelf].get_or_init(|| blank(SHELF))[chunk].get_or_init(|| blank(CHUNK));
        for (word, value) in chunk[at].iter().zip(key.words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn words(&self, number: u32) -> Option<[u64; 4]> {
        let (shelf, chunk, at) = place(number);
        let words = &self.shelves[shelf].get()?[chunk].get()?[at];
        Some(std::array::from_fn(|word| words[word].load(Ordering::Relaxed)))
    }

    /// The key of a number; zeroes for one that was never given.
    #[must_use]
    pub(super) fn get(&self, number: u32) -> BlockKey {
        BlockKey::from_words(self.words(number).unwrap_or_default())
    }

    /// Whether this is the key of a number.
    #[must_use]
    pub(super) fn is(&self, number: u32, key: &BlockKey) -> bool {
        self.words(number) == Some(key.words())
    }

    /// What [`BlockKey::hash64`] says of the key of a number.
    #[must_use]
    pub(super) fn hash64(&self, number: u32) -> u64 {
        self.words(number).unwrap_or_default()[0]
    }

    /// Bytes that it takes.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        let shelves = self.shelves.iter().filter_map(OnceLock::get);
        let chunks = shelves.clone().flat_map(|shelf| shelf.iter()).filter_map(OnceLock::get).count();
        (1 + shelves.count()) * SHELF * size_of::<OnceLock<Shelf>>() + chunks * CHUNK * size_of::<Words>()
    }
}

fn blank<T: Default>(len: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(len).collect()
}

fn place(number: u32) -> (usize, usize, usize) {
    let number = number as usize;
    (number / CHUNK / SHELF % SHELF, number / CHUNK % SHELF, number % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_keeps_its_own_key() {
        let key = |number: u32| BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let keys = Keys::default();
        let numbers = [0, 1, 16_383, 16_384, 1 << 22, (1 << 22) + 1, BLOCKS_MAX - 1];
        for number in numbers {
            keys.set(number, &key(number));
        }
        for number in numbers {
            assert_eq!(keys.get(number), key(number));
            assert!(keys.is(number, &key(number)) && !keys.is(number, &key(number + 1)));
            assert_eq!(keys.hash64(number), key(number).hash64());
        }
        assert!(!keys.is(9 << 22, &BlockKey::from_bytes([0; 32])), "a number that was never given has no key");
    }
}
