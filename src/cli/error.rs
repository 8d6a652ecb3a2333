//! Why a command ended without doing its job, as one sentence for a person and one number for a script.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::size::SizeError;
use crate::bench::BenchError;
use crate::client::{AddressError, ClientError};
use crate::daemon::{FAILED, StartError};
use crate::offline::OfflineError;
use crate::replay::TraceError;
use crate::replay::live::LiveError;
use crate::vocab::WordError;
use crate::watch::Failure;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was asked can't be done with any store, server or file.
    #[error("{field} is {value}, it must be {rule}")]
    Usage {
        /// Which flag.
        field: &'static str,
        /// What it held.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// A trace can't be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A stopped folder can't be looked at.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The daemon could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody answers where a daemon should be.
    #[error("no daemon answers at {0}. Start one with `kvtier serve`, or name another with --server")]
    NoDaemon(ClientError),
    /// A live replay ended early.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// A daemon can't start here.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A part of a daemon inside of this program has ended on its own.
    #[error("the server inside of this program failed: {0}")]
    Failed(Failure),
    /// Nothing can be measured here.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A server's address in the environment that can't be used.
    #[error(transparent)]
    Address(AddressError),
    /// A word that can't be used.
    #[error(transparent)]
    Word(#[from] WordError),
    /// A size in a configuration file that can't be used.
    #[error(transparent)]
    Size(SizeError),
    /// A configuration file that can't be used.
    #[error("{path}: {why}")]
    Config {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The daemon knows nothing of that name.
    #[error("{what} {name:?} is not known to the daemon: {hint}")]
    Unknown {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An exported record can't be used.
    #[error("{path}:{line}: {why}")]
    Record {
        /// Which file.
        path: PathBuf,
        /// Which line of it, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Standard output can't be written.
    #[error("standard output: {0}")]
    Stdout(io::Error),
    /// The command did its job, and what it found is bad. The report has been printed.
    #[error("{0}")]
    Bad(String),
}

impl CliError {
    pub(super) fn usage(field: &'static str, value: &dyn Display, rule: impl Into<String>) -> Self {
        Self::Usage { field, value: value.to_string(), rule: rule.into() }
    }

    /// Says it on stderr.
    pub(super) fn exit(&self) -> ExitCode {
        let is_reader_gone = matches!(self, Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe);
        if is_reader_gone {
            return ExitCode::SUCCESS;
        }
        // Where stderr is gone too, nobody is left to be told.
        drop(writeln!(io::stderr(), "error: {self}"));
        ExitCode::from(match self {
            Self::Failed(_) => FAILED,
            error if error.is_usage() => 2,
            _ => 1,
        })
    }

    /// Whether it was asked for in a way that can't work anywhere.
    fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Usage { .. }
                | Self::Address(_)
                | Self::Word(_)
                | Self::Size(_)
                | Self::Config { .. }
                | Self::Bench(BenchError::TooSmall { .. } | BenchError::Unknown { .. })
                | Self::Start(StartError::Config(_))
        )
    }
}
