//! `kvtier inspect`: namespaces, tenants, a prefix, a block.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::block;
use super::chain::{self, ChainArgs, hex};
use super::output::Output;
use super::server::Server;
use super::table::{numbers, thousands};
use super::{CliError, size};
use crate::client::{BlockInfo, NamespaceInfo};
use crate::offline::{self, NamespaceSummary};
use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{BlockKey, ByteCount};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    #[command(subcommand)]
    command: InspectCommand,
}

#[derive(Debug, Subcommand)]
enum InspectCommand {
    /// The layouts that are known, and what each holds.
    Namespaces(Namespaces),
    /// Tenants and public domains: what each holds and may hold.
    Tenants(super::quota::Show),
    /// Each block of a prompt: where it is and what is known of it.
    Prefix(Prefix),
    /// One block by its key.
    Block(Block),
}

#[derive(Debug, Args)]
struct Prefix {
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Block {
    /// 64 hexadecimal digits, as `inspect prefix` and `verify` show them.
    #[arg(value_parser = chain::block_key)]
    key: BlockKey,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Namespaces {
    /// Look into a data folder on which no daemon runs, instead of asking one.
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
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
            InspectCommand::Tenants(tenants) => tenants.run(output),
            InspectCommand::Prefix(prefix) => prefix.run(output),
            InspectCommand::Block(block) => block.run(output),
        }
    }
}

impl Prefix {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let found = self.server.ask(async |client| {
            let named = self.chain.name(&client).await?;
            Ok(client.inspect_prefix(&named.chain).await?)
        })?;
        let view = block::PrefixView { blocks: found.iter().map(block::of_wire).collect() };
        if self.json { output.json(&view) } else { output.text(block::table(&view.blocks)) }
    }
}

impl Block {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let found: Option<BlockInfo> = self.server.ask(async |client| Ok(client.inspect_block(&self.key).await?))?;
        let hint = "it is not cached";
        let unknown = || CliError::Unknown { what: "block", name: self.key.to_string(), hint };
        let view = block::of_wire(&found.ok_or_else(unknown)?);
        if self.json { output.json(&view) } else { output.text(block::text(&view)) }
    }
}

impl Namespaces {
    fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let namespaces = match &self.data_dir {
            Some(dir) => offline::namespaces(dir)?.iter().map(of_row).collect(),
            None => {
                let known = self.server.ask(async |client| Ok(client.inspect_namespaces().await?))?;
                known.iter().map(of_wire).collect()
            }
        };
        let view = NamespacesView { namespaces };
        if self.json { output.json(&view) } else { output.text(text(&view.namespaces)) }
    }
}

fn of_row(summary: &NamespaceSummary) -> NamespaceView {
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

fn of_wire(info: &NamespaceInfo) -> NamespaceView {
    let spec = info.spec.clone().unwrap_or_default();
    NamespaceView {
        name: info.name.clone(),
        fingerprint: hex(&info.fingerprint),
        weights_digest: (!spec.weights_digest.is_empty()).then(|| hex(&spec.weights_digest)),
        dtype: spec.dtype,
        layout: spec.layout,
        block_tokens: spec.block_tokens,
        stride: spec.stride,
        engine_hash: (!spec.engine_hash.is_empty()).then_some(spec.engine_hash),
        max_payload_bytes: spec.max_payload_bytes,
        blocks: info.blocks,
        bytes: info.bytes,
    }
}
