//! Group commit: one thread takes what waits, decides each settle, writes all with one sync, and only then answers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};

use tokio::sync::oneshot;

use super::bound::{Bound, Taken};
use super::correction::Standing;
use super::counts::count;
use super::delivery::{Delivery, DeliveryKey};
use super::heal::Healer;
use super::refused::Refusals;
use super::rollup::{RollupKey, Usage};
use super::store::{Asked, Rows, Store};
use super::sweep::{Forgotten, Sweeper, Swept};
use super::{Amendment, Divergence, LedgerError, LedgerOptions, SettleError, Settled, Settlement, UsageRecord};
use crate::vocab::limits::{DIVERGENCES_MAX, LEDGER_BATCH};
use crate::vocab::{BillingId, TenantName, Timestamp, TokenCount};
use crate::watch::Watch;

/// Where the answer to a settle goes. One whose asker is gone is settled all the same.
pub type Reply = oneshot::Sender<Result<Settled, SettleError>>;

/// What asks for a record.
pub(super) enum Ask {
    /// A settle.
    Settle(Settlement),
    /// A correction.
    Correct(Amendment),
}

/// What waits for the writer.
pub(super) enum Job {
    /// A record is asked for.
    Record(Box<Ask>, Reply),
    /// Records that are old enough at this moment may go.
    Sweep(Timestamp, Swept),
    /// A write of somebody else has failed.
    Look,
}

/// The only one who writes.
pub(super) struct Writer {
    store: Arc<Store>,
    next_sequence: u64,
    healer: Healer,
    refusals: Arc<Refusals>,
    bound: Bound,
    sweeper: Sweeper,
    /// Refused claims that are kept.
    divergences: u64,
    /// What all records come to.
    counters: Usage,
}

/// Records and sums that are written together.
#[derive(Default)]
struct Batch {
    records: Vec<(UsageRecord, Option<Asked>)>,
    identities: HashMap<(TenantName, BillingId), usize>,
    standings: BTreeMap<(TenantName, BillingId), Standing>,
    sum: Usage,
    rollups: BTreeMap<RollupKey, Usage>,
    deliveries: HashMap<DeliveryKey, Delivery>,
    divergences: BTreeMap<(TenantName, BillingId), Divergence>,
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        options: &LedgerOptions,
        refusals: Arc<Refusals>,
        watch: &Watch,
    ) -> Result<Self, LedgerError> {
        let bound = Bound::new(&store, options.bytes_max.get())?;
        let sweeper = Sweeper::new(options.retention, store.forgotten()?, watch);
        let healer = Healer::default();
        let counters = Usage::default();
        let mut writer = Self { counters, store, next_sequence: 0, healer, refusals, bound, sweeper, divergences: 0 };
        writer.read_back()?;
        Ok(writer)
    }

    /// All that is known here of what is on disk: after a failed write nothing else is.
    fn read_back(&mut self) -> Result<(), LedgerError> {
        self.next_sequence = self.store.last_sequence()? + 1;
        self.divergences = 0;
        for divergence in self.store.hold()?.view().divergences() {
            divergence?;
            self.divergences += 1;
        }
        self.counters = match self.store.counters()? {
            Some(counters) => counters,
            // A new ledger, or one of an older version, which has sums to go on from.
            None => begin_counters(&self.store)?,
        };
        self.bound.measure(&self.store)
    }

    /// Bytes that the ledger takes.
    pub(super) fn taken(&self) -> Taken {
        self.bound.taken()
    }

    /// Up to when deliveries may have been billed by records that are gone.
    pub(super) fn forgotten(&self) -> Forgotten {
        self.sweeper.forgotten()
    }

    /// Commits what comes until nobody can send any more. While a batch is synced, the next one gathers.
    pub(super) fn run(mut self, inbox: &Receiver<Job>) {
        while let Some(jobs) = self.gather(inbox) {
            self.commit(jobs);
            self.sweep();
            self.heal();
        }
    }

    /// Opens the database again after a failed write, whoever's it was, when it is time to.
    fn heal(&mut self) {
        if !self.healer.is_due(&self.store, &self.refusals) {
            return;
        }
        let healed = self.store.reopen().and_then(|()| self.read_back());
        self.healer.tried(&self.store, healed, &self.refusals);
    }

    /// What waits: at least one job, but during a sweep, which goes on meanwhile, and in trouble. Nothing at the end.
    fn gather(&mut self, inbox: &Receiver<Job>) -> Option<Vec<(Ask, Reply)>> {
        let mut jobs = Vec::new();
        if !self.sweeper.is_under_way() {
            let job = match self.healer.wait() {
                None => Some(inbox.recv().ok()?),
                Some(patience) => match inbox.recv_timeout(patience) {
                    Err(RecvTimeoutError::Disconnected) => return None,
                    job => job.ok(),
                },
            };
            job.into_iter().for_each(|job| self.take(job, &mut jobs));
        }
        while jobs.len() < LEDGER_BATCH {
            match inbox.try_recv() {
                Ok(job) => self.take(job, &mut jobs),
                Err(TryRecvError::Disconnected) if jobs.is_empty() => return None,
                Err(_) => break,
            }
        }
        Some(jobs)
    }

    fn take(&mut self, job: Job, jobs: &mut Vec<(Ask, Reply)>) {
        match job {
            Job::Record(ask, reply) => jobs.push((*ask, reply)),
            Job::Sweep(now, done) => self.sweeper.begin(now, done),
            Job::Look => {}
        }
    }

    /// Decides all jobs, writes what is new, and answers.
    fn commit(&mut self, jobs: Vec<(Ask, Reply)>) {
        if self.bound.is_reached() && !jobs.is_empty() {
            // Room may have been made since.
            self.measure();
        }
        let mut batch = Batch::default();
        let mut decide = |ask| match ask {
            Ask::Settle(settlement) => self.settle(&mut batch, settlement),
            Ask::Correct(amendment) => self.correct(&mut batch, amendment),
        };
        let answers: Vec<_> = jobs.into_iter().map(|(ask, reply)| (reply, decide(ask))).collect();
        match self.write(&batch) {
            Ok(bytes) if bytes > 0 => {
                let noted = self.bound.wrote(&self.store, bytes);
                noted.unwrap_or_else(|error| tracing::warn!(%error, "the ledger's size is not known"));
            }
            Ok(_) => {}
            // The database is in trouble now, and has said so: its rows may or may not be on disk.
            Err(_) => {}
        }
        for (reply, answer) in answers {
            // An answer may rest on a record of this very batch: none is given when the batch failed.
            let answer = self.usable().and(answer);
            if let Err(error) = &answer {
                self.refusals.count(error);
            }
            // A closed channel is an asker that went away; it will settle again, and get the same record.
            drop(reply.send(answer));
        }
    }

    fn measure(&mut self) {
        self.bound
            .measure(&self.store)
            .unwrap_or_else(|error| tracing::warn!(%error, "the ledger's size is not known"));
    }

    fn sweep(&mut self) {
        if self.store.trouble().is_some() {
            self.sweeper.give_up();
        }
        match self.sweeper.step(&self.store, self.bound.is_reached()) {
            Ok(true) => self.measure(),
            Ok(false) => {}
            // A step that failed is written whole or not at all; the sweep is given up.
            Err(error) => tracing::error!(%error, "usage records that may go were not deleted"),
        }
    }

    fn usable(&self) -> Result<(), SettleError> {
        self.store.trouble().map_or(Ok(()), |why| Err(SettleError::Unavailable(why)))
    }

    /// The identity is looked for before anything is checked: by the time that a settle is repeated, the daemon may
    /// have forgotten what it delivered.
    fn settle(&mut self, batch: &mut Batch, settlement: Settlement) -> Result<Settled, SettleError> {
        self.usable()?;
        if let Some((first, _)) = self.find(batch, &settlement.tenant, &settlement.billing_id)? {
            return first.repeated(&settlement);
        }
        if let Some(flaw) = settlement.flaw {
            return Err(flaw.into());
        }
        self.bound.check()?;
        let (key, refused) = (DeliveryKey::settled(&settlement), Divergence::refused(&settlement));
        // Where nothing was delivered and nothing is claimed there is nothing to look for.
        let is_asked = settlement.cached_tokens.max(settlement.delivered.total()) > TokenCount::ZERO;
        let known = key.filter(|_| is_asked).map(|key| self.delivery(batch, &key)).transpose()?.flatten();
        let forgotten = self.sweeper.forgotten().get();
        let (record, delivery) =
            Delivery::settle(known, settlement, self.next_sequence, forgotten).or_else(|error| {
                let refused = error.claim().map(|claim| refused.of_claim(claim));
                refused.map_or(Ok(()), |refused| self.diverge(batch, refused))?;
                Err(error)
            })?;
        let settled = self.add(batch, record, None)?;
        batch.deliveries.extend(key.zip(delivery));
        Ok(settled)
    }

    /// As a settle, with one more thing to look up: what the request comes to by now.
    fn correct(&mut self, batch: &mut Batch, amendment: Amendment) -> Result<Settled, SettleError> {
        self.usable()?;
        let asked = amendment.asked();
        if let Some((first, before)) = self.find(batch, &amendment.tenant, &amendment.billing_id)? {
            return match before {
                Some(before) if before == asked => Ok(Settled { record: first, repeated: true }),
                Some(_) => Err(SettleError::Conflict { field: "content", first: Box::new(first) }),
                None => Err(SettleError::NamesSettle(Box::new(first))),
            };
        }
        self.bound.check()?;
        let corrected = (amendment.tenant.clone(), amendment.corrects.clone());
        let Some((first, _)) = self.find(batch, &corrected.0, &corrected.1)? else {
            return Err(SettleError::NothingToCorrect(corrected.1));
        };
        let mut standing = match batch.standings.get(&corrected) {
            Some(standing) => standing.clone(),
            None => match self.store.standing(&corrected.0, &corrected.1).map_err(unavailable)? {
                Some(standing) => standing,
                None => Standing::of(&first),
            },
        };
        let key = DeliveryKey::recorded(&first);
        let known = key.map(|key| self.delivery(batch, &key)).transpose()?.flatten();
        let record = amendment.record(&first, known.as_ref(), &mut standing, self.next_sequence)?;
        let delivery = Delivery::correct(known, &first, count(standing.counts.hit()), self.next_sequence)?;
        let settled = self.add(batch, record, Some(asked))?;
        batch.standings.insert(corrected, standing);
        batch.deliveries.extend(key.zip(delivery));
        Ok(settled)
    }

    fn delivery(&self, batch: &Batch, key: &DeliveryKey) -> Result<Option<Delivery>, SettleError> {
        match batch.deliveries.get(key) {
            Some(delivery) => Ok(Some(delivery.clone())),
            None => self.store.delivery(key).map_err(unavailable),
        }
    }

    fn find(
        &self,
        batch: &Batch,
        tenant: &TenantName,
        billing_id: &BillingId,
    ) -> Result<Option<(UsageRecord, Option<Asked>)>, SettleError> {
        match batch.find(tenant, billing_id) {
            Some(found) => Ok(Some(found.clone())),
            None => self.store.find(tenant, billing_id).map_err(unavailable),
        }
    }

    fn add(&mut self, batch: &mut Batch, record: UsageRecord, asked: Option<Asked>) -> Result<Settled, SettleError> {
        batch.add(&self.store, record.clone(), asked).map_err(unavailable)?;
        self.next_sequence += 1;
        Ok(Settled { record, repeated: false })
    }

    /// Keeps a refused claim, one of each identity: the last.
    fn diverge(&mut self, batch: &mut Batch, divergence: Divergence) -> Result<(), SettleError> {
        let identity = (divergence.tenant.clone(), divergence.billing_id.clone());
        let is_known = batch.divergences.contains_key(&identity)
            || self.store.has_divergence(&identity.0, &identity.1).map_err(unavailable)?;
        if !is_known && self.divergences >= DIVERGENCES_MAX {
            tracing::warn!(tenant = %identity.0, "more refused claims than the ledger keeps");
            return Ok(());
        }
        self.divergences += u64::from(!is_known);
        batch.divergences.insert(identity, divergence);
        Ok(())
    }

    /// Bytes that were written.
    fn write(&mut self, batch: &Batch) -> Result<u64, LedgerError> {
        if batch.records.is_empty() && batch.divergences.is_empty() {
            return Ok(0);
        }
        let mut rows = Rows::default();
        batch.records.iter().for_each(|(record, asked)| rows.record(record, *asked));
        let mut counters = self.counters;
        counters.add(&batch.sum);
        rows.counters(&counters);
        batch.standings.iter().for_each(|((tenant, corrects), standing)| rows.standing(tenant, corrects, standing));
        batch.rollups.iter().for_each(|(key, usage)| rows.rollup(key, usage));
        batch.deliveries.iter().for_each(|(key, delivery)| rows.delivery(key, delivery));
        batch.divergences.values().for_each(|divergence| rows.divergence(divergence));
        let bytes = rows.bytes();
        self.store.write(rows)?;
        self.counters = counters;
        Ok(bytes)
    }
}

impl Batch {
    fn find(&self, tenant: &TenantName, billing_id: &BillingId) -> Option<&(UsageRecord, Option<Asked>)> {
        self.identities.get(&(tenant.clone(), billing_id.clone())).and_then(|at| self.records.get(*at))
    }

    /// Either all of the record is in the batch, or nothing of it.
    fn add(&mut self, store: &Store, record: UsageRecord, asked: Option<Asked>) -> Result<(), LedgerError> {
        let key = RollupKey::of(&record);
        let mut usage = match self.rollups.get(&key) {
            Some(usage) => *usage,
            None => store.rollup(&key)?,
        };
        usage.add(&Usage::from(&record));
        self.sum.add(&Usage::from(&record));
        self.rollups.insert(key, usage);
        self.identities.insert((record.tenant.clone(), record.billing_id.clone()), self.records.len());
        self.records.push((record, asked));
        Ok(())
    }
}

/// Counts what the sums come to, and writes it: from here on it is there for whoever asks.
fn begin_counters(store: &Store) -> Result<Usage, LedgerError> {
    let mut counters = Usage::default();
    for row in store.hold()?.view().rollups(&[]) {
        counters.add(&row?.1);
    }
    let mut rows = Rows::default();
    rows.counters(&counters);
    store.write(rows)?;
    Ok(counters)
}

#[expect(clippy::needless_pass_by_value, reason = "it is an argument of map_err")]
fn unavailable(error: LedgerError) -> SettleError {
    tracing::error!(%error, "a settle could not read the ledger");
    SettleError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::faults::Write;
    use super::super::sample::settlement;
    use super::*;

    type Answer = Result<Settled, SettleError>;

    /// Commits the settles in one batch.
    fn commit(writer: &mut Writer, settlements: Vec<Settlement>) -> Vec<Answer> {
        let (jobs, answers): (Vec<_>, Vec<_>) = settlements
            .into_iter()
            .map(|settlement| {
                let (reply, answer) = oneshot::channel();
                ((Ask::Settle(settlement), reply), answer)
            })
            .unzip();
        writer.commit(jobs);
        answers.into_iter().map(|mut answer| answer.try_recv().unwrap()).collect()
    }

    fn writer(path: &std::path::Path) -> Writer {
        let store = Arc::new(Store::open(path).unwrap());
        Writer::new(store, &LedgerOptions::default(), Arc::default(), &Watch::default()).unwrap()
    }

    #[test]
    fn repeats_and_conflicts_within_one_batch_meet_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let other = Settlement { output_tokens: TokenCount(51), ..settlement("acme", "b-1") };
        let same = || settlement("acme", "b-1");
        let answers = commit(&mut writer, vec![same(), same(), other, settlement("bolt", "b-1")]);
        let first = answers[0].clone().unwrap();
        assert!(!first.repeated);
        assert_eq!(answers[1], Ok(Settled { repeated: true, ..first.clone() }));
        let conflict = SettleError::Conflict { field: "output_tokens", first: Box::new(first.record) };
        assert_eq!(answers[2], Err(conflict));
        assert_eq!(answers[3].clone().unwrap().record.sequence, 2);
        assert_eq!(writer.store.last_sequence(), Ok(2));
    }

    #[test]
    fn a_refused_settle_leaves_no_gap_and_may_come_again_corrected() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let bad = Settlement { cached_tokens: TokenCount(601), ..settlement("acme", "b-1") };
        let answers = commit(&mut writer, vec![bad, settlement("acme", "b-1")]);
        assert!(matches!(answers[0], Err(SettleError::ClaimsMore { .. })));
        assert_eq!(answers[1].clone().unwrap().record.sequence, 1);
    }

    // Its rows may or may not be on disk: nobody may hear of a record that rests on them, and no sequence is used twice.
    #[test]
    fn after_a_failed_write_nothing_is_acknowledged_until_it_is_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let mut broken = writer(folder.path());
        commit(&mut broken, vec![settlement("acme", "b-1")]);
        broken.store.faults().writes(Write::Lost);
        for answer in commit(&mut broken, vec![settlement("acme", "b-2"), settlement("acme", "b-2")]) {
            assert!(matches!(answer, Err(SettleError::Unavailable(_))), "{answer:?}");
        }
        broken.store.faults().writes(Write::Works);
        for answer in commit(&mut broken, vec![settlement("acme", "b-1"), settlement("acme", "b-3")]) {
            assert!(matches!(answer, Err(SettleError::Unavailable(_))), "{answer:?}");
        }
        drop(broken);
        let mut reopened = writer(folder.path());
        let answers = commit(&mut reopened, vec![settlement("acme", "b-1"), settlement("acme", "b-2")]);
        assert!(answers[0].clone().unwrap().repeated);
        assert_eq!(answers[1].clone().unwrap().record.sequence, 2, "nothing was written after the failure");
    }

    #[test]
    fn one_batch_is_one_synced_write() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path());
        let before = writer.store.synced_writes();
        let many = (0..LEDGER_BATCH).map(|at| settlement("acme", &format!("b-{at}"))).collect();
        assert!(commit(&mut writer, many).iter().all(Result::is_ok));
        assert_eq!(writer.store.synced_writes(), before + 1);
        assert!(commit(&mut writer, vec![settlement("acme", "b-0")])[0].clone().unwrap().repeated);
        assert_eq!(writer.store.synced_writes(), before + 1, "a repeat writes nothing");
    }
}
