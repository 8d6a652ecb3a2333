//! Does the bill agree with itself? On a stopped folder's ledger.

use std::path::Path;

use serde::Serialize;

use super::OfflineError;
use crate::ledger::Ledger;
use crate::tiers::Folder;

/// What an audit found. Field names are a contract: add, never rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Settled requests.
    pub records: u64,
    /// Identities (tenant and billing id): one a record.
    pub identities: u64,
    /// Sums by tenant, namespace and hour.
    pub rollups: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Delivered and skipped.
    pub hit_tokens: u64,
    /// Skipped from engines' own GPU caches.
    pub attested_tokens: u64,
    /// Computed.
    pub miss_tokens: u64,
    /// Exporters have all records up to this sequence.
    pub acknowledged: u64,
    /// How many disagreements.
    pub differences: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// Reads all of the ledger of folder `dir`.
///
/// # Errors
/// When the folder is in use, is no data folder, has no ledger, or its ledger can't be read.
pub fn audit(dir: &Path) -> Result<AuditReport, OfflineError> {
    let folder = Folder::inspect(dir)?;
    let path = folder.ledger();
    if !path.exists() {
        return Err(OfflineError::NoLedger(path));
    }
    let ledger = Ledger::open(&path)?;
    let audit = ledger.audit()?;
    Ok(AuditReport {
        records: audit.total.records,
        identities: audit.identities,
        rollups: audit.rollups,
        prompt_tokens: audit.total.prompt_tokens.get(),
        hit_tokens: audit.total.hit_tokens().get(),
        attested_tokens: audit.total.attested_tokens.get(),
        miss_tokens: audit.total.miss_tokens.get(),
        acknowledged: ledger.acknowledged(),
        differences: audit.differences,
        examples: audit.examples,
    })
}
