//! Settlements for this room's tests.

use super::{Delivered, Settlement};
use crate::vocab::{
    BillingId, Fingerprint, InstanceId, NamespaceName, RequestId, TenantName, Timestamp, TokenCount, UsageDetail,
};

/// 2024-01-01T00:00:00Z: the start of hour 473,352.
pub(super) const NEW_YEAR: Timestamp = Timestamp(1_704_067_200_000);

/// A settle of 1,000 prompt tokens of which 600 were hits, 100 of them from NVMe; each billing id has a delivery of its own.
pub(super) fn settlement(tenant: &str, billing_id: &str) -> Settlement {
    Settlement {
        tenant: TenantName::parse(tenant).unwrap(),
        billing_id: BillingId::parse(billing_id).unwrap(),
        attempt: 1,
        instance: InstanceId::parse("engine-1").unwrap(),
        request_id: RequestId::parse(&format!("r-{billing_id}")).ok(),
        fingerprint: Fingerprint([7; 32]),
        namespace: NamespaceName::parse("model").ok(),
        prompt_tokens: TokenCount(1_000),
        cached_tokens: TokenCount(600),
        attested_tokens: TokenCount(64),
        written_tokens: TokenCount(320),
        output_tokens: TokenCount(50),
        labels: [("class".to_owned(), "batch".to_owned())].into(),
        detail: UsageDetail::default(),
        delivered: Delivered { ram: TokenCount(500), nvme: TokenCount(100) },
        delivered_since: NEW_YEAR,
        flaw: None,
        settled_at: NEW_YEAR,
    }
}
