//! What the planner's thread remembers of a catalog that could not be written: rows that are still to be deleted, and who
//! is opening it again.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::complaints::Complaints;
use crate::plan::Write;
use crate::tiers::{CODEC_RAW, Catalog, NvmeShelf, Row, ShardRow};
use crate::vocab::limits::{MEND_EVERY, UNDELETED_BATCH};
use crate::vocab::{BlockKey, SlotId};
use crate::watch::Watch;

/// The catalog's state as the planner's thread knows it.
#[derive(Default)]
pub(super) struct Index {
    /// The planner was told that rows can't be written.
    pub(super) failing: bool,
    /// Rows that could not be deleted, and the slots that they name: at most those of the drives.
    undeleted: HashMap<BlockKey, SlotId>,
    mending: Option<JoinHandle<()>>,
    tried: Option<Instant>,
    watch: Watch,
}

impl Index {
    /// Of a catalog that can be written. Who opens it again is a part of `watch`: without it nothing would come to the drives
    /// any more.
    pub(super) fn new(watch: &Watch) -> Self {
        Self { watch: watch.clone(), ..Self::default() }
    }

    /// The row of this block could not be deleted.
    pub(super) fn keep(&mut self, key: BlockKey, slot: SlotId) {
        self.undeleted.insert(key, slot);
    }

    /// Whether the block has a row that is still to be deleted.
    pub(super) fn still_names(&self, key: &BlockKey) -> bool {
        !self.undeleted.is_empty() && self.undeleted.contains_key(key)
    }

    /// Whether nothing is left to be deleted.
    pub(super) fn is_clean(&self) -> bool {
        self.undeleted.is_empty()
    }

    /// Has the catalog opened again on a thread of its own: it may take its time, and decisions must not wait for it.
    pub(super) fn mend(&mut self, nvme: &Arc<NvmeShelf>, complaints: &Arc<Complaints>) {
        let busy = self.mending.as_ref().is_some_and(|thread| !thread.is_finished());
        if busy || self.tried.is_some_and(|tried| tried.elapsed() < MEND_EVERY) {
            return;
        }
        self.tried = Some(Instant::now());
        let (nvme, complaints) = (Arc::clone(nvme), Arc::clone(complaints));
        let mend = move || {
            if let Err(error) = nvme.catalog().mend() {
                complaints.unmended(&error);
            }
        };
        // Where no thread can be had there is another try.
        let part = self.watch.vital("mend");
        self.mending = std::thread::Builder::new().name(part.name()).spawn(move || part.run(mend)).ok();
    }

    /// Deletes some of the rows that could not be deleted: slots that are free now.
    pub(super) fn delete_some(&mut self, catalog: &Catalog) -> Vec<SlotId> {
        let some: Vec<BlockKey> = self.undeleted.keys().take(UNDELETED_BATCH).copied().collect();
        // Not deleted, they are tried again.
        if catalog.delete_batch(some.iter().copied()).is_err() {
            return Vec::new();
        }
        some.iter().filter_map(|key| self.undeleted.remove(key)).collect()
    }
}

/// The row of a block that is written.
pub(super) fn row(write: &Write) -> Row {
    Row {
        slot: write.to.0,
        class: write.to.1,
        length: write.length,
        codec: CODEC_RAW,
        owner: write.owner,
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length: write.length, crc: write.crc }],
        parent: write.parent,
        depth: write.depth,
        retention: 0,
        created_s: write.created_s,
        last_use_s: write.created_s,
        expires_s: write.expires_s,
    }
}
