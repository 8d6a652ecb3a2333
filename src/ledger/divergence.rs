//! Where kvtier and an engine disagree about what was skipped. A claim of more than was delivered is refused, and the
//! refusal is kept here; a claim of less is billed, and its record says both.

use std::collections::BTreeMap;

use super::codec::{DecodeError, Reader, Writer};
use super::{Delivered, Settlement, UsageRecord};
use crate::vocab::limits::DIVERGENCES_LISTED;
use crate::vocab::{BillingId, TenantName, Timestamp, TokenCount};

/// Version of a divergence's bytes.
const VERSION: u8 = 1;

/// One request about which the two disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Who would pay.
    pub tenant: TenantName,
    /// The request as the bill names it.
    pub billing_id: BillingId,
    /// When it was settled, or refused for the last time.
    pub at: Timestamp,
    /// Tokens that the engine says it skipped.
    pub claimed: TokenCount,
    /// Tokens that kvtier delivered; of a refused claim, those that no other billing id has.
    pub delivered: TokenCount,
}

/// Requests and tokens of one kind of disagreement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diverging {
    /// Requests.
    pub requests: u64,
    /// Tokens by which the two differ.
    pub tokens: u64,
}

/// All disagreements of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Divergences {
    /// Claims of more than was delivered: refused, by tenant.
    pub overclaimed: BTreeMap<TenantName, Diverging>,
    /// Delivered and not claimed: not billed, by tenant. Of the records that are kept.
    pub unclaimed: BTreeMap<TenantName, Diverging>,
    /// The largest, refused or billed.
    pub largest: Vec<Divergence>,
}

impl Divergence {
    pub(super) fn refused(settlement: &Settlement) -> Self {
        Self {
            tenant: settlement.tenant.clone(),
            billing_id: settlement.billing_id.clone(),
            at: settlement.settled_at,
            claimed: settlement.cached_tokens,
            delivered: settlement.delivered.total(),
        }
    }

    /// The same, where less was left to claim than the settle's proofs say.
    pub(super) fn of_claim(self, (claimed, delivered): (TokenCount, TokenCount)) -> Self {
        Self { claimed, delivered, ..self }
    }

    fn billed(record: &UsageRecord) -> Self {
        Self {
            tenant: record.tenant.clone(),
            billing_id: record.billing_id.clone(),
            at: record.settled_at,
            claimed: record.hit_tokens(),
            delivered: record.delivered.total(),
        }
    }

    /// Tokens by which the two differ.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.claimed.get().abs_diff(self.delivered.get())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.at.0, self.claimed.get(), self.delivered.get()];
        numbers.into_iter().fold(Writer::default().u8(VERSION), Writer::u64).finish()
    }

    /// From a row's key (without its kind) and value.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        let (mut words, mut row) = (Reader::new(key), Reader::new(value));
        let tenant = words.terminated(TenantName::parse)?;
        let billing_id = words.rest(BillingId::parse)?;
        if row.u8()? != VERSION {
            return Err(DecodeError { what: "a divergence version that this kvtier does not know", at: 0 });
        }
        let (at, claimed, delivered) = (Timestamp(row.u64()?), TokenCount(row.u64()?), TokenCount(row.u64()?));
        row.end()?;
        Ok(Self { tenant, billing_id, at, claimed, delivered })
    }
}

impl Divergences {
    /// Takes in a refused claim.
    pub(super) fn add_refused(&mut self, divergence: Divergence) {
        self.overclaimed.entry(divergence.tenant.clone()).or_default().add(&divergence);
        self.list(divergence);
    }

    /// Takes in a record, where it says that more was delivered than billed.
    pub(super) fn add_record(&mut self, record: &UsageRecord) {
        let Delivered { ram, nvme } = record.delivered;
        if ram.get().saturating_add(nvme.get()) > record.hit_tokens().get() {
            let divergence = Divergence::billed(record);
            self.unclaimed.entry(record.tenant.clone()).or_default().add(&divergence);
            self.list(divergence);
        }
    }

    fn list(&mut self, divergence: Divergence) {
        let at = self.largest.partition_point(|other| other.tokens() >= divergence.tokens());
        if at < DIVERGENCES_LISTED {
            self.largest.insert(at, divergence);
            self.largest.truncate(DIVERGENCES_LISTED);
        }
    }
}

impl Diverging {
    fn add(&mut self, divergence: &Divergence) {
        self.requests += 1;
        self.tokens = self.tokens.saturating_add(divergence.tokens());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::settlement;
    use super::*;

    fn of(billing_id: &str, claimed: u64) -> Divergence {
        let settlement = Settlement { cached_tokens: TokenCount(claimed), ..settlement("acme", billing_id) };
        Divergence::refused(&settlement)
    }

    #[test]
    fn a_row_reads_back() {
        let divergence = of("b-1", 700);
        assert_eq!(Divergence::decode(b"acme\0b-1", &divergence.encode()), Ok(divergence.clone()));
        assert!(Divergence::decode(b"acme\0b-1", &divergence.encode()[1..]).is_err());
    }

    #[test]
    fn the_largest_are_listed_and_all_are_summed() {
        let mut all = Divergences::default();
        for at in 0..100_u64 {
            all.add_refused(of(&format!("b-{at}"), 601 + at * 37 % 100));
        }
        let acme = all.overclaimed.values().next().copied().unwrap();
        assert_eq!((acme.requests, acme.tokens), (100, 5_050));
        let tokens: Vec<u64> = all.largest.iter().map(Divergence::tokens).collect();
        assert_eq!(tokens, (81..=100).rev().collect::<Vec<_>>());
    }
}
