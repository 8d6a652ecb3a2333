//! What can go wrong here: opening and reading the ledger, and settling.

use std::path::PathBuf;

use super::{Claim, DecodeError, ReceiptFlaw, UsageRecord};
use crate::vocab::limits::SUMMARY_ROWS_MAX;
use crate::vocab::{BillingId, Fingerprint, TokenCount};

/// The ledger can't be opened or read. Nothing is repaired, rebuilt or deleted: billing is refused until a person has
/// looked, while caching goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The folder can't be made or listed.
    #[error("ledger folder {path}: {detail}")]
    Folder {
        /// The ledger's folder.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// Another process has it open.
    #[error("ledger {path} is in use by another process ({detail})")]
    InUse {
        /// The ledger's folder.
        path: PathBuf,
        /// What the database said.
        detail: String,
    },
    /// There is something, and it is no readable ledger.
    #[error("ledger {path} is unreadable: {detail}; it was left as it is: restore it from a copy, or move it away")]
    Unreadable {
        /// The ledger's folder.
        path: PathBuf,
        /// What the database said.
        detail: String,
    },
    /// The file system does not let it be opened now; what is there may be whole.
    #[error("ledger {path} can't be opened now: {detail}")]
    Refused {
        /// The ledger's folder.
        path: PathBuf,
        /// What the database said.
        detail: String,
    },
    /// A write has failed, and it was not opened again since: nothing was tried.
    #[error("the ledger takes no writes: {0}")]
    Failing(String),
    /// It was written by a later kvtier.
    #[error(
        "ledger {path} has format {found}, this kvtier knows {known}: use the version that wrote it, or a later one"
    )]
    Newer {
        /// The ledger's folder.
        path: PathBuf,
        /// The format in the folder.
        found: u32,
        /// The format of this program.
        known: u32,
    },
    /// The cursor is before what was deleted.
    #[error(
        "after is {after}, it must be at least {through}: the records up to there were acknowledged, and deleted when they \
         were old enough"
    )]
    Deleted {
        /// The cursor.
        after: u64,
        /// Sequence of the last record that was deleted.
        through: u64,
    },
    /// A summary by so many users, keys or hours is no summary.
    #[error("the summary has more than {SUMMARY_ROWS_MAX} rows: narrow it by tenant or hours, or group it by less")]
    ManyRows,
    /// A read or write failed after it was opened.
    #[error("ledger {doing}: {detail}")]
    Database {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        detail: String,
    },
    /// A row does not read as what its key says.
    #[error("ledger {row} row {key}: {source}")]
    Row {
        /// Which kind of row.
        row: &'static str,
        /// Its key, escaped.
        key: String,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl LedgerError {
    /// Whether it may open when it is tried again. Not so where a person has to look: what is damaged, or a later version's,
    /// is not touched.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Unreadable { .. } | Self::Newer { .. } | Self::Row { .. })
    }
}

/// Why a settle recorded nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// More tokens are claimed as cached than were delivered.
    #[error("cached_tokens is {claimed}, but only {delivered} were delivered to this request")]
    ClaimsMore {
        /// What the settle says.
        claimed: TokenCount,
        /// What the daemon recorded.
        delivered: TokenCount,
    },
    /// Another billing id has the delivery.
    #[error(
        "cached_tokens is {}, but what was delivered to request_id {} of instance {} is billed by {} (record {}): one delivery is \
         on one bill; settle with cached_tokens 0, or correct {} first. A request_id may come again once the records of its \
         first use are gone", .0.claimed, .0.request_id, .0.instance, .0.owner, .0.sequence, .0.owner
    )]
    Consumed(Box<Claim>),
    /// The delivery is older than records are kept.
    #[error(
        "cached_tokens is {claimed} of a delivery so old that records of its time are gone (serve --usage-retention): nobody \
         knows whether it is billed; settle with cached_tokens 0"
    )]
    Forgotten {
        /// What the settle says.
        claimed: TokenCount,
    },
    /// The delivery is dated after its settle.
    #[error(
        "cached_tokens is {claimed} of a delivery that is dated more than an hour after now: the daemon's clock went back; \
         settle with cached_tokens 0"
    )]
    Ahead {
        /// What the settle says.
        claimed: TokenCount,
    },
    /// A receipt proves nothing.
    #[error(transparent)]
    Receipt(#[from] ReceiptFlaw),
    /// The layout is not known here.
    #[error("fingerprint {0} is not registered: call RegisterNamespace first")]
    UnknownNamespace(Fingerprint),
    /// A decode node claims hits: only what was delivered to the prefill node is billed.
    #[error(
        "cached_tokens is {claimed} with role decode, it must be 0: what a decode node loads is not billed; settle the pair \
         once, with the prefill node's instance and request_id"
    )]
    Decode {
        /// What the settle says.
        claimed: TokenCount,
    },
    /// The classes are more than what was stored.
    #[error("written_by_class adds up to {sum}, it must be at most written_tokens, {written}")]
    Classes {
        /// The sum of the classes.
        sum: u64,
        /// `written_tokens`.
        written: u64,
    },
    /// The parts are more than the prompt.
    #[error("cached_tokens ({cached}) and attested_tokens ({attested}) add up to more than prompt_tokens ({prompt})")]
    ExceedsPrompt {
        /// `cached_tokens`.
        cached: u64,
        /// `attested_tokens`.
        attested: u64,
        /// `prompt_tokens`.
        prompt: u64,
    },
    /// A number that no request can have.
    #[error("{field} is {value}, it must be at most {limit}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many labels, or one that is too long.
    #[error("labels must be at most 16, each key 1 to 128 bytes and each value at most 128 bytes: {0}")]
    Labels(String),
    /// The billing id was settled before with other numbers. The first record stands.
    #[error("{} was settled before with another {field}: the first record, sequence {}, stands", first.billing_id, first.sequence)]
    Conflict {
        /// The first field that differs.
        field: &'static str,
        /// What was recorded.
        first: Box<UsageRecord>,
    },
    /// The billing id was settled with another attempt. The first record stands.
    #[error(
        "attempt is {attempt}, but {} was settled with attempt {} (record {}), which stands: {}",
        first.billing_id, first.attempt, first.sequence, attempt_rule(*attempt, first.attempt)
    )]
    Attempt {
        /// What the settle says.
        attempt: u32,
        /// What was recorded.
        first: Box<UsageRecord>,
    },
    /// The billing id of a settle is a correction's.
    #[error(
        "billing_id is {}, which names a correction of {corrects} (record {}): a request needs a billing_id of its own",
        first.billing_id, first.sequence
    )]
    NamesCorrection {
        /// What that corrects.
        corrects: BillingId,
        /// What was recorded.
        first: Box<UsageRecord>,
    },
    /// The billing id of a correction is a settle's.
    #[error(
        "billing_id is {}, which names a settled request (record {}): a correction needs a billing_id of its own",
        .0.billing_id, .0.sequence
    )]
    NamesSettle(Box<UsageRecord>),
    /// Nobody has settled what is to be corrected, or its record is gone.
    #[error(
        "corrects is {0}: nobody has settled it here, or its record was acknowledged and is too old (serve --usage-retention)"
    )]
    NothingToCorrect(BillingId),
    /// Corrections are corrected by another correction of the same request.
    #[error("corrects is {0}, which is itself a correction: correct the request that it names")]
    CorrectsCorrection(BillingId),
    /// The request comes to this already.
    #[error("the correction changes nothing: {0} stands so already")]
    Unchanged(BillingId),
    /// A correction without a reason, or with a story.
    #[error("reason must be 1 to 128 bytes, it has {0}")]
    Reason(usize),
    /// The ledger has reached its bound: what was settled before is still answered.
    #[error(
        "the ledger takes {bytes} bytes of at most {bound}: new settles are refused until records are exported, acknowledged \
         and old enough to go, or it is given more (--ledger-max)"
    )]
    Full {
        /// Bytes of its folder.
        bytes: u64,
        /// The bound.
        bound: u64,
    },
    /// The ledger can't keep up: try again later, with the same billing id.
    #[error("the ledger has too many settles waiting; try again with the same billing_id")]
    Busy,
    /// The ledger takes no settles until it is opened again. Whether this one was recorded is then known by settling it
    /// again.
    #[error("the ledger takes no settles: {0}; settle again with the same billing_id once it does")]
    Unavailable(String),
}

impl SettleError {
    /// Of a refused claim to hits: what was claimed, and how much of it there was to claim.
    pub(super) fn claim(&self) -> Option<(TokenCount, TokenCount)> {
        match self {
            Self::ClaimsMore { claimed, delivered } => Some((*claimed, *delivered)),
            Self::Consumed(claim) => Some((claim.claimed, TokenCount::ZERO)),
            Self::Forgotten { claimed } | Self::Ahead { claimed } => Some((*claimed, TokenCount::ZERO)),
            _ => None,
        }
    }
}

fn attempt_rule(attempt: u32, first: u32) -> &'static str {
    if attempt < first {
        "an attempt that was given up is not billed under the request's billing_id"
    } else {
        "a request is billed once; to bill a later attempt in its place, refund this one (CorrectUsage) and settle that one under a \
         billing_id of its own"
    }
}

/// Why an acknowledgement is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// There are no such records.
    #[error("through is {through}, the last record is {last}: acknowledge what was exported")]
    Past {
        /// What was acknowledged.
        through: u64,
        /// Sequence of the last record.
        last: u64,
    },
    /// It can't be written down.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}
