//! `kvtier inspect`: namespaces, a prefix, a block.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::output::Output;
use super::table::{numbers, thousands};
use super::{CliError, size};
use crate::offline::{self, NamespaceSummary};
use crate::vocab::ByteCount;
use crate::vocab::namespace::{HashScheme, Weights};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    #[command(subcommand)]
    command: InspectCommand,
}

#[derive(Debug, Subcommand)]
enum InspectCommand {
    /// The layouts that are known, and what each holds.
    Namespaces(Namespaces),
}

#[derive(Debug, Args)]
struct Namespaces {
    /// A data folder on which no daemon runs.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// One namespace, as programs see it.
#[derive(Debug, Serialize)]
pub(super) struct NamespaceView {
    name: String,
    fingerprint: String,
    weights_digest: Option<String>,
    dtype: String,
    layout: String,
    block_tokens: u32,
    stride: u32,
    engine_hash: Option<String>,
    max_payload_bytes: u32,
    blocks: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct NamespacesView {
    namespaces: Vec<NamespaceView>,
}

impl Inspect {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        match &self.command {
            InspectCommand::Namespaces(namespaces) => namespaces.run(output),
        }
    }
}

impl Namespaces {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let found = offline::namespaces(&self.data_dir)?;
        let namespaces = found.iter().map(view).collect();
        let view = NamespacesView { namespaces };
        if self.json { output.json(&view) } else { output.text(text(&view.namespaces)) }
    }
}

fn view(summary: &NamespaceSummary) -> NamespaceView {
    let spec = &summary.spec;
    NamespaceView {
        name: summary.name.to_string(),
        fingerprint: summary.fingerprint.to_string(),
        weights_digest: match &spec.weights {
            Weights::Digest(digest) => Some(hex(digest)),
            Weights::Unknown(_) => None,
        },
        dtype: spec.dtype.to_string(),
        layout: spec.layout.to_string(),
        block_tokens: spec.block_tokens,
        stride: spec.stride,
        engine_hash: match &spec.hash_scheme {
            HashScheme::Tokens => None,
            HashScheme::Engine(name) => Some(name.to_string()),
        },
        max_payload_bytes: spec.max_payload_bytes,
        blocks: summary.blocks,
        bytes: summary.bytes.0,
    }
}

fn text(namespaces: &[NamespaceView]) -> String {
    if namespaces.is_empty() {
        return "No namespace is known here.".to_owned();
    }
    let row = |view: &NamespaceView| {
        [
            view.name.clone(),
            view.fingerprint.get(..16).unwrap_or_default().to_owned(),
            view.dtype.clone(),
            thousands(u64::from(view.block_tokens)),
            size::human(ByteCount(u64::from(view.max_payload_bytes))),
            thousands(view.blocks),
            size::human(ByteCount(view.bytes)),
        ]
    };
    let header = ["namespace", "fingerprint", "dtype", "block tokens", "largest block", "blocks", "bytes"];
    numbers(header, namespaces.iter().map(row)).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
