//! A planned stop: what only RAM has is written to NVMe, so that the next start is warm; and blocks that leave RAM only
//! once they are written.

use std::cmp::Reverse;

use super::active::NO_PUT;
use super::admission::AdmissionKind;
use super::command::Command;
use super::entry::{Entry, Nvme, Ram};
use super::event::{Answer, PutId};
use super::planner::Planner;
use super::policy::Heat;
use crate::vocab::{Tier, Timestamp};

impl Planner {
    /// Begins the writes of what only RAM has, the hottest first, until the write queue is full.
    pub(super) fn flush(&mut self) -> Answer {
        let only_in_ram = |number: u32, entry: &Entry| {
            let here = entry.ram == Ram::Resident && entry.nvme == Nvme::Absent && entry.is_readable();
            here && !self.catalog.owner(number).ram_only && !self.catalog.active(number).leaving
        };
        let mut worth: Vec<_> = self
            .catalog
            .iter()
            .filter(|(number, entry)| only_in_ram(*number, entry))
            .map(|(number, entry)| (Reverse(self.ram.used(entry.active)), entry.depth, number, self.reference(number)))
            .collect();
        if !self.nvme.exists() {
            worth.clear();
        }
        // A use of a block is one of all before it: ancestors are as hot and less deep, so they come first.
        worth.sort_unstable_by_key(|(used, depth, number, _)| (*used, *depth, *number));
        let (mut begun, mut left) = (0, 0);
        for (Reverse(used), _, _, block) in worth {
            // Room for one may have cost another.
            let Some(number) = self.catalog.resolve(block) else { continue };
            if self.is_worth_flushing(number, used) {
                self.admit_to_nvme(number);
            }
            let entry = &self.catalog[number];
            begun += u64::from(entry.nvme != Nvme::Absent);
            left += u64::from(entry.nvme == Nvme::Absent && entry.ram == Ram::Resident);
        }
        self.counters.flushed += begun;
        Answer::Flushing { begun, left }
    }

    /// It displaces nothing that was used later than it.
    fn is_worth_flushing(&mut self, number: u32, used: Timestamp) -> bool {
        let Some(class) = self.nvme.class_number(self.catalog.payload_max(number)) else { return false };
        if !self.nvme.space.is_full(class) {
            return true;
        }
        let account = self.catalog.account(number);
        let lane = self.giving_lanes(Tier::Nvme, class, account).first().copied();
        let coldest = lane.and_then(|lane| self.nvme.coldest(class, lane));
        coldest.is_some_and(|(coldest, last)| self.catalog[coldest].is_orphan() || last <= used)
    }

    /// Begins the write of a block that RAM lets go, where that is when blocks are written. Its slot is promised from now
    /// on, and its bytes stay readable until the write has ended. False where it has nothing to be written for.
    pub(super) fn leave_ram_written(&mut self, number: u32) -> bool {
        let entry = &self.catalog[number];
        let unwritten = entry.nvme == Nvme::Absent && entry.is_readable();
        if self.admission != AdmissionKind::RamEviction || !unwritten {
            return false;
        }
        self.admit_with_ancestors(number);
        let entry = &self.catalog[number];
        if entry.nvme == Nvme::Absent {
            return false;
        }
        let (class, at) = (entry.ram_class, entry.active);
        // Its slot counts as that of whom it is promised to.
        self.accounts.discharge(self.catalog.account(number), Tier::Ram, self.slot_bytes(Tier::Ram, number));
        self.catalog.active_mut(number).leaving = true;
        self.leave_ram_order(number, at);
        self.ram.promise(class, 1);
        true
    }

    /// The write of a block that is leaving RAM has ended: it goes, unless it has been leased or got children in RAM
    /// meanwhile, and another goes in its place.
    pub(super) fn finish_leaving(&mut self, number: u32) {
        let (active, ram_children) = (*self.catalog.active(number), self.catalog[number].ram_children);
        if !active.leaving {
            return;
        }
        if active.leases == 0 && ram_children == 0 {
            self.drop_from_ram(number);
            self.prune(number);
            return;
        }
        let (class, at) = (self.catalog[number].ram_class, self.catalog[number].active);
        self.catalog.active_mut(number).leaving = false;
        let account = self.catalog.account(number);
        self.accounts.charge(account, Tier::Ram, self.slot_bytes(Tier::Ram, number));
        self.enter_ram_order(number, at, Heat::Hot);
        // Its account may have taken what it left.
        let is_over = self.accounts.excess(account, Tier::Ram, 0) > 0;
        if !(is_over && self.evict_own(Tier::Ram, Some(class), account)) {
            self.evict_from_ram(class, account);
        }
        let Self { ram, catalog, .. } = self;
        let wants = |block| catalog.resolve(block).filter(|number| catalog[*number].ram == Ram::Waiting);
        if let Some(refused) = ram.break_promise(class, wants) {
            self.refuse_ram(refused);
        }
    }

    /// The RAM slot that a block waited for will not come.
    fn refuse_ram(&mut self, number: u32) {
        let (block, at) = (self.reference(number), self.catalog[number].active);
        let active = *self.catalog.active(number);
        if active.put == NO_PUT {
            self.end_read(number);
            self.commands.push(Command::Unloadable { key: self.catalog.key(number) });
        } else if self.is_being_put(number) {
            self.commands.push(Command::Refuse { put: PutId(active.put), block });
        }
        self.set_ram(number, Ram::Absent);
        self.leave_ram_order(number, at);
        self.chill_descendants(number);
        if self.catalog[number].doomed {
            self.finish_doomed(number);
        }
        if let Some(number) = self.catalog.resolve(block) {
            self.prune(number);
        }
    }
}
