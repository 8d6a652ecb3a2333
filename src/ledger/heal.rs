//! When the writer opens a database again that could not be written, and what of that is told: that it can't, and that it can.

use std::time::{Duration, Instant};

use super::LedgerError;
use super::refused::Refusals;
use super::store::Store;
use crate::vocab::limits::{LEDGER_HEAL_PAUSE, LEDGER_HEAL_PAUSE_MAX};

/// The writer's way out of trouble.
#[derive(Default)]
pub(super) struct Healer {
    trying: Option<Trying>,
    /// Settles that had been refused when all was well.
    refused: u64,
}

struct Trying {
    pause: Duration,
    /// Never again where a person has to look.
    next: Option<Instant>,
    attempts: u64,
}

impl Healer {
    /// How long the writer may wait for a job: nothing where it is in no trouble, or in one that does not pass.
    pub(super) fn wait(&self) -> Option<Duration> {
        Some(self.trying.as_ref()?.next?.saturating_duration_since(Instant::now()))
    }

    /// Whether the database is to be opened again now.
    pub(super) fn is_due(&mut self, store: &Store, refusals: &Refusals) -> bool {
        let now = Instant::now();
        let begin = || Trying { pause: LEDGER_HEAL_PAUSE, next: Some(now + LEDGER_HEAL_PAUSE), attempts: 0 };
        if self.trying.is_none() && store.trouble().is_none() {
            self.refused = refusals.get().unavailable;
            return false;
        }
        self.trying.get_or_insert_with(begin).next.is_some_and(|next| next <= now)
    }

    /// It was tried, and ended so.
    pub(super) fn tried(&mut self, store: &Store, tried: Result<(), LedgerError>, refusals: &Refusals) {
        let Some(trying) = &mut self.trying else { return };
        trying.attempts += 1;
        let again = match tried {
            Ok(()) => {
                if let Some(span) = store.healed() {
                    let (seconds, attempts) = (span.as_secs_f64(), trying.attempts);
                    let refused = refusals.get().unavailable.saturating_sub(self.refused);
                    tracing::warn!(seconds, refused, attempts, "the ledger can be written again, and takes settles");
                    self.trying = None;
                    return;
                }
                true
            }
            Err(error) if error.may_pass() => true,
            Err(error) => {
                tracing::error!(%error, "the ledger takes no settles until a person has looked, and the daemon is restarted");
                false
            }
        };
        trying.pause = (trying.pause * 2).min(LEDGER_HEAL_PAUSE_MAX);
        trying.next = again.then(|| Instant::now() + trying.pause);
    }
}
