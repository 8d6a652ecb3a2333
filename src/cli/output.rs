//! Standard output: a report for people, or one JSON document for programs.

use std::fmt::Display;
use std::io::{self, Stdout, Write};

use serde::Serialize;

use super::CliError;

/// Where reports go. A reader that has left is no error: see [`CliError`].
pub(super) struct Output(Stdout);

impl Output {
    pub(super) fn stdout() -> Self {
        Self(io::stdout())
    }

    /// The one document of a command with `--json`.
    pub(super) fn json(&mut self, report: &impl Serialize) -> Result<(), CliError> {
        let mut text = serde_json::to_vec(report).map_err(|error| CliError::Stdout(error.into()))?;
        text.push(b'\n');
        self.bytes(&text)
    }

    /// A report for people.
    pub(super) fn text(&mut self, report: impl Display) -> Result<(), CliError> {
        self.bytes(format!("{report}\n").as_bytes())
    }

    /// Bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).map_err(CliError::Stdout)
    }
}
