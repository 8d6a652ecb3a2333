//! What is too long for one event: it goes on in steps, each with an [`Event::Proceed`](super::Event::Proceed), so that nobody waits for all of it.
//!
//! An event has a number of steps ([`Options::at_once`](super::Options::at_once)), and what it does not get done with them is noted
//! here. Nothing here waits for the world but a purge for the blocks that are being moved.

use std::collections::{BTreeMap, VecDeque};

use super::below::Below;
use super::event::{Answer, InstanceNo, JobId, Removed};
use super::planner::Planner;
use super::purge::Purge;
use super::put_end::Ending;
use super::subtree::Subtree;
use crate::vocab::Timestamp;
use crate::vocab::limits::EXPIRED_A_TICK;

/// Steps that a look at a block takes.
pub(super) const LOOK: usize = 1;
/// That it takes to find out who can reach a block, and to say so.
pub(super) const REACH: usize = 8;
/// To let a block or a lease go, with all that is told about it.
pub(super) const DROP: usize = 32;

/// Work that somebody may wait for.
pub(super) enum Job {
    Purge(Purge),
    Evict(Subtree),
    /// An instance is gone: its leases end, unless they have, then the purges go on that wait for it.
    Gone(Option<InstanceNo>, VecDeque<Purge>),
}

/// What became of a job in this event.
pub(super) enum Step {
    GoesOn(Job),
    /// All is done but what waits for blocks that are being moved.
    Waits(Purge),
    Ended(Removed),
}

/// What is left of a tick.
#[derive(Debug, Default)]
pub(super) struct TickLeft {
    /// Leases, lifetimes and times to live are looked at.
    pub under_way: bool,
    /// When it was: leases that end later wait for the next.
    pub at: Timestamp,
    /// Blocks above lowered limits that may still go.
    pub trims: usize,
    /// Promises that may still end.
    pub promises: usize,
}

/// All that goes on.
#[derive(Default)]
pub(super) struct Chores {
    /// Steps that this event has left.
    left: usize,
    /// Blocks below which something is to be worked out anew.
    pub below: VecDeque<Below>,
    jobs: VecDeque<(JobId, Job)>,
    /// Purges that wait for blocks that are being moved.
    waiting: Vec<(JobId, Purge)>,
    /// Whether one of these may have gone since they were looked at.
    moved: bool,
    jobs_begun: u64,
    pub tick: TickLeft,
    /// A block whose time to live is over, with what hangs on it.
    pub expiring: Option<Subtree>,
    /// Puts that have ended, of which not all is given up yet.
    pub endings: BTreeMap<u64, Ending>,
}

impl Chores {
    /// An event begins, with so many steps; whether it may be news to those who wait.
    pub(super) fn begin(&mut self, steps: usize, is_news: bool) {
        self.left = steps;
        self.moved |= is_news;
    }

    /// Whether the event may do more.
    pub(super) fn has_steps(&self) -> bool {
        self.left > 0
    }

    pub(super) fn steps(&self) -> usize {
        self.left
    }

    pub(super) fn spend(&mut self, steps: usize) {
        self.left = self.left.saturating_sub(steps);
    }

    /// How much there is that goes on.
    pub(super) fn len(&self) -> u64 {
        let lists = self.below.len() + self.jobs.len() + self.waiting.len() + self.endings.len();
        lists as u64 + u64::from(self.tick.under_way) + u64::from(self.expiring.is_some())
    }

    /// Whether a purge may be under way.
    pub(super) fn has_purges(&self) -> bool {
        !(self.jobs.is_empty() && self.waiting.is_empty())
    }

    /// Whether any purge under way is such.
    pub(super) fn purges(&self, is: impl Fn(&Purge) -> bool) -> bool {
        let at_work = self.jobs.iter().any(|(_, job)| match job {
            Job::Purge(purge) => is(purge),
            Job::Gone(_, purges) => purges.iter().any(&is),
            Job::Evict(_) => false,
        });
        at_work || self.waiting.iter().any(|(_, purge)| is(purge))
    }
}

impl Planner {
    /// Whether [`Event::Proceed`](super::Event::Proceed) would do something.
    #[must_use]
    pub fn is_working(&self) -> bool {
        let chores = &self.chores;
        chores.len() > chores.waiting.len() as u64
            || (chores.moved && !chores.waiting.is_empty())
            || !self.lost_extents.is_empty()
    }

    /// Jobs that somebody may wait for.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.chores.jobs.len() + self.chores.waiting.len()
    }

    /// Goes on with everything, as far as this event may. One job that has ended.
    pub(super) fn proceed(&mut self) -> Option<(JobId, Removed)> {
        self.settle_below();
        self.sweep_lost_extents();
        self.go_on_with_tick();
        self.go_on_ending_puts();
        for _ in 0..self.chores.jobs.len() {
            if !self.chores.has_steps() {
                return None;
            }
            let (id, job) = self.chores.jobs.pop_front()?;
            match self.step(id, job) {
                Step::GoesOn(job) => self.chores.jobs.push_back((id, job)),
                Step::Waits(purge) => self.chores.waiting.push((id, purge)),
                Step::Ended(removed) => return Some((id, removed)),
            }
        }
        self.end_waiting()
    }

    /// Begins a job, and does what of it this event may.
    pub(super) fn begin_job(&mut self, make: impl FnOnce(JobId, &mut Self) -> Job) -> Answer {
        self.chores.jobs_begun += 1;
        let id = JobId(self.chores.jobs_begun);
        let job = make(id, self);
        match self.step(id, job) {
            Step::GoesOn(job) => self.chores.jobs.push_back((id, job)),
            Step::Waits(purge) => self.chores.waiting.push((id, purge)),
            Step::Ended(removed) => return Answer::Removed(removed),
        }
        Answer::Removing(id)
    }

    fn step(&mut self, id: JobId, job: Job) -> Step {
        match job {
            Job::Purge(purge) => self.go_on_purging(purge),
            Job::Evict(subtree) => match self.go_on_removing(id.0, subtree) {
                Ok(removed) => Step::Ended(removed),
                Err(subtree) => Step::GoesOn(Job::Evict(subtree)),
            },
            Job::Gone(instance, purges) => self.go_on_ending_instance(instance, purges),
        }
    }

    /// A purge for which nothing moves any more.
    fn end_waiting(&mut self) -> Option<(JobId, Removed)> {
        if !std::mem::take(&mut self.chores.moved) {
            return None;
        }
        for at in 0..self.chores.waiting.len() {
            let mut waiting = std::mem::take(&mut self.chores.waiting);
            let over = self.is_over(&mut waiting[at].1);
            let ended = over.then(|| waiting.swap_remove(at));
            self.chores.waiting = waiting;
            if let Some((id, purge)) = ended {
                // There may be another one.
                self.chores.moved = true;
                return Some((id, purge.removed()));
            }
        }
        None
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) -> Answer {
        let at = self.now;
        self.chores.tick = TickLeft { under_way: true, at, trims: EXPIRED_A_TICK, promises: EXPIRED_A_TICK };
        self.sweep_lost_extents();
        self.go_on_with_tick();
        Answer::Done
    }

    fn go_on_with_tick(&mut self) {
        if !self.chores.tick.under_way {
            return;
        }
        self.end_leases_due();
        self.trim_all();
        self.end_promises();
        self.expire();
        self.chores.tick.under_way = !self.chores.has_steps();
    }
}
