//! Accounts between the wire and the words: quotas, and storage held.

use tonic::Status;

use super::status::{invalid, word as refuse};
use crate::cache::quota::{AccountStatus, QuotaChange};
use crate::ledger::StorageRow;
use crate::proto;
use crate::vocab::{AccountName, ByteCount, DomainName, TenantName, TierQuota};

/// Whose quota, and what of it is to change.
pub(super) fn change(request: &proto::SetQuotaRequest) -> Result<(AccountName, QuotaChange), Status> {
    let name = match (request.tenant.is_empty(), request.domain.is_empty()) {
        (false, true) => AccountName::Tenant(TenantName::parse(&request.tenant).map_err(refuse)?),
        (true, false) => AccountName::Domain(DomainName::parse(&request.domain).map_err(refuse)?),
        (true, true) => return Err(invalid("tenant", "absent", "given, or domain")),
        (false, false) => return Err(invalid("domain", &request.domain, "absent where tenant is given")),
    };
    let change = QuotaChange { ram: request.ram.map(parse), nvme: request.nvme.map(parse) };
    Ok((name, change))
}

fn parse(tier: proto::TierQuota) -> TierQuota {
    TierQuota { share: ByteCount(tier.share_bytes), limit: tier.limit_bytes.map(ByteCount) }
}

fn wire(tier: TierQuota) -> proto::TierQuota {
    proto::TierQuota { share_bytes: tier.share.0, limit_bytes: tier.limit.map(|limit| limit.0) }
}

/// Storage of one hour.
pub(super) fn storage(row: StorageRow) -> proto::StorageRow {
    let (tenant, domain) = names(&row.key.account);
    proto::StorageRow {
        tenant,
        domain,
        namespace: row.key.namespace.to_string(),
        hour: row.hour,
        guaranteed: row.key.guaranteed,
        token_ms: row.token_ms.to_string(),
    }
}

/// Whose a block is, in one word where it is a tenant's.
pub(super) fn word(account: AccountName) -> String {
    match account {
        AccountName::Tenant(tenant) => tenant.to_string(),
        AccountName::Domain(_) => account.to_string(),
    }
}

/// The tenant and the public domain, of which one is empty.
fn names(account: &AccountName) -> (String, String) {
    match account {
        AccountName::Tenant(tenant) => (tenant.to_string(), String::new()),
        AccountName::Domain(domain) => (String::new(), domain.to_string()),
    }
}

/// An account with what it holds.
pub(super) fn info(account: &AccountStatus) -> proto::AccountInfo {
    let (tenant, domain) = names(&account.name);
    let held = account.holdings;
    proto::AccountInfo {
        tenant,
        domain,
        ram_bytes: held.ram_bytes,
        nvme_bytes: held.nvme_bytes,
        kept_bytes: held.kept_bytes,
        ram: Some(wire(held.quota.ram)),
        nvme: Some(wire(held.quota.nvme)),
    }
}
