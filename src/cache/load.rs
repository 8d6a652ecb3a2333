//! The walk of a fetch: blocks in prefix order, promoted on the way, until the chain, the hit or the time ends.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Cache;
use super::chain::Chain;
use super::delivery::{Age, Sent};
use super::error::Error;
use super::flight::{Landing, Waiter};
use crate::ledger::DeliveryReceipt;
use crate::plan::{Event, Peek, Removed, Transfer};
use crate::session::Session;
use crate::tiers::{Place, ReadDone, ReadError, ReadInto};
use crate::vocab::limits::FETCH_READ_AHEAD;
use crate::vocab::{BlockKey, LeaseId, RequestId, Tier};

/// How often a block that was let go between lookup and pin is looked for again before it is a miss.
pub(super) const TRIES: usize = 3;

/// What is to be fetched, for whom.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// Whose process.
    pub session: Session,
    /// Deliveries are recorded under it.
    pub request: RequestId,
    /// The blocks.
    pub chain: Chain,
    /// A lease over them.
    pub lease: Option<LeaseId>,
    /// What has not been read by then is a miss.
    pub deadline: Instant,
    /// Keep what is read from NVMe in RAM.
    pub promote: bool,
}

/// One block's bytes on their way out.
#[derive(Clone, Debug)]
pub struct FetchedBlock {
    /// Its number within the request.
    pub at: usize,
    /// Where it was found.
    pub tier: Tier,
    /// Its checksum, seeded with its key.
    pub crc: u64,
    /// The payload; holds a pin on its slot.
    pub bytes: Bytes,
}

/// Why a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// All blocks were sent.
    Complete,
    /// The next one is not readable.
    Miss,
    /// The time was up.
    Deadline,
    /// The reader went away.
    Abandoned,
}

/// What was delivered.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Why it ended.
    pub outcome: FetchOutcome,
    /// Blocks sent from RAM.
    pub blocks_ram: u32,
    /// Blocks sent from NVMe.
    pub blocks_nvme: u32,
    /// Tokens of both.
    pub tokens: u64,
    /// For [`Cache::settle`], should the daemon restart before.
    pub receipt: Vec<u8>,
}

/// A block that was asked for ahead of its turn.
pub(super) enum Ahead {
    InRam,
    Coming(Waiter),
    /// The planner had no room for the question: it is asked when it is the block's turn, so that those before it go out.
    Unasked(Waiter),
    Missing,
}

impl Ahead {
    /// Where it was when it was asked for.
    pub(super) fn tier(&self) -> Tier {
        if matches!(self, Self::Coming(_) | Self::Unasked(_)) { Tier::Nvme } else { Tier::Ram }
    }
}

impl Cache {
    /// Checks what can be refused before the first byte. What can't be checked by the deadline is not refused: the load is over
    /// then, with what is at hand.
    ///
    /// # Errors
    /// For a lease that has ended, or another instance's.
    pub async fn check_lease(&self, session: &Session, lease: Option<LeaseId>, deadline: Instant) -> Result<(), Error> {
        let Some(lease) = lease else { return Ok(()) };
        let number = session.number;
        let check = self.driver.look(move |planner| planner.check_lease(number, lease));
        if let Ok(checked) = timeout_at(deadline, check).await {
            checked??;
        }
        Ok(())
    }

    /// Sends blocks into `out` as they become readable, and records what was taken.
    pub async fn fetch(self: Arc<Self>, request: FetchRequest, out: mpsc::Sender<FetchedBlock>) -> Fetched {
        let mut sent = Sent { depth: request.chain.depth, ..Sent::default() };
        let outcome = self.send_blocks(&request, &out, &mut sent).await;
        self.used_by(&request, &sent);
        self.deliver(&request, outcome, &sent)
    }

    /// What was read counts as used, unless it was a scan. Where nothing was promoted, the lease has touched the chain already.
    pub(super) fn used_by(&self, request: &FetchRequest, sent: &Sent) {
        if request.promote && (request.lease.is_none() || sent.from_nvme.contains(&true)) {
            self.used(&request.chain, sent.from_nvme.len(), request.lease.is_some());
        }
    }

    /// The first blocks of a chain were used, from the tail to the head: promotion has put the head into RAM first, where it
    /// would be the coldest.
    pub(super) fn used(&self, chain: &Chain, blocks: usize, leased: bool) {
        if let Some(last) = blocks.checked_sub(1) {
            // A planner that is thousands of events behind hears nothing of it: only the order of going is the worse for it,
            // and no answer waits.
            self.driver.try_tell(Event::Used { deepest: chain.key(last), leased });
        }
    }

    /// Records what was delivered, and signs it.
    pub(super) fn deliver(&self, request: &FetchRequest, outcome: FetchOutcome, sent: &Sent) -> Fetched {
        let chain = &request.chain;
        let of = (&chain.tenant, &request.session.instance, &request.request);
        let (now, forgotten) = (self.clock.now(), self.ledger.get().and_then(|ledger| ledger.forgotten()));
        let age = Age { now, forgotten };
        let proof = self.deliveries.add(of, sent, chain.namespace.spec.block_tokens, age);
        let nvme = count(sent.from_nvme.iter().filter(|nvme| **nvme).count());
        let blocks = count(sent.from_nvme.len());
        self.meter.delivered(blocks, nvme);
        let receipt = self.ledger.get().map(|ledger| {
            ledger.receipt_key().sign(&DeliveryReceipt {
                tenant: chain.tenant.clone(),
                instance: request.session.instance.clone(),
                request_id: request.request.clone(),
                fingerprint: chain.namespace.fingerprint,
                delivered: proof.delivered,
                since: proof.since,
                issued: now,
                nonce: DeliveryReceipt::fresh_nonce(),
            })
        });
        Fetched {
            outcome,
            blocks_ram: blocks - nvme,
            blocks_nvme: nvme,
            tokens: chain.tokens_of(blocks),
            receipt: receipt.unwrap_or_default(),
        }
    }

    async fn send_blocks(
        &self,
        request: &FetchRequest,
        out: &mpsc::Sender<FetchedBlock>,
        sent: &mut Sent,
    ) -> FetchOutcome {
        let blocks = request.chain.len();
        let mut ahead = VecDeque::new();
        let mut asked = 0;
        for at in 0..blocks {
            while asked < blocks.min(at + FETCH_READ_AHEAD) {
                ahead.push_back(self.ask_ahead(&request.chain.key(asked), request.promote));
                asked += 1;
            }
            let Some(next) = ahead.pop_front() else { return FetchOutcome::Miss };
            let key = request.chain.key(at);
            let block = match timeout_at(request.deadline, self.bytes_of(&key, next)).await {
                Err(_) => return FetchOutcome::Deadline,
                Ok(None) => return FetchOutcome::Miss,
                Ok(Some((tier, crc, bytes))) => FetchedBlock { at, tier, crc, bytes },
            };
            let tier = block.tier;
            match timeout_at(request.deadline, out.send(block)).await {
                Err(_) => return FetchOutcome::Deadline,
                Ok(Err(_)) => return FetchOutcome::Abandoned,
                Ok(Ok(())) => sent.from_nvme.push(tier == Tier::Nvme),
            }
        }
        FetchOutcome::Complete
    }

    /// Starts the promotion of a block that is on NVMe only.
    pub(super) fn ask_ahead(&self, key: &BlockKey, promote: bool) -> Ahead {
        match self.residency.get(key) {
            None => Ahead::Missing,
            Some(residence) if residence.ram.is_some() || !promote => Ahead::InRam,
            Some(_) => {
                let waiter = self.flights.join(*key);
                let asked = self.driver.try_tell(Event::Want { key: *key });
                if asked { Ahead::Coming(waiter) } else { Ahead::Unasked(waiter) }
            }
        }
    }

    /// Waits for a block whose turn it is. The caller says for how long.
    pub(super) async fn landed(&self, key: &BlockKey, ahead: Ahead) -> Landing {
        match ahead {
            Ahead::Missing => Landing::Gone,
            Ahead::InRam => Landing::Ready,
            Ahead::Coming(waiter) => waiter.landed().await,
            Ahead::Unasked(waiter) => match self.driver.tell(Event::Want { key: *key }).await {
                Ok(()) => waiter.landed().await,
                Err(_) => Landing::Gone,
            },
        }
    }

    async fn bytes_of(&self, key: &BlockKey, ahead: Ahead) -> Option<(Tier, u64, Bytes)> {
        let tier = ahead.tier();
        match self.landed(key, ahead).await {
            Landing::Ready => {}
            Landing::NoRoom => return self.peek(key).await,
            Landing::Gone => return None,
        }
        for _ in 0..TRIES {
            let residence = self.residency.get(key)?;
            let Some(place) = residence.ram else { return self.peek(key).await };
            if let Some(pin) = self.ram.pin(place.slot, place.class, place.generation, place.length) {
                return Some((tier, place.crc, pin.into_bytes()));
            }
        }
        None
    }

    /// Reads a block from NVMe past RAM.
    async fn peek(&self, key: &BlockKey) -> Option<(Tier, u64, Bytes)> {
        let (nvme, key) = (self.nvme.as_ref()?, *key);
        let permit = self.driver.peek(key).await.ok()??;
        let Peek { slot, class, length, crc, .. } = permit.peek();
        let (reply, bytes) = tokio::sync::oneshot::channel();
        let complaints = Arc::clone(&self.complaints);
        nvme.read(key, Place { slot, class, length, crc }, ReadInto::Heap, move |result| {
            let (outcome, bytes) = match result {
                Ok(ReadDone::Bytes(bytes)) => (Transfer::Done(0), Some(bytes)),
                Ok(ReadDone::Slot(_) | ReadDone::Region(_)) | Err(ReadError::QueueFull) => (Transfer::Refused, None),
                Err(error) => {
                    complaints.lost(&key, slot, &error);
                    (Transfer::Failed, None)
                }
            };
            permit.end(outcome);
            reply.send(bytes).ok();
        });
        bytes.await.ok().flatten().map(|bytes| (Tier::Nvme, crc, bytes))
    }

    /// Evicts a block and its descendants by hand: blocks, bytes, and blocks kept.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn evict(&self, key: BlockKey) -> Result<(u64, u64, u64), Error> {
        let Removed { blocks, bytes, kept } = self.driver.remove(Event::Evict { key }).await?;
        Ok((blocks, bytes, kept))
    }
}

fn count(blocks: usize) -> u32 {
    u32::try_from(blocks).unwrap_or(u32::MAX)
}
