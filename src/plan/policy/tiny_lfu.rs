//! W-TinyLFU: what is new passes a small window and then competes, by how often it was asked for lately, with what a
//! segmented LRU would let go.

use super::super::column::Column;
use super::lru::PASSED_OVER_MAX;
use super::per_list::PerList;
use super::queues::Queues;
use super::{Ask, Heat, Policy, Use, Visit};

const WINDOW: usize = 0;
const PROBATION: usize = 1;
const PROTECTED: usize = 2;
/// What was passed over because something hangs on it, until nothing does.
const PARKED: usize = 3;
/// The window's share of a list's blocks, in hundredths, and the protected segment's of the rest: as in the paper.
const WINDOW_OF_HUNDRED: usize = 1;
const PROTECTED_OF_HUNDRED: usize = 80;

/// How often keys were asked for lately: four counters a key, the least of which counts, all halved now and then.
#[derive(Debug)]
struct Sketch {
    counters: Vec<u8>,
    added: usize,
}

impl Sketch {
    const ROWS: u32 = 4;
    const MOST: u8 = 15;
    /// Counters for each block, and additions for each of them before all are halved.
    const PER_BLOCK: usize = 16;
    const AGES_EVERY: usize = 10;

    fn places(&self, key: u32) -> impl Iterator<Item = usize> + use<> {
        let mask = self.counters.len() - 1;
        (1..=Self::ROWS).map(move |row| {
            let hash = u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(row * 16);
            (hash >> 16) as usize & mask
        })
    }

    fn add(&mut self, key: u32) {
        for place in self.places(key) {
            self.counters[place] = (self.counters[place] + 1).min(Self::MOST);
        }
        self.added += 1;
        if self.added * Self::PER_BLOCK >= self.counters.len() * Self::AGES_EVERY {
            self.added /= 2;
            self.counters.iter_mut().for_each(|counter| *counter /= 2);
        }
    }

    fn count(&self, key: u32) -> u8 {
        self.places(key).map(|place| self.counters[place]).min().unwrap_or_default()
    }

    /// Has room for so many blocks; what it knew is lost where it grows.
    fn fit(&mut self, blocks: usize) {
        if blocks * Self::PER_BLOCK > self.counters.len() {
            *self = Self { counters: vec![0; (2 * blocks * Self::PER_BLOCK).next_power_of_two()], added: 0 };
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    key: u32,
    list: u16,
    which: u8,
    leaf: bool,
    parked: bool,
}

/// Blocks in each of a list's queues, parked ones where they come from, and whether it has had to let one go.
#[derive(Debug, Default)]
struct List {
    held: [usize; 3],
    full: bool,
}

/// Three queues a list, and a place to wait.
#[derive(Debug)]
pub(super) struct TinyLfu {
    queues: Queues<4>,
    lists: PerList<List>,
    all: usize,
    states: Column<State>,
    sketch: Sketch,
}

impl Default for TinyLfu {
    fn default() -> Self {
        Self {
            queues: Queues::default(),
            lists: PerList::default(),
            all: 0,
            states: Column::new(State::default()),
            sketch: Sketch { counters: vec![0; 1 << 12], added: 0 },
        }
    }
}

impl TinyLfu {
    fn held(&mut self, list: u16) -> &mut [usize; 3] {
        &mut self.lists.of(list).held
    }

    fn queue(&self, block: u32) -> u32 {
        let State { list, which, .. } = self.states[block];
        Queues::<4>::of(list, which.into())
    }

    /// Moves a block to the hot end of a queue of its list.
    fn to(&mut self, block: u32, which: usize) {
        let State { list, which: before, .. } = self.states[block];
        let held = self.held(list);
        held[usize::from(before)] -= 1;
        held[which] += 1;
        self.states[block].which = which as u8;
        self.warm(block);
    }

    fn window_is_over(&mut self, list: u16) -> bool {
        let held = self.held(list);
        let share = (held.iter().sum::<usize>() * WINDOW_OF_HUNDRED / 100).max(1);
        held[WINDOW] > share
    }

    fn used(&mut self, list: u16, block: u32) {
        if usize::from(self.states[block].which) != PROBATION {
            return self.warm(block);
        }
        self.to(block, PROTECTED);
        let [_, probation, protected] = *self.held(list);
        if protected * 100 > (probation + protected) * PROTECTED_OF_HUNDRED
            && let Some(coldest) = self.queues.coldest(Queues::<4>::of(list, PROTECTED))
        {
            self.to(coldest, PROBATION);
        }
    }

    /// The first block of a queue that may go, from its cold end on.
    fn first(&mut self, list: u16, which: usize, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let most = self.held(list)[which].min(PASSED_OVER_MAX);
        for _ in 0..most {
            let block = self.queues.coldest(Queues::<4>::of(list, which))?;
            if !self.states[block].leaf {
                self.states[block].parked = true;
                self.queues.warm(Queues::<4>::of(list, PARKED), block);
                continue;
            }
            if evictable(block) {
                return Some(block);
            }
            self.queues.warm(self.queue(block), block);
        }
        None
    }

    /// Moves a block to the hot end of its queue.
    fn warm(&mut self, block: u32) {
        self.states[block].parked = false;
        self.queues.warm(self.queue(block), block);
    }
}

impl Policy for TinyLfu {
    fn name(&self) -> &'static str {
        "w-tinylfu"
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat, ask: Ask<'_>, _visit: &Visit) {
        self.states.reach(block);
        self.states[block] = State { key: ask().key as u32, list, which: WINDOW as u8, leaf: true, parked: false };
        self.held(list)[WINDOW] += 1;
        self.all += 1;
        self.sketch.fit(self.all);
        self.sketch.add(self.states[block].key);
        match heat {
            Heat::Hot => self.queues.link_hot(self.queue(block), block),
            Heat::Cold => self.queues.link_cold(self.queue(block), block),
        }
        // While there is room, what leaves the window competes with nobody.
        while !self.lists.of(list).full && self.window_is_over(list) {
            let Some(coldest) = self.queues.coldest(Queues::<4>::of(list, WINDOW)) else { return };
            self.to(coldest, PROBATION);
        }
    }

    fn touch(&mut self, list: u16, block: u32, _ask: Ask<'_>, why: Use) {
        if why == Use::Read {
            self.sketch.add(self.states[block].key);
            self.used(list, block);
        } else {
            self.warm(block);
        }
    }

    fn chill(&mut self, list: u16, block: u32) {
        let which = usize::from(self.states[block].which);
        let held = self.held(list);
        (held[which], held[WINDOW]) = (held[which] - 1, held[WINDOW] + 1);
        (self.states[block].which, self.states[block].key, self.states[block].parked) = (WINDOW as u8, 0, false);
        self.queues.chill(self.queue(block), block);
    }

    fn remove(&mut self, block: u32, _ask: Ask<'_>) {
        let State { list, which, .. } = self.states[block];
        self.queues.unlink(block);
        self.held(list)[usize::from(which)] -= 1;
        self.all -= 1;
    }

    fn leaf(&mut self, _list: u16, block: u32, leaf: bool) {
        self.states[block].leaf = leaf;
        if leaf && std::mem::take(&mut self.states[block].parked) {
            self.queues.chill(self.queue(block), block);
        }
    }

    fn oldest(&self, list: u16) -> Option<u32> {
        [WINDOW, PROBATION, PROTECTED, PARKED]
            .into_iter()
            .find_map(|which| self.queues.coldest(Queues::<4>::of(list, which)))
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let window_is_over = self.window_is_over(list);
        self.lists.of(list).full = true;
        let new = if window_is_over { self.first(list, WINDOW, evictable) } else { None };
        let old = self.first(list, PROBATION, evictable).or_else(|| self.first(list, PROTECTED, evictable));
        match (new, old) {
            (Some(new), Some(old)) => {
                let count = |block: u32| self.sketch.count(self.states[block].key);
                if count(new) > count(old) {
                    self.to(new, PROBATION);
                    return Some(old);
                }
                Some(new)
            }
            (None, None) if !window_is_over => self.first(list, WINDOW, evictable),
            (new, old) => new.or(old),
        }
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        let mut moved = [0; 3];
        for which in [WINDOW, PROBATION, PROTECTED, PARKED] {
            let Self { queues, states, .. } = self;
            queues.relist(Queues::<4>::of(from, which), Queues::<4>::of(to, which), |block| {
                let does = moves(block);
                if does {
                    states[block].list = to;
                    moved[usize::from(states[block].which)] += 1;
                }
                does
            });
        }
        for (which, moved) in moved.into_iter().enumerate() {
            self.held(from)[which] -= moved;
            self.held(to)[which] += moved;
        }
    }

    fn bytes(&self) -> usize {
        self.queues.bytes() + self.states.bytes() + self.sketch.counters.len()
    }
}
