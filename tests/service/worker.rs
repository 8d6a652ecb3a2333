//! A process of an engine, as the Rust client makes it.

use std::path::Path;

use kvtier::client::{Chain, Client, FetchOptions, ServerAddress, Session};
use kvtier::vocab::{Fingerprint, InstanceId, RequestId, TenantName};

use crate::support::{self, payload};

pub(crate) struct Worker {
    pub(crate) client: Client,
    pub(crate) session: Session,
    pub(crate) layout: bytes::Bytes,
}

impl Worker {
    pub(crate) async fn start(dir: &Path, instance: &str, layout: bytes::Bytes) -> Self {
        let address = format!("unix:{}", dir.join("kvtier.sock").display());
        let client = Client::connect(&ServerAddress::parse(&address).unwrap()).await.unwrap();
        let session = client.open_session(&InstanceId::parse(instance).unwrap(), "rank 0").await.unwrap();
        Self { client, session, layout }
    }

    pub(crate) fn chain(&self, seed: u32, blocks: u32) -> Chain {
        let Some(kvtier::proto::chain::Blocks::Tokens(tokens)) = support::chain(&self.layout, seed, blocks).blocks
        else {
            panic!("a chain of tokens")
        };
        let fingerprint = Fingerprint(self.layout[..].try_into().unwrap());
        Chain::of_tokens(fingerprint, &TenantName::parse("acme").unwrap(), tokens.tokens)
    }

    /// Fetches a prompt; how many of its blocks came, all of them right.
    pub(crate) async fn fetched(&self, seed: u32, blocks: u32) -> u32 {
        let chain = self.chain(seed, blocks);
        let mut fetch =
            self.client.fetch(&self.session, &request("fetch"), &chain, FetchOptions::default()).await.unwrap();
        while let Some(block) = fetch.next_block().await.unwrap() {
            assert!(block.bytes == payload(seed, block.index), "block {} of {seed}", block.index);
        }
        fetch.end().await.unwrap().blocks
    }
}

pub(crate) fn request(id: &str) -> RequestId {
    RequestId::parse(id).unwrap()
}
