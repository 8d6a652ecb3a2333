//! All blocks that the planner knows, by number and by key, and the tree that their chains make.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::HashTable;

use super::active::Actives;
use super::column::Column;
use super::entry::{Entry, NONE, UNKNOWN, VACANT, is_block};
use super::event::BlockRef;
use super::keys::{Keys, KeysWriter};
use super::owner::{NOBODY, Owners};
use super::policy::Facts;
use crate::vocab::limits::BLOCKS_MAX;
use crate::vocab::{AccountId, BlockKey, Owner};

/// The blocks. Numbers are used again; stamps tell one use from the next.
#[derive(Debug)]
pub(super) struct Catalog {
    entries: Column<Entry>,
    /// Numbers that were ever given.
    numbers: u32,
    vacant: Vec<u32>,
    /// Numbers that become vacant with the next event: commands of this one may still name them.
    leaving: Vec<u32>,
    keys: KeysWriter,
    /// By the part of a key. The key is a hash already, so it hashes to its own first bytes.
    by_key: Box<[HashTable<u32>]>,
    pub(super) owners: Owners,
    pub(super) actives: Actives,
    /// Walks over children that go on in later events, each with the child that is next: few at a time.
    walks: Vec<(u64, u32)>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            entries: Column::new(Entry::BLANK),
            numbers: 0,
            vacant: Vec::new(),
            leaving: Vec::new(),
            keys: KeysWriter::default(),
            by_key: std::iter::repeat_with(HashTable::new).take(Keys::PARTS).collect(),
            owners: Owners::default(),
            actives: Actives::default(),
            walks: Vec::new(),
        }
    }
}

impl Index<u32> for Catalog {
    type Output = Entry;
    fn index(&self, number: u32) -> &Entry {
        &self.entries[number]
    }
}

impl IndexMut<u32> for Catalog {
    fn index_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.entries[number]
    }
}

impl Catalog {
    pub(super) fn find(&self, key: &BlockKey) -> Option<u32> {
        self.by_key[Keys::part(key)].find(Keys::hash(key), |number| self.keys.is(*number, key)).copied()
    }

    /// As [`find`](Self::find), for a block that should hang on `parent`. Most blocks have one child or none, and a chain that came in at
    /// once has its keys side by side, where each of the tables is somewhere else.
    pub(super) fn find_below(&self, parent: u32, key: &BlockKey) -> Option<u32> {
        let child = if is_block(parent) { self[parent].first_child } else { NONE };
        if is_block(child) && self.keys.is(child, key) { Some(child) } else { self.find(key) }
    }

    pub(super) fn key(&self, number: u32) -> BlockKey {
        self.keys.get(number)
    }

    /// Whose a block is.
    pub(super) fn owner(&self, number: u32) -> Owner {
        self.owners.get(self[number].owner).owner
    }

    /// What policies may know of a block.
    pub(super) fn facts(&self, number: u32) -> Facts {
        Facts { key: self.keys.hash_of(number), depth: self[number].depth, owner: self.owner(number) }
    }

    /// Whose account a block counts against.
    pub(super) fn account(&self, number: u32) -> AccountId {
        self.owners.account(self[number].owner)
    }

    /// The largest payload of a block's namespace: what its slots are cut for.
    pub(super) fn payload_max(&self, number: u32) -> u32 {
        self.owners.get(self[number].owner).payload_max
    }

    /// Gives a block to an owner, who is held for it once more.
    pub(super) fn give(&mut self, number: u32, owner: u32) {
        self.owners.share(owner);
        let before = std::mem::replace(&mut self[number].owner, owner);
        self.owners.release(before);
    }

    /// The block that a late completion speaks of, if it is still the same one.
    pub(super) fn resolve(&self, block: BlockRef) -> Option<u32> {
        let known = block.number < self.numbers && u32::from(self[block.number].stamp) == block.stamp;
        known.then_some(block.number)
    }

    pub(super) fn reference(&self, number: u32) -> BlockRef {
        BlockRef { number, stamp: self[number].stamp.into() }
    }

    /// About so many blocks will be added: tables begin a little below the size that they will have.
    pub(super) fn expect(&mut self, blocks: u64) {
        let least = usize::try_from(blocks).unwrap_or(usize::MAX).min(BLOCKS_MAX as usize) / 10 * 9;
        for (part, table) in self.by_key.iter_mut().enumerate() {
            table.reserve(Keys::share(part, least), |number| self.keys.hash_of(*number));
        }
    }

    /// Adds a block that is in no tier yet; `None` where there are as many as there may be.
    pub(super) fn add(&mut self, key: BlockKey, parent: u32, depth: u32) -> Option<u32> {
        let number = match self.vacant.pop() {
            Some(number) => number,
            None if self.numbers < BLOCKS_MAX => {
                self.entries.reach(self.numbers);
                self.numbers += 1;
                self.numbers - 1
            }
            None => return None,
        };
        self[number] = Entry::new(self[number].stamp, depth);
        self.keys.set(number, &key);
        let keys = &self.keys;
        self.by_key[Keys::part(&key)].insert_unique(Keys::hash(&key), number, |other| keys.hash_of(*other));
        self.attach(number, parent);
        Some(number)
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
        self.walks.iter_mut().filter(|(_, at)| *at == number).for_each(|(_, at)| *at = next);
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
        let key = self.key(number);
        if let Ok(found) = self.by_key[Keys::part(&key)].find_entry(Keys::hash(&key), |other| *other == number) {
            found.remove();
        }
        self.rest(number);
        self.give(number, NOBODY);
        self[number] = Entry { stamp: self[number].stamp.wrapping_add(1), ..Entry::BLANK };
        self.leaving.push(number);
    }

    /// An event begins, so that all that the one before has caused is done: what it made vacant may be used again.
    pub(super) fn begin(&mut self) {
        self.vacant.append(&mut self.leaving);
    }

    /// The keys, for those who read them.
    pub(super) fn keys(&self) -> &Arc<Keys> {
        self.keys.shared()
    }

    pub(super) fn children(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self[number].first_child;
        std::iter::from_fn(move || {
            let child = is_block(next).then_some(next)?;
            next = self[child].next_sibling;
            Some(child)
        })
    }

    /// The next child of a block in a walk that may go on in a later event, whatever becomes of the children meanwhile; those
    /// that come first meanwhile are left out. `None` at the end, where the walk may go on with another block.
    pub(super) fn next_child(&mut self, walk: u64, parent: u32) -> Option<u32> {
        let at = self.walks.iter().position(|(known, _)| *known == walk);
        let child = at.map_or(self[parent].first_child, |at| self.walks[at].1);
        if !is_block(child) {
            self.end_walk(walk);
            return None;
        }
        let next = self[child].next_sibling;
        match at {
            Some(at) => self.walks[at].1 = next,
            None => self.walks.push((walk, next)),
        }
        Some(child)
    }

    /// A walk ends before its block's last child.
    pub(super) fn end_walk(&mut self, walk: u64) {
        self.walks.retain(|(known, _)| *known != walk);
    }

    /// Bytes of keys, of entries with vacant numbers, and of the table of numbers by key.
    pub(super) fn bytes(&self) -> [usize; 3] {
        let vacant = (self.vacant.capacity() + self.leaving.capacity()) * size_of::<u32>();
        let by_key = self.by_key.iter().map(|part| part.allocation_size() + size_of_val(part)).sum();
        [self.keys.bytes(), self.entries.bytes() + vacant, by_key]
    }

    /// Each number is one block's, found under its key, or is vacant once. O(blocks).
    pub(super) fn check(&self) -> Result<(), String> {
        let known = self.iter().count();
        let (keys, vacant) =
            (self.by_key.iter().map(HashTable::len).sum::<usize>(), self.vacant.len() + self.leaving.len());
        if known != keys || known + vacant != self.numbers as usize {
            let all = self.numbers;
            return Err(format!("{known} blocks under {keys} keys and {vacant} vacant numbers, of {all}"));
        }
        if let Some((number, _)) = self.iter().find(|(number, _)| self.find(&self.key(*number)) != Some(*number)) {
            return Err(format!("block {number} is not found under its key"));
        }
        let mut blocks = vec![0; self.owners.held().count()];
        for (_, entry) in self.iter() {
            if let Some(blocks) = blocks.get_mut(entry.owner as usize) {
                *blocks += 1;
            }
        }
        match self.owners.held().zip(&blocks).find(|((_, held), blocks)| held != *blocks) {
            Some(((owner, held), blocks)) => Err(format!("owner {owner} of {blocks} blocks is held {held} times")),
            None => self.check_actives(),
        }
    }

    /// Numbers that were ever given.
    pub(super) fn numbers(&self) -> u32 {
        self.numbers
    }

    /// As [`iter`](Self::iter), to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Entry)> + '_ {
        let known = (0..self.numbers).zip(self.entries.iter_mut());
        known.filter(|(_, entry)| entry.active != VACANT)
    }

    /// Every block, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> + '_ {
        (0..self.numbers).map(|number| (number, &self[number])).filter(|(_, entry)| entry.active != VACANT)
    }
}
