//! What was delivered to each request, until it is settled.
//!
//! Remembered for the most recent requests only; a request that settles later presents its receipts instead.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use crate::ledger::Delivered;
use crate::vocab::limits::DELIVERIES_MAX;
use crate::vocab::{InstanceId, RequestId, TokenCount};

/// Instance and request, as digests: 32 bytes instead of two words.
type RequestKey = (u128, u128);

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    delivered: Delivered,
    /// Blocks of the request counted so far, from the chain's start: what is fetched again is not delivered twice.
    through: u32,
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
    pub(super) fn add(&self, instance: &InstanceId, request: &RequestId, sent: &Sent, block_tokens: u32) -> Delivered {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get_or_insert_mut((instance.digest(), request.digest()), Record::default);
        for (block, from_nvme) in (sent.depth..).zip(&sent.from_nvme) {
            if block < record.through {
                continue;
            }
            record.through = block + 1;
            let tokens = TokenCount(u64::from(block_tokens));
            if *from_nvme {
                record.delivered.nvme += tokens;
            } else {
                record.delivered.ram += tokens;
            }
        }
        record.delivered
    }

    /// What was delivered to the request, as far as remembered.
    pub(super) fn of(&self, instance: &InstanceId, request: &RequestId) -> Delivered {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.peek(&(instance.digest(), request.digest())).map(|record| record.delivered).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_fetched_twice_is_delivered_once() {
        let deliveries = Deliveries::default();
        let (instance, request) = (InstanceId::parse("i").unwrap(), RequestId::parse("r").unwrap());
        let first = Sent { from_nvme: vec![false, true], depth: 0 };
        let again = Sent { from_nvme: vec![false, false, true], depth: 0 };
        deliveries.add(&instance, &request, &first, 64);
        let delivered = deliveries.add(&instance, &request, &again, 64);
        assert_eq!(delivered, Delivered { ram: TokenCount(64), nvme: TokenCount(128) });
        assert_eq!(deliveries.of(&instance, &RequestId::parse("other").unwrap()).total(), TokenCount(0));
    }
}
