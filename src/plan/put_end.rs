//! The end of a put: what was not filled is given up, in steps, since a writer may die with a long prompt on offer.

use super::chores::{DROP, LOOK};
use super::entry::Ram;
use super::event::{Answer, BlockRef, Offer, PutId};
use super::planner::Planner;
use super::policy::{Use, Visit};
use super::put::Put;

/// A put that has ended, and what of its blocks is still to be looked at.
#[derive(Debug)]
pub(super) struct Ending {
    wanted: Vec<BlockRef>,
    visit: Visit,
    /// Blocks not yet looked at: those before.
    left: usize,
    /// It is the turn of those that have a slot.
    has_slot: bool,
}

impl Planner {
    pub(super) fn put_ended(&mut self, put: PutId) -> Answer {
        let Some(Put { offer: Offer { keys, retention, .. }, wanted, visit, .. }) = self.puts.remove(&put.0) else {
            return Answer::Stored { through: 0 };
        };
        let ending = Ending { left: wanted.len(), wanted, visit, has_slot: false };
        self.chores.endings.insert(put.0, ending);
        self.go_on_ending_puts();
        let through = self.hit(&keys);
        if let Some(last) = (through as usize).checked_sub(1)
            && let Some(number) = keys.get(last).and_then(|key| self.catalog.find(key))
        {
            self.touch_later(number, Use::Stored(visit), Some(retention));
        }
        Answer::Stored { through }
    }

    /// Gives up what puts that have ended did not fill, as far as this event may.
    pub(super) fn go_on_ending_puts(&mut self) {
        while self.chores.has_steps() {
            let Some(mut entry) = self.chores.endings.first_entry() else { return };
            let put = *entry.key();
            let ending = entry.get_mut();
            // Those without a slot first, or they would be handed the slots that the others give back. From the tail on, so
            // that a given-up chain disappears block by block.
            match ending.left.checked_sub(1) {
                Some(last) => {
                    ending.left = last;
                    let (block, visit, has_slot) = (ending.wanted[last], ending.visit, ending.has_slot);
                    self.chores.spend(LOOK);
                    self.give_up(put, block, has_slot, &visit);
                }
                None if ending.has_slot => drop(entry.remove()),
                None => (ending.left, ending.has_slot) = (ending.wanted.len(), true),
            }
        }
    }

    fn give_up(&mut self, put: u64, block: BlockRef, has_slot: bool, visit: &Visit) {
        let Some(number) = self.catalog.resolve(block) else { return };
        let filling = self.catalog[number].ram == Ram::Filling;
        if self.catalog.active(number).put == put && filling == has_slot {
            self.chores.spend(DROP);
            self.counters.blocks_dropped += 1;
            if !has_slot {
                self.pass(number, visit);
            }
            self.abandon_ram(number);
        }
    }

    /// A block was offered and not taken in, by no tier.
    fn pass(&mut self, number: u32, visit: &Visit) {
        let facts = self.catalog.facts(number);
        self.ram.pass(&facts, visit);
        self.nvme.pass(&facts, visit);
    }
}
