//! Blocks with a time to live: forgotten when it is over, whether or not anybody needs the room.
//!
//! A chain's blocks live as long as the longest-lived request through them: one put again without a limit has none any more.

use std::collections::{BTreeMap, BTreeSet};

use super::planner::Planner;
use super::subtree::{Subtree, Why};
use crate::vocab::{Lifetime, Retention};

/// The number of the walk among those that the catalog keeps straight.
const EXPIRING: u64 = u64::MAX;

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

    /// A block of a chain that a put has stored lives at least as long as was asked for.
    pub(super) fn live_on(&mut self, number: u32, retention: Retention, stored_s: u32) {
        let known = self.expiries.get(number);
        match retention {
            Retention::Ttl(lifetime) if known > 0 => {
                let until_s = stored_s.saturating_add(lifetime.seconds);
                self.expiries.set(number, known.max(until_s), lifetime.refreshed.then_some(lifetime));
            }
            Retention::Ttl(_) => {}
            Retention::BestEffort | Retention::Guaranteed(_) => self.expiries.forget(number),
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

    /// Lets blocks go whose time is over, with what hangs on them, as far as this event may. What is leased or moved keeps all
    /// before it for another second.
    pub(super) fn expire(&mut self) {
        while self.chores.has_steps() {
            let subtree = self.chores.expiring.take().or_else(|| self.begin_to_expire());
            let Some(subtree) = subtree else { return };
            self.chores.expiring = self.go_on_removing(EXPIRING, subtree).err();
        }
    }

    /// The block whose time is over for longest. It has a second more, which counts where it can't go.
    fn begin_to_expire(&mut self) -> Option<Subtree> {
        let due = self.expiries.by_end.first().filter(|(until_s, _)| *until_s <= self.now.seconds());
        let (_, number) = due.copied()?;
        let refresh = self.expiries.by_block.get(&number).and_then(|(_, refresh)| *refresh);
        self.expiries.set(number, self.now.seconds() + 1, refresh);
        Some(Subtree::of(Some(self.reference(number)), Why::Time))
    }
}
