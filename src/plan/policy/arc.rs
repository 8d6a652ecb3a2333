//! ARC: one queue for what was used once and one for the rest; what came back after it had gone from one of them makes that
//! one larger.

use super::super::column::Column;
use super::ghosts::Ghosts;
use super::lru::PASSED_OVER_MAX;
use super::per_list::PerList;
use super::queues::Queues;
use super::{Ask, Heat, Policy, Use, Visit};

const ONCE: usize = 0;
const AGAIN: usize = 1;

/// Blocks of both queues of a list, keys of what went from each, and how many the first should have.
#[derive(Debug, Default)]
struct List {
    held: [usize; 2],
    ghosts: [Ghosts<()>; 2],
    target: usize,
}

/// Two queues a list.
#[derive(Debug)]
pub(super) struct Arc {
    queues: Queues<2>,
    lists: PerList<List>,
    states: Column<(u16, bool)>,
}

impl Default for Arc {
    fn default() -> Self {
        Self { queues: Queues::default(), lists: PerList::default(), states: Column::new((0, false)) }
    }
}

impl Arc {
    fn queue(&self, block: u32) -> u32 {
        let (list, again) = self.states[block];
        Queues::<2>::of(list, again.into())
    }

    /// The first block of a queue that may go, from its cold end on.
    fn first(&mut self, list: u16, which: usize, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let most = self.lists.of(list).held[which].min(PASSED_OVER_MAX);
        let queue = Queues::<2>::of(list, which);
        for _ in 0..most {
            let block = self.queues.coldest(queue)?;
            if evictable(block) {
                return Some(block);
            }
            self.queues.warm(queue, block);
        }
        None
    }
}

impl List {
    /// Whether the block had gone; if so, the queue from which it went should have been larger.
    fn returns(&mut self, key: u64) -> bool {
        let [once, again] = [ONCE, AGAIN].map(|which| self.ghosts[which].len().max(1));
        let all: usize = self.held.iter().sum();
        if self.ghosts[ONCE].take(key).is_some() {
            self.target = (self.target + (again / once).max(1)).min(all);
            return true;
        }
        let was_again = self.ghosts[AGAIN].take(key).is_some();
        if was_again {
            self.target = self.target.saturating_sub((once / again).max(1));
        }
        was_again
    }
}

impl Policy for Arc {
    fn name(&self) -> &'static str {
        "arc"
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat, ask: Ask<'_>, _visit: &Visit) {
        let again = self.lists.of(list).returns(ask().key);
        self.lists.of(list).held[usize::from(again)] += 1;
        self.states.reach(block);
        self.states[block] = (list, again);
        match heat {
            Heat::Hot => self.queues.link_hot(self.queue(block), block),
            Heat::Cold => self.queues.link_cold(self.queue(block), block),
        }
    }

    fn touch(&mut self, list: u16, block: u32, _ask: Ask<'_>, why: Use) {
        if why == Use::Read && !self.states[block].1 {
            self.states[block].1 = true;
            let held = &mut self.lists.of(list).held;
            (held[ONCE], held[AGAIN]) = (held[ONCE] - 1, held[AGAIN] + 1);
        }
        self.queues.warm(self.queue(block), block);
    }

    fn chill(&mut self, _list: u16, block: u32) {
        self.queues.chill(self.queue(block), block);
    }

    fn remove(&mut self, block: u32, ask: Ask<'_>) {
        let (list, again) = self.states[block];
        self.queues.unlink(block);
        let list = self.lists.of(list);
        let all: usize = list.held.iter().sum();
        list.held[usize::from(again)] -= 1;
        list.ghosts[usize::from(again)].put(ask().key, ());
        // Both queues and what is remembered of them are twice as long as the list at most.
        let most = [all.saturating_sub(list.held[ONCE]).max(1), all.max(1)];
        for (ghosts, most) in list.ghosts.iter_mut().zip(most) {
            while ghosts.forget(most).is_some() {}
        }
    }

    fn oldest(&self, list: u16) -> Option<u32> {
        [ONCE, AGAIN].into_iter().find_map(|which| self.queues.coldest(Queues::<2>::of(list, which)))
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let List { held, target, .. } = self.lists.of(list);
        let order = if held[ONCE] > *target { [ONCE, AGAIN] } else { [AGAIN, ONCE] };
        order.into_iter().find_map(|which| self.first(list, which, evictable))
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        for which in [ONCE, AGAIN] {
            let Self { queues, states, .. } = self;
            let moved = queues.relist(Queues::<2>::of(from, which), Queues::<2>::of(to, which), |block| {
                let does = moves(block);
                if does {
                    states[block].0 = to;
                }
                does
            });
            self.lists.of(from).held[which] -= moved;
            self.lists.of(to).held[which] += moved;
        }
    }

    fn bytes(&self) -> usize {
        let ghosts: usize = self.lists.iter().flat_map(|list| &list.ghosts).map(Ghosts::bytes).sum();
        self.queues.bytes() + self.states.bytes() + ghosts
    }
}
