//! Letting go: by the policy to make room, by an admin, and of what has become nothing.

use super::accounts::{Accounts, COMMON};
use super::catalog::Catalog;
use super::chores::Job;
use super::command::Command;
use super::entry::{Nvme, Ram, is_block};
use super::event::Answer;
use super::planner::Planner;
use super::subtree::{Subtree, Why};
use crate::vocab::{AccountId, BlockKey, Tier};

/// Whether a block is within its account's share, which only the account itself may draw on.
fn is_protected(catalog: &Catalog, accounts: &Accounts, number: u32, tier: Tier, bytes: u64, by: AccountId) -> bool {
    let of = || catalog.account(number);
    !accounts.are_equal() && of() != by && !accounts.may_give(of(), tier, bytes)
}

impl Planner {
    /// Lets the first block in the order of going leave RAM, to make room for one of `account`.
    pub(super) fn evict_from_ram(&mut self, class: u8, account: AccountId) -> bool {
        if self.accounts.are_equal() {
            return self.evict_from_ram_lane(class, COMMON, account);
        }
        let lanes = self.giving_lanes(Tier::Ram, class, account);
        lanes.into_iter().any(|lane| self.evict_from_ram_lane(class, lane, account))
    }

    pub(super) fn evict_from_ram_lane(&mut self, class: u8, lane: u16, account: AccountId) -> bool {
        let bytes = u64::from(self.ram.class(class).bytes());
        let Self { ram, catalog, accounts, .. } = self;
        let mut support = None;
        let victim = ram.victim(class, lane, &mut |at| {
            let number = catalog.actives.block(at);
            if is_protected(catalog, accounts, number, Tier::Ram, bytes, account) {
                return false;
            }
            if support.is_none() && catalog.is_sole_support(number) {
                support = Some(number);
            }
            catalog.ram_may_go(number)
        });
        if let Some(at) = victim {
            let victim = self.catalog.actives.block(at);
            self.counters.ram_evicted += 1;
            if !self.leave_ram_written(victim) {
                self.drop_from_ram(victim);
                self.prune(victim);
            }
        }
        if let Some(support) = support {
            // Its turn had come: once NVMe has it too, it can go.
            self.admit_with_ancestors(support);
        }
        victim.is_some()
    }

    /// Lets the first block in the order of going leave NVMe, and RAM with it: NVMe bounds the distinct blocks.
    pub(super) fn evict_from_nvme(&mut self, class: u8, account: AccountId) -> bool {
        if self.accounts.are_equal() {
            return self.evict_from_nvme_lane(class, COMMON, account);
        }
        let lanes = self.giving_lanes(Tier::Nvme, class, account);
        lanes.into_iter().any(|lane| self.evict_from_nvme_lane(class, lane, account))
    }

    pub(super) fn evict_from_nvme_lane(&mut self, class: u8, lane: u16, account: AccountId) -> bool {
        let bytes = u64::from(self.nvme.class(class).bytes());
        let Self { nvme, ram, catalog, accounts, .. } = self;
        let may_go = &mut |number: u32| {
            // What leaves NVMe leaves RAM: then it must not be within its account's share there either.
            let in_ram = || {
                let bytes = || ram.class(catalog[number].ram_class).bytes().into();
                catalog[number].ram == Ram::Resident
                    && is_protected(catalog, accounts, number, Tier::Ram, bytes(), account)
            };
            catalog.nvme_may_go(number)
                && !is_protected(catalog, accounts, number, Tier::Nvme, bytes, account)
                && !in_ram()
        };
        let Some(victim) = nvme.victim(class, lane, may_go) else { return false };
        self.counters.nvme_evicted += 1;
        self.drop_everywhere(victim);
        true
    }

    pub(super) fn drop_from_ram(&mut self, number: u32) {
        let entry = &self.catalog[number];
        let (at, number_of_class, slot) = (entry.active, entry.ram_class, self.catalog.active(number).ram_slot);
        self.set_ram(number, Ram::Absent);
        if std::mem::take(&mut self.catalog.active_mut(number).leaving) {
            // Out of the order and promised since it began to leave.
            self.ram.space.disown(slot);
        } else {
            self.leave_ram_order(number, at);
            self.ram.expect(slot);
        }
        // Lookups are told before the slot is closed, so that few of them find a closed one.
        self.refresh(number);
        self.commands.push(Command::Retire { slot, class: self.ram.class(number_of_class) });
    }

    pub(super) fn drop_from_nvme(&mut self, number: u32) {
        let entry = &self.catalog[number];
        let (key, slot, number_of_class) = (self.catalog.key(number), entry.nvme_slot, entry.nvme_class);
        self.end_promises_on(number);
        self.set_nvme(number, Nvme::Absent);
        self.leave_nvme_order(number);
        self.nvme.expect(slot);
        self.refresh(number);
        self.commands.push(Command::Erase { key, slot, class: self.nvme.class(number_of_class) });
    }

    /// Forgets a block that is in no tier, and its ancestors that are kept for its sake only.
    pub(super) fn prune(&mut self, number: u32) {
        self.catalog.rest(number);
        let mut at = number;
        while is_block(at) {
            let (entry, active) = (&self.catalog[at], self.catalog.active(at));
            if !entry.is_ghost() || active.leases > 0 || active.reads > 0 || active.promises > 0 {
                return;
            }
            let parent = entry.parent;
            if !is_block(entry.first_child) {
                self.expiries.forget(at);
                self.catalog.remove(at);
            } else if is_block(parent) && self.catalog[parent].is_ghost() {
                // One ghost is enough to hang children on; its own place is found again when its chain is offered.
                self.catalog.detach(at);
            } else {
                return;
            }
            at = parent;
        }
    }

    /// Lets a block go that was erased while it was being moved. Whether it was.
    pub(super) fn finish_doomed(&mut self, number: u32) -> bool {
        if !self.catalog[number].doomed || self.catalog.is_moving(number) {
            return false;
        }
        self.drop_everywhere(number);
        true
    }

    pub(super) fn drop_everywhere(&mut self, number: u32) {
        // Lookups are not told of one place after the other: it is gone from the first one on.
        self.catalog[number].doomed = true;
        if self.catalog[number].ram == Ram::Resident {
            self.drop_from_ram(number);
        }
        if self.catalog[number].nvme == Nvme::Resident {
            self.drop_from_nvme(number);
        }
        self.catalog[number].doomed = false;
        self.prune(number);
    }

    pub(super) fn evict(&mut self, key: &BlockKey) -> Answer {
        let root = self.catalog.find(key).map(|number| self.reference(number));
        self.begin_job(|_, _| Job::Evict(Subtree::of(root, Why::Hand)))
    }
}
