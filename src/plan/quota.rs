//! Shares and limits at work: who makes room for whom.
//!
//! Room is made by accounts that hold more than their share, the coldest of their blocks first; an account that would go
//! above its limit makes it itself. What is within a share goes for nobody else.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::accounts::COMMON;
use super::chores::DROP;
use super::entry::Ram;
use super::planner::Planner;
use crate::vocab::limits::EXPIRED_A_TICK;
use crate::vocab::{AccountId, Quota, QuotaError, Tier, Timestamp};

impl Planner {
    pub(super) fn set_quota(&mut self, account: AccountId, quota: Quota) -> Result<(), QuotaError> {
        if self.accounts.set(account, quota)? {
            let Self { ram, nvme, catalog, accounts, .. } = self;
            let lane = accounts.lane(account);
            ram.relist(lane, &mut |at| catalog.account(catalog.actives.block(at)) == account);
            nvme.relist(lane, &mut |number| catalog.account(number) == account);
        }
        // What this event does not get done, ticks do.
        self.trim(account, EXPIRED_A_TICK);
        Ok(())
    }

    /// Lets blocks of accounts go that are above a limit that was lowered, as far as this event may, and no more of them than
    /// are left to this tick.
    pub(super) fn trim_all(&mut self) {
        let accounts: Vec<AccountId> = self.accounts.lanes().map(|(_, account)| account).collect();
        for account in accounts {
            let gone = self.trim(account, self.chores.tick.trims);
            self.chores.tick.trims -= gone;
        }
    }

    fn trim(&mut self, account: AccountId, blocks: usize) -> usize {
        let mut gone = 0;
        for tier in [Tier::Nvme, Tier::Ram] {
            let is_over = |planner: &Self| planner.chores.has_steps() && planner.accounts.excess(account, tier, 0) > 0;
            while gone < blocks && is_over(self) && self.evict_own(tier, None, account) {
                self.chores.spend(DROP);
                gone += 1;
            }
        }
        gone
    }

    /// Whether the block's account can have a slot more of this class, having let go of blocks of its own if need be.
    pub(super) fn fits_its_limit(&mut self, tier: Tier, class: u8, number: u32) -> bool {
        let (account, bytes) = (self.catalog.account(number), u64::from(self.shelf(tier).class(class).bytes()));
        if self.accounts.excess(account, tier, bytes) == 0 {
            return true;
        }
        // Whatever goes, it is not this block, nor what it hangs on.
        self.catalog.active_mut(number).leases += 1;
        let mut fits = true;
        while fits && self.accounts.excess(account, tier, bytes) > 0 {
            fits = self.evict_own(tier, Some(class), account);
        }
        self.catalog.active_mut(number).leases -= 1;
        self.counters.over_limit += u64::from(!fits);
        fits
    }

    /// Lets go of an account's coldest block, of this class if it can be.
    pub(super) fn evict_own(&mut self, tier: Tier, class: Option<u8>, account: AccountId) -> bool {
        let lane = self.accounts.lane(account);
        let classes = u8::try_from(self.shelf(tier).space.class_count()).unwrap_or(u8::MAX);
        let of = |planner: &mut Self, class| planner.shelf(tier).coldest(class, lane).map(|(_, used)| used);
        let mut order: Vec<(bool, Option<Timestamp>, u8)> =
            (0..classes).map(|each| (class != Some(each), of(self, each), each)).collect();
        order.sort_unstable();
        order.into_iter().any(|(.., class)| self.evict_from_lane(tier, class, lane, account))
    }

    fn evict_from_lane(&mut self, tier: Tier, class: u8, lane: u16, account: AccountId) -> bool {
        match tier {
            Tier::Ram => self.evict_from_ram_lane(class, lane, account),
            Tier::Nvme => self.evict_from_nvme_lane(class, lane, account),
        }
    }

    /// The orders of going that may make room for a block of `account`, the one first whose coldest block was used longest
    /// ago, and of those of the same second the one that holds most above its share. Its own comes last where it is within
    /// its share.
    pub(super) fn giving_lanes(&mut self, tier: Tier, class: u8, account: AccountId) -> Vec<u16> {
        if self.accounts.are_equal() {
            return vec![COMMON];
        }
        let bytes = u64::from(self.shelf(tier).class(class).bytes());
        let own = self.accounts.lane(account);
        let may_give = |(lane, of, surplus): (u16, AccountId, u64)| {
            self.accounts.may_give(of, tier, bytes).then_some((lane, surplus))
        };
        let in_lanes = self.accounts.surpluses(tier).filter_map(may_give);
        let lanes: Vec<_> = std::iter::once((COMMON, self.accounts.common(tier))).chain(in_lanes).collect();
        let coldest = |(lane, surplus)| {
            let (_, used) = self.shelf(tier).coldest(class, lane)?;
            Some((used, Reverse(surplus), lane))
        };
        let mut by_age: Vec<_> = lanes.into_iter().filter_map(coldest).collect();
        by_age.sort_unstable();
        let mut lanes: Vec<u16> = by_age.into_iter().map(|(.., lane)| lane).collect();
        if !lanes.contains(&own) {
            lanes.push(own);
        }
        lanes
    }

    /// Whether a block of another account may go for an extent that moves, given what else goes with it: not what is within
    /// its account's share.
    pub(super) fn may_be_taken(&self, tier: Tier, number: u32, taken: &mut BTreeMap<(AccountId, Tier), u64>) -> bool {
        if self.accounts.are_equal() {
            return true;
        }
        let account = self.catalog.account(number);
        let mut take = |tier: Tier| {
            let taken = taken.entry((account, tier)).or_insert(0);
            *taken += self.slot_bytes(tier, number);
            self.accounts.may_give(account, tier, *taken)
        };
        // What leaves NVMe leaves RAM.
        take(tier) && (tier == Tier::Ram || self.catalog[number].ram != Ram::Resident || take(Tier::Ram))
    }
}
