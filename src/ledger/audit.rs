//! Does the ledger agree with itself? Every record has its identity, no identity has another record, sequences have no
//! gap, the sums of the records are the rollups, what corrected requests come to is what their records add up to, no delivery
//! is on two bills (`joined.rs`), and the cursors and the meter of storage are where they can be.

use std::collections::BTreeMap;

use super::correction::Standing;
use super::counts::signed;
use super::joined::Joined;
use super::rollup::{RollupKey, Usage};
use super::store::IDENTITY;
use super::view::View;
use super::{Divergences, LedgerError, UsageRecord, storage};
use crate::vocab::limits::AUDIT_DIFFERENCES_MAX;
use crate::vocab::{BillingId, TenantName};

const HOUR_MS: u64 = 3_600_000;

/// Sums of records by what a rollup's row sums over.
type Sums = BTreeMap<RollupKey, Usage>;
/// What all corrections of a request add, by what they correct.
type Corrected = BTreeMap<(TenantName, BillingId), Standing>;

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// The sums of all records, with those that were deleted.
    pub total: Usage,
    /// Records that were deleted after they had been acknowledged.
    pub deleted: u64,
    /// Where kvtier and engines disagree: no difference of the ledger with itself.
    pub divergences: Divergences,
    /// Identities.
    pub identities: u64,
    /// Rollups.
    pub rollups: u64,
    /// Records joined to what was delivered to their requests.
    pub joined: Joined,
    /// Rows of metered storage: an account, namespace, class and hour each.
    pub storage_hours: u64,
    /// How many disagreements.
    pub differences: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

impl Audit {
    /// Whether everything agrees.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.differences == 0
    }

    pub(super) fn difference(&mut self, words: impl FnOnce() -> String) {
        self.differences += 1;
        if self.examples.len() < AUDIT_DIFFERENCES_MAX {
            self.examples.push(words());
        }
    }

    /// Reads everything at one moment of the database, beside settles that go on.
    pub(super) fn of(view: &View<'_>) -> Result<Self, LedgerError> {
        let mut audit = Self::default();
        let sums = audit.read_deleted(view)?;
        let (sums, corrected) = audit.read_records(view, sums)?;
        audit.read_rollups(view, sums)?;
        audit.read_standings(view, corrected)?;
        audit.read_deliveries(view)?;
        for identity in view.rows(IDENTITY, &[], &[]) {
            identity?;
            audit.identities += 1;
        }
        let kept = audit.total.sequences() - audit.deleted;
        if audit.identities != kept {
            let identities = audit.identities;
            audit.difference(|| format!("{identities} identities for {kept} records"));
        }
        for divergence in view.divergences() {
            audit.divergences.add_refused(divergence?);
        }
        audit.read_cursors(view)?;
        audit.read_storage(view)?;
        Ok(audit)
    }

    /// What was counted is what the records come to; what exporters have is there, and nothing is gone that they have not.
    fn read_cursors(&mut self, view: &View<'_>) -> Result<(), LedgerError> {
        let (counters, total) = (view.counters()?, self.total);
        if counters != Some(total) {
            self.difference(|| format!("the counters say {counters:?}, the records {total:?}"));
        }
        let (acknowledged, deleted, last) = (view.acknowledged()?, self.deleted, self.total.sequences());
        if acknowledged > last {
            self.difference(|| format!("records up to {acknowledged} are acknowledged, the last is {last}"));
        }
        if deleted > acknowledged {
            self.difference(|| format!("{deleted} records were deleted, and {acknowledged} acknowledged"));
        }
        Ok(())
    }

    /// No hour of storage was counted before it had come.
    fn read_storage(&mut self, view: &View<'_>) -> Result<(), LedgerError> {
        let until = storage::counted_until(view)?;
        for row in storage::rows(view) {
            let row = row?;
            self.storage_hours += 1;
            if u64::from(row.hour) * HOUR_MS >= until {
                self.difference(|| format!("storage is counted up to {until} ms, and there is {row:?}"));
            }
        }
        Ok(())
    }

    /// What is left of deleted records: their part of the sums.
    fn read_deleted(&mut self, view: &View<'_>) -> Result<Sums, LedgerError> {
        let mut sums = BTreeMap::new();
        for deleted in view.deleted() {
            let (key, usage) = deleted?;
            self.total.add(&usage);
            sums.insert(key, usage);
        }
        self.deleted = self.total.sequences();
        Ok(sums)
    }

    /// Adds all records to the sums, and gathers what corrections add, by what they correct.
    fn read_records(&mut self, view: &View<'_>, mut sums: Sums) -> Result<(Sums, Corrected), LedgerError> {
        // Sequences have no gap, so that the first record says how many were deleted before it.
        let (mut expected, mut corrected) = (self.deleted + 1, Corrected::new());
        for record in view.records(0) {
            let record = record?;
            let (sequence, named) = (record.sequence, view.identity(&record)?);
            self.join(view, &record)?;
            if sequence != expected {
                self.difference(|| format!("after record {} comes record {sequence}", expected - 1));
            }
            if named != Some(sequence) {
                self.difference(|| format!("the identity of record {sequence} names {named:?}"));
            }
            if !record.counts.adds_up() {
                self.difference(|| format!("the parts of record {sequence} do not add up to its prompt"));
            }
            match &record.correction {
                None => self.check_settle(&record),
                Some(correction) => {
                    let of = (record.tenant.clone(), correction.corrects.clone());
                    corrected.entry(of).or_default().add(&record);
                }
            }
            expected = sequence + 1;
            let usage = Usage::from(&record);
            self.total.add(&usage);
            sums.entry(RollupKey::of(&record)).or_default().add(&usage);
        }
        Ok((sums, corrected))
    }

    fn check_settle(&mut self, record: &UsageRecord) {
        let (sequence, counts) = (record.sequence, &record.counts);
        if !counts.is_of_usage() {
            self.difference(|| format!("record {sequence} is no correction, and counts less than nothing"));
        }
        if counts.hit_ram > signed(record.delivered.ram) || counts.hit_nvme > signed(record.delivered.nvme) {
            self.difference(|| format!("record {sequence} bills more than was delivered"));
        }
        self.divergences.add_record(record);
    }

    fn read_rollups(&mut self, view: &View<'_>, mut sums: Sums) -> Result<(), LedgerError> {
        for rollup in view.rollups(&[]) {
            let (key, usage) = rollup?;
            self.rollups += 1;
            let sum = sums.remove(&key).unwrap_or_default();
            if sum != usage {
                self.difference(|| format!("rollup {key:?} says {usage:?}, its records say {sum:?}"));
            }
            if !sum.counts.is_of_usage() {
                self.difference(|| format!("more was taken back from rollup {key:?} than was in it: {sum:?}"));
            }
        }
        for (key, sum) in sums {
            self.difference(|| format!("there is no rollup {key:?} for {sum:?}"));
        }
        Ok(())
    }

    /// What each corrected request comes to is what its record and its corrections add up to, and not below nothing.
    fn read_standings(&mut self, view: &View<'_>, mut corrected: Corrected) -> Result<(), LedgerError> {
        for standing in view.standings() {
            let (tenant, corrects, standing) = standing?;
            let added = corrected.remove(&(tenant.clone(), corrects.clone()));
            let sum = match view.find(&tenant, &corrects)? {
                Some(record) => added.map(|added| added.on(&record)),
                None => None,
            };
            if sum.as_ref() != Some(&standing) {
                self.difference(|| format!("{tenant} {corrects} stands at {standing:?}, its records say {sum:?}"));
            }
            if !standing.counts.is_of_usage() {
                self.difference(|| format!("more was taken back from {tenant} {corrects} than was in it"));
            }
        }
        for ((tenant, corrects), _) in corrected {
            // Once its record is deleted nobody asks any more how it stands.
            if view.find(&tenant, &corrects)?.is_some() {
                self.difference(|| format!("{tenant} {corrects} was corrected, and nothing says how it stands"));
            }
        }
        Ok(())
    }
}
