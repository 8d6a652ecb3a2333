//! `kvtier get`: the bytes of a chain's cached prefix.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::chain::ChainArgs;
use super::output::Output;
use super::put::{instance, request};
use super::server::Server;
use super::{CliError, size};
use crate::client::{Client, FetchOptions, LeaseOptions, LookupOptions};
use crate::vocab::ByteCount;

/// Long enough for any fetch, and gone with the session in any case.
const LEASE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    chain: ChainArgs,
    /// The file to write; standard output where absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document; the bytes go to --output.
    #[arg(long, requires = "output")]
    json: bool,
}

#[derive(Default, Serialize)]
struct Report {
    blocks_asked: usize,
    blocks: u32,
    blocks_ram: u32,
    blocks_nvme: u32,
    tokens: u64,
    bytes: u64,
}

impl Get {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let report = self.server.ask(async |client| match &self.output {
            Some(path) => {
                let failed = |source| CliError::File { path: path.clone(), source };
                let mut file = std::fs::File::create(path).map_err(failed)?;
                self.fetch(&client, |bytes| file.write_all(bytes).map_err(failed)).await
            }
            None => self.fetch(&client, |bytes| output.bytes(bytes)).await,
        })?;
        match &self.output {
            Some(_) if self.json => output.json(&report)?,
            Some(path) => output.text(text(&report, path))?,
            None => {}
        }
        if report.blocks as usize >= report.blocks_asked {
            return Ok(());
        }
        Err(CliError::Bad(format!("{} of {} blocks are cached", report.blocks, report.blocks_asked)))
    }

    async fn fetch(
        &self,
        client: &Client,
        mut sink: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<Report, CliError> {
        let named = self.chain.name(client).await?.some_block()?;
        let (session, request_id) = (client.open_session(&instance()?, "kvtier get").await?, request()?);
        let lease = Some(LeaseOptions { session: &session, request_id: &request_id, ttl: LEASE });
        let found = client.lookup(&named.chain, &LookupOptions { lease, ..LookupOptions::default() }).await?;
        let mut report = Report { blocks_asked: named.blocks, ..Report::default() };
        if found.counts.hit() == 0 {
            return Ok(report);
        }
        let head = named.chain.head(found.counts.hit() as usize * named.step);
        let options = FetchOptions { lease: found.lease.map(|lease| lease.id), ..FetchOptions::default() };
        let mut fetch = client.fetch(&session, &request_id, &head, options).await?;
        while let Some(block) = fetch.next_block().await? {
            report.bytes += block.bytes.len() as u64;
            sink(&block.bytes)?;
        }
        let end = fetch.end().await?;
        (report.blocks, report.tokens) = (end.blocks, u64::from(end.blocks) * u64::from(named.block_tokens));
        (report.blocks_ram, report.blocks_nvme) = (end.blocks_ram, end.blocks_nvme);
        Ok(report)
    }
}

fn text(report: &Report, path: &Path) -> String {
    let Report { blocks, blocks_ram, blocks_nvme, bytes, .. } = report;
    let bytes = size::human(ByteCount(*bytes));
    format!("{bytes} of {blocks} blocks in {} ({blocks_ram} from ram, {blocks_nvme} from nvme)", path.display())
}
