//! The walk of a ticket: a prefix is leased and brought to RAM while its request still queues. The engine's scheduler reads the
//! news from its session's stream and asks nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::chain::Chain;
use super::error::Error;
use super::flight::Landing;
use super::load::Ahead;
use super::lookup::{Found, LeaseRequest, LookupOptions};
use super::worth::{RAM_SPEED, Scales, Speed};
use super::{Cache, unexpected};
use crate::plan::{Answer, Event, InstanceNo, Leased};
use crate::session::{News, Session};
use crate::vocab::limits::{
    FETCH_READ_AHEAD, LEASE_TTL_MAX, TICKET_NEWS_EVERY, TICKETS_PER_INSTANCE_MAX, TICKETS_RAM_SHARE,
};
use crate::vocab::{ByteCount, RequestId, Tier, TierCounts};

/// What is to be brought to RAM.
#[derive(Clone, Debug)]
pub struct PrefetchRequest {
    /// Whose process; it gets the news.
    pub session: Session,
    /// For which request. It has one ticket.
    pub request: RequestId,
    /// The blocks.
    pub chain: Chain,
    /// Blocks from the chain's start that the engine has.
    pub already_computed: u32,
    /// What is not in RAM by then will not be waited for.
    pub deadline: Instant,
}

/// What a ticket promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetched {
    /// Names it.
    pub ticket: u64,
    /// Blocks by tier; those that recomputing brings faster count as missed.
    pub counts: TierCounts,
    /// Tokens of the hit.
    pub hit_tokens: u64,
    /// What protects it.
    pub lease: Option<Leased>,
}

/// A ticket, until its request is over.
#[derive(Debug)]
struct Ticket {
    promised: Prefetched,
    session: Session,
    request: u128,
    chain: Chain,
    /// Blocks that the engine will take; promotion goes no further.
    accepted: AtomicU32,
    stop: CancellationToken,
}

/// All tickets.
#[derive(Debug)]
pub(super) struct Tickets {
    numbered: AtomicU64,
    held: Mutex<Held>,
    /// RAM that tickets may hold, in pieces of 64 KiB: who comes first has it first.
    room: Arc<Semaphore>,
    pieces: u32,
    speed: Speed,
}

/// Those that have not ended.
#[derive(Debug, Default)]
struct Held {
    by_request: HashMap<(InstanceNo, u128), Arc<Ticket>>,
    by_number: HashMap<u64, (InstanceNo, u128)>,
    of_instance: HashMap<InstanceNo, usize>,
}

impl Held {
    /// Takes the place of an earlier one of the same request, which ends.
    fn add(&mut self, ticket: Arc<Ticket>) {
        let of = (ticket.session.number, ticket.request);
        self.end(of);
        self.by_number.insert(ticket.promised.ticket, of);
        *self.of_instance.entry(of.0).or_default() += 1;
        self.by_request.insert(of, ticket);
    }

    fn end(&mut self, of: (InstanceNo, u128)) {
        let Some(ticket) = self.by_request.remove(&of) else { return };
        ticket.stop.cancel();
        ticket.session.outbox.forget(ticket.promised.ticket);
        self.by_number.remove(&ticket.promised.ticket);
        if let Some(count) = self.of_instance.get_mut(&of.0) {
            *count -= 1;
            if *count == 0 {
                self.of_instance.remove(&of.0);
            }
        }
    }
}

/// The pieces that RAM is given to tickets in.
const PIECE_BYTES: u64 = 64 << 10;

impl Tickets {
    pub(super) fn new(ram: ByteCount) -> Self {
        let pieces =
            u32::try_from(ram.0 / TICKETS_RAM_SHARE / PIECE_BYTES).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        Self {
            numbered: AtomicU64::new(0),
            held: Mutex::default(),
            room: Arc::new(Semaphore::new(pieces as usize)),
            pieces,
            speed: Speed::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pieces of RAM that so many bytes take; at most all there are, or it would never have its turn.
    fn pieces(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX).clamp(1, self.pieces)
    }
}

impl Cache {
    /// Leases a prefix and starts to bring it to RAM; answers at once. Idempotent by (instance, request).
    ///
    /// # Errors
    /// For too many tickets or leases, or when the daemon is stopping.
    pub async fn prefetch(self: &Arc<Self>, request: PrefetchRequest) -> Result<Prefetched, Error> {
        let (instance, digest) = (request.session.number, request.request.digest());
        {
            let held = self.tickets.lock();
            if let Some(known) = held.by_request.get(&(instance, digest)) {
                return Ok(known.promised);
            }
            let most = TICKETS_PER_INSTANCE_MAX;
            if held.of_instance.get(&instance).is_some_and(|count| *count >= most) {
                return Err(Error::Full(format!("the engine instance holds {most} tickets, which is the limit")));
            }
        }
        let chain = &request.chain;
        let options = LookupOptions { already_computed: request.already_computed, ..LookupOptions::default() };
        let scales = self.scales(chain);
        let lease =
            LeaseRequest { session: request.session.clone(), request: request.request.clone(), ttl: LEASE_TTL_MAX };
        let lookup = self.lookup_worth(chain, &options, Some(lease), |counts| scales.worth(counts));
        // A planner that has not leased by then leaves the ticket nothing to promise. A lease that comes later ends with the
        // request, or by its time.
        let found = match timeout_at(request.deadline, lookup).await {
            Ok(found) => found?,
            Err(_) => Found::nothing(chain, &options),
        };
        let number = self.tickets.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        let lease = found.lease.map(|(leased, _)| leased);
        let promised = Prefetched { ticket: number, counts: found.counts, hit_tokens: found.hit_tokens, lease };
        let ticket = Arc::new(Ticket {
            promised,
            session: request.session.clone(),
            request: digest,
            chain: chain.clone(),
            accepted: AtomicU32::new(found.counts.hit()),
            stop: CancellationToken::new(),
        });
        // Of two calls at once the later one's lease has taken the place of the other's, and so does its ticket.
        self.tickets.lock().add(Arc::clone(&ticket));
        if self.sessions.get(request.session.id).is_err() {
            self.end_tickets_of(request.session.id);
        }
        tokio::spawn(Arc::clone(self).bring(ticket, request));
        Ok(promised)
    }

    /// The engine takes so many tokens of a ticket: no more than those are brought, nor leased. Idempotent.
    ///
    /// # Errors
    /// For a ticket that has ended, or is another instance's.
    pub async fn accept(&self, session: &Session, ticket: u64, tokens: u64) -> Result<(), Error> {
        let known = {
            let held = self.tickets.lock();
            held.by_number.get(&ticket).and_then(|of| held.by_request.get(of)).cloned()
        };
        let Some(known) = known.filter(|known| known.session.number == session.number) else {
            let why = "it ends with its request, and with the session that got it";
            return Err(Error::Refused(format!("ticket {ticket} is not held by this engine instance: {why}")));
        };
        let block_tokens = u64::from(known.chain.namespace.spec.block_tokens);
        let blocks = u32::try_from(tokens.div_ceil(block_tokens)).unwrap_or(u32::MAX);
        let blocks = blocks.min(known.promised.counts.hit());
        let before = known.accepted.swap(blocks, Ordering::Relaxed);
        if blocks < before && blocks > 0 && known.promised.lease.is_some() {
            let (instance, request) = (session.number, known.request);
            let keys = known.chain.keys_in_turns(blocks as usize).await;
            self.driver.ask(Event::Lease { instance, request, keys, ttl: LEASE_TTL_MAX }).await?;
        }
        Ok(())
    }

    /// A request is over: when this returns, its tickets, reservations and leases have ended, and nothing is written to the
    /// engine's memory for it any more. Loads under way are waited for, or stopped. Idempotent.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn finish_request(&self, session: &Session, request: &RequestId, stop: bool) -> Result<(), Error> {
        if let Some(recorder) = &self.recorder {
            recorder.over(session, request);
        }
        let (instance, request) = (session.number, request.digest());
        self.tickets.lock().end((instance, request));
        self.end_reservations(instance, request);
        self.writing.end(instance, request, stop).await;
        match self.driver.ask(Event::RequestOver { instance, request }).await? {
            Answer::Released(_) => Ok(()),
            answer => Err(unexpected(&answer)),
        }
    }

    /// Tickets held now.
    #[must_use]
    pub fn tickets(&self) -> usize {
        self.tickets.lock().by_request.len()
    }

    /// A session has ended: nobody hears the news of its tickets.
    pub(super) fn end_tickets_of(&self, session: u64) {
        let mut held = self.tickets.lock();
        let of_session = held.by_request.iter().filter(|(_, ticket)| ticket.session.id == session);
        let ended: Vec<_> = of_session.map(|(of, _)| *of).collect();
        ended.into_iter().for_each(|of| held.end(of));
    }

    fn scales(&self, chain: &Chain) -> Scales {
        let spec = &chain.namespace.spec;
        Scales {
            block_bytes: spec.max_payload_bytes,
            block_tokens: spec.block_tokens,
            prefill_rate: spec.prefill_tokens_per_second,
            ram: RAM_SPEED,
            nvme: self.tickets.speed.get(),
        }
    }

    /// Brings what a ticket promises to RAM, when it is its turn, and holds its share of RAM until it ends.
    async fn bring(self: Arc<Self>, ticket: Arc<Ticket>, request: PrefetchRequest) {
        let TierCounts { engine, ram, nvme, .. } = ticket.promised.counts;
        let block_bytes = u64::from(request.chain.namespace.spec.max_payload_bytes);
        let mut progress = Progress { ticket: &ticket, ready: engine + ram, bytes: 0, posted: None };
        let mut held = None;
        if nvme > 0 {
            progress.post(self.wait_for(u64::from(nvme) * block_bytes), false);
            let room =
                Arc::clone(&self.tickets.room).acquire_many_owned(self.tickets.pieces(u64::from(nvme) * block_bytes));
            held = tokio::select! {
                () = ticket.stop.cancelled() => return,
                () = tokio::time::sleep_until(request.deadline) => None,
                room = room => room.ok(),
            };
        }
        if held.is_some() {
            tokio::select! {
                () = ticket.stop.cancelled() => return,
                () = tokio::time::sleep_until(request.deadline) => {}
                () = self.bring_blocks(&mut progress, &request, block_bytes) => {}
            }
        }
        progress.post(0, true);
        if held.is_some() {
            ticket.stop.cancelled().await;
        }
    }

    async fn bring_blocks(&self, progress: &mut Progress<'_>, request: &PrefetchRequest, block_bytes: u64) {
        let (chain, ticket) = (&request.chain, progress.ticket);
        let first = progress.ready as usize;
        let wanted = || ticket.accepted.load(Ordering::Relaxed) as usize;
        let began = Instant::now();
        let mut ahead: VecDeque<Ahead> = VecDeque::new();
        for at in first..ticket.promised.counts.hit() as usize {
            if at >= wanted() {
                break;
            }
            while ahead.len() < FETCH_READ_AHEAD.min(wanted().saturating_sub(at)) {
                ahead.push_back(self.ask_ahead(&chain.key(at + ahead.len()), true));
            }
            let Some(next) = ahead.pop_front() else { break };
            let from_nvme = next.tier() == Tier::Nvme;
            if self.landed(&chain.key(at), next).await != Landing::Ready {
                break;
            }
            progress.bytes += if from_nvme { block_bytes } else { 0 };
            progress.ready += 1;
            let left = wanted().saturating_sub(at + 1) as u64 * block_bytes;
            progress.post(self.wait_for(left), false);
        }
        self.tickets.speed.seen(progress.bytes, began.elapsed());
        self.used(chain, progress.ready as usize, true);
    }

    /// How long so many bytes take from the drives, in milliseconds.
    fn wait_for(&self, bytes: u64) -> u32 {
        let time = Duration::from_secs_f64(bytes as f64 / self.tickets.speed.get().max(1.0));
        u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
    }
}

/// How far a ticket has come.
struct Progress<'a> {
    ticket: &'a Ticket,
    ready: u32,
    bytes: u64,
    posted: Option<Instant>,
}

impl Progress<'_> {
    /// Leaves the news, unless there were some just now.
    fn post(&mut self, estimate_ms: u32, done: bool) {
        let now = Instant::now();
        if !done && self.posted.is_some_and(|posted| now - posted < TICKET_NEWS_EVERY) {
            return;
        }
        self.posted = Some(now);
        let Prefetched { ticket, lease, .. } = self.ticket.promised;
        if self.ticket.stop.is_cancelled() {
            return;
        }
        let news = News { ticket, ready_blocks: self.ready, bytes: self.bytes, estimate_ms, lease, done };
        self.ticket.session.outbox.post(news);
    }
}
