//! `kvtier plan`: what tiers of which size would hit, before the drives are bought.

mod advice;
mod mix;
mod money;
mod page;
mod plots;
mod report;
mod sheets;
mod summary;
mod worth;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use serde::Serialize;

use self::report::Report;
use super::output::Output;
use super::progress::Bar;
use super::size::{self, human};
use super::traced::How;
use super::{CliError, chart, fleet, names};
use crate::replay::{CapacityPlan, Fleet, MODELS, Model, PlanOptions, PolicyKind, Stage, Trace, TraceInfo, capacities};
use crate::vocab::ByteCount;

/// The smallest capacity that is looked at, as a share of all distinct blocks.
const LEAST_SHARE: u64 = 500;
/// So many block accesses a core are replayed at most before a trace is sampled: 30 s at the two million a second that the planner makes.
const ACCESSES_PER_CORE: u64 = 60_000_000;
/// The smallest sample that is taken without being asked for.
const LEAST_SAMPLE: f64 = 0.02;

#[derive(Debug, Args)]
pub(super) struct Plan {
    /// A trace, of any format that is read.
    #[arg(required_unless_present = "fleet")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// A fleet in TOML (examples/deepseek-fleet.toml): the sheet of its day. With a trace, of each size, too.
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// The model that is served: it says how many bytes a token takes.
    #[arg(long, value_name = "NAME", value_parser = model, conflicts_with = "bytes_per_token")]
    model: Option<Model>,
    /// Bytes of a token's KV cache, of a model that has no name here.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_token: Option<u64>,
    /// Capacities to look at, from a five-hundredth of all distinct blocks to all of them.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=200))]
    points: u32,
    /// Look at these sizes instead; may be given again.
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--size"))]
    size: Vec<ByteCount>,
    /// Look at this policy, beside LRU and the offline optimum; may be given again. All where absent.
    #[arg(long, value_name = "NAME", value_parser = names::policy)]
    policy: Vec<PolicyKind>,
    /// Replay this share of the trace's conversations, from 0 to 1; 1 for all. Where absent, all unless that would take long; LRU is always
    /// of all.
    #[arg(long, value_name = "SHARE", value_parser = sample)]
    sample: Option<f64>,
    #[command(flatten)]
    money: money::Flags,
    #[command(flatten)]
    mix: mix::Flags,
    /// Write a report with plots into this file: one page that needs nothing else.
    #[arg(long, value_name = "FILE", requires = "trace")]
    html: Option<PathBuf>,
    /// Write each plot as an SVG file into this folder.
    #[arg(long, value_name = "DIR", requires = "trace")]
    svg: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

pub(super) fn model(name: &str) -> Result<Model, String> {
    let names = MODELS.map(|model| model.name).join(", ");
    Model::named(name).ok_or_else(|| format!("it must be one of {names}; or say --bytes-per-token"))
}

fn sample(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "it must be a number above 0, at most 1".to_owned())
}

/// A plan, with a fleet's day at each size where one was named.
#[derive(Debug, Serialize)]
struct Both {
    #[serde(flatten)]
    plan: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet: Option<fleet::Sheet>,
}

fn read_fleet(path: &Path) -> Result<Fleet, CliError> {
    let bad = |why: String| CliError::Config { path: path.to_owned(), why };
    let text = fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
    let fleet: Fleet = toml::from_str(&text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
    fleet.checked().map_err(|error| bad(error.to_string()))
}

impl Plan {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let fleet = self.fleet.as_deref().map(read_fleet).transpose()?;
        let Some(path) = &self.trace else { return self.fleet_alone(fleet, output) };
        let bytes_per_token = self.bytes_per_token.or(self.model.map(Model::bytes_per_token));
        if let (Some(size), None) = (self.size.first(), bytes_per_token) {
            return Err(CliError::usage("--size", size, "with --model or --bytes-per-token".to_owned()));
        }
        self.mix.check(bytes_per_token)?;
        let prices = self.money.prices(fleet.as_ref())?;
        let trace = self.how.read(path)?;
        let info = TraceInfo::of(&trace);
        let block_bytes = bytes_per_token.map(|bytes| bytes.saturating_mul(u64::from(trace.block_tokens())));
        let sizes = match block_bytes.filter(|_| !self.size.is_empty()) {
            Some(block) => sizes(&self.size, block)?,
            None => capacities(info.distinct_blocks.div_ceil(LEAST_SHARE), info.distinct_blocks, self.points),
        };
        let plan = self.planned(&trace, &sizes);
        let target = |load| self.mix.target(&plan, load, &prices);
        let report = Report::of(path, &info, &plan, bytes_per_token, &prices, target);
        let days = fleet.as_ref().map(|fleet| fleet::Sheet::of_sizes(fleet, &report.rates()));
        let both = Both { plan: report, fleet: days };
        let plots = || plots::all(&both.plan, fleet.as_ref());
        if let Some(folder) = &self.svg {
            write_svgs(folder, &plots())?;
        }
        if let Some(path) = &self.html {
            write(path, &page::page(&both, &plots())?)?;
        }
        if self.json { output.json(&both) } else { output.text(both.text()) }
    }

    fn fleet_alone(&self, fleet: Option<Fleet>, output: &mut Output) -> Result<(), CliError> {
        // One of the two is there: the arguments see to it.
        let Some(fleet) = fleet else { return Ok(()) };
        let sheet = fleet::Sheet::of(&fleet);
        if self.json { output.json(&sheet) } else { output.text(sheet.text()) }
    }

    fn planned(&self, trace: &Trace, sizes: &[u64]) -> CapacityPlan {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let policies = if self.policy.is_empty() { &PolicyKind::ALL[..] } else { &self.policy };
        // LRU takes one pass, and the optimum is one more.
        let others = policies.iter().filter(|policy| **policy != PolicyKind::Lru).count() + 1;
        let accesses = (trace.block_references() * sizes.len() * others) as u64;
        let sample = self.sample.unwrap_or_else(|| share_in_time(accesses, threads));
        let sample = Some(sample).filter(|share| *share < 1.0);
        let bar = Bar::new(trace.len() as u64, "requests");
        let options = PlanOptions { capacities: sizes, policies, threads, sample };
        CapacityPlan::of(trace, options, |stage| match stage {
            Stage::Lru(done) => bar.at(done),
            Stage::Points(done, all) => {
                bar.of(all);
                bar.at(done);
                bar.say("capacities of all policies".to_owned());
            }
        })
    }
}

/// Which share of a trace can be replayed without a long wait.
fn share_in_time(accesses: u64, threads: usize) -> f64 {
    let most = ACCESSES_PER_CORE * threads as u64;
    if accesses <= most { 1.0 } else { (most as f64 / accesses as f64).max(LEAST_SAMPLE) }
}

fn write_svgs(folder: &Path, plots: &[chart::Plot]) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(|source| CliError::File { path: folder.to_owned(), source })?;
    plots.iter().try_for_each(|plot| write(&folder.join(format!("{}.svg", plot.id)), &chart::file(plot)))
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    fs::write(path, text).map_err(|source| CliError::File { path: path.to_owned(), source })
}

/// Blocks of these sizes, from small to large.
fn sizes(sizes: &[ByteCount], block_bytes: u64) -> Result<Vec<u64>, CliError> {
    let mut blocks = Vec::new();
    for size in sizes {
        let rule = || format!("at least a block, {}", human(ByteCount(block_bytes)));
        let fit = Some(size.0 / block_bytes).filter(|blocks| *blocks > 0);
        blocks.push(fit.ok_or_else(|| CliError::usage("--size", &human(*size), rule()))?);
    }
    blocks.sort_unstable();
    blocks.dedup();
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_sampled_only_where_all_of_it_would_take_long() {
        assert_eq!(share_in_time(2 * ACCESSES_PER_CORE, 2), 1.0);
        assert_eq!(share_in_time(8 * ACCESSES_PER_CORE, 2), 0.25);
        assert_eq!(share_in_time(u64::MAX, 2), LEAST_SAMPLE);
        assert!(["0", "1.1", "-1", "nan", "all"].iter().all(|text| sample(text).is_err()) && sample("0.5") == Ok(0.5));
    }
}
