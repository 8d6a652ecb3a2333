//! `kvtier.v1.Usage`: the meter.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::access::Caller;
use super::accounts;
use super::spec::fingerprint;
use super::status::{invalid, status, word};
use super::{correction, export};
use crate::cache::Cache;
use crate::cache::settle::Settle;
use crate::ledger::{Acknowledged, Dimension, Grouping, Usage as Sum, UsageFilter, UsageRecord};
use crate::proto::{self, usage_server::Usage};
use crate::vocab::{
    ApiKeyId, BillingId, ClassName, FinishReason, InstanceId, NodeRole, RequestId, TenantName, TokenCount, UsageDetail,
    UserName, WordError,
};

/// The service.
#[derive(Clone)]
pub struct UsageService {
    cache: Arc<Cache>,
    closing: CancellationToken,
}

impl UsageService {
    /// Over this cache; exports end when `closing` is cancelled.
    #[must_use]
    pub fn new(cache: Arc<Cache>, closing: CancellationToken) -> Self {
        Self { cache, closing }
    }
}

#[tonic::async_trait]
impl Usage for UsageService {
    type ExportUsageStream = export::Replies;

    async fn settle(&self, request: Request<proto::SettleRequest>) -> Result<Response<proto::SettleReply>, Status> {
        let caller = Caller::of(&request)?;
        let settle = parse(&caller, request.into_inner())?;
        let settled = self.cache.settle(settle).await.map_err(status)?;
        let record = Some(wire(settled.record));
        Ok(Response::new(proto::SettleReply { record, repeated: settled.repeated }))
    }

    async fn correct_usage(
        &self,
        request: Request<proto::CorrectUsageRequest>,
    ) -> Result<Response<proto::SettleReply>, Status> {
        let caller = Caller::of(&request)?;
        let correct = correction::parse(&caller, request.into_inner())?;
        let settled = self.cache.correct(correct).await.map_err(status)?;
        Ok(Response::new(proto::SettleReply { record: Some(wire(settled.record)), repeated: settled.repeated }))
    }

    async fn summarize_usage(
        &self,
        request: Request<proto::SummarizeUsageRequest>,
    ) -> Result<Response<proto::SummarizeUsageReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        caller.check_named(&request.tenant)?;
        let tenant = Some(request.tenant).filter(|tenant| !tenant.is_empty());
        let filter = UsageFilter {
            tenant: tenant.map(|tenant| TenantName::parse(&tenant)).transpose().map_err(word)?,
            namespace: None,
            from_hour: (request.from_hour > 0).then_some(request.from_hour),
            until_hour: (request.until_hour > 0).then_some(request.until_hour),
        };
        let (cache, by) = (Arc::clone(&self.cache), grouping(&request.group_by)?);
        // It reads the ledger's database, which may wait for a drive.
        let summed = tokio::task::spawn_blocking(move || cache.usage(&filter, &by)).await;
        let summary = summed.map_err(|error| Status::internal(error.to_string()))?.map_err(status)?;
        let rows = summary.rows.into_iter().map(|row| proto::UsageRow {
            tenant: row.tenant.map_or_else(String::new, |tenant| tenant.as_str().into()),
            namespace: row.namespace.map_or_else(String::new, |namespace| namespace.as_str().into()),
            fingerprint: row.fingerprint.map(|fingerprint| fingerprint.0.to_vec()).unwrap_or_default().into(),
            hour: row.hour.unwrap_or_default(),
            user: row.user.map_or_else(String::new, |user| user.as_str().into()),
            api_key_id: row.api_key.map_or_else(String::new, |key| key.as_str().into()),
            ..sums(&row.usage)
        });
        let reply = proto::SummarizeUsageReply { rows: rows.collect(), total: Some(sums(&summary.total)) };
        Ok(Response::new(reply))
    }

    async fn summarize_storage(
        &self,
        request: Request<proto::SummarizeStorageRequest>,
    ) -> Result<Response<proto::SummarizeStorageReply>, Status> {
        let caller = Caller::of(&request)?;
        let proto::SummarizeStorageRequest { tenant, from_hour, until_hour } = request.into_inner();
        caller.check_named(&tenant)?;
        let until = if until_hour == 0 { u32::MAX } else { until_hour };
        let cache = Arc::clone(&self.cache);
        let read = tokio::task::spawn_blocking(move || cache.storage(from_hour..until)).await;
        let (ledger_id, rows) = read.map_err(|error| Status::internal(error.to_string()))?.map_err(status)?;
        let rows = rows.into_iter().map(accounts::storage);
        let rows = rows.filter(|row| tenant.is_empty() || row.tenant == tenant).collect();
        Ok(Response::new(proto::SummarizeStorageReply { rows, ledger_id }))
    }

    async fn export_usage(
        &self,
        request: Request<proto::ExportUsageRequest>,
    ) -> Result<Response<Self::ExportUsageStream>, Status> {
        Ok(Response::new(export::export(Arc::clone(&self.cache), request.get_ref(), self.closing.clone())))
    }

    async fn acknowledge_usage(
        &self,
        request: Request<proto::AcknowledgeUsageRequest>,
    ) -> Result<Response<proto::AcknowledgeUsageReply>, Status> {
        let (cache, through) = (Arc::clone(&self.cache), request.into_inner().through);
        let noted = tokio::task::spawn_blocking(move || cache.acknowledge_usage(through)).await;
        let Acknowledged { through, last } =
            noted.map_err(|error| Status::internal(error.to_string()))?.map_err(status)?;
        Ok(Response::new(proto::AcknowledgeUsageReply { through, last }))
    }
}

fn grouping(names: &[String]) -> Result<Grouping, Status> {
    if names.is_empty() {
        return Ok(Grouping::default());
    }
    let rule = "one of tenant, namespace, hour, user, api_key";
    let dimension = |name: &String| Dimension::named(name).ok_or_else(|| invalid("group_by", name, rule));
    names.iter().map(dimension).collect::<Result<_, _>>().map(Grouping)
}

fn parse(caller: &Caller, request: proto::SettleRequest) -> Result<Settle, Status> {
    let mut detail = detail(&request)?;
    let tenant = TenantName::parse(&request.tenant).map_err(word)?;
    let billing_id = BillingId::parse(&request.billing_id).map_err(word)?;
    let grant = caller.grant(&request.grant)?;
    caller.check_tenant(&tenant, grant.as_deref())?;
    if let Some(granted) = grant.as_ref().and_then(|grant| grant.billing_id.as_ref()) {
        caller.agrees("billing_id", billing_id.as_str(), granted.as_str())?;
    }
    if let Some(granted) = grant.as_ref().and_then(|grant| grant.user.as_ref()) {
        // An engine that passes a grant along need not know the user.
        match &detail.user {
            Some(said) => caller.agrees("user", said.as_str(), granted.as_str())?,
            None => detail.user = Some(granted.clone()),
        }
    }
    if let Some(granted) = grant.as_ref().and_then(|grant| grant.attempt) {
        caller.agrees("attempt", &request.attempt.to_string(), &granted.to_string())?;
    }
    Ok(Settle {
        detail,
        tenant,
        billing_id,
        attempt: request.attempt,
        instance: InstanceId::parse(&request.instance).map_err(word)?,
        request: RequestId::parse(&request.request_id).map_err(word)?,
        fingerprint: fingerprint("fingerprint", &request.fingerprint)?,
        prompt_tokens: TokenCount(request.prompt_tokens),
        cached_tokens: TokenCount(request.cached_tokens),
        attested_tokens: TokenCount(request.attested_tokens),
        written_tokens: TokenCount(request.written_tokens),
        output_tokens: TokenCount(request.output_tokens),
        receipts: request.receipts.into_iter().map(|receipt| receipt.to_vec()).collect(),
        labels: request.labels.into_iter().collect(),
    })
}

fn detail(request: &proto::SettleRequest) -> Result<UsageDetail, Status> {
    let finish = u8::try_from(request.finish_reason).ok().and_then(FinishReason::of_code);
    let role = u8::try_from(request.role).ok().and_then(NodeRole::of_code);
    let class = |(name, tokens): (&String, &u64)| ClassName::parse(name).map(|name| (name, TokenCount(*tokens)));
    Ok(UsageDetail {
        user: named(&request.user, UserName::parse)?,
        api_key: named(&request.api_key_id, ApiKeyId::parse)?,
        finish: finish.ok_or_else(|| invalid("finish_reason", request.finish_reason, "a FinishReason"))?,
        role: role.ok_or_else(|| invalid("role", request.role, "a NodeRole"))?,
        written_by_class: request.written_by_class.iter().map(class).collect::<Result<_, _>>().map_err(word)?,
        preempted_tokens: TokenCount(request.preempted_tokens),
    })
}

fn named<T>(name: &str, parse: fn(&str) -> Result<T, WordError>) -> Result<Option<T>, Status> {
    if name.is_empty() { Ok(None) } else { parse(name).map(Some).map_err(word) }
}

pub(super) fn wire(record: UsageRecord) -> proto::UsageRecord {
    let written_by_class = record.written_by_class().into_iter().map(|(class, tokens)| (class.to_string(), tokens));
    let (counts, used_at) = (record.counts, record.used_at());
    let (corrects, corrects_settled_at_ms, correction_reason) = match record.correction {
        Some(correction) => (correction.corrects.to_string(), used_at.0, correction.reason),
        None => Default::default(),
    };
    proto::UsageRecord {
        sequence: record.sequence,
        tenant: record.tenant.as_str().into(),
        billing_id: record.billing_id.as_str().into(),
        fingerprint: record.fingerprint.0.to_vec().into(),
        namespace: record.namespace.as_str().into(),
        settled_at_ms: record.settled_at.0,
        prompt_tokens: counts.prompt,
        hit_tokens: counts.hit(),
        hit_tokens_ram: counts.hit_ram,
        hit_tokens_nvme: counts.hit_nvme,
        attested_tokens: counts.attested,
        miss_tokens: counts.miss,
        written_tokens: counts.written,
        output_tokens: counts.output,
        labels: record.labels.into_iter().collect(),
        attempt: record.attempt,
        instance: record.instance.as_str().into(),
        request_id: record.request_id.map_or_else(String::new, |request| request.as_str().into()),
        user: record.detail.user.map_or_else(String::new, |user| user.as_str().into()),
        api_key_id: record.detail.api_key.map_or_else(String::new, |key| key.as_str().into()),
        finish_reason: record.detail.finish.code().into(),
        role: record.detail.role.code().into(),
        written_by_class: written_by_class.collect(),
        preempted_tokens: record.detail.preempted_tokens.0,
        delivered_tokens_ram: record.delivered.ram.0,
        delivered_tokens_nvme: record.delivered.nvme.0,
        corrects,
        corrects_settled_at_ms,
        correction_reason,
    }
}

fn sums(usage: &Sum) -> proto::UsageRow {
    // Sums are never below zero: corrections take back at most what was there.
    let tokens = |tokens: i64| u64::try_from(tokens).unwrap_or(0);
    let counts = &usage.counts;
    proto::UsageRow {
        records: usage.records,
        corrections: usage.corrections,
        prompt_tokens: tokens(counts.prompt),
        hit_tokens: tokens(counts.hit()),
        hit_tokens_ram: tokens(counts.hit_ram),
        hit_tokens_nvme: tokens(counts.hit_nvme),
        attested_tokens: tokens(counts.attested),
        miss_tokens: tokens(counts.miss),
        written_tokens: tokens(counts.written),
        output_tokens: tokens(counts.output),
        ..proto::UsageRow::default()
    }
}
