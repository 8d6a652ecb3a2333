//! Several changes of rows at once, in their order: what one thread writes for all that moves blocks.

use std::time::Duration;

use rocksdb::WriteOptions;

use super::catalog::Catalog;
use super::database::family_of;
use super::promise;
use super::row::Row;
use super::store::{BLOCKS, IndexError, META};
use crate::vocab::{BlockKey, Promise};

/// One change.
#[derive(Clone, Copy, Debug)]
pub enum RowChange<'a> {
    /// Remember a block whose payload was written.
    Put(&'a BlockKey, &'a Row),
    /// Forget a block; known or not.
    Delete(&'a BlockKey),
    /// Remember what is promised of a block, or that nothing is any more.
    Promise(&'a BlockKey, Option<&'a Promise>),
}

impl Catalog {
    /// Makes all of these changes or none; of two of one row the later one counts. `synced`: they are on disk when this returns,
    /// and with them all that was written before.
    ///
    /// # Errors
    /// When the database refuses. Then a row that was to be put may be there until it was [mended](Self::mend), and one that
    /// was to be deleted may still be there.
    pub fn change<'a>(
        &self,
        changes: impl Iterator<Item = RowChange<'a>> + Clone,
        synced: bool,
    ) -> Result<(), IndexError> {
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        let put = |change| match change {
            RowChange::Put(key, _) => Some(key),
            RowChange::Delete(_) | RowChange::Promise(..) => None,
        };
        let unsure = changes.clone().filter_map(put).map(|key| (BLOCKS, &key.as_bytes()[..]));
        self.db.write_or(&options, unsure, |db, batch| {
            let (blocks, meta) = (family_of(db, BLOCKS)?, family_of(db, META)?);
            for change in changes {
                match change {
                    RowChange::Put(key, row) => batch.put_cf(blocks, key.as_bytes(), row.encode()),
                    RowChange::Delete(key) => batch.delete_cf(blocks, key.as_bytes()),
                    RowChange::Promise(key, Some(promise)) => {
                        batch.put_cf(meta, promise::key_of(key), promise::encode(promise));
                    }
                    RowChange::Promise(key, None) => batch.delete_cf(meta, promise::key_of(key)),
                }
            }
            Ok(())
        })
    }

    /// Has every write from now on take this much longer, as on a slow device: for benches and tests.
    pub fn slow_down(&self, by: Duration) {
        self.db.slow_down(by);
    }

    /// Whether every later write is done and said to have failed.
    #[cfg(test)]
    pub(crate) fn db_lies(&self, lying: bool) {
        self.db.lie(lying);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::CODEC_RAW;
    use crate::index::row::ShardRow;
    use crate::vocab::{Owner, SlotClass, SlotId};

    fn row(index: u16) -> Row {
        Row {
            slot: SlotId { extent: 0, index },
            class: SlotClass::of_bytes(4_096).unwrap(),
            length: 9,
            codec: CODEC_RAW,
            owner: Owner::default(),
            shard_bitmap: 1,
            shards: vec![ShardRow { offset: 0, length: 9, crc: 1 }],
            parent: None,
            depth: 0,
            retention: 0,
            created_s: 1,
            last_use_s: 1,
            expires_s: 0,
        }
    }

    #[test]
    fn of_changes_of_one_row_in_one_write_the_last_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).unwrap().catalog;
        let [gone, back, kept] = [1, 2, 3].map(|byte| BlockKey::from_bytes([byte; 32]));
        let promise = Promise { until_s: 9, refresh: None, pinned: false };
        let (old, new) = (row(1), row(2));
        let changes = [
            RowChange::Put(&gone, &old),
            RowChange::Delete(&back),
            RowChange::Put(&back, &new),
            RowChange::Delete(&gone),
            RowChange::Promise(&gone, Some(&promise)),
            RowChange::Promise(&kept, Some(&promise)),
            RowChange::Promise(&gone, None),
        ];
        catalog.put(back, &old).unwrap();
        catalog.change(changes.into_iter(), true).unwrap();
        assert_eq!((catalog.get(gone).unwrap(), catalog.get(back).unwrap()), (None, Some(new)));
        assert_eq!(catalog.promises().unwrap(), [(kept, promise)]);
    }

    #[test]
    fn rows_of_a_write_that_failed_are_taken_back_by_mending() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path()).unwrap().catalog;
        let [one, two] = [1, 2].map(|byte| BlockKey::from_bytes([byte; 32]));
        let (old, new) = (row(1), row(2));
        catalog.put(two, &old).unwrap();
        catalog.db.lie(true);
        let changes = [RowChange::Put(&one, &new), RowChange::Delete(&two)];
        assert!(catalog.change(changes.into_iter(), false).is_err() && catalog.is_failing());
        catalog.db.lie(false);
        catalog.mend().unwrap();
        assert_eq!(catalog.get(one).unwrap(), None, "whoever put it was told that it is not there");
    }
}
