//! `kvtier lookup`: how long a prefix is cached, and where.

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::chain::ChainArgs;
use super::output::Output;
use super::server::Server;
use super::table::{numbers, thousands};
use crate::client::LookupOptions;

#[derive(Debug, Args)]
pub(super) struct Lookup {
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    hit_tokens: u64,
    miss_tokens: u64,
    blocks_asked: u32,
    blocks_hit: u32,
    by_tier: ByTier,
}

#[derive(Serialize)]
struct ByTier {
    ram: u32,
    nvme: u32,
    missed: u32,
}

impl Lookup {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let found = self.server.ask(async |client| {
            let named = self.chain.name(&client).await?;
            Ok(client.lookup(&named.chain, &LookupOptions::default()).await?)
        })?;
        let counts = found.counts;
        let report = Report {
            hit_tokens: found.hit_tokens,
            miss_tokens: found.miss_tokens,
            blocks_asked: counts.asked(),
            blocks_hit: counts.hit(),
            by_tier: ByTier { ram: counts.ram, nvme: counts.nvme, missed: counts.missed },
        };
        if self.json { output.json(&report) } else { output.text(text(&report)) }
    }
}

fn text(report: &Report) -> String {
    let row = |name: &str, number: u64| [name.to_owned(), thousands(number)];
    let rows = [
        row("tokens to skip", report.hit_tokens),
        row("tokens to compute", report.miss_tokens),
        row("blocks asked", report.blocks_asked.into()),
        row("  in ram", report.by_tier.ram.into()),
        row("  on nvme", report.by_tier.nvme.into()),
        row("  missed", report.by_tier.missed.into()),
    ];
    numbers(["lookup", ""], rows).to_string()
}
