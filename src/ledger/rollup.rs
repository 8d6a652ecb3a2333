//! Sums of records by tenant, namespace, hour, user and API key: kept in the same batch as the records, so that a bill over months
//! reads a few rows, and checked against the records by an audit.

use super::codec::{DecodeError, Reader, Writer};
use super::{Counts, UsageRecord};
use crate::vocab::{ApiKeyId, Fingerprint, NamespaceName, TenantName, UserName, WordError};

/// Version of a rollup's bytes. Version 1 ends with the counts; version 2 goes on with the number of corrections.
const VERSION: u8 = 2;
/// The one before, which is read.
const WITHOUT_CORRECTIONS: u8 = 1;

/// Sums over records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Settled requests.
    pub records: u64,
    /// Corrections of them.
    pub corrections: u64,
    /// What they come to.
    pub counts: Counts,
}

/// Which sums are wanted; what is absent does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Only this tenant.
    pub tenant: Option<TenantName>,
    /// Only this namespace.
    pub namespace: Option<NamespaceName>,
    /// Only from this hour on (hours since 1970, UTC).
    pub from_hour: Option<u32>,
    /// Only before this hour.
    pub until_hour: Option<u32>,
}

/// One row of a summary; what it is not told apart by is absent. Two revisions of a namespace under one name are two rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Who pays.
    pub tenant: Option<TenantName>,
    /// What people called the layout.
    pub namespace: Option<NamespaceName>,
    /// Hours since 1970, UTC.
    pub hour: Option<u32>,
    /// Which layout.
    pub fingerprint: Option<Fingerprint>,
    /// The tenant's end user, where the settles named one.
    pub user: Option<UserName>,
    /// The tenant's key, where the settles named one.
    pub api_key: Option<ApiKeyId>,
    /// The sums.
    pub usage: Usage,
}

/// Sums of settled usage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageSummary {
    /// The sum of the rows.
    pub total: Usage,
    /// By tenant, namespace, hour, user and key, in that order.
    pub rows: Vec<UsageRow>,
}

/// What a rollup's row sums over; ordered as its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RollupKey {
    pub(super) tenant: TenantName,
    pub(super) namespace: NamespaceName,
    pub(super) hour: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) user: Option<UserName>,
    pub(super) api_key: Option<ApiKeyId>,
}

impl Usage {
    pub(super) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.corrections += other.corrections;
        self.counts += other.counts;
    }

    /// How many records make it up.
    pub(super) fn sequences(&self) -> u64 {
        self.records + self.corrections
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        self.counts.encode(Writer::default().u8(VERSION).u64(self.records)).u64(self.corrections).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut row = Reader::new(bytes);
        let version = row.u8()?;
        if !(WITHOUT_CORRECTIONS..=VERSION).contains(&version) {
            return Err(DecodeError { what: "a rollup version that this kvtier does not know", at: 0 });
        }
        let (records, counts) = (row.u64()?, Counts::decode(&mut row)?);
        let corrections = if version > WITHOUT_CORRECTIONS { row.u64()? } else { 0 };
        row.end()?;
        Ok(Self { records, corrections, counts })
    }
}

impl From<&UsageRecord> for Usage {
    fn from(record: &UsageRecord) -> Self {
        let is_correction = record.correction.is_some();
        Self { records: u64::from(!is_correction), corrections: u64::from(is_correction), counts: record.counts }
    }
}

impl RollupKey {
    /// A correction counts in the hour of what it corrects: a sum says what was used then, as far as it is known now.
    pub(super) fn of(record: &UsageRecord) -> Self {
        Self {
            tenant: record.tenant.clone(),
            namespace: record.namespace.clone(),
            hour: record.used_at().hour(),
            fingerprint: record.fingerprint,
            user: record.detail.user.clone(),
            api_key: record.detail.api_key.clone(),
        }
    }

    /// Words are printable ASCII, so a zero byte ends one; the hour is big-endian, so that bytes sort as hours do. Without
    /// user and key it ends with the fingerprint, as all did once.
    pub(super) fn encode(&self) -> Vec<u8> {
        let key = Writer::default()
            .raw(&Self::tenant_prefix(&self.tenant))
            .raw(self.namespace.as_str().as_bytes())
            .u8(0)
            .raw(&self.hour.to_be_bytes())
            .raw(&self.fingerprint.0);
        let words = [self.user.as_ref().map(UserName::as_str), self.api_key.as_ref().map(ApiKeyId::as_str)];
        if words == [None, None] {
            return key.finish();
        }
        words.into_iter().fold(key, |key, word| key.raw(word.unwrap_or("").as_bytes()).u8(0)).finish()
    }

    /// What all keys of a tenant, and of no other, start with.
    pub(super) fn tenant_prefix(tenant: &TenantName) -> Vec<u8> {
        Writer::default().raw(tenant.as_str().as_bytes()).u8(0).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut key = Reader::new(bytes);
        let tenant = key.terminated(TenantName::parse)?;
        let namespace = key.terminated(NamespaceName::parse)?;
        let hour = u32::from_be_bytes(key.array()?);
        let fingerprint = Fingerprint(key.array()?);
        let (mut user, mut api_key) = (None, None);
        if !key.is_at_end() {
            user = key.terminated(|word| optional(word, UserName::parse))?;
            api_key = key.terminated(|word| optional(word, ApiKeyId::parse))?;
        }
        key.end()?;
        Ok(Self { tenant, namespace, hour, fingerprint, user, api_key })
    }
}

fn optional<T>(word: &str, parse: fn(&str) -> Result<T, WordError>) -> Result<Option<T>, WordError> {
    if word.is_empty() { Ok(None) } else { parse(word).map(Some) }
}

impl UsageFilter {
    pub(super) fn wants(&self, key: &RollupKey) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == key.tenant)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.from_hour.is_none_or(|from| key.hour >= from)
            && self.until_hour.is_none_or(|until| key.hour < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, namespace: &str, hour: u32) -> RollupKey {
        let (tenant, namespace) = (TenantName::parse(tenant).unwrap(), NamespaceName::parse(namespace).unwrap());
        RollupKey { tenant, namespace, hour, fingerprint: Fingerprint([7; 32]), user: None, api_key: None }
    }

    fn of_user(user: Option<&str>, api_key: Option<&str>) -> RollupKey {
        let (user, api_key) =
            (user.and_then(|word| UserName::parse(word).ok()), api_key.and_then(|word| ApiKeyId::parse(word).ok()));
        RollupKey { user, api_key, ..key("a", "m", 2) }
    }

    #[test]
    fn keys_sort_as_their_bytes_do_and_read_back() {
        let mut keys = [
            of_user(Some("u"), None),
            of_user(Some("u"), Some("k")),
            of_user(None, Some("k")),
            of_user(Some("u2"), None),
            key("b", "m", 1),
            key("a", "m", 256),
            key("a", "m", 2),
            key("a!", "m", 0),
            key("a", "m2", 1),
        ];
        keys.sort();
        let bytes: Vec<_> = keys.iter().map(RollupKey::encode).collect();
        assert!(bytes.is_sorted());
        for (key, bytes) in keys.iter().zip(&bytes) {
            assert_eq!(RollupKey::decode(bytes).as_ref(), Ok(key));
        }
    }

    // Sums of an older ledger go on under the same keys.
    #[test]
    fn without_user_and_key_it_ends_with_the_fingerprint() {
        let expected = [b"a\0m\0\0\0\0\x02".as_slice(), &[7; 32]].concat();
        assert_eq!(key("a", "m", 2).encode(), expected);
    }

    #[test]
    fn a_tenant_prefix_holds_for_no_longer_name() {
        let longer = key("acme2", "m", 1).encode();
        assert!(!longer.starts_with(&RollupKey::tenant_prefix(&TenantName::parse("acme").unwrap())));
    }

    #[test]
    fn sums_read_back() {
        let usage = Usage { records: 1, corrections: 9, counts: Counts::of([2, 3, 4, 5, 6, 7, 8]) };
        assert_eq!(Usage::decode(&usage.encode()), Ok(usage));
        assert!(Usage::decode(&usage.encode()[1..]).is_err());
        let before = [&[1], &usage.encode()[1..65]].concat();
        assert_eq!(Usage::decode(&before), Ok(Usage { corrections: 0, ..usage }), "as an older version wrote it");
    }
}
