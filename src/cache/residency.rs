//! What lookups read: for each readable block, where it is. Written by the planner's thread, read by all others without
//! asking it.

use std::sync::{PoisonError, RwLock};

use hashbrown::HashTable;

use crate::plan::{Residence, gallop};
use crate::vocab::{BlockKey, TierCounts};

/// Enough that two lookups on a few dozen cores rarely meet.
const SHARDS: usize = 64;

type Shard = RwLock<HashTable<(BlockKey, Residence)>>;

/// The published map.
pub struct Residency {
    shards: Vec<Shard>,
}

impl Default for Residency {
    fn default() -> Self {
        Self { shards: std::iter::repeat_with(Shard::default).take(SHARDS).collect() }
    }
}

impl Residency {
    /// The key is a hash, so its last byte is as good a shard number as any, and its first bytes hash the table.
    fn shard(&self, key: &BlockKey) -> &Shard {
        &self.shards[usize::from(key.as_bytes()[31]) % SHARDS]
    }

    /// Where a block is; `None`: it is not readable.
    #[must_use]
    pub fn get(&self, key: &BlockKey) -> Option<Residence> {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        shard.find(key.hash64(), |(known, _)| known == key).map(|(_, residence)| *residence)
    }

    /// Makes a block readable, or changes where it is.
    pub(super) fn publish(&self, key: BlockKey, residence: Residence) {
        let mut shard = self.shard(&key).write().unwrap_or_else(PoisonError::into_inner);
        match shard.find_mut(key.hash64(), |(known, _)| *known == key) {
            Some((_, known)) => *known = residence,
            None => {
                shard.insert_unique(key.hash64(), (key, residence), |(key, _)| key.hash64());
            }
        }
    }

    /// Makes a block unreadable.
    pub(super) fn unpublish(&self, key: &BlockKey) {
        let mut shard = self.shard(key).write().unwrap_or_else(PoisonError::into_inner);
        if let Ok(found) = shard.find_entry(key.hash64(), |(known, _)| known == key) {
            found.remove();
        }
    }

    /// How much of a chain is readable, by tier. Gallops: only what has all its ancestors is published, and `ram_run`
    /// holds for a prefix of it. While blocks come and go the answer may be off by those; a lease settles it.
    pub fn prefix(&self, blocks: usize, key: impl Fn(usize) -> BlockKey) -> TierCounts {
        let hit = gallop(blocks, |at| self.get(&key(at)).is_some());
        let ram = gallop(hit, |at| self.get(&key(at)).is_some_and(|residence| residence.ram_run));
        let count = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
        TierCounts { engine: 0, ram: count(ram), nvme: count(hit - ram), missed: count(blocks - hit) }
    }
}
