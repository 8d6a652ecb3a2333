//! The room's door: opens the ledger, takes settles, and sums up.

use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::bound::Taken;
use super::grouping::{Grouping, Groups};
use super::rollup::{RollupKey, UsageFilter, UsageSummary};
use super::storage::Sampled;
use super::store::{Rows, Store};
use super::writer::{Job, Reply, Writer};
use super::{
    AcknowledgeError, Audit, GatewayError, GatewayReport, LedgerError, ReceiptKey, SettleError, Settled, Settlement,
    UsageRecord,
};
use crate::vocab::limits::{EXPORT_PAGE_RECORDS_MAX, LEDGER_BYTES, LEDGER_INBOX, USAGE_RETENTION};
use crate::vocab::{ByteCount, Timestamp};

/// The open ledger. Dropping it commits what waits, then closes the database.
pub struct Ledger {
    store: Arc<Store>,
    receipt_key: ReceiptKey,
    /// What exporters have, as it is on disk.
    acknowledged: Mutex<u64>,
    options: LedgerOptions,
    taken: Taken,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerFill {
    /// Bytes of its folder.
    pub bytes: u64,
    /// The most that they may be.
    pub bytes_max: u64,
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
struct Inbox(Option<SyncSender<Job>>);

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
        let store = Arc::new(Store::open(path)?);
        let receipt_key = store.receipt_key()?;
        let acknowledged = Mutex::new(store.acknowledged()?);
        let writer = Writer::new(Arc::clone(&store), &options)?;
        let taken = writer.taken();
        let (sender, receiver) = sync_channel(LEDGER_INBOX);
        let started = thread::Builder::new().name("ledger".into()).spawn(move || writer.run(&receiver));
        let writer = started.map_err(|error| LedgerError::Folder { path: path.into(), detail: error.to_string() })?;
        let inbox = Inbox(Some(sender));
        let sampled = Mutex::default();
        Ok(Self { store, receipt_key, acknowledged, options, taken, sampled, inbox, writer: Some(writer) })
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
        self.inbox.offer(Job::Settle(Box::new(settlement), reply));
    }

    /// Deletes records that are acknowledged and old enough, beside settles that go on; `swept` hears how many, when all are
    /// gone. Dropped unheard where a sweep is under way, or too many settles wait.
    pub fn sweep(&self, now: Timestamp, swept: oneshot::Sender<u64>) {
        self.inbox.offer(Job::Sweep(now, swept));
    }

    /// How full it is.
    #[must_use]
    pub fn fill(&self) -> LedgerFill {
        LedgerFill { bytes: self.taken.get(), bytes_max: self.options.bytes_max.get() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
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
        for rollup in self.store.view().rollups(&prefix) {
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
            self.store.view().records(sequence).take(EXPORT_PAGE_RECORDS_MAX).collect::<Result<_, _>>()?;
        match page.first().map(|record| record.sequence) {
            Some(first) if first > sequence.saturating_add(1) => {
                Err(LedgerError::Deleted { after: sequence, through: first - 1 })
            }
            _ => Ok(page),
        }
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
            self.store.write(rows)?;
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

    /// Compares the records that are kept with a gateway's log: JSON lines with tenant, `billing_id`, `prompt_tokens`,
    /// `cached_tokens` (from kvtier, as in a settle) and `output_tokens`.
    ///
    /// # Errors
    /// Names the first line that is no request; when log or database can't be read.
    pub fn reconcile(&self, log: impl std::io::BufRead) -> Result<GatewayReport, GatewayError> {
        GatewayReport::of(log, self.store.view().records(0))
    }

    /// Checks that identities, records and sums agree. Reads everything, beside settles that go on.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn audit(&self) -> Result<Audit, LedgerError> {
        Audit::of(&self.store.view())
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
        if let Job::Settle(_, reply) = job {
            drop(reply.send(Err(error)));
        }
    }
}

fn stopped() -> SettleError {
    SettleError::Unavailable("its writer has stopped".into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::super::sample::{NEW_YEAR, settlement};
    use super::*;
    use crate::vocab::{NamespaceName, TenantName, TokenCount};

    const HOUR: u64 = 3_600_000;

    /// Identity of a record, and what is billed for it.
    type Bill = BTreeMap<(String, String), UsageRecord>;

    /// One of 400 requests of three tenants, always with the same numbers; it comes many times.
    fn request(at: u64) -> Settlement {
        let sample = settlement(["acme", "bolt", "crow"][usize::try_from(at % 3).unwrap()], &format!("b-{at}"));
        Settlement {
            prompt_tokens: TokenCount(1_000 + at),
            settled_at: Timestamp(NEW_YEAR.0 + at % 5 * HOUR),
            ..sample
        }
    }

    /// Settles at random, as clients that lose answers and try again do, and keeps what was acknowledged.
    fn settle_at_random(ledger: &Ledger, seed: u64, settles: u64) -> Bill {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let mut acknowledged = Bill::new();
        for _ in 0..settles {
            let mut settlement = request(random.random_range(0..400));
            settlement.attempt = random.random();
            match ledger.settle(settlement.clone()) {
                Ok(settled) => {
                    let identity = (settled.record.tenant.to_string(), settled.record.billing_id.to_string());
                    let before = acknowledged.insert(identity, settled.record.clone());
                    assert!(before.is_none_or(|before| before == settled.record), "the first record stands");
                    assert_eq!(settled.record.difference(&settlement), None, "an answer to this settle");
                }
                Err(SettleError::Busy) => {}
                Err(error) => panic!("{error}"),
            }
        }
        acknowledged
    }

    fn merged(bills: Vec<Bill>) -> Bill {
        let mut all = Bill::new();
        for (identity, record) in bills.into_iter().flatten() {
            let before = all.insert(identity, record.clone());
            assert!(before.is_none_or(|before| before == record), "all askers hear of the same record");
        }
        all
    }

    fn billed(ledger: &Ledger) -> Bill {
        let records = ledger.records_after(0).unwrap();
        let count = records.len();
        let bill: Bill = records
            .into_iter()
            .map(|record| ((record.tenant.to_string(), record.billing_id.to_string()), record))
            .collect();
        assert_eq!(bill.len(), count, "no identity has two records");
        bill
    }

    #[test]
    fn sixty_four_askers_that_repeat_and_race_are_billed_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Vec::new();
        for round in 0..3_u64 {
            let ledger = Ledger::open(folder.path()).unwrap();
            let settle = |seed: u64| settle_at_random(&ledger, round * 1_000 + seed, 20);
            let bills = thread::scope(|scope| {
                let askers: Vec<_> = (0..64).map(|seed| scope.spawn(move || settle(seed))).collect();
                askers.into_iter().map(|asker| asker.join().unwrap()).collect()
            });
            all.push(merged(bills));
            let acknowledged = merged(all.clone());
            assert_eq!(billed(&ledger), acknowledged);
            let audit = ledger.audit().unwrap();
            assert!(audit.clean(), "{:?}", audit.examples);
            let prompt_tokens = acknowledged.values().map(|record| record.prompt_tokens).sum();
            let summary = ledger.summary(&UsageFilter::default()).unwrap();
            assert_eq!((summary.total.prompt_tokens, summary.total), (prompt_tokens, audit.total));
            assert_eq!(summary.rows.iter().map(|row| row.usage.records).sum::<u64>(), acknowledged.len() as u64);
        }
    }

    /// A copy of the folder while settles go on is what a kill at that moment leaves.
    #[test]
    fn what_was_acknowledged_before_a_kill_is_billed_after_it() {
        let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ledger = Ledger::open(folder.path()).unwrap();
        let before = settle_at_random(&ledger, 1, 50);
        thread::scope(|scope| {
            let ledger = &ledger;
            (2..10).for_each(|seed| drop(scope.spawn(move || settle_at_random(ledger, seed, 50))));
            for entry in std::fs::read_dir(folder.path()).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        });
        let after = Ledger::open(copy.path()).unwrap();
        let audit = after.audit().unwrap();
        assert!(audit.clean(), "{:?}", audit.examples);
        let after = billed(&after);
        assert!(before.iter().all(|(identity, record)| after.get(identity) == Some(record)));
        let whole = billed(&ledger);
        assert!(after.iter().all(|(identity, record)| whole.get(identity) == Some(record)));
    }

    #[test]
    fn sequences_go_on_after_a_reopen_and_the_receipt_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let first = ledger.settle(settlement("acme", "b-1")).unwrap();
        assert_eq!((first.record.sequence, first.repeated), (1, false));
        let receipt = super::super::DeliveryReceipt {
            instance: first.record.instance.clone(),
            request_id: crate::vocab::RequestId::parse("r-1").unwrap(),
            fingerprint: first.record.fingerprint,
            delivered: first.record.hit,
            issued: NEW_YEAR,
            nonce: super::super::DeliveryReceipt::fresh_nonce(),
        };
        let signed = ledger.receipt_key().sign(&receipt);
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        let again = ledger.settle(settlement("acme", "b-1")).unwrap();
        assert_eq!((again.record, again.repeated), (first.record, true));
        assert_eq!(ledger.settle(settlement("acme", "b-2")).unwrap().record.sequence, 2);
        assert_eq!(ledger.receipt_key().verify(&signed), Ok(receipt));
    }

    #[test]
    fn a_repeat_needs_no_delivery_that_the_daemon_still_remembers() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let first = ledger.settle(settlement("acme", "b-1")).unwrap();
        let forgotten = Settlement { delivered: Default::default(), ..settlement("acme", "b-1") };
        assert_eq!(ledger.settle(forgotten), Ok(Settled { repeated: true, ..first }));
    }

    #[test]
    fn other_numbers_for_the_same_identity_are_a_conflict_that_shows_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let first = ledger.settle(settlement("acme", "b-1")).unwrap().record;
        let other = Settlement { prompt_tokens: TokenCount(2_000), ..settlement("acme", "b-1") };
        let error = ledger.settle(other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "b-1 was settled before with another prompt_tokens: the first record, sequence 1, stands"
        );
        assert_eq!(error, SettleError::Conflict { field: "prompt_tokens", first: Box::new(first) });
        assert_eq!(ledger.audit().unwrap().total.prompt_tokens, TokenCount(1_000));
    }

    #[test]
    fn a_summary_narrows_by_tenant_namespace_and_hour() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        (0..30).for_each(|at| drop(ledger.settle(request(at)).unwrap()));
        let from = NEW_YEAR.hour();
        let records = |filter: UsageFilter| {
            let summary = ledger.summary(&filter).unwrap();
            (summary.total.records, summary.rows.len())
        };
        let acme = || TenantName::parse("acme").ok();
        assert_eq!(records(UsageFilter::default()), (30, 15));
        assert_eq!(records(UsageFilter { tenant: acme(), ..Default::default() }), (10, 5));
        assert_eq!(records(UsageFilter { from_hour: Some(from + 4), ..Default::default() }), (6, 3));
        assert_eq!(records(UsageFilter { tenant: acme(), until_hour: Some(from + 2), ..Default::default() }), (4, 2));
        let other = NamespaceName::parse("other").ok();
        assert_eq!(records(UsageFilter { namespace: other, ..Default::default() }), (0, 0));
        let hours: Vec<_> = ledger.summary(&UsageFilter::default()).unwrap().rows;
        assert!(hours.is_sorted_by_key(|row| (row.tenant.clone(), row.namespace.clone(), row.hour)));
    }

    #[test]
    fn pages_of_records_follow_their_cursor() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        (0..5).for_each(|at| drop(ledger.settle(request(at)).unwrap()));
        let sequences = |after| -> Vec<_> {
            ledger.records_after(after).unwrap().into_iter().map(|record| record.sequence).collect()
        };
        assert_eq!(sequences(0), [1, 2, 3, 4, 5]);
        assert_eq!(sequences(3), [4, 5]);
        assert_eq!(sequences(5), [0; 0]);
        assert_eq!(sequences(u64::MAX), [0; 0]);
    }

    #[test]
    fn what_exporters_acknowledge_only_grows_and_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        (0..5).for_each(|at| drop(ledger.settle(request(at)).unwrap()));
        assert_eq!(ledger.acknowledge(3), Ok(Acknowledged { through: 3, last: 5 }));
        assert_eq!(ledger.acknowledge(2), Ok(Acknowledged { through: 3, last: 5 }));
        assert_eq!(
            ledger.acknowledge(6).unwrap_err().to_string(),
            "through is 6, the last record is 5: acknowledge what was exported"
        );
        drop(ledger);
        assert_eq!(Ledger::open(folder.path()).unwrap().acknowledged(), 3);
    }

    #[test]
    fn a_full_inbox_says_busy_at_once() {
        let (sender, receiver) = sync_channel(1);
        let inbox = Inbox(Some(sender));
        let offer = || {
            let (reply, mut answer) = oneshot::channel();
            inbox.offer(Job::Settle(Box::new(settlement("acme", "b-1")), reply));
            answer.try_recv()
        };
        assert!(offer().is_err(), "the first waits");
        assert_eq!(offer(), Ok(Err(SettleError::Busy)));
        drop(receiver);
        assert_eq!(offer(), Ok(Err(stopped())));
    }

    #[test]
    fn what_waits_is_committed_before_the_ledger_closes() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        for at in 0..100 {
            let (reply, _asker_is_gone) = oneshot::channel();
            ledger.submit(request(at), reply);
        }
        drop(ledger);
        assert_eq!(billed(&Ledger::open(folder.path()).unwrap()).len(), 100);
    }
}
