//! Least recently used, as a doubly linked list through two arrays of block numbers.
//!
//! Eight bytes a block and no hashing: the `lru` crate does the same behind a hash map of boxed nodes, which
//! `benches/planner.rs` measures beside it (the crate serves where keys are not small numbers: `cache::delivery`).

use super::policy::{Heat, Policy};

const NONE: u32 = u32::MAX;
/// The list's own node: its `next` is the hottest block, its `prev` the coldest.
const ENDS: u32 = 0;
/// How many blocks that can't go are passed over before giving up: they are pinned, and many in a row mean that
/// nearly everything is.
const PASSED_OVER_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Node {
    prev: u32,
    next: u32,
}

/// A recency list. Block `b` is node `b + 1`.
#[derive(Debug)]
pub(super) struct Lru {
    nodes: Vec<Node>,
}

impl Default for Lru {
    fn default() -> Self {
        Self { nodes: vec![Node { prev: ENDS, next: ENDS }] }
    }
}

impl Lru {
    fn link_between(&mut self, node: u32, prev: u32, next: u32) {
        self.nodes[node as usize] = Node { prev, next };
        self.nodes[prev as usize].next = node;
        self.nodes[next as usize].prev = node;
    }

    fn unlink(&mut self, node: u32) {
        let Node { prev, next } = self.nodes[node as usize];
        debug_assert_ne!(prev, NONE, "block is not in the list");
        self.nodes[prev as usize].next = next;
        self.nodes[next as usize].prev = prev;
        self.nodes[node as usize] = Node { prev: NONE, next: NONE };
    }

    fn link_hot(&mut self, node: u32) {
        let hottest = self.nodes[ENDS as usize].next;
        self.link_between(node, ENDS, hottest);
    }

    fn link_cold(&mut self, node: u32) {
        let coldest = self.nodes[ENDS as usize].prev;
        self.link_between(node, coldest, ENDS);
    }
}

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn insert(&mut self, block: u32, heat: Heat) {
        let node = block + 1;
        if self.nodes.len() <= node as usize {
            self.nodes.resize(node as usize + 1, Node { prev: NONE, next: NONE });
        }
        debug_assert_eq!(self.nodes[node as usize].prev, NONE, "block is in the list already");
        match heat {
            Heat::Hot => self.link_hot(node),
            Heat::Cold => self.link_cold(node),
        }
    }

    fn touch(&mut self, block: u32) {
        self.unlink(block + 1);
        self.link_hot(block + 1);
    }

    fn chill(&mut self, block: u32) {
        self.unlink(block + 1);
        self.link_cold(block + 1);
    }

    fn remove(&mut self, block: u32) {
        self.unlink(block + 1);
    }

    fn victim(&mut self, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let coldest = self.nodes[ENDS as usize].prev;
        let mut node = coldest;
        for passed in 0..PASSED_OVER_MAX {
            // Having passed over all of them has changed nothing: they are in the order in which they were.
            if node == ENDS || (passed > 0 && node == coldest) {
                return None;
            }
            if evictable(node - 1) {
                return Some(node - 1);
            }
            // What can't go now is protected by a use that has not ended. Counting it as used keeps this search short
            // for the next caller.
            let hotter = self.nodes[node as usize].prev;
            self.touch(node - 1);
            node = if hotter == ENDS { coldest } else { hotter };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lru: &mut Lru) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(block) = lru.victim(&mut |_| true) {
            lru.remove(block);
            order.push(block);
        }
        order
    }

    #[test]
    fn the_least_recent_goes_first_and_cold_ones_before_it() {
        let mut lru = Lru::default();
        for block in 0..4 {
            lru.insert(block, Heat::Hot);
        }
        lru.insert(9, Heat::Cold);
        lru.touch(1);
        lru.chill(3);
        assert_eq!(order(&mut lru), [3, 9, 0, 2, 1]);
    }

    #[test]
    fn what_may_not_go_is_passed_over() {
        let mut lru = Lru::default();
        for block in 0..4 {
            lru.insert(block, Heat::Hot);
        }
        assert_eq!(lru.victim(&mut |block| block >= 2), Some(2));
        assert_eq!(order(&mut lru), [2, 3, 0, 1]);
    }

    #[test]
    fn a_search_in_vain_asks_once_and_changes_nothing() {
        for blocks in 0..5 {
            let mut lru = Lru::default();
            (0..blocks).for_each(|block| lru.insert(block, Heat::Hot));
            let mut asked = Vec::new();
            let mut never = |block| {
                asked.push(block);
                false
            };
            assert_eq!(lru.victim(&mut never), None);
            assert_eq!(asked, (0..blocks).collect::<Vec<_>>());
            assert_eq!(order(&mut lru), asked);
        }
    }
}
