//! What a plan is worth in money: what it costs to compute a prompt, what customers pay, what RAM and drives cost.

use std::path::PathBuf;

use clap::Args;
use jiff::civil::Date;
use serde::Serialize;

use super::super::CliError;
use super::super::price::{day, read_book};
use crate::replay::Fleet;
use crate::vocab::{Clock, NamespaceName, SystemClock};

/// What a GB of RAM and a TB of NVMe cost a month where nobody says. Placeholders: about 6 a GB and 180 a TB, over three years.
const RAM_GB_MONTH: f64 = 0.17;
const NVME_TB_MONTH: f64 = 5.0;
const SECONDS_PER_HOUR: f64 = 3_600.0;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// What it costs to compute a million prompt tokens: adds what each size saves a day, and what a TB more does.
    #[arg(long, value_name = "PRICE", value_parser = price, conflicts_with_all = ["gpu_hour", "prefill_rate"])]
    prefill_cost: Option<f64>,
    /// What a GPU costs an hour: with --prefill-rate, another way to say --prefill-cost. A --fleet says both.
    #[arg(long, value_name = "PRICE", value_parser = price, requires = "prefill_rate")]
    gpu_hour: Option<f64>,
    /// Prompt tokens that a GPU computes in a second.
    #[arg(long, value_name = "TOKENS", value_parser = positive, requires = "gpu_hour")]
    prefill_rate: Option<f64>,
    /// A price book in TOML (examples/prices.toml): adds what customers pay less for hits than for computed tokens.
    #[arg(long, value_name = "FILE", requires = "book_model")]
    book: Option<PathBuf>,
    /// Whose prices of the book: the namespace, as records name it.
    #[arg(long, value_name = "NAME", value_parser = NamespaceName::parse, requires = "book")]
    book_model: Option<NamespaceName>,
    /// The mean over the week that begins on this day; today where absent.
    #[arg(long, value_name = "DATE", value_parser = day, requires = "book")]
    book_day: Option<Date>,
    /// What a GB of RAM costs a month. Where absent, a placeholder: 0.17.
    #[arg(long, value_name = "PRICE", value_parser = price)]
    ram_gb_month: Option<f64>,
    /// What a TB of NVMe costs a month. Where absent, a placeholder: 5.
    #[arg(long, value_name = "PRICE", value_parser = price)]
    nvme_tb_month: Option<f64>,
}

/// Prices of a plan. Field names are a contract: add, never rename.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Prices {
    /// Of computing a million prompt tokens.
    pub(super) prefill_per_million: Option<f64>,
    /// By which `prefill_per_million` is known: `prefill-cost`, `gpu-hour` or `fleet`.
    pub(super) prefill_from: Option<&'static str>,
    /// What customers pay for a million tokens.
    pub(super) book: Option<BookPrices>,
    /// Of a GB of RAM, a month.
    pub(super) ram_gb_month: f64,
    /// Of a TB of NVMe, a month.
    pub(super) nvme_tb_month: f64,
    /// Whether nobody said one of the two.
    pub(super) are_placeholders: bool,
}

/// What customers pay, on average over a week. Hits are at the price of those from NVMe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct BookPrices {
    pub(super) currency: String,
    pub(super) model: String,
    /// The first day of the week.
    pub(super) from: String,
    pub(super) hit_per_million: f64,
    pub(super) miss_per_million: f64,
}

/// A price of a flag.
fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| (0.0..=1e6).contains(price));
    price.ok_or_else(|| "it must be a number from 0 to 1000000".to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && rate.is_finite());
    rate.ok_or_else(|| "it must be a number above 0".to_owned())
}

impl Flags {
    pub(super) fn prices(&self, fleet: Option<&Fleet>) -> Result<Prices, CliError> {
        let by_gpu = |hour: f64, per_second: f64| hour / (per_second * SECONDS_PER_HOUR) * 1e6;
        let said = self.prefill_cost.map(|cost| (cost, "prefill-cost"));
        let gpu = || self.gpu_hour.zip(self.prefill_rate).map(|(hour, rate)| (by_gpu(hour, rate), "gpu-hour"));
        let node = |fleet: &Fleet| fleet.gpu_hour * f64::from(fleet.gpus_per_node);
        let fleets = || fleet.map(|fleet| (by_gpu(node(fleet), fleet.prefill.computed_per_second), "fleet"));
        let prefill = said.or_else(gpu).or_else(fleets);
        Ok(Prices {
            prefill_per_million: prefill.map(|(cost, _)| cost),
            prefill_from: prefill.map(|(_, from)| from),
            book: self.book_prices()?,
            ram_gb_month: self.ram_gb_month.unwrap_or(RAM_GB_MONTH),
            nvme_tb_month: self.nvme_tb_month.unwrap_or(NVME_TB_MONTH),
            are_placeholders: self.ram_gb_month.is_none() || self.nvme_tb_month.is_none(),
        })
    }

    fn book_prices(&self) -> Result<Option<BookPrices>, CliError> {
        let Some((path, model)) = self.book.as_ref().zip(self.book_model.as_ref()) else { return Ok(None) };
        let book = read_book(path)?;
        let today = || {
            let now = i64::try_from(SystemClock.now().0).ok()?;
            let now = jiff::Timestamp::from_millisecond(now).ok()?;
            Some(now.to_zoned_datetime(jiff::tz::TimeZone::UTC).date())
        };
        let from = self.book_day.or_else(today).unwrap_or(Date::ZERO);
        let mean = book.week_prices(model, from).ok_or_else(|| CliError::Config {
            path: path.clone(),
            why: format!("no price of {model} covers the week from {from} on; --book-day names another"),
        })?;
        Ok(Some(BookPrices {
            currency: book.currency().to_owned(),
            model: model.to_string(),
            from: from.to_string(),
            hit_per_million: mean.hit_nvme,
            miss_per_million: mean.miss,
        }))
    }
}

impl Prices {
    /// What a million hit tokens bring: what need not be computed, less what customers pay less for them.
    pub(super) fn hit_worth(&self) -> Option<f64> {
        self.prefill_per_million.map(|prefill| prefill - self.forgone_per_million().unwrap_or(0.0))
    }

    /// What customers pay less for a million tokens that are hits.
    pub(super) fn forgone_per_million(&self) -> Option<f64> {
        self.book.as_ref().map(|book| book.miss_per_million - book.hit_per_million)
    }

    /// The currency, before an amount, where a book says it.
    pub(super) fn currency(&self) -> Option<&str> {
        self.book.as_ref().map(|book| book.currency.as_str())
    }

    /// What was taken for RAM and drives, in words.
    pub(super) fn storage_words(&self) -> String {
        let placeholders = if self.are_placeholders {
            " (a placeholder where --ram-gb-month or --nvme-tb-month is not given)"
        } else {
            ""
        };
        format!("{} a GB of RAM and {} a TB of NVMe a month{placeholders}", self.ram_gb_month, self.nvme_tb_month)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        money: Flags,
    }

    fn prices(flags: &[&str]) -> Prices {
        Alone::parse_from(["x"].iter().chain(flags)).money.prices(None).unwrap()
    }

    #[test]
    fn the_cost_of_prefill_is_said_or_follows_from_a_gpu_or_a_fleet() {
        assert_eq!(prices(&[]).prefill_per_million, None);
        assert_eq!(prices(&["--prefill-cost", "0.05"]).prefill_per_million, Some(0.05));
        // 3.6 an hour at 10,000 tokens a second are 0.1 a million.
        let gpu = prices(&["--gpu-hour", "3.6", "--prefill-rate", "10000"]);
        assert!((gpu.prefill_per_million.unwrap() - 0.1).abs() < 1e-12 && gpu.prefill_from == Some("gpu-hour"));
        let fleet: Fleet = toml::from_str(include_str!("../../../examples/deepseek-fleet.toml")).unwrap();
        let of_fleet = Alone::parse_from(["x"]).money.prices(Some(&fleet)).unwrap();
        assert!((of_fleet.prefill_per_million.unwrap() - 16.0 / (32_244.0 * 3_600.0) * 1e6).abs() < 1e-12);
        assert!(Alone::try_parse_from(["x", "--gpu-hour", "2"]).is_err(), "a rate is missing");
    }

    #[test]
    fn a_book_says_what_customers_pay_less_for_a_hit() {
        let book = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prices.toml");
        let flags = ["--book", book, "--book-model", "any", "--book-day", "2026-11-28", "--prefill-cost", "0.2"];
        let prices = prices(&flags);
        let twice = 1.0 + 45.0 / 168.0;
        assert!((prices.forgone_per_million().unwrap() - (0.55 - 0.14) * twice).abs() < 1e-9, "{prices:?}");
        assert!((prices.hit_worth().unwrap() - (0.2 - 0.41 * twice)).abs() < 1e-9);
        assert_eq!(prices.currency(), Some("USD"));
        let early = ["x", "--book", book, "--book-model", "any", "--book-day", "2019-01-01"];
        let refused = Alone::parse_from(early).money.prices(None).unwrap_err().to_string();
        assert!(refused.contains("no price of any covers the week from 2019-01-01 on"), "{refused}");
    }
}
