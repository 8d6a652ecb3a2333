//! `kvtier trace info` and `kvtier trace generate`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::output::Output;
use super::{CliError, table};
use crate::replay::{GenerateOptions, Generator, TraceInfo, read_trace};

#[derive(Debug, Args)]
pub(super) struct Trace {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Debug, Subcommand)]
enum TraceCommand {
    /// What a trace is like: how much of it there is, how often blocks come back, what an infinite cache would hit.
    Info(Info),
    /// Make a trace of conversations that share system prompts. One seed makes the same bytes on every machine.
    Generate(Generate),
}

#[derive(Debug, Args)]
struct Info {
    /// A trace in the Mooncake format; `-` for standard input.
    trace: PathBuf,
    /// Tokens of a block.
    #[arg(long, default_value_t = 512, value_name = "N")]
    block_tokens: u32,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Generate {
    /// The same seed and options make the same bytes.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Requests in all.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    requests: u64,
    /// System prompts, of which number k is chosen with a weight of 1/k.
    #[arg(long, default_value_t = 8, value_name = "N")]
    system_prompts: u32,
    /// Mean tokens of a system prompt.
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    system_tokens: u64,
    /// Conversations that begin each second.
    #[arg(long, default_value_t = 1.0, value_name = "RATE")]
    conversations_per_second: f64,
    /// Mean turns of a conversation.
    #[arg(long, default_value_t = 4.0, value_name = "N")]
    turns: f64,
    /// Mean tokens of a user's message.
    #[arg(long, default_value_t = 800, value_name = "N")]
    user_tokens: u64,
    /// Mean tokens of an answer.
    #[arg(long, default_value_t = 400, value_name = "N")]
    output_tokens: u64,
    /// Mean milliseconds between an answer and the next turn.
    #[arg(long, default_value_t = 20_000, value_name = "MS")]
    think_ms: u64,
    /// A conversation ends before its prompt would be longer than this.
    #[arg(long, default_value_t = 128_000, value_name = "N")]
    input_tokens_max: u64,
    /// Tokens of a block.
    #[arg(long, default_value_t = 512, value_name = "N")]
    block_tokens: u32,
    /// The file to write; standard output where absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Trace {
    pub(super) fn run(self, output: &mut Output) -> Result<(), CliError> {
        match self.command {
            TraceCommand::Info(info) => info.run(output),
            TraceCommand::Generate(generate) => generate.run(),
        }
    }
}

impl Info {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let info = TraceInfo::of(&read_trace(&self.trace, self.block_tokens)?);
        if self.json { output.json(&info) } else { output.text(table::trace_info(&info)) }
    }
}

impl Generate {
    fn run(self) -> Result<(), CliError> {
        let file = self.output.clone();
        let generator = Generator::new(self.options()).map_err(|error| CliError::Usage {
            field: error.field,
            value: error.value,
            rule: error.rule,
        })?;
        match file {
            None => generator.write(&mut BufWriter::new(io::stdout().lock())).map_err(CliError::Stdout),
            Some(path) => write_file(&path, generator).map_err(|source| CliError::File { path, source }),
        }
    }

    fn options(self) -> GenerateOptions {
        GenerateOptions {
            seed: self.seed,
            requests: self.requests,
            system_prompts: self.system_prompts,
            system_tokens: self.system_tokens,
            conversations_per_second: self.conversations_per_second,
            turns: self.turns,
            user_tokens: self.user_tokens,
            output_tokens: self.output_tokens,
            think_ms: self.think_ms,
            input_tokens_max: self.input_tokens_max,
            block_tokens: self.block_tokens,
        }
    }
}

fn write_file(path: &Path, generator: Generator) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    generator.write(&mut file)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        generate: Generate,
    }

    #[test]
    fn the_flags_defaults_are_those_of_the_generator() {
        assert_eq!(Alone::parse_from(["generate"]).generate.options(), GenerateOptions::default());
    }
}
