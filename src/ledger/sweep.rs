//! Deletes records that exporters have and that are old enough, oldest first, in steps. What they add to the sums stays
//! known, so that an audit still proves every sum; their identities go with them, which ends the time in which a repeated
//! settle gets its first receipt, and what is known of their deliveries, which nobody can claim from then on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::delivery::DeliveryKey;
use super::rollup::{RollupKey, Usage};
use super::store::{Rows, Store};
use super::{LedgerError, UsageRecord};
use crate::vocab::Timestamp;
use crate::vocab::limits::{LEDGER_COMPACT_RECORDS, LEDGER_SWEEP_RECORDS, LEDGER_WINDOW};
use crate::watch::{Part, Watch};

/// The name of the writer's thread.
pub(super) const WRITER: &str = "ledger";

/// Who waits for the end of a sweep hears how many records it has deleted.
pub(super) type Swept = oneshot::Sender<u64>;

/// Up to when deliveries may have been billed by records that are gone, for others to look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Forgotten(Arc<AtomicU64>);

impl Forgotten {
    /// Nothing where no record is gone.
    pub(super) fn get(&self) -> Option<Timestamp> {
        Some(Timestamp(self.0.load(Ordering::Relaxed))).filter(|until| until.0 > 0)
    }
}

/// The writer's part that deletes: between its batches, so that nobody looks for an identity while it goes.
pub(super) struct Sweeper {
    retention: Duration,
    /// All up to this sequence are deleted, as far as this process knows.
    through: u64,
    forgotten: Forgotten,
    under_way: Option<UnderWay>,
    /// Records deleted since the last compaction.
    loose: u64,
    compaction: Option<JoinHandle<()>>,
    /// The compaction, which can be done without: room is given back by the next one.
    part: Part,
    /// The writer's thread, whose part this is.
    writer: Part,
}

struct UnderWay {
    now: Timestamp,
    deleted: u64,
    done: Swept,
}

impl Sweeper {
    /// Never less than the window in which settles are repeated.
    pub(super) fn new(retention: Duration, forgotten: Option<Timestamp>, watch: &Watch) -> Self {
        let (part, writer) = (watch.optional("ledger-compact"), watch.vital(WRITER));
        let retention = retention.max(LEDGER_WINDOW);
        let forgotten = Forgotten(Arc::new(forgotten.map_or(0, |until| until.0).into()));
        Self { retention, through: 0, forgotten, under_way: None, loose: 0, compaction: None, part, writer }
    }

    pub(super) fn forgotten(&self) -> Forgotten {
        self.forgotten.clone()
    }

    /// Begins one, unless one is under way: then `done` is dropped.
    pub(super) fn begin(&mut self, now: Timestamp, done: Swept) {
        self.under_way.get_or_insert(UnderWay { now, deleted: 0, done });
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Ends the one that is under way.
    pub(super) fn give_up(&mut self) {
        self.under_way = None;
    }

    /// One step; true where it was the last and something was deleted. A ledger that is full gets all its room back.
    pub(super) fn step(&mut self, store: &Arc<Store>, is_full: bool) -> Result<bool, LedgerError> {
        self.writer.beat();
        let Some(mut sweep) = self.under_way.take() else { return Ok(false) };
        let deleted = self.delete(store, sweep.now)?;
        sweep.deleted += deleted as u64;
        if deleted == LEDGER_SWEEP_RECORDS {
            self.under_way = Some(sweep);
            return Ok(false);
        }
        let any = sweep.deleted > 0;
        if any {
            tracing::info!(records = sweep.deleted, through = self.through, "acknowledged usage records were deleted");
            self.loose += sweep.deleted;
            if is_full || self.loose >= LEDGER_COMPACT_RECORDS {
                self.compact(store, is_full);
            }
        }
        // A closed channel is an asker that went away.
        sweep.done.send(sweep.deleted).ok();
        Ok(any)
    }

    /// The first records, as many as one write takes. The last record of all stays: it says which sequence is the next.
    fn delete(&mut self, store: &Store, now: Timestamp) -> Result<usize, LedgerError> {
        let last = store.acknowledged()?.min(store.last_sequence()?.saturating_sub(1));
        let goes = |record: &UsageRecord| record.sequence <= last && now.since(record.settled_at) >= self.retention;
        let mut records = Vec::new();
        for record in store.hold()?.view().records(self.through).take(LEDGER_SWEEP_RECORDS) {
            let record = record?;
            if !goes(&record) {
                break;
            }
            records.push(record);
        }
        let Some(through) = records.last().map(|record| record.sequence) else { return Ok(0) };
        let mut sums: BTreeMap<RollupKey, Usage> = BTreeMap::new();
        for record in &records {
            sums.entry(RollupKey::of(record)).or_default().add(&Usage::from(record));
        }
        let mut rows = Rows::default();
        for (key, sum) in sums {
            let mut usage = store.deleted(&key)?;
            usage.add(&sum);
            rows.deleted(&key, &usage);
        }
        rows.delete(&records);
        // A claim to a delivery from before is refused from here on, so that nobody needs to know whose hits it was.
        let settled = records.iter().map(|record| record.settled_at).max();
        let until = self.forgotten.get().max(settled).unwrap_or_default();
        rows.forget(&ending(store, &records)?, until);
        // Before the write: of one that failed nobody knows whether it is on disk.
        self.forgotten.0.store(until.0, Ordering::Relaxed);
        store.write(rows)?;
        self.through = through;
        Ok(records.len())
    }

    /// Beside the writer, which goes on; one at a time.
    fn compact(&mut self, store: &Arc<Store>, all: bool) {
        if self.compaction.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (store, through, part) = (Arc::clone(store), self.through, self.part.clone());
        let thread = thread::Builder::new().name(part.name());
        let started = thread.spawn(move || part.run(|| store.compact(through, all)));
        match started {
            Ok(thread) => (self.compaction, self.loose) = (Some(thread), 0),
            Err(error) => tracing::warn!(%error, "the ledger's room is given back later"),
        }
    }
}

/// The deliveries of which these records are the last to tell.
fn ending(store: &Store, records: &[UsageRecord]) -> Result<Vec<DeliveryKey>, LedgerError> {
    let mut ending = Vec::new();
    for record in records {
        let Some(key) = DeliveryKey::recorded(record) else { continue };
        if store.delivery(&key)?.is_some_and(|delivery| delivery.last == record.sequence) {
            ending.push(key);
        }
    }
    Ok(ending)
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(thread) = self.compaction.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's compaction had panicked");
        }
    }
}
