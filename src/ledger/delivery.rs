//! One delivery, one bill. What the ledger knows of a delivery (of a tenant, an instance and a request): how much of it
//! records have told of, and which billing id has its hits. Written with the record, in the same synced batch, and decided
//! on the writer's thread, so that of two ids that race one is the first.
//!
//! Only who bills hits consumes a delivery. A correction to no hits frees it again.

use super::codec::{DecodeError, Reader, Writer};
use super::{Delivered, SettleError, Settlement, UsageRecord};
use crate::vocab::limits::DELIVERY_CLOCK_SLACK;
use crate::vocab::{BillingId, InstanceId, RequestId, TenantName, Timestamp, TokenCount};

/// Version of a delivery's bytes.
const VERSION: u8 = 1;

/// Stands for tenant, instance and request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DeliveryKey(pub(super) [u8; 16]);

/// What is known of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delivery {
    /// What records have told of so far: the most that may be billed.
    pub(super) told: Delivered,
    /// Sequence of the last record that changed this. It goes with that record.
    pub(super) last: u64,
    /// Whose hits it is.
    pub(super) owner: Option<Owner>,
}

/// The request that bills a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Its record, the settle's own, also where a correction has taken the delivery again.
    pub(super) sequence: u64,
    pub(super) billing_id: BillingId,
}

impl DeliveryKey {
    pub(super) fn of(tenant: &TenantName, instance: &InstanceId, request_id: &RequestId) -> Self {
        let words = Writer::default().word(tenant.as_str()).word(instance.as_str()).word(request_id.as_str()).finish();
        let hash = blake3::derive_key("kvtier 2026 delivery", &words);
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self(key)
    }

    pub(super) fn settled(settlement: &Settlement) -> Option<Self> {
        let request_id = settlement.request_id.as_ref()?;
        Some(Self::of(&settlement.tenant, &settlement.instance, request_id))
    }

    /// Nothing of a record that does not say which request it was: those of versions before.
    pub(super) fn recorded(record: &UsageRecord) -> Option<Self> {
        let request_id = record.request_id.as_ref()?;
        Some(Self::of(&record.tenant, &record.instance, request_id))
    }
}

/// Whether a proof's date can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dated {
    Well,
    /// Records of its time are gone, and with them the knowledge whether it is billed.
    Long,
    /// It is from a time that was not yet: what is not known to be forgotten one day is not taken.
    Ahead,
}

impl Dated {
    fn of(settlement: &Settlement, forgotten: Option<Timestamp>) -> Self {
        let since = settlement.delivered_since;
        if since > settlement.settled_at + DELIVERY_CLOCK_SLACK {
            Self::Ahead
        } else if forgotten.is_some_and(|forgotten| since <= forgotten + DELIVERY_CLOCK_SLACK) {
            Self::Long
        } else {
            Self::Well
        }
    }
}

impl Delivery {
    /// The record of a settle, and what is known of its delivery from then on, where that changes. `forgotten` is the time up to
    /// which deliveries may have been billed by records that are gone.
    pub(super) fn settle(
        known: Option<Self>,
        mut settlement: Settlement,
        sequence: u64,
        forgotten: Option<Timestamp>,
    ) -> Result<(UsageRecord, Option<Self>), SettleError> {
        settlement.check()?;
        let (claimed, known) = (settlement.cached_tokens, known.unwrap_or_default());
        if let (Some(owner), Some(request_id), true) =
            (&known.owner, &settlement.request_id, claimed > TokenCount::ZERO)
        {
            return Err(owner.refuses(claimed, &settlement.instance, request_id));
        }
        let dated = Dated::of(&settlement, forgotten);
        let proven = if dated == Dated::Well { settlement.delivered } else { Delivered::default() };
        let (new, told) = known.told.grown(proven);
        settlement.delivered = told;
        let mut record = UsageRecord::of(settlement, sequence).map_err(|error| match (dated, error) {
            (Dated::Long, SettleError::ClaimsMore { claimed, .. }) => SettleError::Forgotten { claimed },
            (Dated::Ahead, SettleError::ClaimsMore { claimed, .. }) => SettleError::Ahead { claimed },
            (_, error) => error,
        })?;
        let (hit, is_told) = (record.hit(), record.delivered != Delivered::default());
        if !is_told || (new == Delivered::default() && hit == Delivered::default()) {
            record.delivered = Delivered::default();
            return Ok((record, None));
        }
        // What another record has told of is not told twice, but for what this one bills of it.
        record.delivered = Delivered { ram: new.ram.max(hit.ram), nvme: new.nvme.max(hit.nvme) };
        let owner = match claimed {
            TokenCount::ZERO => known.owner,
            _ => Some(Owner { sequence, billing_id: record.billing_id.clone() }),
        };
        Ok((record, Some(Self { told, last: sequence, owner })))
    }

    /// The most that a correction may say of a record's hits.
    pub(super) fn most(known: Option<&Self>, first: &UsageRecord, hits: TokenCount) -> Delivered {
        match known.filter(|known| known.owner.as_ref().is_none_or(|owner| owner.sequence == first.sequence)) {
            // Within what its record says the shares of the tiers stay what they were.
            Some(known) if hits > first.delivered.total() => known.told,
            _ => first.delivered,
        }
    }

    /// What is known of it once the record `first` comes to `hits` by the correction of this sequence, where that changes.
    pub(super) fn correct(
        known: Option<Self>,
        first: &UsageRecord,
        hits: TokenCount,
        sequence: u64,
    ) -> Result<Option<Self>, SettleError> {
        let (Some(known), Some(request_id)) = (known, &first.request_id) else { return Ok(None) };
        let is_firsts = known.owner.as_ref().is_some_and(|owner| owner.sequence == first.sequence);
        let owner = match (&known.owner, hits) {
            (Some(_), TokenCount::ZERO) if is_firsts => None,
            (Some(owner), hits) if !is_firsts && hits > TokenCount::ZERO => {
                return Err(owner.refuses(hits, &first.instance, request_id));
            }
            (None, hits) if hits > TokenCount::ZERO => {
                Some(Owner { sequence: first.sequence, billing_id: first.billing_id.clone() })
            }
            _ => return Ok(None),
        };
        Ok(Some(Self { owner, last: sequence, ..known }))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let sequence = self.owner.as_ref().map_or(0, |owner| owner.sequence);
        let numbers = [self.told.ram.get(), self.told.nvme.get(), self.last, sequence];
        let row = numbers.into_iter().fold(Writer::default().u8(VERSION), Writer::u64);
        match &self.owner {
            Some(owner) => row.word(owner.billing_id.as_str()),
            None => row,
        }
        .finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut row = Reader::new(bytes);
        if row.u8()? != VERSION {
            return Err(DecodeError { what: "a delivery version that this kvtier does not know", at: 0 });
        }
        let told = Delivered { ram: TokenCount(row.u64()?), nvme: TokenCount(row.u64()?) };
        let (last, sequence) = (row.u64()?, row.u64()?);
        let owner = match sequence {
            0 => None,
            sequence => Some(Owner { sequence, billing_id: row.parsed(BillingId::parse)? }),
        };
        row.end()?;
        Ok(Self { told, last, owner })
    }
}

/// A claim to a delivery that another billing id has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it says.
    pub claimed: TokenCount,
    /// Which engine.
    pub instance: InstanceId,
    /// Which request of that engine.
    pub request_id: RequestId,
    /// Who has it.
    pub owner: BillingId,
    /// The owner's record.
    pub sequence: u64,
}

impl Owner {
    fn refuses(&self, claimed: TokenCount, instance: &InstanceId, request_id: &RequestId) -> SettleError {
        SettleError::Consumed(Box::new(Claim {
            claimed,
            instance: instance.clone(),
            request_id: request_id.clone(),
            owner: self.billing_id.clone(),
            sequence: self.sequence,
        }))
    }
}
