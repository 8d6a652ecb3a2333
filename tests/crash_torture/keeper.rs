//! Blocks that may not be lost: put, said to be on the drive by the daemon itself, and leased until it dies, so that
//! nothing can evict them in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kvtier::client::{Client, ClientError, FetchOptions, LeaseOptions, LookupOptions, Session};
use kvtier::vocab::{InstanceId, RequestId, TenantName};

use crate::prompts::{Prompt, Prompts};
use crate::storm::Storm;

/// Chains kept before the storm, and their blocks.
const CALM: (u64, u64) = (2, 10);
/// Chains kept during the storm, and their blocks.
const STORMY: (u64, u64) = (4, 6);
const QUIESCE: Duration = Duration::from_secs(20);

fn tenant() -> TenantName {
    TenantName::parse("keeper").unwrap()
}

/// Holds leases for as long as it lives.
pub(crate) struct Keeper {
    client: Client,
    session: Session,
    round: u64,
}

impl Keeper {
    pub(crate) async fn new(client: &Client, round: u64) -> Self {
        let instance = InstanceId::parse(&format!("keeper-{round}")).unwrap();
        let session = client.open_session(&instance, "keeper").await.unwrap();
        Self { client: client.clone(), session, round }
    }

    /// Stores chains while nobody else does anything; `Quiesce` says that they are on the drive.
    pub(crate) async fn store_in_peace(&self, prompts: &Prompts) -> Vec<Prompt> {
        let mut kept = Vec::new();
        for number in 0..CALM.0 {
            let prompt = prompts.of_keeper(self.round, number, CALM.1);
            assert!(self.store(&prompt, number).await.unwrap(), "there is room when nobody else wants any");
            kept.push(prompt);
        }
        assert!(self.client.quiesce(QUIESCE).await.unwrap(), "background work ends");
        for prompt in &kept {
            assert!(self.is_on_drive(prompt).await.unwrap(), "nothing is left to be written: {prompt:?}");
        }
        kept
    }

    /// Stores chains in the middle of the storm, until the daemon is gone. Its word for each block that it is on the
    /// drive is the acknowledgement.
    pub(crate) async fn store_in_storm(self, storm: Arc<Storm>) {
        let work = async {
            for number in CALM.0..CALM.0 + STORMY.0 {
                let prompt = storm.prompts.of_keeper(self.round, number, STORMY.1);
                while !self.store(&prompt, number).await? {}
                while !self.is_on_drive(&prompt).await? {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                storm.note(|tally| tally.kept.push(prompt));
            }
            // The leases end with the session.
            let why = self.session.closed().await;
            Err::<(), _>(ClientError::Protocol { what: why })
        };
        if let Err(error) = work.await
            && !storm.killed.load(Ordering::SeqCst)
        {
            storm.trouble(format!("the keeper was refused by a daemon that lives: {error}"));
        }
    }

    /// Puts a chain and leases it; whether all of it was there long enough to be leased.
    async fn store(&self, prompt: &Prompt, number: u64) -> Result<bool, ClientError> {
        let request = RequestId::parse(&format!("keep-{number}")).unwrap();
        let chain = prompt.chain(&tenant());
        let source = |block: usize| prompt.payload(block);
        self.client.put(&self.session, &request, &chain, source).await?;
        let lease = LeaseOptions { session: &self.session, request_id: &request, ttl: Duration::from_secs(600) };
        let options = LookupOptions { lease: Some(lease), ..LookupOptions::default() };
        let found = self.client.lookup(&chain, &options).await?;
        Ok(found.lease.is_some_and(|lease| lease.blocks as usize == prompt.len()))
    }

    async fn is_on_drive(&self, prompt: &Prompt) -> Result<bool, ClientError> {
        is_on_drive(&self.client, prompt).await
    }
}

async fn is_on_drive(client: &Client, prompt: &Prompt) -> Result<bool, ClientError> {
    let blocks = client.inspect_prefix(&prompt.chain(&tenant())).await?;
    Ok(blocks.len() == prompt.len() && blocks.iter().all(|block| block.on_nvme && block.readable))
}

/// After the crash, before anything else is stored: every block that was kept is on the drive, and comes back right.
/// How many there are.
pub(crate) async fn all_there(client: &Client, kept: &[Prompt]) -> u64 {
    let instance = InstanceId::parse("heir").unwrap();
    let session = client.open_session(&instance, "heir").await.unwrap();
    let mut blocks = 0;
    for (at, prompt) in kept.iter().enumerate() {
        assert!(is_on_drive(client, prompt).await.unwrap(), "acknowledged and not there: {prompt:?}");
        let request = RequestId::parse(&format!("heir-{at}")).unwrap();
        let chain = prompt.chain(&tenant());
        let mut fetch = client.fetch(&session, &request, &chain, FetchOptions::default()).await.unwrap();
        while let Some(block) = fetch.next_block().await.unwrap() {
            assert!(
                prompt.is(block.index as usize, &block.bytes),
                "wrong bytes of block {} of {prompt:?}",
                block.index
            );
            blocks += 1;
        }
        assert_eq!(fetch.end().await.unwrap().blocks as usize, prompt.len(), "readable to the end: {prompt:?}");
    }
    blocks
}
