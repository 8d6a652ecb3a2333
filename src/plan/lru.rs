//! Least recently used, as doubly linked lists through one array of block numbers.
//!
//! Eight bytes a block and no hashing: the `lru` crate does the same behind a hash map of boxed nodes, which
//! `benches/planner.rs` measures beside it (the crate serves where keys are not small numbers: `cache::delivery`). A block
//! is in one list at most, so all lists of a tier share the array.

use super::column::Column;
use super::policy::{Heat, Policy};
use crate::vocab::limits::{LISTS_MAX, REQUEST_BLOCKS_MAX};

const NONE: u32 = u32::MAX;
/// Nodes before those of blocks: each list's own, whose `next` is the hottest block, its `prev` the coldest.
const LISTS: u32 = LISTS_MAX as u32;
/// How many blocks that can't go are passed over before giving up: one leased chain of the greatest length. More in a row
/// mean that nearly everything is pinned.
const PASSED_OVER_MAX: usize = REQUEST_BLOCKS_MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    prev: u32,
    next: u32,
}

/// Recency lists. Block `b` is node `b + LISTS`, list `l` is node `l`.
#[derive(Debug)]
pub(super) struct Lru {
    nodes: Column<Node>,
}

impl Default for Lru {
    fn default() -> Self {
        let mut nodes = Column::new(Node { prev: NONE, next: NONE });
        nodes.reach(LISTS - 1);
        for list in 0..LISTS {
            nodes[list] = Node { prev: list, next: list };
        }
        Self { nodes }
    }
}

impl Lru {
    fn link_between(&mut self, node: u32, prev: u32, next: u32) {
        self.nodes[node] = Node { prev, next };
        self.nodes[prev].next = node;
        self.nodes[next].prev = node;
    }

    fn unlink(&mut self, node: u32) {
        let Node { prev, next } = self.nodes[node];
        debug_assert_ne!(prev, NONE, "block is not in a list");
        self.nodes[prev].next = next;
        self.nodes[next].prev = prev;
        self.nodes[node] = Node { prev: NONE, next: NONE };
    }

    fn link_hot(&mut self, list: u32, node: u32) {
        let hottest = self.nodes[list].next;
        self.link_between(node, list, hottest);
    }

    fn link_cold(&mut self, list: u32, node: u32) {
        let coldest = self.nodes[list].prev;
        self.link_between(node, coldest, list);
    }
}

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn insert(&mut self, list: u16, block: u32, heat: Heat) {
        let node = block + LISTS;
        self.nodes.reach(node);
        debug_assert_eq!(self.nodes[node].prev, NONE, "block is in a list already");
        match heat {
            Heat::Hot => self.link_hot(list.into(), node),
            Heat::Cold => self.link_cold(list.into(), node),
        }
    }

    fn touch(&mut self, list: u16, block: u32) {
        self.unlink(block + LISTS);
        self.link_hot(list.into(), block + LISTS);
    }

    fn chill(&mut self, list: u16, block: u32) {
        self.unlink(block + LISTS);
        self.link_cold(list.into(), block + LISTS);
    }

    fn remove(&mut self, block: u32) {
        self.unlink(block + LISTS);
    }

    fn victim(&mut self, list: u16, evictable: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let ends = u32::from(list);
        let coldest = self.nodes[ends].prev;
        let mut node = coldest;
        for passed in 0..PASSED_OVER_MAX {
            // Having passed over all of them has changed nothing: they are in the order in which they were.
            if node == ends || (passed > 0 && node == coldest) {
                return None;
            }
            if evictable(node - LISTS) {
                return Some(node - LISTS);
            }
            // What can't go now is protected by a use that has not ended. Counting it as used keeps this search short
            // for the next caller.
            let hotter = self.nodes[node].prev;
            self.touch(list, node - LISTS);
            node = if hotter == ends { coldest } else { hotter };
        }
        None
    }

    fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        let mut node = self.nodes[u32::from(from)].prev;
        while node != u32::from(from) {
            let hotter = self.nodes[node].prev;
            if moves(node - LISTS) {
                self.unlink(node);
                self.link_hot(to.into(), node);
            }
            node = hotter;
        }
    }

    fn bytes(&self) -> usize {
        self.nodes.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(lru: &mut Lru) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(block) = lru.victim(0, &mut |_| true) {
            lru.remove(block);
            order.push(block);
        }
        order
    }

    #[test]
    fn the_least_recent_goes_first_and_cold_ones_before_it() {
        let mut lru = Lru::default();
        for block in 0..4 {
            lru.insert(0, block, Heat::Hot);
        }
        lru.insert(0, 9, Heat::Cold);
        lru.touch(0, 1);
        lru.chill(0, 3);
        assert_eq!(order(&mut lru), [3, 9, 0, 2, 1]);
    }

    #[test]
    fn lists_of_one_tier_do_not_see_each_other() {
        let mut lru = Lru::default();
        for block in 0..6 {
            lru.insert((block % 2) as u16, block, Heat::Hot);
        }
        lru.touch(1, 1);
        assert_eq!(lru.victim(1, &mut |_| true), Some(3));
        assert_eq!(order(&mut lru), [0, 2, 4]);
    }

    #[test]
    fn blocks_change_lists_in_their_order() {
        let mut lru = Lru::default();
        (0..6).for_each(|block| lru.insert(1, block, Heat::Hot));
        lru.touch(1, 2);
        lru.relist(1, 0, &mut |block| block % 2 == 0);
        assert_eq!(lru.victim(1, &mut |_| true), Some(1));
        assert_eq!(order(&mut lru), [0, 4, 2]);
    }

    #[test]
    fn what_may_not_go_is_passed_over() {
        let mut lru = Lru::default();
        for block in 0..4 {
            lru.insert(0, block, Heat::Hot);
        }
        assert_eq!(lru.victim(0, &mut |block| block >= 2), Some(2));
        assert_eq!(order(&mut lru), [2, 3, 0, 1]);
    }

    #[test]
    fn a_leased_chain_of_any_length_does_not_hide_what_may_go() {
        let (mut lru, leased) = (Lru::default(), u32::try_from(REQUEST_BLOCKS_MAX).unwrap() - 1);
        (0..=leased).for_each(|block| lru.insert(0, block, Heat::Hot));
        assert_eq!(lru.victim(0, &mut |block| block >= leased), Some(leased));
    }

    #[test]
    fn a_search_in_vain_asks_once_and_changes_nothing() {
        for blocks in 0..5 {
            let mut lru = Lru::default();
            (0..blocks).for_each(|block| lru.insert(0, block, Heat::Hot));
            let mut asked = Vec::new();
            let mut never = |block| {
                asked.push(block);
                false
            };
            assert_eq!(lru.victim(0, &mut never), None);
            assert_eq!(asked, (0..blocks).collect::<Vec<_>>());
            assert_eq!(order(&mut lru), asked);
        }
    }
}
