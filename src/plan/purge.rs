//! Erasing what matches, leased or not: block by block, in steps.
//!
//! A purge visits every number that was given when it began. A block keeps its number for as long as it lives, so all that
//! matched then is visited, or is gone by itself; what comes in meanwhile may have a number that is still to be visited, and
//! then goes, too.

use std::collections::VecDeque;

use super::chores::{DROP, Job, LOOK, Step};
use super::entry::{Nvme, VACANT};
use super::event::{Answer, BlockRef, Filter, InstanceNo, Removed};
use super::planner::Planner;
use crate::vocab::{NamespaceId, Owner};

/// A purge under way.
#[derive(Debug)]
pub(super) struct Purge {
    filter: Filter,
    /// The number to be visited next, and the first that is not.
    at: u32,
    end: u32,
    /// Blocks that can't be read any more, and go once they are not moved any more: till then a row may still come.
    moving: Vec<BlockRef>,
    removed: Removed,
}

impl Purge {
    fn new(filter: Filter, end: u32) -> Self {
        Self { filter, at: 0, end, moving: Vec::new(), removed: Removed::default() }
    }

    pub(super) fn removed(&self) -> Removed {
        self.removed
    }

    fn matches(&self, owner: &Owner, created_s: u32) -> bool {
        let filter = &self.filter;
        filter.namespace.is_none_or(|namespace| namespace == owner.namespace)
            && filter.account.is_none_or(|account| account == owner.account)
            && filter.user.is_none_or(|user| user == owner.user)
            && filter.writer.is_none_or(|writer| writer == owner.writer)
            && filter.group.is_none_or(|group| group == owner.group)
            && filter.since_s.is_none_or(|since| since <= created_s)
    }
}

impl Planner {
    pub(super) fn purge(&mut self, filter: Filter) -> Answer {
        self.begin_job(|_, planner| Job::Purge(Purge::new(filter, planner.catalog.numbers())))
    }

    pub(super) fn instance_gone(&mut self, instance: InstanceNo, namespaces: &[NamespaceId]) -> Answer {
        let end = self.catalog.numbers();
        let of = |namespace: &NamespaceId| Filter { namespace: Some(*namespace), ..Filter::default() };
        let purges = namespaces.iter().map(|namespace| Purge::new(of(namespace), end)).collect();
        self.begin_job(|_, _| Job::Gone(Some(instance), purges))
    }

    /// Ends leases of an instance that is gone, then goes on with the purges that its end has caused.
    pub(super) fn go_on_ending_instance(&mut self, instance: Option<InstanceNo>, mut purges: VecDeque<Purge>) -> Step {
        if instance.is_some_and(|instance| !self.end_leases_of(instance)) {
            return Step::GoesOn(Job::Gone(instance, purges));
        }
        let mut removed = Removed::default();
        while let Some(purge) = purges.pop_front() {
            match self.go_on_purging(purge) {
                Step::GoesOn(Job::Purge(purge)) => {
                    purges.push_front(purge);
                    return Step::GoesOn(Job::Gone(None, purges));
                }
                Step::Waits(waits) => match purges.front_mut() {
                    Some(next) => next.moving.extend(waits.moving),
                    None => return Step::Waits(waits),
                },
                Step::Ended(of) => removed.blocks += of.blocks,
                Step::GoesOn(_) => {}
            }
        }
        Step::Ended(removed)
    }

    pub(super) fn go_on_purging(&mut self, mut purge: Purge) -> Step {
        while purge.at < purge.end && self.chores.has_steps() {
            let number = purge.at;
            purge.at += 1;
            self.chores.spend(LOOK);
            let entry = &self.catalog[number];
            let is_block = entry.active != VACANT && !entry.is_ghost();
            if is_block && purge.matches(&self.catalog.owner(number), entry.created_s) {
                self.erase(number, &mut purge);
            }
        }
        if purge.at < purge.end {
            Step::GoesOn(Job::Purge(purge))
        } else if self.is_over(&mut purge) {
            Step::Ended(purge.removed)
        } else {
            Step::Waits(purge)
        }
    }

    fn erase(&mut self, number: u32, purge: &mut Purge) {
        let block = self.reference(number);
        if !self.catalog[number].doomed {
            self.chores.spend(DROP);
            purge.removed.blocks += 1;
            purge.removed.bytes += u64::from(self.catalog[number].length);
            self.counters.removed += 1;
            if !self.catalog.is_moving(number) {
                return self.drop_everywhere(number);
            }
            // Unreadable from now on; its slots go when what moves it ends.
            self.catalog[number].doomed = true;
            self.refresh(number);
        }
        if self.catalog[number].nvme != Nvme::Absent {
            purge.moving.push(block);
        }
    }

    /// Whether nothing is left of what a purge has visited, in RAM, on NVMe, or on its way there.
    pub(super) fn is_over(&self, purge: &mut Purge) -> bool {
        let moves = |block: BlockRef| {
            let number = self.catalog.resolve(block);
            number.is_some_and(|number| self.catalog[number].doomed && self.catalog[number].nvme != Nvme::Absent)
        };
        while let Some(last) = purge.moving.last() {
            if moves(*last) {
                return false;
            }
            purge.moving.pop();
        }
        true
    }

    /// Whether a purge under way is still to come to the block: it stays whose it is till then, and nobody can begin to read it or
    /// have it kept.
    pub(super) fn is_being_purged(&self, number: u32) -> bool {
        if !self.chores.has_purges() {
            return false;
        }
        let (owner, created_s) = (self.catalog.owner(number), self.catalog[number].created_s);
        self.chores.purges(|purge| (purge.at..purge.end).contains(&number) && purge.matches(&owner, created_s))
    }
}
