//! SIEVE: one queue in the order of arrival, and a hand that goes over it from the oldest on, sparing each block that was
//! used since it came by last.

use super::super::column::Column;
use super::lru::PASSED_OVER_MAX;
use super::per_list::PerList;
use super::queues::Queues;
use super::{Ask, Heat, Policy, Use, Visit};

/// What is kept of a block.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    list: u16,
    used: bool,
    /// Its request has not ended: its place in the queue is that of then.
    arriving: bool,
}

/// A queue and a hand a list.
#[derive(Debug)]
pub(super) struct Sieve {
    queues: Queues<1>,
    hands: PerList<Option<u32>>,
    states: Column<State>,
}

impl Default for Sieve {
    fn default() -> Self {
        Self { queues: Queues::default(), hands: PerList::default(), states: Column::new(State::default()) }
    }
}

impl Sieve {
    const fn queue(list: u16) -> u32 {
        Queues::<1>::of(list, 0)
    }

    /// The hand does not stay on a block that leaves its place.
    fn let_go(&mut self, block: u32) {
        let list = self.states[block].list;
        if *self.hands.of(list) == Some(block) {
            *self.hands.of(list) = self.queues.hotter(block);
        }
    }
}

impl Policy for Sieve {
    fn name(&self) -> &'static str {
        "sieve"
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat, _ask: Ask<'_>, _visit: &Visit) {
        self.states.reach(block);
        self.states[block] = State { list, used: false, arriving: true };
        match heat {
            Heat::Hot => self.queues.link_hot(Self::queue(list), block),
            Heat::Cold => self.queues.link_cold(Self::queue(list), block),
        }
    }

    fn touch(&mut self, list: u16, block: u32, _ask: Ask<'_>, why: Use) {
        match why {
            Use::Read => self.states[block].used = true,
            // A chain comes in from its head on and is to go from its tail on.
            Use::Stored(_) | Use::Again if self.states[block].arriving => {
                self.states[block].arriving = false;
                self.let_go(block);
                self.queues.warm(Self::queue(list), block);
            }
            Use::Stored(_) | Use::Again => {}
        }
    }

    fn chill(&mut self, list: u16, block: u32) {
        self.let_go(block);
        self.states[block].used = false;
        self.queues.chill(Self::queue(list), block);
        *self.hands.of(list) = None;
    }

    fn remove(&mut self, block: u32, _ask: Ask<'_>) {
        self.let_go(block);
        self.queues.unlink(block);
    }

    fn oldest(&self, list: u16) -> Option<u32> {
        self.queues.coldest(Self::queue(list))
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let coldest = self.queues.coldest(Self::queue(list))?;
        let mut block = self.hands.of(list).unwrap_or(coldest);
        let (mut passed, first) = (0, block);
        let mut spared = false;
        while passed < PASSED_OVER_MAX {
            let used = std::mem::take(&mut self.states[block].used);
            if !used && evictable(block) {
                *self.hands.of(list) = Some(block);
                return Some(block);
            }
            spared |= used;
            block = self.queues.hotter(block).unwrap_or(coldest);
            if block == first && !std::mem::take(&mut spared) {
                return None;
            }
            passed += 1;
        }
        None
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        let Self { queues, states, .. } = self;
        queues.relist(Self::queue(from), Self::queue(to), |block| {
            let does = moves(block);
            if does {
                states[block].list = to;
            }
            does
        });
        *self.hands.of(from) = None;
    }

    fn bytes(&self) -> usize {
        self.queues.bytes() + self.states.bytes() + self.hands.bytes()
    }
}
