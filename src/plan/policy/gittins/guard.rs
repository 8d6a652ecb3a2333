//! Whether LRU would do better: both orders on the keys alone, with as many as the tier has blocks, or on a sample of them.

use std::collections::VecDeque;

use rand::RngExt;
use rand_pcg::Pcg64Mcg;

use super::DOUBT;
use super::learner::Learner;
pub(super) use super::shadow::Seen;
use super::shadow::Shadow;
use crate::vocab::limits::SHADOW_BLOCKS;

/// Hits are looked at over so many times the tier's blocks: each change of the order costs what the tier holds by the other one, so
/// that few changes matter more than quick ones.
const WINDOW: f64 = 64.0;
/// And over so many requests at least: some are as long as a tier.
const REQUESTS: f64 = 256.0;
/// LRU leads once it is ahead by this share of the blocks asked for, and until ours is ahead again.
const BEHIND: f64 = 0.000_2;
/// In the beginning a few requests are luck: of the first requests ours must be ahead by so many requests' blocks, and by less and
/// less over so many requests.
const LUCK: f64 = 4.0;
const BEGINNING: f64 = 3_000.0;

/// Leaves that an eviction from our shadow looks at: half as many as one from the tier decide as often which order leads.
const SHADOW_DRAWS: usize = 32;
/// Steps for each block that is shown: two in each shadow, and some for their ends.
const STEPS: usize = 8;

/// A request that the shadows follow.
struct Pass {
    chain: Vec<Seen>,
    clock: u32,
    begun: bool,
    /// Whether LRU's shadow and ours have yet to follow it.
    left: [bool; 2],
}

/// See above.
#[derive(Default)]
pub(super) struct Guard {
    lru: Shadow,
    own: Shadow,
    /// The request that is being shown, and those that both orders have yet to follow.
    chain: Vec<Seen>,
    pending: VecDeque<Pass>,
    /// Blocks that the tier has room for, once that is known.
    capacity: Option<usize>,
    /// One key in 2^`sampled` is looked at.
    sampled: u32,
    /// Hits of ours more than those of LRU, and blocks asked for, in the window.
    lead: f64,
    asked: f64,
    /// Requests that were followed.
    judged: f64,
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

    /// All of a request's blocks were shown.
    pub(super) fn end(&mut self, clock: u32) {
        let mut chain = std::mem::take(&mut self.chain);
        chain.sort_unstable_by_key(|seen| seen.depth);
        self.pending.push_back(Pass { chain, clock, begun: false, left: [true, true] });
    }

    /// Goes on with the requests that were shown, a few steps: for each block shown as many as it takes.
    pub(super) fn work(&mut self, learner: &mut Learner, random: &mut Pcg64Mcg) {
        for _ in 0..STEPS {
            let Some(mut pass) = self.pending.pop_front() else { return };
            let capacity = self.capacity.map_or(usize::MAX, |blocks| (blocks >> self.sampled).max(1));
            if !pass.begun {
                pass.begun = true;
                self.judge(&pass.chain, capacity);
            }
            let Pass { chain, clock, left: [lru, own], .. } = &mut pass;
            if *lru {
                *lru = !self.lru.step(chain, *clock, capacity, |shadow, _| shadow.oldest());
            } else {
                let (clock, refuses) = (*clock, self.refuses);
                *own = !self.own.step(chain, clock, capacity, |shadow, seen| {
                    let (victim, lowest) = lowest(shadow, learner, random)?;
                    (!refuses || learner.index_at(seen.class, clock) >= lowest).then_some(victim)
                });
            }
            if pass.left == [false, false] {
                self.thin();
            } else {
                self.pending.push_front(pass);
            }
        }
    }

    /// What either order would have hit of a request, and so which of them leads.
    fn judge(&mut self, chain: &[Seen], capacity: usize) {
        let (ours, lrus, asked) = (self.own.run(chain) as f64, self.lru.run(chain) as f64, chain.len() as f64);
        let window = WINDOW * capacity.min(SHADOW_BLOCKS) as f64;
        let keeps = (1.0 - asked / window).max(1.0 - 1.0 / REQUESTS);
        (self.lead, self.asked) = (self.lead * keeps + ours - lrus, self.asked * keeps + asked);
        self.judged += 1.0;
        let luck = LUCK * (1.0 - self.judged / BEGINNING).max(0.0);
        // A request that takes all of the tier leaves nothing to choose.
        if asked > capacity as f64 || self.lead < -BEHIND * self.asked {
            self.lru_leads = true;
        } else if self.lead > luck * asked {
            self.lru_leads = false;
        }
    }

    /// Looks at half of the keys where there are too many.
    fn thin(&mut self) {
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
        let pending: usize = self.pending.iter().map(|pass| pass.chain.capacity()).sum();
        self.lru.bytes() + self.own.bytes() + (self.chain.capacity() + pending) * size_of::<Seen>()
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
    for _ in 0..if leaves > 0 { SHADOW_DRAWS } else { 0 } {
        let number = shadow.leaves()[random.random_range(0..leaves)];
        let index = index(shadow, number);
        if lowest.is_none_or(|(_, least)| index < least) {
            lowest = Some((number, index));
        }
    }
    lowest
}
