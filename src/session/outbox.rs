//! What a session's stream is to be told: of each ticket its latest news, however slowly the process reads.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::plan::Leased;

/// How far a ticket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Which ticket.
    pub ticket: u64,
    /// Blocks of its prefix that are in RAM or in the engine.
    pub ready_blocks: u32,
    /// Bytes promoted so far.
    pub bytes: u64,
    /// Until the whole prefix is ready, in milliseconds, as far as can be told.
    pub estimate_ms: u32,
    /// The lease that protects it.
    pub lease: Option<Leased>,
    /// Nothing more will come.
    pub done: bool,
}

/// News not yet told. At most one a ticket, so as long as there may be tickets.
#[derive(Debug, Default)]
pub struct Outbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    news: BTreeMap<u64, News>,
    reader: Option<Waker>,
}

impl Outbox {
    /// Leaves news; they replace older ones of the same ticket.
    pub fn post(&self, news: News) {
        let mut inner = self.lock();
        inner.news.insert(news.ticket, news);
        if let Some(reader) = inner.reader.take() {
            reader.wake();
        }
    }

    /// Nobody wants to hear of this ticket any more.
    pub fn forget(&self, ticket: u64) {
        self.lock().news.remove(&ticket);
    }

    /// The next news, the oldest ticket's first.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<News> {
        let mut inner = self.lock();
        match inner.news.pop_first() {
            Some((_, news)) => Poll::Ready(news),
            None => {
                inner.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_gets_the_latest_of_each_ticket() {
        let outbox = Outbox::default();
        let news =
            |ticket, ready_blocks| News { ticket, ready_blocks, bytes: 0, estimate_ms: 0, lease: None, done: false };
        for ready in 0..1_000 {
            outbox.post(news(7, ready));
            outbox.post(news(3, ready));
        }
        outbox.post(news(9, 1));
        outbox.forget(9);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_next(&mut context), Poll::Ready(news(3, 999)));
        assert_eq!(outbox.poll_next(&mut context), Poll::Ready(news(7, 999)));
        assert_eq!(outbox.poll_next(&mut context), Poll::Pending);
    }
}
