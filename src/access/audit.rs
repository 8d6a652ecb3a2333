//! The record of refusals: one line each, and a count of those that a flood would have written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::vocab::limits::REFUSALS_LOGGED_A_SECOND;

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Nobody that is known: no token, an unknown or expired one, no certificate, no known user.
    Unauthenticated,
    /// The role has not the permission.
    Role,
    /// The tenant is not the caller's.
    Tenant,
    /// The grant is not valid, or says otherwise than the request.
    Grant,
    /// A session or instance of another principal.
    Session,
}

impl Refusal {
    /// Its name in counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "refused_unauthenticated",
            Self::Role => "refused_role",
            Self::Tenant => "refused_tenant",
            Self::Grant => "refused_grant",
            Self::Session => "refused_session",
        }
    }
}

/// What is written of a refusal. It must hold no secret.
#[derive(Clone, Copy)]
pub struct Refused<'a> {
    /// What kind of it.
    pub why: Refusal,
    /// Who asked, or `nobody`.
    pub principal: &'a str,
    /// From where.
    pub peer: &'a dyn fmt::Display,
    /// For what.
    pub method: &'a str,
    /// Why not: the sentence that the caller is told.
    pub reason: &'a str,
}

/// Writes refusals down.
#[derive(Debug, Default)]
pub struct Audit(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    refused: BTreeMap<Refusal, u64>,
    second: u64,
    logged: u64,
    left_out: u64,
}

impl Audit {
    /// Somebody was refused, at this second of the clock.
    pub fn refused(&self, refused: &Refused<'_>, second: u64) {
        let Refused { why, principal, peer, method, reason } = *refused;
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.refused.entry(why).or_insert(0) += 1;
        if counts.second != second {
            let left_out = std::mem::take(&mut counts.left_out);
            (counts.second, counts.logged) = (second, 0);
            if left_out > 0 {
                tracing::warn!(target: "kvtier::access", left_out, "refusals that are not logged one by one");
            }
        }
        if counts.logged >= REFUSALS_LOGGED_A_SECOND {
            counts.left_out += 1;
            return;
        }
        counts.logged += 1;
        tracing::warn!(target: "kvtier::access", principal, %peer, method, why = why.name(), reason, "refused");
    }

    /// How often each happened since the start.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.refused.iter().map(|(why, count)| (why.name(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted_however_many_are_logged() {
        let audit = Audit::default();
        let refused = |why| Refused { why, principal: "a", peer: &"peer", method: "/x", reason: "why" };
        for at in 0..1_000 {
            audit.refused(&refused(Refusal::Tenant), at / 500);
        }
        audit.refused(&refused(Refusal::Role), 9);
        assert_eq!(audit.counts(), [("refused_role", 1), ("refused_tenant", 1_000)]);
    }
}
