//! Whether LRU would do better: both orders on the keys alone, with as many as the tier has blocks, or on a sample of them.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::learner::Learner;
pub(super) use super::shadow::Seen;
use super::shadow::Shadow;
use super::{DOUBT, DRAWS};
use crate::vocab::limits::SHADOW_BLOCKS;

/// Hits are looked at over so many times the tier's blocks.
const WINDOW: f64 = 16.0;
/// LRU leads once it is ahead by this share of the blocks asked for: at once, since each loss counts, and an order that is better
/// loses as good as nothing by a few requests of LRU.
const BEHIND: f64 = 0.000_1;
/// And no more once it is behind by this share.
const AHEAD: f64 = 0.000_5;

/// See above.
#[derive(Default)]
pub(super) struct Guard {
    lru: Shadow,
    own: Shadow,
    /// The request that is being shown.
    chain: Vec<Seen>,
    /// Blocks that the tier has room for, once that is known.
    capacity: Option<usize>,
    /// One key in 2^`sampled` is looked at.
    sampled: u32,
    /// Hits of ours more than those of LRU, and blocks asked for, in the window.
    lead: f64,
    asked: f64,
    lru_leads: bool,
    /// The tier refuses what is worth less than what would go for it.
    refuses: bool,
}

impl Guard {
    pub(super) fn lru_leads(&self) -> bool {
        self.lru_leads
    }

    /// The tier is full with so many blocks.
    pub(super) fn full_at(&mut self, blocks: usize) {
        self.capacity = Some(blocks);
    }

    /// The tier refuses what is not worth it.
    pub(super) fn refuses(&mut self) {
        self.refuses = true;
    }

    /// A block of a request, in any order.
    pub(super) fn see(&mut self, seen: Seen) {
        if self.samples(seen.key) {
            self.chain.push(seen);
        }
    }

    fn samples(&self, key: u64) -> bool {
        // The map looks at other bits.
        (key >> 32) & ((1 << self.sampled) - 1) == 0
    }

    /// The request was shown: what would either order have hit, and which of them leads?
    pub(super) fn judge(&mut self, learner: &mut Learner, random: &mut Pcg64Mcg) {
        let mut chain = std::mem::take(&mut self.chain);
        chain.sort_unstable_by_key(|seen| seen.depth);
        let capacity = self.capacity.map_or(usize::MAX, |blocks| (blocks >> self.sampled).max(1));
        let (ours, lrus, asked) = (self.own.run(&chain) as f64, self.lru.run(&chain) as f64, chain.len() as f64);
        let window = WINDOW * capacity.min(SHADOW_BLOCKS) as f64;
        let keeps = (1.0 - asked / window).max(0.0);
        (self.lead, self.asked) = (self.lead * keeps + ours - lrus, self.asked * keeps + asked);
        if self.lead < -BEHIND * self.asked {
            self.lru_leads = true;
        } else if self.lead > AHEAD * self.asked {
            self.lru_leads = false;
        }
        let (clock, refuses) = (learner.clock(), self.refuses);
        self.lru.visit(&chain, clock, capacity, |shadow, _| shadow.oldest());
        self.own.visit(&chain, clock, capacity, |shadow, seen| {
            let (victim, lowest) = lowest(shadow, learner, random)?;
            (!refuses || learner.index_at(seen.class, clock) >= lowest).then_some(victim)
        });
        chain.clear();
        self.chain = chain;
        while self.own.len().max(self.lru.len()) > SHADOW_BLOCKS {
            self.sampled += 1;
            let mask = (1 << self.sampled) - 1;
            for shadow in [&mut self.lru, &mut self.own] {
                shadow.thin(|key| (key >> 32) & mask == 0);
            }
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.lru.bytes() + self.own.bytes() + self.chain.capacity() * size_of::<Seen>()
    }
}

/// As the policy chooses, of the keys.
fn lowest(shadow: &mut Shadow, learner: &mut Learner, random: &mut Pcg64Mcg) -> Option<(u32, f32)> {
    let mut index = |shadow: &Shadow, number: u32| {
        let node = shadow.node(number);
        learner.index_at(node.class, node.at)
    };
    let mut lowest = shadow.oldest().map(|oldest| (oldest, DOUBT * index(shadow, oldest)));
    let leaves = shadow.leaves().len();
    for _ in 0..if leaves > 0 { DRAWS } else { 0 } {
        let number = shadow.leaves()[random.random_range(0..leaves)];
        let index = index(shadow, number);
        if lowest.is_none_or(|(_, least)| index < least) {
            lowest = Some((number, index));
        }
    }
    lowest
}
