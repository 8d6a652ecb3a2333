//! The ledger's place in the cache: taken at the start, or later by one that could not be opened then.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Cache;
use super::start::quotas;
use crate::ledger::{Ledger, LedgerError};

/// The place.
pub(super) struct Place {
    ledger: OnceLock<Arc<Ledger>>,
    /// Why it is empty.
    missing: Mutex<Option<LedgerError>>,
}

impl Place {
    pub(super) fn of(ledger: Option<Arc<Ledger>>) -> Self {
        Self { ledger: ledger.map_or_else(OnceLock::new, OnceLock::from), missing: Mutex::default() }
    }

    pub(super) fn get(&self) -> Option<&Arc<Ledger>> {
        self.ledger.get()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        match self.get() {
            Some(ledger) => ledger.trouble(),
            None => Some(self.missing().map_or_else(|| "there is no ledger".into(), |error| error.to_string())),
        }
    }

    fn missing(&self) -> Option<LedgerError> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn miss(&self, error: LedgerError) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl Cache {
    /// Whether the ledger could not be opened, and may be later.
    #[must_use]
    pub fn waits_for_ledger(&self) -> bool {
        self.ledger.get().is_none() && self.ledger.missing().is_some_and(|error| error.may_pass())
    }

    /// It could not be opened, and why.
    pub fn miss_ledger(&self, error: LedgerError) {
        self.ledger.miss(error);
    }

    /// It was tried to be opened again: from here on it takes settles, and the quotas that it keeps are in force. One that is
    /// there already stays.
    pub async fn adopt_ledger(&self, opened: Result<Ledger, LedgerError>) {
        let ledger = match opened {
            Ok(ledger) => Arc::new(ledger),
            Err(error) => return self.ledger.miss(error),
        };
        // Nobody changes a quota meanwhile.
        let _turn = self.quotas.lock().await;
        if self.ledger.ledger.set(Arc::clone(&ledger)).is_err() {
            return;
        }
        for (account, quota) in quotas(&ledger, &self.names) {
            if let Err(error) = self.enforce(account, quota).await {
                tracing::error!(account = account.0, %error, "its quota can't be kept: set it again");
            }
        }
        tracing::warn!("the ledger is open now, and takes settles; quotas that it keeps are in force");
    }
}
