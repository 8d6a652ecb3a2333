//! The planner's thread, as others reach it: questions go into its inbox, and what was finished onto a list.
//!
//! It never waits for a drive, a row or a reader. What others finish (writes, loads, the last pin of a slot), and what they
//! can't wait to say (a put's end), is on a list that is as long as what is under way at most.

mod commands;
mod message;
mod run;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::complaints::Complaints;
use super::error::Error;
use super::flight::Flights;
use super::peek::PeekPermit;
use super::residency::Residency;
use crate::plan::{Answer, BlockRef, Event, Planner, PutId, Removed, Transfer};
use crate::tiers::{IndexError, NvmeShelf, RamShelf, RowsWatch, SlotWriter};
use crate::vocab::limits::PLANNER_INBOX;
use crate::vocab::{BlockKey, Clock, SlotId};
use crate::watch::Watch;

pub use turns::TurnTimes;

pub(super) use message::Slot;
use message::{Finished, Finishes, Look, Message};
use run::Run;
use turns::Turns;

/// How others reach the planner.
#[derive(Clone)]
pub(super) struct Driver {
    inbox: mpsc::Sender<Message>,
    finished: Arc<Finishes>,
    turns: Arc<Turns>,
}

/// What the thread works with.
pub(super) struct Hands {
    pub(super) ram: Arc<RamShelf>,
    pub(super) nvme: Option<Arc<NvmeShelf>>,
    pub(super) residency: Arc<Residency>,
    pub(super) flights: Arc<Flights>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) complaints: Arc<Complaints>,
}

impl Driver {
    /// Starts the thread, as a part of `watch`.
    pub(super) fn start(
        planner: Planner,
        mut hands: Hands,
        watch: &Watch,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let part = watch.vital("planner");
        hands.clock = part.clock(hands.clock);
        let (inbox, messages) = mpsc::channel(PLANNER_INBOX);
        let finished = Arc::new(Finishes::new(inbox.downgrade()));
        let wake = Arc::clone(&finished);
        hands.ram.set_wake(Box::new(move || wake.wake()));
        if let Some(nvme) = &hands.nvme {
            let lost = Arc::clone(&finished);
            nvme.on_lost(Box::new(move |drive| lost.push(Finished::Lost(drive))));
            let (finished, complaints) = (Arc::clone(&finished), Arc::clone(&hands.complaints));
            nvme.start_rows(Box::new(RowsTold { finished, complaints }), watch)?;
        }
        let turns = Arc::<Turns>::default();
        let mut run = Run::new(planner, hands, Arc::clone(&finished), Arc::clone(&turns));
        let thread = std::thread::Builder::new().name(part.name()).spawn(move || part.run(|| run.run(messages)))?;
        Ok((Self { inbox, finished, turns }, thread))
    }

    /// How long its turns have taken.
    pub(super) fn turns(&self) -> TurnTimes {
        self.turns.times()
    }

    /// Tells the planner and waits for its answer.
    pub(super) async fn ask(&self, event: Event) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Event(event, Some(reply))).await?;
        answer.await.map_err(|_| Error::Closing)
    }

    /// Tells the planner.
    pub(super) async fn tell(&self, event: Event) -> Result<(), Error> {
        self.send(Message::Event(event, None)).await
    }

    /// Tells the planner if it has room for it now; whether it has.
    pub(super) fn try_tell(&self, event: Event) -> bool {
        self.inbox.try_send(Message::Event(event, None)).is_ok()
    }

    pub(super) async fn offer(&self, event: Event, put: PutId, slots: mpsc::Sender<Slot>) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Offer(event, put, slots, reply)).await?;
        answer.await.map_err(|_| Error::Closing)
    }

    /// Asks for a slot, which is granted or refused where the put's slots are.
    pub(super) async fn need(&self, put: PutId, block: BlockRef) -> Result<(), Error> {
        self.send(Message::Need(put, block)).await
    }

    pub(super) async fn filled(&self, block: BlockRef, writer: SlotWriter, length: u32, crc: u64) -> Result<(), Error> {
        self.send(Message::Filled { block, writer, length, crc }).await
    }

    /// Has a look at the planner between two events.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Planner) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, seen) = oneshot::channel();
        let look: Look = Box::new(move |planner| {
            reply.send(look(planner)).ok();
        });
        self.send(Message::Look(look)).await?;
        seen.await.map_err(|_| Error::Closing)
    }

    /// Waits until nothing is under way in the background; false when that took too long.
    pub(super) async fn quiesce(&self, timeout: Duration) -> Result<bool, Error> {
        let (reply, quiet) = oneshot::channel();
        self.send(Message::Quiet(reply)).await?;
        match tokio::time::timeout(timeout, quiet).await {
            Ok(quiet) => quiet.map(|()| true).map_err(|_| Error::Closing),
            Err(_) => Ok(false),
        }
    }

    /// Asks for the right to read a block past RAM; none where there is nothing to read.
    pub(super) async fn peek(&self, key: BlockKey) -> Result<Option<PeekPermit>, Error> {
        let (reply, permit) = oneshot::channel();
        self.send(Message::Peek(key, self.clone(), reply)).await?;
        permit.await.map_err(|_| Error::Closing)
    }

    /// Has blocks removed, which may take many events. What was, once none of it can be read any more, and no row of it is left.
    pub(super) async fn remove(&self, event: Event) -> Result<Removed, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Remove(event, reply)).await?;
        let (removed, rows_are_gone) = answer.await.map_err(|_| Error::Closing)?;
        if rows_are_gone {
            return Ok(removed);
        }
        let Removed { blocks, .. } = removed;
        Err(Error::Broken(format!(
            "{blocks} blocks were removed and can't be read any more, but the catalog can't be written: their rows are \
             deleted once it can be, and a restart before that would bring blocks back, so ask again then"
        )))
    }

    /// A read past RAM has ended.
    pub(super) fn peeked(&self, block: BlockRef, outcome: Transfer) {
        self.finished.push(Finished::Peeked(block, outcome));
    }

    /// Tells the planner from where nothing can be awaited, such as a drop: what has begun and ends with this, so that no
    /// more of it waits than there was.
    pub(super) fn tell_soon(&self, event: Event) {
        self.finished.push(Finished::Told(event, None));
    }

    /// The same; `done` once what follows from it is done, however many events that takes.
    pub(super) fn tell_soon_and(&self, event: Event, done: impl FnOnce() + Send + 'static) {
        self.finished.push(Finished::Told(event, Some(Box::new(done))));
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        self.inbox.send(message).await.map_err(|_| Error::Closing)
    }
}

/// Tells the planner, and people, what becomes of rows.
struct RowsTold {
    finished: Arc<Finishes>,
    complaints: Arc<Complaints>,
}

impl RowsWatch for RowsTold {
    fn erased(&self, slots: &[SlotId]) {
        self.finished.push_all(slots.iter().map(|slot| Finished::Erased(*slot)));
    }

    fn undeleted(&self, key: &BlockKey, slot: SlotId, error: &IndexError) {
        self.complaints.undeleted(key, slot, error);
    }

    fn unmended(&self, error: &IndexError) {
        self.complaints.unmended(error);
    }
}

#[cfg(test)]
mod tests;
