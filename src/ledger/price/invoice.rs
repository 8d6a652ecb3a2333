//! An invoice: lines, totals, and what the cache saved. Amounts are decimal text, so that no reader makes floats of them.
//!
//! A line's amount is its tokens times its price, computed once and rounded to 6 digits. A total is the sum of the exact
//! amounts, rounded once to 2 digits; so a sum of printed lines may differ from the total in the last digit.

use std::collections::BTreeMap;

use serde::Serialize;

use super::book::Kind;
use super::money::{Money, Price};
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
    /// Corrections charged or taken back.
    pub corrections: u64,
    /// Records, corrections and hours of storage that came again and were not charged again.
    pub repeated: u64,
    /// What all tenants pay.
    pub total: String,
    /// What all tenants would have paid more without the cache: hits at the price of a miss, less what they cost.
    pub saved: String,
    /// What the provider would have paid more without the cache: hits at what it costs to compute a token; absent where nobody
    /// said what that is.
    pub provider_saved: Option<String>,
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
    /// Corrections charged or taken back.
    pub corrections: u64,
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
    /// What for: `hit_ram`, `hit_nvme`, `miss`, `attested`, `written`, `output` or `storage_hour`.
    pub kind: &'static str,
    /// Of written tokens and of storage, which class, where it has a price of its own.
    pub class: Option<String>,
    /// Whether it corrects what was charged before, on this invoice or an earlier one.
    pub correction: bool,
    /// How many: below zero where more was taken back than added. 0 of storage.
    pub tokens: i64,
    /// Of storage, tokens × hours, rounded down to 3 digits.
    pub token_hours: Option<String>,
    /// The price of a million tokens, or token-hours.
    pub price_per_million: String,
    /// Tokens × price / 1,000,000, rounded to 6 digits.
    pub amount: String,
}

/// Exact sums of one tenant.
#[derive(Clone, Copy, Default)]
struct Amounts {
    total: Money,
    saved: Money,
    /// Tokens that were hits.
    hit: i64,
}

impl Tally<'_> {
    /// The invoice of what has been added.
    #[must_use]
    pub fn invoice(&self) -> Invoice {
        self.invoice_with(None)
    }

    /// The same, with what it costs the provider to compute a million tokens of a prompt.
    #[must_use]
    pub fn invoice_with(&self, prefill_cost: Option<Price>) -> Invoice {
        let (mut all, mut tenants) = (Amounts::default(), Vec::new());
        for (tenant, sums) in &self.tenants {
            let (amounts, part) = self.tenant(tenant.as_str(), sums);
            all = Amounts {
                total: all.total + amounts.total,
                saved: all.saved + amounts.saved,
                hit: all.hit + amounts.hit,
            };
            tenants.push(part);
        }
        Invoice {
            book: self.book.hash.clone(),
            currency: self.book.currency.clone(),
            time_zone: self.book.time_zone.clone(),
            from: self.days.from.map(|day| day.to_string()),
            until: self.days.until.map(|day| day.to_string()),
            records: self.tenants.values().map(|sums| sums.records).sum(),
            corrections: self.tenants.values().map(|sums| sums.corrections).sum(),
            repeated: self.repeated,
            total: all.total.rounded(2),
            saved: all.saved.rounded(2),
            provider_saved: prefill_cost.map(|cost| cost.of(all.hit).rounded(2)),
            tenants,
            revenue: all.total,
        }
    }

    fn tenant(&self, tenant: &str, sums: &Sums) -> (Amounts, TenantInvoice) {
        let (mut amounts, mut lines) = (Amounts::default(), Vec::new());
        for (item, tokens) in &sums.tokens {
            let prices = self.book.prices(item.place);
            let amount = prices.of(&item.kind).unwrap_or_default().of(*tokens);
            if matches!(item.kind, Kind::HitRam | Kind::HitNvme) {
                amounts.saved = amounts.saved + (prices.miss.of(*tokens) - amount);
                amounts.hit += tokens;
            }
            amounts.total = amounts.total + amount;
            lines.push((item, self.line(item, *tokens, None, amount)));
        }
        for (item, token_ms) in &sums.storage {
            let price = self.book.prices(item.place).of(&item.kind).unwrap_or_default();
            // `add_storage` has seen to it that it is a number.
            let amount = price.of_storage(*token_ms).unwrap_or_default();
            amounts.total = amounts.total + amount;
            lines.push((item, self.line(item, 0, Some(token_hours(*token_ms)), amount)));
        }
        lines.sort_by_key(|(item, _)| *item);
        let lines = lines.into_iter().map(|(_, line)| line).collect();
        let (total, saved) = (amounts.total.rounded(2), amounts.saved.rounded(2));
        let (tenant, records, corrections) = (tenant.to_owned(), sums.records, sums.corrections);
        (amounts, TenantInvoice { tenant, records, corrections, total, saved, lines })
    }

    fn line(&self, item: &Item, tokens: i64, token_hours: Option<String>, amount: Money) -> InvoiceLine {
        let period = &self.book.periods[item.place.period];
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
            class: item.kind.class(),
            correction: item.is_correction,
            tokens,
            token_hours,
            price_per_million: self.book.prices(item.place).of(&item.kind).unwrap_or_default().to_string(),
            amount: amount.rounded(6),
        }
    }
}

/// Tokens × hours, to a thousandth, rounded down.
#[must_use]
pub fn token_hours(token_ms: u128) -> String {
    let thousandths = token_ms / 3_600;
    format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000)
}
