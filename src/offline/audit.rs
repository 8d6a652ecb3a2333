//! Does the bill agree with itself? On a stopped folder's ledger.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{OfflineError, StoppedLedger};
use crate::ledger::{Divergence, Divergences, Diverging, Joined, Ledger};

/// What an audit found. Field names are a contract: add, never rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Settled requests.
    pub records: u64,
    /// Corrections of them: records of their own, in all sums.
    pub corrections: u64,
    /// Identities (tenant and billing id): one a record.
    pub identities: u64,
    /// Sums by tenant, namespace and hour.
    pub rollups: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: i64,
    /// Delivered and skipped.
    pub hit_tokens: i64,
    /// Skipped from engines' own GPU caches.
    pub attested_tokens: i64,
    /// Computed.
    pub miss_tokens: i64,
    /// Of the records, those that were deleted after they had been acknowledged: their sums are kept.
    pub deleted: u64,
    /// Exporters have all records up to this sequence.
    pub acknowledged: u64,
    /// Hours of metered storage, by account, namespace and class.
    pub storage_hours: u64,
    /// Records joined to what was delivered to their requests.
    pub deliveries: DeliveryReport,
    /// Where kvtier and engines disagree about what was skipped: no difference of the ledger with itself.
    pub divergences: DivergenceReport,
    /// How many disagreements.
    pub differences: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// Records joined to deliveries, by tenant, instance and request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryReport {
    /// Deliveries that records tell of, as far as these are kept.
    pub known: u64,
    /// Of these, such as a record bills hits of: one each.
    pub billed: u64,
    /// Tokens that were delivered.
    pub delivered_tokens: u64,
    /// Tokens that are billed as hits of them, with corrections: never more of any delivery than it had.
    pub billed_tokens: u64,
    /// Records with hits of versions that did not keep the engine's request: that they bill different deliveries can't be proven.
    pub unproven_records: u64,
    /// Tokens that those bill as hits.
    pub unproven_tokens: u64,
}

impl From<Joined> for DeliveryReport {
    fn from(joined: Joined) -> Self {
        Self {
            known: joined.deliveries,
            billed: joined.billed,
            delivered_tokens: joined.delivered_tokens,
            billed_tokens: joined.billed_tokens,
            unproven_records: joined.unproven,
            unproven_tokens: joined.unproven_tokens,
        }
    }
}

/// Requests about which kvtier and an engine disagree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DivergenceReport {
    /// Requests that claimed more than was delivered, or what another billing id has, and were refused.
    pub overclaimed_requests: u64,
    /// Tokens by which they did.
    pub overclaimed_tokens: u64,
    /// Requests to which more was delivered than they claimed; what they claimed is billed.
    pub unclaimed_requests: u64,
    /// Tokens by which it was.
    pub unclaimed_tokens: u64,
    /// The same by tenant.
    pub tenants: Vec<TenantDivergence>,
    /// The largest, at most 20.
    pub largest: Vec<LargeDivergence>,
}

/// Disagreements of one tenant's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantDivergence {
    /// Who.
    pub tenant: String,
    /// Refused requests.
    pub overclaimed_requests: u64,
    /// Tokens that they claimed too many.
    pub overclaimed_tokens: u64,
    /// Billed requests to which more was delivered.
    pub unclaimed_requests: u64,
    /// Tokens that they did not claim.
    pub unclaimed_tokens: u64,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LargeDivergence {
    /// Who would pay.
    pub tenant: String,
    /// The request as the bill names it.
    pub billing_id: String,
    /// When it was settled, or refused for the last time: milliseconds since 1970.
    pub at_ms: u64,
    /// Tokens that the engine says it skipped.
    pub claimed_tokens: u64,
    /// Tokens that kvtier delivered.
    pub delivered_tokens: u64,
}

impl From<Divergences> for DivergenceReport {
    fn from(found: Divergences) -> Self {
        let mut tenants: BTreeMap<String, TenantDivergence> = BTreeMap::new();
        let mut report = Self::default();
        for (tenant, Diverging { requests, tokens }) in found.overclaimed {
            let of = tenants.entry(tenant.to_string()).or_default();
            (of.overclaimed_requests, of.overclaimed_tokens) = (requests, tokens);
            report.overclaimed_requests += requests;
            report.overclaimed_tokens += tokens;
        }
        for (tenant, Diverging { requests, tokens }) in found.unclaimed {
            let of = tenants.entry(tenant.to_string()).or_default();
            (of.unclaimed_requests, of.unclaimed_tokens) = (requests, tokens);
            report.unclaimed_requests += requests;
            report.unclaimed_tokens += tokens;
        }
        report.tenants = tenants.into_iter().map(|(tenant, of)| TenantDivergence { tenant, ..of }).collect();
        let large = |one: Divergence| LargeDivergence {
            tenant: one.tenant.to_string(),
            billing_id: one.billing_id.to_string(),
            at_ms: one.at.0,
            claimed_tokens: one.claimed.get(),
            delivered_tokens: one.delivered.get(),
        };
        report.largest = found.largest.into_iter().map(large).collect();
        report
    }
}

/// Reads all of the ledger of folder `dir`.
///
/// # Errors
/// When the folder is in use, is no data folder, has no ledger, or its ledger can't be read.
pub fn audit(dir: &Path) -> Result<AuditReport, OfflineError> {
    of(&StoppedLedger::open(dir)?.ledger)
}

pub(super) fn of(ledger: &Ledger) -> Result<AuditReport, OfflineError> {
    let audit = ledger.audit()?;
    Ok(AuditReport {
        records: audit.total.records,
        identities: audit.identities,
        rollups: audit.rollups,
        corrections: audit.total.corrections,
        prompt_tokens: audit.total.counts.prompt,
        hit_tokens: audit.total.counts.hit(),
        attested_tokens: audit.total.counts.attested,
        miss_tokens: audit.total.counts.miss,
        deleted: audit.deleted,
        acknowledged: ledger.acknowledged(),
        storage_hours: audit.storage_hours,
        deliveries: audit.joined.into(),
        divergences: audit.divergences.into(),
        differences: audit.differences,
        examples: audit.examples,
    })
}
