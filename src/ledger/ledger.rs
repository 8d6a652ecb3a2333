//! The room's door: opens the ledger, takes settles, and sums up.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::bound::Taken;
use super::grouping::{Grouping, Groups};
use super::refused::Refusals;
use super::rollup::{RollupKey, Usage, UsageFilter, UsageSummary};
use super::storage::Sampled;
use super::store::{Rows, Store};
use super::sweep::{Forgotten, WRITER};
use super::writer::{Ask, Job, Reply, Writer};
use super::{
    AcknowledgeError, Amendment, Audit, Exports, LedgerError, ReceiptKey, Refused, SettleError, Settled, Settlement,
    UsageRecord,
};
use crate::vocab::limits::{EXPORT_PAGE_RECORDS_MAX, LEDGER_BYTES, LEDGER_INBOX, USAGE_RETENTION};
use crate::vocab::{ByteCount, Timestamp};
use crate::watch::Watch;

/// The open ledger. Dropping it commits what waits, then closes the database.
pub struct Ledger {
    store: Arc<Store>,
    receipt_key: ReceiptKey,
    /// What exporters have, as it is on disk.
    acknowledged: Mutex<u64>,
    options: LedgerOptions,
    taken: Taken,
    forgotten: Forgotten,
    refusals: Arc<Refusals>,
    pub(super) sampled: Mutex<Sampled>,
    inbox: Inbox,
    writer: Option<JoinHandle<()>>,
}

/// What a ledger may take, and how long it keeps what exporters have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerOptions {
    /// Bytes of its folder at most: at that bound new settles are refused.
    pub bytes_max: ByteCount,
    /// Acknowledged records go when they are so old; at least the 48 hours in which settles are repeated.
    pub retention: Duration,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { bytes_max: ByteCount(LEDGER_BYTES), retention: USAGE_RETENTION }
    }
}

/// How full a ledger is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerFill {
    /// Bytes of its folder.
    pub bytes: u64,
    /// The most that they may be.
    pub bytes_max: u64,
    /// What all records that it ever had come to, as it is counted beside them; nothing where that can't be read.
    pub counters: Option<Usage>,
    /// Why it takes no new settles now.
    pub trouble: Option<String>,
    /// What was refused since the start.
    pub refused: Refused,
}

/// What exporters have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// All records up to this sequence.
    pub through: u64,
    /// Sequence of the last record.
    pub last: u64,
}

/// Where settles wait for the writer; emptied and gone when the ledger is dropped.
struct Inbox(Option<SyncSender<Job>>, Arc<Refusals>);

impl Ledger {
    /// Opens the ledger of a folder with the default options, or makes one where the folder is absent or empty.
    ///
    /// # Errors
    /// When it is in use, or unreadable. An unreadable ledger is left as it is.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Self::open_with(path, LedgerOptions::default())
    }

    /// Opens the ledger of a folder, or makes one where the folder is absent or empty.
    ///
    /// # Errors
    /// When it is in use, or unreadable. An unreadable ledger is left as it is.
    pub fn open_with(path: &Path, options: LedgerOptions) -> Result<Self, LedgerError> {
        Self::open_watched(path, options, &Watch::default())
    }

    /// The same, with its writer as a part of `watch`.
    ///
    /// # Errors
    /// When it is in use, or unreadable. An unreadable ledger is left as it is.
    pub fn open_watched(path: &Path, options: LedgerOptions, watch: &Watch) -> Result<Self, LedgerError> {
        let store = Arc::new(Store::open(path)?);
        let receipt_key = store.receipt_key()?;
        let acknowledged = Mutex::new(store.acknowledged()?);
        let refusals = Arc::<Refusals>::default();
        let writer = Writer::new(Arc::clone(&store), &options, Arc::clone(&refusals), watch)?;
        let (taken, forgotten) = (writer.taken(), writer.forgotten());
        let (sender, receiver) = sync_channel(LEDGER_INBOX);
        let part = watch.vital(WRITER);
        let started = thread::Builder::new().name(part.name()).spawn(move || part.run(|| writer.run(&receiver)));
        let writer = started.map_err(|error| LedgerError::Folder { path: path.into(), detail: error.to_string() })?;
        let inbox = Inbox(Some(sender), Arc::clone(&refusals));
        let sampled = Mutex::default();
        let writer = Some(writer);
        Ok(Self { store, receipt_key, acknowledged, options, taken, forgotten, refusals, sampled, inbox, writer })
    }

    /// Settles and waits until it is on disk. Not for async code, where [`Ledger::submit`] is.
    ///
    /// The same identity (tenant, billing id) with the same numbers gives the first record again.
    ///
    /// # Errors
    /// See [`SettleError`]: nothing was recorded, except where it says that this is unknown.
    pub fn settle(&self, settlement: Settlement) -> Result<Settled, SettleError> {
        let (reply, answer) = oneshot::channel();
        self.submit(settlement, reply);
        answer.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Settles without waiting: the answer comes by `reply`, when the record is on disk or when it can't be. A reply
    /// that closes without an answer means that the ledger stopped.
    pub fn submit(&self, settlement: Settlement, reply: Reply) {
        self.inbox.offer(Job::Record(Box::new(Ask::Settle(settlement)), reply));
    }

    /// Corrects what was settled, by a record of its own, without waiting: as [`Ledger::submit`].
    ///
    /// The same identity (tenant, billing id of the correction) with the same content gives the first record again.
    pub fn correct(&self, amendment: Amendment, reply: Reply) {
        self.inbox.offer(Job::Record(Box::new(Ask::Correct(amendment)), reply));
    }

    /// Deletes records that are acknowledged and old enough, beside settles that go on; `swept` hears how many, when all are
    /// gone. Dropped unheard where a sweep is under way, or too many settles wait.
    pub fn sweep(&self, now: Timestamp, swept: oneshot::Sender<u64>) {
        self.inbox.offer(Job::Sweep(now, swept));
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> LedgerFill {
        let trouble = self.trouble();
        let counters = self.store.counters().unwrap_or_else(|error| {
            if trouble.is_none() {
                tracing::warn!(%error, "the ledger's counters are not known");
            }
            None
        });
        let (bytes, bytes_max) = (self.taken.get(), self.options.bytes_max.get());
        LedgerFill { bytes, bytes_max, counters, trouble, refused: self.refusals.get() }
    }

    /// Why it takes no new settles now: it can't be written, or it is full. Nothing where it takes them.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let full = || self.taken.check(self.options.bytes_max.get()).err().map(|full| full.to_string());
        self.store.trouble().or_else(full)
    }

    /// Does something with the database; where a write fails, the writer hears of it, who heals it.
    pub(super) fn noticing<T>(&self, work: impl FnOnce(&Store) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        work(&self.store).inspect_err(|_| {
            if self.store.trouble().is_some() {
                self.inbox.offer(Job::Look);
            }
        })
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Names this ledger among others, as long as it lives.
    #[must_use]
    pub fn id(&self) -> String {
        self.receipt_key.name()
    }

    /// Up to when deliveries may have been billed by records that are deleted; nothing where none is. A claim to a delivery of
    /// that time is refused.
    #[must_use]
    pub fn forgotten(&self) -> Option<Timestamp> {
        self.forgotten.get()
    }

    /// Makes and checks the delivery receipts of this ledger.
    #[must_use]
    pub fn receipt_key(&self) -> &ReceiptKey {
        &self.receipt_key
    }

    /// Sums of what was settled, by tenant, namespace and hour.
    ///
    /// # Errors
    /// When it has too many rows, and when the database can't be read.
    pub fn summary(&self, filter: &UsageFilter) -> Result<UsageSummary, LedgerError> {
        self.summary_by(filter, &Grouping::default())
    }

    /// Sums of what was settled, over all that the grouping does not name. Reads a row for each tenant, namespace, hour, user
    /// and key that is asked for.
    ///
    /// # Errors
    /// When it has too many rows, and when the database can't be read.
    pub fn summary_by(&self, filter: &UsageFilter, by: &Grouping) -> Result<UsageSummary, LedgerError> {
        let prefix = filter.tenant.as_ref().map(RollupKey::tenant_prefix).unwrap_or_default();
        let mut groups = Groups::new(by);
        for rollup in self.store.hold()?.view().rollups(&prefix) {
            let (key, usage) = rollup?;
            if filter.wants(&key) {
                groups.add(key, &usage)?;
            }
        }
        Ok(groups.summary())
    }

    /// Records after a sequence (0 for the first page), in order; an empty page is the end.
    ///
    /// # Errors
    /// When the next record has been deleted, and when the database can't be read.
    pub fn records_after(&self, sequence: u64) -> Result<Vec<UsageRecord>, LedgerError> {
        let page: Vec<_> =
            self.store.hold()?.view().records(sequence).take(EXPORT_PAGE_RECORDS_MAX).collect::<Result<_, _>>()?;
        match page.first().map(|record| record.sequence) {
            Some(first) if first > sequence.saturating_add(1) => {
                Err(LedgerError::Deleted { after: sequence, through: first - 1 })
            }
            _ => Ok(page),
        }
    }

    /// Sequence of the last record that was deleted; 0 where none was.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn deleted_through(&self) -> Result<u64, LedgerError> {
        let first = self.store.hold()?.view().records(0).next().transpose()?;
        Ok(first.map_or(0, |record| record.sequence - 1))
    }

    /// By hour since 1970, what came from records that were deleted.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn deleted(&self) -> Result<Vec<(u32, Usage)>, LedgerError> {
        let mut hours: BTreeMap<u32, Usage> = BTreeMap::new();
        for row in self.store.hold()?.view().deleted() {
            let (key, usage) = row?;
            hours.entry(key.hour).or_default().add(&usage);
        }
        Ok(hours.into_iter().collect())
    }

    /// Notes on disk that exporters have all records up to a sequence; a lower one than before changes nothing.
    ///
    /// # Errors
    /// For a sequence past the last record, and when the database can't be read or written.
    pub fn acknowledge(&self, through: u64) -> Result<Acknowledged, AcknowledgeError> {
        let mut known = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.store.last_sequence()?;
        if through > last {
            return Err(AcknowledgeError::Past { through, last });
        }
        if through > *known {
            let mut rows = Rows::default();
            rows.acknowledged(through);
            self.noticing(|store| store.write(rows))?;
            *known = through;
        }
        Ok(Acknowledged { through: *known, last })
    }

    /// Sequence of the last record; 0 where there is none.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn last_sequence(&self) -> Result<u64, LedgerError> {
        self.store.last_sequence()
    }

    /// Up to which sequence exporters have all records.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a comparison with what was exported.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn compare_exports(&self) -> Result<Exports<'_>, LedgerError> {
        Ok(Exports::new(&self.store, self.deleted_through()?))
    }

    /// Checks that identities, records and sums agree. Reads everything, beside settles that go on.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn audit(&self) -> Result<Audit, LedgerError> {
        Audit::of(&self.store.hold()?.view())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.inbox.0 = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the ledger's writer had panicked");
        }
    }
}

impl Inbox {
    fn offer(&self, job: Job) {
        let Some(sender) = &self.0 else { return };
        let (job, error) = match sender.try_send(job) {
            Ok(()) => return,
            Err(TrySendError::Full(job)) => (job, SettleError::Busy),
            Err(TrySendError::Disconnected(job)) => (job, stopped()),
        };
        // A closed channel is an asker that went away; a sweep comes again by itself.
        if let Job::Record(_, reply) = job {
            self.1.count(&error);
            drop(reply.send(Err(error)));
        }
    }
}

fn stopped() -> SettleError {
    SettleError::Unavailable("its writer has stopped".into())
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
