//! What tenants and public domains may keep, and prefixes that an admin keeps.

use super::{Chain, Client, ClientError};
pub use crate::proto::{AccountInfo, TierQuota as WireQuota};
use crate::proto::{InspectAccountsRequest, PinRequest, SetQuotaRequest, UnpinRequest};
use crate::vocab::{AccountName, TierQuota};

impl Client {
    /// Changes what an account may keep in each tier that is given; creates a public domain that is not there.
    ///
    /// # Errors
    /// When shares or promises do not allow it: nothing is changed then.
    pub async fn set_quota(
        &self,
        account: &AccountName,
        ram: Option<TierQuota>,
        nvme: Option<TierQuota>,
    ) -> Result<AccountInfo, ClientError> {
        let (tenant, domain) = match account {
            AccountName::Tenant(tenant) => (tenant.to_string(), String::new()),
            AccountName::Domain(domain) => (String::new(), domain.to_string()),
        };
        let wire =
            |tier: TierQuota| WireQuota { share_bytes: tier.share.0, limit_bytes: tier.limit.map(|limit| limit.0) };
        let request = SetQuotaRequest { tenant, domain, ram: ram.map(wire), nvme: nvme.map(wire) };
        let reply = self.answer("SetQuota", self.admin_service().set_quota(request)).await?;
        reply.account.ok_or_else(|| ClientError::protocol("SetQuota's reply must have an account"))
    }

    /// Accounts with a quota or with blocks: tenants by name, then public domains by name.
    ///
    /// # Errors
    /// When the daemon can't be asked.
    pub async fn inspect_accounts(&self) -> Result<Vec<AccountInfo>, ClientError> {
        let mut service = self.admin_service();
        let asked = service.inspect_accounts(InspectAccountsRequest {});
        Ok(self.answer("InspectAccounts", asked).await?.accounts)
    }

    /// Keeps a chain on NVMe until it is unpinned: how many blocks.
    ///
    /// # Errors
    /// When it is not wholly here, or the guaranteed share does not reach.
    pub async fn pin(&self, chain: &Chain) -> Result<u32, ClientError> {
        let request = PinRequest { chain: Some(chain.to_wire()) };
        Ok(self.answer("Pin", self.admin_service().pin(request)).await?.blocks)
    }

    /// Takes a pin away: whether there was one.
    ///
    /// # Errors
    /// As [`Client::lookup`].
    pub async fn unpin(&self, chain: &Chain) -> Result<bool, ClientError> {
        let request = UnpinRequest { chain: Some(chain.to_wire()) };
        Ok(self.answer("Unpin", self.admin_service().unpin(request)).await?.unpinned)
    }
}
