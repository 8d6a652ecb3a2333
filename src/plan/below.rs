//! What follows for the blocks that hang on one: who can reach them, and who goes first. A prompt that a whole fleet shares has
//! a million blocks below it, so this goes on in steps.
//!
//! What is still to be worked out says less or more than is true for a while, each in a harmless way: a block that can be
//! reached again is not found yet; one that can't be any more is found, and what is read of its chain ends where the chain
//! does, as for a reader who came just before. Only leases are held to the truth: see [`Planner::hit`].

use super::active::NO_PUT;
use super::chores::{LOOK, REACH};
use super::entry::{Nvme, ROOT, Ram, is_block};
use super::planner::Planner;
use crate::vocab::BlockKey;

/// The number of the walk among those that the catalog keeps straight.
pub(super) const BELOW: u64 = 0;

/// What is to be worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// Who can reach a block.
    Reach,
    /// Whether it should be among the first to go from RAM.
    Chill,
}

/// A block whose children are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Below {
    pub parent: u32,
    pub follow: Follow,
}

impl Planner {
    /// The block's places have changed: tells lookups, and works out anew what hangs on it.
    pub(super) fn refresh(&mut self, number: u32) {
        if self.reconsider(number) {
            self.follow_below(number, Follow::Reach);
        } else if self.catalog[number].is_readable() {
            self.publish(number);
        }
    }

    /// What came into RAM ahead of this block has no run to wait for now.
    pub(super) fn chill_descendants(&mut self, number: u32) {
        self.follow_below(number, Follow::Chill);
    }

    /// Works out what hangs on a block as far as this event may; the rest is noted.
    fn follow_below(&mut self, number: u32, follow: Follow) {
        let mut stack = std::mem::take(&mut self.stack);
        self.push_children(number, follow, &mut stack);
        while let Some(at) = stack.pop() {
            if !self.chores.has_steps() {
                stack.push(at);
                break;
            }
            self.chores.spend(REACH);
            if self.follow(at, follow) {
                self.push_children(at, follow, &mut stack);
            }
        }
        let mut last = None;
        for at in stack.drain(..) {
            let parent = self.catalog[at].parent;
            if last.replace(parent) != Some(parent) {
                self.chores.below.push_back(Below { parent, follow });
            }
        }
        self.stack = stack;
    }

    fn push_children(&mut self, parent: u32, follow: Follow, stack: &mut Vec<u32>) {
        let (before, most) = (stack.len(), self.chores.steps() / LOOK);
        stack.extend(self.catalog.children(parent).take(most + 1));
        if stack.len() - before > most {
            stack.truncate(before);
            self.chores.below.push_back(Below { parent, follow });
        } else {
            self.chores.spend((stack.len() - before) * LOOK);
        }
    }

    /// Works one block out. Whether what hangs on it follows.
    fn follow(&mut self, number: u32, follow: Follow) -> bool {
        match follow {
            Follow::Reach => self.reconsider(number),
            Follow::Chill => {
                let in_ram = self.catalog[number].ram == Ram::Resident;
                if in_ram {
                    self.chill_unreachable(number);
                }
                in_ram
            }
        }
    }

    /// Goes on with what earlier events have left.
    pub(super) fn settle_below(&mut self) {
        while self.chores.has_steps() {
            let Some(Below { parent, follow }) = self.chores.below.front().copied() else { return };
            let Some(child) = self.catalog.next_child(BELOW, parent) else {
                self.chores.below.pop_front();
                continue;
            };
            self.chores.spend(REACH);
            if self.follow(child, follow) && is_block(self.catalog[child].first_child) {
                self.chores.below.push_back(Below { parent: child, follow });
            }
        }
    }

    /// Blocks of a chain that are readable from its first one on: never one too many, also while it is still being worked out what
    /// hangs on a block that has gone, or a purge is still to come to one of them.
    pub(super) fn hit(&self, keys: &[BlockKey]) -> u32 {
        let hit = self.prefix(keys).hit();
        let deepest = (hit as usize).checked_sub(1).and_then(|last| self.catalog.find(keys.get(last)?));
        let is_open = !(self.chores.below.is_empty() && self.lost_extents.is_empty()) || self.chores.has_purges();
        let Some(deepest) = deepest.filter(|_| is_open) else { return hit };
        let mut broken = None;
        let mut at = deepest;
        while is_block(at) {
            let entry = &self.catalog[at];
            let is_cut_off = entry.parent != ROOT && !is_block(entry.parent);
            if !entry.has_bytes() || entry.doomed || is_cut_off || self.is_going(at) {
                broken = Some(entry.depth);
            }
            at = entry.parent;
        }
        let first = (self.catalog[deepest].depth + 1).saturating_sub(hit);
        broken.map_or(hit, |broken| broken.saturating_sub(first).min(hit))
    }

    /// Whether a block that counts as readable is to go: a purge is still to come to it, or a drive that is lost has it, and RAM has not, or
    /// what reads it there will take its copy along.
    fn is_going(&self, number: u32) -> bool {
        let is_read = || self.catalog.active(number).reads > 0;
        let lacks_ram = || self.catalog[number].ram != Ram::Resident || is_read();
        self.is_being_purged(number) || (self.is_on_lost_drive(number) && lacks_ram())
    }

    /// Whether NVMe has a block on a drive that was lost, which is not yet swept.
    pub(super) fn is_on_lost_drive(&self, number: u32) -> bool {
        let entry = &self.catalog[number];
        !self.lost_extents.is_empty() && entry.nvme == Nvme::Resident && self.nvme.space.is_lost(entry.nvme_slot.extent)
    }

    /// Whether a put waits for the block's bytes: one that has not ended.
    pub(super) fn is_being_put(&self, number: u32) -> bool {
        let put = self.catalog.active(number).put;
        put != NO_PUT && !self.chores.endings.contains_key(&put)
    }
}
