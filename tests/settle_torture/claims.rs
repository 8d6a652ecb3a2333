//! Clients that all settle the same deliveries under ids of their own, with parts of them and all of them, and take some back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kvtier::client::{Chain, Client, ClientError, Correction, FetchOptions, ServerAddress, Session, Settle};
use kvtier::vocab::{BillingId, Fingerprint, InstanceId, RequestId, TenantName, UsageDetail};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tonic::Code;

/// Blocks of the prompt, of which each request is delivered some.
const BLOCKS: u32 = 5;
/// Ids that claim each delivery.
const IDS: usize = 6;

/// What was delivered to one request.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) instance: InstanceId,
    pub(crate) request: RequestId,
    pub(crate) tokens: u64,
    receipt: Bytes,
}

/// What all claimers know together.
#[derive(Default)]
pub(crate) struct Claims {
    /// Settles asked for.
    pub(crate) calls: AtomicU64,
    pub(crate) deliveries: Mutex<Vec<Delivery>>,
    /// Hits that were acknowledged, by billing id.
    pub(crate) settled: Mutex<BTreeMap<String, i64>>,
    /// Corrections asked for, and what each leaves nothing of.
    corrected: AtomicU64,
    repeated: AtomicU64,
    consumed: AtomicU64,
    unproven: AtomicU64,
    unanswered: AtomicU64,
}

pub(crate) struct Claimer {
    random: SmallRng,
    claims: Arc<Claims>,
    client: Client,
    session: Session,
    chain: Chain,
    fingerprint: Fingerprint,
    /// Deliveries that this one makes.
    to_deliver: u64,
}

fn tenant() -> TenantName {
    TenantName::parse("acme").unwrap()
}

fn chain(fingerprint: Fingerprint) -> Chain {
    let keys: String = (0..BLOCKS).map(|block| format!("block-{block:06}")).collect();
    Chain::of_engine_keys(fingerprint, &tenant(), 12, Bytes::from(keys))
}

/// Stores the prompt, which a killed daemon without a drive has forgotten.
pub(crate) async fn store(client: &Client, fingerprint: Fingerprint) {
    let session = client.open_session(&InstanceId::parse("writer").unwrap(), "test").await.unwrap();
    let source = |block: usize| Bytes::from(vec![u8::try_from(block).unwrap(); 4096]);
    let request = RequestId::parse("stores").unwrap();
    let stored = client.put(&session, &request, &chain(fingerprint), source).await.unwrap();
    assert_eq!(stored.stored_through, BLOCKS);
}

impl Claimer {
    /// None where the daemon is gone.
    pub(crate) async fn connect(
        name: &str,
        address: &ServerAddress,
        fingerprint: Fingerprint,
        to_deliver: u64,
        claims: &Arc<Claims>,
    ) -> Option<Self> {
        let client = Client::connect(address).await.ok()?;
        let session = client.open_session(&InstanceId::parse(name).unwrap(), "test").await.ok()?;
        let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        let (random, claims) = (SmallRng::seed_from_u64(seed), Arc::clone(claims));
        Some(Self { random, claims, client, session, chain: chain(fingerprint), fingerprint, to_deliver })
    }

    /// Until so many settles are asked for by all, or the daemon is gone.
    pub(crate) async fn run(mut self, until: u64) {
        while self.claims.calls.load(Relaxed) < until || self.to_deliver > 0 {
            if self.step().await.is_err() {
                self.claims.unanswered.fetch_add(1, Relaxed);
                return;
            }
        }
    }

    async fn step(&mut self) -> Result<(), ClientError> {
        // A third of the calls, until all is delivered: others claim what is young and what is old.
        if self.to_deliver > 0 && self.random.random_ratio(1, 3) {
            return self.deliver().await;
        }
        let known = self.claims.deliveries.lock().unwrap().len();
        if known == 0 {
            return self.deliver().await;
        }
        let number = self.random.random_range(0..known);
        let id = self.random.random_range(0..IDS);
        if self.random.random_ratio(1, 25) {
            return self.refund(number, id).await;
        }
        let (with_receipt, delivery) =
            (self.random.random_ratio(2, 3), self.claims.deliveries.lock().unwrap()[number].clone());
        let request = request(self.fingerprint, number, id, &delivery, with_receipt);
        self.claims.calls.fetch_add(1, Relaxed);
        let claims = &self.claims;
        match self.client.settle(&request).await {
            Ok(settled) => {
                assert_eq!(settled.record.hit_tokens, request.cached_tokens.cast_signed(), "its own claim");
                let name = request.billing_id.to_string();
                let before = claims.settled.lock().unwrap().insert(name, settled.record.hit_tokens);
                assert!(before.is_none_or(|hits| hits == settled.record.hit_tokens));
                claims.repeated.fetch_add(u64::from(settled.repeated), Relaxed);
            }
            Err(error) => match error.code() {
                Some(Code::AlreadyExists) => drop(claims.consumed.fetch_add(1, Relaxed)),
                Some(Code::FailedPrecondition) if !with_receipt => drop(claims.unproven.fetch_add(1, Relaxed)),
                Some(Code::ResourceExhausted) => {}
                Some(Code::FailedPrecondition) => panic!("{number} has a receipt: {error}"),
                _ => return Err(error),
            },
        }
        Ok(())
    }

    async fn deliver(&mut self) -> Result<(), ClientError> {
        let blocks = self.random.random_range(1..=BLOCKS);
        let instance = self.session.instance().clone();
        let request = RequestId::parse(&format!("r{}", self.to_deliver)).unwrap();
        let head = self.chain.head(blocks as usize);
        let fetch = self.client.fetch(&self.session, &request, &head, FetchOptions::default()).await?;
        let end = fetch.end().await?;
        assert_eq!(end.blocks, blocks);
        let delivery = Delivery { instance, request, tokens: end.tokens, receipt: end.receipt };
        self.claims.deliveries.lock().unwrap().push(delivery);
        self.to_deliver = self.to_deliver.saturating_sub(1);
        Ok(())
    }

    async fn refund(&mut self, number: usize, id: usize) -> Result<(), ClientError> {
        let corrects = billing_id(number, id);
        if !self.claims.settled.lock().unwrap().contains_key(&corrects) {
            return Ok(());
        }
        let correction = Correction {
            tenant: "acme".into(),
            billing_id: format!("{corrects}-refunded"),
            corrects,
            reason: "a test".into(),
            refund: true,
            ..Correction::default()
        };
        match self.client.correct_usage(correction).await {
            Ok(_) => drop(self.claims.corrected.fetch_add(1, Relaxed)),
            Err(error) if error.code() == Some(Code::ResourceExhausted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn billing_id(number: usize, id: usize) -> String {
    format!("{number}-{id}")
}

/// Always the same for the same delivery and id, but for the receipt.
fn request(fingerprint: Fingerprint, number: usize, id: usize, delivery: &Delivery, with_receipt: bool) -> Settle {
    let all = delivery.tokens;
    let cached_tokens = [all, all, 1 + all / 2, 0, 1, all][id];
    Settle {
        tenant: tenant(),
        billing_id: BillingId::parse(&billing_id(number, id)).unwrap(),
        attempt: 1,
        instance: delivery.instance.clone(),
        request_id: delivery.request.clone(),
        fingerprint,
        prompt_tokens: 100,
        cached_tokens,
        attested_tokens: 0,
        written_tokens: 0,
        output_tokens: 1,
        receipts: with_receipt.then(|| delivery.receipt.clone()).into_iter().collect(),
        labels: BTreeMap::new(),
        detail: UsageDetail::default(),
    }
}

impl Claims {
    pub(crate) fn check_it_was_a_torture(&self) {
        for (what, count) in [
            ("repeats", &self.repeated),
            ("claims to what another has", &self.consumed),
            ("refunds", &self.corrected),
            ("claims that nothing proved", &self.unproven),
            ("calls that a kill left without an answer", &self.unanswered),
        ] {
            assert!(count.load(Relaxed) > 0, "no {what}: {self}");
        }
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [calls, repeated, consumed, unproven, corrected, unanswered] =
            [&self.calls, &self.repeated, &self.consumed, &self.unproven, &self.corrected, &self.unanswered]
                .map(|count| count.load(Relaxed));
        let (deliveries, settled) = (self.deliveries.lock().unwrap().len(), self.settled.lock().unwrap().len());
        write!(f, "{calls} settles of {deliveries} deliveries, {settled} ids recorded: {repeated} repeated, ")?;
        write!(
            f,
            "{consumed} refused as another's, {unproven} as unproven, {corrected} refunds, {unanswered} without an answer"
        )
    }
}
