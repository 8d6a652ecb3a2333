//! Settles and corrections that were refused, by reason, since the start.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::SettleError;

/// How many were refused, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The ledger could not be read or written.
    pub unavailable: u64,
    /// The ledger was at its bound.
    pub full: u64,
    /// Too many waited.
    pub busy: u64,
    /// More was claimed than was delivered.
    pub claims_more: u64,
    /// It contradicts a record: its billing id was settled before with other numbers, or another billing id has its delivery.
    pub conflict: u64,
    /// It broke another rule.
    pub invalid: u64,
}

impl Refused {
    /// Each with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        let Self { unavailable, full, busy, claims_more, conflict, invalid } = *self;
        [
            ("unavailable", unavailable),
            ("full", full),
            ("busy", busy),
            ("claims_more", claims_more),
            ("conflict", conflict),
            ("invalid", invalid),
        ]
    }
}

/// Where they are counted.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    unavailable: AtomicU64,
    full: AtomicU64,
    busy: AtomicU64,
    claims_more: AtomicU64,
    conflict: AtomicU64,
    invalid: AtomicU64,
}

impl Refusals {
    pub(super) fn count(&self, error: &SettleError) {
        let counter = match error {
            SettleError::Unavailable(_) => &self.unavailable,
            SettleError::Full { .. } => &self.full,
            SettleError::Busy => &self.busy,
            SettleError::ClaimsMore { .. } => &self.claims_more,
            SettleError::Conflict { .. }
            | SettleError::Consumed(_)
            | SettleError::Attempt { .. }
            | SettleError::NamesCorrection { .. } => &self.conflict,
            _ => &self.invalid,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn get(&self) -> Refused {
        Refused {
            unavailable: self.unavailable.load(Relaxed),
            full: self.full.load(Relaxed),
            busy: self.busy.load(Relaxed),
            claims_more: self.claims_more.load(Relaxed),
            conflict: self.conflict.load(Relaxed),
            invalid: self.invalid.load(Relaxed),
        }
    }
}
