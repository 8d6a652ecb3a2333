//! A book from its TOML.

use std::collections::BTreeMap;

use jiff::civil::Date;
use jiff::tz::TimeZoneDatabase;
use toml::de::DeTable;

use super::book::{Book, Peak, Period, Prices};
use super::calendar::{Days, Window, clock, weekday};
use super::error::BookError;
use super::fields::{Fields, refuse, scalar};
use super::money::Price;
use super::{canonical, check};
use crate::vocab::limits::{BOOK_BYTES_MAX, BOOK_PERIODS_MAX};
use crate::vocab::{ClassName, NamespaceName};

const DATE_RULE: &str = "a date such as 2026-01-31";
const CLOCK_RULE: &str = "a time such as \"09:30\", from \"00:00\" to \"24:00\"";
const DAYS_RULE: &str = "a list of days: mon, tue, wed, thu, fri, sat, sun";

impl Book {
    /// Reads and checks a book.
    ///
    /// # Errors
    /// Names the path of the first field that breaks its rule, what it held, and the rule.
    pub fn parse(text: &str) -> Result<Self, BookError> {
        if text.len() > BOOK_BYTES_MAX {
            return Err(refuse("the book", &format!("{} bytes", text.len()), &format!("at most {BOOK_BYTES_MAX}")));
        }
        let table = DeTable::parse(text).map_err(|error| BookError::Syntax(error.to_string().trim_end().to_owned()))?;
        let mut fields = Fields::new("", table.get_ref());
        let rule = "three capital letters, such as USD";
        let currency = fields.required("currency", rule)?;
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(fields.refuse("currency", &currency, rule));
        }
        // Only the database that is built in: a host's own may be of another year, and the invoice with it.
        let rule = "the name of an IANA time zone, such as Asia/Shanghai or UTC";
        let time_zone = fields.required("time_zone", rule)?;
        let zone =
            TimeZoneDatabase::bundled().get(&time_zone).map_err(|_| fields.refuse("time_zone", &time_zone, rule))?;
        let time_zone = zone.iana_name().map_or(time_zone, str::to_owned);
        let found = fields.tables("price")?;
        if found.len() > BOOK_PERIODS_MAX {
            return Err(fields.refuse(
                "price",
                &format!("{} periods", found.len()),
                &format!("at most {BOOK_PERIODS_MAX}"),
            ));
        }
        let periods = found.into_iter().map(|(path, table)| period(&path, table)).collect::<Result<Vec<_>, _>>()?;
        fields.end()?;
        check::overlaps(&periods)?;
        let periods = sorted(periods);
        let hash = canonical::hash(&currency, &time_zone, &periods);
        Ok(Self { currency, time_zone, zone, periods, hash })
    }
}

fn sorted(mut periods: Vec<Period>) -> Vec<Period> {
    let key = |period: &Period| (period.namespace.clone(), period.labels.clone(), period.days);
    periods.sort_by_cached_key(key);
    periods
}

fn period(path: &str, table: &DeTable<'_>) -> Result<Period, BookError> {
    let mut fields = Fields::new(path, table);
    let rule = "1 to 128 printable ASCII characters without spaces";
    let namespace = match fields.text("namespace", rule)? {
        Some(name) => {
            Some(NamespaceName::parse(&name).map_err(|_| fields.refuse("namespace", &format!("{name:?}"), rule))?)
        }
        None => None,
    };
    let labels = labels(&mut fields)?;
    let from = date(&mut fields, "valid_from")?.ok_or_else(|| fields.refuse("valid_from", "missing", DATE_RULE))?;
    let until = date(&mut fields, "valid_until")?;
    if let Some(until) = until.filter(|until| *until <= from) {
        return Err(fields.refuse("valid_until", &until.to_string(), &format!("after valid_from, {from}")));
    }
    let prices = prices(&mut fields)?;
    let peak = match fields.table("peak")? {
        Some(table) => Some(peak(&fields.path("peak"), table)?),
        None => None,
    };
    fields.end()?;
    Ok(Period { namespace, labels, days: Days { from: Some(from), until }, prices, peak })
}

fn labels(fields: &mut Fields<'_, '_>) -> Result<BTreeMap<String, String>, BookError> {
    let Some(table) = fields.table("labels")? else { return Ok(BTreeMap::new()) };
    let path = fields.path("labels");
    let pair = |(label, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<toml::de::DeValue<'_>>)| {
        let label = label.get_ref().to_string();
        match scalar(value.get_ref()) {
            Some(value) => Ok((label, value)),
            None => Err(refuse(format!("{path}.{label}"), value.get_ref().type_str(), "a string")),
        }
    };
    table.iter().map(pair).collect()
}

fn date(fields: &mut Fields<'_, '_>, name: &'static str) -> Result<Option<Date>, BookError> {
    let Some(text) = fields.text(name, DATE_RULE)? else { return Ok(None) };
    let day = Some(&text).filter(|text| text.len() == 10).and_then(|text| text.parse().ok());
    day.map(Some).ok_or_else(|| fields.refuse(name, &text, DATE_RULE))
}

fn price(fields: &mut Fields<'_, '_>, name: &'static str) -> Result<Option<Price>, BookError> {
    let Some(text) = fields.text(name, Price::RULE)? else { return Ok(None) };
    Price::parse(&text).map(Some).ok_or_else(|| fields.refuse(name, &text, Price::RULE))
}

fn prices(fields: &mut Fields<'_, '_>) -> Result<Prices, BookError> {
    let hit = price(fields, "hit")?;
    let mut tier = |name: &'static str| match (price(fields, name)?, hit) {
        (Some(_), Some(_)) => Err(fields.refuse(name, "given", "absent where `hit` is given, which is for both tiers")),
        (Some(price), None) | (None, Some(price)) => Ok(price),
        (None, None) => Err(fields.refuse(name, "missing", &format!("{}, or `hit` for both tiers", Price::RULE))),
    };
    let (hit_ram, hit_nvme) = (tier("hit_ram")?, tier("hit_nvme")?);
    let mut required = |name: &'static str| {
        price(fields, name)?
            .ok_or_else(|| fields.refuse(name, "missing", &format!("{}; 0 where it is free", Price::RULE)))
    };
    let (miss, written, output) = (required("miss")?, required("written")?, required("output")?);
    let attested = price(fields, "attested")?.unwrap_or(miss);
    let (written_by_class, storage_hour) = (classes(fields)?, storage_hour(fields)?);
    Ok(Prices { hit_ram, hit_nvme, miss, attested, written, written_by_class, output, storage_hour })
}

fn classes(fields: &mut Fields<'_, '_>) -> Result<BTreeMap<ClassName, Price>, BookError> {
    let Some(table) = fields.table("written_by_class")? else { return Ok(BTreeMap::new()) };
    let path = fields.path("written_by_class");
    let price = |(class, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<toml::de::DeValue<'_>>)| {
        let (class, value) = (class.get_ref().to_string(), value.get_ref());
        let path = format!("{path}.{class}");
        let rule = "a class such as 1h or 5m: 1 to 128 printable ASCII characters without spaces";
        let name = ClassName::parse(&class).map_err(|_| refuse(&path, &format!("{class:?}"), rule))?;
        let text = scalar(value).ok_or_else(|| refuse(&path, value.type_str(), Price::RULE))?;
        Price::parse(&text).map(|price| (name, price)).ok_or_else(|| refuse(&path, &text, Price::RULE))
    };
    table.iter().map(price).collect()
}

/// One for both classes of storage, or one for each.
fn storage_hour(fields: &mut Fields<'_, '_>) -> Result<Option<[Price; 2]>, BookError> {
    let names = ["storage_hour_best_effort", "storage_hour_guaranteed"];
    let both = price(fields, "storage_hour")?;
    match (both, price(fields, names[0])?, price(fields, names[1])?) {
        (both, None, None) => Ok(both.map(|price| [price; 2])),
        (None, Some(best_effort), Some(guaranteed)) => Ok(Some([best_effort, guaranteed])),
        (None, best_effort, _) => {
            let missing = names[usize::from(best_effort.is_some())];
            let rule = format!("{}, where the other class of storage has one; 0 where it is free", Price::RULE);
            Err(fields.refuse(missing, "missing", &rule))
        }
        (Some(_), best_effort, _) => {
            let given = names[usize::from(best_effort.is_none())];
            Err(fields.refuse(given, "given", "absent where `storage_hour` is given, which is for both classes"))
        }
    }
}

fn peak(path: &str, table: &DeTable<'_>) -> Result<Peak, BookError> {
    let mut fields = Fields::new(path, table);
    let windows = fields.tables("hours")?;
    let mut hours = windows.into_iter().map(|(path, table)| window(&path, table)).collect::<Result<Vec<_>, _>>()?;
    hours.sort();
    hours.dedup();
    let prices = prices(&mut fields)?;
    fields.end()?;
    Ok(Peak { hours, prices })
}

fn window(path: &str, table: &DeTable<'_>) -> Result<Window, BookError> {
    let mut fields = Fields::new(path, table);
    let names = fields.words("days", DAYS_RULE)?;
    let number = |name: &String| weekday(name).ok_or_else(|| fields.refuse("days", name, DAYS_RULE));
    let mut days = names.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    days.sort_unstable();
    days.dedup();
    let mut at = |name: &'static str| {
        let text = fields.required(name, CLOCK_RULE)?;
        clock(&text).map(|at| (at, text.clone())).ok_or_else(|| fields.refuse(name, &text, CLOCK_RULE))
    };
    let ((from, begins), (until, ends)) = (at("from")?, at("until")?);
    if until <= from {
        let rule =
            format!("after from, {begins}; hours across midnight are two windows, until \"24:00\" and from \"00:00\"");
        return Err(fields.refuse("until", &ends, &rule));
    }
    fields.end()?;
    Ok(Window { days, from, until })
}
