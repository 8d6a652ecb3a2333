//! The walk of a quota: the planner has the last word, the ledger keeps it.

use std::collections::BTreeMap;

use super::error::Error;
use super::{Cache, unexpected};
use crate::plan::{AccountHoldings, Answer, Event, Planner};
use crate::vocab::limits::INSPECTED_AT_ONCE;
use crate::vocab::{AccountId, AccountName, Quota, TierQuota};

/// What of a quota is to change; the rest stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuotaChange {
    /// In RAM.
    pub ram: Option<TierQuota>,
    /// On NVMe.
    pub nvme: Option<TierQuota>,
}

/// An account with what it holds.
#[derive(Clone, Debug)]
pub struct AccountStatus {
    /// Whose.
    pub name: AccountName,
    /// What it holds and may hold.
    pub holdings: AccountHoldings,
}

impl Cache {
    /// Changes what an account may keep. A public domain that is not there is created. In force and on disk when it returns.
    ///
    /// # Errors
    /// When shares or promises do not allow it, the ledger can't keep it, or the daemon is stopping: nothing is changed then.
    pub async fn set_quota(&self, name: AccountName, change: QuotaChange) -> Result<AccountStatus, Error> {
        // One at a time, so that what is in force and what is on disk are the same.
        let _turn = self.quotas.lock().await;
        let Some(ledger) = self.ledger.get().cloned() else {
            return Err(Error::Broken("the ledger, which keeps quotas, is unreadable".into()));
        };
        let account = self.names.account(&name)?;
        let before = self.holdings_of(account).await?.quota;
        let quota = Quota { ram: change.ram.unwrap_or(before.ram), nvme: change.nvme.unwrap_or(before.nvme) };
        self.enforce(account, quota).await?;
        let (of, write) = (name.clone(), move |name: AccountName| ledger.set_quota(&name, quota));
        let written = tokio::task::spawn_blocking(move || write(of)).await;
        let failed = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failed {
            self.enforce(account, before).await?;
            return Err(Error::Broken(format!("the quota of {name} can't be kept: {why}")));
        }
        tracing::info!(account = %name, ?quota, "quota set");
        Ok(AccountStatus { name, holdings: self.holdings_of(account).await? })
    }

    pub(super) async fn enforce(&self, account: AccountId, quota: Quota) -> Result<(), Error> {
        match self.driver.ask(Event::SetQuota { account, quota }).await? {
            Answer::QuotaSet(set) => set.map_err(|error| Error::Refused(error.to_string())),
            answer => Err(unexpected(&answer)),
        }
    }

    async fn holdings_of(&self, account: AccountId) -> Result<AccountHoldings, Error> {
        let (known, _) = self.driver.look(move |planner| planner.accounts_among(account, 1)).await?;
        let nothing = AccountHoldings { account, ram_bytes: 0, nvme_bytes: 0, kept_bytes: 0, quota: Quota::default() };
        Ok(known.into_iter().find(|known| known.account == account).unwrap_or(nothing))
    }

    /// Bytes that this daemon keeps secret under a name, for as long as its ledger lives; `None` where that is unreadable.
    #[must_use]
    pub fn kept_secret(&self, name: &'static str, make: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        let kept = self.ledger.get()?.kept_secret(name, make);
        kept.inspect_err(|error| tracing::error!(%error, name, "a secret can't be kept")).ok()
    }

    /// Every account that holds something or has a quota: tenants by name, then public domains by name.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn accounts(&self) -> Result<Vec<AccountStatus>, Error> {
        let (mut known, mut from, mut all) = (Vec::new(), 0, 1);
        while from < all {
            let first = AccountId(u16::try_from(from).unwrap_or(u16::MAX));
            let look = move |planner: &Planner| planner.accounts_among(first, INSPECTED_AT_ONCE);
            let (some, numbers) = self.driver.look(look).await?;
            known.extend(some);
            (from, all) = (from + INSPECTED_AT_ONCE, numbers);
        }
        let named =
            known.into_iter().filter_map(|holdings| Some((self.names.account_name(holdings.account)?, holdings)));
        let named: BTreeMap<AccountName, AccountHoldings> = named.collect();
        Ok(named.into_iter().map(|(name, holdings)| AccountStatus { name, holdings }).collect())
    }
}
