//! Records folded into the sums of an invoice, one by one and in any order.

use std::collections::{BTreeMap, HashMap};

use super::book::{Book, Kind, Place};
use super::calendar::{Days, Moment};
use super::error::PriceError;
use crate::ledger::UsageRecord;
use crate::vocab::{NamespaceName, TenantName};

/// What a line of an invoice is for, in the order in which lines are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) namespace: NamespaceName,
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// Sums of one tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) records: u64,
    pub(super) tokens: BTreeMap<Item, u64>,
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
    /// where one of the two lies outside of the days, so that a record never gets on two invoices.
    ///
    /// # Errors
    /// When no period covers the record, or its identity has been charged differently. Nothing of it has been added then.
    pub fn add(&mut self, record: &UsageRecord) -> Result<(), PriceError> {
        let place = self.place(record)?;
        let (identity, charge) = (identity(record), charge(record, place));
        match self.charged.get(&identity) {
            Some(first) if *first == charge => {
                self.repeated += u64::from(place.is_some());
                return Ok(());
            }
            Some(_) => {
                let (tenant, billing_id) = (record.tenant.clone(), record.billing_id.clone());
                return Err(PriceError::Differs { tenant, billing_id });
            }
            None => {}
        }
        if let Some(place) = place {
            self.count(record, place)?;
        }
        self.charged.insert(identity, charge);
        Ok(())
    }

    /// Where its price stands; nothing where its day is none of the invoice's.
    fn place(&self, record: &UsageRecord) -> Result<Option<Place>, PriceError> {
        let moment = Moment::of(record.settled_at, &self.book.zone);
        if moment.is_some_and(|moment| !self.days.has(moment.day)) {
            return Ok(None);
        }
        let place = moment.and_then(|moment| self.book.place(record, moment));
        place.map(Some).ok_or_else(|| {
            let milliseconds = i64::try_from(record.settled_at.0).unwrap_or(i64::MAX);
            let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX);
            PriceError::NotCovered {
                tenant: record.tenant.clone(),
                billing_id: record.billing_id.clone(),
                namespace: record.namespace.clone(),
                at: time.to_zoned_datetime(self.book.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
            }
        })
    }

    fn count(&mut self, record: &UsageRecord, place: Place) -> Result<(), PriceError> {
        let sums = self.tenants.entry(record.tenant.clone()).or_default();
        let sum_of = |kind: Kind| {
            let item = Item { namespace: record.namespace.clone(), place, kind };
            let sum = sums.tokens.get(&item).copied().unwrap_or_default().checked_add(kind.tokens(record));
            let (tenant, namespace) = (record.tenant.clone(), record.namespace.clone());
            sum.map(|sum| (item, sum)).ok_or(PriceError::TooMany { tenant, namespace })
        };
        let tokens = Kind::ALL.into_iter().map(sum_of).collect::<Result<Vec<_>, _>>()?;
        sums.tokens.extend(tokens.into_iter().filter(|(_, sum)| *sum > 0));
        sums.records += 1;
        Ok(())
    }
}

fn identity(record: &UsageRecord) -> u128 {
    digest(&[record.tenant.as_str().as_bytes(), record.billing_id.as_str().as_bytes()])
}

/// Everything that the charge of a record depends on.
fn charge(record: &UsageRecord, place: Option<Place>) -> u128 {
    let place = place.map_or_else(String::new, |place| format!("{}:{}", place.period, place.is_peak));
    let tokens = Kind::ALL.map(|kind| kind.tokens(record).to_le_bytes()).concat();
    digest(&[place.as_bytes(), record.namespace.as_str().as_bytes(), &tokens])
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
