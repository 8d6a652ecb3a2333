//! `kvtier replay`: what a trace would hit, simulated or live.

use std::path::PathBuf;

use clap::Args;

use super::output::Output;
use super::{CliError, policy, simulate, size, table};
use crate::replay::{PolicyKind, SimulateOptions, read_trace};
use crate::vocab::ByteCount;
use crate::vocab::limits::PAYLOAD_BYTES_MAX;

/// More blocks than any trace has, and few enough that their slots can be numbered.
const BLOCKS_MAX: u64 = 1 << 32;

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// A trace in the Mooncake format; `-` for standard input.
    trace: PathBuf,
    /// On the planner alone, without bytes.
    #[arg(long)]
    simulate: bool,
    /// What is evicted first: lru. The daemon's default where absent.
    #[arg(long, value_parser = policy::parse, value_name = "NAME")]
    policy: Option<PolicyKind>,
    /// One simulated tier of this many blocks.
    #[arg(long, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u64).range(1..=BLOCKS_MAX))]
    #[arg(conflicts_with_all = ["ram_blocks", "nvme_blocks", "ram", "nvme"])]
    capacity_blocks: Option<u64>,
    /// A simulated RAM tier of this many blocks.
    #[arg(long, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u64).range(1..=BLOCKS_MAX))]
    #[arg(conflicts_with_all = ["ram", "nvme"])]
    ram_blocks: Option<u64>,
    /// A simulated NVMe tier of this many blocks.
    #[arg(long, value_name = "N", requires = "ram_blocks", value_parser = clap::value_parser!(u64).range(1..=BLOCKS_MAX))]
    nvme_blocks: Option<u64>,
    /// RAM of the embedded or simulated server.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size::parser("--ram"))]
    ram: ByteCount,
    /// NVMe of the embedded or simulated server; 0 for none.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parser("--nvme"))]
    nvme: ByteCount,
    /// Payload of a block.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = block_bytes)]
    block_bytes: u32,
    /// Tokens of a block of the trace.
    #[arg(long, default_value_t = 512, value_name = "N")]
    block_tokens: u32,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let options = self.simulated_tiers()?;
        let trace = read_trace(&self.trace, self.block_tokens)?;
        let report = simulate::run(&trace, options);
        if self.json { output.json(&report) } else { output.text(table::replay(&report)) }
    }

    fn simulated_tiers(&self) -> Result<SimulateOptions, CliError> {
        let policy = self.policy.unwrap_or_default();
        match self.capacity_blocks.or(self.ram_blocks) {
            Some(ram_blocks) => {
                Ok(SimulateOptions { ram_blocks, nvme_blocks: self.nvme_blocks.unwrap_or_default(), policy })
            }
            None => simulate::as_a_server(self.ram, self.nvme, self.block_bytes, policy),
        }
    }
}

fn block_bytes(text: &str) -> Result<u32, String> {
    let bytes = size::parse("--block-bytes", text).map_err(|error| error.to_string())?;
    let rule = || format!("--block-bytes is {text}, it must be 1 byte to 64MiB");
    u32::try_from(bytes.0).ok().filter(|bytes| (1..=PAYLOAD_BYTES_MAX).contains(bytes)).ok_or_else(rule)
}
