//! Blocks that have gone and are remembered by their keys, the last ones of them.

use std::collections::VecDeque;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

/// A hasher for what is a hash already, the same on every start.
pub(super) type ByKey<T> = HashMap<u64, T, std::hash::BuildHasherDefault<Taken>>;

/// Takes a key's own bits as its hash.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken(u64);

impl std::hash::Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// Ghosts with something known of each, in the order in which they went. A part of a key stands for the key: two blocks
/// that share 64 bits are taken for one, which costs a wrong guess.
#[derive(Debug)]
pub(super) struct Ghosts<T> {
    known: ByKey<(T, u32)>,
    /// Keys with the number of their entering: one that has come back and gone again has a later one.
    order: VecDeque<(u64, u32)>,
    entered: u32,
}

impl<T> Default for Ghosts<T> {
    fn default() -> Self {
        Self { known: ByKey::default(), order: VecDeque::new(), entered: 0 }
    }
}

impl<T> Ghosts<T> {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        self.known.get(&key).map(|(known, _)| known)
    }

    pub(super) fn take(&mut self, key: u64) -> Option<T> {
        self.known.remove(&key).map(|(known, _)| known)
    }

    /// Remembers a block that has gone; what was known of it before, if it was remembered already.
    pub(super) fn put(&mut self, key: u64, known: T) -> Option<T> {
        self.entered = self.entered.wrapping_add(1);
        self.order.push_back((key, self.entered));
        match self.known.entry(key) {
            Entry::Occupied(mut entry) => Some(entry.insert((known, self.entered)).0),
            Entry::Vacant(entry) => {
                entry.insert((known, self.entered));
                None
            }
        }
    }

    /// Forgets the one that went first, where there are more than `most`, or as many that have come back.
    pub(super) fn forget(&mut self, most: usize) -> Option<T> {
        while self.known.len() > most || self.order.len() > 2 * most {
            let (key, entered) = self.order.pop_front()?;
            if self.known.get(&key).is_some_and(|(_, last)| *last == entered) {
                return self.take(key);
            }
        }
        None
    }

    /// Bytes of memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.known.allocation_size() + self.order.capacity() * size_of::<(u64, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_went_first_is_forgotten_first_and_a_return_begins_anew() {
        let mut ghosts = Ghosts::default();
        for key in 0..4 {
            assert_eq!(ghosts.put(key, key), None);
        }
        assert_eq!((ghosts.take(0), ghosts.put(0, 10), ghosts.put(1, 11)), (Some(0), None, Some(1)));
        assert_eq!((ghosts.forget(4), ghosts.forget(2), ghosts.forget(2)), (None, Some(2), Some(3)));
        assert_eq!((ghosts.forget(2), ghosts.len()), (None, 2));
        assert_eq!((ghosts.get(0), ghosts.get(1), ghosts.get(2)), (Some(&10), Some(&11), None));
    }

    #[test]
    fn what_comes_and_goes_for_ever_takes_bounded_memory() {
        let mut ghosts = Ghosts::default();
        for _ in 0..1_000 {
            ghosts.put(1, ());
            while ghosts.forget(8).is_some() {}
            ghosts.take(1);
        }
        assert!(ghosts.order.len() <= 17, "{}", ghosts.order.len());
    }
}
