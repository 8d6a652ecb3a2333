//! Rows of what is promised of a block: beside its own row, because it changes with uses and outlives none of them.

use rocksdb::{Direction, IteratorMode, WriteOptions};

use super::catalog::Catalog;
use super::database::family_of;
use super::store::{IndexError, META};
use crate::vocab::{BlockKey, Lifetime, Promise};

/// What the key of such a row begins with; the block's key follows. No other value of the family does.
const PREFIX: &[u8] = b"promise:";
const VERSION: u8 = 1;
const PINNED: u8 = 1;
const REFRESHED: u8 = 2;

pub(super) fn key_of(block: &BlockKey) -> Vec<u8> {
    [PREFIX, block.as_bytes()].concat()
}

pub(super) fn encode(promise: &Promise) -> Vec<u8> {
    let flags = if promise.pinned { PINNED } else { 0 } | if promise.refresh.is_some() { REFRESHED } else { 0 };
    let seconds = promise.refresh.map_or(0, |lifetime| lifetime.seconds);
    let mut row = vec![VERSION, flags];
    row.extend(promise.until_s.to_le_bytes());
    row.extend(seconds.to_le_bytes());
    row
}

fn decode(row: &[u8]) -> Option<Promise> {
    let [VERSION, flags, rest @ ..] = row else { return None };
    let (until, rest) = rest.split_first_chunk()?;
    let seconds = u32::from_le_bytes(rest.try_into().ok()?);
    let refresh = (flags & REFRESHED != 0).then_some(Lifetime { seconds, refreshed: true });
    Some(Promise { until_s: u32::from_le_bytes(*until), refresh, pinned: flags & PINNED != 0 })
}

impl Catalog {
    /// Remembers what is promised of a block. Synced, it is on disk when this returns, and with it all rows that were written
    /// before.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn put_promise(&self, block: &BlockKey, promise: &Promise, synced: bool) -> Result<(), IndexError> {
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        self.db.write(&options, |db, batch| {
            batch.put_cf(family_of(db, META)?, key_of(block), encode(promise));
            Ok(())
        })
    }

    /// Forgets it; known or not.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn delete_promise(&self, block: &BlockKey) -> Result<(), IndexError> {
        self.db.write(&WriteOptions::default(), |db, batch| {
            batch.delete_cf(family_of(db, META)?, key_of(block));
            Ok(())
        })
    }

    /// All promises, each with its block's key. Rows that can't be read are left out.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn promises(&self) -> Result<Vec<(BlockKey, Promise)>, IndexError> {
        let mut found = Vec::new();
        self.db.with(|db| {
            let from = IteratorMode::From(PREFIX, Direction::Forward);
            for entry in db.iterator_cf(family_of(db, META)?, from) {
                let (key, row) = entry?;
                let Some(key) = key.strip_prefix(PREFIX) else { break };
                let key = <[u8; 32]>::try_from(key).map(BlockKey::from_bytes);
                found.extend(key.ok().zip(decode(&row)));
            }
            Ok(())
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_read_back_and_other_bytes_are_none() {
        let refresh = Some(Lifetime { seconds: 300, refreshed: true });
        for promise in [
            Promise { until_s: 0x6000_0000, refresh, pinned: false },
            Promise { until_s: 0, refresh: None, pinned: true },
        ] {
            let row = encode(&promise);
            assert_eq!(decode(&row), Some(promise));
            assert_eq!(decode(&row[1..]), None);
            assert_eq!(decode(&[&row[..], &[0]].concat()), None);
        }
        assert_eq!(encode(&Promise { until_s: 1, refresh, pinned: true }), [1, 3, 1, 0, 0, 0, 44, 1, 0, 0]);
    }

    #[test]
    fn the_catalog_keeps_them_until_they_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let promise = Promise { until_s: 9, refresh: None, pinned: false };
        let (one, two) = (BlockKey::from_bytes([1; 32]), BlockKey::from_bytes([2; 32]));
        let catalog = Catalog::open(folder.path()).unwrap().catalog;
        catalog.put_promise(&one, &promise, true).unwrap();
        catalog.put_promise(&two, &promise, false).unwrap();
        catalog.delete_promise(&one).unwrap();
        drop(catalog);
        let catalog = Catalog::open(folder.path()).unwrap().catalog;
        assert_eq!(catalog.promises().unwrap(), [(two, promise)]);
    }
}
