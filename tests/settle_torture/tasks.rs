//! One of the tasks: it settles, again, at once with itself, with other numbers, and leaves in the middle.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kvtier::client::{Client, ClientError, ServerAddress, Settle, UsageRecord};
use kvtier::vocab::{BillingId, Fingerprint, InstanceId, RequestId, TenantName, TokenCount, UsageDetail, UserName};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What all tasks know together.
#[derive(Default)]
pub(crate) struct Shared {
    /// Calls made, of all kinds.
    pub(crate) calls: AtomicU64,
    next: AtomicU64,
    /// Of each request, which variants of its numbers were asked for: bits 1 and 2.
    asked: Mutex<BTreeMap<u64, u8>>,
    /// Of each request, the record that was acknowledged.
    acknowledged: Mutex<BTreeMap<u64, UsageRecord>>,
    repeated: AtomicU64,
    races: AtomicU64,
    conflicts: AtomicU64,
    cut: AtomicU64,
    unanswered: AtomicU64,
    /// Settles that got UNAVAILABLE: the ledger could not be written.
    pub(crate) unavailable: AtomicU64,
}

/// A request's numbers; variant 1 is what a mistaken second settle says.
pub(crate) fn request(fingerprint: Fingerprint, number: u64, variant: u8) -> Settle {
    let detail = UsageDetail {
        user: UserName::parse(&format!("user-{}", number % 50)).ok(),
        preempted_tokens: TokenCount(number % 3),
        ..UsageDetail::default()
    };
    // Large, so that a log that has reserved its room fills up all the same.
    let labels = (0..14).map(|at| (format!("label-{at}"), format!("{number:>100}"))).collect();
    Settle {
        tenant: TenantName::parse(&format!("tenant-{}", number % 7)).unwrap(),
        billing_id: BillingId::parse(&number.to_string()).unwrap(),
        attempt: 0,
        instance: InstanceId::parse("engine").unwrap(),
        request_id: RequestId::parse("r").unwrap(),
        fingerprint,
        prompt_tokens: 1_000 + number % 977 + 10_000 * u64::from(variant),
        cached_tokens: 0,
        attested_tokens: number % 400,
        written_tokens: number % 600,
        output_tokens: number % 331,
        receipts: Vec::new(),
        labels,
        detail,
    }
}

impl Shared {
    /// Requests that were asked for and of which nobody has heard, with the variants that were asked for.
    pub(crate) fn in_doubt(&self) -> BTreeMap<u64, u8> {
        let acknowledged = self.acknowledged.lock().unwrap();
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(number, _)| !acknowledged.contains_key(number)).map(|(n, asked)| (*n, *asked)).collect()
    }

    pub(crate) fn acknowledged(&self) -> BTreeMap<u64, UsageRecord> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Whoever hears of a request hears of the same record.
    pub(crate) fn acknowledge(&self, number: u64, record: &UsageRecord) {
        let before = self.acknowledged.lock().unwrap().insert(number, record.clone());
        assert!(before.is_none_or(|before| before == *record), "the first record stands: {record:?}");
    }

    /// How many requests were acknowledged.
    pub(crate) fn settled(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    pub(crate) fn check_it_was_a_torture(&self) {
        for (what, count) in [
            ("repeats", &self.repeated),
            ("races", &self.races),
            ("conflicts", &self.conflicts),
            ("cut connections", &self.cut),
            ("calls that a kill left without an answer", &self.unanswered),
        ] {
            assert!(count.load(Relaxed) > 0, "no {what}: {self}");
        }
    }

    fn ask(&self, number: u64, variant: u8) {
        self.calls.fetch_add(1, Relaxed);
        *self.asked.lock().unwrap().entry(number).or_default() |= 1 << variant;
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, repeated, races, conflicts, cut, unanswered, unavailable, .. } = self;
        let [calls, repeated, races, conflicts, cut, unanswered, unavailable] =
            [calls, repeated, races, conflicts, cut, unanswered, unavailable].map(|count| count.load(Relaxed));
        let requests = self.acknowledged.lock().unwrap().len();
        write!(
            f,
            "{calls} settles of {requests} requests: {repeated} repeated, {races} races, {conflicts} conflicts, "
        )?;
        write!(f, "{cut} cut connections, {unanswered} without an answer, {unavailable} unavailable")
    }
}

pub(crate) struct Task {
    random: SmallRng,
    fingerprint: Fingerprint,
    address: ServerAddress,
    shared: Arc<Shared>,
}

impl Task {
    pub(crate) fn new(
        seed: u64,
        round: u64,
        task: u64,
        fingerprint: Fingerprint,
        address: &ServerAddress,
        shared: Arc<Shared>,
    ) -> Self {
        let random = SmallRng::seed_from_u64(seed << 32 ^ round << 16 ^ task);
        Self { random, fingerprint, address: address.clone(), shared }
    }

    /// Until so many calls are made by all, or the daemon is gone.
    pub(crate) async fn run(mut self, until: u64) {
        let Ok(client) = Client::connect(&self.address).await else { return };
        while self.shared.calls.load(Relaxed) < until {
            if self.step(&client).await.is_err() {
                self.shared.unanswered.fetch_add(1, Relaxed);
                return;
            }
        }
    }

    async fn step(&mut self, client: &Client) -> Result<(), ClientError> {
        let known = self.shared.next.load(Relaxed);
        let number = match self.random.random_range(0..10) {
            0..3 if known > 0 => known - 1 - self.random.random_range(0..known.min(500)),
            _ => self.shared.next.fetch_add(1, Relaxed),
        };
        match self.random.random_range(0..100) {
            0..8 => {
                self.shared.races.fetch_add(1, Relaxed);
                let (one, other) = tokio::join!(self.settle(client, number, 0), self.settle(client, number, 0));
                one.and(other)
            }
            8..14 => {
                self.shared.races.fetch_add(1, Relaxed);
                let (one, other) = tokio::join!(self.settle(client, number, 0), self.settle(client, number, 1));
                one.and(other)
            }
            14..18 => {
                self.cut(number).await;
                Ok(())
            }
            _ => self.settle(client, number, 0).await,
        }
    }

    async fn settle(&self, client: &Client, number: u64, variant: u8) -> Result<(), ClientError> {
        self.shared.ask(number, variant);
        let settle = request(self.fingerprint, number, variant);
        match client.settle(&settle).await {
            Ok(settled) => {
                assert_eq!(
                    settled.record.prompt_tokens.unsigned_abs(),
                    settle.prompt_tokens,
                    "an answer to this settle"
                );
                self.shared.acknowledge(number, &settled.record);
                self.shared.repeated.fetch_add(u64::from(settled.repeated), Relaxed);
                Ok(())
            }
            // Another has settled it with other numbers, or the ledger can't keep up.
            Err(error) if error.code() == Some(tonic::Code::AlreadyExists) => {
                self.shared.conflicts.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) if error.code() == Some(tonic::Code::ResourceExhausted) => Ok(()),
            Err(error) if error.code() == Some(tonic::Code::Unavailable) => {
                assert!(error.to_string().contains("ledger"), "{error}");
                self.shared.unavailable.fetch_add(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A connection of its own, which goes in the middle of the call.
    async fn cut(&mut self, number: u64) {
        let patience = Duration::from_micros(self.random.random_range(50..3_000));
        let Ok(client) = Client::connect(&self.address).await else { return };
        self.shared.cut.fetch_add(1, Relaxed);
        self.shared.ask(number, 0);
        let settle = request(self.fingerprint, number, 0);
        if let Ok(Ok(settled)) = tokio::time::timeout(patience, client.settle(&settle)).await {
            self.shared.acknowledge(number, &settled.record);
        }
    }
}
