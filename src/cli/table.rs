//! Reports for people: tables with aligned numbers, thousands apart, and a bar where a share is meant to be seen.

use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ColumnConstraint, Row, Table};

use super::size;
use crate::replay::TraceInfo;
use crate::replay::info::Quantiles;
use crate::replay::report::{Latency, LiveFigures, ReplayReport};
use crate::vocab::ByteCount;

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

/// The end of a replay: where the prompt tokens came from, and the figures of the run.
#[must_use]
pub fn replay(report: &ReplayReport) -> String {
    let tiers = [
        ("ram", report.by_tier.ram),
        ("nvme", report.by_tier.nvme),
        ("miss", report.miss_tokens),
        ("all", report.prompt_tokens),
    ];
    let rows = tiers.map(|(name, tokens)| {
        let share = if report.prompt_tokens == 0 { 0.0 } else { tokens as f64 / report.prompt_tokens as f64 };
        let bar = if name == "all" { String::new() } else { bar(share) };
        [name.to_owned(), thousands(tokens), percent(share), bar]
    });
    let mut tiers = numbers(["tier", "tokens", "share", ""], rows);
    if let Some(bars) = tiers.column_mut(3) {
        bars.set_cell_alignment(CellAlignment::Left);
    }
    let mut rows = vec![
        pair("hit rate", percent(report.hit_rate)),
        pair("requests", thousands(report.requests)),
        pair("blocks asked", thousands(report.blocks_asked)),
        pair("blocks hit", thousands(report.blocks_hit)),
        pair("policy", report.policy.clone()),
        pair("capacity, blocks", thousands(report.capacity_blocks)),
    ];
    rows.extend(report.ram_blocks.map(|blocks| pair("  ram, blocks", thousands(blocks))));
    rows.extend(report.nvme_blocks.map(|blocks| pair("  nvme, blocks", thousands(blocks))));
    rows.extend(report.blocks_written.map(|blocks| pair("blocks written to nvme", thousands(blocks))));
    if let Some(crash) = &report.crash {
        let after = format!("the {} requests after the crash", thousands(crash.next_requests));
        rows.push(pair("blocks recovered by the start after it", thousands(crash.blocks_recovered)));
        rows.push(pair(&after, format!("hit rate {}", percent(crash.next_hit_rate))));
    }
    rows.extend(report.live.iter().flat_map(live));
    format!("{tiers}\n{}", numbers(["replay", ""], rows))
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

fn live(live: &LiveFigures) -> [[String; 2]; 9] {
    let latency = |Latency { p50, p99 }: Latency| format!("{} / {}", micros(p50), micros(p99));
    [
        pair("mismatched blocks", thousands(live.mismatched_blocks)),
        pair("loaded", size::human(ByteCount(live.bytes_loaded))),
        pair("stored", size::human(ByteCount(live.bytes_stored))),
        pair("blocks dropped", thousands(live.blocks_dropped)),
        pair("time", micros((live.seconds * 1e6) as u64)),
        pair("requests a second", format!("{:.1}", live.requests_per_second)),
        pair("lookup, p50 / p99", latency(live.lookup_us)),
        pair("load, p50 / p99", latency(live.load_us)),
        pair("loaded a second", per_second(live.bytes_loaded, live.seconds)),
    ]
}

fn per_second(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 {
        format!("{}/s", size::human(ByteCount((bytes as f64 / seconds) as u64)))
    } else {
        "-".to_owned()
    }
}

fn pair(name: &str, value: String) -> [String; 2] {
    [name.to_owned(), value]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::report::TierTokens;
    use crate::replay::{GenerateOptions, Generator, Tally, Trace};

    fn report() -> ReplayReport {
        ReplayReport {
            requests: 12_031,
            prompt_tokens: 1_000_000,
            hit_tokens: 373_600,
            miss_tokens: 626_400,
            hit_rate: 0.3736,
            blocks_asked: 2_000,
            blocks_hit: 730,
            by_tier: TierTokens { ram: 250_000, nvme: 123_600 },
            ..Tally::default().report("lru", 10_000)
        }
    }

    #[test]
    fn a_simulated_replay_looks_like_this() {
        let expected = "\
╭──────┬───────────┬─────────┬─────────────────╮
│ tier ┆    tokens ┆   share ┆                 │
╞══════╪═══════════╪═════════╪═════════════════╡
│ ram  ┆   250,000 ┆  25.0 % ┆ ██████          │
│ nvme ┆   123,600 ┆  12.4 % ┆ ███             │
│ miss ┆   626,400 ┆  62.6 % ┆ ███████████████ │
│ all  ┆ 1,000,000 ┆ 100.0 % ┆                 │
╰──────┴───────────┴─────────┴─────────────────╯
╭──────────────────┬────────╮
│ replay           ┆        │
╞══════════════════╪════════╡
│ hit rate         ┆ 37.4 % │
│ requests         ┆ 12,031 │
│ blocks asked     ┆  2,000 │
│ blocks hit       ┆    730 │
│ policy           ┆    lru │
│ capacity, blocks ┆ 10,000 │
╰──────────────────┴────────╯";
        assert_eq!(replay(&report()), expected, "{}", replay(&report()));
    }

    #[test]
    fn a_live_replay_shows_what_was_wrong_and_how_fast_it_was() {
        let live = LiveFigures {
            mismatched_blocks: 3,
            bytes_loaded: 5 << 30,
            seconds: 2.5,
            lookup_us: Latency { p50: 150, p99: 1_200 },
            ..LiveFigures::default()
        };
        let text = replay(&ReplayReport { live: Some(live), nvme_blocks: Some(10_000), ..report() });
        for shown in
            ["│ mismatched blocks ┆", " 5 GiB │", " 2 GiB/s │", "150 µs / 1.2 ms", "2.50 s", "│   nvme, blocks    ┆"]
        {
            assert!(text.contains(shown), "{shown} is not in\n{text}");
        }
    }

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
