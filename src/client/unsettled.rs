//! Settles that had no answer: kept for a while and sent again in the background, since the same settle twice is one record.
//!
//! A *refusal* is the daemon's word on this very settle (it claims more than was delivered, contradicts a record, may not be
//! made): sending it again changes nothing. Everything else is *silence*: no connection, no answer in time, a ledger that can't
//! be written, is full or has too many waiting. After silence nobody knows whether it was recorded, and it is sent again.
//! Those of one identity (tenant, billing id) are sent in the order in which they came.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tonic::Code;

use super::link::{Link, Up, within};
use super::{ClientError, Settle, Settled};
use crate::vocab::limits::{
    SETTLE_AGAIN_PAUSE, SETTLE_AGAIN_PAUSE_MAX, SETTLE_CALL_MAX, SETTLES_AGAIN_AT_ONCE, SETTLES_KEPT_FOR,
    SETTLES_KEPT_MAX,
};
use crate::vocab::{BillingId, TenantName};

/// How a settle ended, as far as it is known.
#[derive(Debug)]
pub enum Settling {
    /// It is on the daemon's disk.
    Settled(Box<Settled>),
    /// There was no answer yet: it is sent again in the background. [`Worker::unsettled`](super::Worker::unsettled) says what
    /// became of those.
    Kept,
    /// The daemon refuses it: it is not sent again.
    Refused(ClientError),
    /// There was no answer, for this reason, and too many are kept already: it is not sent again. Whether it was recorded is
    /// not known.
    NoRoom(ClientError),
}

/// What became of settles that had no answer at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// They still wait for an answer.
    pub waiting: usize,
    /// They were settled later.
    pub settled_late: u64,
    /// Given up: the daemon refused them when they were sent again.
    pub refused: u64,
    /// Given up: there was no answer for an hour.
    pub too_old: u64,
    /// Given up: too many were kept.
    pub no_room: u64,
    /// The last one that was given up, and why.
    pub last: Option<GivenUp>,
}

impl Unsettled {
    /// How many were given up.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.refused + self.too_old + self.no_room
    }
}

/// A settle that is not sent again. It can be settled by hand with the same numbers: where it was recorded, that is a repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Who would pay.
    pub tenant: TenantName,
    /// The request as the bill names it.
    pub billing_id: BillingId,
    /// Why.
    pub why: String,
}

type Identity = (TenantName, BillingId);

fn identity(settle: &Settle) -> Identity {
    (settle.tenant.clone(), settle.billing_id.clone())
}

#[derive(Debug)]
struct Kept {
    settle: Settle,
    since: Instant,
}

/// Those that wait, in the order in which they came.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Kept>,
    /// Of those that were sent and are not answered.
    under_way: HashSet<Identity>,
    told: Unsettled,
}

impl Queue {
    fn len(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    fn holds(&self, of: &Identity) -> bool {
        self.under_way.contains(of) || self.waiting.iter().any(|kept| identity(&kept.settle) == *of)
    }

    /// Whether there was room for it.
    fn keep(&mut self, settle: Settle, now: Instant, why: &str) -> bool {
        if self.len() >= SETTLES_KEPT_MAX {
            self.told.no_room += 1;
            self.give_up(&settle, why.to_owned());
            return false;
        }
        self.waiting.push_back(Kept { settle, since: now });
        true
    }

    /// The next ones to be sent, each of another identity.
    fn take(&mut self, now: Instant) -> Vec<Kept> {
        while self.waiting.front().is_some_and(|kept| now.duration_since(kept.since) >= SETTLES_KEPT_FOR) {
            let Some(old) = self.waiting.pop_front() else { break };
            self.told.too_old += 1;
            self.give_up(&old.settle, format!("it had no answer for {SETTLES_KEPT_FOR:?}"));
        }
        let mut taken = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() && self.under_way.len() < SETTLES_AGAIN_AT_ONCE {
            if self.under_way.insert(identity(&self.waiting[at].settle)) {
                taken.extend(self.waiting.remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }

    /// It was sent again, and answered so; true for an answer, false for silence, after which it is the next again.
    fn answered(&mut self, kept: Kept, answer: Result<Settled, ClientError>) -> bool {
        self.under_way.remove(&identity(&kept.settle));
        match answer {
            Ok(_) => self.told.settled_late += 1,
            Err(error) if is_silence(&error) => {
                self.waiting.push_front(kept);
                return false;
            }
            Err(error) => {
                self.told.refused += 1;
                self.give_up(&kept.settle, error.to_string());
            }
        }
        true
    }

    fn give_up(&mut self, settle: &Settle, why: String) {
        let (tenant, billing_id) = identity(settle);
        tracing::warn!(%tenant, %billing_id, why, "a settle is given up");
        self.told.last = Some(GivenUp { tenant, billing_id, why });
    }
}

/// Whether an error says nothing of the settle itself.
fn is_silence(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Refused { code, .. } => matches!(
            code,
            Code::Unavailable
                | Code::ResourceExhausted
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Aborted
                | Code::Internal
                | Code::Unknown
        ),
        ClientError::Protocol { .. } => false,
    }
}

/// The queue and the task that empties it; dropped, what waits is given up.
#[derive(Debug)]
pub(super) struct Resender {
    queue: Arc<Mutex<Queue>>,
    /// How many wait.
    count: watch::Sender<usize>,
    upkeep: JoinHandle<()>,
}

impl Resender {
    pub(super) fn start(link: Arc<Link>) -> Self {
        let queue = Arc::<Mutex<Queue>>::default();
        let (count, counted) = watch::channel(0);
        let upkeep = tokio::spawn(send_again(Arc::clone(&queue), count.clone(), counted, link));
        Self { queue, count, upkeep }
    }

    /// What is known of the settle after its first answer, or without one.
    pub(super) fn first(&self, settle: Sent<'_>, answer: Result<Settled, ClientError>) -> Settling {
        match answer {
            Ok(settled) => {
                settle.over();
                Settling::Settled(Box::new(settled))
            }
            Err(error) if is_silence(&error) => match settle.keep(&error.to_string()) {
                true => Settling::Kept,
                false => Settling::NoRoom(error),
            },
            Err(error) => {
                settle.over();
                Settling::Refused(error)
            }
        }
    }

    /// A settle that is about to be sent; or it was put behind one of the same identity that waits.
    pub(super) fn begin<'a>(&'a self, settle: &'a Settle) -> Result<Sent<'a>, Settling> {
        let sent = Sent { of: self, settle: Some(settle) };
        if !lock(&self.queue).holds(&identity(settle)) {
            return Ok(sent);
        }
        let why = "one of the same identity waits";
        let full = || ClientError::protocol(why);
        Err(if sent.keep(why) { Settling::Kept } else { Settling::NoRoom(full()) })
    }

    pub(super) fn told(&self) -> Unsettled {
        let queue = lock(&self.queue);
        Unsettled { waiting: queue.len(), ..queue.told.clone() }
    }

    /// Waits until none waits; false where that took longer.
    pub(super) async fn until_empty(&self, patience: Duration) -> bool {
        let mut count = self.count.subscribe();
        tokio::time::timeout(patience, count.wait_for(|count| *count == 0)).await.is_ok_and(|empty| empty.is_ok())
    }
}

impl Drop for Resender {
    fn drop(&mut self) {
        self.upkeep.abort();
        let waiting = lock(&self.queue).len();
        if waiting > 0 {
            tracing::warn!(waiting, "a worker ends with settles that had no answer");
        }
    }
}

/// A settle under way: kept where its caller goes away in the middle.
pub(super) struct Sent<'a> {
    of: &'a Resender,
    settle: Option<&'a Settle>,
}

impl Sent<'_> {
    fn over(mut self) {
        self.settle = None;
    }

    fn keep(mut self, why: &str) -> bool {
        let Some(settle) = self.settle.take() else { return true };
        let mut queue = lock(&self.of.queue);
        let kept = queue.keep(settle.clone(), Instant::now(), why);
        self.of.count.send_replace(queue.len());
        kept
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            Sent { of: self.of, settle: Some(settle) }.keep("its caller went away");
        }
    }
}

/// Sends what waits, a few at a time, and waits longer each time when there is silence.
async fn send_again(
    queue: Arc<Mutex<Queue>>,
    count: watch::Sender<usize>,
    mut counted: watch::Receiver<usize>,
    link: Arc<Link>,
) {
    let mut pause = SETTLE_AGAIN_PAUSE;
    loop {
        if counted.wait_for(|count| *count > 0).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        // So that what is too old goes also while the daemon is away.
        let up = tokio::time::timeout(SETTLE_AGAIN_PAUSE_MAX, link.wait()).await.ok().flatten();
        let taken = lock(&queue).take(Instant::now());
        let mut calls = JoinSet::new();
        for kept in taken {
            calls.spawn(call(up.clone(), kept));
        }
        let mut silent = false;
        while let Some(done) = calls.join_next().await {
            let Ok((kept, answer)) = done else { continue };
            silent |= !lock(&queue).answered(kept, answer);
        }
        let left = lock(&queue).len();
        count.send_replace(left);
        pause = match (silent, left) {
            (true, _) => (pause * 2).clamp(SETTLE_AGAIN_PAUSE, SETTLE_AGAIN_PAUSE_MAX),
            (false, 0) => SETTLE_AGAIN_PAUSE,
            (false, _) => Duration::ZERO,
        };
    }
}

async fn call(up: Option<Arc<Up>>, kept: Kept) -> (Kept, Result<Settled, ClientError>) {
    let answer = match up {
        Some(up) => within("Settle", SETTLE_CALL_MAX, up.client.settle(&kept.settle)).await,
        None => Err(ClientError::TimedOut { call: "Settle", after: SETTLE_AGAIN_PAUSE_MAX }),
    };
    (kept, answer)
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::vocab::{Fingerprint, InstanceId, RequestId, UsageDetail};

    fn settle(billing_id: &str, prompt_tokens: u64) -> Settle {
        Settle {
            tenant: TenantName::parse("acme").unwrap(),
            billing_id: BillingId::parse(billing_id).unwrap(),
            attempt: 0,
            instance: InstanceId::parse("engine").unwrap(),
            request_id: RequestId::parse("r").unwrap(),
            fingerprint: Fingerprint([7; 32]),
            prompt_tokens,
            cached_tokens: 0,
            attested_tokens: 0,
            written_tokens: 0,
            output_tokens: 0,
            receipts: Vec::new(),
            labels: BTreeMap::new(),
            detail: UsageDetail::default(),
        }
    }

    fn refused(code: Code) -> ClientError {
        ClientError::Refused { code, message: "no".into() }
    }

    fn prompts(taken: &[Kept]) -> Vec<u64> {
        taken.iter().map(|kept| kept.settle.prompt_tokens).collect()
    }

    #[test]
    fn those_of_one_identity_are_sent_in_order_one_at_a_time_also_after_silence() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (billing_id, prompt) in [("a", 1), ("a", 2), ("b", 3)] {
            assert!(queue.keep(settle(billing_id, prompt), now, ""));
        }
        let mut taken = queue.take(now);
        assert_eq!(prompts(&taken), [1, 3]);
        let first = taken.remove(0);
        assert!(queue.take(now).is_empty(), "the first of its identity has no answer");
        assert!(!queue.answered(first, Err(refused(Code::Unavailable))), "silence");
        let again = queue.take(now);
        assert_eq!(prompts(&again), [1], "the first stays the first");
        for kept in again {
            assert!(queue.answered(kept, Err(refused(Code::AlreadyExists))), "an answer");
        }
        assert_eq!(prompts(&queue.take(now)), [2]);
        let last = queue.told.last.clone().unwrap();
        assert_eq!((queue.told.refused, last.billing_id.as_str(), last.why.as_str()), (1, "a", "no (AlreadyExists)"));
    }

    #[test]
    fn a_few_are_under_way_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        (0..100).for_each(|at| assert!(queue.keep(settle(&at.to_string(), at), now, "")));
        let taken = queue.take(now);
        assert_eq!((taken.len(), queue.len()), (SETTLES_AGAIN_AT_ONCE, 100));
    }

    #[test]
    fn what_is_too_much_or_too_old_is_given_up_counted_and_told() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for at in 0..SETTLES_KEPT_MAX as u64 {
            assert!(queue.keep(settle(&at.to_string(), at), now, ""));
        }
        assert!(!queue.keep(settle("more", 1), now, "disk full"));
        assert_eq!((queue.told.no_room, queue.told.last.clone().unwrap().why.as_str()), (1, "disk full"));
        let young = SETTLES_KEPT_FOR - Duration::from_secs(1);
        let taken = queue.take(now + young);
        assert_eq!((taken.len(), queue.told.too_old), (SETTLES_AGAIN_AT_ONCE, 0));
        assert!(queue.take(now + SETTLES_KEPT_FOR).is_empty());
        assert_eq!(queue.told.too_old, (SETTLES_KEPT_MAX - SETTLES_AGAIN_AT_ONCE) as u64);
        assert_eq!(queue.told.given_up(), 1 + queue.told.too_old);
    }

    #[test]
    fn a_word_on_the_settle_itself_is_a_refusal_and_everything_else_is_silence() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Internal] {
            assert!(is_silence(&refused(code)), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::FailedPrecondition, Code::AlreadyExists, Code::PermissionDenied] {
            assert!(!is_silence(&refused(code)), "{code:?}");
        }
        assert!(is_silence(&ClientError::TimedOut { call: "Settle", after: Duration::ZERO }));
    }
}
