//! A block and all that hangs on it goes, leaves first, in steps: by hand, or because its time to live is over.
//!
//! First all of it is found, parents before children; then it goes in the opposite order. Each block is looked at again when
//! its turn comes: what was leased, promised or begun to be moved meanwhile stays, and so does what it hangs on.

use super::chores::{DROP, LOOK};
use super::event::{BlockRef, Removed};
use super::planner::Planner;

/// Why it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Hand,
    Time,
}

/// A subtree that is going.
#[derive(Debug)]
pub(super) struct Subtree {
    /// Those found, each after its parent.
    found: Vec<BlockRef>,
    /// The one whose children are being found.
    at: usize,
    why: Why,
    removed: Removed,
}

impl Subtree {
    pub(super) fn of(root: Option<BlockRef>, why: Why) -> Self {
        Self { found: root.into_iter().collect(), at: 0, why, removed: Removed::default() }
    }
}

impl Planner {
    /// Goes on as far as this event may; `walk` names it among the walks that the catalog keeps straight. What was removed
    /// in all, or what is left to do.
    pub(super) fn go_on_removing(&mut self, walk: u64, mut subtree: Subtree) -> Result<Removed, Subtree> {
        while let Some(block) = subtree.found.get(subtree.at).copied() {
            if !self.chores.has_steps() {
                return Err(subtree);
            }
            self.chores.spend(LOOK);
            let child = self.catalog.resolve(block).and_then(|parent| self.catalog.next_child(walk, parent));
            match child {
                Some(child) => subtree.found.push(self.reference(child)),
                None => {
                    self.catalog.end_walk(walk);
                    subtree.at += 1;
                }
            }
        }
        while let Some(block) = subtree.found.pop() {
            if !self.chores.has_steps() {
                subtree.found.push(block);
                subtree.at = subtree.found.len();
                return Err(subtree);
            }
            self.chores.spend(LOOK);
            if let Some(number) = self.catalog.resolve(block) {
                self.remove_leaf(number, &mut subtree);
            }
        }
        Ok(subtree.removed)
    }

    fn remove_leaf(&mut self, number: u32, subtree: &mut Subtree) {
        let entry = &self.catalog[number];
        if entry.is_ghost() {
            return;
        }
        if entry.ram_children > 0 || entry.nvme_children > 0 || !self.catalog.may_go_with_children(number) {
            subtree.removed.kept += 1;
            return;
        }
        self.chores.spend(DROP);
        subtree.removed.blocks += 1;
        subtree.removed.bytes += u64::from(entry.length);
        match subtree.why {
            Why::Hand => self.counters.removed += 1,
            Why::Time => {
                self.expiries.forget(number);
                self.counters.expired += 1;
            }
        }
        self.drop_everywhere(number);
    }
}
