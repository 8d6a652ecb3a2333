//! `kvtier replay`: what a trace would hit, simulated or live.

use std::path::PathBuf;

use clap::Args;

use super::embedded::Embedded;
use super::names::ReplayPolicy;
use super::output::Output;
use super::server::{Shown, runtime};
use super::traced::Traced;
use super::{CliError, live, names, simulate, size, table};
use crate::client::{Credentials, ServerAddress};
use crate::daemon;
use crate::replay::live::LiveOptions;
use crate::replay::{AdmissionKind, OPTIMUM, PolicyKind, ReplayReport, SimulateOptions};
use crate::vocab::limits::PAYLOAD_BYTES_MAX;
use crate::vocab::{ByteCount, TenantName};

/// More blocks than any trace has, and few enough that their slots can be numbered.
const BLOCKS_MAX: u64 = 1 << 32;

#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    traced: Traced,
    /// On the planner alone, without bytes. The trace is read as it comes, of any size; for belady, which knows the future, it is
    /// read into memory.
    #[arg(long, conflicts_with = "server")]
    simulate: bool,
    #[command(flatten)]
    tiers: Tiers,
    #[command(flatten)]
    live: Live,
    /// Payload of a block.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = block_bytes)]
    block_bytes: u32,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Embedded or simulated server")]
struct Tiers {
    /// What is evicted first: lru, or, simulated on one tier, belady, the offline optimum. The daemon's default where absent.
    #[arg(long, value_parser = names::replay_policy, value_name = "NAME", conflicts_with = "server")]
    policy: Option<ReplayPolicy>,
    /// What is written to NVMe: always, second-use or ram-eviction. The daemon's default where absent.
    #[arg(long, value_parser = names::admission, value_name = "NAME", conflicts_with = "server")]
    admission: Option<AdmissionKind>,
    /// Bytes a day that the simulated drive may be written; past it, heads of chains are written, tails on second use.
    #[arg(long, value_name = "SIZE", requires = "simulate", value_parser = size::parser("--wear-budget"))]
    wear_budget: Option<ByteCount>,
    /// Kill the simulated server after this many requests, start it again, and say how warm that was.
    #[arg(long, value_name = "N", requires = "simulate", value_parser = clap::value_parser!(u64).range(1..))]
    crash_after: Option<u64>,
    /// RAM of the embedded or simulated server.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size::parser("--ram"))]
    #[arg(conflicts_with = "server")]
    ram: ByteCount,
    /// NVMe of the embedded or simulated server; 0 for none.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::parser("--nvme"))]
    #[arg(conflicts_with = "server")]
    nvme: ByteCount,
    /// Where the embedded server keeps its data; a temporary folder where absent.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["server", "simulate"])]
    data_dir: Option<PathBuf>,
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
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Live replay")]
struct Live {
    /// The daemon to replay against: host:port, a URL, or unix:PATH. Where absent, a server is embedded: a replay fills
    /// a cache, so the environment does not choose one for it.
    #[arg(long, value_name = "ADDRESS", value_parser = ServerAddress::parse)]
    server: Option<ServerAddress>,
    #[command(flatten)]
    shown: Shown,
    /// Requests under way at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(conflicts_with = "simulate")]
    workers: u16,
    /// Wait after each request until the server's background work is done: then hits are those of a simulation.
    #[arg(long, conflicts_with = "simulate")]
    quiesce: bool,
    /// Settle each request, so that it is on the bill.
    #[arg(long, conflicts_with = "simulate")]
    settle: bool,
    /// Whose blocks they are.
    #[arg(long, value_name = "NAME", default_value = "replay", value_parser = TenantName::parse)]
    #[arg(conflicts_with = "simulate")]
    tenant: TenantName,
    /// Another seed names other blocks: a cold start on a warm server.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "simulate")]
    seed: u64,
    /// Stop after this many requests.
    #[arg(long, value_name = "N", conflicts_with = "simulate")]
    max_requests: Option<u64>,
}

impl Tiers {
    /// One that a daemon can have.
    fn daemons_policy(&self) -> Result<PolicyKind, CliError> {
        match self.policy {
            None => Ok(PolicyKind::default()),
            Some(ReplayPolicy::Daemon(policy)) => Ok(policy),
            Some(ReplayPolicy::Optimum) => {
                Err(CliError::usage("--policy", &OPTIMUM, "lru without --simulate: it knows the future"))
            }
        }
    }
}

impl Replay {
    pub(super) fn run(self, output: &mut Output) -> Result<(), CliError> {
        let json = self.json;
        let report = if self.simulate { self.simulated()? } else { self.lived()? };
        if json {
            output.json(&report)?
        } else {
            output.text(table::replay(&report))?
        }
        live::check(&report)
    }

    fn simulated(&self) -> Result<ReplayReport, CliError> {
        let (sizes, policy) = (self.simulated_blocks()?, self.tiers.policy);
        if policy == Some(ReplayPolicy::Optimum) {
            self.check_optimum(sizes)?;
            let trace = self.traced.read()?;
            return Ok(simulate::optimum(&trace, sizes.0));
        }
        let options = self.simulated_tiers(sizes)?;
        simulate::run(self.traced.open()?, options)
    }

    /// The optimum is that of one tier, and writes whatever it keeps.
    fn check_optimum(&self, (_, nvme_blocks): (u64, u64)) -> Result<(), CliError> {
        let Tiers { admission, wear_budget, crash_after, .. } = &self.tiers;
        let given = [
            ("--nvme-blocks", nvme_blocks > 0),
            ("--admission", admission.is_some()),
            ("--wear-budget", wear_budget.is_some()),
            ("--crash-after", crash_after.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => {
                let rule = format!("lru with {flag}: the optimum is that of one tier (--capacity-blocks N)");
                Err(CliError::usage("--policy", &OPTIMUM, rule))
            }
        }
    }

    /// Blocks of RAM and of NVMe.
    fn simulated_blocks(&self) -> Result<(u64, u64), CliError> {
        let tiers = &self.tiers;
        match tiers.capacity_blocks.or(tiers.ram_blocks) {
            Some(ram_blocks) => Ok((ram_blocks, tiers.nvme_blocks.unwrap_or_default())),
            None => simulate::as_a_server(tiers.ram, tiers.nvme, self.block_bytes),
        }
    }

    fn simulated_tiers(&self, (ram_blocks, nvme_blocks): (u64, u64)) -> Result<SimulateOptions, CliError> {
        let tiers = &self.tiers;
        let (policy, admission) = (tiers.daemons_policy()?, tiers.admission.unwrap_or_default());
        let wear_blocks_per_day = tiers.wear_budget.map(|budget| budget.0 / u64::from(self.block_bytes));
        let crash_after = tiers.crash_after;
        Ok(SimulateOptions { ram_blocks, nvme_blocks, policy, admission, wear_blocks_per_day, crash_after })
    }

    fn lived(self) -> Result<ReplayReport, CliError> {
        daemon::telemetry::init("warn");
        let options = self.options()?;
        let policy = self.tiers.daemons_policy()?;
        let Self { tiers: Tiers { admission, ram, nvme, data_dir, .. }, live, block_bytes, .. } = self;
        if let Some(address) = &live.server {
            let trace = self.traced.read()?;
            return runtime()?.block_on(live::run(address, &trace, &options));
        }
        let admission = admission.unwrap_or_default();
        // Tiers without room for a block are refused before anything is made.
        simulate::as_a_server(ram, nvme, block_bytes)?;
        let trace = self.traced.read()?;
        let job = async |address: ServerAddress| live::run(&address, &trace, &options).await;
        Embedded { data_dir, ram, nvme, policy, admission }.run(job, |report, _| Ok(report))
    }

    fn options(&self) -> Result<LiveOptions, CliError> {
        let Live { server, shown, workers, quiesce, settle, tenant, seed, max_requests } = &self.live;
        let policy = self.tiers.daemons_policy()?.name();
        // An embedded server asks nobody.
        let credentials = if server.is_some() { shown.credentials()? } else { Credentials::default() };
        Ok(LiveOptions {
            block_bytes: self.block_bytes,
            workers: usize::from(*workers),
            quiesce_between: *quiesce,
            settle: *settle,
            billing_prefix: live::billing_prefix(),
            seed: *seed,
            max_requests: *max_requests,
            policy: if server.is_some() { "server" } else { policy }.to_owned(),
            credentials,
            ..LiveOptions::new(tenant.clone())
        })
    }
}

fn block_bytes(text: &str) -> Result<u32, String> {
    let bytes = size::parse("--block-bytes", text).map_err(|error| error.to_string())?;
    let rule = || format!("--block-bytes is {text}, it must be 1 byte to 64MiB");
    u32::try_from(bytes.0).ok().filter(|bytes| (1..=PAYLOAD_BYTES_MAX).contains(bytes)).ok_or_else(rule)
}
