//! The ledger of a stopped folder, to read records and storage from.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::OfflineError;
use super::audit::{self, AuditReport};
use crate::ledger::{Exports, GatewayError, Ledger, Reconciliation, StorageRow, Usage, UsageRecord};
use crate::tiers::Folder;

/// The ledger, locked as long as it is looked at.
pub struct StoppedLedger {
    pub(super) ledger: Ledger,
    /// Holds the folder's lock.
    _folder: Folder,
}

impl StoppedLedger {
    /// Opens the ledger of folder `dir`.
    ///
    /// # Errors
    /// When the folder is in use, is no data folder, has no ledger, or its ledger can't be read.
    pub fn open(dir: &Path) -> Result<Self, OfflineError> {
        let folder = Folder::inspect(dir)?;
        let path = folder.ledger();
        if !path.exists() {
            return Err(OfflineError::NoLedger(path));
        }
        Ok(Self { ledger: Ledger::open(&path)?, _folder: folder })
    }

    /// Whether it agrees with itself. Reads all of it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn audit(&self) -> Result<AuditReport, OfflineError> {
        audit::of(&self.ledger)
    }

    /// Begins a comparison with what was exported from it.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn compare_exports(&self) -> Result<Exports<'_>, OfflineError> {
        Ok(self.ledger.compare_exports()?)
    }

    /// Begins a comparison with a gateway's log, a file of JSON lines: whoever begins it adds the records.
    ///
    /// # Errors
    /// When the log can't be read or has a line that is no request.
    pub fn compare_log(&self, log: &Path) -> Result<Reconciliation, OfflineError> {
        let failed = |error: GatewayError| OfflineError::GatewayLog { path: log.into(), why: error.to_string() };
        let file = File::open(log).map_err(|error| failed(error.into()))?;
        Reconciliation::new(BufReader::new(file)).map_err(failed)
    }

    /// Names it among others.
    #[must_use]
    pub fn id(&self) -> String {
        self.ledger.id()
    }

    /// The records that it still has, in order, by pages.
    pub fn records(&self) -> impl Iterator<Item = Result<UsageRecord, OfflineError>> {
        let page = |after| self.ledger.records_after(after);
        let first = self.ledger.deleted_through().and_then(page);
        // After the last page comes an empty one, and nothing after one that can't be read.
        let pages = std::iter::successors(Some(first), move |before| {
            before.as_ref().ok()?.last().map(|record| page(record.sequence))
        });
        pages.flat_map(|page| match page {
            Ok(page) => page.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error.into())],
        })
    }

    /// By hour since 1970, what came from records that it no longer has: they were acknowledged and old.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn deleted(&self) -> Result<Vec<(u32, Usage)>, OfflineError> {
        Ok(self.ledger.deleted()?)
    }

    /// All storage that was metered.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn storage(&self) -> Result<Vec<StorageRow>, OfflineError> {
        Ok(self.ledger.storage(0..u32::MAX)?)
    }
}
