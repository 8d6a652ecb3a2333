//! The walk of a settle: what was delivered meets what the engine says it used.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::Cache;
use super::delivery::Proof;
use super::error::Error;
use crate::ledger::{
    AcknowledgeError, Acknowledged, Amendment, Grouping, Ledger, LedgerError, LedgerFill, ReceiptError, ReceiptFlaw,
    ReceiptKey, SettleError, Settled, Settlement, Truth, UsageFilter, UsageRecord, UsageSummary,
};
use crate::vocab::{BillingId, Fingerprint, InstanceId, RequestId, TenantName, TokenCount, UsageDetail};

/// A request's final usage.
#[derive(Clone, Debug)]
pub struct Settle {
    /// Who pays.
    pub tenant: TenantName,
    /// The request as the bill names it.
    pub billing_id: BillingId,
    /// Which try.
    pub attempt: u32,
    /// Which engine.
    pub instance: InstanceId,
    /// The request as that engine named it.
    pub request: RequestId,
    /// Which layout.
    pub fingerprint: Fingerprint,
    /// Tokens of the prompt.
    pub prompt_tokens: TokenCount,
    /// Tokens taken from kvtier, by the engine's own word.
    pub cached_tokens: TokenCount,
    /// Tokens skipped from the engine's own GPU cache.
    pub attested_tokens: TokenCount,
    /// Tokens stored.
    pub written_tokens: TokenCount,
    /// Tokens generated.
    pub output_tokens: TokenCount,
    /// Proofs of fetches that this daemon may have forgotten.
    pub receipts: Vec<Vec<u8>>,
    /// Words for the bill.
    pub labels: BTreeMap<String, String>,
    /// For whom, how it ended, and where.
    pub detail: UsageDetail,
}

/// A correction of what was settled.
#[derive(Clone, Debug)]
pub struct Correct {
    /// Who pays.
    pub tenant: TenantName,
    /// The correction, as the bill names it.
    pub billing_id: BillingId,
    /// The request that it corrects.
    pub corrects: BillingId,
    /// Why.
    pub reason: String,
    /// What a right settle would have said.
    pub truth: Truth,
}

impl Cache {
    /// Settles a request; durable when it returns.
    ///
    /// # Errors
    /// When it claims more than was delivered or what another billing id has, contradicts an earlier settle, or the ledger can't
    /// take it.
    pub async fn settle(&self, settle: Settle) -> Result<Settled, Error> {
        let ledger = self.readable_ledger()?;
        if let Some(recorder) = &self.recorder {
            recorder.output(&settle.instance, &settle.request, settle.output_tokens.0);
        }
        let namespace = self.names.namespace(&settle.fingerprint);
        let (proof, flaw) = self.proof(ledger.receipt_key(), &settle);
        let settlement = Settlement {
            delivered: proof.delivered,
            delivered_since: proof.since,
            flaw,
            tenant: settle.tenant,
            billing_id: settle.billing_id,
            attempt: settle.attempt,
            instance: settle.instance,
            request_id: Some(settle.request),
            fingerprint: settle.fingerprint,
            namespace: namespace.map(|namespace| namespace.name.clone()),
            prompt_tokens: settle.prompt_tokens,
            cached_tokens: settle.cached_tokens,
            attested_tokens: settle.attested_tokens,
            written_tokens: settle.written_tokens,
            output_tokens: settle.output_tokens,
            labels: settle.labels,
            detail: settle.detail,
            settled_at: self.clock.now(),
        };
        let (reply, settled) = oneshot::channel();
        ledger.submit(settlement, reply);
        answered(settled).await
    }

    /// Corrects what was settled, by a record of its own; durable when it returns.
    ///
    /// # Errors
    /// When there is nothing to correct, the correction contradicts the rule of settles or an earlier record, or the ledger can't
    /// take it.
    pub async fn correct(&self, correct: Correct) -> Result<Settled, Error> {
        let ledger = self.readable_ledger()?;
        let Correct { tenant, billing_id, corrects, reason, truth } = correct;
        let (reply, settled) = oneshot::channel();
        ledger.correct(Amendment { tenant, billing_id, corrects, reason, truth, at: self.clock.now() }, reply);
        answered(settled).await
    }

    /// The most that any proof says: receipts hold all that was delivered to their request so far, so that presenting
    /// two of them adds nothing. A receipt that proves nothing is told beside it: to a settle that is repeated it does not matter.
    fn proof(&self, key: &ReceiptKey, settle: &Settle) -> (Proof, Option<ReceiptFlaw>) {
        let mut most = self.deliveries.of(&settle.tenant, &settle.instance, &settle.request);
        for (at, bytes) in settle.receipts.iter().enumerate() {
            match proven(key, settle, bytes) {
                Ok(proof) if proof.delivered.total() > most.delivered.total() => most = proof,
                Ok(_) => {}
                Err(why) => return (most, Some(ReceiptFlaw { at, why })),
            }
        }
        (most, None)
    }

    /// Settled usage, summed over what the grouping does not name.
    ///
    /// # Errors
    /// When it has too many rows, and when the ledger can't be read.
    pub fn usage(&self, filter: &UsageFilter, by: &Grouping) -> Result<UsageSummary, Error> {
        self.readable_ledger()?.summary_by(filter, by).map_err(|error| match error {
            LedgerError::ManyRows => Error::Full(error.to_string()),
            error => broken(error),
        })
    }

    /// The cursors of an export: up to which record exporters have all, and the last.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn usage_cursors(&self) -> Result<Acknowledged, Error> {
        let ledger = self.readable_ledger()?;
        Ok(Acknowledged { through: ledger.acknowledged(), last: ledger.last_sequence().map_err(broken)? })
    }

    /// A page of records after a sequence; an empty one is the end.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn usage_records(&self, after: u64) -> Result<Vec<UsageRecord>, Error> {
        self.readable_ledger()?.records_after(after).map_err(|error| match error {
            LedgerError::Deleted { .. } => Error::Refused(error.to_string()),
            error => broken(error),
        })
    }

    /// How full the ledger is; `None` where it can't be read.
    #[must_use]
    pub fn ledger_fill(&self) -> Option<LedgerFill> {
        self.ledger.get().map(|ledger| ledger.fill())
    }

    /// Why the ledger takes no new settles now; `None` where it takes them.
    #[must_use]
    pub fn ledger_trouble(&self) -> Option<String> {
        self.ledger.trouble()
    }

    /// Has records deleted that exporters have and that are old enough. To be called now and then.
    pub fn sweep_usage(&self) {
        if let Some(ledger) = self.ledger.get() {
            // Nobody waits for the end. Where many settles wait it does not begin: the next one will.
            let (swept, _) = oneshot::channel();
            ledger.sweep(self.clock.now(), swept);
        }
    }

    /// Notes on disk that exporters have all records up to a sequence.
    ///
    /// # Errors
    /// For a sequence past the last record, and when the ledger can't be written.
    pub fn acknowledge_usage(&self, through: u64) -> Result<Acknowledged, Error> {
        self.readable_ledger()?.acknowledge(through).map_err(|error| match error {
            AcknowledgeError::Past { .. } => Error::Invalid(error.to_string()),
            AcknowledgeError::Ledger(error) => broken(error),
        })
    }

    fn readable_ledger(&self) -> Result<&Ledger, Error> {
        let missing = || {
            let why = self.ledger.trouble().unwrap_or_default();
            Error::Broken(format!("billing is refused while caching goes on: {why}"))
        };
        Ok(self.ledger.get().ok_or_else(missing)?)
    }
}

fn proven(key: &ReceiptKey, settle: &Settle, bytes: &[u8]) -> Result<Proof, ReceiptError> {
    let receipt = key.verify(bytes)?;
    receipt.check(&settle.tenant, (&settle.instance, &settle.request), &settle.fingerprint)?;
    Ok(Proof { delivered: receipt.delivered, since: receipt.since })
}

async fn answered(settled: oneshot::Receiver<Result<Settled, SettleError>>) -> Result<Settled, Error> {
    let stopped = || Error::Broken("the ledger has stopped: billing is refused while caching goes on".into());
    Ok(settled.await.map_err(|_| stopped())??)
}

fn broken(error: LedgerError) -> Error {
    Error::Broken(error.to_string())
}

impl From<SettleError> for Error {
    fn from(error: SettleError) -> Self {
        let message = error.to_string();
        match error {
            SettleError::ClaimsMore { .. } | SettleError::Forgotten { .. } | SettleError::Ahead { .. } => {
                Self::Refused(message)
            }
            SettleError::Conflict { .. }
            | SettleError::Consumed(_)
            | SettleError::Attempt { .. }
            | SettleError::NamesCorrection { .. }
            | SettleError::NamesSettle(_) => Self::Conflict(message),
            SettleError::Busy | SettleError::Full { .. } => Self::Full(message),
            SettleError::Unavailable(_) => Self::Broken(message),
            SettleError::NothingToCorrect(_) | SettleError::UnknownNamespace(_) => Self::Absent(message),
            SettleError::CorrectsCorrection(_)
            | SettleError::Unchanged(_)
            | SettleError::Reason(_)
            | SettleError::Receipt(_)
            | SettleError::Decode { .. }
            | SettleError::Classes { .. }
            | SettleError::ExceedsPrompt { .. }
            | SettleError::TooLarge { .. }
            | SettleError::Labels { .. } => Self::Invalid(message),
        }
    }
}
