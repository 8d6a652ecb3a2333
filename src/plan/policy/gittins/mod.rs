//! The policy of our own: how likely a block is to be used again, for the time that it would take until then.
//!
//! Each block is of a class, by what is known of it and of the request that used it last ([`features`]). For each class it
//! learns, from all blocks that it remembers, those that have gone included, how likely a use is at which age
//! ([`learner`]: hazards, Kaplan and Meier 1958). A block's index is then the best ratio, over all times that it might be kept
//! for, of the chance of a use to the expected time kept: Gittins, "Bandit processes and dynamic allocation indices" (1979),
//! which Aggarwal et al. carry to caches. The lowest index goes: of a sample of leaves, and of the leaf that LRU would let go,
//! which has the benefit of the doubt. Nothing is known in the beginning; then it is LRU. And should LRU do better for a while,
//! it is LRU for as long ([`guard`]).

mod features;
mod guard;
mod learner;
mod shadow;
#[cfg(test)]
mod tests;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::super::column::Column;
use super::ghosts::Ghosts;
use super::leaves::Leaves;
use super::lru::Lru;
use super::{Ask, Facts, Heat, Policy, Use, Visit};
use crate::vocab::limits::{GHOSTS_MAX, GHOSTS_MIN, GHOSTS_PER_BLOCK};
use features::{Features, Owners};
use guard::{Guard, Seen};
use learner::{Group, Learner};

/// Leaves that an eviction looks at. Twice as many gain nothing more, half as many lose a twentieth of the gain.
const DRAWS: usize = 64;
/// A leaf goes instead of LRU's own if its index is lower than this share of that one's: hazards are estimates, and where they
/// say nothing recency is right.
const DOUBT: f32 = 0.85;
/// Rounds of draws where nothing drawn may go: then LRU's order decides, which finds what there is.
const ROUNDS: usize = 4;

/// The mark of a block that is to go first.
const CHILLED: u32 = 1 << 31;
const NO_GROUP: u32 = u32::MAX;

/// See above.
pub(super) struct Gittins {
    lru: Lru,
    leaves: Leaves,
    learner: Learner,
    owners: Owners,
    /// Each block's group, and whether it was chilled.
    groups: Column<u32>,
    ghosts: Ghosts<Group>,
    held: usize,
    guard: Guard,
    random: Pcg64Mcg,
    /// The leaf that a block was last weighed against: the next to go, if it may.
    drawn: Option<(u16, u32)>,
}

impl Default for Gittins {
    fn default() -> Self {
        Self {
            lru: Lru::default(),
            leaves: Leaves::default(),
            learner: Learner::default(),
            owners: Owners::default(),
            groups: Column::new(NO_GROUP),
            ghosts: Ghosts::default(),
            held: 0,
            guard: Guard::default(),
            random: Pcg64Mcg::seed_from_u64(0),
            drawn: None,
        }
    }
}

impl Gittins {
    fn group(&self, block: u32) -> Group {
        Group(self.groups[block] & !CHILLED)
    }

    fn features(&mut self, uses: u8, facts: &Facts, visit: &Visit) -> Features {
        Features::of_new(uses, self.owners.number(&facts.owner), facts, visit)
    }

    fn is_chilled(&self, block: u32) -> bool {
        self.groups[block] & CHILLED != 0
    }

    /// Whether LRU's order is the one to follow now.
    fn is_lru(&self) -> bool {
        self.guard.lru_leads() || !self.learner.is_seasoned()
    }

    /// The leaf with the lowest index, of LRU's own and of a sample, and that index.
    fn lowest(&mut self, list: u16, own: Option<u32>, evictable: &mut dyn FnMut(u32) -> bool) -> Option<(u32, f32)> {
        let mut lowest = own.map(|block| (block, DOUBT * self.learner.index(self.group(block))));
        let leaves = self.leaves.of(list);
        if leaves.is_empty() {
            return lowest;
        }
        for _ in 0..ROUNDS {
            for _ in 0..DRAWS {
                let block = leaves[self.random.random_range(0..leaves.len())];
                let group = Group(self.groups[block] & !CHILLED);
                if self.learner.is_of_now(group) {
                    // What the request has just read or loaded does not go for the rest of it.
                    continue;
                }
                let index = self.learner.index(group);
                if lowest.is_none_or(|(_, least)| index < least) && evictable(block) {
                    lowest = Some((block, index));
                }
            }
            if lowest.is_some() {
                break;
            }
        }
        lowest
    }

    /// What a use of a remembered block tells, and how many uses it has had with this one.
    fn return_of(&mut self, key: u64) -> u8 {
        self.ghosts.take(key).map_or(1, |group| self.learner.used(group))
    }

    fn forget(&mut self) {
        let most = (self.held * GHOSTS_PER_BLOCK).clamp(GHOSTS_MIN, GHOSTS_MAX);
        while let Some(group) = self.ghosts.forget(most) {
            self.learner.leave(group);
        }
    }

    fn remember(&mut self, key: u64, group: Group) {
        if let Some(before) = self.ghosts.put(key, group) {
            self.learner.leave(before);
        }
        self.forget();
    }

    /// Tells the guard of a block of a request, and with the first of its chain, that this was all of it.
    fn show(&mut self, facts: &Facts, features: Features) {
        self.guard.see(Seen { key: facts.key, depth: facts.depth, class: features.class() });
        if facts.depth == 0 {
            self.guard.end(self.learner.clock());
        }
        self.guard.work(&mut self.learner, &mut self.random);
    }
}

impl Policy for Gittins {
    fn name(&self) -> &'static str {
        "gittins"
    }

    fn tick(&mut self) {
        self.learner.tick();
    }

    fn remembers(&self, key: u64) -> bool {
        self.ghosts.get(key).is_some()
    }

    fn admits(&mut self, list: u16, facts: &Facts, visit: &Visit) -> bool {
        self.guard.refuses();
        if self.is_lru() {
            return true;
        }
        let uses = self.ghosts.get(facts.key).map_or(1, |group| self.learner.uses(*group).saturating_add(1));
        let features = self.features(uses, facts, visit);
        let own = self.learner.index_of_new(features);
        let oldest = self.lru.oldest(list);
        let lowest = self.lowest(list, oldest, &mut |_| true);
        let admitted = lowest.is_none_or(|(_, lowest)| own >= lowest);
        self.drawn = lowest.filter(|_| admitted).map(|(block, _)| (list, block));
        admitted
    }

    fn pass(&mut self, facts: &Facts, visit: &Visit) {
        let uses = self.return_of(facts.key);
        let features = self.features(uses, facts, visit);
        let group = self.learner.enter(features, uses);
        self.remember(facts.key, group);
        self.show(facts, features);
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat, ask: Ask<'_>, visit: &Visit) {
        let facts = ask();
        self.held += 1;
        let uses = self.return_of(facts.key);
        let features = self.features(uses, &facts, visit);
        let group = self.learner.enter(features, uses);
        let chilled = if heat == Heat::Cold { CHILLED } else { 0 };
        self.groups.reach(block);
        self.groups[block] = group.0 | chilled;
        self.lru.enter(list, block, heat);
        self.leaves.add(list, block);
    }

    fn touch(&mut self, list: u16, block: u32, ask: Ask<'_>, why: Use) {
        self.lru.warm(list, block);
        let group = self.group(block);
        self.groups[block] = match why {
            Use::Again => group,
            Use::Read => {
                let features = self.learner.features(group);
                let uses = self.learner.used(group);
                self.learner.enter(features.read_again(uses), uses)
            }
            Use::Stored(visit) => {
                let (facts, uses) = (ask(), self.learner.uses(group));
                let features = self.features(uses, &facts, &visit);
                let group = self.learner.reclass(group, features);
                self.groups[block] = group.0;
                self.show(&facts, features);
                group
            }
        }
        .0;
    }

    fn chill(&mut self, list: u16, block: u32) {
        self.groups[block] |= CHILLED;
        self.lru.chill(list, block);
    }

    fn remove(&mut self, block: u32, ask: Ask<'_>) {
        self.held -= 1;
        self.drawn = self.drawn.filter(|(_, drawn)| *drawn != block);
        self.lru.leave(block);
        self.leaves.remove(block);
        let group = self.group(block);
        self.groups[block] = NO_GROUP;
        self.remember(ask().key, group);
    }

    fn leaf(&mut self, list: u16, block: u32, leaf: bool) {
        if leaf {
            self.leaves.add(list, block);
        } else {
            self.leaves.remove(block);
        }
    }

    fn oldest(&self, list: u16) -> Option<u32> {
        self.lru.oldest(list)
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        self.guard.full_at(self.held);
        let own = self.lru.victim(list, evictable)?;
        if self.is_lru() || self.is_chilled(own) {
            return Some(own);
        }
        if let Some((_, drawn)) = self.drawn.take().filter(|(of, drawn)| *of == list && evictable(*drawn)) {
            return Some(drawn);
        }
        self.lowest(list, Some(own), evictable).map(|(block, _)| block)
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        self.lru.relist(from, to, moves);
        self.leaves.relist(from, to, moves);
    }

    fn bytes(&self) -> usize {
        self.lru.bytes()
            + self.leaves.bytes()
            + self.groups.bytes()
            + self.learner.bytes()
            + self.ghosts.bytes()
            + self.guard.bytes()
    }
}
