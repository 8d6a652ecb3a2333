//! Admission to NVMe: ancestors first, bounded, and never in the way of a put.

use super::admission::AdmissionKind;
use super::command::{Command, Write};
use super::entry::{Nvme, ROOT, Ram, is_block};
use super::event::{Answer, BlockRef, Transfer};
use super::planner::Planner;
use super::policy::Visit;
use super::shelf::Grant;
use crate::vocab::limits::{ALIGNMENT, WEAR_HEAD_BLOCKS};
use crate::vocab::{ByteCount, SlotId, Tier};

impl Planner {
    /// The block's bytes have come in: a first use, unless it was put before and forgotten unwritten.
    pub(super) fn admit_when_filled(&mut self, number: u32) {
        if self.admission == AdmissionKind::Always && !self.is_spared(number) {
            return self.admit_to_nvme(number);
        }
        if self.admission == AdmissionKind::RamEviction || !self.may_be_written(number) {
            return;
        }
        if self.seen.again(&self.catalog.key(number)) {
            // What hangs before it was used as often.
            return self.admit_with_ancestors(number);
        }
        self.counters.nvme_write_deferred += 1;
    }

    /// The block is used again, and with it all before it.
    pub(super) fn admit_at_second_use(&mut self, number: u32) {
        let may = self.nvme.exists() && self.admission != AdmissionKind::RamEviction;
        if may && self.catalog[number].nvme == Nvme::Absent {
            self.admit_with_ancestors(number);
        }
    }

    /// Whether the drives' wear budgets are used up and the block is none of a chain's head.
    fn is_spared(&mut self, number: u32) -> bool {
        if !self.wear.is_limited() || self.catalog[number].depth < WEAR_HEAD_BLOCKS {
            return false;
        }
        self.wear.fill(self.now);
        let shape = self.nvme.space.shape();
        (0..).zip(shape.drives()).all(|(drive, bytes)| bytes == 0 || self.wear.is_over(drive))
    }

    fn may_be_written(&self, number: u32) -> bool {
        let entry = &self.catalog[number];
        let in_ram_only = entry.ram == Ram::Resident && entry.nvme == Nvme::Absent && !entry.doomed;
        in_ram_only && self.nvme.exists() && !self.catalog.owner(number).ram_only
    }

    /// Starts the write of a block that RAM has and NVMe has not, if its parent is there or on its way there. A write
    /// that is dropped drops the rest of its chain: the children find no parent.
    pub(super) fn admit_to_nvme(&mut self, number: u32) {
        if !self.may_be_written(number) {
            return;
        }
        let below_parent = match self.catalog[number].parent {
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
        if self.index_failing {
            return false;
        }
        let Some(class) = self.nvme.class_number(self.catalog.payload_max(number)) else { return false };
        if self.writing_bytes + u64::from(self.nvme.class(class).bytes()) > self.write_queue_bytes {
            return false;
        }
        if self.wear.is_limited() {
            self.wear.fill(self.now);
            let Self { nvme, wear, .. } = self;
            nvme.space.spare(|drive| wear.is_over(drive));
        }
        if !self.fits_its_limit(Tier::Nvme, class, number) {
            return false;
        }
        let block = self.reference(number);
        let grant = match self.nvme.ask(class, block) {
            Grant::AfterEviction if self.is_worth_nvme(class, number) && self.make_nvme_room(class, number) => {
                self.nvme.ask(class, block)
            }
            grant => grant,
        };
        if grant == Grant::AfterEviction {
            return false;
        }
        self.catalog[number].nvme_class = class;
        self.enter_nvme_order(number);
        self.set_nvme(number, Nvme::Waiting);
        if let Grant::Now(slot) = grant {
            self.assign_nvme(number, slot);
        }
        true
    }

    /// Whether what NVMe has should go for a block that comes in.
    fn is_worth_nvme(&mut self, class: u8, number: u32) -> bool {
        if self.visit == Visit::default() {
            // Not for the put that brought it: it was used again, or is to stay.
            return true;
        }
        let (place, facts) = ((class, self.lane(number)), self.catalog.facts(number));
        let is_worth = self.nvme.admits(place, &facts, &self.visit);
        if !is_worth {
            self.counters.nvme_not_admitted += 1;
            self.nvme.pass(&facts, &self.visit);
        }
        is_worth
    }

    /// Makes room for block `number`, which is not there itself.
    fn make_nvme_room(&mut self, class: u8, number: u32) -> bool {
        // Whatever goes, it is not the block that room is made for, nor what it hangs on.
        self.catalog.active_mut(number).leases += 1;
        let account = self.catalog.account(number);
        let made = self.move_an_extent(Tier::Nvme, class) || self.evict_from_nvme(class, account);
        self.catalog.active_mut(number).leases -= 1;
        made
    }

    fn assign_nvme(&mut self, number: u32, slot: SlotId) {
        self.catalog[number].nvme_slot = slot;
        self.set_nvme(number, Nvme::Writing);
        self.nvme.space.touch(slot, self.now);
        let (entry, active) = (&self.catalog[number], self.catalog.active(number));
        let bytes = ByteCount(u64::from(entry.length).next_multiple_of(ALIGNMENT));
        self.wear.spend(self.nvme.space.shape().drive_of(slot.extent), bytes);
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
            expires_s: self.expiries.get(number),
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
                if self.nvme.space.is_lost(self.catalog[number].nvme_slot.extent) {
                    // The drive went while it was written: lookups need not hear of it.
                    self.lose(number);
                } else {
                    self.refresh(number);
                    self.chill_unreachable(number);
                }
            }
            Transfer::Failed | Transfer::Refused => {
                self.counters.nvme_write_failed += u64::from(outcome == Transfer::Failed);
                self.counters.nvme_write_dropped += u64::from(outcome == Transfer::Refused);
                self.end_promises_on(number);
                self.set_nvme(number, Nvme::Absent);
                let slot = self.catalog[number].nvme_slot;
                self.leave_nvme_order(number);
                // The row was never written, and the write has ended: nothing names the slot.
                let class = self.nvme.give_back(slot);
                self.hand_nvme_on(class);
            }
        }
        if !self.finish_doomed(number) {
            self.finish_leaving(number);
        }
        Answer::Done
    }

    pub(super) fn nvme_freed(&mut self, slot: SlotId) -> Answer {
        let class = self.nvme.freed(slot);
        self.hand_nvme_on(class);
        Answer::Done
    }

    /// Gives the free slots of a class to blocks that wait for them.
    fn hand_nvme_on(&mut self, class: Option<u8>) {
        let Some(class) = class else { return };
        loop {
            let Self { nvme, catalog, .. } = self;
            let wants = |block| catalog.resolve(block).filter(|number| catalog[*number].nvme == Nvme::Waiting);
            let Some((number, slot)) = nvme.pass_on(class, wants) else { return };
            self.assign_nvme(number, slot);
        }
    }

    /// The slot that a block waited for will not come.
    pub(super) fn refuse_nvme(&mut self, number: u32) {
        self.counters.nvme_write_dropped += 1;
        self.end_promises_on(number);
        self.set_nvme(number, Nvme::Absent);
        self.leave_nvme_order(number);
        if !self.finish_doomed(number) {
            self.finish_leaving(number);
        }
    }
}
