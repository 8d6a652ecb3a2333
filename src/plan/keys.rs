//! The keys of all blocks by number, each stored once. The planner writes them; lookups compare with them too, on other
//! threads and without asking it.
//!
//! The words of a key are plain atomics: what orders them is the lock under which a number is published. A number is
//! published after its key was written, and its key is not written again before it was withdrawn (the planner keeps a
//! number that has become vacant until its next event), so that whoever finds a published number finds its own key.
//!
//! Tables by key come in parts of different shares, so that not all of them are to grow at once: a table that has just
//! doubled is half empty, and one that doubles is copied. And in many of them, so that none is long: each entry of one that
//! is copied, or cleared of what was removed, costs a look at its key, some 60 ns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::vocab::BlockKey;
use crate::vocab::limits::BLOCKS_MAX;

/// Keys of a chunk: 32 KiB. The event that begins one waits for its pages: some 13 µs, where 512 KiB took 400.
const CHUNK: usize = 1 << 10;
/// Chunks of a shelf, and shelves in all: 16 KiB each.
const SHELF: usize = 1 << 10;

/// Bits of a key that tell its range.
const RANGE_BITS: u32 = 12;
/// Ranges of keys, of different shares.
const RANGES: usize = 64;
/// The range of each value of those bits.
static RANGE_OF: [u8; 1 << RANGE_BITS] = ranges();
/// The next bits of a key tell its part of the range: all of the same share.
const PART_BITS: u32 = 8;

/// The share of each range is 2^(1/64) times that of the one before, so that the last has nearly twice the share of the
/// first, and of 64 tables that double at the same number of keys each does so in its turn.
const fn ranges() -> [u8; 1 << RANGE_BITS] {
    /// 2^(1/64) in 32 bits behind the point.
    const RATIO: u64 = 4_341_736_423;
    // The first share: the shares' sum is (2 - 1) / (RATIO - 1) times that, in 32 bits behind the point.
    let mut share = (RATIO - (1 << 32)) << RANGE_BITS;
    let mut ranges = [0; 1 << RANGE_BITS];
    let (mut range, mut filled, mut end) = (0, 0, 0);
    while range < RANGES {
        end += share;
        share = (share * (RATIO >> 8)) >> 24;
        while filled < ranges.len() && ((filled as u64) << 32 < end || range + 1 == RANGES) {
            ranges[filled] = range as u8;
            filled += 1;
        }
        range += 1;
    }
    ranges
}

/// A key that one thread writes and others read.
#[derive(Debug, Default)]
#[repr(align(32))]
struct SharedKey([AtomicU64; 4]);

impl SharedKey {
    fn set(&self, key: &BlockKey) {
        for (word, value) in self.0.iter().zip(key.words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    fn words(&self) -> [u64; 4] {
        std::array::from_fn(|word| self.0[word].load(Ordering::Relaxed))
    }

    fn hash(&self) -> u64 {
        self.0[3].load(Ordering::Relaxed)
    }

    fn is(&self, key: &BlockKey) -> bool {
        // Without a branch a word: keys that come this far are nearly always equal.
        self.words().iter().zip(key.words()).fold(0, |differ, (word, other)| differ | (word ^ other)) == 0
    }
}

type Chunk = Arc<[SharedKey; CHUNK]>;
type Shelf = Box<[OnceLock<Chunk>]>;

/// The keys, as others read them.
#[derive(Debug)]
pub struct Keys {
    shelves: Box<[OnceLock<Shelf>]>,
}

impl Keys {
    /// Parts of a table by key: 600 keys each of 10 million.
    pub const PARTS: usize = RANGES << PART_BITS;

    /// The part of a key, by its first bits, so that an index that gives its rows in the order of keys fills one range
    /// after another, each of which a core's cache can hold.
    #[must_use]
    pub fn part(key: &BlockKey) -> usize {
        let first = key.words()[0].swap_bytes();
        let range = usize::from(RANGE_OF[(first >> (u64::BITS - RANGE_BITS)) as usize]);
        let within = (first >> (u64::BITS - RANGE_BITS - PART_BITS)) as usize & ((1 << PART_BITS) - 1);
        range << PART_BITS | within
    }

    /// What hashes a key within its part: its last bits, since it is a hash already.
    #[must_use]
    pub fn hash(key: &BlockKey) -> u64 {
        key.words()[3]
    }

    /// How many of so many keys a part has, more or less.
    #[must_use]
    pub fn share(part: usize, keys: usize) -> usize {
        let up_to = |range: usize| RANGE_OF.partition_point(|of| usize::from(*of) < range);
        let share = up_to((part >> PART_BITS) + 1) - up_to(part >> PART_BITS);
        keys * share / (RANGE_OF.len() << PART_BITS)
    }

    fn new() -> Self {
        const { assert!(BLOCKS_MAX as usize == CHUNK * SHELF * SHELF, "every number has its place") };
        Self { shelves: blank(SHELF) }
    }

    fn at(&self, number: u32) -> Option<&SharedKey> {
        let number = number as usize;
        let shelf = self.shelves.get(number / CHUNK / SHELF)?.get()?;
        Some(&shelf[number / CHUNK % SHELF].get()?[number % CHUNK])
    }

    /// Whether this is the key of a number; no number has a key that was never given.
    #[must_use]
    pub fn is(&self, number: u32, key: &BlockKey) -> bool {
        self.at(number).is_some_and(|shared| shared.is(key))
    }

    /// The [hash](Self::hash) of the key of a number.
    #[must_use]
    pub fn hash_of(&self, number: u32) -> u64 {
        self.at(number).map_or(0, SharedKey::hash)
    }
}

/// The keys, as the planner writes them: the only one who does.
#[derive(Debug)]
pub(super) struct KeysWriter {
    /// The chunks, where they can be had without asking whether they are there.
    chunks: Vec<Chunk>,
    shared: Arc<Keys>,
}

impl Default for KeysWriter {
    fn default() -> Self {
        Self { chunks: Vec::new(), shared: Arc::new(Keys::new()) }
    }
}

impl KeysWriter {
    /// Writes the key of a number. Numbers are given one after another.
    pub(super) fn set(&mut self, number: u32, key: &BlockKey) {
        while self.chunks.len() <= number as usize / CHUNK {
            let next = self.chunks.len();
            let shelf = self.shared.shelves[next / SHELF].get_or_init(|| blank(SHELF));
            self.chunks.push(Arc::clone(shelf[next % SHELF].get_or_init(chunk)));
        }
        self.at(number).set(key);
    }

    fn at(&self, number: u32) -> &SharedKey {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// The key of a number that was given.
    pub(super) fn get(&self, number: u32) -> BlockKey {
        BlockKey::from_words(self.at(number).words())
    }

    /// Whether this is the key of a number that was given.
    pub(super) fn is(&self, number: u32, key: &BlockKey) -> bool {
        self.at(number).is(key)
    }

    /// The [hash](Keys::hash) of the key of a number that was given.
    pub(super) fn hash_of(&self, number: u32) -> u64 {
        self.at(number).hash()
    }

    /// The keys for those who read them.
    pub(super) fn shared(&self) -> &Arc<Keys> {
        &self.shared
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        let directory = SHELF * size_of::<OnceLock<Shelf>>() * (1 + self.chunks.len().div_ceil(SHELF));
        self.chunks.len() * size_of::<[SharedKey; CHUNK]>() + directory + self.chunks.capacity() * size_of::<Chunk>()
    }
}

fn blank<T: Default>(len: usize) -> Box<[T]> {
    std::iter::repeat_with(T::default).take(len).collect()
}

fn chunk() -> Chunk {
    let keys: Arc<[SharedKey]> = std::iter::repeat_with(SharedKey::default).take(CHUNK).collect();
    keys.try_into().unwrap_or_else(|_| unreachable!("an array of as many as were taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_parts_grow_from_one_to_two() {
        let mut shares = vec![0_u32; Keys::PARTS];
        for at in 0..1_u32 << 20 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&(at << 12).to_be_bytes());
            shares[Keys::part(&BlockKey::from_bytes(bytes))] += 1;
        }
        for (range, parts) in (0..).zip(shares.chunks(1 << PART_BITS)) {
            assert!(parts.iter().all(|share| *share == parts[0]), "{parts:?}");
            let ideal = 4_096.0 * (2_f64.powf(f64::from(range + 1) / 64.0) - 2_f64.powf(f64::from(range) / 64.0));
            assert!(
                (f64::from(parts[0]) - ideal).abs() <= 1.0,
                "a part of range {range} has {}, not {ideal}",
                parts[0]
            );
        }
        let expected: usize = (0..Keys::PARTS).map(|part| Keys::share(part, 10_000_000)).sum();
        assert!((9_900_000..=10_000_000).contains(&expected), "{expected}");
    }

    #[test]
    fn every_number_keeps_its_own_key_for_all_who_read_it() {
        let key = |number: u32| BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let mut keys = KeysWriter::default();
        let numbers = [0, 1, 1_023, 1_024, 1 << 20, (1 << 20) + 1];
        for number in numbers {
            keys.set(number, &key(number));
        }
        let shared = Arc::clone(keys.shared());
        for number in numbers {
            assert_eq!(keys.get(number), key(number));
            for (is, other) in [(true, number), (false, number + 1)] {
                assert_eq!((keys.is(number, &key(other)), shared.is(number, &key(other))), (is, is));
            }
            let hash = Keys::hash(&key(number));
            assert_eq!((keys.hash_of(number), shared.hash_of(number)), (hash, hash));
        }
        keys.set(1, &key(7));
        assert!(shared.is(1, &key(7)) && !shared.is(1, &key(1)), "a number that is used again has another key");
        for never_given in [2 << 22, BLOCKS_MAX - 1, u32::MAX] {
            assert!(!shared.is(never_given, &BlockKey::from_bytes([0; 32])));
        }
    }
}
