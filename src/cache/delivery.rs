//! What was delivered to each request, until it is settled.
//!
//! Remembered for the most recent requests only; a request that settles later presents its receipts instead. Whose bill has a
//! delivery is the ledger's to know.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use crate::ledger::Delivered;
use crate::vocab::limits::{DELIVERIES_MAX, DELIVERY_CLOCK_SLACK};
use crate::vocab::{InstanceId, RequestId, TenantName, Timestamp, TokenCount};

/// Tenant, instance and request, as digests: 48 bytes instead of three words. Instances and requests have names that others can
/// guess: the tenant is there so that nobody settles, or is told of, what another's request was delivered.
type RequestKey = (u128, u128, u128);

#[derive(Clone, Copy, Debug)]
struct Record {
    delivered: Delivered,
    /// When the first of it was.
    since: Timestamp,
    /// Blocks of the request counted so far, from the chain's start: what is fetched again is not delivered twice.
    through: u32,
    /// The first block that the request has stored itself: what it loads from there on, because it was preempted and
    /// prefills again, is no delivery. Blocks of others behind it are missed, too: the meter may miss.
    own_from: u32,
}

impl Default for Record {
    fn default() -> Self {
        Self { delivered: Delivered::default(), since: Timestamp::default(), through: 0, own_from: u32::MAX }
    }
}

/// All that was delivered to a request so far, as far as remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) delivered: Delivered,
    /// When the first of it was.
    pub(super) since: Timestamp,
}

/// When something is delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    pub(super) now: Timestamp,
    /// Deliveries up to then are billed to nobody any more: a request that has one is over, and its name is another's now.
    pub(super) forgotten: Option<Timestamp>,
}

/// Deliveries by request.
#[derive(Debug)]
pub(super) struct Deliveries(Mutex<LruCache<RequestKey, Record>>);

impl Default for Deliveries {
    fn default() -> Self {
        let most = NonZeroUsize::new(DELIVERIES_MAX).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(LruCache::new(most)))
    }
}

/// Whole blocks that a fetch has sent, by the tier they came from, in prefix order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// For each block from `depth` on, whether it came from NVMe.
    pub(super) from_nvme: Vec<bool>,
    /// Blocks of the chain before the first one sent.
    pub(super) depth: u32,
}

impl Deliveries {
    /// Counts what a fetch has sent; all that was delivered to the request so far.
    pub(super) fn add(
        &self,
        (tenant, instance, request): (&TenantName, &InstanceId, &RequestId),
        sent: &Sent,
        block_tokens: u32,
        age: Age,
    ) -> Proof {
        let key = (tenant.digest(), instance.digest(), request.digest());
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get_or_insert_mut(key, Record::default);
        let is_any = record.delivered != Delivered::default();
        if is_any && age.forgotten.is_some_and(|forgotten| record.since <= forgotten + DELIVERY_CLOCK_SLACK) {
            *record = Record::default();
        }
        if record.delivered == Delivered::default() {
            record.since = age.now;
        }
        let end = sent.depth.saturating_add(u32::try_from(sent.from_nvme.len()).unwrap_or(u32::MAX));
        let new = record.through.max(sent.depth)..record.own_from.min(end);
        if !new.is_empty() {
            // One pass that the processor does many at a time: all requests share the lock.
            let at = |block: u32| (block - sent.depth) as usize;
            let nvme = sent.from_nvme[at(new.start)..at(new.end)].iter().filter(|nvme| **nvme).count() as u64;
            let tokens = |blocks: u64| TokenCount(blocks * u64::from(block_tokens));
            record.delivered.nvme += tokens(nvme);
            record.delivered.ram += tokens(u64::from(new.end - new.start) - nvme);
            record.through = new.end;
        }
        Proof { delivered: record.delivered, since: record.since }
    }

    /// The request of these digests stores blocks of its own from this one of its chain on.
    pub(super) fn wrote(&self, tenant: u128, (instance, request): (u128, u128), from: u32) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get_or_insert_mut((tenant, instance, request), Record::default);
        record.own_from = record.own_from.min(from);
    }

    /// What was delivered to the request, as far as remembered.
    pub(super) fn of(&self, tenant: &TenantName, instance: &InstanceId, request: &RequestId) -> Proof {
        let key = (tenant.digest(), instance.digest(), request.digest());
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = |record: &Record| Proof { delivered: record.delivered, since: record.since };
        records.peek(&key).map(proof).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> (TenantName, InstanceId, RequestId) {
        (TenantName::parse("t").unwrap(), InstanceId::parse("i").unwrap(), RequestId::parse("r").unwrap())
    }

    const YOUNG: Age = Age { now: Timestamp(5), forgotten: None };

    // Its first use can't be billed any more, and must not keep the second from it.
    #[test]
    fn a_name_that_comes_again_when_its_first_use_is_forgotten_is_another_request() {
        let deliveries = Deliveries::default();
        let (tenant, instance, request) = words();
        let hour = DELIVERY_CLOCK_SLACK;
        let add = |now, forgotten| {
            let sent = Sent { from_nvme: vec![false], depth: 0 };
            let age = Age { now, forgotten };
            deliveries.add((&tenant, &instance, &request), &sent, 64, age)
        };
        let first = add(Timestamp(5), None);
        assert_eq!((first.delivered.total(), first.since), (TokenCount(64), Timestamp(5)));
        assert_eq!(add(Timestamp(9), None), first, "the same block again");
        let young = Timestamp(5) + hour;
        let second = add(young + hour, Some(Timestamp(5)));
        assert_eq!((second.delivered.total(), second.since), (TokenCount(64), young + hour));
        assert_eq!(add(young + hour + hour, Some(Timestamp(6))), second, "which is young");
    }

    #[test]
    fn a_delivery_is_its_tenants() {
        let deliveries = Deliveries::default();
        let (tenant, instance, request) = words();
        deliveries.add((&tenant, &instance, &request), &Sent { from_nvme: vec![false], depth: 0 }, 64, YOUNG);
        assert_eq!(deliveries.of(&tenant, &instance, &request).delivered.total(), TokenCount(64));
        let other = TenantName::parse("u").unwrap();
        assert_eq!(deliveries.of(&other, &instance, &request).delivered.total(), TokenCount(0));
    }

    #[test]
    fn a_block_fetched_twice_is_delivered_once() {
        let deliveries = Deliveries::default();
        let (tenant, instance, request) = words();
        let first = Sent { from_nvme: vec![false, true], depth: 0 };
        let again = Sent { from_nvme: vec![false, false, true], depth: 0 };
        deliveries.add((&tenant, &instance, &request), &first, 64, YOUNG);
        let Proof { delivered, .. } = deliveries.add((&tenant, &instance, &request), &again, 64, YOUNG);
        assert_eq!(delivered, Delivered { ram: TokenCount(64), nvme: TokenCount(128) });
        assert_eq!(
            deliveries.of(&tenant, &instance, &RequestId::parse("other").unwrap()).delivered.total(),
            TokenCount(0)
        );
    }

    // Preempted, a request prefills again and loads what it has stored itself.
    #[test]
    fn what_a_request_has_stored_itself_is_not_delivered_to_it() {
        let deliveries = Deliveries::default();
        let (tenant, instance, request) = words();
        let sent = |blocks| Sent { from_nvme: vec![false; blocks], depth: 0 };
        deliveries.add((&tenant, &instance, &request), &sent(2), 64, YOUNG);
        deliveries.wrote(tenant.digest(), (instance.digest(), request.digest()), 2);
        deliveries.wrote(tenant.digest(), (instance.digest(), request.digest()), 5);
        let resumed = deliveries.add((&tenant, &instance, &request), &sent(6), 64, YOUNG);
        assert_eq!(resumed.delivered.total(), TokenCount(128), "those of the first prefill");
        let other = deliveries.add((&tenant, &instance, &RequestId::parse("other").unwrap()), &sent(6), 64, YOUNG);
        assert_eq!(other.delivered.total(), TokenCount(384), "for others they are a hit");
    }
}
