//! GreedyDual-Size-Frequency: a block is worth how often it was used times what it costs to compute again; what goes sets the
//! worth at which others begin, so that what was worth much once ages. Slots of a list are of one size.

use std::collections::BTreeSet;

use super::super::column::Column;
use super::lru::PASSED_OVER_MAX;
use super::per_list::PerList;
use super::queues::Queues;
use super::{Ask, Heat, Policy, Use, Visit};

/// The depth at which attention to what comes before a block costs as much to compute as all else of it: 128 blocks of 512
/// tokens. Of a model of 70 billion parameters, 80 layers and 8,192 dimensions a token takes 140 GFLOP and 2.6 MFLOP more
/// for each token before it, which is as much after some 53,000.
const EVEN_DEPTH: f64 = 128.0;

#[derive(Clone, Copy, Debug, Default)]
struct State {
    worth: f64,
    cost: f32,
    uses: u16,
    list: u16,
    leaf: bool,
}

#[derive(Debug, Default)]
struct List {
    /// Leaves by their worth, whose bits order as it does.
    leaves: BTreeSet<(u64, u32)>,
    /// What the last one that went was worth.
    age: f64,
}

/// An order of leaves a list, and all blocks by their last use for those who ask for the oldest.
#[derive(Debug)]
pub(super) struct Gdsf {
    lists: PerList<List>,
    states: Column<State>,
    queues: Queues<1>,
}

impl Default for Gdsf {
    fn default() -> Self {
        Self { lists: PerList::default(), states: Column::new(State::default()), queues: Queues::default() }
    }
}

impl Gdsf {
    fn set(&mut self, block: u32, worth: f64) {
        let State { worth: before, list, leaf, .. } = self.states[block];
        self.states[block].worth = worth;
        if leaf {
            let leaves = &mut self.lists.of(list).leaves;
            leaves.remove(&(before.to_bits(), block));
            leaves.insert((worth.to_bits(), block));
        }
    }
}

impl Policy for Gdsf {
    fn name(&self) -> &'static str {
        "gdsf"
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat, ask: Ask<'_>, _visit: &Visit) {
        let cost = 1.0 + f64::from(ask().depth) / EVEN_DEPTH;
        let worth = if heat == Heat::Hot { self.lists.of(list).age + cost } else { 0.0 };
        self.states.reach(block);
        self.states[block] = State { worth, cost: cost as f32, uses: 1, list, leaf: true };
        self.lists.of(list).leaves.insert((worth.to_bits(), block));
        self.queues.link_hot(Queues::<1>::of(list, 0), block);
    }

    fn touch(&mut self, list: u16, block: u32, _ask: Ask<'_>, why: Use) {
        self.queues.warm(Queues::<1>::of(list, 0), block);
        let state = &mut self.states[block];
        if why == Use::Read {
            state.uses = state.uses.saturating_add(1);
        }
        let worth = f64::from(state.uses) * f64::from(state.cost);
        let worth = worth + self.lists.of(list).age;
        self.set(block, worth);
    }

    fn chill(&mut self, list: u16, block: u32) {
        self.queues.chill(Queues::<1>::of(list, 0), block);
        self.set(block, 0.0);
    }

    fn remove(&mut self, block: u32, _ask: Ask<'_>) {
        let State { worth, list, .. } = self.states[block];
        self.lists.of(list).leaves.remove(&(worth.to_bits(), block));
        self.queues.unlink(block);
    }

    fn leaf(&mut self, list: u16, block: u32, leaf: bool) {
        let State { worth, .. } = self.states[block];
        self.states[block].leaf = leaf;
        let leaves = &mut self.lists.of(list).leaves;
        if leaf {
            leaves.insert((worth.to_bits(), block));
        } else {
            leaves.remove(&(worth.to_bits(), block));
        }
    }

    fn oldest(&self, list: u16) -> Option<u32> {
        self.queues.coldest(Queues::<1>::of(list, 0))
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let list = self.lists.of(list);
        let mut inspected = list.leaves.iter().take(PASSED_OVER_MAX);
        let (worth, block) = inspected.find(|(_, block)| evictable(*block)).copied()?;
        list.age = list.age.max(f64::from_bits(worth));
        Some(block)
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        let mut moved = Vec::new();
        self.queues.relist(Queues::<1>::of(from, 0), Queues::<1>::of(to, 0), |block| {
            let does = moves(block);
            moved.extend(does.then_some(block));
            does
        });
        for block in moved {
            let State { worth, leaf, .. } = self.states[block];
            self.states[block].list = to;
            if leaf {
                self.lists.of(from).leaves.remove(&(worth.to_bits(), block));
                self.lists.of(to).leaves.insert((worth.to_bits(), block));
            }
        }
    }

    fn bytes(&self) -> usize {
        // A set of this kind is two thirds full, more or less.
        let leaves: usize = self.lists.iter().map(|list| list.leaves.len() * size_of::<(u64, u32)>() * 3 / 2).sum();
        self.states.bytes() + self.queues.bytes() + leaves
    }
}
