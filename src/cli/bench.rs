//! `kvtier bench`: this machine's limits, and kvtier's share of each.

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

/// The share of a limit that is looked for, of reads and of writes.
const TARGETS: [(&str, f64); 2] = [("nvme_read", 0.95), ("nvme_write", 0.90)];

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// A folder on the drive to measure; what is made there is removed. Default: the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Bytes of the file to measure on.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size::parser("--size"))]
    size: ByteCount,
    /// Seconds for each figure.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    seconds: u64,
    /// A small file and few rounds: to see that it works, not for figures.
    #[arg(long, conflicts_with_all = ["size", "seconds"])]
    quick: bool,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        // The report says what a log would.
        telemetry::init("error");
        let base = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let made = tempfile::Builder::new().prefix("kvtier-bench-").tempdir_in(&base);
        let folder = made.map_err(|source| CliError::File { path: base, source })?;
        let (size, seconds) = if self.quick { (ByteCount(64 << 20), 0) } else { (self.size, self.seconds) };
        let options = BenchOptions {
            dir: folder.path().to_owned(),
            size,
            time: Duration::from_secs(seconds),
            inflight_bytes: DEVICE_INFLIGHT_BYTES,
        };
        let progress = Bar::new(0, "figures");
        let report = bench::run(&options, |name| progress.say(name.to_owned()))?;
        drop(progress);
        if self.json { output.json(&report) } else { output.text(text(&report)) }
    }
}

fn text(report: &BenchReport) -> String {
    let mut table = numbers(["", "kvtier", "limit", "share", ""], report.results.iter().map(row));
    if let Some(bars) = table.column_mut(4) {
        bars.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    let mut text = format!("{table}\nnvme by {}", report.nvme_kind);
    for hint in report.hints.iter().cloned().chain(report.results.iter().filter_map(shortfall)) {
        text.push_str("\nhint: ");
        text.push_str(&hint);
    }
    text
}

fn row(measured: &Measured) -> [String; 5] {
    let speed = |value: f64| format!("{value:.2} {}", measured.unit);
    let or_dash = |words: Option<String>| words.unwrap_or_else(|| "-".to_owned());
    [
        measured.name.to_owned(),
        speed(measured.value),
        or_dash(measured.limit.map(speed)),
        or_dash(measured.ratio.map(percent)),
        measured.ratio.map(bar).unwrap_or_default(),
    ]
}

/// A figure that is below what it should be.
fn shortfall(measured: &Measured) -> Option<String> {
    let (_, target) = TARGETS.iter().find(|(name, _)| measured.name.starts_with(name))?;
    let [least, most] = measured.ratio_range?;
    measured.ratio.filter(|ratio| ratio < target).map(|ratio| {
        format!(
            "{} is {} of the bare device, {} were looked for ({} to {} in {} rounds: a wide range means that others use \
             the drive; try --seconds with more)",
            measured.name, percent(ratio), percent(*target), percent(least), percent(most), measured.rounds
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, ratio: Option<f64>) -> Measured {
        let limit = ratio.map(|_| 2.0);
        let ratio_range = ratio.map(|ratio| [ratio - 0.1, ratio + 0.1]);
        Measured { name, value: ratio.unwrap_or(4.5) * 2.0, unit: "GB/s", limit, ratio, ratio_range, rounds: 5 }
    }

    #[test]
    fn a_report_shows_shares_and_says_what_to_change() {
        let report = BenchReport {
            results: vec![measured("nvme_read_1mib", Some(0.5)), measured("memcpy", None)],
            nvme_kind: "pread, buffered".into(),
            hints: vec!["kernel.io_uring_disabled is 2: set it to 0 with sysctl".into()],
        };
        let expected = "\
╭────────────────┬───────────┬───────────┬────────┬──────────────╮
│                ┆    kvtier ┆     limit ┆  share ┆              │
╞════════════════╪═══════════╪═══════════╪════════╪══════════════╡
│ nvme_read_1mib ┆ 1.00 GB/s ┆ 2.00 GB/s ┆ 50.0 % ┆ ████████████ │
│ memcpy         ┆ 9.00 GB/s ┆         - ┆      - ┆              │
╰────────────────┴───────────┴───────────┴────────┴──────────────╯
nvme by pread, buffered
hint: kernel.io_uring_disabled is 2: set it to 0 with sysctl
hint: nvme_read_1mib is 50.0 % of the bare device, 95.0 % were looked for (40.0 % to 60.0 % in 5 rounds: a wide range \
means that others use the drive; try --seconds with more)";
        assert_eq!(text(&report), expected, "{}", text(&report));
    }

    #[test]
    fn what_is_as_fast_as_it_should_be_gives_no_hint() {
        assert_eq!(shortfall(&measured("nvme_read_1mib", Some(0.96))), None);
        assert_eq!(shortfall(&measured("nvme_write_1mib", Some(0.91))), None);
        assert!(shortfall(&measured("nvme_write_1mib", Some(0.89))).is_some());
        assert_eq!(shortfall(&measured("memcpy", None)), None);
    }
}
