//! An invoice: lines, totals, and what the cache saved. Amounts are decimal text, so that no reader makes floats of them.
//!
//! A line's amount is its tokens times its price, computed once and rounded to 6 digits. A total is the sum of the exact
//! amounts, rounded once to 2 digits; so a sum of printed lines may differ from the total in the last digit.

use std::collections::BTreeMap;

use serde::Serialize;

use super::book::{Kind, Period};
use super::money::Money;
use super::tally::{Item, Sums, Tally};

/// What was used in some days, by the prices of a book. Field names are a contract: add, never rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invoice {
    /// The hash of the book.
    pub book: String,
    /// Of all amounts.
    pub currency: String,
    /// Of all days and hours.
    pub time_zone: String,
    /// The first day, where one was given.
    pub from: Option<String>,
    /// The day after the last one, where one was given.
    pub until: Option<String>,
    /// Records charged.
    pub records: u64,
    /// Records that came again and were not charged again.
    pub repeated: u64,
    /// What all tenants pay.
    pub total: String,
    /// What all tenants would have paid more without the cache: hits at the price of a miss, less what they cost.
    pub saved: String,
    /// One part a tenant, by name.
    pub tenants: Vec<TenantInvoice>,
    /// The exact total.
    #[serde(skip)]
    pub revenue: Money,
}

/// What one tenant pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TenantInvoice {
    /// Who.
    pub tenant: String,
    /// Records charged.
    pub records: u64,
    /// What it pays.
    pub total: String,
    /// What it would have paid more without the cache.
    pub saved: String,
    /// By namespace, period, hours and kind.
    pub lines: Vec<InvoiceLine>,
}

/// Tokens of one kind at one price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InvoiceLine {
    /// Of which namespace.
    pub namespace: String,
    /// Labels that the price asks for.
    pub labels: BTreeMap<String, String>,
    /// The first day of the price.
    pub valid_from: Option<String>,
    /// The day after its last one.
    pub valid_until: Option<String>,
    /// `all` where the price has no peak hours, else `peak` or `off-peak`.
    pub hours: &'static str,
    /// What for: `hit_ram`, `hit_nvme`, `miss`, `attested`, `written` or `output`.
    pub kind: &'static str,
    /// How many.
    pub tokens: u64,
    /// The price of a million.
    pub price_per_million: String,
    /// Tokens × price / 1,000,000, rounded to 6 digits.
    pub amount: String,
}

/// Exact sums of one tenant.
#[derive(Clone, Copy, Default)]
struct Amounts {
    total: Money,
    saved: Money,
}

impl Tally<'_> {
    /// The invoice of what has been added.
    #[must_use]
    pub fn invoice(&self) -> Invoice {
        let (mut all, mut tenants) = (Amounts::default(), Vec::new());
        for (tenant, sums) in &self.tenants {
            let (amounts, part) = self.tenant(tenant.as_str(), sums);
            all = Amounts { total: all.total + amounts.total, saved: all.saved + amounts.saved };
            tenants.push(part);
        }
        Invoice {
            book: self.book.hash.clone(),
            currency: self.book.currency.clone(),
            time_zone: self.book.time_zone.clone(),
            from: self.days.from.map(|day| day.to_string()),
            until: self.days.until.map(|day| day.to_string()),
            records: self.tenants.values().map(|sums| sums.records).sum(),
            repeated: self.repeated,
            total: all.total.rounded(2),
            saved: all.saved.rounded(2),
            tenants,
            revenue: all.total,
        }
    }

    fn tenant(&self, tenant: &str, sums: &Sums) -> (Amounts, TenantInvoice) {
        let (mut amounts, mut lines) = (Amounts::default(), Vec::new());
        for (item, tokens) in &sums.tokens {
            let period = &self.book.periods[item.place.period];
            let prices = period.prices(item.place.is_peak);
            let amount = prices.of(item.kind).of(*tokens);
            if matches!(item.kind, Kind::HitRam | Kind::HitNvme) {
                amounts.saved = amounts.saved + (prices.of(Kind::Miss).of(*tokens) - amount);
            }
            amounts.total = amounts.total + amount;
            lines.push(line(item, *tokens, period, amount));
        }
        let (total, saved) = (amounts.total.rounded(2), amounts.saved.rounded(2));
        (amounts, TenantInvoice { tenant: tenant.to_owned(), records: sums.records, total, saved, lines })
    }
}

fn line(item: &Item, tokens: u64, period: &Period, amount: Money) -> InvoiceLine {
    InvoiceLine {
        namespace: item.namespace.to_string(),
        labels: period.labels.clone(),
        valid_from: period.days.from.map(|day| day.to_string()),
        valid_until: period.days.until.map(|day| day.to_string()),
        hours: match (&period.peak, item.place.is_peak) {
            (None, _) => "all",
            (Some(_), true) => "peak",
            (Some(_), false) => "off-peak",
        },
        kind: item.kind.name(),
        tokens,
        price_per_million: period.prices(item.place.is_peak).of(item.kind).to_string(),
        amount: amount.rounded(6),
    }
}
