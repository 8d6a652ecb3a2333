//! Who has which part of a worker's staging memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::vocab::limits::ALIGNMENT;

/// The free parts of one piece of staging memory: where each begins, and how long it is. No two of them touch.
#[derive(Debug)]
pub struct Staging {
    size: u64,
    free: Mutex<BTreeMap<u64, u64>>,
}

impl Staging {
    pub(super) fn new(size: u64) -> Self {
        Self { size, free: Mutex::new(BTreeMap::from([(0, size)])) }
    }

    /// All of it, free or not.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Parts of `bytes` each, `count` of them or as many as there are.
    #[must_use]
    pub fn grant(self: &Arc<Self>, count: usize, bytes: u32) -> Grant {
        let bytes = u64::from(bytes.max(1)).next_multiple_of(ALIGNMENT);
        let mut free = self.lock();
        let mut offsets = Vec::new();
        while offsets.len() < count {
            let Some((start, len)) = free.iter().find(|(_, len)| **len >= bytes).map(|(start, len)| (*start, *len))
            else {
                break;
            };
            free.remove(&start);
            let parts = (len / bytes).min((count - offsets.len()) as u64);
            offsets.extend((0..parts).map(|part| start + part * bytes));
            if len > parts * bytes {
                free.insert(start + parts * bytes, len - parts * bytes);
            }
        }
        drop(free);
        Grant { staging: Arc::clone(self), offsets, bytes }
    }

    fn give_back(&self, start: u64, len: u64) {
        let mut free = self.lock();
        let (mut start, mut end) = (start, start + len);
        if let Some((before, len)) = free.range(..start).next_back().map(|(before, len)| (*before, *len))
            && before + len == start
        {
            free.remove(&before);
            start = before;
        }
        if let Some(len) = free.remove(&end) {
            end += len;
        }
        free.insert(start, end - start);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parts of staging memory that a worker may fill. Dropped, they are free again.
#[derive(Debug)]
pub struct Grant {
    staging: Arc<Staging>,
    offsets: Vec<u64>,
    bytes: u64,
}

impl Grant {
    /// Where each part begins.
    #[must_use]
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.offsets.iter().for_each(|start| self.staging.give_back(*start, self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_never_overlap_and_all_come_back() {
        let staging = Arc::new(Staging::new(64 << 10));
        let (first, second) = (staging.grant(4, 5_000), staging.grant(100, 4_096));
        assert_eq!(first.offsets(), [0, 8_192, 16_384, 24_576], "whole 4 KiB each");
        assert_eq!(second.offsets().len(), 8, "as many as there are");
        assert!(staging.grant(1, 1).offsets().is_empty());
        drop(first);
        let third = staging.grant(1, 20_000);
        assert_eq!(third.offsets(), [0], "parts that touch are one");
        drop((second, third));
        assert_eq!(*staging.lock(), BTreeMap::from([(0, 64 << 10)]));
    }
}
