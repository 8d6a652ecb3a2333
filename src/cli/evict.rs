//! `kvtier evict` and `kvtier purge`: taking blocks out.

use clap::Args;
use serde::Serialize;

use super::chain::{ChainArgs, hex};
use super::output::Output;
use super::server::Server;
use super::table::thousands;
use super::{CliError, size};
use crate::client::{PurgeFilter, Purged as Wire};
use crate::vocab::{ByteCount, Fingerprint, InstanceId, TenantName, UserName};

#[derive(Debug, Args)]
pub(super) struct Evict {
    #[command(flatten)]
    chain: ChainArgs,
    /// The first block to go; its descendants go with it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_block: u32,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Purge {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Filter {
    /// Blocks of this layout: a namespace's name or fingerprint. Of a name, the one registered last.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Blocks of this tenant.
    #[arg(long, value_name = "NAME", value_parser = TenantName::parse)]
    tenant: Option<TenantName>,
    /// Blocks of this user of that tenant.
    #[arg(long, value_name = "NAME", value_parser = UserName::parse, requires = "tenant")]
    user: Option<UserName>,
    /// Blocks written by this engine instance.
    #[arg(long, value_name = "INSTANCE", value_parser = InstanceId::parse)]
    writer: Option<InstanceId>,
    /// Blocks written at or after this time, in seconds since 1970.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    since: Option<u32>,
}

#[derive(Serialize)]
struct Evicted {
    blocks: u64,
    kept: u64,
}

#[derive(Serialize)]
struct Purged {
    blocks: u64,
    bytes: u64,
    purged_at_ms: u64,
    receipt: String,
    public_key: String,
}

impl Evict {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let went = self.server.ask(async |client| {
            let named = self.chain.name(&client).await?;
            Ok(client.evict(&named.chain, self.from_block).await?)
        })?;
        let report = Evicted { blocks: went.blocks, kept: went.kept };
        if self.json {
            return output.json(&report);
        }
        let kept = match report.kept {
            0 => String::new(),
            kept => format!("; {} stay, since they or what follows them are leased or being moved", thousands(kept)),
        };
        output.text(format!("{} evicted{kept}", blocks(report.blocks)))
    }
}

impl Purge {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let went = self.server.ask(async |client| {
            let filter = PurgeFilter {
                fingerprint: self.fingerprint(&client).await?,
                tenant: self.filter.tenant.clone(),
                user: self.filter.user.clone(),
                writer: self.filter.writer.clone(),
                since_s: self.filter.since,
            };
            Ok(client.purge(&filter).await?)
        })?;
        let Wire { blocks: count, bytes, purged_at_ms, receipt, public_key } = went;
        let report = Purged { blocks: count, bytes, purged_at_ms, receipt, public_key };
        if self.json {
            return output.json(&report);
        }
        let bytes = size::human(ByteCount(report.bytes));
        output.text(format!("{} erased from every tier, {bytes}", blocks(report.blocks)))?;
        if report.receipt.is_empty() {
            return output.text("no receipt: the daemon's ledger, which keeps its key, is unreadable");
        }
        let Purged { receipt, public_key, .. } = &report;
        output.text(format!("receipt: {receipt}\npublic key: {public_key}"))
    }

    async fn fingerprint(&self, client: &crate::client::Client) -> Result<Option<Fingerprint>, CliError> {
        let Some(name) = &self.filter.namespace else { return Ok(None) };
        let known = client.inspect_namespaces().await?;
        let found = known.iter().rev().find(|info| info.name == *name || hex(&info.fingerprint) == *name);
        let found = found.and_then(|info| <[u8; 32]>::try_from(&info.fingerprint[..]).ok());
        let hint = "see `kvtier inspect namespaces`";
        let unknown = || CliError::Unknown { what: "namespace", name: name.clone(), hint };
        found.map(|bytes| Some(Fingerprint(bytes))).ok_or_else(unknown)
    }
}

fn blocks(count: u64) -> String {
    format!("{} block{}", thousands(count), if count == 1 { "" } else { "s" })
}
