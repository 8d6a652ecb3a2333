//! S3-FIFO: a small queue for what is new, a main one for what was used again, and the memory of what left the small one.

use super::super::column::Column;
use super::ghosts::Ghosts;
use super::lru::PASSED_OVER_MAX;
use super::per_list::PerList;
use super::queues::Queues;
use super::{Ask, Heat, Policy, Use, Visit};

/// The small queue's share of a list's blocks: a tenth, as in the paper.
const SMALL: usize = 10;
/// Uses that are counted.
const USES_MAX: u8 = 3;

#[derive(Clone, Copy, Debug, Default)]
struct State {
    list: u16,
    uses: u8,
    main: bool,
    /// Its request has not ended: its place in the queue is that of then.
    arriving: bool,
}

/// Blocks in the small and in the main queue of a list, and keys of what left the small one.
#[derive(Debug, Default)]
struct List {
    held: [usize; 2],
    ghosts: Ghosts<()>,
}

/// Two queues a list.
#[derive(Debug)]
pub(super) struct S3Fifo {
    queues: Queues<2>,
    lists: PerList<List>,
    states: Column<State>,
}

impl Default for S3Fifo {
    fn default() -> Self {
        Self { queues: Queues::default(), lists: PerList::default(), states: Column::new(State::default()) }
    }
}

impl S3Fifo {
    fn queue(&self, block: u32) -> u32 {
        let State { list, main, .. } = self.states[block];
        Queues::<2>::of(list, main.into())
    }

    /// Puts a block at the hot end of the main queue of its list.
    fn move_to_main(&mut self, block: u32) {
        let State { list, .. } = self.states[block];
        let held = &mut self.lists.of(list).held;
        (held[0], held[1]) = (held[0] - 1, held[1] + 1);
        (self.states[block].main, self.states[block].uses) = (true, 0);
        self.queues.warm(Queues::<2>::of(list, 1), block);
    }
}

impl Policy for S3Fifo {
    fn name(&self) -> &'static str {
        "s3-fifo"
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat, ask: Ask<'_>, _visit: &Visit) {
        let main = self.lists.of(list).ghosts.take(ask().key).is_some();
        self.lists.of(list).held[usize::from(main)] += 1;
        self.states.reach(block);
        self.states[block] = State { list, uses: 0, main, arriving: true };
        match heat {
            Heat::Hot => self.queues.link_hot(self.queue(block), block),
            Heat::Cold => self.queues.link_cold(self.queue(block), block),
        }
    }

    fn touch(&mut self, _list: u16, block: u32, _ask: Ask<'_>, why: Use) {
        let state = &mut self.states[block];
        match why {
            Use::Read => state.uses = (state.uses + 1).min(USES_MAX),
            // A chain comes in from its head on and is to go from its tail on.
            Use::Stored(_) | Use::Again if state.arriving => {
                state.arriving = false;
                self.queues.warm(self.queue(block), block);
            }
            Use::Stored(_) | Use::Again => {}
        }
    }

    fn chill(&mut self, _list: u16, block: u32) {
        self.states[block].uses = 0;
        self.queues.chill(self.queue(block), block);
    }

    fn remove(&mut self, block: u32, ask: Ask<'_>) {
        let State { list, main, .. } = self.states[block];
        self.queues.unlink(block);
        let list = self.lists.of(list);
        list.held[usize::from(main)] -= 1;
        if !main {
            list.ghosts.put(ask().key, ());
        }
        // As many as the main queue has blocks.
        let most = list.held[1].max(1);
        while list.ghosts.forget(most).is_some() {}
    }

    fn oldest(&self, list: u16) -> Option<u32> {
        [0, 1].into_iter().find_map(|which| self.queues.coldest(Queues::<2>::of(list, which)))
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let all: usize = self.lists.of(list).held.iter().sum();
        // Each is looked at once, and those that were used, at most so often again.
        let most = (all * (usize::from(USES_MAX) + 2)).min(PASSED_OVER_MAX);
        // How many in a row could not go, of each queue: when that is all of them, its turn is over.
        let mut stuck = [0, 0];
        for _ in 0..most {
            let held = self.lists.of(list).held;
            let main = stuck[0] >= held[0] || (held[0] * SMALL < all && held[1] > 0 && stuck[1] < held[1]);
            let block = self.queues.coldest(Queues::<2>::of(list, main.into()))?;
            let state = &mut self.states[block];
            match (main, state.uses) {
                (false, 2..) => {
                    self.move_to_main(block);
                    stuck = [0, 0];
                    continue;
                }
                (true, 1..) => {
                    state.uses -= 1;
                    stuck[1] = 0;
                }
                _ if evictable(block) => return Some(block),
                _ => stuck[usize::from(main)] += 1,
            }
            self.queues.warm(self.queue(block), block);
            if stuck[0] >= held[0] && stuck[1] >= held[1] {
                return None;
            }
        }
        None
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        for which in [0, 1] {
            let Self { queues, states, .. } = self;
            let moved = queues.relist(Queues::<2>::of(from, which), Queues::<2>::of(to, which), |block| {
                let does = moves(block);
                if does {
                    states[block].list = to;
                }
                does
            });
            self.lists.of(from).held[which] -= moved;
            self.lists.of(to).held[which] += moved;
        }
    }

    fn bytes(&self) -> usize {
        self.queues.bytes() + self.states.bytes() + self.lists.iter().map(|list| list.ghosts.bytes()).sum::<usize>()
    }
}
