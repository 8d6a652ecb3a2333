//! All blocks that the planner knows, by number and by key, and the tree that their chains make.

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use super::entry::{Entry, NONE, UNKNOWN, is_block};
use super::event::BlockRef;
use crate::vocab::BlockKey;

/// The blocks. Numbers are used again; stamps tell one use from the next.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    /// The key is a hash already, so it hashes to its own first bytes.
    by_key: HashTable<u32>,
}

impl Index<u32> for Catalog {
    type Output = Entry;
    fn index(&self, number: u32) -> &Entry {
        &self.entries[number as usize]
    }
}

impl IndexMut<u32> for Catalog {
    fn index_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.entries[number as usize]
    }
}

impl Catalog {
    pub(super) fn with_capacity(blocks: usize) -> Self {
        Self { entries: Vec::with_capacity(blocks), vacant: Vec::new(), by_key: HashTable::with_capacity(blocks) }
    }

    pub(super) fn find(&self, key: &BlockKey) -> Option<u32> {
        self.by_key.find(key.hash64(), |number| self.entries[*number as usize].key == *key).copied()
    }

    /// The block that a late completion speaks of, if it is still the same one.
    pub(super) fn resolve(&self, block: BlockRef) -> Option<u32> {
        let entry = self.entries.get(block.number as usize)?;
        (entry.stamp == block.stamp).then_some(block.number)
    }

    pub(super) fn reference(&self, number: u32) -> BlockRef {
        BlockRef { number, stamp: self[number].stamp }
    }

    /// Adds a block that is in no tier yet.
    pub(super) fn add(&mut self, key: BlockKey, parent: u32, depth: u32) -> u32 {
        let number = if let Some(number) = self.vacant.pop() {
            let stamp = self[number].stamp;
            self[number] = Entry::new(key, stamp, UNKNOWN, depth);
            number
        } else {
            let number = u32::try_from(self.entries.len()).unwrap_or(NONE);
            debug_assert!(is_block(number), "more blocks than numbers");
            self.entries.push(Entry::new(key, 0, UNKNOWN, depth));
            number
        };
        let entries = &self.entries;
        self.by_key.insert_unique(key.hash64(), number, |other| entries[*other as usize].key.hash64());
        self.attach(number, parent);
        number
    }

    /// Hangs a block whose parent is unknown under `parent`.
    pub(super) fn attach(&mut self, number: u32, parent: u32) {
        debug_assert_eq!(self[number].parent, UNKNOWN, "has a parent already");
        self[number].parent = parent;
        if !is_block(parent) {
            return;
        }
        let next = std::mem::replace(&mut self[parent].first_child, number);
        self[number].next_sibling = next;
        self[number].prev_sibling = NONE;
        if is_block(next) {
            self[next].prev_sibling = number;
        }
    }

    /// Takes a block from under its parent.
    pub(super) fn detach(&mut self, number: u32) {
        let Entry { parent, next_sibling: next, prev_sibling: prev, .. } = self[number];
        if is_block(parent) {
            if is_block(prev) {
                self[prev].next_sibling = next;
            } else {
                self[parent].first_child = next;
            }
            if is_block(next) {
                self[next].prev_sibling = prev;
            }
        }
        let entry = &mut self[number];
        (entry.parent, entry.next_sibling, entry.prev_sibling) = (UNKNOWN, NONE, NONE);
    }

    /// Forgets a block without children.
    pub(super) fn remove(&mut self, number: u32) {
        debug_assert!(!is_block(self[number].first_child), "has children");
        self.detach(number);
        let key = self[number].key;
        if let Ok(found) = self.by_key.find_entry(key.hash64(), |other| *other == number) {
            found.remove();
        }
        self[number].stamp = self[number].stamp.wrapping_add(1);
        self.vacant.push(number);
    }

    pub(super) fn children(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self[number].first_child;
        std::iter::from_fn(move || {
            let child = is_block(next).then_some(next)?;
            next = self[child].next_sibling;
            Some(child)
        })
    }

    /// Each number is one block's or is vacant once. O(blocks).
    pub(super) fn check(&self) -> Result<(), String> {
        let known = self.iter().count();
        if known != self.by_key.len() || known + self.vacant.len() != self.entries.len() {
            let (keys, vacant, all) = (self.by_key.len(), self.vacant.len(), self.entries.len());
            return Err(format!("{known} blocks under {keys} keys and {vacant} vacant numbers, of {all}"));
        }
        Ok(())
    }

    /// Every block, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> + '_ {
        let known = |(number, entry): &(u32, &Entry)| self.find(&entry.key) == Some(*number);
        (0..).zip(&self.entries).filter(known)
    }
}
