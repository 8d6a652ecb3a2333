//! The command line: one file a subcommand.
//!
//! A command that reports takes `--json` and then prints exactly one JSON document on stdout; logs and progress go to
//! stderr. Exit status: 0 ok, 1 failed, 2 usage, 70 a part of the daemon ended on its own, 128 and its number a second
//! signal to a daemon that is stopping.

mod access;
mod audit;
mod bench;
mod block;
mod chain;
mod chart;
mod compare;
mod correct;
mod demo;
mod drive;
mod drives;
mod embedded;
mod error;
mod evict;
mod export;
mod exported;
mod filter;
mod fleet;
mod get;
mod health;
mod hosts;
mod inspect;
mod live;
mod lookup;
mod machine;
mod names;
mod output;
mod parts;
mod pin;
mod plan;
mod price;
mod progress;
mod put;
mod quota;
mod record;
mod records;
mod replay;
mod replayed;
mod serve;
mod server;
mod simulate;
mod status;
mod storage;
mod trace;
mod traced;
mod usage;
mod verify;

pub mod size;
pub mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;
use output::Output;

use crate::bench::WORKER_COMMAND;

/// A tiered KV-cache for LLM inference: keeps prefix-hashed KV blocks in RAM and on NVMe, and meters what they saved.
#[derive(Debug, Parser)]
#[command(name = "kvtier", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(
    after_help = "Sizes read like 256MiB, 8GiB or 1GB. Exit status: 0 ok, 1 failed, 2 usage, 70 a part of the daemon ended on its own."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main job in one go: a server in a temporary folder, conversations through real gRPC, and the bill.
    Demo(demo::Demo),
    /// Run the daemon. It logs `ready` when it serves; SIGTERM drains, a second one ends it at once.
    Serve(serve::Serve),
    /// A server now: tiers, hit rate, sessions, leases.
    Status(status::Status),
    /// Store bytes as the blocks of a prompt.
    Put(put::Put),
    /// Read the bytes of a prompt's cached blocks.
    Get(get::Get),
    /// How long a prefix of a prompt is cached, and where.
    Lookup(lookup::Lookup),
    /// Remove blocks of a prompt; leased ones stay.
    Evict(evict::Evict),
    /// Remove every block that matches, leased ones too.
    Purge(evict::Purge),
    /// Keep a prompt's blocks on NVMe until they are unpinned.
    Pin(pin::Pin),
    /// Let them go as others do.
    Unpin(pin::Unpin),
    /// What tenants and public domains hold, and may hold.
    Quota(quota::Quota),
    /// Bearer tokens, by which a daemon knows its callers.
    Token(access::Token),
    /// Grants, by which a gateway lets an engine act for a tenant.
    Grant(access::Grant),
    /// Look at what is in the cache.
    Inspect(inspect::Inspect),
    /// Check every block, of a stopped data folder or of a running server; exit 1 when bytes are corrupt.
    Verify(verify::Verify),
    /// The bill.
    Usage(usage::Usage),
    /// Look at a trace, or make one.
    Trace(trace::Trace),
    /// Replay a trace: simulated on the planner, or live with real bytes.
    Replay(Box<replay::Replay>),
    /// What tiers of which size would hit, from a trace: before the drives are bought.
    Plan(plan::Plan),
    /// This machine's limits, and kvtier's share of each, measured in turn.
    Bench(bench::Bench),
    /// A process beside a bench's daemon.
    #[command(name = WORKER_COMMAND, hide = true)]
    BenchWorker,
}

/// Runs the program with `args`, the first of which is its own name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout and are no error; a reader who left is none either.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut output = Output::stdout();
    let done = match cli.command {
        Command::Demo(demo) => demo.run(&mut output),
        Command::Serve(serve) => serve.run(),
        Command::Status(status) => status.run(&mut output),
        Command::Put(put) => put.run(&mut output),
        Command::Get(get) => get.run(&mut output),
        Command::Lookup(lookup) => lookup.run(&mut output),
        Command::Evict(evict) => evict.run(&mut output),
        Command::Purge(purge) => purge.run(&mut output),
        Command::Token(token) => token.run(&mut output),
        Command::Grant(grant) => grant.run(&mut output),
        Command::Pin(pin) => pin.run(&mut output),
        Command::Unpin(unpin) => unpin.run(&mut output),
        Command::Quota(quota) => quota.run(&mut output),
        Command::Usage(usage) => usage.run(&mut output),
        Command::Inspect(inspect) => inspect.run(&mut output),
        Command::Verify(verify) => verify.run(&mut output),
        Command::Trace(trace) => trace.run(&mut output),
        Command::Replay(replay) => replay.run(&mut output),
        Command::Plan(plan) => plan.run(&mut output),
        Command::Bench(bench) => bench.run(&mut output),
        Command::BenchWorker => bench::work(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}
