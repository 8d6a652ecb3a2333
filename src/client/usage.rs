//! Closing the bill of a request, and reading bills.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Client, ClientError};
pub use crate::proto::CorrectUsageRequest as Correction;
pub use crate::proto::{
    AcknowledgeUsageReply, StorageRow, SummarizeStorageReply as StorageSummary, SummarizeUsageReply as UsageSummary,
    UsageRecord, UsageRow, WrittenByClass,
};
use crate::proto::{
    AcknowledgeUsageRequest, ExportUsageRequest, SettleRequest, SummarizeStorageRequest, SummarizeUsageRequest,
};
use crate::vocab::limits::CALL_MAX;
use crate::vocab::{BillingId, Fingerprint, InstanceId, RequestId, TenantName, UsageDetail};

/// A request's final usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Who pays.
    pub tenant: TenantName,
    /// The request as the bill names it.
    pub billing_id: BillingId,
    /// Which try of the request this is the usage of, by the gateway's own count; the same whenever the settle is repeated.
    pub attempt: u32,
    /// The engine instance that served it.
    pub instance: InstanceId,
    /// The request as that engine named it.
    pub request_id: RequestId,
    /// Which layout.
    pub fingerprint: Fingerprint,
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens that the engine took from kvtier: at most what was delivered; 0 where another billing id has the delivery.
    pub cached_tokens: u64,
    /// Tokens that the engine skipped from its own GPU cache.
    pub attested_tokens: u64,
    /// Tokens stored.
    pub written_tokens: u64,
    /// Tokens generated.
    pub output_tokens: u64,
    /// Receipts of fetches whose deliveries the daemon may have forgotten.
    pub receipts: Vec<Bytes>,
    /// Words for the bill; at most 16.
    pub labels: BTreeMap<String, String>,
    /// For whom, how it ended, and where.
    pub detail: UsageDetail,
}

/// A settled request.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// What was recorded.
    pub record: UsageRecord,
    /// Whether it had been settled before.
    pub repeated: bool,
}

/// Narrows a summary of usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Only this tenant.
    pub tenant: Option<TenantName>,
    /// Only from this hour on, in hours since 1970.
    pub from_hour: u32,
    /// Only before this hour.
    pub until_hour: Option<u32>,
    /// By what rows are told apart: tenant, namespace, hour, user, api_key. Empty: tenant, namespace and hour.
    pub group_by: Vec<String>,
}

impl Client {
    /// Settles a request: durable when it returns, and the same call again changes nothing. After a lost answer make the very same
    /// call again, never one with a fresh billing id.
    ///
    /// # Errors
    /// When it claims more than was delivered or what another billing id has, contradicts an earlier settle, or the ledger
    /// can't take it.
    pub async fn settle(&self, settle: &Settle) -> Result<Settled, ClientError> {
        self.settle_granted(settle, "").await
    }

    /// The same for a caller that has no right of its own to act for the tenant: `grant` is what the tenant's gateway has
    /// signed.
    ///
    /// # Errors
    /// As [`settle`](Self::settle), and when the grant is not valid or says otherwise.
    pub async fn settle_granted(&self, settle: &Settle, grant: &str) -> Result<Settled, ClientError> {
        let classes = settle.detail.written_by_class.iter();
        let written_by_class = classes.map(|(class, tokens)| (class.as_str().to_owned(), tokens.get()));
        let request = SettleRequest {
            tenant: settle.tenant.as_str().to_owned(),
            billing_id: settle.billing_id.as_str().to_owned(),
            attempt: settle.attempt,
            instance: settle.instance.as_str().to_owned(),
            request_id: settle.request_id.as_str().to_owned(),
            fingerprint: Bytes::copy_from_slice(&settle.fingerprint.0),
            prompt_tokens: settle.prompt_tokens,
            cached_tokens: settle.cached_tokens,
            attested_tokens: settle.attested_tokens,
            written_tokens: settle.written_tokens,
            output_tokens: settle.output_tokens,
            receipts: settle.receipts.clone(),
            labels: settle.labels.clone().into_iter().collect(),
            grant: grant.to_owned(),
            user: settle.detail.user.as_ref().map_or_else(String::new, |user| user.as_str().to_owned()),
            api_key_id: settle.detail.api_key.as_ref().map_or_else(String::new, |key| key.as_str().to_owned()),
            finish_reason: settle.detail.finish.code().into(),
            role: settle.detail.role.code().into(),
            written_by_class: written_by_class.collect(),
            preempted_tokens: settle.detail.preempted_tokens.get(),
        };
        let reply = self.answer("Settle", self.usage_service().settle(request)).await?;
        let record = reply.record.ok_or_else(|| ClientError::protocol("a settled request without its record"))?;
        Ok(Settled { record, repeated: reply.repeated })
    }

    /// Corrects a settled request, or takes it back, by a record of its own: durable when it returns, and the same call again
    /// changes nothing.
    ///
    /// # Errors
    /// As [`settle`](Self::settle), and when nobody has settled what it corrects.
    pub async fn correct_usage(&self, correction: Correction) -> Result<Settled, ClientError> {
        let reply = self.answer("CorrectUsage", self.usage_service().correct_usage(correction)).await?;
        let record = reply.record.ok_or_else(|| ClientError::protocol("a correction without its record"))?;
        Ok(Settled { record, repeated: reply.repeated })
    }

    /// Settled usage, summed over what rows are not told apart by.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn summarize_usage(&self, filter: &UsageFilter) -> Result<UsageSummary, ClientError> {
        let request = SummarizeUsageRequest {
            tenant: filter.tenant.as_ref().map_or_else(String::new, |tenant| tenant.as_str().to_owned()),
            from_hour: filter.from_hour,
            until_hour: filter.until_hour.unwrap_or(0),
            group_by: filter.group_by.clone(),
        };
        self.answer("SummarizeUsage", self.usage_service().summarize_usage(request)).await
    }

    /// Storage held, by account, namespace, hour and class; `group_by` is not read.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn summarize_storage(&self, filter: &UsageFilter) -> Result<StorageSummary, ClientError> {
        let request = SummarizeStorageRequest {
            tenant: filter.tenant.as_ref().map_or_else(String::new, |tenant| tenant.as_str().to_owned()),
            from_hour: filter.from_hour,
            until_hour: filter.until_hour.unwrap_or(0),
        };
        self.answer("SummarizeStorage", self.usage_service().summarize_storage(request)).await
    }

    /// Records in the order in which they were settled, from the one after `after` on, or, where that is `None`, after the
    /// last that was acknowledged; the stream ends with the last of now.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub async fn export_usage(&self, after: Option<u64>) -> Result<UsageExport, ClientError> {
        let request = ExportUsageRequest { after: after.unwrap_or(0), unacknowledged: after.is_none() };
        let mut service = self.usage_service();
        let records = self.within("ExportUsage", CALL_MAX, async { service.export_usage(request).await }).await?;
        Ok(UsageExport { client: self.clone(), records: records.into_inner() })
    }

    /// Notes on the daemon's disk that an exporter has all records up to this one; the cursors as they are then.
    ///
    /// # Errors
    /// For a record that is not there, and when the ledger can't be written.
    pub async fn acknowledge_usage(&self, through: u64) -> Result<AcknowledgeUsageReply, ClientError> {
        let request = AcknowledgeUsageRequest { through };
        self.answer("AcknowledgeUsage", self.usage_service().acknowledge_usage(request)).await
    }
}

/// An export under way. Dropping it ends it.
#[derive(Debug)]
pub struct UsageExport {
    client: Client,
    records: tonic::Streaming<UsageRecord>,
}

impl UsageExport {
    /// The next record, or nothing after the last.
    ///
    /// # Errors
    /// When the connection breaks or the ledger can't be read: what came before stays good, and an export after its last
    /// sequence goes on.
    pub async fn next(&mut self) -> Result<Option<UsageRecord>, ClientError> {
        self.client.within("ExportUsage", CALL_MAX, self.records.message()).await
    }
}
