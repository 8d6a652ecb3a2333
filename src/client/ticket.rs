//! Tickets: prefixes that are brought to RAM while their requests queue. A scheduler's loop looks at what has come over the
//! session's stream, and asks nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lookup::{Lease, lease_of, millis};
use super::{Chain, Client, ClientError, Session};
use crate::proto::{AcceptRequest, FinishRequestRequest, PrefetchRequest, RequestOutcome, TicketUpdate};
use crate::vocab::RequestId;

/// How far a ticket has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Blocks of the prefix that are in RAM, or in the engine.
    pub ready_blocks: u32,
    /// Bytes brought to RAM so far.
    pub bytes: u64,
    /// Until all is ready, as far as can be told.
    pub estimate: Duration,
    /// Nothing more will come before the engine asks for it.
    pub done: bool,
}

/// What the session's stream has told.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<News>);

#[derive(Debug, Default)]
struct News {
    /// How many hold each ticket, and its latest news.
    held: HashMap<u64, (usize, Option<Readiness>)>,
    /// Calls that have no answer yet, and news of tickets that nobody holds: they may be those calls'.
    asking: usize,
    early: HashMap<u64, Readiness>,
}

impl Board {
    pub(super) fn tell(&self, update: &TicketUpdate) {
        let readiness = Readiness {
            ready_blocks: update.ready_blocks,
            bytes: update.bytes,
            estimate: Duration::from_millis(update.estimate_ms.into()),
            done: update.done,
        };
        let mut news = self.lock();
        if let Some(held) = news.held.get_mut(&update.ticket) {
            held.1 = Some(readiness);
        } else if news.asking > 0 {
            news.early.insert(update.ticket, readiness);
        }
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call whose ticket may be told of before it is answered.
struct Asking<'a>(&'a Board);

impl<'a> Asking<'a> {
    fn begin(board: &'a Board) -> Self {
        board.lock().asking += 1;
        Self(board)
    }

    fn hold(&self, ticket: u64) {
        let mut news = self.0.lock();
        let early = news.early.remove(&ticket);
        let held = news.held.entry(ticket).or_default();
        *held = (held.0 + 1, early.or(held.1));
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut news = self.0.lock();
        news.asking -= 1;
        if news.asking == 0 {
            news.early.clear();
        }
    }
}

/// A prefix on its way to RAM, until its request is finished.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    /// Tokens for which loading beats recomputing.
    pub hit_tokens: u64,
    /// Blocks of them that were in RAM at the start.
    pub blocks_ram: u32,
    /// Blocks of them that were on NVMe.
    pub blocks_nvme: u32,
    /// What protects them.
    pub lease: Option<Lease>,
    board: Arc<Board>,
}

impl Ticket {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How far it has come, by the last news: a look at this process's own memory.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let before = Readiness { ready_blocks: self.blocks_ram, ..Readiness::default() };
        self.board.lock().held.get(&self.number).and_then(|held| held.1).unwrap_or(before)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut news = self.board.lock();
        if let Some(held) = news.held.get_mut(&self.number) {
            held.0 -= 1;
            if held.0 == 0 {
                news.held.remove(&self.number);
            }
        }
    }
}

impl Client {
    /// Leases the prefix that is worth loading and has it brought to RAM; answers at once. One ticket a request: the same
    /// call again names the same one.
    ///
    /// # Errors
    /// As [`Client::lookup`].
    pub async fn prefetch(
        &self,
        session: &Session,
        request_id: &RequestId,
        chain: &Chain,
        already_computed_blocks: u32,
        deadline: Option<Duration>,
    ) -> Result<Ticket, ClientError> {
        let request = PrefetchRequest {
            session_id: session.id(),
            request_id: request_id.as_str().to_owned(),
            chain: Some(chain.to_wire()),
            deadline_ms: deadline.map_or(0, |most| u32::try_from(millis(most).max(1)).unwrap_or(u32::MAX)),
            already_computed_blocks,
        };
        let asking = Asking::begin(session.board());
        let reply = self.answer("Prefetch", self.cache_service().prefetch(request)).await?;
        asking.hold(reply.ticket);
        Ok(Ticket {
            number: reply.ticket,
            hit_tokens: reply.hit_tokens,
            blocks_ram: reply.blocks_ram,
            blocks_nvme: reply.blocks_nvme,
            lease: reply.lease.and_then(lease_of),
            board: Arc::clone(session.board()),
        })
    }

    /// Takes so many tokens of a ticket: no more are brought, nor leased.
    ///
    /// # Errors
    /// For a ticket that has ended.
    pub async fn accept(&self, session: &Session, ticket: &Ticket, tokens: u64) -> Result<(), ClientError> {
        let request = AcceptRequest { session_id: session.id(), ticket: ticket.number, tokens };
        self.answer("Accept", self.cache_service().accept(request)).await.map(drop)
    }

    /// The request is over: its tickets, leases and reservations end, and once this has returned the daemon neither reads nor
    /// writes memory of this engine for it. `completed`: what is under way may end by itself. Idempotent.
    ///
    /// # Errors
    /// When the daemon can't be asked; the instance's end finishes all of its requests.
    pub async fn finish_request(
        &self,
        session: &Session,
        request_id: &RequestId,
        completed: bool,
    ) -> Result<(), ClientError> {
        let outcome = if completed { RequestOutcome::Completed } else { RequestOutcome::Aborted };
        let request = FinishRequestRequest {
            session_id: session.id(),
            request_id: request_id.as_str().to_owned(),
            outcome: outcome.into(),
        };
        self.answer("FinishRequest", self.cache_service().finish_request(request)).await.map(drop)
    }
}
