//! The mind: what to admit, promote, write, evict, and what a lease protects.
//!
//! Events in, commands out. It knows no file, no clock, no task and no lock; nothing in it depends on the order of a
//! hash map. The same planner runs in the daemon behind one thread, in `kvtier replay --simulate` and in seeded tests.
//!
//! **Invariants** ([`Planner::check`] runs them): each tier is prefix-closed but for orphans, which are unreachable and
//! first to go; a slot belongs to one block, to the free list, or to the world (being freed); what is leased or being
//! moved stays; blocks of a put end with it.

mod accounts;
mod active;
mod admission;
mod below;
mod catalog;
mod check;
mod chores;
mod column;
mod command;
mod counters;
mod entry;
mod event;
mod evict;
mod expire;
mod extent;
mod extents;
mod flush;
mod footprint;
mod keep;
mod keys;
mod lease;
mod load;
mod lost_drive;
mod namespaces;
mod order;
mod owner;
mod planner;
mod policy;
mod purge;
mod put;
mod put_end;
mod quota;
mod reach;
mod recover;
mod recover_order;
mod seen;
mod shelf;
mod space;
mod subtree;
mod wear;
mod write;

pub use admission::AdmissionKind;
pub use command::{Command, InRam, Load, Residence, Write};
pub use counters::{AccountHoldings, Counters, Holdings, StoredBlocks};
pub use event::{
    Answer, BlockRef, Event, Filter, InstanceNo, JobId, KeepError, Kept, LeaseError, Leased, Offer, Peek, PutId,
    Removed, Transfer, Wanted,
};
pub use keys::Keys;
pub use planner::{Inspection, Options, Planner};
pub use policy::{Ask, Facts, Heat, Policy, PolicyKind, Use, Visit};
pub use recover::{Recovered, Recovery};

/// The length of the unbroken run of `true` from 0 on, below `len`, where after the first `false` all is `false`.
///
/// Doubles its step, then halves it: a run of n costs 2 log n probes. Bentley and Yao, "An almost optimal algorithm for
/// unbounded searching" (1976). The last is probed first: a whole-prefix hit is a common case, and costs one.
pub fn gallop(len: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    let Some(last) = len.checked_sub(1) else { return 0 };
    if holds(last) {
        return len;
    }
    let (mut run, mut step, len) = (0, 1, last);
    while run + step <= len && holds(run + step - 1) {
        run += step;
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if run + step <= len && holds(run + step - 1) {
            run += step;
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::gallop;

    #[test]
    fn galloping_finds_every_run_with_few_probes() {
        for len in 0..200_usize {
            for run in 0..=len {
                let mut probes = 0;
                let found = gallop(len, |at| {
                    probes += 1;
                    at < run
                });
                assert_eq!(found, run, "of {len}");
                assert!(probes <= 20, "{probes} probes for {run} of {len}");
                assert!(probes <= 1 || run < len, "{probes} probes for all of {len}");
            }
        }
    }
}
