//! What a tier would hold under another order: keys and their tree, without blocks.

use super::super::super::gallop;
use super::super::ghosts::ByKey;
use super::super::leaves::Leaves;
use super::super::lru::Lru;
use super::super::{Heat, Policy};

/// The one list.
const LIST: u16 = 0;
const NONE: u32 = u32::MAX;

/// A block of a request, as a guard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub key: u64,
    pub depth: u32,
    pub class: u16,
}

/// A key that is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    key: u64,
    parent: u32,
    children: u32,
    /// Its class and the request by which it was used last.
    pub class: u16,
    pub at: u32,
}

/// See above.
#[derive(Default)]
pub(super) struct Shadow {
    known: ByKey<u32>,
    nodes: Vec<Node>,
    vacant: Vec<u32>,
    leaves: Leaves,
    order: Lru,
    /// Of the chain that is being shown: the blocks that have come in and not yet become hot.
    held: Vec<u32>,
    /// All of it that there is room for has come in.
    is_in: bool,
}

impl Shadow {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many of a chain's blocks, from the first on, are held. What is held of a chain is so from its first block on, or nearly
    /// so where only some keys are looked at.
    pub(super) fn run(&self, chain: &[Seen]) -> usize {
        gallop(chain.len(), |at| self.known.contains_key(&chain[at].key))
    }

    pub(super) fn leaves(&self) -> &[u32] {
        self.leaves.of(LIST)
    }

    pub(super) fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize]
    }

    /// The leaf that was used longest ago.
    pub(super) fn oldest(&mut self) -> Option<u32> {
        let Self { order, nodes, .. } = self;
        order.victim(LIST, &mut |number| nodes[number as usize].children == 0)
    }

    /// One step of a request's use of a chain, by its `clock`: what is not held comes in, from the first block on, for each the leaf
    /// that `choose` names, and not from where it names none on; then, back to the first, each becomes the hottest. Whether that
    /// was the last step. A chain is shown to its end before another one is.
    pub(super) fn step(
        &mut self,
        chain: &[Seen],
        clock: u32,
        capacity: usize,
        choose: impl FnMut(&mut Self, &Seen) -> Option<u32>,
    ) -> bool {
        if !self.is_in {
            let next = chain.get(self.held.len());
            self.is_in = !next.is_some_and(|seen| self.take_in(seen, clock, capacity, choose));
        } else if let Some(number) = self.held.pop() {
            self.let_go(number);
            self.order.warm(LIST, number);
        }
        let ends = self.is_in && self.held.is_empty();
        self.is_in &= !ends;
        ends
    }

    /// The next block of a request's chain. False where there is no room for it.
    fn take_in(
        &mut self,
        seen: &Seen,
        clock: u32,
        capacity: usize,
        mut choose: impl FnMut(&mut Self, &Seen) -> Option<u32>,
    ) -> bool {
        let parent = self.held.last().copied().unwrap_or(NONE);
        let known = self.known.get(&seen.key).copied();
        while known.is_none() && self.len() >= capacity {
            let Some(victim) = choose(self, seen) else { return false };
            self.evict(victim);
        }
        let number = known.unwrap_or_else(|| self.insert(seen, parent));
        (self.nodes[number as usize].class, self.nodes[number as usize].at) = (seen.class, clock);
        // What the request needs does not go for it.
        self.hold(number);
        self.held.push(number);
        true
    }

    /// Keeps only the keys that `keeps` accepts, in their order.
    pub(super) fn thin(&mut self, keeps: impl Fn(u64) -> bool) {
        let mut old = std::mem::take(self);
        let mut kept = Vec::new();
        // From the coldest on: no ancestor comes before what hangs on it.
        while let Some(number) = old.order.oldest(LIST) {
            old.order.leave(number);
            let node = old.nodes[number as usize];
            if keeps(node.key) {
                let seen = Seen { key: node.key, depth: 0, class: node.class };
                let new = self.insert(&seen, NONE);
                self.nodes[new as usize].at = node.at;
                kept.push((new, node.parent));
            }
        }
        for (number, parent) in kept {
            let parent = old.nodes.get(parent as usize).and_then(|parent| self.known.get(&parent.key).copied());
            if let Some(parent) = parent {
                self.nodes[number as usize].parent = parent;
                self.hold(parent);
            }
        }
    }

    fn hold(&mut self, number: u32) {
        let children = &mut self.nodes[number as usize].children;
        *children += 1;
        if *children == 1 {
            self.leaves.remove(number);
        }
    }

    fn let_go(&mut self, number: u32) {
        let children = &mut self.nodes[number as usize].children;
        *children -= 1;
        if *children == 0 {
            self.leaves.add(LIST, number);
        }
    }

    fn insert(&mut self, seen: &Seen, parent: u32) -> u32 {
        let node = Node { key: seen.key, parent, children: 0, class: seen.class, at: 0 };
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        });
        self.nodes[number as usize] = node;
        self.known.insert(seen.key, number);
        self.leaves.add(LIST, number);
        self.order.enter(LIST, number, Heat::Hot);
        if parent != NONE {
            self.hold(parent);
        }
        number
    }

    fn evict(&mut self, number: u32) {
        let Node { key, parent, .. } = self.nodes[number as usize];
        self.known.remove(&key);
        self.leaves.remove(number);
        self.order.leave(number);
        self.vacant.push(number);
        if parent != NONE {
            self.let_go(parent);
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let nodes = self.nodes.capacity() * size_of::<Node>() + self.vacant.capacity() * size_of::<u32>();
        nodes + self.known.allocation_size() + self.leaves.bytes() + self.order.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(keys: &[u64]) -> Vec<Seen> {
        (0..).zip(keys).map(|(depth, key)| Seen { key: *key, depth, class: 0 }).collect()
    }

    fn lru(keys: &[&[u64]], capacity: usize) -> Shadow {
        let mut shadow = Shadow::default();
        for (clock, keys) in (1..).zip(keys) {
            while !shadow.step(&chain(keys), clock, capacity, |shadow, _| shadow.oldest()) {}
        }
        shadow
    }

    #[test]
    fn chains_go_from_their_tails_and_a_request_is_not_let_go_for_itself() {
        let shadow = lru(&[&[1, 2, 3], &[1, 4, 5]], 4);
        assert_eq!((shadow.run(&chain(&[1, 2, 3])), shadow.run(&chain(&[1, 4, 5]))), (2, 3));
        assert_eq!(lru(&[&[1, 2, 3, 4, 5]], 3).run(&chain(&[1, 2, 3, 4, 5])), 3);
    }

    #[test]
    fn a_thinned_shadow_has_what_is_left_in_the_same_order() {
        let mut shadow = lru(&[&[1, 2, 3], &[1, 4], &[6, 8]], 10);
        shadow.thin(|key| key % 2 == 0);
        assert_eq!(shadow.len(), 4);
        assert_eq!(shadow.node(shadow.known[&8]).parent, shadow.known[&6]);
        let mut gone = Vec::new();
        while let Some(oldest) = shadow.oldest() {
            gone.push(shadow.node(oldest).key);
            shadow.evict(oldest);
        }
        assert_eq!(gone, [2, 4, 8, 6]);
    }
}
