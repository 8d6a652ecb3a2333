//! What accounts may keep, as it was last set: kept here and not in the catalog, which is disposable.

use super::codec::{DecodeError, Reader, Writer};
use super::ledger::Ledger;
use super::{LedgerError, store};
use crate::vocab::{AccountName, ByteCount, Quota, TierQuota};

/// Version of a quota's bytes.
const VERSION: u8 = 1;
/// What stands for no limit: more bytes than there are.
const UNLIMITED: u64 = u64::MAX;

impl Ledger {
    /// Keeps an account's quota; on disk when it returns.
    ///
    /// # Errors
    /// When the database can't be written: then the quota is what it was.
    pub fn set_quota(&self, name: &AccountName, quota: Quota) -> Result<(), LedgerError> {
        let key = store::keyed(store::QUOTA, name.encode().as_bytes());
        self.noticing(|store| store.replace(key, &encode(quota)))
    }

    /// Every account whose quota was ever set, public domains with none included.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn quotas(&self) -> Result<Vec<(AccountName, Quota)>, LedgerError> {
        let held = self.store().hold()?;
        let rows = held.view().rows(store::QUOTA, &[], &[]).map(|row| {
            let (key, value) = row?;
            let read = || {
                let name = std::str::from_utf8(&key).ok().and_then(|name| AccountName::decode(name).ok());
                let name = name.ok_or(DecodeError { what: "a name that breaks its rule", at: 0 })?;
                Ok((name, decode(&value)?))
            };
            read().map_err(|source| store::row_error("quota", &key, source))
        });
        rows.collect()
    }
}

fn encode(quota: Quota) -> Vec<u8> {
    let tier =
        |writer: Writer, tier: TierQuota| writer.u64(tier.share.0).u64(tier.limit.map_or(UNLIMITED, |limit| limit.0));
    tier(tier(Writer::default().u8(VERSION), quota.ram), quota.nvme).finish()
}

fn decode(bytes: &[u8]) -> Result<Quota, DecodeError> {
    let mut row = Reader::new(bytes);
    if row.u8()? != VERSION {
        return Err(DecodeError { what: "a quota version that this kvtier does not know", at: 0 });
    }
    let mut tier = || {
        let (share, limit) = (ByteCount(row.u64()?), row.u64()?);
        Ok(TierQuota { share, limit: (limit != UNLIMITED).then_some(ByteCount(limit)) })
    };
    let quota = Quota { ram: tier()?, nvme: tier()? };
    row.end()?;
    Ok(quota)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{DomainName, TenantName};

    #[test]
    fn quotas_are_there_after_a_restart_as_they_were_last_set() {
        let folder = tempfile::tempdir().unwrap();
        let acme = AccountName::Tenant(TenantName::parse("acme").unwrap());
        let docs = AccountName::Domain(DomainName::parse("docs").unwrap());
        let nvme = TierQuota { share: ByteCount(5), limit: Some(ByteCount(7)) };
        let quota = Quota { ram: TierQuota { share: ByteCount(1), limit: None }, nvme };
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.set_quota(&acme, Quota::default()).unwrap();
        ledger.set_quota(&docs, Quota::default()).unwrap();
        ledger.set_quota(&acme, quota).unwrap();
        drop(ledger);
        let found = Ledger::open(folder.path()).unwrap().quotas().unwrap();
        assert_eq!(found, [(docs, Quota::default()), (acme, quota)]);
    }

    #[test]
    fn other_bytes_are_no_quota() {
        let bytes = encode(Quota::default());
        assert_eq!(decode(&bytes), Ok(Quota::default()));
        assert!(decode(&bytes[1..]).is_err());
        assert!(decode(&[&[2], &bytes[1..]].concat()).is_err());
    }
}
