//! `kvtier bench`: this machine's limits, and kvtier's share of each.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::output::Output;
use super::progress::Bar;
use super::table::{bar, numbers, percent};
use super::{CliError, size};
use crate::bench::{self, BenchOptions, BenchReport, Measured};
use crate::daemon::telemetry;
use crate::vocab::ByteCount;
use crate::vocab::limits::DEVICE_INFLIGHT_BYTES;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// A folder on the drive to measure; what is made there is removed. Default: the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Bytes of the file to measure on.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size::parser("--size"))]
    size: ByteCount,
    /// Seconds for each figure of the drive, and a quarter of it for each other one.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    seconds: u64,
    /// Small prompts, a small file and few rounds: to see that it works, not for figures.
    #[arg(long, conflicts_with_all = ["size", "seconds"])]
    quick: bool,
    /// Take these figures only, by their names in the table.
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    only: Vec<String>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(super) fn run(self, output: &mut Output) -> Result<(), CliError> {
        // The report says what a log would.
        telemetry::init("error");
        let base = self.dir.unwrap_or_else(std::env::temp_dir);
        let made = tempfile::Builder::new().prefix("kvtier-bench-").tempdir_in(&base);
        let folder = made.map_err(|source| CliError::File { path: base, source })?;
        let (size, seconds) = if self.quick { (ByteCount(64 << 20), 0) } else { (self.size, self.seconds) };
        let options = BenchOptions {
            dir: folder.path().to_owned(),
            size,
            time: Duration::from_secs(seconds),
            inflight_bytes: DEVICE_INFLIGHT_BYTES,
            quick: self.quick,
            only: self.only,
        };
        let progress = Bar::new(bench::count(&options.only)? as u64, "figures");
        let begun = Cell::new(0);
        let say = |name: &str| {
            progress.at(begun.replace(begun.get() + 1));
            progress.say(name.to_owned());
        };
        let report = bench::run(&options, &say)?;
        drop(progress);
        if self.json { output.json(&report) } else { output.text(text(&report)) }
    }
}

/// The process beside a bench's daemon, which that bench has started.
pub(super) fn work() -> Result<(), CliError> {
    telemetry::init("error");
    Ok(bench::work(std::io::stdin(), std::io::stdout())?)
}

fn text(report: &BenchReport) -> String {
    let mut table = numbers(["", "kvtier", "limit", "share", "target", ""], report.results.iter().map(row));
    if let Some(bars) = table.column_mut(5) {
        bars.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let mut text = table.to_string();
    if report.results.iter().any(|row| row.at_most.is_some()) {
        text.push_str(
            "\na share with × is how many times an empty call's time it takes; its bar is its part of the target",
        );
    }
    text.extend(report.nvme_kind.iter().map(|kind| format!("\nnvme by {kind}")));
    let shortfalls = report.results.iter().filter_map(shortfall);
    text.extend(report.hints.iter().cloned().chain(shortfalls).map(|hint| format!("\nhint: {hint}")));
    text
}

fn row(measured: &Measured) -> [String; 6] {
    let figure = |value: f64| match measured.unit {
        "µs" => format!("{value:.0} µs"),
        unit => format!("{value:.2} {unit}"),
    };
    let or_dash = |words: Option<String>| words.unwrap_or_else(|| "-".to_owned());
    let part = measured.ratio.map(|ratio| ratio / measured.at_most.unwrap_or(1.0));
    [
        measured.name.to_owned(),
        figure(measured.value),
        or_dash(measured.limit.map(figure)),
        or_dash(measured.ratio.map(|ratio| share(measured, ratio))),
        target(measured),
        part.map(bar).unwrap_or_default(),
    ]
}

/// A ratio as people read it: of a time how many times, of a speed what part.
fn share(measured: &Measured, ratio: f64) -> String {
    if measured.at_most.is_some() { format!("{ratio:.1} ×") } else { percent(ratio) }
}

/// What is looked for, with a mark where it is not there.
fn target(measured: &Measured) -> String {
    let words = match (measured.at_least, measured.at_most) {
        (_, Some(most)) => format!("≤ {most} ×"),
        (Some(least), None) if measured.limit.is_none() && measured.met.is_some() => format!("≥ {least}"),
        (Some(least), None) => format!("≥ {:.0} %", least * 100.0),
        (None, None) => "-".to_owned(),
    };
    if measured.met == Some(false) { format!("{words} ✗") } else { words }
}

/// A figure that is not what it should be.
fn shortfall(measured: &Measured) -> Option<String> {
    if measured.met != Some(false) {
        return None;
    }
    let Measured { name, rounds, .. } = measured;
    let (Some(ratio), Some([least, most])) = (measured.ratio, measured.ratio_range) else {
        return Some(format!("{name} is {:.2} {}, {} was looked for", measured.value, measured.unit, target(measured)));
    };
    let [ratio, least, most] = [ratio, least, most].map(|ratio| share(measured, ratio));
    Some(format!(
        "{name} is {ratio} of its limit, {} was looked for ({least} to {most} in {rounds} rounds: a wide range means that \
         others use the machine; try --only {name} --seconds with more)",
        target(measured).trim_end_matches(" ✗")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, ratio: Option<f64>, at_least: Option<f64>) -> Measured {
        let ratio_range = ratio.map(|ratio| [ratio - 0.1, ratio + 0.1]);
        let held = ratio.unwrap_or(9.0);
        Measured {
            name,
            value: ratio.map_or(9.0, |ratio| ratio * 2.0),
            unit: "GB/s",
            limit: ratio.map(|_| 2.0),
            ratio,
            ratio_range,
            rounds: 5,
            at_least,
            at_most: None,
            met: at_least.map(|least| held >= least),
        }
    }

    fn time(ratio: f64) -> Measured {
        let row = measured("ram_handover", Some(ratio), None);
        Measured { unit: "µs", at_most: Some(10.0), met: Some(ratio <= 10.0), ..row }
    }

    #[test]
    fn a_report_shows_shares_and_says_what_to_change() {
        let report = BenchReport {
            results: vec![
                measured("nvme_read_1mib", Some(0.5), Some(0.95)),
                measured("memcpy", None, None),
                Measured { unit: "Mtokens/s", ..measured("hash_tokens", None, Some(8.0)) },
                time(5.0),
            ],
            nvme_kind: Some("pread, buffered".into()),
            hints: vec!["kernel.io_uring_disabled is 2: set it to 0 with sysctl".into()],
        };
        let expected = "\
╭────────────────┬────────────────┬───────────┬────────┬──────────┬──────────────╮
│                ┆         kvtier ┆     limit ┆  share ┆   target ┆              │
╞════════════════╪════════════════╪═══════════╪════════╪══════════╪══════════════╡
│ nvme_read_1mib ┆      1.00 GB/s ┆ 2.00 GB/s ┆ 50.0 % ┆ ≥ 95 % ✗ ┆ ████████████ │
│ memcpy         ┆      9.00 GB/s ┆         - ┆      - ┆        - ┆              │
│ hash_tokens    ┆ 9.00 Mtokens/s ┆         - ┆      - ┆      ≥ 8 ┆              │
│ ram_handover   ┆          10 µs ┆      2 µs ┆  5.0 × ┆   ≤ 10 × ┆ ████████████ │
╰────────────────┴────────────────┴───────────┴────────┴──────────┴──────────────╯
a share with × is how many times an empty call's time it takes; its bar is its part of the target
nvme by pread, buffered
hint: kernel.io_uring_disabled is 2: set it to 0 with sysctl
hint: nvme_read_1mib is 50.0 % of its limit, ≥ 95 % was looked for (40.0 % to 60.0 % in 5 rounds: a wide range \
means that others use the machine; try --only nvme_read_1mib --seconds with more)";
        assert_eq!(text(&report), expected, "{}", text(&report));
    }

    #[test]
    fn what_is_as_fast_as_it_should_be_gives_no_hint() {
        assert_eq!(shortfall(&measured("nvme_read_1mib", Some(0.96), Some(0.95))), None);
        assert_eq!(shortfall(&measured("memcpy", None, None)), None);
        assert_eq!(shortfall(&time(10.0)), None);
        assert!(shortfall(&measured("nvme_write_1mib", Some(0.89), Some(0.9))).is_some());
        assert!(shortfall(&measured("hash_tokens", None, Some(80.0))).unwrap().contains("≥ 80"));
        assert!(shortfall(&time(10.1)).unwrap().starts_with("ram_handover is 10.1 × of its limit, ≤ 10 × was"));
    }
}
