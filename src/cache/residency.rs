//! What lookups read: for each readable block, where it is. Written by the planner's thread, read by all others without
//! asking it.
//!
//! Keys are not kept here but compared where the planner keeps them, by number. Of a block that is on NVMe only there is
//! no more than its number: where to read it, and what its checksum must be, the planner says with the load.

use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashTable;

use crate::plan::{Keys, Planner, Residence, gallop};
use crate::vocab::{BlockKey, TierCounts};

/// A block's number, and in its highest bit, which no number uses, whether RAM has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u32);

impl Mark {
    const IN_RAM: u32 = 1 << 31;

    const fn number(self) -> u32 {
        self.0 & !Self::IN_RAM
    }

    const fn in_ram(self) -> bool {
        self.0 & Self::IN_RAM != 0
    }
}

const _: () = assert!(crate::vocab::limits::BLOCKS_MAX <= Mark::IN_RAM, "the highest bit of a number is free");

/// The readable blocks of one part of all keys. The key is a hash, so its last bytes hash the tables.
#[derive(Debug, Default)]
struct Shard {
    readable: HashTable<Mark>,
    /// Those in RAM, by number.
    in_ram: HashTable<(u32, Residence)>,
}

/// The published map, in parts enough that two lookups on a few dozen cores rarely meet.
pub struct Residency {
    keys: Arc<Keys>,
    shards: Box<[RwLock<Shard>]>,
}

impl Residency {
    /// An empty one, for the blocks whose keys these are.
    #[must_use]
    pub fn new(keys: Arc<Keys>) -> Self {
        Self { keys, shards: std::iter::repeat_with(RwLock::default).take(Keys::PARTS).collect() }
    }

    /// Where a block is; `None`: it is not readable.
    #[must_use]
    pub fn get(&self, key: &BlockKey) -> Option<Residence> {
        let shard = self.shards[Keys::part(key)].read().unwrap_or_else(PoisonError::into_inner);
        let mark = *shard.readable.find(Keys::hash(key), |mark| self.keys.is(mark.number(), key))?;
        if !mark.in_ram() {
            return Some(Residence { ram: None, nvme: true });
        }
        shard.in_ram.find(Keys::hash(key), |(number, _)| *number == mark.number()).map(|(_, residence)| *residence)
    }

    /// Makes a block readable, or changes where it is.
    pub(super) fn publish(&self, number: u32, key: &BlockKey, residence: Residence) {
        let (hash, keys) = (Keys::hash(key), &self.keys);
        let mut shard = self.shards[Keys::part(key)].write().unwrap_or_else(PoisonError::into_inner);
        let mark = Mark(if residence.ram.is_some() { number | Mark::IN_RAM } else { number });
        let rehash = |mark: &Mark| keys.hash_of(mark.number());
        let mut known = shard.readable.entry(hash, |mark| mark.number() == number, rehash).or_insert(mark);
        let before = std::mem::replace(known.get_mut(), mark);
        let is_here = |(known, _): &(u32, Residence)| *known == number;
        if mark.in_ram() {
            let rehash = |(number, _): &(u32, Residence)| keys.hash_of(*number);
            let mut place = shard.in_ram.entry(hash, is_here, rehash).or_insert((number, residence));
            place.get_mut().1 = residence;
        } else if before.in_ram()
            && let Ok(found) = shard.in_ram.find_entry(hash, is_here)
        {
            found.remove();
        }
    }

    /// Makes all blocks readable that a planner has found so at its start; on several threads, of which each has parts of
    /// its own.
    pub fn fill(&self, planner: &Planner, threads: usize) {
        let blocks = usize::try_from(planner.holdings().nvme_blocks).unwrap_or(usize::MAX);
        let fill = |thread: usize| {
            for part in (thread..Keys::PARTS).step_by(threads) {
                let mut shard = self.shards[part].write().unwrap_or_else(PoisonError::into_inner);
                // A little below the size that it will have.
                let least = Keys::share(part, blocks) * 9 / 10;
                shard.readable.reserve(least, |mark| self.keys.hash_of(mark.number()));
            }
            let own = planner.readable().filter(|(_, key, _)| Keys::part(key) % threads == thread);
            own.for_each(|(block, key, residence)| self.publish(block.number(), &key, residence));
        };
        std::thread::scope(|scope| {
            (1..threads).for_each(|thread| drop(scope.spawn(move || fill(thread))));
            fill(0);
        });
    }

    /// Makes a block unreadable.
    pub(super) fn unpublish(&self, number: u32, key: &BlockKey) {
        let mut shard = self.shards[Keys::part(key)].write().unwrap_or_else(PoisonError::into_inner);
        if let Ok(found) = shard.readable.find_entry(Keys::hash(key), |mark| mark.number() == number) {
            found.remove();
        }
        if let Ok(found) = shard.in_ram.find_entry(Keys::hash(key), |(known, _)| *known == number) {
            found.remove();
        }
    }

    /// Bytes that it takes: what of it grows with blocks on NVMe, and what with blocks in RAM.
    #[must_use]
    pub fn bytes(&self) -> [usize; 2] {
        let mut bytes = [0; 2];
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            bytes[0] += shard.readable.allocation_size() + size_of::<RwLock<Shard>>();
            bytes[1] += shard.in_ram.allocation_size();
        }
        bytes
    }

    /// How much of a chain is readable, by tier. Gallops: only what has all its ancestors is published, and `ram_run`
    /// holds for a prefix of it. While blocks come and go the answer may be off by those; a lease settles it.
    pub fn prefix(&self, blocks: usize, key: impl Fn(usize) -> BlockKey) -> TierCounts {
        let hit = gallop(blocks, |at| self.get(&key(at)).is_some());
        let ram = gallop(hit, |at| self.get(&key(at)).and_then(|residence| residence.ram).is_some_and(|ram| ram.run));
        let count = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
        TierCounts { engine: 0, ram: count(ram), nvme: count(hit - ram), missed: count(blocks - hit) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::plan::{Answer, Command, Event, Offer, Options, PutId, Transfer};
    use crate::vocab::{Hints, Owner, OwnerPath, Retention, TierShape, Timestamp};

    const SLOT: u32 = 4_096;
    const KEYS: u64 = 60;

    fn key(number: u64) -> BlockKey {
        BlockKey::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    /// A planner whose commands are done at once, with what lookups are told carried out.
    struct World {
        planner: Planner,
        residency: Arc<Residency>,
        published: BTreeMap<BlockKey, Residence>,
        /// Keys of the blocks that a put was asked for, by number.
        wanted: BTreeMap<u32, BlockKey>,
        puts: u64,
    }

    impl World {
        fn new() -> Self {
            let tier = |slots: u64| TierShape::with_extent(slots * u64::from(SLOT), 4 * u64::from(SLOT));
            let planner = Planner::new(Options::new(tier(6), tier(20)));
            let residency = Arc::new(Residency::new(planner.keys()));
            Self { planner, residency, published: BTreeMap::new(), wanted: BTreeMap::new(), puts: 0 }
        }

        fn tell(&mut self, event: Event) -> Answer {
            let mut commands = Vec::new();
            let answer = self.planner.on(Timestamp(1_000), event, &mut commands);
            let mut ends = Vec::new();
            for command in commands {
                match command {
                    Command::Publish { block, key, residence } => {
                        self.residency.publish(block.number(), &key, residence);
                        self.published.insert(key, residence);
                    }
                    Command::Unpublish { block, key } => {
                        self.residency.unpublish(block.number(), &key);
                        self.published.remove(&key);
                    }
                    Command::Fill { block, .. } => {
                        let crc = self.wanted[&block.number()].hash64();
                        ends.push(Event::Filled { block, generation: 1, length: SLOT, crc });
                    }
                    Command::Write(write) => ends.push(Event::Wrote { block: write.block, outcome: Transfer::Done(0) }),
                    Command::Load(load) => ends.push(Event::Loaded { block: load.block, outcome: Transfer::Done(1) }),
                    Command::Erase { slot, .. } => ends.push(Event::Erased { slot }),
                    Command::Retire { slot, .. } => ends.push(Event::RamFreed { slot }),
                    Command::Unloadable { .. }
                    | Command::Refuse { .. }
                    | Command::Promise { .. }
                    | Command::Unpromise { .. } => {}
                }
            }
            ends.into_iter().for_each(|end| drop(self.tell(end)));
            answer
        }

        /// Puts one chain, and asks for one block.
        fn step(&mut self, step: u64) {
            let first = step * 7 % (KEYS / 4) * 4;
            let keys: Arc<[BlockKey]> = (first..first + 4).map(key).collect();
            self.puts += 1;
            let (put, owners) = (PutId(self.puts), OwnerPath::all(Owner::default()));
            let offered = Arc::clone(&keys);
            let (payload_max, retention) = (SLOT, Retention::default());
            let offer =
                Offer { put, parent: None, depth: 0, keys, payload_max, owners, retention, hints: Hints::default() };
            let answer = self.tell(Event::Offer(offer));
            let Answer::Offered { wanted, .. } = answer else { panic!("{answer:?}") };
            for (key, block) in offered.iter().zip(wanted).filter_map(|(key, block)| Some((*key, block?))) {
                self.wanted.insert(block.number(), key);
                self.tell(Event::Need { block });
            }
            self.tell(Event::PutEnded { put });
            self.tell(Event::Want { key: key(step * 11 % KEYS) });
        }
    }

    #[test]
    fn lookups_find_what_was_published_last_and_nothing_else() {
        let mut world = World::new();
        let mut seen = [0; 3];
        for step in 0..2_000 {
            world.step(step);
            for key in (0..KEYS).map(key) {
                let found = world.residency.get(&key);
                assert_eq!(found, world.published.get(&key).copied(), "{key:?} after step {step}");
                seen[found.map_or(0, |residence| 1 + usize::from(residence.ram.is_some()))] += 1;
            }
        }
        assert!(seen.iter().all(|times| *times > 1_000), "unknown, on NVMe only, in RAM: {seen:?}");
    }

    #[test]
    fn a_lookup_at_any_moment_finds_its_own_block_or_none() {
        let mut world = World::new();
        let (residency, done) = (Arc::clone(&world.residency), AtomicBool::new(false));
        let read = || {
            let mut found = 0;
            while !done.load(Ordering::Relaxed) {
                for key in (0..KEYS).map(key) {
                    let place = residency.get(&key).and_then(|residence| residence.ram);
                    assert!(place.is_none_or(|place| place.crc == key.hash64()), "the place of another block");
                    found += u64::from(place.is_some());
                }
            }
            found
        };
        std::thread::scope(|scope| {
            let reader = scope.spawn(read);
            (0..5_000).for_each(|step| world.step(step));
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
    }
}
