//! Reachability: what lookups may see. A block counts only while every ancestor does; what loses an ancestor is an
//! orphan, kept for a later put of that ancestor, but first to go.

use super::accounts::COMMON;
use super::active::NO_PUT;
use super::command::{Command, InRam, Residence};
use super::entry::{Nvme, ROOT, Ram, Reach, is_block};
use super::planner::Planner;
use super::policy::Use;
use crate::vocab::Tier;

impl Planner {
    /// Works out one block's reachability. Whether it has changed.
    pub(super) fn reconsider(&mut self, number: u32) -> bool {
        let reach = self.reach_of(number);
        let before = std::mem::replace(&mut self.catalog[number].reach, reach);
        if before == reach {
            return false;
        }
        match (before, reach) {
            (Reach::Nobody, _) => self.accounts.store(self.catalog.owner(number)),
            (_, Reach::Nobody) => self.accounts.store_no_more(self.catalog.owner(number)),
            _ => {}
        }
        let readable = |reach| matches!(reach, Reach::Readable | Reach::Run);
        if readable(before) != readable(reach) {
            let (namespace, bytes) = (self.catalog.owner(number).namespace, self.catalog[number].length);
            self.namespaces.count(namespace, bytes, readable(reach));
        }
        let orphan = |reach| u64::from(reach == Reach::Orphan);
        self.held.orphans = self.held.orphans + orphan(reach) - orphan(before);
        if self.catalog[number].is_readable() {
            self.publish(number);
        } else if matches!(before, Reach::Readable | Reach::Run) {
            let (block, key) = (self.reference(number), self.catalog.key(number));
            self.commands.push(Command::Unpublish { block, key });
        }
        if !self.catalog[number].is_readable() {
            // What can't be reached is worth no promise.
            self.end_promise(number);
        }
        self.chill_unreachable(number);
        self.warm_reached(number, before);
        true
    }

    /// What was first to go because it could not be reached, or RAM had nothing before it, is not any more: it would go for
    /// the sake of the very blocks that made it useful again.
    fn warm_reached(&mut self, number: u32, before: Reach) {
        let entry = &self.catalog[number];
        let (is_run, leaving) = (entry.is_ram_run(), self.catalog.active(number).leaving);
        if is_run && matches!(before, Reach::Orphan | Reach::Readable) && !leaving {
            self.touch_ram(number, self.now, Use::Again);
        }
        let entry = &self.catalog[number];
        if before == Reach::Orphan && entry.is_readable() && entry.nvme == Nvme::Resident {
            self.touch_nvme(number, self.now, Use::Again);
        }
    }

    /// Who can reach a block, by its own state and its parent's.
    pub(super) fn reach_of(&self, number: u32) -> Reach {
        let entry = &self.catalog[number];
        if !entry.has_bytes() || entry.doomed {
            return Reach::Nobody;
        }
        let above = match entry.parent {
            ROOT => Reach::Run,
            parent if is_block(parent) => self.catalog[parent].reach,
            _ => Reach::Nobody,
        };
        match above {
            Reach::Run if entry.ram == Ram::Resident => Reach::Run,
            Reach::Run | Reach::Readable => Reach::Readable,
            Reach::Orphan | Reach::Nobody => Reach::Orphan,
        }
    }

    /// What no lookup reaches, or what RAM has without what comes before it, goes first.
    pub(super) fn chill_unreachable(&mut self, number: u32) {
        let entry = &self.catalog[number];
        let active = self.catalog.active(number);
        if entry.ram == Ram::Resident && !entry.is_ram_run() && !active.leaving && !self.is_run_coming(number) {
            let (class, at, lane) = (entry.ram_class, entry.active, self.lane(number));
            self.ram.chill(class, lane, at);
        }
        let entry = &self.catalog[number];
        if entry.nvme == Nvme::Resident && entry.is_orphan() {
            let (class, lane) = (entry.nvme_class, self.lane(number));
            self.nvme.chill(class, lane, number);
        }
    }

    /// Loads of one chain end in any order: a block whose ancestors are on their way is not a stray one.
    fn is_run_coming(&self, number: u32) -> bool {
        let mut at = self.catalog[number].parent;
        while is_block(at) {
            let above = &self.catalog[at];
            match above.ram {
                Ram::Resident if above.is_ram_run() => return true,
                Ram::Resident => at = above.parent,
                Ram::Waiting | Ram::Filling => return true,
                Ram::Absent | Ram::Offered => return false,
            }
        }
        at == ROOT
    }

    pub(super) fn publish(&mut self, number: u32) {
        let (block, key, residence) = (self.reference(number), self.catalog.key(number), self.residence(number));
        self.commands.push(Command::Publish { block, key, residence });
    }

    /// Where lookups find a readable block.
    pub(super) fn residence(&self, number: u32) -> Residence {
        let (entry, active) = (&self.catalog[number], self.catalog.active(number));
        let ram = (entry.ram == Ram::Resident).then(|| InRam {
            slot: active.ram_slot,
            class: self.ram.class(entry.ram_class),
            generation: active.generation,
            length: entry.length,
            crc: entry.crc,
            run: entry.is_ram_run(),
        });
        Residence { ram, nvme: entry.nvme == Nvme::Resident }
    }

    /// Changes a block's state in RAM and all that counts it.
    pub(super) fn set_ram(&mut self, number: u32, state: Ram) {
        let entry = &mut self.catalog[number];
        let before = std::mem::replace(&mut entry.ram, state);
        let parent = entry.parent;
        let active = self.catalog.active_mut(number);
        let is_put = active.put != NO_PUT;
        if state == Ram::Resident || state == Ram::Absent {
            active.put = NO_PUT;
        }
        let has_slot = |state| matches!(state, Ram::Waiting | Ram::Filling | Ram::Resident);
        let leaving = active.leaving;
        self.account_for(Tier::Ram, number, has_slot(before) && !leaving, has_slot(state) && !leaving);
        let reserved = |state| is_put && matches!(state, Ram::Offered | Ram::Waiting | Ram::Filling);
        self.held.reservations = self.held.reservations + u64::from(reserved(state)) - u64::from(reserved(before));
        let resident = |state| u64::from(state == Ram::Resident);
        self.held.ram_blocks = self.held.ram_blocks + resident(state) - resident(before);
        let there = |state| u32::from(state != Ram::Absent);
        self.count_children(Tier::Ram, parent, there(before), there(state));
    }

    /// Changes a block's state on NVMe and all that counts it.
    pub(super) fn set_nvme(&mut self, number: u32, state: Nvme) {
        let entry = &mut self.catalog[number];
        let before = std::mem::replace(&mut entry.nvme, state);
        let (parent, slot_bytes) = (entry.parent, u64::from(self.nvme.class(entry.nvme_class).bytes()));
        let resident = |state| u64::from(state == Nvme::Resident);
        self.held.nvme_blocks = self.held.nvme_blocks + resident(state) - resident(before);
        let pending = |state| u64::from(matches!(state, Nvme::Waiting | Nvme::Writing));
        self.held.moving = self.held.moving + pending(state) - pending(before);
        self.account_for(Tier::Nvme, number, before != Nvme::Absent, state != Nvme::Absent);
        self.writing_bytes = self.writing_bytes + pending(state) * slot_bytes - pending(before) * slot_bytes;
        let there = |state| u32::from(state != Nvme::Absent);
        self.count_children(Tier::Nvme, parent, there(before), there(state));
    }

    /// The block has a slot of the tier, or was promised one, or has none any more.
    fn account_for(&mut self, tier: Tier, number: u32, before: bool, after: bool) {
        if before == after {
            return;
        }
        let (account, bytes) = (self.catalog.account(number), self.slot_bytes(tier, number));
        if after {
            self.accounts.charge(account, tier, bytes);
        } else {
            self.accounts.discharge(account, tier, bytes);
        }
    }

    /// Bytes of the slots of a block's class.
    pub(super) fn slot_bytes(&self, tier: Tier, number: u32) -> u64 {
        let entry = &self.catalog[number];
        let class = match tier {
            Tier::Ram => self.ram.class(entry.ram_class),
            Tier::Nvme => self.nvme.class(entry.nvme_class),
        };
        class.bytes().into()
    }

    /// The order of going that a block is in.
    pub(super) fn lane(&self, number: u32) -> u16 {
        if self.accounts.are_equal() { COMMON } else { self.accounts.lane(self.catalog.account(number)) }
    }

    /// A read of the block's NVMe slot begins: the slot is not reused before it ends.
    pub(super) fn begin_read(&mut self, number: u32) {
        self.catalog.active_mut(number).reads += 1;
        self.held.moving += 1;
    }

    pub(super) fn end_read(&mut self, number: u32) {
        self.catalog.active_mut(number).reads -= 1;
        self.catalog.rest(number);
        self.held.moving -= 1;
    }

    /// Hangs a block whose parent was not known under it again.
    pub(super) fn adopt(&mut self, number: u32, parent: u32) {
        self.catalog.attach(number, parent);
        if is_block(parent) {
            let (ram, nvme) = (self.catalog[number].ram != Ram::Absent, self.catalog[number].nvme != Nvme::Absent);
            self.count_children(Tier::Ram, parent, 0, ram.into());
            self.count_children(Tier::Nvme, parent, 0, nvme.into());
        }
        self.refresh(number);
    }
}
