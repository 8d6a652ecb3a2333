//! `kvtier replay`: what a trace would hit, simulated or live.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::compare::Compare;
use super::embedded::Embedded;
use super::hosts::HostsArgs;
use super::live::Live;
use super::machine::MachineArgs;
use super::names::ReplayPolicy;
use super::output::Output;
use super::record::RecordFile;
use super::server::runtime;
use super::traced::How;
use super::{CliError, live, names, replayed, simulate, size};
use crate::client::ServerAddress;
use crate::daemon;
use crate::replay::{AdmissionKind, OPTIMUM, PolicyKind, RecordedTrace, ReplayReport, SimulateOptions};
use crate::vocab::ByteCount;
use crate::vocab::limits::PAYLOAD_BYTES_MAX;

/// More blocks than any trace has, and few enough that their slots can be numbered.
const BLOCKS_MAX: u64 = 1 << 32;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub(super) struct Replay {
    #[command(subcommand)]
    other: Option<Other>,
    /// A trace: lines of JSON (Mooncake's, Alibaba's, chats as text or token ids, a daemon's recording), a session's JSON, or a
    /// folder of sessions; gzip and zstd too. `-` for standard input.
    #[arg(required = true)]
    trace: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// On the planner alone, without bytes. The trace is read as it comes, of any size; for belady, which knows the future, it is
    /// read into memory.
    #[arg(long, conflicts_with = "server")]
    simulate: bool,
    #[command(flatten)]
    tiers: Tiers,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    hosts: HostsArgs,
    #[command(flatten)]
    live: Live,
    /// Divide the trace's times by this, of an open loop or of several hosts: at 60, an hour takes a minute [default: 1].
    #[arg(long, value_name = "X", value_parser = live::speed)]
    speed: Option<f64>,
    /// Payload of a block.
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = block_bytes)]
    block_bytes: u32,
    /// Write the run's record to this file: report, histograms, what was asked for and where it ran.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What is done with replays that were made. A trace called `compare` is `./compare`.
#[derive(Debug, Subcommand)]
enum Other {
    /// Lay the records of two replays (--out) side by side.
    Compare(Compare),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Embedded or simulated server")]
struct Tiers {
    /// What is evicted first: lru, s3-fifo, sieve, w-tinylfu, arc, gdsf, gittins, or, simulated on one tier, belady, the offline
    /// optimum. The daemon's default, gittins, where absent.
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

impl Tiers {
    /// Blocks of RAM and of NVMe, where they are said and not sizes.
    fn said_blocks(&self) -> Option<(u64, u64)> {
        let ram_blocks = self.capacity_blocks.or(self.ram_blocks)?;
        Some((ram_blocks, self.nvme_blocks.unwrap_or_default()))
    }

    /// What a record says of a simulation's flags; its sizes and its policy are in the report.
    fn recorded(&self) -> Map<String, Value> {
        let mut options = Map::new();
        let mut say = |name: &str, value: Value| drop(options.insert(name.to_owned(), value));
        say("mode", "simulated".into());
        say("admission", self.admission.unwrap_or_default().name().into());
        say("wear_budget", self.wear_budget.map(|budget| budget.0).into());
        say("crash_after", self.crash_after.into());
        options
    }

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
        if let Some(Other::Compare(compare)) = self.other {
            return compare.run(output);
        }
        let path = self.trace.clone().ok_or_else(|| CliError::usage("TRACE", &"absent", "the name of a trace"))?;
        if let Some(speed) = self.speed.filter(|_| !self.live.is_open() && self.hosts.count().is_none()) {
            return Err(CliError::usage("--speed", &speed, "with --open-loop or --hosts: no other replay has times"));
        }
        if self.machine.is_given() {
            return self.run_machine(&path, output);
        }
        let record = self.out.as_deref().map(RecordFile::begin).transpose()?;
        let (json, recorded) = (self.json, self.recorded());
        let (trace, report) = if self.simulate { self.simulated(&path)? } else { self.lived(&path)? };
        // Neither is lost where the other can't be written.
        let told = if json { output.json(&report) } else { output.text(replayed::text(&report)) };
        if let Some(record) = record {
            record.end(trace, recorded, &report)?;
        }
        told?;
        live::check(&report)
    }

    /// With the sizes and speeds of a machine, or of several.
    fn run_machine(&self, path: &Path, output: &mut Output) -> Result<(), CliError> {
        if let Some(out) = &self.out {
            return Err(CliError::usage("--out", &out.display(), "without a machine: a record is of hits"));
        }
        let machine = self.machine.machine()?;
        let trace = self.how.read(path)?;
        let tiers = &self.tiers;
        let sizes = match tiers.said_blocks() {
            Some(sizes) => sizes,
            None => self.machine.blocks(tiers.ram, tiers.nvme, trace.block_tokens())?,
        };
        if tiers.policy == Some(ReplayPolicy::Optimum) {
            return Err(CliError::usage(
                "--policy",
                &OPTIMUM,
                "lru with a model or a prefill rate: its times are nobody's",
            ));
        }
        let mut options = self.simulated_tiers(sizes)?;
        let block_bytes = machine.bytes_per_token * f64::from(trace.block_tokens());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of blocks")]
        let budget = |budget: ByteCount| (budget.0 as f64 / block_bytes) as u64;
        options.wear_blocks_per_day = tiers.wear_budget.map(budget);
        let note = self.machine.note();
        if let Some(hosts) = self.hosts.count() {
            let reports = self.hosts.run(hosts, &self.machine, options, &trace, self.speed)?;
            return if self.json { output.json(&reports) } else { output.text(reports.text(note)) };
        }
        let predicted = simulate::predicted(&trace, options, machine);
        if self.json { output.json(&predicted) } else { output.text(predicted.text(note)) }
    }

    /// What a record says of the flags.
    fn recorded(&self) -> Map<String, Value> {
        let mut options = if self.simulate { self.tiers.recorded() } else { self.live.recorded(self.speed) };
        options.insert("block_bytes".to_owned(), self.block_bytes.into());
        options
    }

    fn simulated(&self, path: &Path) -> Result<(RecordedTrace, ReplayReport), CliError> {
        let (sizes, policy) = (self.simulated_blocks()?, self.tiers.policy);
        if policy == Some(ReplayPolicy::Optimum) {
            self.check_optimum(sizes)?;
            let trace = self.how.read(path)?;
            let report = simulate::optimum(&trace, sizes.0);
            return Ok((RecordedTrace::of(named(path), &trace), report));
        }
        let options = self.simulated_tiers(sizes)?;
        let (digest, report) = simulate::run(self.how.open(path)?, options)?;
        Ok((digest.end(named(path)), report))
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
        tiers.said_blocks().map_or_else(|| simulate::as_a_server(tiers.ram, tiers.nvme, self.block_bytes), Ok)
    }

    fn simulated_tiers(&self, (ram_blocks, nvme_blocks): (u64, u64)) -> Result<SimulateOptions, CliError> {
        let tiers = &self.tiers;
        let (policy, admission) = (tiers.daemons_policy()?, tiers.admission.unwrap_or_default());
        let wear_blocks_per_day = tiers.wear_budget.map(|budget| budget.0 / u64::from(self.block_bytes));
        let crash_after = tiers.crash_after;
        Ok(SimulateOptions { ram_blocks, nvme_blocks, policy, admission, wear_blocks_per_day, crash_after })
    }

    fn lived(self, path: &Path) -> Result<(RecordedTrace, ReplayReport), CliError> {
        daemon::telemetry::init("warn");
        let options = self.live.options(self.block_bytes, self.speed)?;
        let policy = self.tiers.daemons_policy()?;
        let Self { tiers: Tiers { admission, ram, nvme, data_dir, .. }, live, block_bytes, how, .. } = self;
        if let Some(address) = &live.server {
            let trace = how.read(path)?;
            let report = runtime()?.block_on(live.run(address, &trace, &options))?;
            return Ok((RecordedTrace::of(named(path), &trace), report));
        }
        let admission = admission.unwrap_or_default();
        // Tiers without room for a block are refused before anything is made.
        simulate::as_a_server(ram, nvme, block_bytes)?;
        let trace = how.read(path)?;
        let job = async |address: ServerAddress| live.run(&address, &trace, &options).await;
        let report = Embedded { data_dir, ram, nvme, policy, admission }.run(job, |report, _| Ok(report))?;
        Ok((RecordedTrace::of(named(path), &trace), report))
    }
}

/// What a trace is called on the command line.
fn named(path: &Path) -> String {
    path.display().to_string()
}

fn block_bytes(text: &str) -> Result<u32, String> {
    let bytes = size::parse("--block-bytes", text).map_err(|error| error.to_string())?;
    let rule = || format!("--block-bytes is {text}, it must be 1 byte to 64MiB");
    u32::try_from(bytes.0).ok().filter(|bytes| (1..=PAYLOAD_BYTES_MAX).contains(bytes)).ok_or_else(rule)
}
