//! Records folded into the sums of an invoice, one by one and in any order.

use std::collections::{BTreeMap, HashMap};

use super::book::{Book, Kind, Labels, Place};
use super::calendar::{Days, Moment};
use super::error::PriceError;
use crate::ledger::{StorageKey, StorageRow, UsageRecord};
use crate::vocab::{AccountName, NamespaceName, TenantName, Timestamp};

/// What a line of an invoice is for, in the order in which lines are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) namespace: NamespaceName,
    pub(super) place: Place,
    pub(super) kind: Kind,
    /// Whether it corrects what was charged before.
    pub(super) is_correction: bool,
}

/// Sums of one tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) records: u64,
    pub(super) corrections: u64,
    pub(super) tokens: BTreeMap<Item, i64>,
    /// Tokens × milliseconds.
    pub(super) storage: BTreeMap<Item, u128>,
}

/// Sums by the prices of a book. Memory is a few hundred bytes a line of the invoice, and two digests of 16 bytes for
/// every record of the input (about 40 to 75 bytes each in the map: 7.5 GB at worst for a hundred million records).
#[derive(Debug)]
pub struct Tally<'a> {
    pub(super) book: &'a Book,
    pub(super) days: Days,
    pub(super) tenants: BTreeMap<TenantName, Sums>,
    pub(super) repeated: u64,
    /// Identity → what is charged for it.
    charged: HashMap<u128, u128>,
}

impl<'a> Tally<'a> {
    /// An empty one, of the records of some days in the book's time zone.
    #[must_use]
    pub fn new(book: &'a Book, days: Days) -> Self {
        Self { book, days, tenants: BTreeMap::new(), repeated: 0, charged: HashMap::new() }
    }

    /// Adds a record. The same identity (tenant, billing id) again, with the same charge, is counted and not charged; also
    /// where one of the two lies outside of the days, so that a record never gets on two invoices. A correction is charged on the
    /// day on which it was made, at the prices of what it corrects: an invoice that was written stays true.
    ///
    /// # Errors
    /// When no period covers the record, or its identity has been charged differently. Nothing of it has been added then.
    pub fn add(&mut self, record: &UsageRecord) -> Result<(), PriceError> {
        let place = self.place(record)?;
        let (identity, charge) = (identity(record), charge(record, self.book, place));
        if self.is_known(identity, charge, place.is_some()).ok_or_else(|| PriceError::Differs {
            tenant: record.tenant.clone(),
            billing_id: record.billing_id.clone(),
        })? {
            return Ok(());
        }
        if let Some(place) = place {
            self.count(record, place)?;
        }
        self.charged.insert(identity, charge);
        Ok(())
    }

    /// Adds storage of one hour, as a ledger has metered it; `source` names the ledger, so that the same hour of two of them is two.
    /// What a public domain holds is on nobody's invoice.
    ///
    /// # Errors
    /// When no period covers it, its period has no price for storage, or the same hour came with another number.
    pub fn add_storage(&mut self, source: &str, row: &StorageRow) -> Result<(), PriceError> {
        let StorageRow { key: StorageKey { account, namespace, guaranteed }, hour, token_ms } = row;
        let AccountName::Tenant(tenant) = account else { return Ok(()) };
        let at = Timestamp(u64::from(*hour) * 3_600_000);
        let not_covered = || PriceError::StorageNotCovered {
            tenant: tenant.clone(),
            namespace: namespace.clone(),
            at: self.written(at),
        };
        let moment = Moment::of(at, &self.book.zone).ok_or_else(not_covered)?;
        if !self.days.has(moment.day) {
            return Ok(());
        }
        let kind = Kind::Storage { guaranteed: *guaranteed };
        let place = self.book.place(namespace, &Labels::new(), moment);
        let (place, price) =
            place.and_then(|place| Some((place, self.book.prices(place).of(&kind)?))).ok_or_else(not_covered)?;
        let identity = digest(&[
            b"storage",
            source.as_bytes(),
            account.encode().as_bytes(),
            namespace.as_str().as_bytes(),
            &hour.to_le_bytes(),
            &[u8::from(*guaranteed)],
        ]);
        let known = self.is_known(identity, *token_ms, true);
        if known.ok_or_else(|| PriceError::StorageDiffers {
            tenant: tenant.clone(),
            namespace: namespace.clone(),
            at: self.written(at),
        })? {
            return Ok(());
        }
        let item = Item { namespace: namespace.clone(), place, kind, is_correction: false };
        let sum = self.tenants.entry(tenant.clone()).or_default().storage.entry(item).or_default();
        let too_many = PriceError::TooMany { tenant: tenant.clone(), namespace: namespace.clone() };
        let more = sum.checked_add(*token_ms).filter(|sum| price.of_storage(*sum).is_some());
        *sum = more.ok_or(too_many)?;
        self.charged.insert(identity, *token_ms);
        Ok(())
    }

    /// Whether an hour (since 1970, UTC) may have records of the days.
    #[must_use]
    pub fn has_hour(&self, hour: u32) -> bool {
        let start = u64::from(hour) * 3_600_000;
        // An hour of UTC may lie on two days of a zone that is half an hour off.
        [start, start + 3_599_999]
            .iter()
            .any(|at| Moment::of(Timestamp(*at), &self.book.zone).is_none_or(|moment| self.days.has(moment.day)))
    }

    /// Whether an identity was charged for exactly this before; nothing where it was for something else.
    fn is_known(&mut self, identity: u128, charge: u128, counts: bool) -> Option<bool> {
        match self.charged.get(&identity) {
            Some(first) if *first == charge => {
                self.repeated += u64::from(counts);
                Some(true)
            }
            Some(_) => None,
            None => Some(false),
        }
    }

    /// Where its price stands; nothing where its day is none of the invoice's.
    fn place(&self, record: &UsageRecord) -> Result<Option<Place>, PriceError> {
        let day = Moment::of(record.settled_at, &self.book.zone);
        if day.is_some_and(|moment| !self.days.has(moment.day)) {
            return Ok(None);
        }
        let used = Moment::of(record.used_at(), &self.book.zone);
        let place = used.and_then(|moment| self.book.place(&record.namespace, &record.labels, moment));
        place.map(Some).ok_or_else(|| PriceError::NotCovered {
            tenant: record.tenant.clone(),
            billing_id: record.billing_id.clone(),
            namespace: record.namespace.clone(),
            at: self.written(record.used_at()),
        })
    }

    /// A moment in the book's time zone.
    fn written(&self, at: Timestamp) -> String {
        let milliseconds = i64::try_from(at.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX);
        time.to_zoned_datetime(self.book.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
    }

    fn count(&mut self, record: &UsageRecord, place: Place) -> Result<(), PriceError> {
        let sums = self.tenants.entry(record.tenant.clone()).or_default();
        let is_correction = record.correction.is_some();
        let sum_of = |(kind, tokens): (Kind, i64)| {
            let item = Item { namespace: record.namespace.clone(), place, kind, is_correction };
            let sum = sums.tokens.get(&item).copied().unwrap_or_default().checked_add(tokens);
            let (tenant, namespace) = (record.tenant.clone(), record.namespace.clone());
            sum.map(|sum| (item, sum)).ok_or(PriceError::TooMany { tenant, namespace })
        };
        let parts = self.book.prices(place).parts(record);
        let tokens = parts.into_iter().map(sum_of).collect::<Result<Vec<_>, _>>()?;
        for (item, sum) in tokens {
            match sum {
                0 => drop(sums.tokens.remove(&item)),
                sum => drop(sums.tokens.insert(item, sum)),
            }
        }
        sums.records += u64::from(!is_correction);
        sums.corrections += u64::from(is_correction);
        Ok(())
    }
}

fn identity(record: &UsageRecord) -> u128 {
    digest(&[record.tenant.as_str().as_bytes(), record.billing_id.as_str().as_bytes()])
}

/// Everything that the charge of a record depends on.
fn charge(record: &UsageRecord, book: &Book, place: Option<Place>) -> u128 {
    let at = place.map_or_else(String::new, |place| format!("{}:{}", place.period, place.is_peak));
    let mut said = record.counts.each().map(i64::to_le_bytes).concat();
    for (kind, tokens) in place.map(|place| book.prices(place).parts(record)).unwrap_or_default() {
        said.extend_from_slice(kind.class().unwrap_or_default().as_bytes());
        said.push(0);
        said.extend_from_slice(&tokens.to_le_bytes());
    }
    let corrects = record.correction.as_ref().map_or("", |correction| correction.corrects.as_str());
    digest(&[at.as_bytes(), record.namespace.as_str().as_bytes(), &said, corrects.as_bytes()])
}

fn digest(parts: &[&[u8]]) -> u128 {
    let mut hasher = blake3::Hasher::new_derive_key("kvtier 2026 price tally");
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}
