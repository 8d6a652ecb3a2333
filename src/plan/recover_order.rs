//! The end of a warm start: which blocks can be reached, and in which order all of them go.
//!
//! Both follow chains, and a walk along a chain waits for memory at every block. So blocks are put in the order of their
//! depth first: then each is looked at once, after its parent or before it, and a processor looks at many of them at a time.

use super::command::Residence;
use super::entry::{Nvme, ROOT, Reach, is_block};
use super::event::BlockRef;
use super::planner::Planner;
use super::policy::{Heat, Visit};
use super::shelf::Entrance;
use crate::vocab::BlockKey;

/// Depths that have a place of their own when blocks are put in order; the few that are deeper share the last.
const DEPTHS: u32 = 1 << 17;

/// A block on NVMe and its parent.
type Edge = (u32, u32);

/// Numbers of blocks as bits.
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, number: u32) -> bool {
        (self.0[number as usize / 64] >> (number % 64)) & 1 != 0
    }

    fn set(&mut self, number: u32, bit: bool) {
        self.0[number as usize / 64] |= u64::from(bit) << (number % 64);
    }
}

pub(super) fn settle(mut planner: Planner) -> Planner {
    let edges = by_depth(&planner);
    // A use of a block was one of all its ancestors, though rows know only when each was written. (0 where nobody knows.)
    for (number, parent) in edges.iter().rev().filter(|(_, parent)| is_block(*parent)) {
        let used = planner.nvme.used_s(*number);
        planner.nvme.use_later(*parent, used);
    }
    let mut reached = Bits(vec![0; planner.catalog.numbers().div_ceil(64) as usize]);
    for (number, parent) in &edges {
        let above = *parent == ROOT || (is_block(*parent) && reached.has(*parent));
        reached.set(*number, above);
    }
    for (number, _) in &edges {
        let owner = planner.catalog.owner(*number);
        planner.accounts.store(owner);
        if reached.has(*number) {
            planner.namespaces.count(owner.namespace, planner.catalog[*number].length, true);
        }
    }
    drop(edges);
    let mut turns = take_turns(&mut planner, &reached);
    turns.sort_unstable_by_key(|[first, second, number]| ((u64::from(*first) << 32) | u64::from(*second), *number));
    for [_, second, number] in turns {
        let lane = planner.lane(number);
        let Planner { nvme, catalog, .. } = &mut planner;
        let (ask, leaf) = (&|| catalog.facts(number), catalog[number].nvme_children == 0);
        nvme.enter((second as u8, lane), number, Entrance { heat: Heat::Hot, leaf, ask, visit: Visit::default() });
    }
    planner.nvme.space.occupied();
    planner
}

/// Each block on NVMe with its parent, parents before children: blocks are counted by depth, and put where the counts say.
fn by_depth(planner: &Planner) -> Vec<Edge> {
    let blocks = || planner.catalog.iter().filter(|(_, entry)| entry.nvme == Nvme::Resident);
    let mut places = vec![0_usize; DEPTHS as usize + 1];
    blocks().for_each(|(_, entry)| places[entry.depth.min(DEPTHS) as usize] += 1);
    let mut all = 0;
    for place in &mut places {
        all += std::mem::replace(place, all);
    }
    let deep = places[DEPTHS as usize];
    let mut edges = vec![(0, 0); all];
    for (number, entry) in blocks() {
        let place = &mut places[entry.depth.min(DEPTHS) as usize];
        edges[*place] = (number, entry.parent);
        *place += 1;
    }
    edges[deep..].sort_unstable_by_key(|(number, _)| (planner.catalog[*number].depth, *number));
    edges
}

/// Each block's place in the order of going: orphans first, then the least recent, then the deepest. Twelve bytes that
/// compare as they stand: one bit of reach, 32 of use, 23 of depth (deeper blocks count as that deep), 8 of class, and the
/// number.
fn take_turns(planner: &mut Planner, reached: &Bits) -> Vec<[u32; 3]> {
    const DEEPEST: u32 = (1 << 23) - 1;
    let Planner { catalog, nvme, held, .. } = planner;
    let mut turns = Vec::with_capacity(usize::try_from(held.nvme_blocks).unwrap_or_default());
    for (number, entry) in catalog.iter_mut().filter(|(_, entry)| entry.nvme == Nvme::Resident) {
        let reached = reached.has(number);
        entry.reach = if reached { Reach::Readable } else { Reach::Orphan };
        held.orphans += u64::from(!reached);
        nvme.space.touch(entry.nvme_slot, nvme.used(number));
        let (used, shallow) = (nvme.used_s(number), DEEPEST - entry.depth.min(DEEPEST));
        let first = (u32::from(reached) << 31) | (used >> 1);
        turns.push([first, (used << 31) | (shallow << 8) | u32::from(entry.nvme_class), number]);
    }
    turns
}

impl Planner {
    /// The blocks that lookups may find, with their keys: what has been published so far.
    pub fn readable(&self) -> impl Iterator<Item = (BlockRef, BlockKey, Residence)> + '_ {
        let readable = self.catalog.iter().filter(|(_, entry)| entry.is_readable());
        readable.map(|(number, _)| (self.reference(number), self.catalog.key(number), self.residence(number)))
    }
}
