//! This machine's limits, and kvtier's share of each, measured in turn in one run.
//!
//! A figure means little beside one from another hour: disks of virtual machines differ twofold within minutes. So ours
//! and the limit take turns in short rounds, and what is reported is the round whose ratio is the median of all.

mod beside;
mod blocks;
mod cold;
mod gate;
mod hashing;
mod hints;
mod memory;
mod nvme;
mod pool;
mod prompt;
mod room;
mod rounds;
mod rows;
mod shared;
mod sockets;
mod worker;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use worker::work;

use crate::client::ClientError;
use crate::daemon::StartError;
use crate::index::IndexError;
use crate::media::OpenError;
use crate::vocab::{ByteCount, WordError};
use hints::Host;
use room::Figures;
use rounds::{Effort, Rounds};
use rows::{By, Row, Target};

/// The command under which this program is a worker of its own bench.
pub const WORKER_COMMAND: &str = "bench-worker";

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// A folder on the drive to be measured. What is made in it is removed.
    pub dir: PathBuf,
    /// Bytes of the slot file to measure on.
    pub size: ByteCount,
    /// How long rounds are begun for each figure of the drive; a quarter of it for each other one.
    pub time: Duration,
    /// Bytes in flight, on both sides.
    pub inflight_bytes: u64,
    /// Small prompts and few rounds: to see that it works, not for figures.
    pub quick: bool,
    /// Names of the figures to take; none for all.
    pub only: Vec<String>,
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
    /// Ours over it: of a speed the share that is reached, of a time how many times as long it takes.
    pub ratio: Option<f64>,
    /// The smallest and the largest ratio of all rounds.
    pub ratio_range: Option<[f64; 2]>,
    /// Rounds.
    pub rounds: u32,
    /// What the ratio should be at least, or the value where there is no limit.
    pub at_least: Option<f64>,
    /// What the ratio of a time should be at most.
    pub at_most: Option<f64>,
    /// Whether it is.
    pub met: Option<bool>,
}

/// What was found.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BenchReport {
    /// The figures.
    pub results: Vec<Measured>,
    /// How the drive was read and written at the end, where it was.
    pub nvme_kind: Option<String>,
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
    #[error("--size is {size}, it must be at least {least}: 16 blocks of the largest size")]
    TooSmall {
        /// What was asked.
        size: ByteCount,
        /// The least.
        least: ByteCount,
    },
    /// There is no figure of that name.
    #[error("--only is {name:?}, it must be of {names}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        names: String,
    },
    /// Not even a short prompt fits.
    #[error(
        "{available} MiB of memory are available, which is too little for a prompt in RAM: name other figures with --only"
    )]
    NoRoom {
        /// What there is.
        available: u64,
    },
    /// A block did not come to where it should, or not back from it.
    #[error("a block was lost: {0}")]
    Lost(String),
    /// The daemon can't be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A word that can't be used: a mistake of this program.
    #[error(transparent)]
    Word(#[from] WordError),
    /// The process beside the daemon failed.
    #[error("the worker's process: {0}")]
    Worker(String),
    /// Something else was refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Rounds for a figure, at least: of a small run, of the drive, and of all else.
const QUICK_ROUNDS: u32 = 3;
const DRIVE_ROUNDS: u32 = 3;
const ROUNDS: u32 = 7;

/// How many figures these names are.
///
/// # Errors
/// When there is none of a name.
pub fn count(only: &[String]) -> Result<usize, BenchError> {
    Ok(rows::wanted(only)?.len())
}

/// Takes the figures. `say` is told what is under way.
///
/// # Errors
/// See [`BenchError`].
pub fn run(options: &BenchOptions, say: &dyn Fn(&'static str)) -> Result<BenchReport, BenchError> {
    let rows = rows::wanted(&options.only)?;
    let of = |rounds| if options.quick { QUICK_ROUNDS } else { rounds };
    let effort = Effort { rounds: of(ROUNDS), time: options.time / 4 };
    let mut report = BenchReport { results: Vec::new(), nvme_kind: None, hints: Vec::new() };
    let drive = Effort { rounds: of(DRIVE_ROUNDS), time: options.time };
    let mut taken = nvme::measure(options, drive, &names(&rows, |by| matches!(by, By::Drive)), say, &mut report)?;
    for row in &rows {
        let rounds = match row.by {
            By::Here(take) => {
                say(row.name);
                take(effort)?
            }
            By::Folder(take) => {
                say(row.name);
                take(options, Effort { rounds: effort.rounds, ..drive })?
            }
            By::Drive | By::Worker(_) => continue,
        };
        taken.push((row.name, rounds));
    }
    let beside: Vec<_> = rows.iter().copied().filter(|row| matches!(row.by, By::Worker(_))).collect();
    if !beside.is_empty() {
        let figures = figures(options, &mut report.hints)?;
        taken.extend(beside::measure(&beside, figures, effort, say)?);
    }
    let of_row = |row: &&'static Row| {
        let (_, rounds) = taken.iter().find(|(name, _)| *name == row.name)?;
        Measured::of(row, rounds)
    };
    report.results = rows.iter().filter_map(of_row).collect();
    Ok(report)
}

fn names(rows: &[&'static Row], of: impl Fn(&By) -> bool) -> Vec<&'static str> {
    rows.iter().filter(|row| of(&row.by)).map(|row| row.name).collect()
}

/// What this host has memory for.
fn figures(options: &BenchOptions, hints: &mut Vec<String>) -> Result<Figures, BenchError> {
    let full = if options.quick { Figures::QUICK } else { Figures::FULL };
    let host = Host::read();
    let available = host.memory();
    let figures = full.within(available).ok_or(BenchError::NoRoom { available: available >> 20 })?;
    if figures != full {
        hints.push(format!(
            "{} MiB of memory are available: the prompt has {} blocks of 1 MiB, not {}",
            available >> 20,
            figures.blocks,
            full.blocks
        ));
    }
    let more = host.hints(figures.ram(), full.bytes());
    // The drive may have said so already, in its own words.
    let is_new = |hint: &String| !(hint.contains("io_uring") && hints.iter().any(|known| known.contains("io_uring")));
    let more: Vec<String> = more.into_iter().filter(is_new).collect();
    hints.extend(more);
    Ok(figures)
}

impl Measured {
    fn of(row: &Row, rounds: &Rounds) -> Option<Self> {
        let summary = rounds.summary()?;
        let (at_least, at_most) = match row.target {
            Target::AtLeast(least) => (Some(least), None),
            Target::AtMost(most) => (None, Some(most)),
            Target::None => (None, None),
        };
        // A row whose limit could not be had has nothing to be held against.
        let held = match row.by {
            By::Here(_) => Some(summary.ratio.unwrap_or(summary.value)),
            By::Drive | By::Folder(_) | By::Worker(_) => summary.ratio,
        };
        Some(Self {
            name: row.name,
            value: summary.value,
            unit: row.unit,
            limit: summary.limit,
            ratio: summary.ratio,
            ratio_range: summary.ratio_range,
            rounds: summary.rounds,
            at_least,
            at_most,
            met: held.and_then(|figure| row.target.met(figure)),
        })
    }
}
