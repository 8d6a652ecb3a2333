//! Storage held: tokens × time, by account, namespace, retention class and hour.
//!
//! Metered by samples. Between two of them, what both found counts as held: what came or went in between is missed, never
//! charged. An interval is added together with the time up to which all is counted, in one synced write, so that no restart
//! counts it twice; one that is too long (the daemon was away) or that goes backwards is missed whole.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use super::codec::{DecodeError, Reader, Writer};
use super::ledger::Ledger;
use super::view::View;
use super::{LedgerError, store};
use crate::vocab::limits::STORAGE_GAP_MAX;
use crate::vocab::{AccountName, NamespaceName, Timestamp};

/// Version of a row's bytes.
const VERSION: u8 = 1;
const HOUR_MS: u64 = 3_600_000;
/// Up to when storage is counted.
const UNTIL: &str = "storage until";

/// What is held: whose, of which layout, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorageKey {
    /// Whose account.
    pub account: AccountName,
    /// What people call the layout.
    pub namespace: NamespaceName,
    /// Whether it is kept for a guaranteed lifetime or a pin, and not only as long as there is room.
    pub guaranteed: bool,
}

/// Storage of one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageRow {
    /// What.
    pub key: StorageKey,
    /// Hours since 1970, UTC.
    pub hour: u32,
    /// Tokens times milliseconds.
    pub token_ms: u128,
}

/// The last sample.
#[derive(Debug, Default)]
pub(super) struct Sampled(BTreeMap<StorageKey, u64>);

impl Ledger {
    /// Takes in how many tokens are held now. Milliseconds that were counted: 0 for the first sample after a start, and for a
    /// gap.
    ///
    /// # Errors
    /// When the database can't be read or written: then all is missed from the last sample that was counted to the next one.
    pub fn meter_storage(&self, now: Timestamp, held: BTreeMap<StorageKey, u64>) -> Result<u64, LedgerError> {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgotten where it can't be written: what was held for how long before the next sample is not known then.
        let before = std::mem::take(&mut *sampled);
        let known = self.store().secret(UNTIL)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let from = known.unwrap_or(now.0);
        let elapsed = now.0.saturating_sub(from);
        let counts = !before.0.is_empty() && Duration::from_millis(elapsed) <= STORAGE_GAP_MAX;
        let mut rows = store::Rows::default();
        if counts {
            for (key, tokens) in &before.0 {
                let tokens = u128::from(held.get(key).copied().unwrap_or(0).min(*tokens));
                for (hour, ms) in hours(from, now.0) {
                    let row = encode_key(key, hour);
                    let sum = self.store().storage(&row)?.map_or(Ok(0), |bytes| decode(&row, &bytes))?;
                    rows.storage(&row, &Writer::default().u8(VERSION).raw(&(sum + tokens * ms).to_le_bytes()).finish());
                }
            }
        }
        // A clock that went backwards counts again once it has passed what is counted already.
        rows.secret(UNTIL, &now.0.max(from).to_le_bytes());
        self.noticing(|store| store.write(rows))?;
        *sampled = Sampled(held);
        Ok(if counts { elapsed } else { 0 })
    }

    /// What was held, in the order of account, namespace, hour and class.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn storage(&self, hours: std::ops::Range<u32>) -> Result<Vec<StorageRow>, LedgerError> {
        let held = self.store().hold()?;
        let rows = rows(&held.view());
        rows.filter(|row| row.as_ref().map_or(true, |row: &StorageRow| hours.contains(&row.hour))).collect()
    }
}

/// All rows, in the order of account, namespace, hour and class.
pub(super) fn rows<'s>(view: &View<'s>) -> impl Iterator<Item = Result<StorageRow, LedgerError>> + use<'s> {
    view.rows(store::STORAGE, &[], &[]).map(|row| {
        let (key, value) = row?;
        let token_ms = decode(&key, &value)?;
        let (of, hour) = decode_key(&key).map_err(|source| store::row_error("storage", &key, source))?;
        Ok(StorageRow { key: of, hour, token_ms })
    })
}

/// The millisecond since 1970 up to which all is counted; 0 where nothing is.
pub(super) fn counted_until(view: &View<'_>) -> Result<u64, LedgerError> {
    let bytes = view.secret(UNTIL)?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
}

/// The hours from one time to another, with the milliseconds in each.
fn hours(from: u64, until: u64) -> impl Iterator<Item = (u32, u128)> {
    let mut at = from;
    std::iter::from_fn(move || {
        let hour = at / HOUR_MS;
        let end = ((hour + 1) * HOUR_MS).min(until);
        let ms = end.checked_sub(at).filter(|ms| *ms > 0)?;
        at = end;
        Some((u32::try_from(hour).unwrap_or(u32::MAX), u128::from(ms)))
    })
}

/// Words are printable ASCII but for a domain's mark, so a zero byte ends one.
fn encode_key(key: &StorageKey, hour: u32) -> Vec<u8> {
    Writer::default()
        .raw(key.account.encode().as_bytes())
        .u8(0)
        .raw(key.namespace.as_str().as_bytes())
        .u8(0)
        .raw(&hour.to_be_bytes())
        .u8(key.guaranteed.into())
        .finish()
}

fn decode_key(bytes: &[u8]) -> Result<(StorageKey, u32), DecodeError> {
    let mut row = Reader::new(bytes);
    let account = row.terminated(AccountName::decode)?;
    let namespace = row.terminated(NamespaceName::parse)?;
    let hour = u32::from_be_bytes(row.array()?);
    let guaranteed = row.u8()? != 0;
    row.end()?;
    Ok((StorageKey { account, namespace, guaranteed }, hour))
}

fn decode(key: &[u8], bytes: &[u8]) -> Result<u128, LedgerError> {
    let read = || {
        let mut row = Reader::new(bytes);
        if row.u8()? != VERSION {
            return Err(DecodeError { what: "a storage version that this kvtier does not know", at: 0 });
        }
        let sum = u128::from_le_bytes(row.array()?);
        row.end()?;
        Ok(sum)
    };
    read().map_err(|source| store::row_error("storage", key, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::{DomainName, TenantName};

    const HOUR: u64 = 1_000 * HOUR_MS;

    fn key(guaranteed: bool) -> StorageKey {
        let account = AccountName::Tenant(TenantName::parse("acme").unwrap());
        StorageKey { account, namespace: NamespaceName::parse("m").unwrap(), guaranteed }
    }

    fn docs() -> StorageKey {
        StorageKey { account: AccountName::Domain(DomainName::parse("docs").unwrap()), ..key(false) }
    }

    fn sums(ledger: &Ledger) -> Vec<(u32, bool, u128)> {
        let rows = ledger.storage(0..u32::MAX).unwrap().into_iter();
        rows.map(|row| (row.hour, row.key.guaranteed, row.token_ms)).collect()
    }

    #[test]
    fn what_two_samples_found_is_counted_for_the_time_between_in_the_hours_that_it_lies_in() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let sample = |at: u64, held: &[(StorageKey, u64)]| {
            ledger.meter_storage(Timestamp(HOUR + at), held.iter().cloned().collect()).unwrap()
        };
        assert_eq!(sample(0, &[(key(false), 100)]), 0, "one sample says nothing of a time");
        assert_eq!(sample(60_000, &[(key(false), 50), (key(true), 7)]), 60_000);
        assert_eq!(sums(&ledger), [(1_000, false, 50 * 60_000)], "what went meanwhile is missed, and what came");
        assert_eq!(sample(120_000, &[(key(true), 9), (docs(), 1)]), 60_000);
        assert_eq!(sums(&ledger), [(1_000, false, 50 * 60_000), (1_000, true, 7 * 60_000)]);
        sample(HOUR_MS - 30_000, &[(docs(), 1)]);
        assert_eq!(sample(HOUR_MS + 30_000, &[(docs(), 2)]), 60_000);
        let of_docs: Vec<_> =
            ledger.storage(0..u32::MAX).unwrap().into_iter().filter(|row| row.key == docs()).collect();
        assert_eq!(
            of_docs.iter().map(|row| (row.hour, row.token_ms)).collect::<Vec<_>>(),
            [(1_000, 30_000), (1_001, 30_000)]
        );
        assert_eq!(ledger.storage(1_001..1_002).unwrap().len(), 1);
    }

    #[test]
    fn a_gap_a_restart_and_a_clock_that_goes_backwards_count_nothing_and_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let held = || BTreeMap::from([(key(false), 10)]);
        let gap = u64::try_from(STORAGE_GAP_MAX.as_millis()).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let at = |ledger: &Ledger, ms: u64| ledger.meter_storage(Timestamp(HOUR + ms), held()).unwrap();
        assert_eq!([at(&ledger, 0), at(&ledger, gap + 1), at(&ledger, gap + 2)], [0, 0, 1]);
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!([at(&ledger, gap + 1_000), at(&ledger, gap + 1_500)], [0, 500], "nobody looked in between");
        assert_eq!([at(&ledger, 5), at(&ledger, gap + 1_000), at(&ledger, gap + 1_600)], [0, 0, 100]);
        assert_eq!(sums(&ledger), [(1_000, false, 10 * 601)]);
    }
}
