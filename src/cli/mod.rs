//! The command line: one file a subcommand.
//!
//! A command that reports takes `--json` and then prints exactly one JSON document on stdout; logs and progress go to
//! stderr. Exit status: 0 ok, 1 failed, 2 usage.

mod error;
mod inspect;
mod output;
mod policy;
mod progress;
mod replay;
mod simulate;
mod trace;
mod verify;

pub mod size;
pub mod table;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;
use output::Output;

/// A tiered KV-cache for LLM inference: keeps prefix-hashed KV blocks in RAM and on NVMe, and meters what they saved.
#[derive(Debug, Parser)]
#[command(name = "kvtier", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "Sizes read like 256MiB, 8GiB or 1GB. Exit status: 0 ok, 1 failed, 2 usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at what is in the cache.
    Inspect(inspect::Inspect),
    /// Check every slot of a stopped data folder against its index; exit 1 when bytes are corrupt.
    Verify(verify::Verify),
    /// Look at a trace, or make one.
    Trace(trace::Trace),
    /// Replay a trace: simulated on the planner, or live with real bytes.
    Replay(replay::Replay),
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
        Command::Inspect(inspect) => inspect.run(&mut output),
        Command::Verify(verify) => verify.run(&mut output),
        Command::Trace(trace) => trace.run(&mut output),
        Command::Replay(replay) => replay.run(&mut output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}
