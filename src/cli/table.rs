//! Reports for people: tables with aligned numbers, thousands apart, and a bar where a share is meant to be seen.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ColumnConstraint, Row, Table};

use crate::replay::TraceInfo;
use crate::replay::info::Quantiles;
use crate::replay::recording::RecordedHits;

/// Characters of a full bar.
const BAR_CHARS: usize = 24;

/// A table whose first column is words and whose other columns are numbers.
#[must_use]
pub fn numbers(header: impl Into<Row>, rows: impl IntoIterator<Item = impl Into<Row>>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners()).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The table without these columns.
#[must_use]
pub fn without(mut table: Table, hidden: &[usize]) -> Table {
    for at in hidden {
        if let Some(column) = table.column_mut(*at) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table
}

/// 1234567 as `1,234,567`.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same with a sign where it is below zero.
#[must_use]
pub fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", thousands(number.unsigned_abs()))
}

/// 0.3736 as `37.4 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A share from 0 to 1 as a bar, in eighths of a character.
#[must_use]
pub fn bar(share: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (BAR_CHARS * 8) as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}

/// Microseconds with a unit that people read: `950 µs`, `12.3 ms`, `1.50 s`.
#[must_use]
pub fn micros(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}

/// Milliseconds as hours, minutes and seconds: `58 min 57 s`.
#[must_use]
pub fn span(milliseconds: u64) -> String {
    let seconds = Duration::from_millis(milliseconds).as_secs();
    match seconds {
        0..60 => format!("{:.1} s", milliseconds as f64 / 1e3),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// What a trace is like.
#[must_use]
pub fn trace_info(info: &TraceInfo) -> String {
    let rate = info.requests_per_second.map_or("-".to_owned(), |rate| format!("{rate:.2}"));
    let mut rows = vec![
        pair("requests", thousands(info.requests)),
        pair("span", span(info.span_ms)),
        pair("requests a second", rate),
        pair("prompt tokens", thousands(info.prompt_tokens)),
        pair("output tokens", thousands(info.output_tokens)),
        pair("tokens a block", thousands(u64::from(info.block_tokens))),
        pair("blocks referred to", thousands(info.block_references)),
        pair("distinct blocks", thousands(info.distinct_blocks)),
        pair("of these, ever reused", percent(info.reused_block_share)),
        pair("hit rate of an infinite cache", percent(info.infinite_hit_rate)),
    ];
    if info.misplaced_references > 0 {
        rows.push(pair("ids not standing for prefixes", thousands(info.misplaced_references)));
    }
    if let Some(RecordedHits { engine_tokens, ram_tokens, nvme_tokens }) = info.recorded {
        let hit = |name: &str, tokens| pair(name, percent(tokens as f64 / info.prompt_tokens.max(1) as f64));
        rows.push(hit("hit when it was recorded, engine", engine_tokens));
        rows.push(hit("RAM", ram_tokens));
        rows.push(hit("NVMe", nvme_tokens));
    }
    let quantiles = |name: &str, quantiles: Option<Quantiles>, show: fn(u64) -> String| {
        let Quantiles { p50, p90, p99, max } = quantiles?;
        Some([name.to_owned(), show(p50), show(p90), show(p99), show(max)])
    };
    let spread = [
        quantiles("blocks of a request", info.request_blocks, thousands),
        quantiles("of these, seen before", info.prefix_depth_blocks, thousands),
        quantiles("requests until reuse", info.reuse_gap_requests, thousands),
        quantiles("time until reuse", info.reuse_gap_ms, span),
    ];
    let spread = numbers(["", "p50", "p90", "p99", "max"], spread.into_iter().flatten());
    format!("{}\n{spread}", numbers(["trace", ""], rows))
}

/// A row of two.
#[must_use]
pub fn pair(name: &str, value: String) -> [String; 2] {
    [name.to_owned(), value]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{GenerateOptions, Generator, Trace};

    #[test]
    fn all_lines_of_a_table_are_equally_wide() {
        let options = GenerateOptions { requests: 100, ..GenerateOptions::default() };
        let trace = Trace::collect(512, Generator::new(options).unwrap());
        let text = trace_info(&TraceInfo::of(&trace));
        for table in text.split_inclusive('╯') {
            let widths: Vec<usize> = table.trim().lines().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
        }
        assert!(text.contains("hit rate of an infinite cache"), "{text}");
        assert!(text.contains("time until reuse"), "{text}");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.3736, 1.0].map(percent), ["0.0 %", "37.4 %", "100.0 %"]);
        assert_eq!([950, 12_300, 1_500_000].map(micros), ["950 µs", "12.3 ms", "1.50 s"]);
        assert_eq!([1_500, 3_536_999, 7_260_000].map(span), ["1.5 s", "58 min 56 s", "2 h 1 min"]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(0.5), "█".repeat(12));
        assert_eq!(bar(1.0).chars().count(), BAR_CHARS);
        assert_eq!(bar(1.0 / 192.0), "▏");
        assert_eq!(bar(f64::NAN), "");
    }
}
