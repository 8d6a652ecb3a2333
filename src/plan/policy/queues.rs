//! Doubly linked lists through one array of block numbers: eight bytes a block and no hashing.
//!
//! The `lru` crate does the same behind a hash map of boxed nodes, which `benches/planner.rs` measures beside it (the crate
//! serves where keys are not small numbers: `cache::delivery`). A block is in one queue at most, so all queues of a tier share
//! the array.

use super::super::column::Column;
use crate::vocab::limits::LISTS_MAX;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// Towards the hottest.
    hotter: u32,
    /// Towards the coldest.
    colder: u32,
}

/// `K` queues for each list. Block `b` is node `b + K × LISTS_MAX`; a queue's own node, before those of blocks, closes its
/// ring, so that its `colder` is the hottest block and its `hotter` the coldest.
#[derive(Debug)]
pub(super) struct Queues<const K: usize> {
    nodes: Column<Node>,
}

impl<const K: usize> Default for Queues<K> {
    fn default() -> Self {
        let mut nodes = Column::new(Node { hotter: NONE, colder: NONE });
        nodes.reach(Self::ENDS - 1);
        for end in 0..Self::ENDS {
            nodes[end] = Node { hotter: end, colder: end };
        }
        Self { nodes }
    }
}

impl<const K: usize> Queues<K> {
    const ENDS: u32 = LISTS_MAX as u32 * K as u32;

    /// The number of queue `which` of a list.
    pub(super) const fn of(list: u16, which: usize) -> u32 {
        list as u32 * K as u32 + which as u32
    }

    fn link_between(&mut self, node: u32, hotter: u32, colder: u32) {
        self.nodes[node] = Node { hotter, colder };
        self.nodes[hotter].colder = node;
        self.nodes[colder].hotter = node;
    }

    /// Puts a block at the hot end of a queue.
    pub(super) fn link_hot(&mut self, queue: u32, block: u32) {
        let node = block + Self::ENDS;
        self.nodes.reach(node);
        debug_assert_eq!(self.nodes[node].hotter, NONE, "block is in a queue already");
        let hottest = self.nodes[queue].colder;
        self.link_between(node, queue, hottest);
    }

    /// Puts a block at the cold end of a queue.
    pub(super) fn link_cold(&mut self, queue: u32, block: u32) {
        let node = block + Self::ENDS;
        self.nodes.reach(node);
        debug_assert_eq!(self.nodes[node].hotter, NONE, "block is in a queue already");
        let coldest = self.nodes[queue].hotter;
        self.link_between(node, coldest, queue);
    }

    /// Takes a block out of its queue.
    pub(super) fn unlink(&mut self, block: u32) {
        let node = block + Self::ENDS;
        let Node { hotter, colder } = self.nodes[node];
        debug_assert_ne!(hotter, NONE, "block is not in a queue");
        self.nodes[hotter].colder = colder;
        self.nodes[colder].hotter = hotter;
        self.nodes[node] = Node { hotter: NONE, colder: NONE };
    }

    /// Moves a block to the hot end of a queue.
    pub(super) fn warm(&mut self, queue: u32, block: u32) {
        self.unlink(block);
        self.link_hot(queue, block);
    }

    /// Moves a block to the cold end of a queue.
    pub(super) fn chill(&mut self, queue: u32, block: u32) {
        self.unlink(block);
        self.link_cold(queue, block);
    }

    /// The block at the cold end.
    pub(super) fn coldest(&self, queue: u32) -> Option<u32> {
        self.block(self.nodes[queue].hotter)
    }

    /// The next block towards the hot end.
    pub(super) fn hotter(&self, block: u32) -> Option<u32> {
        self.block(self.nodes[block + Self::ENDS].hotter)
    }

    fn block(&self, node: u32) -> Option<u32> {
        node.checked_sub(Self::ENDS)
    }

    /// Takes the blocks that `moves` accepts from one queue to another, where they are in the same order. How many they are.
    pub(super) fn relist(&mut self, from: u32, to: u32, mut moves: impl FnMut(u32) -> bool) -> usize {
        let mut moved = 0;
        let mut next = self.coldest(from);
        while let Some(block) = next {
            next = self.hotter(block);
            if moves(block) {
                self.warm(to, block);
                moved += 1;
            }
        }
        moved
    }

    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes()
    }
}
