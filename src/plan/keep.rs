//! What must stay: prefixes with a guaranteed lifetime, and those that an admin pinned.
//!
//! A promise is made for a prefix and kept with its deepest block, as a lease is: leaf-first eviction protects what comes
//! before it. Each block counts how many promises lie on it, so that it is charged to its account's share once, for as long
//! as the longest of them. A promise ends by its time, with its block (a drive that is lost, a purge), or when what comes
//! before it is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::chores::{DROP, LOOK};
use super::command::Command;
use super::entry::{Nvme, is_block};
use super::event::{KeepError, Kept};
use super::planner::Planner;
use crate::vocab::{BlockKey, ByteCount, Lifetime, Promise, Tier};

/// All promises, by the number of their deepest block.
#[derive(Debug, Default)]
pub(super) struct Promises {
    by_block: BTreeMap<u32, Promise>,
    by_end: BTreeSet<(u32, u32)>,
}

impl Promises {
    pub(super) fn get(&self, number: u32) -> Option<Promise> {
        self.by_block.get(&number).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Promise)> + '_ {
        self.by_block.iter().map(|(number, promise)| (*number, *promise))
    }

    pub(super) fn len(&self) -> u64 {
        self.by_block.len() as u64
    }

    fn set(&mut self, number: u32, promise: Promise) {
        self.take(number);
        self.by_block.insert(number, promise);
        if !promise.pinned {
            self.by_end.insert((promise.until_s, number));
        }
    }

    fn take(&mut self, number: u32) -> Option<Promise> {
        let promise = self.by_block.remove(&number)?;
        self.by_end.remove(&(promise.until_s, number));
        Some(promise)
    }
}

impl Planner {
    /// Promises a prefix a lifetime on NVMe, or pins it (`lifetime` absent).
    pub(super) fn keep(&mut self, deepest: &BlockKey, lifetime: Option<Lifetime>) -> Result<Kept, KeepError> {
        let number = self.catalog.find(deepest).filter(|number| self.catalog[*number].is_readable());
        let number = number.ok_or(KeepError::Gone)?;
        self.admit_with_ancestors(number);
        self.check_keepable(number)?;
        let known = self.promises.get(number);
        let before = known.unwrap_or(Promise { until_s: 0, refresh: None, pinned: false });
        let promise = match lifetime {
            None => Promise { pinned: true, ..before },
            Some(lifetime) => {
                let until_s = self.now.seconds().saturating_add(lifetime.seconds).max(before.until_s);
                let refresh = lifetime.refreshed.then_some(lifetime).or(before.refresh);
                Promise { until_s, refresh, ..before }
            }
        };
        let writing = self.ancestry(number).filter(|at| self.catalog[*at].nvme != Nvme::Resident).count() as u64;
        if known.is_none() {
            self.hold_prefix(number);
        }
        self.promises.set(number, promise);
        Ok(Kept { block: self.reference(number), promise, writing, is_new: known.is_none() })
    }

    /// Whether every block of the prefix is on NVMe, or on its way there, and its account has so much share left.
    fn check_keepable(&self, number: u32) -> Result<(), KeepError> {
        let mut wanted = BTreeMap::new();
        for at in self.ancestry(number) {
            let entry = &self.catalog[at];
            if entry.nvme == Nvme::Absent || entry.doomed || self.is_being_purged(at) || self.is_on_lost_drive(at) {
                let why = if self.catalog.owner(at).ram_only { KeepError::RamOnly } else { KeepError::NotWritten };
                return Err(why);
            }
            if self.catalog.active(at).promises == 0 {
                *wanted.entry(self.catalog.account(at)).or_insert(0) += self.slot_bytes(Tier::Nvme, at);
            }
        }
        for (account, wanted) in wanted {
            let left = self.accounts.left_to_keep(account);
            if wanted > left {
                return Err(KeepError::NoShare { account, wanted: ByteCount(wanted), left: ByteCount(left) });
            }
        }
        Ok(())
    }

    /// A block and all before it.
    pub(super) fn ancestry(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(Some(number), |at| Some(self.catalog[*at].parent).filter(|parent| is_block(*parent)))
    }

    fn hold_prefix(&mut self, number: u32) {
        let mut at = number;
        while is_block(at) {
            let active = self.catalog.active_mut(at);
            active.promises += 1;
            if active.promises == 1 {
                let bytes = self.slot_bytes(Tier::Nvme, at);
                self.accounts.keep(self.catalog.owner(at), bytes);
            }
            at = self.catalog[at].parent;
        }
    }

    /// Ends the promise that is kept with a block, if there is one.
    pub(super) fn end_promise(&mut self, number: u32) -> bool {
        if self.promises.take(number).is_none() {
            return false;
        }
        self.commands.push(Command::Unpromise { key: self.catalog.key(number) });
        let mut at = number;
        while is_block(at) {
            let active = self.catalog.active_mut(at);
            active.promises -= 1;
            if active.promises == 0 {
                let bytes = self.slot_bytes(Tier::Nvme, at);
                self.accounts.keep_no_more(self.catalog.owner(at), bytes);
            }
            self.catalog.rest(at);
            self.chores.spend(LOOK);
            at = self.catalog[at].parent;
        }
        true
    }

    /// NVMe has a block no longer, or never will: ends all promises that lie on it.
    pub(super) fn end_promises_on(&mut self, number: u32) {
        if self.catalog.active(number).promises == 0 {
            return;
        }
        let mut stack = vec![number];
        while let Some(at) = stack.pop() {
            let below = self.catalog.children(at).filter(|child| self.catalog.active(*child).promises > 0);
            stack.extend(below);
            self.end_promise(at);
        }
    }

    /// Takes a pin away, or a promise that was never told to anybody. Whether there was one.
    pub(super) fn unkeep(&mut self, deepest: &BlockKey, pin: bool) -> bool {
        let Some(number) = self.catalog.find(deepest) else { return false };
        let Some(promise) = self.promises.get(number) else { return false };
        if !pin {
            return self.end_promise(number);
        }
        if promise.pinned && promise.until_s > self.now.seconds() {
            let promise = Promise { pinned: false, ..promise };
            self.promises.set(number, promise);
            self.commands.push(Command::Promise { key: *deepest, promise });
            return true;
        }
        promise.pinned && self.end_promise(number)
    }

    /// A block with a promise was used: its time begins anew, where it does. Told to the index only when it has moved by an
    /// eighth, so that uses don't write.
    pub(super) fn refresh_promise(&mut self, number: u32, used_s: u32) {
        let Some(promise) = self.promises.get(number) else { return };
        let Some(lifetime) = promise.refresh else { return };
        let until_s = used_s.saturating_add(lifetime.seconds);
        if until_s > promise.until_s && until_s - promise.until_s >= lifetime.seconds.div_ceil(8) {
            let promise = Promise { until_s, ..promise };
            self.promises.set(number, promise);
            self.commands.push(Command::Promise { key: self.catalog.key(number), promise });
        }
    }

    /// Ends promises whose time is over, as far as this event may, and no more of them than are left to this tick.
    pub(super) fn end_promises(&mut self) {
        while self.chores.has_steps() && self.chores.tick.promises > 0 {
            let due = self.promises.by_end.first().filter(|(until_s, _)| *until_s <= self.now.seconds());
            let Some((_, number)) = due.copied() else { return };
            self.chores.tick.promises -= 1;
            self.chores.spend(DROP);
            self.end_promise(number);
        }
    }

    /// Takes in a promise from before a restart, before any event. False where its time is over, or its block is not here.
    pub fn recover_promise(&mut self, key: &BlockKey, promise: Promise, now_s: u32) -> bool {
        let known = self.catalog.find(key).filter(|number| self.catalog[*number].is_readable());
        let Some(number) = known.filter(|_| promise.pinned || promise.until_s > now_s) else { return false };
        if self.promises.get(number).is_none() {
            self.hold_prefix(number);
        }
        self.promises.set(number, promise);
        true
    }

    /// Each block counts the promises that lie on it, and each account's share is charged once for it.
    pub(super) fn check_promises(&self) -> Result<(), String> {
        let (mut lies, mut kept) = (BTreeMap::new(), BTreeMap::new());
        for (number, _) in self.promises.iter() {
            if !self.catalog[number].is_readable() || self.catalog[number].nvme == Nvme::Absent {
                return Err(format!("block {number} is promised, and can't be read from NVMe"));
            }
            if let Some(at) = self.ancestry(number).find(|at| self.catalog[*at].nvme == Nvme::Absent) {
                return Err(format!("block {at} lies under a promise, and NVMe has it not"));
            }
            self.ancestry(number).for_each(|at| *lies.entry(at).or_insert(0) += 1);
        }
        for (number, _) in self.catalog.iter() {
            let counted = lies.get(&number).copied().unwrap_or(0);
            if self.catalog.active(number).promises != counted {
                return Err(format!(
                    "block {number} counts {} promises of {counted}",
                    self.catalog.active(number).promises
                ));
            }
            if counted > 0 {
                *kept.entry(self.catalog.account(number)).or_insert(0) += self.slot_bytes(Tier::Nvme, number);
            }
        }
        for known in self.accounts.holdings() {
            let counted = kept.get(&known.account).copied().unwrap_or(0);
            if known.kept_bytes != counted {
                return Err(format!("{:?} is charged {} kept bytes of {counted}", known.account, known.kept_bytes));
            }
        }
        Ok(())
    }
}
