//! The blocks of each list that nothing hangs on, to draw from.

use hashbrown::HashMap;

use super::ghosts::Taken;
use super::per_list::PerList;

/// Leaves by list. Few blocks are leaves, so where each stands is kept in a map and not in a column.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    lists: PerList<Vec<u32>>,
    places: HashMap<u32, (u16, u32), std::hash::BuildHasherDefault<Spread>>,
}

/// Spreads small numbers over the bits that the map looks at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread(Taken);

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0.finish().wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn write_u32(&mut self, number: u32) {
        self.0.write_u64(number.into());
    }
}

impl Leaves {
    pub(super) fn add(&mut self, list: u16, block: u32) {
        let leaves = self.lists.of(list);
        let place = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        if self.places.insert(block, (list, place)).is_none() {
            leaves.push(block);
        } else {
            debug_assert!(false, "block is a leaf already");
        }
    }

    /// Takes a block out, if it is a leaf.
    pub(super) fn remove(&mut self, block: u32) -> bool {
        let Some((list, place)) = self.places.remove(&block) else { return false };
        let leaves = self.lists.of(list);
        leaves.swap_remove(place as usize);
        if let Some(moved) = leaves.get(place as usize) {
            self.places.insert(*moved, (list, place));
        }
        true
    }

    /// The leaves of a list.
    pub(super) fn of(&self, list: u16) -> &[u32] {
        self.lists.find(list).map_or(&[], Vec::as_slice)
    }

    pub(super) fn relist(&mut self, from: u16, to: u16, moves: &mut dyn FnMut(u32) -> bool) {
        for block in self.of(from).to_vec() {
            if moves(block) && self.remove(block) {
                self.add(to, block);
            }
        }
    }

    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.lists.iter().map(|list| list.capacity() * size_of::<u32>()).sum();
        self.lists.bytes() + lists + self.places.allocation_size()
    }
}
