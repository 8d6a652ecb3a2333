//! `kvtier usage price`: exported records, or a ledger, and a price book make the invoice of a period.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::civil::Date;
use serde::Serialize;

use super::CliError;
use super::output::Output;
use super::table::{numbers, signed, thousands};
use super::{records, storage};
use crate::ledger::UsageRecord;
use crate::ledger::price::{
    Book, Days, Invoice, InvoiceLine, Money, Price as PriceOf, PriceError, Tally, TenantInvoice,
};
use crate::offline::StoppedLedger;
use crate::vocab::limits::BOOK_BYTES_MAX;
use crate::vocab::{AccountName, TenantName};

/// Digits of a book's hash that people are shown; programs get all.
const HASH_DIGITS: usize = 16;

#[derive(Debug, Args)]
pub(super) struct Price {
    /// The price book, in TOML.
    #[arg(long, value_name = "FILE")]
    book: PathBuf,
    /// From this day on, in the book's time zone, such as 2026-01-31.
    #[arg(long, value_name = "DATE", value_parser = day)]
    from: Option<Date>,
    /// Before this day.
    #[arg(long, value_name = "DATE", value_parser = day)]
    until: Option<Date>,
    /// Only this tenant.
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: Option<TenantName>,
    /// What the fleet cost in the same time, in the book's currency: adds the margin.
    #[arg(long, value_name = "AMOUNT", value_parser = cost)]
    cost: Option<Money>,
    /// What it costs to compute a million tokens of a prompt, in the book's currency: adds what the cache saved the provider.
    #[arg(long, value_name = "PRICE", value_parser = prefill_cost)]
    prefill_cost: Option<PriceOf>,
    /// The ledger of a stopped data folder, with its records and the storage that it has metered.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Storage that was metered: what `usage storage --json` has printed. An hour that comes twice is charged once.
    #[arg(long, value_name = "FILE")]
    storage: Vec<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Exported records: Parquet files or folders of them, or JSON lines in kvtier's shape; - for lines from standard input. A
    /// record that comes twice is charged once.
    #[arg(required_unless_present_any = ["data_dir", "storage"], value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The invoice, as programs see it. Field names are a contract: add, never rename.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    invoice: Invoice,
    cost: Option<String>,
    /// (total - cost) / cost.
    margin_percent: Option<String>,
}

/// A day as it is written in a flag.
pub(super) fn day(text: &str) -> Result<Date, String> {
    let date = text.parse().ok().filter(|_| text.len() == 10);
    date.ok_or_else(|| "it must be a date such as 2026-01-31".to_owned())
}

fn prefill_cost(text: &str) -> Result<PriceOf, String> {
    PriceOf::parse(text).ok_or_else(|| format!("it must be {}", PriceOf::RULE))
}

fn cost(text: &str) -> Result<Money, String> {
    let money = Money::parse(text).filter(|money| *money > Money::default());
    money.ok_or_else(|| "it must be a decimal number above 0, such as 87072 or 0.5".to_owned())
}

impl Price {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        if let (Some(from), Some(until)) = (self.from, self.until)
            && until <= from
        {
            return Err(CliError::usage("--until", &until, format!("after --from, {from}")));
        }
        let book = read_book(&self.book)?;
        let mut tally = Tally::new(&book, Days { from: self.from, until: self.until });
        self.read(&mut tally)?;
        let invoice = tally.invoice_with(self.prefill_cost);
        let report = Report {
            cost: self.cost.map(|cost| cost.rounded(2)),
            margin_percent: self.cost.and_then(|cost| invoice.revenue.margin_percent(cost)),
            invoice,
        };
        if self.json { output.json(&report) } else { output.text(report.text()) }
    }

    /// Takes in all that was named: files, then what the ledger of a stopped folder has, then storage.
    fn read(&self, tally: &mut Tally<'_>) -> Result<(), CliError> {
        let is_wanted = |tenant: &TenantName| self.tenant.as_ref().is_none_or(|wanted| wanted == tenant);
        let mut add = |record: &UsageRecord| match is_wanted(&record.tenant) {
            true => tally.add(record).map_err(|error| error.to_string()),
            false => Ok(()),
        };
        self.files.iter().try_for_each(|file| records::read(file, &mut add))?;
        let mut storage = Vec::new();
        for path in &self.storage {
            let text = fs::read(path).map_err(|source| CliError::File { path: path.clone(), source })?;
            let rows: Vec<storage::Row> = serde_json::from_slice(&text).map_err(|error| CliError::Config {
                path: path.clone(),
                why: format!("{error}; it must be what `usage storage --json` has printed"),
            })?;
            let bad = |why| CliError::Config { path: path.clone(), why };
            for row in &rows {
                let (ledger, row) = row.metered().map_err(bad)?;
                storage.push((path.clone(), ledger.to_owned(), row));
            }
        }
        if let Some(dir) = &self.data_dir {
            let ledger = StoppedLedger::open(dir)?;
            self.check_all_there(&ledger, tally)?;
            for record in ledger.records() {
                let record = record?;
                if is_wanted(&record.tenant) {
                    let place = |why| CliError::Record { path: dir.clone(), line: record.sequence, why };
                    tally.add(&record).map_err(|error| place(error.to_string()))?;
                }
            }
            let rows = ledger.storage()?.into_iter();
            storage.extend(rows.map(|row| (dir.clone(), ledger.id(), row)));
        }
        for (path, ledger, row) in &storage {
            if matches!(&row.key.account, AccountName::Tenant(tenant) if is_wanted(tenant)) {
                let refused = |why: PriceError| CliError::Config { path: path.clone(), why: why.to_string() };
                tally.add_storage(ledger, row).map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Records that were deleted would be missing from the invoice without a word.
    fn check_all_there(&self, ledger: &StoppedLedger, tally: &Tally<'_>) -> Result<(), CliError> {
        let deleted = ledger.deleted()?;
        let of_these_days = deleted.iter().filter(|(hour, sum)| sum.corrections > 0 || tally.has_hour(*hour));
        let records: u64 = of_these_days.map(|(_, sum)| sum.records + sum.corrections).sum();
        if records == 0 || !self.files.is_empty() {
            return Ok(());
        }
        Err(CliError::Bad(format!(
            "the ledger no longer has {records} records that may be of these days: they were acknowledged, and deleted when they \
             were old enough; name the files to which they were exported, too: what comes twice is charged once"
        )))
    }
}

/// Reads a price book.
pub(super) fn read_book(path: &Path) -> Result<Book, CliError> {
    let fail = |source| CliError::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(fail)?.len() > BOOK_BYTES_MAX as u64 {
        return Err(CliError::Config {
            path: path.to_owned(),
            why: format!("it must be at most {BOOK_BYTES_MAX} bytes"),
        });
    }
    let text = fs::read_to_string(path).map_err(fail)?;
    Book::parse(&text).map_err(|error| CliError::Config { path: path.to_owned(), why: error.to_string() })
}

impl Report {
    fn text(&self) -> String {
        let invoice = &self.invoice;
        let currency = &invoice.currency;
        let mut text: String = invoice.tenants.iter().map(|tenant| part(tenant, currency)).collect();
        let line = |name: &str, words: String| format!("{name:<9}{words}\n");
        text += &line("total", format!("{} {currency}", grouped(&invoice.total)));
        text += &line(
            "saved",
            format!("{} {currency}: hits at the price of a miss, less what they cost", grouped(&invoice.saved)),
        );
        if let Some(saved) = &invoice.provider_saved {
            let words = "what it would have cost to compute the hits, for the provider";
            text += &line("avoided", format!("{} {currency}: {words}", grouped(saved)));
        }
        if let (Some(cost), Some(margin)) = (&self.cost, &self.margin_percent) {
            text += &line("margin", format!("{margin} % on a cost of {} {currency}", grouped(cost)));
        }
        let repeated = match invoice.repeated {
            0 => String::new(),
            repeated => format!(", and {} that came again and were not charged again", thousands(repeated)),
        };
        let corrections = match invoice.corrections {
            0 => String::new(),
            corrections => format!(", {} corrections", thousands(corrections)),
        };
        text += &line("records", format!("{}{corrections}{repeated}", thousands(invoice.records)));
        let [from, until] = [&invoice.from, &invoice.until].map(|day| day.as_deref().unwrap_or("open"));
        text += &line("days", format!("{from} until {until}, {}", invoice.time_zone));
        text + &format!("{:<9}{}", "book", &invoice.book[..HASH_DIGITS])
    }
}

fn part(part: &TenantInvoice, currency: &str) -> String {
    let row = |line: &InvoiceLine| {
        let price = match &line.valid_from {
            Some(from) => format!("{} from {from}", line.price_per_million),
            None => line.price_per_million.clone(),
        };
        let hours = if line.hours == "all" { String::new() } else { line.hours.to_owned() };
        let name = [line.namespace.clone()].into_iter();
        let labels = line.labels.iter().map(|(label, value)| format!("{label}={value}"));
        let name = name.chain(labels).collect::<Vec<_>>().join(" ");
        let kind = line.class.as_ref().map_or_else(|| line.kind.to_owned(), |class| format!("{} {class}", line.kind));
        let kind = if line.correction { format!("{kind}, corrected") } else { kind };
        let tokens = line.token_hours.as_ref().map_or_else(|| signed(line.tokens), |hours| grouped(hours));
        [name, kind, hours, price, tokens, grouped(&line.amount)]
    };
    let amount = format!("amount, {currency}");
    let header = ["namespace", "tokens of", "hours", "price a million", "tokens (-hours)", amount.as_str()];
    let table = numbers(header, part.lines.iter().map(row));
    let (total, saved) = (grouped(&part.total), grouped(&part.saved));
    format!("{}\n{table}\n{} pays {total} {currency}, the cache saved {saved} {currency}\n\n", part.tenant, part.tenant)
}

/// `562100.00` as `562,100.00`.
fn grouped(amount: &str) -> String {
    let (whole, rest) = amount.split_once('.').unwrap_or((amount, ""));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    match digits.parse() {
        Ok(number) => format!("{sign}{}.{rest}", thousands(number)),
        Err(_) => amount.to_owned(),
    }
}
