//! Extents that move from one size class to another, coldest first, as namespaces come and go.
//!
//! A class that has no free slot may get an extent of another class instead of letting its own blocks go. The extent is
//! emptied in the same event; its slots are the new class's once the world has let go of the last of them. Whatever hangs
//! on its blocks goes too, which is why the extent is chosen whose last use is longest ago: a use of a block counts for
//! all before it, so nothing that goes was used later than that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::entry::{Nvme, Ram};
use super::event::BlockRef;
use super::planner::Planner;
use super::shelf::Shelf;
use crate::vocab::limits::{EXTENT_CANDIDATES, EXTENT_LOOK_EVERY, EXTENT_STARVED, EXTENT_STARVED_LEAST};
use crate::vocab::{AccountId, Tier, Timestamp};

impl Planner {
    pub(super) fn shelf(&mut self, tier: Tier) -> &mut Shelf {
        match tier {
            Tier::Ram => &mut self.ram,
            Tier::Nvme => &mut self.nvme,
        }
    }

    /// Gives the class an extent of another one, if that is worth more than letting the class's own coldest block go.
    /// Whether it did: then slots are promised to the class.
    pub(super) fn move_an_extent(&mut self, tier: Tier, class: u8) -> bool {
        let now = self.now;
        let shelf = self.shelf(tier);
        if shelf.space.class_count() < 2 {
            return false;
        }
        let has_none = shelf.space.extents_of(class) == 0;
        if !has_none && now < shelf.next_look {
            return false;
        }
        shelf.next_look = now + EXTENT_LOOK_EVERY;
        let own = if has_none { Some(now) } else { self.tail_use(tier, class) };
        // A tail that nobody reaches costs nothing to let go.
        let Some(own) = own else { return false };
        let candidates = self.coldest_extents(tier, class);
        let chosen = candidates.into_iter().find_map(|(touched, extent, of)| {
            let worth = has_none || touched < own || self.is_starved(tier, class, of);
            let blocks = if worth { self.blocks_that_go(tier, extent) } else { None };
            blocks.map(|blocks| (extent, blocks))
        });
        let Some((extent, blocks)) = chosen else { return false };
        self.counters.extents_moved += 1;
        let shelf = self.shelf(tier);
        let slots = shelf.space.leave(extent, class);
        shelf.promise(class, slots);
        for block in blocks {
            self.let_go(tier, block);
        }
        true
    }

    /// When the coldest block of a class was used last; `None` where it has none that a lookup could reach.
    fn tail_use(&mut self, tier: Tier, class: u8) -> Option<Timestamp> {
        let lane = *self.giving_lanes(tier, class, AccountId::default()).first()?;
        let (coldest, used) = self.shelf(tier).coldest(class, lane)?;
        let number = if tier == Tier::Ram { self.catalog.actives.block(coldest) } else { coldest };
        self.catalog[number].is_readable().then_some(used)
    }

    /// Whether a class lets go of what was used a short while ago while another keeps what was not for much longer.
    fn is_starved(&mut self, tier: Tier, class: u8, other: u8) -> bool {
        let now = self.now;
        let age = |planner: &mut Self, class| planner.tail_use(tier, class).map(|used| now.since(used));
        match (age(self, class), age(self, other)) {
            (Some(own), Some(others)) => others > own.saturating_mul(EXTENT_STARVED).max(EXTENT_STARVED_LEAST),
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// Extents of other classes that are not being moved already, the one first that was used longest ago.
    fn coldest_extents(&mut self, tier: Tier, class: u8) -> Vec<(Timestamp, u16, u8)> {
        let space = &self.shelf(tier).space;
        let slot_class = space.class(class);
        let mut found: Vec<_> = space
            .extents()
            .filter(|(number, extent)| {
                extent.class != class
                    && extent.leaving.is_none()
                    && extent.draining() == 0
                    && !space.is_lost(*number)
                    && space.shape().slots(*number, slot_class) > 0
            })
            .map(|(number, extent)| (extent.touched, number, extent.class))
            .collect();
        if found.len() > EXTENT_CANDIDATES {
            found.select_nth_unstable(EXTENT_CANDIDATES);
            found.truncate(EXTENT_CANDIDATES);
        }
        found.sort_unstable();
        found
    }

    /// The blocks of an extent and what hangs on them in the tier, leaves first; `None` where one of them may not go.
    fn blocks_that_go(&mut self, tier: Tier, extent: u16) -> Option<Vec<BlockRef>> {
        let mut stack: Vec<u32> = self.shelf(tier).space.extent(extent)?.blocks().collect();
        let mut found = BTreeSet::new();
        let mut taken = BTreeMap::new();
        while let Some(number) = stack.pop() {
            let entry = &self.catalog[number];
            let (there, may_go) = match tier {
                Tier::Ram => (entry.ram != Ram::Absent, self.catalog.ram_may_go_with_children(number)),
                Tier::Nvme => (!entry.is_ghost(), self.catalog.may_go_with_children(number)),
            };
            if !there {
                continue;
            }
            if !may_go || !self.may_be_taken(tier, number, &mut taken) {
                return None;
            }
            if found.insert((Reverse(entry.depth), number)) {
                stack.extend(self.catalog.children(number));
            }
        }
        Some(found.into_iter().map(|(_, number)| self.reference(number)).collect())
    }

    /// One of the blocks that go.
    fn let_go(&mut self, tier: Tier, block: BlockRef) {
        // Gone already, as a ghost without children.
        let Some(number) = self.catalog.resolve(block) else { return };
        match tier {
            Tier::Ram if self.catalog[number].ram == Ram::Resident => {
                self.counters.ram_evicted += 1;
                self.drop_from_ram(number);
                self.prune(number);
            }
            Tier::Nvme if !self.catalog[number].is_ghost() => {
                self.counters.nvme_evicted += u64::from(self.catalog[number].nvme == Nvme::Resident);
                self.drop_everywhere(number);
            }
            Tier::Ram | Tier::Nvme => {}
        }
    }
}
