//! `kvtier trace info`, `kvtier trace convert` and `kvtier trace generate`.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::output::Output;
use super::progress::Bar;
use super::traced::Traced;
use super::{CliError, names, table};
use crate::replay::{
    GenerateOptions, Generator, TraceError, TraceFormat, TraceInfo, TraceRequest, Workload, WriteError, write_trace,
};

#[derive(Debug, Args)]
pub(super) struct Trace {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Debug, Subcommand)]
enum TraceCommand {
    /// What a trace is like: how much of it there is, how often blocks come back, what an infinite cache would hit.
    Info(Info),
    /// Write a trace in another format. What that has no place for is left out. A file is there when it is whole.
    Convert(Convert),
    /// Make a trace of conversations that share system prompts. One seed makes the same bytes on every machine.
    Generate(Generate),
}

#[derive(Debug, Args)]
struct Info {
    #[command(flatten)]
    traced: Traced,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Convert {
    #[command(flatten)]
    traced: Traced,
    /// The format to write: mooncake, bailian, sessions (all of it as one) or kvtier. Chats can be read only: a trace has no tokens.
    #[arg(long, value_name = "NAME", value_parser = names::trace_format)]
    to: TraceFormat,
    /// Put requests in order of time, whatever their order is, in memory. Else a trace is read as it comes, of any size, and may
    /// be out of order by 65,536 requests.
    #[arg(long)]
    sort: bool,
    /// The file to write, packed where its name ends with .gz or .zst; standard output where absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Generate {
    /// A workload to start from: chat, agent, tool or retrieval, each near a published trace. What is named besides takes its place.
    #[arg(long, value_name = "NAME", value_parser = names::workload)]
    kind: Option<Workload>,
    /// The same seed and options make the same bytes [default: 1, or the kind's].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Requests in all [default: 1000, or the kind's].
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// System prompts, of which number k is chosen with a weight of 1/k [default: 8, or the kind's].
    #[arg(long, value_name = "N")]
    system_prompts: Option<u32>,
    /// Mean tokens of a system prompt [default: 2000, or the kind's].
    #[arg(long, value_name = "N")]
    system_tokens: Option<u64>,
    /// Conversations that begin each second [default: 1, or the kind's].
    #[arg(long, value_name = "RATE")]
    conversations_per_second: Option<f64>,
    /// Mean turns of a conversation [default: 4, or the kind's].
    #[arg(long, value_name = "N")]
    turns: Option<f64>,
    /// Mean tokens of a user's message [default: 800, or the kind's].
    #[arg(long, value_name = "N")]
    user_tokens: Option<u64>,
    /// Mean tokens of an answer [default: 400, or the kind's].
    #[arg(long, value_name = "N")]
    output_tokens: Option<u64>,
    /// Mean milliseconds between an answer and the next turn [default: 20000, or the kind's].
    #[arg(long, value_name = "MS")]
    think_ms: Option<u64>,
    /// A conversation ends before its prompt would be longer than this [default: 128000, or the kind's].
    #[arg(long, value_name = "N")]
    input_tokens_max: Option<u64>,
    /// Tokens of a block [default: 512, or the kind's].
    #[arg(long, value_name = "N")]
    block_tokens: Option<u32>,
    /// The file to write; standard output where absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Trace {
    pub(super) fn run(self, output: &mut Output) -> Result<(), CliError> {
        match self.command {
            TraceCommand::Info(info) => info.run(output),
            TraceCommand::Convert(convert) => convert.run(),
            TraceCommand::Generate(generate) => generate.run(),
        }
    }
}

impl Info {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let mut requests = self.traced.open()?;
        let bar = Bar::of_trace(&requests);
        let info = TraceInfo::of_requests(&mut requests, |done| bar.step(done))?;
        drop(bar);
        if self.json { output.json(&info) } else { output.text(table::trace_info(&info)) }
    }
}

impl Convert {
    fn run(&self) -> Result<(), CliError> {
        if self.to == TraceFormat::Chats {
            let rule = format!("mooncake, bailian, sessions or kvtier: {}", WriteError::NoTokens);
            return Err(CliError::usage("--to", &self.to.name(), rule));
        }
        if self.sort {
            let trace = self.traced.read()?;
            let requests = trace.requests().map(|request| Ok(request.to_owned()));
            return self.write(trace.block_tokens(), requests);
        }
        let requests = self.traced.open()?;
        let bar = Bar::of_trace(&requests);
        let block_tokens = requests.block_tokens();
        self.write(block_tokens, (1..).zip(requests).map(|(done, request)| request.inspect(|_| bar.step(done))))
    }

    fn write(
        &self,
        block_tokens: u32,
        requests: impl Iterator<Item = Result<TraceRequest, TraceError>>,
    ) -> Result<(), CliError> {
        let Some(path) = self.output.as_deref().filter(|path| *path != Path::new("-")) else {
            let mut out = BufWriter::new(io::stdout().lock());
            return write_trace(&mut out, block_tokens, requests, self.to).map_err(|error| match error {
                WriteError::Out(error) => CliError::Stdout(error),
                error => failed(Path::new("-"), error),
            });
        };
        self.write_file(path, block_tokens, requests).map_err(|error| failed(path, error))
    }

    /// The file is there when it is whole: it may be the one that is read, and a trace that can't be read to its end leaves none.
    fn write_file(
        &self,
        path: &Path,
        block_tokens: u32,
        requests: impl Iterator<Item = Result<TraceRequest, TraceError>>,
    ) -> Result<(), WriteError> {
        if path.exists() && !path.is_file() {
            return self.write_packed(path, File::create(path)?, block_tokens, requests);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As any new file: what the umask leaves.
        let permissions = Permissions::from_mode(0o666);
        let part = tempfile::Builder::new().prefix(".kvtier-trace-").permissions(permissions).tempfile_in(folder)?;
        self.write_packed(path, part.as_file().try_clone()?, block_tokens, requests)?;
        part.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    fn write_packed(
        &self,
        path: &Path,
        file: File,
        block_tokens: u32,
        requests: impl Iterator<Item = Result<TraceRequest, TraceError>>,
    ) -> Result<(), WriteError> {
        let mut file = BufWriter::new(file);
        let ends = |end: &str| path.extension().is_some_and(|extension| extension == end);
        if ends("gz") {
            let mut packed = GzEncoder::new(file, Compression::default());
            write_trace(&mut packed, block_tokens, requests, self.to)?;
            return Ok(packed.finish()?.flush()?);
        }
        if ends("zst") {
            let mut packed = zstd::Encoder::new(file, 0)?;
            write_trace(&mut packed, block_tokens, requests, self.to)?;
            return Ok(packed.finish()?.flush()?);
        }
        write_trace(&mut file, block_tokens, requests, self.to)
    }
}

fn failed(path: &Path, error: WriteError) -> CliError {
    match error {
        WriteError::Trace(error) => error.into(),
        WriteError::Out(source) => CliError::File { path: path.to_owned(), source },
        WriteError::NoTokens => CliError::usage("--to", &TraceFormat::Chats.name(), error.to_string()),
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
        let of = self.kind.map_or_else(GenerateOptions::default, Workload::options);
        GenerateOptions {
            seed: self.seed.unwrap_or(of.seed),
            requests: self.requests.unwrap_or(of.requests),
            system_prompts: self.system_prompts.unwrap_or(of.system_prompts),
            system_tokens: self.system_tokens.unwrap_or(of.system_tokens),
            conversations_per_second: self.conversations_per_second.unwrap_or(of.conversations_per_second),
            turns: self.turns.unwrap_or(of.turns),
            user_tokens: self.user_tokens.unwrap_or(of.user_tokens),
            output_tokens: self.output_tokens.unwrap_or(of.output_tokens),
            think_ms: self.think_ms.unwrap_or(of.think_ms),
            input_tokens_max: self.input_tokens_max.unwrap_or(of.input_tokens_max),
            block_tokens: self.block_tokens.unwrap_or(of.block_tokens),
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
        let options = |args: &[&str]| Alone::parse_from(args).generate.options();
        assert_eq!(options(&["generate"]), GenerateOptions::default());
        let agent = GenerateOptions { requests: 5, ..Workload::Agent.options() };
        assert_eq!(options(&["generate", "--kind", "agent", "--requests", "5"]), agent);
    }
}
