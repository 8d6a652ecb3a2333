//! A price book: periods with their prices, and which of them a record falls into.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::calendar::{Days, Moment, Window};
use super::money::Price;
use crate::ledger::{Counts, UsageRecord};
use crate::vocab::{ClassName, NamespaceName};

/// Free words of a record.
pub(super) type Labels = BTreeMap<String, String>;

/// What is charged for, in the order in which lines are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Hits from RAM.
    HitRam,
    /// Hits from NVMe.
    HitNvme,
    /// Computed prompt tokens.
    Miss,
    /// Skipped from the engine's own GPU cache.
    Attested,
    /// Stored tokens: of a class that has a price of its own, or of all others.
    Written(Option<ClassName>),
    /// Generated tokens.
    Output,
    /// Tokens held, times hours: for a guaranteed lifetime or as long as there was room.
    Storage {
        /// Which of the two.
        guaranteed: bool,
    },
}

impl Kind {
    /// Its name on an invoice, and of its price in a book.
    #[must_use]
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::HitRam => "hit_ram",
            Self::HitNvme => "hit_nvme",
            Self::Miss => "miss",
            Self::Attested => "attested",
            Self::Written(_) => "written",
            Self::Output => "output",
            Self::Storage { .. } => "storage_hour",
        }
    }

    /// Of which class, where it is told apart by class.
    pub(super) fn class(&self) -> Option<String> {
        match self {
            Self::Written(class) => class.as_ref().map(ToString::to_string),
            Self::Storage { guaranteed: true } => Some("guaranteed".to_owned()),
            Self::Storage { guaranteed: false } => Some("best-effort".to_owned()),
            _ => None,
        }
    }
}

/// Prices of a million tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prices {
    pub(super) hit_ram: Price,
    pub(super) hit_nvme: Price,
    pub(super) miss: Price,
    pub(super) attested: Price,
    pub(super) written: Price,
    /// Of stored tokens of some classes: other classes' are `written`.
    pub(super) written_by_class: BTreeMap<ClassName, Price>,
    pub(super) output: Price,
    /// Of a million token-hours held as long as there is room, and for a guaranteed lifetime; nothing where storage has no price.
    pub(super) storage_hour: Option<[Price; 2]>,
}

impl Prices {
    /// Nothing only for storage that has none.
    pub(super) fn of(&self, kind: &Kind) -> Option<Price> {
        Some(match kind {
            Kind::HitRam => self.hit_ram,
            Kind::HitNvme => self.hit_nvme,
            Kind::Miss => self.miss,
            Kind::Attested => self.attested,
            Kind::Written(class) => {
                class.as_ref().and_then(|class| self.written_by_class.get(class)).copied().unwrap_or(self.written)
            }
            Kind::Output => self.output,
            Kind::Storage { guaranteed } => self.storage_hour?[usize::from(*guaranteed)],
        })
    }

    /// What of a record is charged for as what: classes with a price of their own apart.
    pub(super) fn parts(&self, record: &UsageRecord) -> Vec<(Kind, i64)> {
        let Counts { hit_ram, hit_nvme, attested, miss, mut written, output, .. } = record.counts;
        let mut parts = vec![
            (Kind::HitRam, hit_ram),
            (Kind::HitNvme, hit_nvme),
            (Kind::Miss, miss),
            (Kind::Attested, attested),
            (Kind::Output, output),
        ];
        for (class, tokens) in record.written_by_class() {
            if self.written_by_class.contains_key(&class) {
                written -= tokens;
                parts.push((Kind::Written(Some(class)), tokens));
            }
        }
        parts.push((Kind::Written(None), written));
        parts
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
    pub(super) labels: Labels,
    pub(super) days: Days,
    pub(super) prices: Prices,
    pub(super) peak: Option<Peak>,
}

impl Period {
    fn is_for(&self, namespace: &NamespaceName, labels: &Labels, moment: Moment) -> bool {
        self.namespace.as_ref().is_none_or(|of| of == namespace)
            && self.labels.iter().all(|(label, value)| labels.get(label) == Some(value))
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

    /// Where the price of what was used then stands. A period of its namespace goes before one of all; among these, the one that
    /// asks for most labels. `check` has seen to it that there is only one.
    pub(super) fn place(&self, namespace: &NamespaceName, labels: &Labels, moment: Moment) -> Option<Place> {
        let fitting = self.periods.iter().enumerate().filter(|(_, period)| period.is_for(namespace, labels, moment));
        let (period, found) = fitting.max_by_key(|(_, period)| (period.namespace.is_some(), period.labels.len()))?;
        let is_peak = found.peak.as_ref().is_some_and(|peak| peak.hours.iter().any(|window| window.has(moment)));
        Some(Place { period, is_peak })
    }

    pub(super) fn prices(&self, place: Place) -> &Prices {
        self.periods[place.period].prices(place.is_peak)
    }
}
