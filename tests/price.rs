//! What `kvtier usage price` promises to whoever sends the invoice. No network.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/deepseek-day.toml");

fn kvtier(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvtier"));
    command.args(["usage", "price"]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A refusal may come before all has been read.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn printed(args: &[&str], input: &str) -> String {
    let output = kvtier(args, input);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn invoice(args: &[&str], input: &str) -> Value {
    serde_json::from_str(&printed(&[args, &["--json"]].concat(), input)).unwrap()
}

/// What it says, having printed nothing.
fn refusal(args: &[&str], input: &str, code: i32) -> String {
    let output = kvtier(args, input);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?}: {words}");
    words
}

fn line(number: u64, settled_at: &str, hit: u64, miss: u64, output: u64) -> Value {
    json!({
        "sequence": number, "tenant": "everybody", "billing_id": format!("b-{number}"), "attempt": 1, "instance": "engine-1",
        "fingerprint": "07".repeat(32), "namespace": "deepseek-r1", "settled_at": settled_at, "prompt_tokens": hit + miss,
        "hit_tokens": hit, "hit_tokens_ram": hit / 4, "hit_tokens_nvme": hit - hit / 4, "attested_tokens": 0,
        "miss_tokens": miss, "written_tokens": miss, "output_tokens": output, "labels": {},
    })
}

/// The published day in 160 records, nine minutes apart: 608 billion tokens in, 342 billion of them hits, 168 billion out.
fn day() -> String {
    let start: jiff::Timestamp = "2025-02-27T12:00:00+08:00".parse().unwrap();
    (0..160).fold(String::new(), |mut text, at| {
        let time = start + jiff::SignedDuration::from_mins(9 * at);
        let record = line(at.unsigned_abs(), &time.to_string(), 2_137_500_000, 1_662_500_000, 1_050_000_000);
        writeln!(text, "{record}").unwrap();
        text
    })
}

fn in_a_file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

// Published are 562,027 dollars. The rule gives 562,100 exactly: the published counts are rounded to a billion tokens, and
// half a billion of output alone is 1,095 dollars. The cost is 226.75 nodes × 8 GPUs × 2 dollars × 24 hours.
#[test]
fn the_published_day_of_deepseek_costs_what_was_published() {
    let found = invoice(&["--book", BOOK, "--cost", "87072", "-"], &day());
    assert_eq!(found["total"], "562100.00");
    assert_eq!(found["saved"], "140220.00");
    assert_eq!((&found["cost"], &found["margin_percent"]), (&json!("87072.00"), &json!("545.56")));
    assert_eq!((&found["records"], &found["repeated"], &found["currency"]), (&json!(160), &json!(0), &json!("USD")));
    let lines = found["tenants"][0]["lines"].as_array().unwrap();
    let read = |line: &Value| {
        (
            line["kind"].as_str().unwrap().to_owned(),
            line["tokens"].as_u64().unwrap(),
            line["amount"].as_str().unwrap().to_owned(),
        )
    };
    let expected = [
        ("hit_ram", 85_500_000_000, "11970.000000"),
        ("hit_nvme", 256_500_000_000, "35910.000000"),
        ("miss", 266_000_000_000, "146300.000000"),
        ("written", 266_000_000_000, "0.000000"),
        ("output", 168_000_000_000, "367920.000000"),
    ];
    let expected = expected.map(|(kind, tokens, amount)| (kind.to_owned(), tokens, amount.to_owned()));
    assert_eq!(lines.iter().map(read).collect::<Vec<_>>(), expected);
    let text = printed(&["--book", BOOK, "--cost", "87072", "-"], &day());
    for shown in ["everybody", "562,100.00 USD", "140,220.00 USD", "545.56 %", "168,000,000,000", "367,920.000000"] {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
    let hash = found["book"].as_str().unwrap();
    assert!(hash.len() == 64 && text.contains(&hash[..16]) && !text.contains(&hash[..17]), "{text}");
}

#[test]
fn the_same_records_in_any_order_from_any_files_are_the_same_invoice() {
    let folder = tempfile::tempdir().unwrap();
    let text = day();
    let (first, second) = text.split_at(text.match_indices('\n').nth(70).unwrap().0 + 1);
    let second: String = second.lines().rev().fold(String::new(), |text, line| text + line + "\n");
    let [first, second] = [("1", first), ("2", &second)].map(|(name, text)| in_a_file(folder.path(), name, text));
    let whole = printed(&["--book", BOOK, "--json", "-"], &text);
    let parts = [second.to_str().unwrap(), first.to_str().unwrap()];
    assert_eq!(printed(&["--book", BOOK, "--json", parts[0], parts[1]], ""), whole);
    let twice = invoice(&["--book", BOOK, parts[0], parts[1], parts[0]], "");
    assert_eq!(
        (&twice["total"], &twice["records"], &twice["repeated"]),
        (&json!("562100.00"), &json!(160), &json!(89))
    );
}

#[test]
fn days_are_those_of_the_books_zone_and_none_is_billed_twice() {
    let total = |args: &[&str]| {
        let found = invoice(&[&["--book", BOOK], args, &["-"]].concat(), &day());
        found["records"].as_u64().unwrap()
    };
    // 12 hours each, every 9 minutes, from noon on.
    assert_eq!(total(&["--until", "2025-02-28"]), 80);
    assert_eq!(total(&["--from", "2025-02-28", "--until", "2025-03-01"]), 80);
    assert_eq!(total(&["--from", "2025-03-01"]), 0);
    assert_eq!(total(&["--tenant", "nobody"]), 0);
}

#[test]
fn what_can_not_be_priced_is_refused_with_its_place() {
    let good = line(1, "2025-02-27T12:00:00Z", 10, 10, 1);
    let priced = |records: &[&Value]| {
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        refusal(&["--book", BOOK, "-"], &text, 1)
    };
    let changed = |field: &str, value: Value| {
        let mut record = good.clone();
        record[field] = value;
        record
    };
    let negative = priced(&[&good, &changed("output_tokens", json!(-1))]);
    assert_eq!(negative, "error: -:2: output_tokens is -1, it must be at least 0: it is no correction\n");
    let again = priced(&[&good, &changed("output_tokens", json!(2))]);
    assert!(again.starts_with("error: -:2: record b-1 of everybody came twice, and the second differs"), "{again}");
    let early = priced(&[&changed("settled_at", json!("2025-01-19T15:59:59.999Z"))]);
    assert!(
        early.starts_with("error: -:1: no period of the book covers record b-1 of everybody: namespace deepseek-r1"),
        "{early}"
    );
    assert!(early.contains("2025-01-19 23:59:59 CST"), "{early}");
    let other = priced(&[&changed("namespace", json!("other"))]);
    assert!(other.contains("namespace other"), "{other}");
    let long = refusal(&["--book", BOOK, "-"], &"x".repeat(70_000), 1);
    assert_eq!(long, "error: -:1: the line is longer than 65536 bytes, it must be one record\n");
}

#[test]
fn a_bad_book_or_flag_is_a_usage_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let book = std::fs::read_to_string(BOOK).unwrap().replace("miss = 0.55\n", "miss = -0.55\n");
    let path = in_a_file(folder.path(), "book.toml", &book);
    let words = refusal(&["--book", path.to_str().unwrap(), "-"], "", 2);
    assert!(words.contains("book.toml: price[0].miss is -0.55, it must be a decimal number from 0"), "{words}");
    assert!(refusal(&["--book", BOOK, "--from", "2025-02-30", "-"], "", 2).contains("it must be a date"));
    assert!(refusal(&["--book", BOOK, "--cost=-1", "-"], "", 2).contains("--cost"));
    let turned = refusal(&["--book", BOOK, "--from", "2025-03-01", "--until", "2025-03-01", "-"], "", 2);
    assert_eq!(turned, "error: --until is 2025-03-01, it must be after --from, 2025-03-01\n");
    assert!(refusal(&["--book", BOOK], "", 2).contains("FILE"));
    assert!(refusal(&["--book", "/nonexistent/book.toml", "-"], "", 1).contains("/nonexistent/book.toml"));
}
