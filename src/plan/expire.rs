//! Blocks with a time to live: forgotten when it is over, whether or not anybody needs the room.
//!
//! A chain's blocks live as long as the longest-lived request through them: one put again without a limit has none any more.

use std::collections::{BTreeMap, BTreeSet};

use super::event::BlockRef;
use super::planner::Planner;
use crate::vocab::{Lifetime, Retention};

/// When blocks end, by their number; those that have no limit are not here.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_block: BTreeMap<u32, (u32, Option<Lifetime>)>,
    by_end: BTreeSet<(u32, u32)>,
}

impl Expiries {
    pub(super) fn is_empty(&self) -> bool {
        self.by_block.is_empty()
    }

    pub(super) fn len(&self) -> u64 {
        self.by_block.len() as u64
    }

    /// When a block ends, in seconds; 0 for never.
    pub(super) fn get(&self, number: u32) -> u32 {
        self.by_block.get(&number).map_or(0, |(until_s, _)| *until_s)
    }

    pub(super) fn set(&mut self, number: u32, until_s: u32, refresh: Option<Lifetime>) {
        self.forget(number);
        self.by_block.insert(number, (until_s, refresh));
        self.by_end.insert((until_s, number));
    }

    pub(super) fn forget(&mut self, number: u32) {
        if let Some((until_s, _)) = self.by_block.remove(&number) {
            self.by_end.remove(&(until_s, number));
        }
    }
}

impl Planner {
    /// A block is being put.
    pub(super) fn begin_to_live(&mut self, number: u32, retention: Retention) {
        match retention {
            Retention::Ttl(lifetime) => {
                let until_s = self.now.seconds().saturating_add(lifetime.seconds);
                self.expiries.set(number, until_s, lifetime.refreshed.then_some(lifetime));
            }
            Retention::BestEffort | Retention::Guaranteed(_) => self.expiries.forget(number),
        }
    }

    /// A put's chain was stored down to this block: it and what comes before it live at least as long.
    pub(super) fn live_on(&mut self, deepest: u32, retention: Retention) {
        if self.expiries.is_empty() {
            return;
        }
        let chain: Vec<u32> = self.ancestry(deepest).collect();
        for number in chain {
            let known = self.expiries.get(number);
            match retention {
                Retention::Ttl(lifetime) if known > 0 => {
                    let until_s = self.now.seconds().saturating_add(lifetime.seconds);
                    self.expiries.set(number, known.max(until_s), lifetime.refreshed.then_some(lifetime));
                }
                Retention::Ttl(_) => {}
                Retention::BestEffort | Retention::Guaranteed(_) => self.expiries.forget(number),
            }
        }
    }

    /// A block was used: its time begins anew, where it does.
    pub(super) fn refresh_expiry(&mut self, number: u32, used_s: u32) {
        if let Some((until_s, Some(lifetime))) = self.expiries.by_block.get(&number).copied() {
            let later = used_s.saturating_add(lifetime.seconds);
            if later > until_s {
                self.expiries.set(number, later, Some(lifetime));
            }
        }
    }

    /// Lets blocks go whose time is over, with what hangs on them, about so many at most. What is leased or moved keeps all
    /// before it for another second.
    pub(super) fn expire(&mut self, most: usize) {
        let mut gone = 0;
        while gone < most {
            let due = self.expiries.by_end.first().filter(|(until_s, _)| *until_s <= self.now.seconds());
            let Some((_, number)) = due.copied() else { return };
            let mut subtree = vec![number];
            let mut at = 0;
            while let Some(number) = subtree.get(at).copied() {
                subtree.extend(self.catalog.children(number));
                at += 1;
            }
            gone += subtree.len();
            if !subtree.iter().all(|number| self.catalog.may_go_with_children(*number)) {
                let refresh = self.expiries.by_block.get(&number).and_then(|(_, refresh)| *refresh);
                self.expiries.set(number, self.now.seconds() + 1, refresh);
                continue;
            }
            let subtree: Vec<BlockRef> = subtree.into_iter().rev().map(|number| self.reference(number)).collect();
            for block in subtree {
                // A ghost goes with the last block that hung on it.
                let Some(number) = self.catalog.resolve(block) else { continue };
                self.expiries.forget(number);
                self.counters.expired += u64::from(!self.catalog[number].is_ghost());
                self.drop_everywhere(number);
            }
        }
    }
}
