//! Where a trace is, and how it is read: for every command that takes one.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CliError, names};
use crate::replay::{Requests, Trace, TraceFormat, TraceOptions, open_trace, read_trace};

#[derive(Debug, Args)]
pub(super) struct Traced {
    /// A trace: lines of JSON (Mooncake's, Alibaba's, chats as text or token ids, a daemon's recording), a session's JSON, or a
    /// folder of sessions; gzip and zstd too. `-` for standard input.
    trace: PathBuf,
    #[command(flatten)]
    how: How,
}

/// How a trace is read, wherever it is named.
#[derive(Debug, Args)]
pub(super) struct How {
    /// The trace's format: mooncake, bailian, sessions, chats or kvtier. Found out where absent.
    #[arg(long, value_name = "NAME", value_parser = names::trace_format)]
    format: Option<TraceFormat>,
    /// Tokens of a block of the trace: 512 in Mooncake's and of chats, 16 in Alibaba's; sessions and recordings say so
    /// themselves.
    #[arg(long, value_name = "N")]
    block_tokens: Option<u32>,
    /// Sessions of a folder begin so many seconds one after the other: their files don't say when they did. So do chats without
    /// timestamps, and the turns of one.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    session_every: u32,
    /// The tokenizer.json of the model, for chats of text: their tokens are hashed into blocks.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Of a daemon's recording, only the requests of the namespace of this number.
    #[arg(long = "namespace", id = "trace_namespace", value_name = "N")]
    namespace: Option<u32>,
}

impl Traced {
    /// All of it, in memory.
    pub(super) fn read(&self) -> Result<Trace, CliError> {
        self.how.read(&self.trace)
    }

    /// To be read as it comes.
    pub(super) fn open(&self) -> Result<Requests, CliError> {
        self.how.open(&self.trace)
    }
}

impl How {
    pub(super) fn read(&self, trace: &Path) -> Result<Trace, CliError> {
        Ok(read_trace(trace, &self.options())?)
    }

    pub(super) fn open(&self, trace: &Path) -> Result<Requests, CliError> {
        Ok(open_trace(trace, &self.options())?)
    }

    fn options(&self) -> TraceOptions {
        let session_every_ms = u64::from(self.session_every) * 1_000;
        TraceOptions {
            format: self.format,
            block_tokens: self.block_tokens,
            session_every_ms,
            tokenizer: self.tokenizer.clone(),
            namespace: self.namespace,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        traced: Traced,
    }

    #[test]
    fn the_flags_defaults_are_those_of_the_reader() {
        assert_eq!(Alone::parse_from(["x", "t"]).traced.how.options(), TraceOptions::default());
    }
}
