//! What a tier would hold under another order: keys and their tree, without blocks.

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
}

impl Shadow {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// How many of a chain's blocks, from the first on, are held.
    pub(super) fn run(&self, chain: &[Seen]) -> usize {
        chain.iter().take_while(|seen| self.known.contains_key(&seen.key)).count()
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

    /// A request uses a chain by its `clock`: what is not held comes in, for each the leaf that `choose` names, and not where
    /// it names none.
    pub(super) fn visit(
        &mut self,
        chain: &[Seen],
        clock: u32,
        capacity: usize,
        mut choose: impl FnMut(&mut Self, &Seen) -> Option<u32>,
    ) {
        let (mut held, mut parent) = (Vec::with_capacity(chain.len()), NONE);
        'chain: for seen in chain {
            let known = self.known.get(&seen.key).copied();
            if known.is_none() {
                while self.len() >= capacity {
                    let Some(victim) = choose(self, seen) else { break 'chain };
                    self.evict(victim);
                }
            }
            let number = known.unwrap_or_else(|| self.insert(seen, parent));
            (self.nodes[number as usize].class, self.nodes[number as usize].at) = (seen.class, clock);
            // What the request needs does not go for it.
            self.hold(number);
            held.push(number);
            parent = number;
        }
        for number in held.into_iter().rev() {
            self.let_go(number);
            self.order.warm(LIST, number);
        }
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
            shadow.visit(&chain(keys), clock, capacity, |shadow, _| shadow.oldest());
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
