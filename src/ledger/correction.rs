//! Corrections and refunds: records of their own, which name the one that they correct. Nothing that was recorded changes;
//! what a request comes to in the end is its record and all its corrections together.

use std::collections::BTreeMap;

use super::codec::{DecodeError, Reader, Writer};
use super::counts::count;
use super::delivery::Delivery;
use super::{Counts, SettleError, Settlement, UsageRecord};
use crate::vocab::limits::WORD_BYTES_MAX;
use crate::vocab::{BillingId, ClassName, TenantName, Timestamp, TokenCount, UsageDetail};

/// Version of a standing's bytes.
const VERSION: u8 = 1;

/// What makes a record a correction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The request that it corrects, as the bill names it.
    pub corrects: BillingId,
    /// When that one was settled.
    pub used_at: Timestamp,
    /// Why, in the words of whoever corrects.
    pub reason: String,
    /// What it adds to the tokens stored by retention class.
    pub written_by_class: BTreeMap<ClassName, i64>,
}

/// A correction, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// Who pays.
    pub tenant: TenantName,
    /// The correction, as the bill names it: an identity of its own.
    pub billing_id: BillingId,
    /// The request that it corrects.
    pub corrects: BillingId,
    /// Why.
    pub reason: String,
    /// What a right settle would have said.
    pub truth: Truth,
    /// When it is asked for.
    pub at: Timestamp,
}

/// What a right settle would have said; what is absent stands as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// Tokens of the prompt.
    pub prompt: Option<TokenCount>,
    /// Tokens that the engine took from kvtier: at most what was delivered.
    pub cached: Option<TokenCount>,
    /// Tokens that the engine skipped from its own GPU cache.
    pub attested: Option<TokenCount>,
    /// Tokens stored.
    pub written: Option<TokenCount>,
    /// Tokens generated.
    pub output: Option<TokenCount>,
    /// Tokens stored by retention class.
    pub written_by_class: Option<BTreeMap<ClassName, TokenCount>>,
}

/// What a corrected request comes to by now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Sequence of its last correction.
    pub(super) last: u64,
    pub(super) counts: Counts,
    pub(super) written_by_class: BTreeMap<ClassName, i64>,
}

impl Truth {
    /// Everything is taken back.
    #[must_use]
    pub fn refund() -> Self {
        let nothing = Some(TokenCount::ZERO);
        let written_by_class = Some(BTreeMap::new());
        Self {
            prompt: nothing,
            cached: nothing,
            attested: nothing,
            written: nothing,
            output: nothing,
            written_by_class,
        }
    }

    fn each(&self) -> [Option<TokenCount>; 5] {
        [self.prompt, self.cached, self.attested, self.written, self.output]
    }
}

impl Amendment {
    /// Stands for what is asked for, so that the same again is known.
    pub(super) fn asked(&self) -> [u8; 16] {
        let length = u32::try_from(self.reason.len()).unwrap_or(u32::MAX);
        let mut row = Writer::default().word(self.corrects.as_str()).u32(length).raw(self.reason.as_bytes());
        for tokens in self.truth.each() {
            row = row.u64(tokens.map_or(u64::MAX, TokenCount::get));
        }
        if let Some(classes) = &self.truth.written_by_class {
            row = classes.iter().fold(row.u8(1), |row, (class, tokens)| row.word(class.as_str()).u64(tokens.get()));
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(&row.finish()).as_bytes()[..16]);
        digest
    }

    /// The record of the correction: the difference between the settle that would have been right, by the rule of all settles
    /// and what was delivered, and what the request comes to by now.
    pub(super) fn record(
        self,
        first: &UsageRecord,
        known: Option<&Delivery>,
        standing: &mut Standing,
        sequence: u64,
    ) -> Result<UsageRecord, SettleError> {
        if self.reason.is_empty() || self.reason.len() > WORD_BYTES_MAX {
            return Err(SettleError::Reason(self.reason.len()));
        }
        if first.correction.is_some() {
            return Err(SettleError::CorrectsCorrection(self.corrects));
        }
        let mut said = self.truth.settlement(first, standing);
        said.delivered = Delivery::most(known, first, said.cached_tokens);
        let right = UsageRecord::of(said, sequence)?;
        let written_by_class = right.written_by_class();
        let added = difference(&written_by_class, &standing.written_by_class);
        let counts = right.counts - standing.counts;
        if counts == Counts::default() && added.is_empty() {
            return Err(SettleError::Unchanged(self.corrects));
        }
        *standing = Standing { last: sequence, counts: right.counts, written_by_class };
        let correction = Correction {
            corrects: self.corrects,
            used_at: first.settled_at,
            reason: self.reason,
            written_by_class: added,
        };
        Ok(UsageRecord {
            billing_id: self.billing_id,
            settled_at: self.at,
            counts,
            detail: UsageDetail {
                written_by_class: BTreeMap::new(),
                preempted_tokens: TokenCount::ZERO,
                ..first.detail.clone()
            },
            delivered: Default::default(),
            correction: Some(correction),
            ..right
        })
    }
}

impl Truth {
    fn settlement(self, first: &UsageRecord, standing: &Standing) -> Settlement {
        let or = |said: Option<TokenCount>, stands: i64| said.unwrap_or(count(stands));
        let stands = &standing.counts;
        let classes = || standing.written_by_class.iter().map(|(class, tokens)| (class.clone(), count(*tokens)));
        Settlement {
            tenant: first.tenant.clone(),
            billing_id: first.billing_id.clone(),
            attempt: first.attempt,
            instance: first.instance.clone(),
            request_id: first.request_id.clone(),
            fingerprint: first.fingerprint,
            namespace: Some(first.namespace.clone()),
            prompt_tokens: or(self.prompt, stands.prompt),
            cached_tokens: or(self.cached, stands.hit()),
            attested_tokens: or(self.attested, stands.attested),
            written_tokens: or(self.written, stands.written),
            output_tokens: or(self.output, stands.output),
            labels: first.labels.clone(),
            detail: UsageDetail {
                written_by_class: self.written_by_class.unwrap_or_else(|| classes().collect()),
                ..first.detail.clone()
            },
            delivered: first.delivered,
            delivered_since: first.settled_at,
            flaw: None,
            settled_at: first.settled_at,
        }
    }
}

impl Standing {
    /// Of one record alone.
    pub(super) fn of(record: &UsageRecord) -> Self {
        Self { last: record.sequence, counts: record.counts, written_by_class: record.written_by_class() }
    }

    /// With what a correction adds.
    pub(super) fn add(&mut self, correction: &UsageRecord) {
        self.sum(Self::of(correction));
    }

    /// What corrections add, on the record that they correct.
    pub(super) fn on(self, record: &UsageRecord) -> Self {
        let mut sum = Self::of(record);
        sum.sum(self);
        sum
    }

    fn sum(&mut self, later: Self) {
        self.last = later.last;
        self.counts += later.counts;
        for (class, tokens) in later.written_by_class {
            *self.written_by_class.entry(class).or_default() += tokens;
        }
        self.written_by_class.retain(|_, tokens| *tokens != 0);
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let row = self.counts.encode(Writer::default().u8(VERSION).u64(self.last));
        encode_classes(row, &self.written_by_class).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut row = Reader::new(bytes);
        if row.u8()? != VERSION {
            return Err(DecodeError { what: "a standing version that this kvtier does not know", at: 0 });
        }
        let (last, counts) = (row.u64()?, Counts::decode(&mut row)?);
        let written_by_class = decode_classes(&mut row)?;
        row.end()?;
        Ok(Self { last, counts, written_by_class })
    }
}

impl Correction {
    pub(super) fn encode(&self, row: Writer) -> Writer {
        let row = row.word(self.corrects.as_str()).u64(self.used_at.0).word(&self.reason);
        encode_classes(row, &self.written_by_class)
    }

    pub(super) fn decode(row: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            corrects: row.parsed(BillingId::parse)?,
            used_at: Timestamp(row.u64()?),
            reason: row.word()?.to_owned(),
            written_by_class: decode_classes(row)?,
        })
    }
}

/// What is not there counts as nothing; what does not differ is left out.
fn difference(now: &BTreeMap<ClassName, i64>, before: &BTreeMap<ClassName, i64>) -> BTreeMap<ClassName, i64> {
    let mut added = now.clone();
    for (class, tokens) in before {
        *added.entry(class.clone()).or_default() -= tokens;
    }
    added.retain(|_, tokens| *tokens != 0);
    added
}

fn encode_classes(row: Writer, classes: &BTreeMap<ClassName, i64>) -> Writer {
    // A difference of two times the most classes that a settle may have.
    let row = row.u8(u8::try_from(classes.len()).unwrap_or(u8::MAX));
    classes.iter().fold(row, |row, (class, tokens)| row.word(class.as_str()).u64(tokens.cast_unsigned()))
}

fn decode_classes(row: &mut Reader<'_>) -> Result<BTreeMap<ClassName, i64>, DecodeError> {
    (0..row.u8()?).map(|_| Ok((row.parsed(ClassName::parse)?, row.u64()?.cast_signed()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::{NEW_YEAR, settlement};
    use super::*;

    /// A settle of which 16 tokens were stored for an hour.
    fn first() -> UsageRecord {
        let written_by_class = [(ClassName::parse("1h").unwrap(), TokenCount(16))].into();
        let detail = UsageDetail { written_by_class, ..UsageDetail::default() };
        UsageRecord::of(Settlement { detail, ..settlement("acme", "b-1") }, 7).unwrap()
    }

    fn amendment(truth: Truth) -> Amendment {
        Amendment {
            tenant: TenantName::parse("acme").unwrap(),
            billing_id: BillingId::parse("c-1").unwrap(),
            corrects: BillingId::parse("b-1").unwrap(),
            reason: "twice".to_owned(),
            truth,
            at: Timestamp(NEW_YEAR.0 + 5),
        }
    }

    fn corrected(truth: Truth) -> Result<(UsageRecord, Standing), SettleError> {
        let mut standing = Standing::of(&first());
        amendment(truth).record(&first(), None, &mut standing, 9).map(|record| (record, standing))
    }

    #[test]
    fn a_correction_is_the_difference_to_the_settle_that_would_have_been_right() {
        let truth = Truth { cached: Some(TokenCount(300)), output: Some(TokenCount(60)), ..Truth::default() };
        let (record, standing) = corrected(truth).unwrap();
        assert_eq!(record.counts, Counts::of([0, -250, -50, 0, 300, 0, 10]));
        assert_eq!((record.sequence, record.billing_id.as_str(), record.settled_at.0), (9, "c-1", NEW_YEAR.0 + 5));
        assert_eq!((record.used_at(), record.written_by_class()), (NEW_YEAR, BTreeMap::new()));
        assert_eq!((standing.last, standing.counts), (9, first().counts + record.counts));
    }

    #[test]
    fn a_refund_takes_everything_back_and_what_is_taken_back_is_not_taken_again() {
        let (record, mut standing) = corrected(Truth::refund()).unwrap();
        assert_eq!(record.counts, -first().counts);
        assert_eq!(record.written_by_class(), [(ClassName::parse("1h").unwrap(), -16)].into());
        let again = amendment(Truth::refund()).record(&first(), None, &mut standing, 10).unwrap_err();
        assert_eq!(again.to_string(), "the correction changes nothing: b-1 stands so already");
        let mut summed = Standing::of(&first());
        summed.add(&record);
        assert_eq!(summed, standing);
        assert_eq!(Standing::decode(&standing.encode()), Ok(standing));
    }

    #[test]
    fn it_is_held_to_the_rule_of_all_settles() {
        let said = |truth: Truth| corrected(truth).unwrap_err().to_string();
        let tokens = |tokens| Some(TokenCount(tokens));
        let more = said(Truth { cached: tokens(601), ..Truth::default() });
        assert!(more.starts_with("cached_tokens is 601 tokens, but only 600 tokens were delivered"), "{more}");
        assert!(said(Truth { prompt: tokens(600), ..Truth::default() }).contains("add up to more than prompt_tokens"));
        assert!(said(Truth { written: tokens(15), ..Truth::default() }).contains("written_by_class adds up to 16"));
        assert!(said(Truth { output: tokens(u64::MAX), ..Truth::default() }).contains("it must be at most 4294967296"));
        let mut of_correction = Standing::default();
        let corrected =
            UsageRecord { correction: Some(corrected(Truth::refund()).unwrap().0.correction.unwrap()), ..first() };
        let error = amendment(Truth::refund()).record(&corrected, None, &mut of_correction, 9).unwrap_err().to_string();
        assert_eq!(error, "corrects is b-1, which is itself a correction: correct the request that it names");
        for reason in ["".to_owned(), "x".repeat(129)] {
            let asked = Amendment { reason, ..amendment(Truth::refund()) };
            let error = asked.record(&first(), None, &mut Standing::of(&first()), 9).unwrap_err().to_string();
            assert!(error.starts_with("reason must be 1 to 128 bytes"), "{error}");
        }
    }

    #[test]
    fn the_same_again_is_known_by_all_that_it_says() {
        let asked = |truth: Truth| amendment(truth).asked();
        let one = asked(Truth::refund());
        assert_eq!(one, asked(Truth::refund()));
        let zero = Some(TokenCount::ZERO);
        for other in [
            Truth::default(),
            Truth { written_by_class: None, ..Truth::refund() },
            Truth { cached: None, ..Truth::refund() },
            Truth { output: zero, ..Truth::default() },
        ] {
            assert_ne!(one, asked(other));
        }
        let reason = Amendment { reason: "once".to_owned(), ..amendment(Truth::refund()) };
        assert_ne!(one, reason.asked());
    }
}
