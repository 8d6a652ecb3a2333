//! What is in `fixtures/format-1`: made on a daemon of `SERVE` by [`store`] and [`settle`], which was then killed.
//! (`cargo nextest run --release --test format --run-ignored all make_a_fixture` makes another.)
//!
//! Prompts are tokens and an engine's keys, so that the key scheme is part of what is kept; payloads are BLAKE3's output
//! for a block's name, so that they follow from nothing in this program.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kvtier::client::{Chain, Client, FetchOptions, FetchOutcome, LookupOptions, Session, Settle, UsageFilter};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{
    AccountName, BillingId, DomainName, Fingerprint, InstanceId, NamespaceName, NamespaceSpec, RequestId, Scope,
    ScopePath, TenantName, UserName,
};

/// The daemon's tiers: sixteen extents of 8 KiB.
pub(crate) const SERVE: [&str; 4] = ["--ram", "1MiB", "--nvme", "128KiB"];
/// Blocks on the drive.
pub(crate) const BLOCKS: u64 = 14;
const BLOCK_TOKENS: u32 = 16;
/// The receipt of the prompt `first`, from the day when the fixture was made.
const RECEIPT: &[u8] = include_bytes!("../fixtures/format-1.receipt");

/// A prompt: its blocks are those of `head`, then its own.
struct Prompt {
    name: &'static str,
    head: Option<(&'static str, u32)>,
    blocks: u32,
    large: bool,
    user: bool,
}

const FIRST: Prompt = Prompt { name: "first", head: None, blocks: 5, large: false, user: false };
/// All of them; 5, 3, 3 and 3 blocks of their own.
const PROMPTS: [Prompt; 4] = [
    FIRST,
    Prompt { name: "fork", head: Some(("first", 2)), blocks: 5, large: false, user: false },
    Prompt { name: "mine", head: None, blocks: 3, large: false, user: true },
    Prompt { name: "wide", head: None, blocks: 3, large: true, user: false },
];
/// Stored and evicted again: bytes without a row.
const EVICTED: Prompt = Prompt { name: "gone", head: None, blocks: 2, large: false, user: false };

impl Prompt {
    /// Whose block number `block` is.
    fn owner(&self, block: u32) -> &'static str {
        self.head.filter(|(_, blocks)| block < *blocks).map_or(self.name, |(head, _)| head)
    }

    fn chain(&self, fingerprints: [Fingerprint; 2]) -> Chain {
        let tenant = tenant();
        if self.large {
            let keys: String = (0..self.blocks).map(|block| format!("{}-{block:07}", self.name)).collect();
            return Chain::of_engine_keys(fingerprints[1], &tenant, 12, Bytes::from(keys));
        }
        let name = |block| u32::from_be_bytes([0, 0, self.owner(block).as_bytes()[0], self.owner(block).as_bytes()[1]]);
        let token = |block: u32, at: u32| name(block) << 16 | block << 8 | at;
        let tokens = (0..self.blocks).flat_map(|block| (0..BLOCK_TOKENS).map(move |at| token(block, at)));
        let chain = Chain::of_tokens(fingerprints[0], &tenant, tokens.collect());
        if !self.user {
            return chain;
        }
        let user = Scope::User(tenant.clone(), UserName::parse("ann").unwrap(), b"salt"[..].into());
        chain.scopes(&ScopePath::new(vec![(0, Scope::Public), (1, Scope::Tenant(tenant)), (2, user)]).unwrap())
    }

    /// A little shorter with each block.
    fn payload(&self, block: u32) -> Bytes {
        let max = payload_max(self.large) as usize;
        let mut bytes = vec![0; max - 100 * block as usize];
        let name = format!("kvtier fixture 1 {} {block}", self.owner(block));
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes.into()
    }
}

fn tenant() -> TenantName {
    TenantName::parse("acme").unwrap()
}

fn payload_max(large: bool) -> u32 {
    if large { 8192 } else { 4096 }
}

async fn register(client: &Client) -> [Fingerprint; 2] {
    let mut fingerprints = [Fingerprint([0; 32]); 2];
    for (fingerprint, large) in fingerprints.iter_mut().zip([false, true]) {
        let engine = HashScheme::Engine("fixture:words".into());
        let spec = NamespaceSpec {
            weights: Weights::Digest(Box::new([1; 32])),
            dtype: "bf16".into(),
            layout: "fixture".into(),
            block_tokens: BLOCK_TOKENS,
            stride: 1,
            shards: 1,
            groups: 1,
            hash_scheme: if large { engine } else { HashScheme::Tokens },
            max_payload_bytes: payload_max(large),
            prefill_tokens_per_second: 10_000,
        };
        let name = NamespaceName::parse(if large { "wide" } else { "narrow" }).unwrap();
        *fingerprint = client.register_namespace(None, &name, &spec, None).await.unwrap().0;
    }
    fingerprints
}

async fn session(client: &Client) -> Session {
    client.open_session(&InstanceId::parse("engine").unwrap(), "fixture").await.unwrap()
}

fn request(name: &str) -> RequestId {
    RequestId::parse(name).unwrap()
}

/// Stores every prompt, and one that is evicted again.
pub(crate) async fn store(client: &Client) {
    let fingerprints = register(client).await;
    let session = session(client).await;
    let domain = AccountName::Domain(DomainName::parse("public").unwrap());
    client.set_quota(&domain, None, None).await.unwrap();
    for prompt in PROMPTS.iter().chain([&EVICTED]) {
        let source = |block: usize| prompt.payload(block as u32);
        let chain = prompt.chain(fingerprints);
        let stored = client.put(&session, &request(prompt.name), &chain, source).await.unwrap();
        assert_eq!(stored.stored_through, prompt.blocks, "{}: {stored:?}", prompt.name);
        assert!(client.quiesce(Duration::from_secs(20)).await.unwrap());
    }
    client.evict(&EVICTED.chain(fingerprints), 0).await.unwrap();
    assert!(client.quiesce(Duration::from_secs(20)).await.unwrap());
}

/// Every block is on the drive and comes back as it was stored.
pub(crate) async fn check_blocks(client: &Client) {
    let fingerprints = register(client).await;
    let session = session(client).await;
    for prompt in &PROMPTS {
        let chain = prompt.chain(fingerprints);
        let places = client.inspect_prefix(&chain).await.unwrap();
        assert!(places.iter().all(|block| block.on_nvme && block.readable), "{}: {places:?}", prompt.name);
        let options = FetchOptions { do_not_promote: true, ..FetchOptions::default() };
        let mut fetch = client.fetch(&session, &request(prompt.name), &chain, options).await.unwrap();
        while let Some(block) = fetch.next_block().await.unwrap() {
            assert!(block.bytes == prompt.payload(block.index), "wrong bytes of {} {}", prompt.name, block.index);
        }
        let end = fetch.end().await.unwrap();
        assert_eq!((end.outcome, end.blocks), (FetchOutcome::Complete, prompt.blocks), "{}", prompt.name);
    }
    let gone = client.lookup(&EVICTED.chain(fingerprints), &LookupOptions::default()).await.unwrap();
    assert_eq!(gone.counts.hit(), 0, "evicted on the day it was made");
}

/// Nothing of it is found.
pub(crate) async fn check_all_missed(client: &Client) {
    let fingerprints = register(client).await;
    for prompt in &PROMPTS {
        let found = client.lookup(&prompt.chain(fingerprints), &LookupOptions::default()).await.unwrap();
        assert_eq!(found.counts.hit(), 0, "{}", prompt.name);
    }
}

fn bill(name: &str, fingerprint: Fingerprint, cached_tokens: u64, receipts: Vec<Bytes>) -> Settle {
    Settle {
        tenant: tenant(),
        billing_id: BillingId::parse(name).unwrap(),
        attempt: 0,
        instance: InstanceId::parse("engine").unwrap(),
        request_id: request("paid"),
        fingerprint,
        prompt_tokens: 100,
        cached_tokens,
        attested_tokens: 3,
        written_tokens: 5,
        output_tokens: 9,
        receipts,
        labels: BTreeMap::from([("class".to_owned(), "batch".to_owned())]),
        detail: kvtier::vocab::UsageDetail::default(),
    }
}

/// Settles a fetch of the prompt `first`; its receipt.
pub(crate) async fn settle(client: &Client) -> Bytes {
    let fingerprints = register(client).await;
    let session = session(client).await;
    let chain = FIRST.chain(fingerprints);
    let fetch = client.fetch(&session, &request("paid"), &chain, FetchOptions::default()).await.unwrap();
    let receipt = fetch.end().await.unwrap().receipt;
    let settled = client.settle(&bill("b-1", fingerprints[0], 80, vec![receipt.clone()])).await.unwrap();
    assert!(!settled.repeated);
    receipt
}

/// What was settled is there, once, also for who repeats it with the receipt of that day. A new claim does not rest on such a
/// receipt: the ledger of that day does not say that `b-1` has billed it.
pub(crate) async fn check_bills(client: &Client) {
    let fingerprints = register(client).await;
    let receipts = vec![Bytes::from_static(RECEIPT)];
    let settled = client.settle(&bill("b-1", fingerprints[0], 80, receipts.clone())).await.unwrap();
    let record = settled.record;
    assert!(settled.repeated, "settled on the day it was made");
    assert_eq!((record.sequence, record.hit_tokens, record.attested_tokens, record.miss_tokens), (1, 80, 3, 17));
    assert_eq!((record.namespace.as_str(), record.written_tokens, record.output_tokens), ("narrow", 5, 9));
    assert_eq!(record.labels["class"], "batch");
    for name in ["b-3", "b-4"] {
        let refused = client.settle(&bill(name, fingerprints[0], 79, receipts.clone())).await.unwrap_err().to_string();
        assert!(refused.contains("receipts[0]: the delivery receipt has version 1"), "{refused}");
    }
    let later = client.settle(&bill("b-2", fingerprints[0], 0, Vec::new())).await.unwrap();
    assert_eq!((later.record.sequence, later.record.hit_tokens, later.record.request_id.as_str()), (2, 0, "paid"));
    let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap();
    assert_eq!((total.records, total.prompt_tokens, total.hit_tokens), (2, 200, 80));
}

/// The ledger does not depend on the index: what was settled is there when all blocks are forgotten.
pub(crate) async fn check_bills_alone(client: &Client) {
    let total = client.summarize_usage(&UsageFilter::default()).await.unwrap().total.unwrap();
    assert_eq!((total.records, total.prompt_tokens, total.hit_tokens), (1, 100, 80));
}
