//! What every policy must do, whatever its order: seeded streams of events over a tree, against a model of who is in.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Facts, Heat, Policy, PolicyKind, Use, Visit};
use crate::vocab::{Hints, Owner};

/// A tier of chains as a planner would keep it.
struct Tier {
    policy: Box<dyn Policy>,
    /// List, parent and children of each block that is in.
    blocks: BTreeMap<u32, (u16, Option<u32>, u32)>,
    random: Pcg64Mcg,
}

fn facts(block: u32) -> Facts {
    Facts { key: u64::from(block).wrapping_mul(0x9e37_79b9_7f4a_7c15), depth: block % 7, owner: Owner::default() }
}

impl Tier {
    fn new(kind: PolicyKind, seed: u64) -> Self {
        Self { policy: kind.build(), blocks: BTreeMap::new(), random: Pcg64Mcg::seed_from_u64(seed) }
    }

    fn any(&mut self) -> Option<u32> {
        let at = self.random.random_range(0..self.blocks.len().max(1));
        self.blocks.keys().nth(at).copied()
    }

    fn visit(&mut self) -> Visit {
        let random = &mut self.random;
        let again = [None, Some(true), Some(false)][random.random_range(0..3)];
        let hints = Hints { output_tokens: Some(random.random_range(0..5_000)), again };
        Visit { deepest: random.random_range(0..7), fresh: random.random_range(0..9), hints }
    }

    fn insert(&mut self, block: u32) {
        if self.blocks.contains_key(&block) {
            return;
        }
        let list = (block % 3) as u16;
        let parent = block.checked_sub(3).filter(|parent| !block.is_multiple_of(7) && self.blocks.contains_key(parent));
        let heat = if self.random.random_ratio(1, 20) { Heat::Cold } else { Heat::Hot };
        let visit = self.visit();
        self.policy.insert(list, block, heat, &|| facts(block), &visit);
        let orphans = self.children(block);
        if orphans > 0 {
            self.policy.leaf(list, block, false);
        }
        self.blocks.insert(block, (list, parent, orphans));
        if let Some(parent) = parent {
            self.count(parent, 1);
        }
    }

    /// Blocks that are in and say that this is their parent.
    fn children(&self, block: u32) -> u32 {
        self.blocks.values().filter(|(_, parent, _)| *parent == Some(block)).count() as u32
    }

    fn count(&mut self, parent: u32, change: i32) {
        let Some((list, _, children)) = self.blocks.get_mut(&parent) else { return };
        let had = *children > 0;
        *children = children.checked_add_signed(change).unwrap();
        let has = *children > 0;
        if had != has {
            self.policy.leaf(*list, parent, !has);
        }
    }

    fn remove(&mut self, block: u32) {
        self.policy.remove(block, &|| facts(block));
        let (_, parent, _) = self.blocks.remove(&block).unwrap();
        if let Some(parent) = parent {
            self.count(parent, -1);
        }
    }

    fn evict(&mut self, list: u16, pinned: u32) -> bool {
        let blocks = &self.blocks;
        let may_go = |block: u32| {
            blocks.get(&block).is_some_and(|(of, _, children)| *of == list && *children == 0 && block != pinned)
        };
        let victim = self.policy.victim(list, &mut |block| may_go(block));
        let may_any = blocks.keys().any(|block| may_go(*block));
        assert_eq!(victim.is_some(), may_any, "{}: finds one exactly when there is one", self.policy.name());
        assert!(victim.is_none_or(may_go), "{}: {victim:?} was not accepted", self.policy.name());
        victim.inspect(|block| self.remove(*block)).is_some()
    }

    fn step(&mut self) {
        let (block, any, why) = (self.random.random_range(0..400), self.any(), self.random.random_range(0..3));
        match (self.random.random_range(0..100), any) {
            (0..50, _) | (_, None) => self.insert(block),
            (50..75, Some(any)) => {
                let why = [Use::Read, Use::Again, Use::Stored(self.visit())][why];
                let list = self.blocks[&any].0;
                self.policy.touch(list, any, &|| facts(any), why);
            }
            (75..90, _) => {
                self.evict((block % 3) as u16, any.unwrap_or_default());
            }
            (90..92, Some(any)) => self.policy.chill(self.blocks[&any].0, any),
            (92..94, _) => {
                let visit = self.visit();
                self.policy.admits(0, &facts(block), &visit);
                if !self.blocks.contains_key(&block) {
                    self.policy.pass(&facts(block), &visit);
                }
            }
            (94..95, _) => {
                let (from, to) = ((block % 3) as u16, 3);
                self.policy.relist(from, to, &mut |block| block.is_multiple_of(5));
                let moved =
                    self.blocks.iter_mut().filter(|(block, (list, ..))| block.is_multiple_of(5) && *list == from);
                moved.for_each(|(_, (list, ..))| *list = to);
            }
            (_, _) => self.policy.tick(),
        }
    }
}

#[test]
fn every_policy_finds_a_leaf_that_may_go_exactly_when_there_is_one() {
    for kind in PolicyKind::ALL {
        for seed in 0..8 {
            let mut tier = Tier::new(kind, seed);
            for _ in 0..4_000 {
                tier.step();
            }
            // A list may wait for another's blocks to go first.
            while (0..4).any(|list| tier.evict(list, u32::MAX)) {}
            assert!(tier.blocks.is_empty(), "{}: {:?}", kind.name(), tier.blocks);
            assert_eq!((0..4).find_map(|list| tier.policy.oldest(list)), None);
        }
    }
}

#[test]
fn every_policy_does_the_same_for_the_same_events() {
    for kind in PolicyKind::ALL {
        let run = || {
            let mut tier = Tier::new(kind, 9);
            let mut gone = Vec::new();
            for _ in 0..3_000 {
                tier.step();
                gone.push(tier.blocks.keys().copied().collect::<Vec<_>>());
            }
            gone
        };
        assert_eq!(run(), run(), "{}", kind.name());
    }
}

#[test]
fn what_was_chilled_goes_first_and_lists_are_apart() {
    for kind in PolicyKind::ALL {
        let mut policy = kind.build();
        for block in 0..90 {
            policy.insert((block % 2) as u16, block, Heat::Hot, &|| facts(block), &Visit::default());
            policy.touch((block % 2) as u16, block, &|| facts(block), Use::Stored(Visit::default()));
            policy.tick();
        }
        policy.chill(0, 40);
        assert_eq!(policy.victim(0, &mut |_| true), Some(40), "{}", kind.name());
        assert_eq!(policy.victim(1, &mut |_| true).map(|block| block % 2), Some(1), "{}", kind.name());
        assert_eq!(policy.victim(2, &mut |_| true), None);
    }
}

#[test]
fn names_and_kinds_are_one_to_one() {
    for kind in PolicyKind::ALL {
        assert_eq!(PolicyKind::from_name(kind.name()), Some(kind));
        assert_eq!(kind.build().name(), kind.name());
    }
    assert_eq!(PolicyKind::from_name("magic"), None);
}

#[test]
fn a_policy_takes_bounded_memory_for_what_has_gone() {
    for kind in PolicyKind::ALL {
        let mut policy = kind.build();
        for round in 0..400_000_u32 {
            let block = round % 1_000;
            if round >= 1_000 {
                policy.remove(block, &|| facts(round - 1_000));
            }
            policy.insert(0, block, Heat::Hot, &|| facts(round), &Visit::default());
            policy.tick();
        }
        assert!(policy.bytes() < 16 << 20, "{} takes {} bytes for a thousand blocks", kind.name(), policy.bytes());
    }
}
