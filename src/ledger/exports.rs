//! A ledger beside what was exported from it: records that it still has must be the same there, and those that it has deleted must
//! come to what it remembers of them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::rollup::{RollupKey, Usage};
use super::store::Store;
use super::{LedgerError, UsageRecord};
use crate::vocab::limits::AUDIT_DIFFERENCES_MAX;

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Records that ledger and export both have, and which are the same.
    pub same: u64,
    /// Exported records that the ledger has deleted since.
    pub deleted: u64,
    /// Of these, such as the export should have and has not.
    pub missing: u64,
    /// Exported records that came again.
    pub repeated: u64,
    /// How many disagreements, the missing ones among them.
    pub differences: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// A comparison under way. Memory is a few dozen bytes an exported record.
pub struct Exports<'a> {
    store: &'a Store,
    deleted_through: u64,
    /// What was seen, by sequence, with a digest of its bytes.
    seen: HashMap<u64, [u8; 8]>,
    sums: BTreeMap<RollupKey, Usage>,
    report: ExportReport,
}

impl<'a> Exports<'a> {
    pub(super) fn new(store: &'a Store, deleted_through: u64) -> Self {
        Self { store, deleted_through, seen: HashMap::new(), sums: BTreeMap::new(), report: ExportReport::default() }
    }

    /// Takes in an exported record; whether it is one that the ledger has deleted, and comes for the first time.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn add(&mut self, record: &UsageRecord) -> Result<bool, LedgerError> {
        // An export does not name the engine's request.
        let record = &UsageRecord { request_id: None, ..record.clone() };
        let (sequence, mut digest) = (record.sequence, [0; 8]);
        digest.copy_from_slice(&blake3::hash(&record.encode()).as_bytes()[..8]);
        match self.seen.insert(sequence, digest) {
            Some(before) if before == digest => {
                self.report.repeated += 1;
                return Ok(false);
            }
            Some(_) => {
                self.difference(|| format!("record {sequence} was exported twice, and differs"));
                return Ok(false);
            }
            None => {}
        }
        if sequence <= self.deleted_through {
            self.report.deleted += 1;
            self.sums.entry(RollupKey::of(record)).or_default().add(&Usage::from(record));
            return Ok(true);
        }
        let kept = self.store.hold()?.view().records(sequence - 1).next().transpose()?;
        let kept = kept.map(|kept| UsageRecord { request_id: None, ..kept });
        if kept.as_ref() == Some(record) {
            self.report.same += 1;
        } else {
            let kept = kept.filter(|kept| kept.sequence == sequence);
            self.difference(|| match kept {
                Some(kept) => {
                    format!(
                        "record {sequence} ({} {}) was exported with something else in it",
                        kept.tenant, kept.billing_id
                    )
                }
                None => format!("record {sequence} was exported, and the ledger has none of it"),
            });
        }
        Ok(false)
    }

    /// What was found.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn finish(mut self) -> Result<ExportReport, LedgerError> {
        for row in self.store.hold()?.view().deleted() {
            let (key, deleted) = row?;
            let exported = self.sums.remove(&key).unwrap_or_default();
            if exported != deleted {
                self.report.missing += deleted.sequences().saturating_sub(exported.sequences());
                self.difference(|| format!("of {key:?} {deleted:?} was deleted, and {exported:?} was exported"));
            }
        }
        for (key, exported) in std::mem::take(&mut self.sums) {
            self.difference(|| format!("of {key:?} {exported:?} was exported, and nothing of it was deleted"));
        }
        Ok(self.report)
    }

    fn difference(&mut self, words: impl FnOnce() -> String) {
        self.report.differences += 1;
        if self.report.examples.len() < AUDIT_DIFFERENCES_MAX {
            self.report.examples.push(words());
        }
    }
}
