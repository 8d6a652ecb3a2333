//! `kvtier plan`: what tiers of which size would hit, before the drives are bought.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use clap::Args;
use serde::Serialize;

use super::output::Output;
use super::progress::Bar;
use super::size::{self, human};
use super::table::{numbers, percent, span, thousands};
use super::traced::How;
use super::{CliError, fleet};
use crate::replay::{CapacityPlan, CapacityPoint, Fleet, MODELS, Model, Stage, Trace, TraceInfo, capacities};
use crate::vocab::ByteCount;

/// Milliseconds of a day.
const DAY_MS: f64 = 86_400_000.0;
/// The smallest capacity that is looked at, as a share of all distinct blocks.
const LEAST_SHARE: u64 = 500;

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
    /// What it costs to compute a million prompt tokens: adds what the next size saves a day.
    #[arg(long, value_name = "PRICE", value_parser = price)]
    prefill_cost: Option<f64>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// `--model`.
pub(super) fn model(name: &str) -> Result<Model, String> {
    let names = MODELS.map(|model| model.name).join(", ");
    Model::named(name).ok_or_else(|| format!("it must be one of {names}; or say --bytes-per-token"))
}

fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| (0.0..=1e6).contains(price));
    price.ok_or_else(|| "it must be a number from 0 to 1000000".to_owned())
}

/// The plan, as programs see it. Field names are a contract: add, never rename.
#[derive(Debug, Serialize)]
struct Report {
    requests: u64,
    prompt_tokens: u64,
    distinct_blocks: u64,
    block_tokens: u32,
    span_ms: u64,
    /// Absent where neither a model nor a size was named.
    bytes_per_token: Option<u64>,
    /// What no capacity can exceed.
    ceiling: f64,
    /// From which capacity on more brings least.
    knee_blocks: Option<u64>,
    /// The fewest blocks with which LRU hits nine tenths of what can be hit.
    blocks_for_90_percent: u64,
    points: Vec<Point>,
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

/// One capacity.
#[derive(Debug, Serialize)]
struct Point {
    blocks: u64,
    bytes: Option<u64>,
    lru: f64,
    belady: f64,
    /// Prompt tokens a day that need no prefill, at the trace's pace.
    hit_tokens_per_day: Option<f64>,
    /// What a TB between the capacity before and this one saves a day.
    saved_per_tb_day: Option<f64>,
}

impl Plan {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let fleet = self.fleet.as_deref().map(read_fleet).transpose()?;
        let Some(trace) = &self.trace else { return self.fleet_alone(fleet, output) };
        let bytes_per_token = self.bytes_per_token.or(self.model.map(Model::bytes_per_token));
        if let (Some(size), None) = (self.size.first(), bytes_per_token) {
            return Err(CliError::usage("--size", size, "with --model or --bytes-per-token".to_owned()));
        }
        let trace = self.how.read(trace)?;
        let info = TraceInfo::of(&trace);
        let block_bytes = bytes_per_token.map(|bytes| bytes.saturating_mul(u64::from(trace.block_tokens())));
        let sizes = match block_bytes.filter(|_| !self.size.is_empty()) {
            Some(block) => sizes(&self.size, block)?,
            None => capacities(info.distinct_blocks.div_ceil(LEAST_SHARE), info.distinct_blocks, self.points),
        };
        let plan = planned(&trace, &sizes);
        let report = self.report(&info, &plan, bytes_per_token, block_bytes);
        let days = fleet.as_ref().map(|fleet| fleet::Sheet::of_sizes(fleet, &plan.points));
        if self.json {
            return output.json(&Both { plan: report, fleet: days });
        }
        let sheet = days.map_or_else(String::new, |sheet| format!("\n\n{}", sheet.text()));
        output.text(report.text() + &sheet)
    }

    fn fleet_alone(&self, fleet: Option<Fleet>, output: &mut Output) -> Result<(), CliError> {
        // One of the two is there: the arguments see to it.
        let Some(fleet) = fleet else { return Ok(()) };
        let sheet = fleet::Sheet::of(&fleet);
        if self.json { output.json(&sheet) } else { output.text(sheet.text()) }
    }

    fn report(
        &self,
        info: &TraceInfo,
        plan: &CapacityPlan,
        bytes_per_token: Option<u64>,
        block_bytes: Option<u64>,
    ) -> Report {
        let days = (info.span_ms > 0).then(|| info.span_ms as f64 / DAY_MS);
        let a_day = |rate: f64| days.map(|days| rate * info.prompt_tokens as f64 / days);
        let mut before = CapacityPoint { blocks: 0, lru: 0.0, optimum: 0.0 };
        let mut points = Vec::new();
        for point in &plan.points {
            let more_tb = block_bytes.map(|bytes| (point.blocks - before.blocks) as f64 * bytes as f64 / 1e12);
            let saved = self.prefill_cost.zip(a_day(point.lru - before.lru)).map(|(cost, tokens)| cost * tokens / 1e6);
            points.push(Point {
                blocks: point.blocks,
                bytes: block_bytes.map(|bytes| bytes.saturating_mul(point.blocks)),
                lru: point.lru,
                belady: point.optimum,
                hit_tokens_per_day: a_day(point.lru),
                saved_per_tb_day: saved.zip(more_tb.filter(|tb| *tb > 0.0)).map(|(saved, tb)| saved / tb),
            });
            before = *point;
        }
        Report {
            requests: info.requests,
            prompt_tokens: info.prompt_tokens,
            distinct_blocks: info.distinct_blocks,
            block_tokens: info.block_tokens,
            span_ms: info.span_ms,
            bytes_per_token,
            ceiling: plan.lru.ceiling(),
            knee_blocks: plan.knee_blocks,
            blocks_for_90_percent: plan.lru.blocks_for(0.9),
            points,
        }
    }
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

fn planned(trace: &Trace, sizes: &[u64]) -> CapacityPlan {
    let bar = Bar::new(trace.len() as u64, "requests");
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    CapacityPlan::of(trace, sizes, threads, |stage| match stage {
        Stage::Lru(done) => bar.at(done),
        Stage::Optimum(done) => {
            bar.of(sizes.len() as u64);
            bar.at(done);
            bar.say("capacities of the optimum".to_owned());
        }
    })
}

impl Report {
    fn text(&self) -> String {
        let block_bytes = self.bytes_per_token.map(|bytes| bytes.saturating_mul(u64::from(self.block_tokens)));
        let size = |blocks: u64| {
            block_bytes.map_or_else(
                || format!("{} blocks", thousands(blocks)),
                |bytes| human(ByteCount(bytes.saturating_mul(blocks))),
            )
        };
        let row = |point: &Point| {
            [
                thousands(point.blocks),
                point.bytes.map_or_else(|| "-".to_owned(), |bytes| human(ByteCount(bytes))),
                percent(point.lru),
                percent(if self.ceiling > 0.0 { point.lru / self.ceiling } else { 0.0 }),
                percent(point.belady),
                point.saved_per_tb_day.map_or_else(|| "-".to_owned(), |saved| format!("{saved:.2}")),
            ]
        };
        let header = ["blocks", "size", "hit rate", "of what can be hit", "optimum", "saved a day by a TB more"];
        let table = numbers(header, self.points.iter().map(row));
        let Self { requests, prompt_tokens, distinct_blocks, block_tokens, .. } = self;
        let mut text = format!(
            "{} requests in {}, {} prompt tokens, {} distinct blocks of {block_tokens} tokens; at most {} can be hit.\n{table}\n",
            thousands(*requests),
            span(self.span_ms),
            thousands(*prompt_tokens),
            thousands(*distinct_blocks),
            percent(self.ceiling),
        );
        if let Some(knee) = self.knee_blocks {
            text += &format!("The knee is at {}: more than that brings least for what it takes.\n", size(knee));
        }
        text + &format!("Nine tenths of what can be hit takes {}.", size(self.blocks_for_90_percent))
    }
}
