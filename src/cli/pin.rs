//! `kvtier pin` and `kvtier unpin`: prefixes that stay.

use clap::Args;
use serde::Serialize;

use super::CliError;
use super::chain::ChainArgs;
use super::output::Output;
use super::server::Server;
use super::table::thousands;

#[derive(Debug, Args)]
pub(super) struct Pin {
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    server: Server,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unpin {
    #[command(flatten)]
    pin: Pin,
}

#[derive(Serialize)]
struct Pinned {
    blocks: u32,
}

#[derive(Serialize)]
struct Unpinned {
    unpinned: bool,
}

impl Pin {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let blocks = self.server.ask(async |client| {
            let named = self.chain.name(&client).await?.some_block()?;
            Ok(client.pin(&named.chain).await?)
        })?;
        if self.json {
            return output.json(&Pinned { blocks });
        }
        output.text(format!("{} blocks stay until they are unpinned or purged", thousands(blocks.into())))
    }
}

impl Unpin {
    pub(super) fn run(&self, output: &mut Output) -> Result<(), CliError> {
        let Pin { chain, server, json } = &self.pin;
        let unpinned = server.ask(async |client| {
            let named = chain.name(&client).await?.some_block()?;
            Ok(client.unpin(&named.chain).await?)
        })?;
        if *json {
            return output.json(&Unpinned { unpinned });
        }
        output.text(if unpinned { "unpinned" } else { "it was not pinned" })
    }
}
