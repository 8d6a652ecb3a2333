//! One settled request: what comes in, and the rule that makes a record of it.

use std::collections::BTreeMap;

use super::counts::{count, signed};
use super::{Correction, Counts, ReceiptFlaw, SettleError};
use crate::vocab::limits::{LABELS_MAX, SETTLE_TOKENS_MAX, WORD_BYTES_MAX, WRITTEN_CLASSES_MAX};
use crate::vocab::{
    BillingId, ClassName, Fingerprint, InstanceId, NamespaceName, NodeRole, RequestId, TenantName, Timestamp,
    TokenCount, UsageDetail,
};

/// Tokens delivered to one request or billed from it, by the tier that they came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// From RAM.
    pub ram: TokenCount,
    /// From NVMe.
    pub nvme: TokenCount,
}

impl Delivered {
    /// From either.
    #[must_use]
    pub fn total(self) -> TokenCount {
        TokenCount(self.ram.get().saturating_add(self.nvme.get()))
    }

    /// The share of `hit` tokens (at most the total) in proportion to what each tier delivered. RAM's share is rounded
    /// down and NVMe has the rest, so that the two add up and neither exceeds what its tier delivered.
    fn share(self, hit: TokenCount) -> Self {
        let total = u128::from(self.total().get()).max(1);
        let ram = u128::from(hit.get()) * u128::from(self.ram.get()) / total;
        let ram = TokenCount(u64::try_from(ram).unwrap_or(u64::MAX).min(hit.get()));
        Self { ram, nvme: hit - ram }
    }

    /// What a proof of the same delivery adds to this, and both: a proof tells of all that was delivered so far. One that
    /// tells of no more adds nothing.
    pub(super) fn grown(self, proof: Self) -> (Self, Self) {
        let more = proof.total().get().saturating_sub(self.total().get());
        let ram = proof.ram.get().saturating_sub(self.ram.get()).min(more);
        let new = Self { ram: TokenCount(ram), nvme: TokenCount(more - ram) };
        (new, Self { ram: self.ram + new.ram, nvme: self.nvme + new.nvme })
    }
}

/// A request's final usage, as the gateway or the worker reports it, joined to what the daemon delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Who pays.
    pub tenant: TenantName,
    /// The request as the bill names it.
    pub billing_id: BillingId,
    /// Which try of the request this was.
    pub attempt: u32,
    /// The engine instance that served it.
    pub instance: InstanceId,
    /// The request as that engine named it; nothing where a record is corrected that does not say it.
    pub request_id: Option<RequestId>,
    /// Which layout.
    pub fingerprint: Fingerprint,
    /// What people call the layout; nothing where the daemon does not know it (any more).
    pub namespace: Option<NamespaceName>,
    /// Tokens of the prompt.
    pub prompt_tokens: TokenCount,
    /// Tokens that the engine's own usage says came from kvtier: the claim.
    pub cached_tokens: TokenCount,
    /// Tokens that the engine skipped from its own GPU cache.
    pub attested_tokens: TokenCount,
    /// Tokens stored.
    pub written_tokens: TokenCount,
    /// Tokens generated.
    pub output_tokens: TokenCount,
    /// Free words for the bill.
    pub labels: BTreeMap<String, String>,
    /// For whom, how it ended, and where.
    pub detail: UsageDetail,
    /// What the daemon itself recorded as delivered to the request.
    pub delivered: Delivered,
    /// When the first of that was delivered.
    pub delivered_since: Timestamp,
    /// A proof of it that is none: it matters where the request was not settled before.
    pub flaw: Option<ReceiptFlaw>,
    /// When it was settled.
    pub settled_at: Timestamp,
}

/// One settled request, as it is kept and exported. Its identity is (tenant, billing id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// Position in the ledger, from 1: the cursor of exports.
    pub sequence: u64,
    /// Who pays.
    pub tenant: TenantName,
    /// The request as the bill names it.
    pub billing_id: BillingId,
    /// Which try of the request was settled.
    pub attempt: u32,
    /// The engine instance that served it.
    pub instance: InstanceId,
    /// The request as that engine named it; nothing in records of versions that did not keep it.
    pub request_id: Option<RequestId>,
    /// Which layout.
    pub fingerprint: Fingerprint,
    /// What people called the layout then.
    pub namespace: NamespaceName,
    /// When it was settled.
    pub settled_at: Timestamp,
    /// What is billed; of a correction what it adds, below zero where it takes back.
    pub counts: Counts,
    /// Free words for the bill.
    pub labels: BTreeMap<String, String>,
    /// For whom, how it ended, and where.
    pub detail: UsageDetail,
    /// What kvtier delivered, by tier: at least the hit. What is more was loaded and not used, by the engine's own word. What an
    /// earlier record of the same delivery has told of is left out, but for the hit.
    pub delivered: Delivered,
    /// Of which record this is a correction, if it is one.
    pub correction: Option<Correction>,
}

/// The answer to a settle: the record, which is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What was recorded, by this settle or by the first one of its identity.
    pub record: UsageRecord,
    /// Whether it had been settled before.
    pub repeated: bool,
}

impl UsageRecord {
    /// The rule of the meter: a hit was delivered *and* claimed, and the parts make up the prompt.
    pub(super) fn of(settlement: Settlement, sequence: u64) -> Result<Self, SettleError> {
        settlement.check()?;
        let Settlement { cached_tokens: claimed, mut delivered, prompt_tokens, attested_tokens, .. } = settlement;
        if settlement.detail.role == NodeRole::Decode {
            // What the prefill node has computed and this one has loaded is no hit of anybody's.
            delivered = Delivered::default();
        }
        if claimed > delivered.total() {
            return Err(SettleError::ClaimsMore { claimed, delivered: delivered.total() });
        }
        if claimed + attested_tokens > prompt_tokens {
            let (cached, attested, prompt) = (claimed.get(), attested_tokens.get(), prompt_tokens.get());
            return Err(SettleError::ExceedsPrompt { cached, attested, prompt });
        }
        let hit = delivered.share(claimed);
        let namespace = settlement.namespace.ok_or(SettleError::UnknownNamespace(settlement.fingerprint))?;
        Ok(Self {
            sequence,
            tenant: settlement.tenant,
            billing_id: settlement.billing_id,
            attempt: settlement.attempt,
            instance: settlement.instance,
            request_id: settlement.request_id,
            fingerprint: settlement.fingerprint,
            namespace,
            settled_at: settlement.settled_at,
            counts: Counts {
                prompt: signed(prompt_tokens),
                hit_ram: signed(hit.ram),
                hit_nvme: signed(hit.nvme),
                attested: signed(attested_tokens),
                miss: signed(prompt_tokens - claimed - attested_tokens),
                written: signed(settlement.written_tokens),
                output: signed(settlement.output_tokens),
            },
            labels: settlement.labels,
            detail: settlement.detail,
            delivered,
            correction: None,
        })
    }

    /// Tokens billed as a hit; of a correction 0 where it takes back.
    #[must_use]
    pub fn hit_tokens(&self) -> TokenCount {
        count(self.counts.hit())
    }

    /// The same by tier.
    pub(super) fn hit(&self) -> Delivered {
        Delivered { ram: count(self.counts.hit_ram), nvme: count(self.counts.hit_nvme) }
    }

    /// When what it counts was used: a correction's is that of the record that it corrects.
    #[must_use]
    pub fn used_at(&self) -> Timestamp {
        self.correction.as_ref().map_or(self.settled_at, |correction| correction.used_at)
    }

    /// What it says of the tokens stored by retention class; as [`Self::counts`] of a correction what it adds.
    #[must_use]
    pub fn written_by_class(&self) -> BTreeMap<ClassName, i64> {
        match &self.correction {
            Some(correction) => correction.written_by_class.clone(),
            None => {
                self.detail.written_by_class.iter().map(|(class, tokens)| (class.clone(), signed(*tokens))).collect()
            }
        }
    }

    /// The answer to a settle of the same identity: this record, where the settle says the same.
    pub(super) fn repeated(self, again: &Settlement) -> Result<Settled, SettleError> {
        if let Some(correction) = &self.correction {
            let corrects = correction.corrects.clone();
            return Err(SettleError::NamesCorrection { corrects, first: Box::new(self) });
        }
        if self.attempt != again.attempt {
            return Err(SettleError::Attempt { attempt: again.attempt, first: Box::new(self) });
        }
        match self.difference(again) {
            None => Ok(Settled { record: self, repeated: true }),
            Some(field) => Err(SettleError::Conflict { field, first: Box::new(self) }),
        }
    }

    /// The first field in which a settle of the same identity and attempt differs from what was recorded. Instance, request id,
    /// role, finish reason, labels and what was delivered may differ: a request that is routed to another host and settled
    /// there is still one.
    pub(super) fn difference(&self, again: &Settlement) -> Option<&'static str> {
        let counts = &self.counts;
        [
            ("prompt_tokens", counts.prompt == signed(again.prompt_tokens)),
            ("cached_tokens", counts.hit() == signed(again.cached_tokens)),
            ("attested_tokens", counts.attested == signed(again.attested_tokens)),
            ("written_tokens", counts.written == signed(again.written_tokens)),
            ("output_tokens", counts.output == signed(again.output_tokens)),
            ("fingerprint", self.fingerprint == again.fingerprint),
            ("user", self.detail.user == again.detail.user),
            ("api_key_id", self.detail.api_key == again.detail.api_key),
            ("written_by_class", self.detail.written_by_class == again.detail.written_by_class),
        ]
        .into_iter()
        .find_map(|(field, same)| (!same).then_some(field))
    }
}

impl Settlement {
    /// What no settle may say, whatever was delivered.
    pub(super) fn check(&self) -> Result<(), SettleError> {
        check_sizes(self)?;
        let claimed = self.cached_tokens;
        if self.detail.role == NodeRole::Decode && claimed > TokenCount::ZERO {
            return Err(SettleError::Decode { claimed });
        }
        Ok(())
    }
}

fn check_sizes(settlement: &Settlement) -> Result<(), SettleError> {
    for (field, tokens) in [
        ("prompt_tokens", settlement.prompt_tokens),
        ("cached_tokens", settlement.cached_tokens),
        ("attested_tokens", settlement.attested_tokens),
        ("written_tokens", settlement.written_tokens),
        ("output_tokens", settlement.output_tokens),
        ("preempted_tokens", settlement.detail.preempted_tokens),
    ] {
        if tokens.get() > SETTLE_TOKENS_MAX {
            return Err(SettleError::TooLarge { field, value: tokens.get(), limit: SETTLE_TOKENS_MAX });
        }
    }
    if settlement.labels.len() > LABELS_MAX {
        return Err(SettleError::Labels(format!("there are {}", settlement.labels.len())));
    }
    for (label, value) in &settlement.labels {
        if label.is_empty() || label.len() > WORD_BYTES_MAX || value.len() > WORD_BYTES_MAX {
            let shortened: String = label.chars().take(40).collect();
            let lengths = format!("{shortened:?} has {} bytes, its value {}", label.len(), value.len());
            return Err(SettleError::Labels(lengths));
        }
    }
    check_classes(settlement)
}

fn check_classes(settlement: &Settlement) -> Result<(), SettleError> {
    let classes = &settlement.detail.written_by_class;
    let (count, limit) = (classes.len() as u64, WRITTEN_CLASSES_MAX as u64);
    if count > limit {
        return Err(SettleError::TooLarge { field: "the number of classes in written_by_class", value: count, limit });
    }
    let sum = classes.values().fold(0_u64, |sum, tokens| sum.saturating_add(tokens.get()));
    let written = settlement.written_tokens.get();
    if sum > written {
        return Err(SettleError::Classes { sum, written });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sample::settlement;
    use super::*;
    use crate::vocab::{ApiKeyId, ClassName, FinishReason, UserName};

    fn claim(cached: u64, ram: u64, nvme: u64) -> Settlement {
        let delivered = Delivered { ram: TokenCount(ram), nvme: TokenCount(nvme) };
        Settlement { cached_tokens: TokenCount(cached), delivered, ..settlement("acme", "b-1") }
    }

    #[test]
    fn a_hit_was_delivered_and_claimed() {
        let record = UsageRecord::of(claim(300, 500, 100), 1).unwrap();
        assert_eq!(record.hit_tokens(), TokenCount(300));
        assert_eq!((record.counts.hit_ram, record.counts.hit_nvme), (250, 50));
        assert_eq!(record.counts.miss, 1_000 - 300 - 64);
        let more = UsageRecord::of(claim(601, 500, 100), 1).unwrap_err();
        assert_eq!(more, SettleError::ClaimsMore { claimed: TokenCount(601), delivered: TokenCount(600) });
        assert_eq!(more.to_string(), "cached_tokens is 601 tokens, but only 600 tokens were delivered to this request");
    }

    #[test]
    fn parts_beyond_the_prompt_are_refused_by_name() {
        let error = UsageRecord::of(claim(937, 1_000, 0), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cached_tokens (937) and attested_tokens (64) add up to more than prompt_tokens (1000)"
        );
        assert_eq!(UsageRecord::of(claim(936, 1_000, 0), 1).unwrap().counts.miss, 0);
    }

    #[test]
    fn numbers_that_no_request_has_are_refused_before_they_are_added() {
        let huge = Settlement { written_tokens: TokenCount(u64::MAX), ..settlement("acme", "b-1") };
        let error = UsageRecord::of(huge, 1).unwrap_err();
        assert_eq!(error.to_string(), "written_tokens is 18446744073709551615, it must be at most 4294967296");
        assert!(UsageRecord::of(claim(0, u64::MAX, u64::MAX), 1).is_ok());
    }

    #[test]
    fn on_a_decode_node_nothing_that_was_loaded_bills() {
        let decode = |cached| {
            let detail = UsageDetail { role: NodeRole::Decode, ..UsageDetail::default() };
            UsageRecord::of(Settlement { detail, ..claim(cached, 500, 100) }, 1)
        };
        let record = decode(0).unwrap();
        assert_eq!((record.counts.hit(), record.delivered), (0, Delivered::default()));
        let error = decode(1).unwrap_err();
        assert_eq!(error, SettleError::Decode { claimed: TokenCount(1) });
        assert!(error.to_string().starts_with("cached_tokens is 1 tokens with role decode, it must be 0"), "{error}");
    }

    #[test]
    fn classes_are_few_and_at_most_what_was_written() {
        let with = |count: u64, tokens: u64| {
            let class = |at| (ClassName::parse(&format!("{at}h")).unwrap(), TokenCount(tokens));
            let detail = UsageDetail { written_by_class: (0..count).map(class).collect(), ..UsageDetail::default() };
            UsageRecord::of(Settlement { detail, ..settlement("acme", "b-1") }, 1).map_err(|error| error.to_string())
        };
        assert!(with(8, 40).is_ok());
        assert_eq!(
            with(2, 161).unwrap_err(),
            "written_by_class adds up to 322, it must be at most written_tokens, 320"
        );
        assert!(with(2, u64::MAX).is_err());
        assert_eq!(with(9, 1).unwrap_err(), "the number of classes in written_by_class is 9, it must be at most 8");
    }

    // What was loaded again after a preemption, and is not in the engine's own usage, does not bill.
    #[test]
    fn what_was_delivered_and_not_claimed_is_told_and_not_billed() {
        let record = UsageRecord::of(claim(300, 500, 100), 1).unwrap();
        assert_eq!((record.hit_tokens(), record.delivered.total()), (TokenCount(300), TokenCount(600)));
    }

    #[test]
    fn labels_are_bounded() {
        let with = |labels: Vec<(String, String)>| {
            UsageRecord::of(Settlement { labels: labels.into_iter().collect(), ..settlement("acme", "b-1") }, 1)
        };
        let many = |count: usize| (0..count).map(|at| (format!("label-{at}"), String::new())).collect();
        assert!(with(many(16)).is_ok());
        assert!(with(many(17)).is_err());
        assert!(with(vec![("class".into(), "x".repeat(129))]).is_err());
        assert!(with(vec![(String::new(), "x".into())]).is_err());
    }

    #[test]
    fn a_settle_again_differs_in_what_is_billed_only() {
        let first = UsageRecord::of(settlement("acme", "b-1"), 1).unwrap();
        let later = Settlement {
            instance: InstanceId::parse("engine-2").unwrap(),
            labels: BTreeMap::new(),
            delivered: Delivered::default(),
            settled_at: Timestamp(u64::MAX),
            ..settlement("acme", "b-1")
        };
        assert_eq!(first.difference(&later), None);
        let other = Settlement { output_tokens: TokenCount(51), ..later };
        assert_eq!(first.difference(&other), Some("output_tokens"));
    }

    prop_compose! {
        fn settlements()(
            words in prop::array::uniform4("[!-~]{1,128}"),
            (ram, nvme) in (0..1_000_000_u64, 0..1_000_000_u64),
            claimed in 0.0..=1.0,
            (attested, miss, written, output) in (0..=1_u64 << 20, 0..=1_u64 << 20, 0..=1_u64 << 32, 0..=1_u64 << 32),
            labels in prop::collection::btree_map(".{1,32}", ".{0,32}", 0..16),
            (user, api_key) in (prop::option::of("[!-~]{1,128}"), prop::option::of("[!-~]{1,128}")),
            classes in prop::collection::btree_set("[!-~]{1,16}", 0..=8),
            (finish, role, preempted) in (0..6_u8, 0..2_u8, 0..=1_u64 << 32),
            (attempt, settled_at, fingerprint) in any::<(u32, u64, [u8; 32])>(),
        ) -> Settlement {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "any number will do")]
            let cached = ((ram + nvme) as f64 * claimed) as u64;
            Settlement {
                tenant: TenantName::parse(&words[0]).unwrap(),
                billing_id: BillingId::parse(&words[1]).unwrap(),
                attempt,
                instance: InstanceId::parse(&words[2]).unwrap(),
                request_id: RequestId::parse(&words[3]).ok(),
                fingerprint: Fingerprint(fingerprint),
                namespace: NamespaceName::parse(&words[3]).ok(),
                prompt_tokens: TokenCount(cached + attested + miss),
                cached_tokens: TokenCount(cached),
                attested_tokens: TokenCount(attested),
                written_tokens: TokenCount(written),
                output_tokens: TokenCount(output),
                labels,
                detail: UsageDetail {
                    user: user.and_then(|word| UserName::parse(&word).ok()),
                    api_key: api_key.and_then(|word| ApiKeyId::parse(&word).ok()),
                    finish: FinishReason::of_code(finish).unwrap(),
                    role: NodeRole::of_code(role).unwrap(),
                    written_by_class: classes
                        .iter()
                        .map(|class| (ClassName::parse(class).unwrap(), TokenCount(written / 8)))
                        .collect(),
                    preempted_tokens: TokenCount(preempted),
                },
                delivered: Delivered { ram: TokenCount(ram), nvme: TokenCount(nvme) },
                delivered_since: Timestamp(settled_at),
                flaw: None,
                settled_at: Timestamp(settled_at),
            }
        }
    }

    proptest! {
        #[test]
        fn the_parts_add_up_and_no_tier_bills_more_than_it_delivered(settlement in settlements()) {
            let (claimed, delivered) = (settlement.cached_tokens, settlement.delivered);
            let record = UsageRecord::of(settlement, 1).unwrap();
            prop_assert_eq!(record.hit_tokens(), claimed);
            let counts = record.counts;
            prop_assert!(counts.hit_ram <= signed(delivered.ram) && counts.hit_nvme <= signed(delivered.nvme));
            prop_assert!(counts.adds_up() && counts.is_of_usage());
        }

        #[test]
        fn a_record_reads_back_and_no_cut_of_it_does(settlement in settlements(), sequence: u64, cut: prop::sample::Index) {
            let record = UsageRecord::of(settlement, sequence).unwrap();
            let bytes = record.encode();
            prop_assert_eq!(UsageRecord::decode(&bytes), Ok(record));
            prop_assert!(UsageRecord::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
