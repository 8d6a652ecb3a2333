//! `kvtier demo`: the main job in one go. A server in a temporary folder, conversations replayed through real gRPC with
//! real bytes, and what came of it.

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::embedded::Embedded;
use super::output::Output;
use super::table::{numbers, percent, thousands};
use super::{CliError, live, names, replayed, usage};
use crate::client::{Client, ServerAddress, UsageFilter, UsageSummary};
use crate::daemon;
use crate::offline::{self, VerifyReport};
use crate::replay::live::LiveOptions;
use crate::replay::{AdmissionKind, GenerateOptions, Generator, PolicyKind, ReplayReport, Trace};
use crate::vocab::{ByteCount, TenantName};

/// Small enough to start at once, and so that neither tier holds everything.
const RAM: ByteCount = ByteCount(128 << 20);
const NVME: ByteCount = ByteCount(512 << 20);
const BLOCK_BYTES: u32 = 256 << 10;
const BLOCK_TOKENS: u32 = 64;
/// What the published service asks for a hit token, as a share of a missed one.
const HIT_PRICE: f64 = 0.25;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Requests to replay.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    requests: u64,
    /// The same seed makes the same conversations.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What is written to NVMe: always, second-use or ram-eviction. The daemon's default where absent.
    #[arg(long, value_parser = names::admission, value_name = "NAME")]
    admission: Option<AdmissionKind>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What the demo found, as programs see it.
#[derive(Serialize)]
struct Report {
    replay: ReplayReport,
    usage: usage::Report,
    verify: VerifyReport,
}

impl Demo {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        daemon::telemetry::init("warn");
        let trace = self.trace()?;
        if !self.json {
            output.text(intro(&trace))?;
        }
        let (policy, admission) = (PolicyKind::default(), self.admission.unwrap_or_default());
        let server = Embedded { data_dir: None, ram: RAM, nvme: NVME, policy, admission };
        let report = server.run(|address| replayed(address, &trace), verified)?;
        if self.json {
            output.json(&report)?
        } else {
            output.text(report.text())?
        }
        live::check(&report.replay)
    }

    fn trace(&self) -> Result<Trace, CliError> {
        let options = GenerateOptions {
            seed: self.seed,
            requests: self.requests,
            system_prompts: 6,
            system_tokens: 1_500,
            conversations_per_second: 0.5,
            turns: 6.0,
            user_tokens: 250,
            output_tokens: 250,
            think_ms: 15_000,
            input_tokens_max: 16_000,
            block_tokens: BLOCK_TOKENS,
        };
        let generator = Generator::new(options).map_err(|error| CliError::Usage {
            field: error.field,
            value: error.value,
            rule: error.rule,
        })?;
        Ok(Trace::collect(BLOCK_TOKENS, generator))
    }
}

async fn replayed(address: ServerAddress, trace: &Trace) -> Result<(ReplayReport, UsageSummary), CliError> {
    let options = LiveOptions {
        block_bytes: BLOCK_BYTES,
        settle: true,
        billing_prefix: live::billing_prefix(),
        embedded: true,
        ..LiveOptions::new(TenantName::parse("acme")?)
    };
    let report = live::run(&address, trace, &options).await?;
    let bill = Client::connect(&address).await?.summarize_usage(&UsageFilter::default()).await?;
    Ok((report, bill))
}

/// With the server stopped, every slot of its drive is read once more.
fn verified((replay, bill): (ReplayReport, UsageSummary), dir: &Path) -> Result<Report, CliError> {
    Ok(Report { replay, usage: usage::Report::of(&bill), verify: offline::verify(dir, |_, _| {})? })
}

fn intro(trace: &Trace) -> String {
    format!(
        "A kvtier server in a temporary folder: {} of RAM, {} of NVMe, blocks of {BLOCK_TOKENS} tokens and {}.\n\
         {} requests of chat conversations that share system prompts go through gRPC, every byte compared.",
        super::size::human(RAM),
        super::size::human(NVME),
        super::size::human(ByteCount(BLOCK_BYTES.into())),
        thousands(trace.len() as u64),
    )
}

impl Report {
    fn text(&self) -> String {
        [
            String::new(),
            "Where the prompts' tokens came from, and how fast:".to_owned(),
            replayed::text(&self.replay),
            String::new(),
            "The bill, settled once per request:".to_owned(),
            self.usage.text(),
            self.worth(),
            String::new(),
            self.proof(),
            String::new(),
            NEXT.to_owned(),
        ]
        .join("\n")
    }

    fn worth(&self) -> String {
        let ReplayReport { hit_tokens, miss_tokens, prompt_tokens, .. } = self.replay;
        let priced = miss_tokens as f64 + hit_tokens as f64 * HIT_PRICE;
        let share = if prompt_tokens == 0 { 1.0 } else { priced / prompt_tokens as f64 };
        let rows = [
            ["prompt tokens computed without kvtier".to_owned(), thousands(prompt_tokens)],
            ["prompt tokens computed with it".to_owned(), thousands(miss_tokens)],
            ["price of the prompts, where a hit costs a quarter of a miss".to_owned(), percent(share)],
        ];
        numbers(["what it saved", ""], rows).to_string()
    }

    fn proof(&self) -> String {
        let live = self.replay.live.clone().unwrap_or_default();
        let VerifyReport { blocks, corrupt, stale, .. } = self.verify;
        format!(
            "Proof: {} loaded and compared with what their keys say, mismatched blocks {}.\n\
             \x20      With the server stopped, {} blocks of its drive were read again: corrupt {corrupt}, stale {stale}.",
            super::size::human(ByteCount(live.bytes_loaded)),
            live.mismatched_blocks,
            thousands(blocks),
        )
    }
}

const NEXT: &str = "\
Next:
  kvtier serve --data-dir ./kvtier-data --socket ./kvtier.sock     a server of your own; then, in another shell:
  kvtier status --server unix:./kvtier.sock                        what it holds
  kvtier trace generate --requests 2000 -o trace.jsonl             a trace of your own
  kvtier replay trace.jsonl --server unix:./kvtier.sock --settle   replayed against it, every byte compared
  kvtier usage summary --server unix:./kvtier.sock                 the bill
  kvtier replay trace.jsonl --simulate --capacity-blocks 5000      what a cache of another size would hit";
