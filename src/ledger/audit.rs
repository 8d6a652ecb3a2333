//! Does the ledger agree with itself? Every record has its identity, no identity has another record, sequences have no
//! gap, and the sums of the records are the rollups.

use std::collections::BTreeMap;

use super::rollup::{RollupKey, Usage};
use super::store::{IDENTITY, View};
use super::{Divergences, LedgerError};
use crate::vocab::limits::AUDIT_DIFFERENCES_MAX;

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

    fn difference(&mut self, words: impl FnOnce() -> String) {
        self.differences += 1;
        if self.examples.len() < AUDIT_DIFFERENCES_MAX {
            self.examples.push(words());
        }
    }

    /// Reads everything at one moment of the database, beside settles that go on.
    pub(super) fn of(view: &View<'_>) -> Result<Self, LedgerError> {
        let mut audit = Self::default();
        let sums = audit.read_deleted(view)?;
        let sums = audit.read_records(view, sums)?;
        audit.read_rollups(view, sums)?;
        for identity in view.rows(IDENTITY, &[], &[]) {
            identity?;
            audit.identities += 1;
        }
        let kept = audit.total.records - audit.deleted;
        if audit.identities != kept {
            let identities = audit.identities;
            audit.difference(|| format!("{identities} identities for {kept} records"));
        }
        for divergence in view.divergences() {
            audit.divergences.add_refused(divergence?);
        }
        Ok(audit)
    }

    /// What is left of deleted records: their part of the sums.
    fn read_deleted(&mut self, view: &View<'_>) -> Result<BTreeMap<RollupKey, Usage>, LedgerError> {
        let mut sums = BTreeMap::new();
        for deleted in view.deleted() {
            let (key, usage) = deleted?;
            self.total.add(&usage);
            sums.insert(key, usage);
        }
        self.deleted = self.total.records;
        Ok(sums)
    }

    fn read_records(
        &mut self,
        view: &View<'_>,
        mut sums: BTreeMap<RollupKey, Usage>,
    ) -> Result<BTreeMap<RollupKey, Usage>, LedgerError> {
        // Sequences have no gap, so that the first record says how many were deleted before it.
        let mut expected = self.deleted + 1;
        for record in view.records(0) {
            let record = record?;
            let usage = Usage::from(&record);
            let (sequence, named) = (record.sequence, view.identity(&record)?);
            if sequence != expected {
                self.difference(|| format!("after record {} comes record {sequence}", expected - 1));
            }
            if named != Some(sequence) {
                self.difference(|| format!("the identity of record {sequence} names {named:?}"));
            }
            if usage.hit_tokens() + usage.attested_tokens + usage.miss_tokens != usage.prompt_tokens {
                self.difference(|| format!("the parts of record {sequence} do not add up to its prompt"));
            }
            if record.hit.ram > record.delivered.ram || record.hit.nvme > record.delivered.nvme {
                self.difference(|| format!("record {sequence} bills more than was delivered"));
            }
            expected = sequence + 1;
            self.total.add(&usage);
            self.divergences.add_record(&record);
            sums.entry(RollupKey::of(&record)).or_default().add(&usage);
        }
        Ok(sums)
    }

    fn read_rollups(&mut self, view: &View<'_>, mut sums: BTreeMap<RollupKey, Usage>) -> Result<(), LedgerError> {
        for rollup in view.rollups(&[]) {
            let (key, usage) = rollup?;
            self.rollups += 1;
            let sum = sums.remove(&key).unwrap_or_default();
            if sum != usage {
                self.difference(|| format!("rollup {key:?} says {usage:?}, its records say {sum:?}"));
            }
        }
        for (key, sum) in sums {
            self.difference(|| format!("there is no rollup {key:?} for {sum:?}"));
        }
        Ok(())
    }
}
