//! `kvtier usage price`: exported records and a price book make the invoice of a period.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::civil::Date;
use serde::Serialize;

use super::CliError;
use super::output::Output;
use super::table::{numbers, thousands};
use crate::ledger::price::{Book, Days, Invoice, InvoiceLine, Money, Tally, TenantInvoice};
use crate::ledger::shape::Line;
use crate::vocab::TenantName;
use crate::vocab::limits::{BOOK_BYTES_MAX, EXPORT_LINE_BYTES_MAX};

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
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Exported records: JSON lines in kvtier's shape; - for standard input. A record that comes twice is charged once.
    #[arg(required = true, value_name = "FILE")]
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

fn day(text: &str) -> Result<Date, String> {
    let date = text.parse().ok().filter(|_| text.len() == 10);
    date.ok_or_else(|| "it must be a date such as 2026-01-31".to_owned())
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
        for file in &self.files {
            self.read(file, &mut tally)?;
        }
        let invoice = tally.invoice();
        let report = Report {
            cost: self.cost.map(|cost| cost.rounded(2)),
            margin_percent: self.cost.and_then(|cost| invoice.revenue.margin_percent(cost)),
            invoice,
        };
        if self.json { output.json(&report) } else { output.text(report.text()) }
    }

    fn read(&self, path: &Path, tally: &mut Tally<'_>) -> Result<(), CliError> {
        let fail = |source| CliError::File { path: path.to_owned(), source };
        let reader: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(path).map_err(fail)?)
        };
        let mut reader = BufReader::new(reader);
        let mut text = Vec::new();
        for line in 1_u64.. {
            text.clear();
            let limit = EXPORT_LINE_BYTES_MAX as u64 + 1;
            if reader.by_ref().take(limit).read_until(b'\n', &mut text).map_err(fail)? == 0 {
                break;
            }
            self.add(&text, tally).map_err(|why| CliError::Record { path: path.to_owned(), line, why })?;
        }
        Ok(())
    }

    fn add(&self, text: &[u8], tally: &mut Tally<'_>) -> Result<(), String> {
        if text.len() > EXPORT_LINE_BYTES_MAX {
            return Err(format!("the line is longer than {EXPORT_LINE_BYTES_MAX} bytes, it must be one record"));
        }
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        let record = Line::parse(text).and_then(|line| line.record()).map_err(|error| error.to_string())?;
        if self.tenant.as_ref().is_some_and(|tenant| *tenant != record.tenant) {
            return Ok(());
        }
        tally.add(&record).map_err(|error| error.to_string())
    }
}

fn read_book(path: &Path) -> Result<Book, CliError> {
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
        if let (Some(cost), Some(margin)) = (&self.cost, &self.margin_percent) {
            text += &line("margin", format!("{margin} % on a cost of {} {currency}", grouped(cost)));
        }
        let repeated = match invoice.repeated {
            0 => String::new(),
            repeated => format!(", and {} that came again and were not charged again", thousands(repeated)),
        };
        text += &line("records", format!("{}{repeated}", thousands(invoice.records)));
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
        [name, line.kind.to_owned(), hours, price, thousands(line.tokens), grouped(&line.amount)]
    };
    let amount = format!("amount, {currency}");
    let header = ["namespace", "tokens of", "hours", "price a million", "tokens", amount.as_str()];
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
