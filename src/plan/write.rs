//! Admission to NVMe: ancestors first, bounded, and never in the way of a put.

use super::entry::{Nvme, ROOT, Ram, is_block};
use super::event::{Answer, BlockRef, Command, Transfer, Write};
use super::planner::Planner;
use super::policy::Heat;
use super::shelf::Grant;
use crate::vocab::SlotId;

impl Planner {
    /// Starts the write of a block that RAM has and NVMe has not, if its parent is there or on its way there. A write
    /// that is dropped drops the rest of its chain: the children find no parent.
    pub(super) fn admit_to_nvme(&mut self, number: u32) {
        let entry = &self.catalog[number];
        let eligible = entry.ram == Ram::Resident && entry.nvme == Nvme::Absent && !entry.doomed;
        if !eligible || self.catalog.owner(number).ram_only || !self.nvme.exists() {
            return;
        }
        let below_parent = match entry.parent {
            ROOT => true,
            parent => is_block(parent) && self.catalog[parent].nvme != Nvme::Absent,
        };
        if !(below_parent && self.take_nvme_slot(number)) {
            self.counters.nvme_write_dropped += 1;
        }
    }

    /// Starts the writes of a block and of those above it that NVMe has not, from the first on.
    pub(super) fn admit_with_ancestors(&mut self, number: u32) {
        let mut missing = vec![number];
        let mut at = self.catalog[number].parent;
        while is_block(at) && self.catalog[at].nvme == Nvme::Absent {
            missing.push(at);
            at = self.catalog[at].parent;
        }
        for number in missing.into_iter().rev() {
            self.admit_to_nvme(number);
        }
    }

    fn take_nvme_slot(&mut self, number: u32) -> bool {
        let Some(class) = self.nvme.class_number(self.catalog.payload_max(number)) else { return false };
        if self.writing_bytes + u64::from(self.nvme.class(class).bytes()) > self.write_queue_bytes {
            return false;
        }
        let block = self.reference(number);
        let grant = match self.nvme.ask(class, block) {
            Grant::AfterEviction if self.evict_from_nvme(class) => self.nvme.ask(class, block),
            grant => grant,
        };
        if grant == Grant::AfterEviction {
            return false;
        }
        self.catalog[number].nvme_class = class;
        self.nvme.insert(class, number, Heat::Hot);
        self.set_nvme(number, Nvme::Waiting);
        if let Grant::Now(slot) = grant {
            self.assign_nvme(number, slot);
        }
        true
    }

    fn assign_nvme(&mut self, number: u32, slot: SlotId) {
        self.catalog[number].nvme_slot = slot;
        self.set_nvme(number, Nvme::Writing);
        let (entry, active) = (&self.catalog[number], self.catalog.active(number));
        self.commands.push(Command::Write(Write {
            block: self.reference(number),
            key: self.catalog.key(number),
            from: (active.ram_slot, self.ram.class(entry.ram_class), active.generation),
            to: (slot, self.nvme.class(entry.nvme_class)),
            length: entry.length,
            crc: entry.crc,
            owner: self.catalog.owner(number),
            parent: is_block(entry.parent).then(|| self.catalog.key(entry.parent)),
            depth: entry.depth,
            created_s: entry.created_s,
        }));
    }

    pub(super) fn wrote(&mut self, block: BlockRef, outcome: Transfer) -> Answer {
        let Some(number) = self.catalog.resolve(block) else { return Answer::Done };
        if self.catalog[number].nvme != Nvme::Writing {
            return Answer::Done;
        }
        match outcome {
            Transfer::Done(_) => {
                self.set_nvme(number, Nvme::Resident);
                self.counters.nvme_written += 1;
                self.refresh(number);
                self.chill_unreachable(number);
            }
            Transfer::Failed | Transfer::Refused => {
                self.counters.nvme_write_failed += u64::from(outcome == Transfer::Failed);
                self.counters.nvme_write_dropped += u64::from(outcome == Transfer::Refused);
                self.set_nvme(number, Nvme::Absent);
                let (class, slot) = (self.catalog[number].nvme_class, self.catalog[number].nvme_slot);
                self.nvme.remove(number);
                // The row was never written, and the write has ended: nothing names the slot.
                self.nvme_slot_free(class, slot, false);
            }
        }
        self.finish_doomed(number);
        Answer::Done
    }

    pub(super) fn nvme_freed(&mut self, slot: SlotId) -> Answer {
        if let Some(class) = self.nvme.space.class_of(slot) {
            self.nvme_slot_free(class, slot, true);
        }
        Answer::Done
    }

    fn nvme_slot_free(&mut self, class: u8, slot: SlotId, was_coming: bool) {
        let Self { nvme, catalog, .. } = self;
        let wants = |block| catalog.resolve(block).filter(|number| catalog[*number].nvme == Nvme::Waiting);
        let next = if was_coming { nvme.freed(class, slot, wants) } else { nvme.give_back(class, slot, wants) };
        if let Some((number, slot)) = next {
            self.assign_nvme(number, slot);
        }
    }
}
