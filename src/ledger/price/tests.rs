//! Claims of books and tallies that need no command: which price a moment has, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::ledger::sample::settlement;
use crate::ledger::{Correction, Counts, StorageKey, StorageRow, UsageRecord};
use crate::vocab::{AccountName, BillingId, ClassName, DomainName, NamespaceName, TenantName, Timestamp, TokenCount};

const PRICES: &str = "hit = 1\nmiss = 2\nwritten = 3\noutput = 4\n";

fn written(zone: &str, periods: &str) -> String {
    format!("currency = \"USD\"\ntime_zone = \"{zone}\"\n{periods}")
}

fn book(zone: &str, periods: &str) -> Book {
    Book::parse(&written(zone, periods)).unwrap()
}

fn refused(periods: &str) -> String {
    Book::parse(&written("UTC", periods)).unwrap_err().to_string()
}

fn at(time: &str) -> Timestamp {
    let time: jiff::Timestamp = time.parse().unwrap();
    Timestamp(time.as_millisecond().unsigned_abs())
}

/// 500 hits from RAM, 100 from NVMe, 64 attested, 336 computed, 320 written, 50 out; class batch.
fn record(billing_id: &str, time: &str) -> UsageRecord {
    UsageRecord { settled_at: at(time), ..UsageRecord::of(settlement("acme", billing_id), 1).unwrap() }
}

/// The price of an output token of a record of then: it tells which price was taken.
fn output_price(book: &Book, record: &UsageRecord) -> Result<String, PriceError> {
    let mut tally = Tally::new(book, Days::default());
    tally.add(record)?;
    let lines = &tally.invoice().tenants[0].lines;
    Ok(lines.iter().find(|line| line.kind == "output").unwrap().price_per_million.clone())
}

fn with_peak(days: &str, from: &str, until: &str) -> String {
    format!(
        "[[price]]\nvalid_from = 2024-01-01\n{PRICES}[price.peak]\nhit = 10\nmiss = 20\nwritten = 30\noutput = 40\n\
         hours = [{{ days = {days}, from = \"{from}\", until = \"{until}\" }}]\n"
    )
}

#[test]
fn peak_hours_are_those_of_the_clock_on_the_wall_also_when_it_changes() {
    let book = book("Europe/Berlin", &with_peak("[\"sun\"]", "02:00", "03:00"));
    // On 29 March 2026 the clock goes from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
    for (time, price) in [
        ("2026-03-22T00:59:59.999Z", "4"),
        ("2026-03-22T01:00:00Z", "40"),
        ("2026-03-22T02:00:00Z", "4"),
        ("2026-03-29T00:59:59.999Z", "4"),
        ("2026-03-29T01:00:00Z", "4"),
        ("2026-04-05T00:30:00Z", "40"),
        ("2026-10-24T23:59:59.999Z", "4"),
        ("2026-10-25T00:30:00Z", "40"),
        ("2026-10-25T01:30:00Z", "40"),
        ("2026-10-25T02:00:00Z", "4"),
        ("2026-10-26T01:30:00Z", "4"),
    ] {
        assert_eq!(output_price(&book, &record("b", time)).as_deref(), Ok(price), "{time}");
    }
}

#[test]
fn a_window_may_end_with_the_day() {
    let book = book("UTC", &with_peak("[\"sat\", \"sunday\"]", "22:00", "24:00"));
    for (time, price) in [("2024-01-06T23:59:59Z", "40"), ("2024-01-07T00:00:00Z", "4"), ("2024-01-08T23:00:00Z", "4")]
    {
        assert_eq!(output_price(&book, &record("b", time)).as_deref(), Ok(price), "{time}");
    }
}

#[test]
fn a_month_ends_at_midnight_of_the_books_zone() {
    let cheap = PRICES.replace("output = 4", "output = 5");
    let periods = format!(
        "[[price]]\nvalid_from = 2024-02-01\nvalid_until = 2024-03-01\n{PRICES}[[price]]\nvalid_from = 2024-03-01\n{cheap}"
    );
    let book = book("Asia/Shanghai", &periods);
    for (time, price) in [
        ("2024-01-31T16:00:00Z", "4"),
        ("2024-02-29T15:59:59.999Z", "4"),
        ("2024-02-29T16:00:00Z", "5"),
        ("2099-12-31T23:00:00Z", "5"),
    ] {
        assert_eq!(output_price(&book, &record("b", time)).as_deref(), Ok(price), "{time}");
    }
    let early = output_price(&book, &record("b", "2024-01-31T15:59:59.999Z")).unwrap_err().to_string();
    let words = "no period of the book covers record b of acme: namespace model, settled at 2024-01-31 23:59:59 CST";
    assert!(early.starts_with(words), "{early}");
    let february = self::book("Asia/Shanghai", &periods[..periods.rfind("[[price]]").unwrap()]);
    assert!(output_price(&february, &record("b", "2024-02-29T15:59:59.999Z")).is_ok());
    assert!(output_price(&february, &record("b", "2024-02-29T16:00:00Z")).is_err());
}

#[test]
fn the_nearest_price_is_taken_by_namespace_and_then_by_labels() {
    let priced = |head: &str, output: u8| {
        format!(
            "[[price]]\nvalid_from = 2024-01-01\n{head}{}",
            PRICES.replace("output = 4", &format!("output = {output}"))
        )
    };
    let all = priced("", 4);
    let batch = priced("labels = { class = \"batch\" }\n", 5);
    let model = priced("namespace = \"model\"\n", 6);
    let both = priced("namespace = \"model\"\nlabels = { class = \"batch\" }\n", 7);
    let idle = priced("namespace = \"model\"\nlabels = { class = \"idle\" }\n", 8);
    let (mine, time) = (record("b", "2024-01-01T00:00:00Z"), "2024-01-01T00:00:00Z");
    let other = UsageRecord { namespace: NamespaceName::parse("other").unwrap(), ..record("b", time) };
    for (periods, record, price) in [
        ([&all, &batch, &model, &both, &idle].as_slice(), &mine, "7"),
        (&[&all, &batch, &model, &idle], &mine, "6"),
        (&[&batch, &all], &mine, "5"),
        (&[&idle, &all], &mine, "4"),
        (&[&all, &batch, &model, &both], &other, "5"),
    ] {
        let periods: String = periods.iter().map(|period| period.as_str()).collect();
        assert_eq!(output_price(&book("UTC", &periods), record).as_deref(), Ok(price), "{periods}");
    }
}

#[test]
fn each_kind_has_its_price_and_the_saving_is_that_of_hits() {
    let prices =
        "hit_ram = 0.1\nhit_nvme = 0.2\nmiss = 1\nattested = 0.5\nwritten = 1.25\noutput = 4\nstorage_hour = 1\n";
    let book = book("UTC", &format!("[[price]]\nvalid_from = 2024-01-01\n{prices}"));
    let mut tally = Tally::new(&book, Days::default());
    tally.add(&record("b", "2024-01-01T00:00:00Z")).unwrap();
    let invoice = tally.invoice();
    let lines: Vec<_> =
        invoice.tenants[0].lines.iter().map(|line| (line.kind, line.tokens, line.amount.as_str())).collect();
    let expected = [
        ("hit_ram", 500, "0.000050"),
        ("hit_nvme", 100, "0.000020"),
        ("miss", 336, "0.000336"),
        ("attested", 64, "0.000032"),
        ("written", 320, "0.000400"),
        ("output", 50, "0.000200"),
    ];
    assert_eq!(lines, expected);
    assert_eq!(invoice.revenue.rounded(6), "0.001038");
    assert_eq!(tally.tenants.len(), 1);
}

#[test]
fn classes_with_a_price_of_their_own_are_lines_of_their_own() {
    let prices = PRICES.replace("written = 3", "written = 3\nwritten_by_class = { \"1h\" = 30, \"72h\" = 300 }");
    let book = book("UTC", &format!("[[price]]\nvalid_from = 2024-01-01\n{prices}"));
    let class = |name: &str, tokens| (ClassName::parse(name).unwrap(), TokenCount(tokens));
    let mut record = record("b", "2024-01-01T00:00:00Z");
    record.detail.written_by_class = [class("1h", 100), class("5m", 20)].into();
    let mut tally = Tally::new(&book, Days::default());
    tally.add(&record).unwrap();
    let invoice = tally.invoice();
    let written = invoice.tenants[0].lines.iter().filter(|line| line.kind == "written");
    let written: Vec<_> = written.map(|line| (line.class.as_deref(), line.tokens, line.amount.as_str())).collect();
    assert_eq!(written, [(None, 220, "0.000660"), (Some("1h"), 100, "0.003000")]);
    record.detail.written_by_class = [class("1h", 101), class("5m", 19)].into();
    assert!(matches!(tally.add(&record), Err(PriceError::Differs { .. })));
}

#[test]
fn a_correction_is_charged_when_it_was_made_at_the_price_of_what_it_corrects() {
    let later = PRICES.replace("output = 4", "output = 5");
    let periods = format!(
        "[[price]]\nvalid_from = 2024-01-01\nvalid_until = 2024-02-01\n{PRICES}[[price]]\nvalid_from = 2024-02-01\n{later}"
    );
    let book = book("UTC", &periods);
    let first = record("b", "2024-01-31T23:59:59Z");
    let correction = Correction {
        corrects: first.billing_id.clone(),
        used_at: first.settled_at,
        reason: "twice".to_owned(),
        written_by_class: Default::default(),
    };
    let refund =
        UsageRecord { counts: -first.counts, correction: Some(correction), ..record("c", "2024-02-03T00:00:00Z") };
    let of = |month: u8, records: &[&UsageRecord]| {
        let day = |month: u8| format!("2024-{month:02}-01").parse().ok();
        let mut tally = Tally::new(&book, Days { from: day(month), until: day(month + 1) });
        records.iter().for_each(|record| tally.add(record).unwrap());
        tally.invoice()
    };
    let january = of(1, &[&first]);
    assert_eq!(of(1, &[&first, &refund]), january, "an invoice that was written stays true");
    let february = of(2, &[&refund, &first, &refund]);
    assert_eq!((february.records, february.corrections, february.repeated), (0, 1, 1));
    assert_eq!(february.revenue, Money::default() - january.revenue);
    assert_eq!(february.saved.trim_start_matches('-'), january.saved);
    let line = february.tenants[0].lines.last().unwrap();
    let told = (line.kind, line.correction, line.tokens, line.price_per_million.as_str(), line.amount.as_str());
    assert_eq!(told, ("output", true, -50, "4", "-0.000200"));
    let both = of(
        2,
        &[&UsageRecord { settled_at: at("2024-02-01T00:00:00Z"), ..record("d", "2024-02-01T00:00:00Z") }, &refund],
    );
    assert_eq!(both.tenants[0].lines.iter().filter(|line| line.kind == "output").count(), 2, "each a line of its own");
}

fn held(tenant: Option<&str>, hour: u32, guaranteed: bool, token_ms: u128) -> StorageRow {
    let account = match tenant {
        Some(name) => AccountName::Tenant(TenantName::parse(name).unwrap()),
        None => AccountName::Domain(DomainName::parse("docs").unwrap()),
    };
    let namespace = NamespaceName::parse("model").unwrap();
    StorageRow { key: StorageKey { account, namespace, guaranteed }, hour, token_ms }
}

#[test]
fn storage_is_charged_by_token_hours_and_class_once_an_hour_of_a_ledger() {
    let prices = format!("{PRICES}storage_hour_best_effort = 0.01\nstorage_hour_guaranteed = 0.05\n");
    let book = book("UTC", &with_peak("[\"mon\"]", "00:00", "01:00").replace(PRICES, &prices));
    let new_year = 473_352;
    let mut tally = Tally::new(&book, Days { from: "2024-01-01".parse().ok(), until: "2024-01-02".parse().ok() });
    let in_peak = tally.add_storage("one", &held(Some("acme"), new_year, false, 1)).unwrap_err().to_string();
    assert!(in_peak.contains("storage that acme held in model in the hour from 2024-01-01 00:00:00 UTC"), "{in_peak}");
    let million_hours = 3_600_000 * 1_000_000;
    for (source, tenant, hour, guaranteed, times) in [
        ("one", Some("acme"), new_year + 1, false, 2),
        ("one", Some("acme"), new_year + 1, false, 2),
        ("two", Some("acme"), new_year + 1, false, 2),
        ("one", Some("acme"), new_year + 2, true, 1),
        ("one", None, new_year + 2, true, 9),
        ("one", Some("acme"), new_year + 24, true, 9),
    ] {
        tally.add_storage(source, &held(tenant, hour, guaranteed, million_hours * times)).unwrap();
    }
    let partial = tally.add_storage("one", &held(Some("acme"), new_year + 1, false, 7)).unwrap_err().to_string();
    assert!(partial.contains("came twice, and the second differs"), "{partial}");
    let too_many = tally.add_storage("three", &held(Some("acme"), new_year + 1, false, u128::MAX)).unwrap_err();
    assert!(matches!(too_many, PriceError::TooMany { .. }));
    let invoice = tally.invoice();
    let lines: Vec<_> = invoice.tenants[0]
        .lines
        .iter()
        .map(|line| {
            (line.kind, line.class.as_deref().unwrap(), line.token_hours.as_deref().unwrap(), line.amount.as_str())
        })
        .collect();
    let expected = [
        ("storage_hour", "best-effort", "4000000.000", "0.040000"),
        ("storage_hour", "guaranteed", "1000000.000", "0.050000"),
    ];
    assert_eq!(
        (lines.as_slice(), invoice.revenue.rounded(6).as_str(), invoice.repeated),
        (&expected[..], "0.090000", 1)
    );
}

#[test]
fn the_provider_saves_what_computing_the_hits_would_have_cost() {
    let book = book("UTC", &format!("[[price]]\nvalid_from = 2024-01-01\n{PRICES}"));
    let mut tally = Tally::new(&book, Days::default());
    (0..10_000).for_each(|at| tally.add(&record(&format!("b-{at}"), "2024-01-01T00:00:00Z")).unwrap());
    let cost = Price::parse("0.05").unwrap();
    assert_eq!(tally.invoice_with(Some(cost)).provider_saved.as_deref(), Some("0.30"), "6 million hits");
    assert_eq!(tally.invoice().provider_saved, None);
}

// A thousandth of a cent a line: rounded before they are added, the lines would add up to nothing.
#[test]
fn a_total_is_rounded_once() {
    let free = "[[price]]\nvalid_from = 2024-01-01\nhit = 0\nmiss = 0\nwritten = 0\noutput = 0.009\n";
    let book = book("UTC", free);
    let mut tally = Tally::new(&book, Days::default());
    for namespace in 0..12_000 {
        let name = NamespaceName::parse(&format!("model-{namespace}")).unwrap();
        let record = record(&format!("b-{namespace}"), "2024-01-01T00:00:00Z");
        tally.add(&UsageRecord { namespace: name, ..record }).unwrap();
    }
    let invoice = tally.invoice();
    assert_eq!(invoice.tenants[0].lines.iter().find(|line| line.kind == "output").unwrap().amount, "0.000000");
    assert_eq!(invoice.revenue.rounded(6), "0.005400");
    assert_eq!(invoice.total, "0.01");
}

#[test]
fn the_same_identity_is_charged_once_and_with_other_numbers_refused() {
    let book = book("UTC", &with_peak("[\"mon\"]", "09:00", "12:00"));
    let first = record("b", "2024-01-01T08:00:00Z");
    let again = UsageRecord { sequence: 9, attempt: 3, settled_at: at("2024-01-01T08:30:00Z"), ..first.clone() };
    let mut tally = Tally::new(&book, Days::default());
    for record in [&first, &again] {
        tally.add(record).unwrap();
    }
    let before = tally.invoice();
    assert_eq!((before.records, before.repeated), (1, 1));
    let peak = UsageRecord { settled_at: at("2024-01-01T09:00:00Z"), ..first.clone() };
    let more = UsageRecord { counts: Counts { written: 321, ..first.counts }, ..first.clone() };
    for record in [peak, more] {
        assert!(matches!(tally.add(&record), Err(PriceError::Differs { .. })));
    }
    assert_eq!(tally.invoice(), before);
    let other = UsageRecord { tenant: TenantName::parse("other").unwrap(), ..first };
    tally.add(&other).unwrap();
    assert_eq!(tally.invoice().records, 2);
}

#[test]
fn a_record_that_came_twice_across_midnight_is_refused_and_not_put_on_two_invoices() {
    let book = book("UTC", &format!("[[price]]\nvalid_from = 2024-01-01\n{PRICES}"));
    let days = Days { from: Some("2024-01-02".parse().unwrap()), until: None };
    let mut tally = Tally::new(&book, days);
    tally.add(&record("b", "2024-01-01T23:59:59Z")).unwrap();
    assert!(matches!(tally.add(&record("b", "2024-01-02T00:00:00Z")), Err(PriceError::Differs { .. })));
    assert_eq!(tally.invoice().records, 0);
}

#[test]
fn a_book_is_named_by_what_it_says() {
    let one = format!("[[price]]\nvalid_from = 2024-01-01\n{PRICES}");
    let two = "[[price]]\nvalid_from=\"2024-01-01\" # new year\nnamespace='model'\nhit_ram = 1.0\nhit_nvme = 1\n\
               miss = 2.00\nattested = 2\nwritten = 3\noutput = '4'\n";
    let same = format!("[[price]]\nnamespace = \"model\"\nvalid_from = 2024-01-01\n{PRICES}");
    let hash = |periods: &str| book("UTC", periods).hash().to_owned();
    assert_eq!(hash(&format!("{one}{two}")), hash(&format!("{same}\n\n{one}")));
    let others = [
        one.replace("output = 4", "output = 4.000001"),
        one.replace("2024-01-01", "2024-01-02"),
        format!("{one}storage_hour = 0\n"),
        format!("{one}storage_hour_best_effort = 0\nstorage_hour_guaranteed = 1\n"),
        format!("{one}written_by_class = {{ \"1h\" = 3 }}\n"),
        with_peak("[\"mon\"]", "09:00", "12:00"),
        with_peak("[\"mon\"]", "09:01", "12:00"),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(hash(other), hash(&one), "{other}");
        assert!(others[..at].iter().all(|earlier| hash(earlier) != hash(other)), "{other}");
    }
    assert_ne!(book("Asia/Shanghai", &one).hash(), hash(&one));
    let both = hash(&format!("{one}storage_hour = 0.5\n"));
    assert_eq!(hash(&format!("{one}storage_hour_best_effort = 0.5\nstorage_hour_guaranteed = 0.5\n")), both);
    // Pinned: an invoice of years ago names its book by this.
    assert_eq!(both, "38b35523d853feef3ca66680169bf758eb2d22f95065342d271d30aff81bb816");
}

#[test]
fn a_bad_book_names_field_value_and_rule() {
    let one = format!("[[price]]\nvalid_from = 2024-01-01\n{PRICES}");
    let changed = |from: &str, to: &str| refused(&one.replace(from, to));
    let peak = |days: &str, from: &str, until: &str| refused(&with_peak(days, from, until));
    let cases = [
        (changed("miss = 2", "miss = -2"), "price[0].miss is -2, it must be a decimal number from 0 to 1000000"),
        (changed("miss = 2", "miss = 1e-3"), "price[0].miss is 1e-3, it must be a decimal number"),
        (changed("miss = 2", "miss = true"), "price[0].miss is boolean, it must be a decimal number"),
        (changed("miss = 2\n", ""), "price[0].miss is missing, it must be a decimal number"),
        (changed("written = 3\n", ""), "price[0].written is missing"),
        (changed("output = 4\n", ""), "price[0].output is missing"),
        (changed("hit = 1\n", ""), "price[0].hit_ram is missing"),
        (changed("hit = 1\n", "hit_ram = 1\n"), "price[0].hit_nvme is missing"),
        (
            changed("hit = 1\n", "hit = 1\nhit_ram = 1\n"),
            "price[0].hit_ram is given, it must be absent where `hit` is given",
        ),
        (changed("output", "outptu"), "price[0].output is missing"),
        (
            changed("output = 4", "output = 4\ngift = 1"),
            "price[0].gift is unknown, it must be one of namespace, labels",
        ),
        (changed("valid_from = 2024-01-01\n", ""), "price[0].valid_from is missing"),
        (changed("2024-01-01", "2024-01-01T00:00:00"), "price[0].valid_from is 2024-01-01T00:00:00, it must be a date"),
        (
            changed("hit = 1", "valid_until = 2024-01-01\nhit = 1"),
            "price[0].valid_until is 2024-01-01, it must be after valid_from",
        ),
        (changed("hit = 1", "namespace = \"a b\"\nhit = 1"), "price[0].namespace is \"a b\", it must be 1 to 128"),
        (
            changed("hit = 1", "labels = { class = [1] }\nhit = 1"),
            "price[0].labels.class is array, it must be a string",
        ),
        (
            peak("[\"mon\"]", "22:00", "06:00"),
            "price[0].peak.hours[0].until is 06:00, it must be after from, 22:00; hours across",
        ),
        (peak("[\"mon\"]", "09:00", "09:00"), "price[0].peak.hours[0].until is 09:00, it must be after from"),
        (peak("[\"mon\"]", "9:00", "10:00"), "price[0].peak.hours[0].from is 9:00, it must be a time such as"),
        (peak("[\"mon\"]", "09:00", "24:01"), "price[0].peak.hours[0].until is 24:01, it must be a time such as"),
        (peak("[]", "09:00", "10:00"), "price[0].peak.hours[0].days is empty, it must be a list of days"),
        (peak("[\"noday\"]", "09:00", "10:00"), "price[0].peak.hours[0].days is noday, it must be a list of days"),
        (refused(""), "price is missing, it must be a list of at least one table"),
        (refused("price = 1"), "price is integer, it must be a list of at least one table"),
        (refused(&format!("colour = 1\n{one}")), "colour is unknown, it must be one of currency, time_zone, price"),
        (refused("price = ["), "TOML parse error at line 3"),
        (
            Book::parse(&written("Mars/Olympus", &one)).unwrap_err().to_string(),
            "time_zone is Mars/Olympus, it must be the name",
        ),
        (
            Book::parse(&written("UTC", &one).replace("USD", "usd")).unwrap_err().to_string(),
            "currency is usd, it must be three",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn bad_prices_of_storage_and_classes_name_field_value_and_rule() {
    let one = format!("[[price]]\nvalid_from = 2024-01-01\n{PRICES}");
    let changed = |from: &str, to: &str| refused(&one.replace(from, to));
    let cases = [
        (
            changed("output = 4", "output = 4\nstorage_hour = 1\nstorage_hour_guaranteed = 1"),
            "price[0].storage_hour_guaranteed is given, it must be absent where `storage_hour` is given",
        ),
        (
            changed("output = 4", "output = 4\nstorage_hour_guaranteed = 1"),
            "price[0].storage_hour_best_effort is missing, it must be a decimal number",
        ),
        (
            changed("output = 4", "output = 4\nwritten_by_class = { \"1h\" = -1 }"),
            "price[0].written_by_class.1h is -1, it must be a decimal number",
        ),
        (
            changed("output = 4", "output = 4\nwritten_by_class = { \"a b\" = 1 }"),
            "price[0].written_by_class.a b is \"a b\", it must be a class such as 1h",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn two_prices_for_one_record_are_refused() {
    let period = |head: &str| format!("[[price]]\n{head}\n{PRICES}");
    let from = |day: &str| format!("valid_from = {day}");
    let (early, late) = ("valid_from = 2024-01-01\nvalid_until = 2024-03-01", from("2024-02-29"));
    let overlap = refused(&(period(early) + &period(&late)));
    let words = "price[1].valid_from is 2024-02-29 until open, it must be of days that price[0], of the same namespace and labels";
    assert!(overlap.starts_with(words), "{overlap}");
    let fine = |periods: &str| Book::parse(&written("UTC", periods)).map(|_| ());
    assert_eq!(fine(&(period(early) + &period(&from("2024-03-01")))), Ok(()));
    let labelled = |labels: &str| period(&format!("{}\nlabels = {{ {labels} }}", from("2024-01-01")));
    let ambiguous = refused(&(labelled("class = \"batch\"") + &labelled("priority = \"low\"")));
    assert!(
        ambiguous.starts_with("price[1].labels is {\"priority\": \"low\"}, it must be such that no record"),
        "{ambiguous}"
    );
    assert_eq!(fine(&(labelled("class = \"batch\"") + &labelled("class = \"idle\", priority = \"low\""))), Ok(()));
    assert_eq!(fine(&(labelled("class = \"batch\"") + &labelled("class = \"batch\", priority = \"low\""))), Ok(()));
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_is_the_same_invoice(
        records in prop::collection::vec((0..40_u8, 0..3_u8, 0..2_u8, 0..7 * 24 * 60_u64, 0..5_000_u64), 1..60),
        mixed in any::<prop::sample::Index>(),
    ) {
        let book = book("Asia/Shanghai", &with_peak("[\"mon\", \"fri\"]", "09:30", "18:00"));
        let monday = at("2024-01-01T00:00:00Z").0;
        let mut made: Vec<UsageRecord> = records.iter().enumerate().map(|(number, (_, tenant, namespace, minute, output))| {
            UsageRecord {
                tenant: TenantName::parse(&format!("tenant-{tenant}")).unwrap(),
                billing_id: BillingId::parse(&format!("b-{number}")).unwrap(),
                namespace: NamespaceName::parse(&format!("model-{namespace}")).unwrap(),
                settled_at: Timestamp(monday + minute * 60_000),
                counts: Counts { output: output.cast_signed(), ..record("b", "2024-01-01T00:00:00Z").counts },
                ..record("b", "2024-01-01T00:00:00Z")
            }
        }).collect();
        let priced = |records: &[UsageRecord]| {
            let mut tally = Tally::new(&book, Days::default());
            records.iter().for_each(|record| tally.add(record).unwrap());
            Invoice { repeated: 0, ..tally.invoice() }
        };
        let first = priced(&made);
        prop_assert_eq!(first.records, made.len() as u64);
        let again = made.clone();
        made.rotate_left(mixed.index(again.len()));
        made.extend(again.into_iter().rev());
        prop_assert_eq!(serde_json::to_string(&priced(&made)).unwrap(), serde_json::to_string(&first).unwrap());
    }
}
