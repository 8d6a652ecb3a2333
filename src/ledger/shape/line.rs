//! kvtier's own shape of a record: one JSON object a line, exact in both directions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::counts::count;
use super::super::{Correction, Counts, Delivered, UsageRecord};
use super::refusal::{LineError, explain};
use super::time;
use crate::vocab::limits::SETTLE_TOKENS_MAX;
use crate::vocab::{
    ApiKeyId, BillingId, ClassName, Fingerprint, FinishReason, InstanceId, NamespaceName, NodeRole, TenantName,
    Timestamp, TokenCount, UsageDetail, UserName, WordError,
};

/// One record of an export. Field names are a contract: add, never rename. A reader refuses fields that it does not know,
/// since a count that nobody prices would be free without a word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Position in the ledger that wrote it, from 1.
    pub sequence: u64,
    /// Who pays.
    pub tenant: String,
    /// The request as the bill names it.
    pub billing_id: String,
    /// Which try of the request was settled.
    pub attempt: u32,
    /// The engine instance that served it.
    pub instance: String,
    /// Which layout, in hex.
    pub fingerprint: String,
    /// What people called the layout then.
    pub namespace: String,
    /// When it was settled: RFC 3339, UTC, milliseconds.
    pub settled_at: String,
    /// Tokens of the prompt: the sum of hit, attested and miss. This and the other counts are what is to be added up: below zero
    /// in a correction that takes something back.
    pub prompt_tokens: i64,
    /// Delivered by kvtier and skipped by the engine: the sum of the two tiers.
    pub hit_tokens: i64,
    /// Of these from RAM.
    pub hit_tokens_ram: i64,
    /// Of these from NVMe.
    pub hit_tokens_nvme: i64,
    /// Skipped from the engine's own GPU cache.
    pub attested_tokens: i64,
    /// Computed.
    pub miss_tokens: i64,
    /// Stored.
    pub written_tokens: i64,
    /// Generated.
    pub output_tokens: i64,
    /// Free words for the bill.
    pub labels: BTreeMap<String, String>,
    /// The tenant's end user; empty where nobody was named. This and what follows is absent from lines of older versions.
    #[serde(default)]
    pub user: String,
    /// The tenant's API key by its id; empty where none was named.
    #[serde(default)]
    pub api_key_id: String,
    /// How the request ended: `stop`, `length`, `aborted`, `preempted` or `failed`; empty where nobody said.
    #[serde(default)]
    pub finish_reason: String,
    /// On which side of a disaggregated pair it was served: `unified`, `prefill` or `decode`.
    #[serde(default)]
    pub role: String,
    /// Tokens stored by retention class: at most `written_tokens` in all.
    #[serde(default)]
    pub written_by_class: BTreeMap<String, i64>,
    /// Prompt tokens that were prefilled again after a preemption.
    #[serde(default)]
    pub preempted_tokens: u64,
    /// Delivered by kvtier from RAM, used or not.
    #[serde(default)]
    pub delivered_tokens_ram: u64,
    /// Delivered by kvtier from NVMe, used or not.
    #[serde(default)]
    pub delivered_tokens_nvme: u64,
    /// Of a correction, the billing id of the request that it corrects; else empty, and so are the two after it.
    #[serde(default)]
    pub corrects: String,
    /// When that request was settled, in the form of `settled_at`.
    #[serde(default)]
    pub corrects_settled_at: String,
    /// Why it was corrected.
    #[serde(default)]
    pub correction_reason: String,
}

/// The record as a JSON value.
pub(super) fn value(record: &UsageRecord) -> Value {
    serde_json::to_value(Line::of(record)).unwrap_or_default()
}

impl Line {
    /// The names of its fields, in the order in which they are written.
    pub const FIELDS: [&str; 28] = [
        "sequence",
        "tenant",
        "billing_id",
        "attempt",
        "instance",
        "fingerprint",
        "namespace",
        "settled_at",
        "prompt_tokens",
        "hit_tokens",
        "hit_tokens_ram",
        "hit_tokens_nvme",
        "attested_tokens",
        "miss_tokens",
        "written_tokens",
        "output_tokens",
        "labels",
        "user",
        "api_key_id",
        "finish_reason",
        "role",
        "written_by_class",
        "preempted_tokens",
        "delivered_tokens_ram",
        "delivered_tokens_nvme",
        "corrects",
        "corrects_settled_at",
        "correction_reason",
    ];
    /// How many of them, from the first on, a line must have: older versions wrote no others.
    pub(super) const REQUIRED: usize = 17;

    /// The line of a record.
    #[must_use]
    pub fn of(record: &UsageRecord) -> Self {
        let (counts, classes) = (&record.counts, record.written_by_class());
        let correction = record.correction.as_ref();
        Self {
            sequence: record.sequence,
            tenant: record.tenant.to_string(),
            billing_id: record.billing_id.to_string(),
            attempt: record.attempt,
            instance: record.instance.to_string(),
            fingerprint: record.fingerprint.to_string(),
            namespace: record.namespace.to_string(),
            settled_at: time::written(record.settled_at),
            prompt_tokens: counts.prompt,
            hit_tokens: counts.hit(),
            hit_tokens_ram: counts.hit_ram,
            hit_tokens_nvme: counts.hit_nvme,
            attested_tokens: counts.attested,
            miss_tokens: counts.miss,
            written_tokens: counts.written,
            output_tokens: counts.output,
            labels: record.labels.clone(),
            user: record.detail.user.as_ref().map_or_else(String::new, ToString::to_string),
            api_key_id: record.detail.api_key.as_ref().map_or_else(String::new, ToString::to_string),
            finish_reason: record.detail.finish.name().to_owned(),
            role: record.detail.role.name().to_owned(),
            written_by_class: classes.into_iter().map(|(class, tokens)| (class.to_string(), tokens)).collect(),
            preempted_tokens: record.detail.preempted_tokens.get(),
            delivered_tokens_ram: record.delivered.ram.get(),
            delivered_tokens_nvme: record.delivered.nvme.get(),
            corrects: correction.map_or_else(String::new, |correction| correction.corrects.to_string()),
            corrects_settled_at: correction.map_or_else(String::new, |correction| time::written(correction.used_at)),
            correction_reason: correction.map_or_else(String::new, |correction| correction.reason.clone()),
        }
    }

    /// Reads one line of JSON.
    ///
    /// # Errors
    /// Names the field, what it held and what it must be.
    pub fn parse(text: &[u8]) -> Result<Self, LineError> {
        serde_json::from_slice(text).map_err(|error| explain(text, &error))
    }

    /// The record that the line was made of.
    ///
    /// # Errors
    /// When a word can't be one, a count is larger than a settle may be, or the parts do not add up.
    pub fn record(&self) -> Result<UsageRecord, LineError> {
        let settled_at = moment("settled_at", &self.settled_at)?;
        self.check_counts()?;
        Ok(UsageRecord {
            sequence: self.sequence,
            tenant: TenantName::parse(&self.tenant)?,
            billing_id: BillingId::parse(&self.billing_id)?,
            attempt: self.attempt,
            instance: InstanceId::parse(&self.instance)?,
            // What an engine called it is in the ledger and on the wire only.
            request_id: None,
            fingerprint: fingerprint(&self.fingerprint)?,
            namespace: NamespaceName::parse(&self.namespace)?,
            settled_at,
            counts: self.counts(),
            labels: self.labels.clone(),
            detail: self.detail()?,
            delivered: self.delivered(),
            correction: self.correction()?,
        })
    }

    fn is_correction(&self) -> bool {
        !self.corrects.is_empty()
    }

    fn counts(&self) -> Counts {
        Counts {
            prompt: self.prompt_tokens,
            hit_ram: self.hit_tokens_ram,
            hit_nvme: self.hit_tokens_nvme,
            attested: self.attested_tokens,
            miss: self.miss_tokens,
            written: self.written_tokens,
            output: self.output_tokens,
        }
    }

    fn correction(&self) -> Result<Option<Correction>, LineError> {
        if !self.is_correction() {
            return Ok(None);
        }
        let class = |(name, tokens): (&String, &i64)| Ok((ClassName::parse(name)?, *tokens));
        Ok(Some(Correction {
            corrects: BillingId::parse(&self.corrects)?,
            used_at: moment("corrects_settled_at", &self.corrects_settled_at)?,
            reason: self.correction_reason.clone(),
            written_by_class: self.written_by_class.iter().map(class).collect::<Result<_, LineError>>()?,
        }))
    }

    fn detail(&self) -> Result<UsageDetail, LineError> {
        let class = |(name, tokens): (&String, &i64)| Ok((ClassName::parse(name)?, count(*tokens)));
        // A correction's may be below zero, and are its own.
        let classes = self.written_by_class.iter().filter(|_| !self.is_correction());
        let finish = FinishReason::named(&self.finish_reason).ok_or_else(|| {
            LineError::new("finish_reason", &self.finish_reason, "stop, length, aborted, preempted, failed or empty")
        })?;
        let role = NodeRole::named(&self.role)
            .ok_or_else(|| LineError::new("role", &self.role, "unified, prefill or decode"))?;
        Ok(UsageDetail {
            user: named(&self.user, UserName::parse)?,
            api_key: named(&self.api_key_id, ApiKeyId::parse)?,
            finish,
            role,
            written_by_class: classes.map(class).collect::<Result<_, LineError>>()?,
            preempted_tokens: TokenCount(self.preempted_tokens),
        })
    }

    /// Lines of older versions do not say it: at least the hit was.
    fn delivered(&self) -> Delivered {
        Delivered {
            ram: TokenCount(self.delivered_tokens_ram).max(count(self.hit_tokens_ram)),
            nvme: TokenCount(self.delivered_tokens_nvme).max(count(self.hit_tokens_nvme)),
        }
    }

    fn check_counts(&self) -> Result<(), LineError> {
        let limit = SETTLE_TOKENS_MAX.cast_signed();
        let least = if self.is_correction() { -limit } else { 0 };
        let counts = Counts::NAMES.into_iter().zip(self.counts().each());
        let classes = self.written_by_class.values().map(|tokens| ("written_by_class", *tokens));
        for (field, tokens) in counts.chain(classes) {
            if tokens < least {
                let rule =
                    if least == 0 { "at least 0: it is no correction".to_owned() } else { format!("at least {least}") };
                return Err(LineError::new(field, tokens, rule));
            }
            if tokens > limit {
                return Err(LineError::new(field, tokens, format!("at most {limit}")));
            }
        }
        if self.preempted_tokens > SETTLE_TOKENS_MAX {
            let field = "preempted_tokens";
            return Err(LineError::new(field, self.preempted_tokens, format!("at most {SETTLE_TOKENS_MAX}")));
        }
        let hit = self.counts().hit();
        if self.hit_tokens != hit {
            return Err(LineError::new("hit_tokens", self.hit_tokens, format!("the sum of its tiers, {hit}")));
        }
        if !self.counts().adds_up() {
            let parts = hit + self.attested_tokens + self.miss_tokens;
            let rule = format!("the sum of hit, attested and miss, {parts}");
            return Err(LineError::new("prompt_tokens", self.prompt_tokens, rule));
        }
        let classes = self.written_by_class.values().fold(0_i64, |sum, tokens| sum.saturating_add(*tokens));
        if classes > self.written_tokens && !self.is_correction() {
            let rule = format!("at most {} in all, the written_tokens", self.written_tokens);
            return Err(LineError::new("written_by_class", classes, rule));
        }
        Ok(())
    }
}

fn moment(field: &'static str, text: &str) -> Result<Timestamp, LineError> {
    time::read(text).ok_or_else(|| LineError::new(field, text, "RFC 3339 from 1970 on, in milliseconds"))
}

fn named<T>(name: &str, parse: fn(&str) -> Result<T, WordError>) -> Result<Option<T>, LineError> {
    if name.is_empty() { Ok(None) } else { Ok(Some(parse(name)?)) }
}

fn fingerprint(hex: &str) -> Result<Fingerprint, LineError> {
    let refused = || LineError::new("fingerprint", hex, "64 hex digits");
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refused());
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).map_err(|_| refused())?;
    }
    Ok(Fingerprint(bytes))
}

impl From<WordError> for LineError {
    fn from(error: WordError) -> Self {
        Self::new(error.field, error.value, error.rule.trim_start_matches("must be ").to_owned())
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
