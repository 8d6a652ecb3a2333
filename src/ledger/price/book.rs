//! A price book: periods with their prices, and which of them a record falls into.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::calendar::{Days, Moment, Window};
use super::money::Price;
use crate::ledger::UsageRecord;
use crate::vocab::NamespaceName;

/// What is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Hits from RAM.
    HitRam,
    /// Hits from NVMe.
    HitNvme,
    /// Computed prompt tokens.
    Miss,
    /// Skipped from the engine's own GPU cache.
    Attested,
    /// Stored tokens.
    Written,
    /// Generated tokens.
    Output,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::HitRam, Self::HitNvme, Self::Miss, Self::Attested, Self::Written, Self::Output];

    /// Its name on an invoice, and of its price in a book.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HitRam => "hit_ram",
            Self::HitNvme => "hit_nvme",
            Self::Miss => "miss",
            Self::Attested => "attested",
            Self::Written => "written",
            Self::Output => "output",
        }
    }

    pub(super) fn tokens(self, record: &UsageRecord) -> u64 {
        match self {
            Self::HitRam => record.hit.ram,
            Self::HitNvme => record.hit.nvme,
            Self::Miss => record.miss_tokens,
            Self::Attested => record.attested_tokens,
            Self::Written => record.written_tokens,
            Self::Output => record.output_tokens,
        }
        .get()
    }
}

/// Prices of a million tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prices {
    /// In the order of [`Kind::ALL`].
    pub(super) tokens: [Price; 6],
    /// Of a million token-hours held. No record has such tokens yet: accepted, and part of the hash.
    pub(super) storage_hour: Option<Price>,
}

impl Prices {
    pub(super) fn of(&self, kind: Kind) -> Price {
        self.tokens[kind as usize]
    }
}

/// Hours with prices of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peak {
    pub(super) hours: Vec<Window>,
    pub(super) prices: Prices,
}

/// Prices of some days, of one namespace or of all that have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Period {
    pub(super) namespace: Option<NamespaceName>,
    /// Labels that a record must have, all of them.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) days: Days,
    pub(super) prices: Prices,
    pub(super) peak: Option<Peak>,
}

impl Period {
    fn is_for(&self, record: &UsageRecord, moment: Moment) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == record.namespace)
            && self.labels.iter().all(|(label, value)| record.labels.get(label) == Some(value))
            && self.days.has(moment.day)
    }

    pub(super) fn prices(&self, is_peak: bool) -> &Prices {
        self.peak.as_ref().filter(|_| is_peak).map_or(&self.prices, |peak| &peak.prices)
    }
}

/// A price book that has been checked. Made by [`Book::parse`].
#[derive(Clone, Debug)]
pub struct Book {
    pub(super) currency: String,
    /// The zone's name as written, and the zone itself.
    pub(super) time_zone: String,
    pub(super) zone: TimeZone,
    /// Sorted, so that neither hash nor invoice depends on the order in the file.
    pub(super) periods: Vec<Period>,
    pub(super) hash: String,
}

/// Where in a book the price of a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) period: usize,
    pub(super) is_peak: bool,
}

impl Book {
    /// The book's name: BLAKE3 over what it says, in hex. Spaces, comments and the order of its periods are not part of it.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Where the record's price stands. A period of its namespace goes before one of all; among these, the one that asks
    /// for most labels. `check` has seen to it that there is only one.
    pub(super) fn place(&self, record: &UsageRecord, moment: Moment) -> Option<Place> {
        let fitting = self.periods.iter().enumerate().filter(|(_, period)| period.is_for(record, moment));
        let (period, found) = fitting.max_by_key(|(_, period)| (period.namespace.is_some(), period.labels.len()))?;
        let is_peak = found.peak.as_ref().is_some_and(|peak| peak.hours.iter().any(|window| window.has(moment)));
        Some(Place { period, is_peak })
    }
}
