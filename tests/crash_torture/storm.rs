//! The storm: clients that put, fetch, settle, lease, evict and purge as fast as they are answered, until the daemon is
//! gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvtier::client::{
    Client, ClientError, FetchOptions, LeaseOptions, LookupOptions, PurgeFilter, ServerAddress, Session,
};
use kvtier::vocab::{InstanceId, LeaseId, RequestId, TenantName};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::bills::{Bill, settle};
use crate::prompts::{PROMPTS, Prompt, Prompts};

/// Whose blocks an admin may erase in the middle of everything.
const PURGED: &str = "purged";

/// What all clients of a round have seen.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) stored: u64,
    pub(crate) read: u64,
    pub(crate) evicted: u64,
    pub(crate) purged: u64,
    /// Settles that were acknowledged.
    pub(crate) settled: Vec<Bill>,
    /// Settles whose answer the kill has swallowed.
    pub(crate) in_doubt: Vec<kvtier::client::Settle>,
    /// Chains that the daemon said are on its drive, and may not let go.
    pub(crate) kept: Vec<Prompt>,
    /// What must not happen.
    pub(crate) troubles: Vec<String>,
}

/// One round's storm.
pub(crate) struct Storm {
    pub(crate) address: ServerAddress,
    pub(crate) prompts: Prompts,
    pub(crate) round: u64,
    /// From here on errors are the kill's.
    pub(crate) killed: AtomicBool,
    /// Puts that have sent bytes and heard no end.
    pub(crate) putting: AtomicU64,
    pub(crate) tally: Mutex<Tally>,
}

/// One client.
struct Gust {
    storm: Arc<Storm>,
    client: Client,
    session: Session,
    name: String,
    random: SmallRng,
    requests: u64,
}

impl Storm {
    pub(crate) fn note(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.tally.lock().unwrap());
    }

    pub(crate) fn trouble(&self, what: String) {
        self.note(|tally| tally.troubles.push(what));
    }

    /// Client number `number`, until the daemon is gone.
    pub(crate) async fn blow(self: Arc<Self>, number: u64, seed: u64) {
        let storm = Arc::clone(&self);
        let blown = async move {
            let name = format!("round-{}-client-{number}", storm.round);
            let client = Client::connect(&storm.address).await?;
            let session = client.open_session(&InstanceId::parse(&name).unwrap(), "storm").await?;
            let random = SmallRng::seed_from_u64(seed ^ storm.round << 32 ^ number);
            let mut gust = Gust { storm, client, session, name, random, requests: 0 };
            loop {
                gust.once().await?;
            }
        };
        let ended: Result<(), ClientError> = blown.await;
        if let Err(error) = ended
            && !self.killed.load(Ordering::SeqCst)
        {
            self.trouble(format!("client {number} was refused by a daemon that lives: {error}"));
        }
    }
}

impl Gust {
    async fn once(&mut self) -> Result<(), ClientError> {
        let prompt = self.storm.prompts.of_storm(self.random.random_range(0..PROMPTS));
        let tenant = if self.random.random_range(0..4) == 0 { PURGED } else { "acme" };
        let tenant = TenantName::parse(tenant).unwrap();
        self.requests += 1;
        match self.random.random_range(0..100) {
            0..50 => self.put(&prompt, &tenant).await,
            50..80 => self.fetch(&prompt, &tenant, None).await,
            80..90 => self.lease(&prompt, &tenant).await,
            90..99 => self.evict(&prompt, &tenant).await,
            _ => self.purge().await,
        }
    }

    fn request(&self) -> RequestId {
        RequestId::parse(&format!("r{}", self.requests)).unwrap()
    }

    async fn put(&mut self, prompt: &Prompt, tenant: &TenantName) -> Result<(), ClientError> {
        let storm = Arc::clone(&self.storm);
        let mut put = self.client.begin_put(&self.session, &self.request(), &prompt.chain(tenant)).await?;
        storm.putting.fetch_add(1, Ordering::SeqCst);
        for block in put.wanted().to_vec() {
            let goes_on = put.send(block, &prompt.payload(block as usize)).await?;
            if !(goes_on && put.flush().await?) {
                break;
            }
        }
        let result = put.finish().await?;
        storm.putting.fetch_sub(1, Ordering::SeqCst);
        storm.note(|tally| tally.stored += u64::from(result.accepted_blocks));
        Ok(())
    }

    /// Reads what is there of a prompt, judges every byte, and settles some of the time.
    async fn fetch(&mut self, prompt: &Prompt, tenant: &TenantName, lease: Option<LeaseId>) -> Result<(), ClientError> {
        let request = self.request();
        let do_not_promote = self.random.random_range(0..4) == 0;
        let verify_with = Some(Arc::clone(&prompt.keys));
        let options = FetchOptions { lease, do_not_promote, verify_with, ..FetchOptions::default() };
        let mut fetch = self.client.fetch(&self.session, &request, &prompt.chain(tenant), options).await?;
        while let Some(block) = fetch.next_block().await? {
            let (at, right) = (block.index as usize, prompt.is(block.index as usize, &block.bytes));
            self.storm.note(|tally| tally.read += u64::from(right));
            if !right {
                self.storm.trouble(format!("wrong bytes of block {at} {}", prompt.keys[at]));
            }
        }
        let end = fetch.end().await?;
        if end.corrupt > 0 {
            self.storm.trouble(format!("{} blocks of {:?} came with another checksum", end.corrupt, prompt.keys[0]));
        }
        if end.blocks > 0 && self.random.random() {
            self.settle(settle(prompt, tenant, &self.name, &request, &end)).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, settle: kvtier::client::Settle) -> Result<(), ClientError> {
        match self.client.settle(&settle).await {
            Ok(settled) if settled.repeated => {
                self.storm.trouble(format!("{:?} was settled before it was", settle.billing_id))
            }
            Ok(settled) => self.storm.note(|tally| tally.settled.push(Bill { settle, record: settled.record })),
            Err(error) => {
                self.storm.note(|tally| tally.in_doubt.push(settle));
                return Err(error);
            }
        }
        Ok(())
    }

    async fn lease(&mut self, prompt: &Prompt, tenant: &TenantName) -> Result<(), ClientError> {
        let request = self.request();
        let lease = LeaseOptions { session: &self.session, request_id: &request, ttl: Duration::from_secs(30) };
        let options = LookupOptions { lease: Some(lease), ..LookupOptions::default() };
        let Some(lease) = self.client.lookup(&prompt.chain(tenant), &options).await?.lease else { return Ok(()) };
        self.fetch(prompt, tenant, Some(lease.id)).await?;
        self.client.release(&self.session, lease.id).await?;
        Ok(())
    }

    async fn evict(&mut self, prompt: &Prompt, tenant: &TenantName) -> Result<(), ClientError> {
        let from = self.random.random_range(0..prompt.len() as u32);
        let evicted = self.client.evict(&prompt.chain(tenant), from).await?;
        self.storm.note(|tally| tally.evicted += evicted.blocks);
        Ok(())
    }

    async fn purge(&mut self) -> Result<(), ClientError> {
        let filter = PurgeFilter { tenant: TenantName::parse(PURGED).ok(), ..PurgeFilter::default() };
        let purged = self.client.purge(&filter).await?;
        self.storm.note(|tally| tally.purged += purged.blocks);
        Ok(())
    }
}
