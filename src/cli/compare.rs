//! `kvtier replay compare`: the records of two replays side by side.

use std::io;
use std::path::PathBuf;

use clap::Args;
use comfy_table::CellAlignment;
use serde::Serialize;
use serde_json::Value;

use super::chain::read_file;
use super::output::Output;
use super::table::{micros, numbers, thousands};
use super::{CliError, size};
use crate::replay::compare::{Comparison, Condition, Figure, Unit, Verdict, read_record};
use crate::vocab::ByteCount;

/// Characters of a value in a warning: a digest is known by its first.
const VALUE_CHARS: usize = 24;

#[derive(Debug, Args)]
pub(super) struct Compare {
    /// The record that the other is measured by.
    a: PathBuf,
    /// The other.
    b: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Two records, as programs see them. Field names are a contract: add, never rename.
#[derive(Serialize)]
struct Report {
    a: PathBuf,
    b: PathBuf,
    #[serde(flatten)]
    comparison: Comparison,
}

impl Compare {
    pub(super) fn run(self, output: &mut Output) -> Result<(), CliError> {
        let read = |path: &PathBuf| -> Result<Value, CliError> {
            let failed = |why| CliError::File { path: path.clone(), source: io::Error::other(why) };
            read_record(&read_file(path)?).map_err(failed)
        };
        let comparison = Comparison::of(&read(&self.a)?, &read(&self.b)?);
        let report = Report { a: self.a, b: self.b, comparison };
        if self.json { output.json(&report) } else { output.text(report.text()) }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut table = numbers(["", "a", "b", "b - a", "", "b is"], self.comparison.figures.iter().map(row));
        if let Some(marks) = table.column_mut(5) {
            marks.set_cell_alignment(CellAlignment::Left);
        }
        let mut text = format!("a: {}\nb: {}\n", self.a.display(), self.b.display());
        text.extend(self.comparison.differs.iter().map(warning));
        text + &table.to_string()
    }
}

fn warning(Condition { name, a, b }: &Condition) -> String {
    let value = |value: &Value| match value {
        Value::Null => "absent".to_owned(),
        Value::String(text) if text.chars().count() > VALUE_CHARS => {
            format!("{}…", text.chars().take(VALUE_CHARS).collect::<String>())
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("warning: {name} differs: {} in a, {} in b\n", value(a), value(b))
}

fn row(figure: &Figure) -> [String; 6] {
    let show = |value: Option<f64>| value.map_or("-".to_owned(), |value| shown(figure.unit, value));
    let difference = figure.difference.map_or("-".to_owned(), |by| match (figure.unit, by) {
        (_, 0.0) => "0".to_owned(),
        (Unit::Share, by) => format!("{:+.3} points", by * 100.0),
        (unit, by) => format!("{}{}", if by < 0.0 { "-" } else { "+" }, shown(unit, by.abs())),
    });
    let percent = figure.percent.filter(|percent| *percent != 0.0);
    let percent = percent.map_or(String::new(), |percent| format!("{percent:+.1} %"));
    let mark = figure.b_is.map_or("", |verdict| match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Same => "the same",
    });
    [figure.name.clone(), show(figure.a), show(figure.b), difference, percent, mark.to_owned()]
}

fn shown(unit: Unit, value: f64) -> String {
    let whole = value.max(0.0) as u64;
    match unit {
        Unit::Count => thousands(whole),
        Unit::Bytes => size::human(ByteCount(whole)),
        Unit::Share => format!("{:.2} %", value * 100.0),
        Unit::Points => format!("{value:.3} points"),
        Unit::Micros => micros(whole),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::Rate => format!("{value:.1}/s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_records_look_like_this_side_by_side() {
        let record = |workers: u64, hit_rate: f64, p99: u64, loaded: u64| {
            json!({
                "trace": {"blake3": "x"},
                "options": {"workers": workers},
                "report": {"hit_rate": hit_rate, "bytes_loaded": loaded, "lookup_us": {"p99": p99}, "mismatched_blocks": 0},
            })
        };
        let mut b = record(8, 0.37, 2_500, 3 << 30);
        b["report"]["seconds"] = 2.5.into();
        let comparison = Comparison::of(&record(1, 0.3725, 1_000, 2 << 30), &b);
        let text = Report { a: "one.json".into(), b: "two.json".into(), comparison }.text();
        let expected = "\
a: one.json
b: two.json
warning: options.workers differs: 1 in a, 8 in b
╭───────────────────┬─────────┬─────────┬───────────────┬──────────┬──────────╮
│                   ┆       a ┆       b ┆         b - a ┆          ┆ b is     │
╞═══════════════════╪═════════╪═════════╪═══════════════╪══════════╪══════════╡
│ hit_rate          ┆ 37.25 % ┆ 37.00 % ┆ -0.250 points ┆   -0.7 % ┆ worse    │
│ mismatched_blocks ┆       0 ┆       0 ┆             0 ┆          ┆ the same │
│ bytes_loaded      ┆   2 GiB ┆   3 GiB ┆        +1 GiB ┆  +50.0 % ┆          │
│ seconds           ┆       - ┆  2.50 s ┆             - ┆          ┆          │
│ lookup_us.p99     ┆  1.0 ms ┆  2.5 ms ┆       +1.5 ms ┆ +150.0 % ┆ worse    │
╰───────────────────┴─────────┴─────────┴───────────────┴──────────┴──────────╯";
        assert_eq!(text, expected, "{text}");
    }

    #[test]
    fn a_warning_is_one_line_whatever_differs() {
        let long = Condition { name: "trace.blake3".into(), a: "0123456789".repeat(6).into(), b: Value::Null };
        assert_eq!(warning(&long), "warning: trace.blake3 differs: 012345678901234567890123… in a, absent in b\n");
    }
}
