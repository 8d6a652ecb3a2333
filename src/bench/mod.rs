//! This machine's limits, and kvtier's share of each, measured in turn in one run.
//!
//! A figure means little beside one from another hour: disks of virtual machines differ twofold within minutes. So ours
//! and the limit take turns in short rounds, and what is reported is the round whose ratio is the median of all.

mod blocks;
mod memory;
mod nvme;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::index::IndexError;
use crate::media::OpenError;
use crate::vocab::ByteCount;

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// A folder on the drive to be measured. What is made in it is removed.
    pub dir: PathBuf,
    /// Bytes of the slot file to measure on.
    pub size: ByteCount,
    /// How long rounds are begun for one figure.
    pub time: Duration,
    /// Bytes in flight, on both sides.
    pub inflight_bytes: u64,
}

/// One figure. Field names are a contract: add, never rename.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Measured {
    /// What of.
    pub name: &'static str,
    /// Ours.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The machine's, measured in the same round.
    pub limit: Option<f64>,
    /// Ours as a share of it.
    pub ratio: Option<f64>,
    /// The smallest and the largest ratio of all rounds.
    pub ratio_range: Option<[f64; 2]>,
    /// Rounds.
    pub rounds: u32,
}

/// What was found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BenchReport {
    /// The figures.
    pub results: Vec<Measured>,
    /// How the drive was read and written at the end.
    pub nvme_kind: String,
    /// What to change on this host.
    pub hints: Vec<String>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The slot file can't be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The catalog can't be had.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Too small for what is measured.
    #[error("size is {size} bytes, it must be at least {least}: 16 blocks of the largest size")]
    TooSmall {
        /// What was asked.
        size: ByteCount,
        /// The least.
        least: u64,
    },
    /// A block did not come to the drive, or not back from it.
    #[error("a block was lost: {0}")]
    Lost(String),
    /// Something else was refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Measures everything. `say` is told what is under way.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &BenchOptions, say: impl Fn(&'static str)) -> Result<BenchReport, BenchError> {
    let mut report = nvme::measure(options, &say)?;
    say("memcpy");
    report.results.push(memory::copies(options.time)?);
    Ok(report)
}

/// Rounds for a figure: at least so many, so that one disturbance is not the median.
const ROUNDS_MIN: u32 = 3;

/// Runs rounds for `time`, an odd number of them. `round` is told which side goes first and gives the speeds of ours and
/// of the limit.
fn in_turn(
    name: &'static str,
    unit: &'static str,
    time: Duration,
    mut round: impl FnMut(bool) -> Result<(f64, Option<f64>), BenchError>,
) -> Result<Measured, BenchError> {
    let (began, mut rounds) = (Instant::now(), Vec::new());
    while rounds.len() < ROUNDS_MIN as usize || rounds.len().is_multiple_of(2) || began.elapsed() < time {
        let (value, limit) = round(rounds.len().is_multiple_of(2))?;
        rounds.push((value, limit, limit.map(|limit| value / limit)));
    }
    // Where there is no limit, the median of the values.
    rounds.sort_by(|a, b| a.2.unwrap_or(a.0).total_cmp(&b.2.unwrap_or(b.0)));
    let (value, limit, ratio) = rounds[rounds.len() / 2];
    let ratio_range = rounds[0].2.zip(rounds[rounds.len() - 1].2).map(|(least, most)| [least, most]);
    Ok(Measured { name, value, unit, limit, ratio, ratio_range, rounds: rounds.len() as u32 })
}

/// Billions of bytes a second.
fn gigabytes(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e9 / time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_with_the_median_ratio_is_reported_whole() {
        let mut rounds = [(1.0, 2.0), (9.0, 10.0), (8.0, 10.0)].into_iter();
        let mut first = Vec::new();
        let round = |ours_first| {
            first.push(ours_first);
            let (value, limit) = rounds.next().unwrap();
            Ok((value, Some(limit)))
        };
        let measured = in_turn("x", "GB/s", Duration::ZERO, round).unwrap();
        assert_eq!((measured.value, measured.limit, measured.ratio), (8.0, Some(10.0), Some(0.8)));
        assert_eq!((measured.ratio_range, measured.rounds), (Some([0.5, 0.9]), 3));
        assert_eq!(first, [true, false, true]);
    }

    #[test]
    fn without_a_limit_the_median_is_reported() {
        let mut rounds = [3.0, 1.0, 2.0].into_iter();
        let measured = in_turn("x", "GB/s", Duration::ZERO, |_| Ok((rounds.next().unwrap(), None))).unwrap();
        assert_eq!((measured.value, measured.limit, measured.ratio, measured.ratio_range), (2.0, None, None, None));
    }
}
