//! What a book charges on average: for plans, which know no hour of the day.

use jiff::civil::Date;

use super::Book;
use super::book::Labels;
use super::calendar::Moment;
use super::money::Price;
use crate::vocab::{NamespaceName, Timestamp};

/// Minutes of a week.
const WEEK_MINUTES: u64 = 7 * 24 * 60;

/// Mean prices of a million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanPrices {
    /// Of hits from RAM.
    pub hit_ram: f64,
    /// Of hits from NVMe.
    pub hit_nvme: f64,
    /// Of computed tokens.
    pub miss: f64,
}

impl Book {
    /// The currency of its prices.
    #[must_use]
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// The mean over the minutes of the week that begins with this day, of tokens without labels; nothing where a minute
    /// has no price.
    #[must_use]
    pub fn week_prices(&self, namespace: &NamespaceName, from: Date) -> Option<MeanPrices> {
        let start = from.to_zoned_datetime(self.zone.clone()).ok()?.timestamp().as_millisecond();
        let start = u64::try_from(start).ok()?;
        let mut sums = [0; 3];
        for minute in 0..WEEK_MINUTES {
            let moment = Moment::of(Timestamp(start + minute * 60_000), &self.zone)?;
            let prices = self.prices(self.place(namespace, &Labels::new(), moment)?);
            for (sum, Price(price)) in sums.iter_mut().zip([prices.hit_ram, prices.hit_nvme, prices.miss]) {
                *sum += price;
            }
        }
        let [hit_ram, hit_nvme, miss] = sums.map(|sum| sum as f64 / WEEK_MINUTES as f64 / 1e6);
        Some(MeanPrices { hit_ram, hit_nvme, miss })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_with_other_prices_count_for_the_share_of_the_week_that_they_are() {
        let book = Book::parse(include_str!("../../../examples/prices.toml")).unwrap();
        let namespace = NamespaceName::parse("any").unwrap();
        let mean = book.week_prices(&namespace, Date::constant(2026, 11, 28)).unwrap();
        // Five days of nine hours at twice the price.
        let twice = 1.0 + 45.0 / 168.0;
        for (found, price) in [(mean.hit_ram, 0.10), (mean.hit_nvme, 0.14), (mean.miss, 0.55)] {
            assert!((found - price * twice).abs() < 1e-9, "{found} {price}");
        }
        assert_eq!(book.week_prices(&namespace, Date::constant(2019, 12, 29)), None, "the book begins in that week");
    }
}
