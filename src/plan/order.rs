//! The orders of going: who is in them, what hangs on whom, and uses, which are noted after the answers that wait for them.

use super::entry::{Nvme, Ram, is_block};
use super::event::{Answer, BlockRef};
use super::planner::Planner;
use super::policy::{Heat, Use, Visit};
use super::shelf::Entrance;
use crate::vocab::{BlockKey, Retention, Tier, Timestamp};

/// A chain that was used and not yet touched, from the block on that is next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Untouched {
    block: BlockRef,
    used: Timestamp,
    why: Use,
    /// How long it is to be kept, where it was stored.
    retention: Option<Retention>,
    /// None of it has been touched yet.
    whole: bool,
}

impl Planner {
    /// A block comes into RAM's order of going.
    pub(super) fn enter_ram_order(&mut self, number: u32, at: u32, heat: Heat) {
        let place = (self.catalog[number].ram_class, self.lane(number));
        let (visit, leaf) = (self.visit, self.catalog[number].ram_children == 0);
        let Self { ram, catalog, now, .. } = self;
        ram.insert(place, at, Entrance { heat, leaf, ask: &|| catalog.facts(number), visit }, *now);
    }

    /// A block comes into the order of going of NVMe.
    pub(super) fn enter_nvme_order(&mut self, number: u32) {
        let place = (self.catalog[number].nvme_class, self.lane(number));
        let (visit, leaf) = (self.visit, self.catalog[number].nvme_children == 0);
        let Self { nvme, catalog, now, .. } = self;
        nvme.insert(place, number, Entrance { heat: Heat::Hot, leaf, ask: &|| catalog.facts(number), visit }, *now);
    }

    pub(super) fn leave_ram_order(&mut self, number: u32, at: u32) {
        let Self { ram, catalog, .. } = self;
        ram.remove(at, &|| catalog.facts(number));
    }

    pub(super) fn leave_nvme_order(&mut self, number: u32) {
        let Self { nvme, catalog, .. } = self;
        nvme.remove(number, &|| catalog.facts(number));
    }

    pub(super) fn touch_ram(&mut self, number: u32, now: Timestamp, why: Use) {
        let (entry, lane) = (&self.catalog[number], self.lane(number));
        let (place, at) = ((entry.ram_class, lane), entry.active);
        let Self { ram, catalog, .. } = self;
        ram.touch(place, at, now, &|| catalog.facts(number), why);
    }

    pub(super) fn touch_nvme(&mut self, number: u32, now: Timestamp, why: Use) {
        let place = (self.catalog[number].nvme_class, self.lane(number));
        let Self { nvme, catalog, .. } = self;
        nvme.touch(place, number, now, &|| catalog.facts(number), why);
    }

    /// Of the children of a block, a tier has `after` where it had `before`, which tells its policy whether it is a leaf.
    pub(super) fn count_children(&mut self, tier: Tier, number: u32, before: u32, after: u32) {
        if before == after || !is_block(number) {
            return;
        }
        let entry = &mut self.catalog[number];
        let children = match tier {
            Tier::Ram => &mut entry.ram_children,
            Tier::Nvme => &mut entry.nvme_children,
        };
        let had = *children > 0;
        *children = *children + after - before;
        let has = *children > 0;
        if had == has || !self.is_in_order(tier, number) {
            return;
        }
        let (entry, lane) = (&self.catalog[number], self.lane(number));
        match tier {
            Tier::Ram => self.ram.leaf((entry.ram_class, lane), entry.active, !has),
            Tier::Nvme => self.nvme.leaf((entry.nvme_class, lane), number, !has),
        }
    }

    /// Whether a block is in a tier's order of going.
    pub(super) fn is_in_order(&self, tier: Tier, number: u32) -> bool {
        let entry = &self.catalog[number];
        match tier {
            Tier::Ram => {
                let has_slot = matches!(entry.ram, Ram::Waiting | Ram::Filling | Ram::Resident);
                has_slot && !self.catalog.active(number).leaving
            }
            Tier::Nvme => entry.nvme != Nvme::Absent,
        }
    }

    /// A request begins, for those who count in requests.
    pub(super) fn tick_policies(&mut self) {
        self.ram.tick();
        self.nvme.tick();
    }

    /// Touches a chain before the next event that could depend on it, or earlier where there is time: see
    /// [`catch_up`](Self::catch_up).
    pub(super) fn touch_later(&mut self, deepest: u32, why: Use, retention: Option<Retention>) {
        let block = self.reference(deepest);
        self.used_chains += 1;
        self.untouched.push_back(Untouched { block, used: self.now, why, retention, whole: true });
    }

    /// Counts up to `blocks` blocks of used chains as used, each chain from its deepest block to its first, so that the
    /// first is the most recent; whether any are left. It decides nothing: whoever asks next would have it done before.
    pub fn catch_up(&mut self, blocks: usize) -> bool {
        for _ in 0..blocks {
            let Some(next) = self.untouched.pop_front() else { return false };
            if next.whole && next.why == Use::Read {
                self.tick_policies();
            }
            // A block that is gone has no ancestors that would know of it.
            let Some(number) = self.catalog.resolve(next.block) else { continue };
            if let Some(retention) = next.retention.filter(|_| !self.expiries.is_empty()) {
                self.live_on(number, retention, next.used.seconds());
            }
            self.touch_one(number, next.used, next.why);
            let parent = self.catalog[number].parent;
            if is_block(parent) {
                self.untouched.push_front(Untouched { block: self.reference(parent), whole: false, ..next });
            }
        }
        !self.untouched.is_empty()
    }

    /// Chains that were used so far.
    #[must_use]
    pub fn used_chains(&self) -> u64 {
        self.used_chains
    }

    /// Of those, the ones that are not yet touched to their first block.
    #[must_use]
    pub fn untouched_chains(&self) -> usize {
        self.untouched.len()
    }

    /// Whether so many of the chains that were used, or all, are touched.
    #[must_use]
    pub fn has_touched(&self, chains: u64) -> bool {
        self.untouched.is_empty() || self.used_chains - self.untouched.len() as u64 >= chains
    }

    /// A reader has read a chain up to a block. Under a lease it has been counted as read with that.
    pub(super) fn used(&mut self, deepest: &BlockKey, leased: bool) -> Answer {
        if let Some(number) = self.catalog.find(deepest)
            && self.catalog[number].is_readable()
        {
            self.touch_later(number, if leased { Use::Again } else { Use::Read }, None);
        }
        Answer::Done
    }

    fn touch_one(&mut self, at: u32, now: Timestamp, why: Use) {
        if self.catalog.active(at).promises > 0 {
            self.refresh_promise(at, now.seconds());
        }
        if !self.expiries.is_empty() {
            self.refresh_expiry(at, now.seconds());
        }
        let entry = &self.catalog[at];
        if self.is_in_order(Tier::Ram, at) && (entry.ram != Ram::Resident || entry.is_ram_run()) {
            self.touch_ram(at, now, why);
        }
        let entry = &self.catalog[at];
        if matches!(entry.ram, Ram::Filling | Ram::Resident) {
            self.ram.space.touch(self.catalog.active(at).ram_slot, now);
        }
        if entry.nvme != Nvme::Absent && !entry.is_orphan() {
            self.touch_nvme(at, now, why);
        }
        let entry = &self.catalog[at];
        if matches!(entry.nvme, Nvme::Writing | Nvme::Resident) {
            self.nvme.space.touch(entry.nvme_slot, now);
        }
    }

    /// The visit of the put that a block is part of, if it is; else of nobody.
    pub(super) fn visit_of(&self, number: u32) -> Visit {
        self.puts.get(&self.catalog.active(number).put).map(|put| put.visit).unwrap_or_default()
    }
}
