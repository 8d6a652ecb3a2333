//! `kvtier put`: bytes as the payload of a chain, cut evenly among its blocks.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;

use super::chain::{ChainArgs, Named, hex, read_file};
use super::output::Output;
use super::server::Server;
use super::table::{numbers, thousands};
use super::{CliError, names, size};
use crate::client::{Client, NamespaceInfo};
use crate::vocab::limits::PAYLOAD_BYTES_MAX;
use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{ByteCount, Furthest, InstanceId, NamespaceName, NamespaceSpec, RequestId, Retention};

/// The namespace of blocks that people make: its weights are its name, so that no engine ever finds them.
pub(super) const BY_HAND: &str = "by-hand";

#[derive(Debug, Args)]
pub(super) struct Put {
    #[command(flatten)]
    chain: ChainArgs,
    /// The payload, cut evenly among the chain's blocks; `-` for standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    payload: PathBuf,
    /// How long the blocks are kept: best-effort, ttl:TIME or guaranteed:TIME, such as guaranteed:1h:refreshed.
    #[arg(long, value_name = "CLASS", default_value = "best-effort", value_parser = Retention::parse)]
    retention: Retention,
    /// The furthest tier that they may go to.
    #[arg(long, value_name = "TIER", default_value = "nvme", value_parser = names::furthest)]
    furthest_tier: Furthest,
    /// Tokens of a block, where the namespace is made by this put.
    #[arg(long, value_name = "N", default_value_t = 16)]
    block_tokens: u32,
    /// The largest block, where the namespace is made by this put.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size::parser("--max-block-bytes"))]
    max_block_bytes: ByteCount,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    fingerprint: String,
    blocks: usize,
    wanted_blocks: u32,
    accepted_blocks: u32,
    dropped_blocks: u32,
    stored_through: u32,
    drop_reason: String,
    sent_bytes: u64,
    retained_until_s: u64,
    retention_refused: String,
}

impl Put {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let payload = Bytes::from(read_file(&self.payload)?);
        let report = self.server.ask(async |client| self.put(&client, payload).await)?;
        if self.json {
            output.json(&report)?
        } else {
            output.text(text(&report))?
        }
        if !report.retention_refused.is_empty() {
            return Err(CliError::Bad(format!("the lifetime is not guaranteed: {}", report.retention_refused)));
        }
        if report.stored_through as usize >= report.blocks || self.furthest_tier == Furthest::Nothing {
            return Ok(());
        }
        let Report { stored_through, blocks, drop_reason, .. } = &report;
        Err(CliError::Bad(format!("{stored_through} of {blocks} blocks are stored: {drop_reason}")))
    }

    async fn put(&self, client: &Client, payload: Bytes) -> Result<Report, CliError> {
        let namespace = match self.chain.find(client).await? {
            Some(namespace) => namespace,
            None => self.register(client).await?,
        };
        let named = self.chain.named(&namespace)?.some_block()?;
        let parts = parts(&payload, &named)?;
        let chain = named.chain.clone().storing(self.furthest_tier, self.retention);
        let session = client.open_session(&instance()?, "kvtier put").await?;
        let stored =
            client.put(&session, &request()?, &chain, |block| parts.get(block).cloned().unwrap_or_default()).await?;
        Ok(Report {
            fingerprint: hex(&named.fingerprint.0),
            blocks: named.blocks,
            wanted_blocks: stored.wanted_blocks,
            accepted_blocks: stored.accepted_blocks,
            dropped_blocks: stored.dropped_blocks,
            stored_through: stored.stored_through,
            drop_reason: stored.drop_reason,
            sent_bytes: stored.sent_bytes,
            retained_until_s: stored.retained_until_s,
            retention_refused: stored.retention_refused,
        })
    }

    async fn register(&self, client: &Client) -> Result<NamespaceInfo, CliError> {
        let name = NamespaceName::parse(&self.chain.namespace)?;
        let bytes = self.max_block_bytes.0;
        let max_payload_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if max_payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(CliError::usage("--max-block-bytes", &size::human(self.max_block_bytes), "at most 64MiB"));
        }
        let spec = NamespaceSpec {
            weights: Weights::Digest(
                blake3::derive_key("kvtier 2026 blocks made by hand", name.as_str().as_bytes()).into(),
            ),
            dtype: "bytes".into(),
            layout: "by-hand".into(),
            block_tokens: self.block_tokens,
            stride: 1,
            shards: 1,
            groups: 1,
            hash_scheme: HashScheme::Tokens,
            max_payload_bytes,
            prefill_tokens_per_second: 0,
        };
        client.register_namespace(None, &name, &spec, None).await?;
        let unknown =
            || CliError::Unknown { what: "namespace", name: name.to_string(), hint: "though just registered" };
        self.chain.find(client).await?.ok_or_else(unknown)
    }
}

/// Who a command is to the daemon: gone when it ends.
pub(super) fn instance() -> Result<InstanceId, CliError> {
    Ok(InstanceId::parse(&format!("cli-{:016x}", rand::random::<u64>()))?)
}

/// The one request of a command.
pub(super) fn request() -> Result<RequestId, CliError> {
    Ok(RequestId::parse("by-hand")?)
}

/// The payload of each block: as even as can be, none empty.
fn parts(payload: &Bytes, named: &Named) -> Result<Vec<Bytes>, CliError> {
    let (length, blocks) = (payload.len(), named.blocks);
    if length < blocks {
        let rule = format!("at least one byte for each of {blocks} blocks");
        return Err(CliError::usage("--payload", &ByteCount(length as u64), rule));
    }
    if length.div_ceil(blocks) > named.payload_max as usize {
        let rule = format!("at most {} bytes for each of {blocks} blocks, as the namespace says", named.payload_max);
        return Err(CliError::usage("--payload", &ByteCount(length as u64), rule));
    }
    let (each, longer) = (length / blocks, length % blocks);
    let start = |block: usize| block * each + block.min(longer);
    Ok((0..blocks).map(|block| payload.slice(start(block)..start(block + 1))).collect())
}

fn text(report: &Report) -> String {
    let row = |name: &str, number: u64| [name.to_owned(), thousands(number)];
    let rows = [
        row("blocks of the chain", report.blocks as u64),
        row("readable now, from its start", report.stored_through.into()),
        row("taken from this put", report.accepted_blocks.into()),
        row("dropped", report.dropped_blocks.into()),
        ["sent".to_owned(), size::human(ByteCount(report.sent_bytes))],
    ];
    let until = i64::try_from(report.retained_until_s).ok().filter(|until| *until > 0);
    let until = until.and_then(|until| jiff::Timestamp::from_second(until).ok());
    let kept = until.map(|until| ["guaranteed until".to_owned(), until.to_string()]);
    numbers(["put", ""], rows.into_iter().chain(kept)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Chain;
    use crate::vocab::{Fingerprint, TenantName};

    fn named(blocks: usize) -> Named {
        let fingerprint = Fingerprint([0; 32]);
        let chain = Chain::of_tokens(fingerprint, &TenantName::parse("t").unwrap(), vec![]);
        Named { chain, fingerprint, blocks, step: 16, block_tokens: 16, payload_max: 10 }
    }

    #[test]
    fn a_payload_is_cut_evenly_and_no_part_is_empty() {
        let payload = Bytes::from_static(b"0123456789abc");
        for blocks in 2..=13 {
            let parts = parts(&payload, &named(blocks)).unwrap();
            assert_eq!((parts.len(), parts.concat()), (blocks, payload.to_vec()));
            let (least, most) = (parts.iter().map(Bytes::len).min(), parts.iter().map(Bytes::len).max());
            assert!(least >= Some(1) && most <= least.map(|least| least + 1), "{blocks}");
        }
        assert!(parts(&payload, &named(14)).is_err());
        assert!(parts(&payload, &named(1)).is_err());
    }
}
