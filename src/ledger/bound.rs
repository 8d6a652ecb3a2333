//! How much room the ledger takes on its drive, against the most that it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::store::Store;
use super::{LedgerError, SettleError};
use crate::vocab::limits::{LEDGER_MEASURE_BYTES, LEDGER_WARN_PERCENT};

/// What the ledger takes, for others to look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken(Arc<AtomicU64>);

impl Taken {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a new settle may be recorded below this bound.
    pub(super) fn check(&self, bound: u64) -> Result<(), SettleError> {
        let bytes = self.get();
        if bytes >= bound { Err(SettleError::Full { bytes, bound }) } else { Ok(()) }
    }
}

/// The writer's account of it: measured now and then, and counted on in between.
pub(super) struct Bound {
    bytes_max: u64,
    taken: Taken,
    /// Bytes of rows since it was measured.
    since: u64,
    /// The last percentage that was warned of.
    warned: u64,
}

impl Bound {
    pub(super) fn new(store: &Store, bytes_max: u64) -> Result<Self, LedgerError> {
        let mut bound = Self { bytes_max, taken: Taken::default(), since: 0, warned: 0 };
        bound.measure(store)?;
        Ok(bound)
    }

    pub(super) fn taken(&self) -> Taken {
        self.taken.clone()
    }

    /// Rows of so many bytes were written.
    pub(super) fn wrote(&mut self, store: &Store, bytes: u64) -> Result<(), LedgerError> {
        self.since += bytes;
        self.taken.0.fetch_add(bytes, Ordering::Relaxed);
        if self.since >= LEDGER_MEASURE_BYTES { self.measure(store) } else { Ok(()) }
    }

    /// Looks at the files; where they fill the bound to a higher percentage than before, says so.
    pub(super) fn measure(&mut self, store: &Store) -> Result<(), LedgerError> {
        let bytes = store.bytes()?;
        self.taken.0.store(bytes, Ordering::Relaxed);
        self.since = 0;
        if let Some(percent) = self.warns_of(bytes) {
            let bytes_max = self.bytes_max;
            tracing::warn!(
                bytes,
                bytes_max,
                percent,
                "the ledger fills up: at its bound new settles are refused; export and acknowledge, or raise --ledger-max"
            );
        }
        Ok(())
    }

    /// Each percent from the first on that is warned of, once on the way up.
    fn warns_of(&mut self, bytes: u64) -> Option<u64> {
        let percent = bytes.saturating_mul(100) / self.bytes_max.max(1);
        let rises = percent >= LEDGER_WARN_PERCENT && percent > self.warned;
        self.warned = percent;
        rises.then_some(percent)
    }

    /// Whether a new settle may be recorded.
    pub(super) fn check(&self) -> Result<(), SettleError> {
        self.taken.check(self.bytes_max)
    }

    pub(super) fn is_reached(&self) -> bool {
        self.check().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_warns_from_eighty_percent_on_once_a_percent_and_again_after_it_had_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut bound = Bound::new(&store, 1_000).unwrap();
        bound.warned = 0;
        let warned = [0, 790, 799, 800, 801, 809, 810, 1_200, 500, 805].map(|bytes| bound.warns_of(bytes));
        let expected = [None, None, None, Some(80), None, None, Some(81), Some(120), None, Some(80)];
        assert_eq!(warned, expected);
    }

    #[test]
    fn what_is_written_counts_before_it_is_measured_and_files_count_after() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut bound = Bound::new(&store, 1 << 40).unwrap();
        let (taken, files) = (bound.taken(), store.bytes().unwrap());
        assert_eq!(taken.get(), files);
        bound.wrote(&store, 1_000).unwrap();
        assert_eq!(taken.get(), files + 1_000);
        std::fs::write(folder.path().join("more"), [0; 5_000]).unwrap();
        bound.wrote(&store, LEDGER_MEASURE_BYTES).unwrap();
        assert_eq!(taken.get(), files + 5_000);
    }
}
