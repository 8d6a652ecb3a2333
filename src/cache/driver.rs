//! The planner's thread: takes events one by one, asks the planner, and carries out its commands.
//!
//! It never waits for a drive or for a reader. What others finish (writes, loads, the last pin of a slot) is put on a
//! list that is as long as what is under way at most, and taken up after the next event.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::complaints::Complaints;
use super::error::Error;
use super::flight::{Flights, Landing};
use super::index::{Index, row};
use super::offers::{Offers, Part};
use super::peek::PeekPermit;
use super::residency::Residency;
use crate::plan::{Answer, BlockRef, Command, Event, Load, Planner, PutId, Transfer, Wanted, Write};
use crate::tiers::{
    Catalog, IndexError, NvmeShelf, Place, RamShelf, ReadDone, ReadError, ReadInto, SlotWriter, WriteError,
};
use crate::vocab::limits::{PLANNER_INBOX, TOUCHED_AT_ONCE};
use crate::vocab::{BlockKey, Clock, SlotClass, SlotId};
use crate::watch::Watch;

/// What a put's task is told about a block that it needs a slot for.
pub(super) enum Slot {
    /// The block may be written here.
    Granted(BlockRef, SlotWriter),
    /// There is none.
    Refused(BlockRef),
}

/// A look at the planner from its own thread.
type Look = Box<dyn FnOnce(&Planner) + Send>;

/// What the thread is asked.
enum Message {
    Event(Event, Option<oneshot::Sender<Answer>>),
    /// A put begins: its slots are granted through here.
    Offer(Event, PutId, mpsc::Sender<Slot>, oneshot::Sender<Answer>),
    /// A put needs a slot for a block of its own, which may be gone by now.
    Need(PutId, BlockRef),
    /// The bytes are in the slot: publish it and tell the planner.
    Filled {
        block: BlockRef,
        writer: SlotWriter,
        length: u32,
        crc: u64,
    },
    /// Somebody wants to read a block past RAM, and is told through here.
    Peek(BlockKey, Driver, oneshot::Sender<Option<PeekPermit>>),
    Look(Look),
    Quiet(oneshot::Sender<()>),
    /// The list of what is finished is not empty.
    Wake,
}

/// What was finished elsewhere.
enum Finished {
    Wrote(BlockRef, Transfer),
    Loaded(BlockRef, Result<SlotWriter, Transfer>),
    Peeked(BlockRef, Transfer),
    /// A drive was taken out.
    Lost(u16),
}

type Finishes = Arc<Mutex<Vec<Finished>>>;

/// How others reach the planner.
#[derive(Clone)]
pub(super) struct Driver {
    inbox: mpsc::Sender<Message>,
    finished: Finishes,
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
        let finished = Finishes::default();
        let wake = inbox.downgrade();
        hands.ram.set_wake(Box::new(move || {
            // A full inbox is awake anyway.
            if let Some(inbox) = wake.upgrade() {
                inbox.try_send(Message::Wake).ok();
            }
        }));
        if let Some(nvme) = &hands.nvme {
            let lost = finisher(&finished, &inbox.downgrade());
            nvme.on_lost(Box::new(move |drive| lost(Finished::Lost(drive))));
        }
        let wake = inbox.downgrade();
        let (puts, offers, commands, events) = (HashMap::new(), Offers::default(), Vec::new(), VecDeque::new());
        let (index, finishes) = (Index::new(watch), Arc::clone(&finished));
        let under_way = Vec::new();
        let mut run =
            Run { planner, hands, puts, offers, commands, under_way, events, index, finished: finishes, wake };
        let thread = std::thread::Builder::new().name(part.name()).spawn(move || part.run(|| run.run(messages)))?;
        Ok((Self { inbox, finished }, thread))
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

    /// A read past RAM has ended.
    pub(super) fn peeked(&self, block: BlockRef, outcome: Transfer) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).push(Finished::Peeked(block, outcome));
        self.inbox.try_send(Message::Wake).ok();
    }

    /// Tells the planner from where nothing can be awaited, such as a drop.
    pub(super) fn tell_soon(&self, event: Event) {
        let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(Message::Event(event, None)) else {
            return;
        };
        let inbox = self.inbox.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { inbox.send(message).await.ok() });
        }
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        self.inbox.send(message).await.map_err(|_| Error::Closing)
    }
}

/// The thread's own state.
struct Run {
    planner: Planner,
    hands: Hands,
    puts: HashMap<PutId, mpsc::Sender<Slot>>,
    offers: Offers,
    commands: Vec<Command>,
    /// Those being carried out: the two lists change places, so that no event allocates one.
    under_way: Vec<Command>,
    /// Events that carrying out commands has caused.
    events: VecDeque<Event>,
    index: Index,
    finished: Finishes,
    wake: mpsc::WeakSender<Message>,
}

impl Run {
    fn run(&mut self, mut messages: mpsc::Receiver<Message>) {
        let mut waiting_for_quiet: Vec<oneshot::Sender<()>> = Vec::new();
        let mut done = Vec::new();
        let mut freed = Vec::new();
        while let Some(message) = self.next(&mut messages) {
            let tick = matches!(message, Message::Event(Event::Tick, _));
            match message {
                Message::Event(event, reply) => self.event(event, reply),
                Message::Offer(event, put, slots, reply) => {
                    self.puts.insert(put, slots);
                    let answer = self.on(event);
                    self.offers.answered(Part::first(put, reply), answer);
                }
                Message::Need(put, block) => self.need(put, block),
                Message::Filled { block, writer, length, crc } => self.filled(block, writer, length, crc),
                Message::Peek(key, driver, reply) => {
                    let Answer::Peek(peek) = self.on(Event::Peek { key }) else { continue };
                    // Who has left drops it, and with that ends it.
                    reply.send(peek.map(|peek| PeekPermit::new(peek, driver))).ok();
                }
                Message::Look(look) => look(&self.planner),
                Message::Quiet(reply) => waiting_for_quiet.push(reply),
                Message::Wake => {}
            }
            std::mem::swap(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner), &mut done);
            for finished in done.drain(..) {
                self.finished(finished);
            }
            self.hands.ram.take_freed(&mut freed);
            for slot in freed.drain(..) {
                self.on(Event::RamFreed { slot });
            }
            if let Some(part) = self.offers.next() {
                let answer = self.on(Event::OfferMore { put: part.put });
                self.offers.answered(part, answer);
            }
            self.look_at_index(tick);
            while messages.is_empty() && self.planner.catch_up(TOUCHED_AT_ONCE) {}
            if !waiting_for_quiet.is_empty() && self.planner.is_quiet() {
                waiting_for_quiet.drain(..).for_each(|reply| reply.send(()).unwrap_or(()));
            }
        }
    }

    /// The next message; where chains wait to be offered further, one that says nothing if there is none.
    fn next(&self, messages: &mut mpsc::Receiver<Message>) -> Option<Message> {
        if self.offers.is_empty() {
            return messages.blocking_recv();
        }
        if self.offers.is_full() {
            return Some(Message::Wake);
        }
        match messages.try_recv() {
            Err(mpsc::error::TryRecvError::Empty) => Some(Message::Wake),
            message => message.ok(),
        }
    }

    fn event(&mut self, event: Event, reply: Option<oneshot::Sender<Answer>>) {
        let wanted = if let Event::Want { key } = &event { Some(*key) } else { None };
        let ended = if let Event::PutEnded { put } = &event { Some(*put) } else { None };
        let answer = self.on(event);
        match (&answer, wanted) {
            (Answer::Wanted(Wanted::Ready), Some(key)) => self.hands.flights.land(&key, Landing::Ready),
            (Answer::Wanted(Wanted::NoRoom), Some(key)) => self.hands.flights.land(&key, Landing::NoRoom),
            (Answer::Wanted(Wanted::Gone), Some(key)) => self.hands.flights.land(&key, Landing::Gone),
            _ => {}
        }
        if let Some(put) = ended {
            self.puts.remove(&put);
        }
        if let Some(reply) = reply {
            // Who has stopped waiting needs no answer.
            reply.send(answer).ok();
        }
    }

    fn need(&mut self, put: PutId, block: BlockRef) {
        if self.on(Event::Need { block }) == Answer::NoRoom {
            self.refuse(put, block);
        }
    }

    fn refuse(&self, put: PutId, block: BlockRef) {
        if let Some(slots) = self.puts.get(&put) {
            slots.try_send(Slot::Refused(block)).ok();
        }
    }

    /// Asks the planner, and does what it commands and what follows from that.
    fn on(&mut self, event: Event) -> Answer {
        let answer = self.planner.on(self.hands.clock.now(), event, &mut self.commands);
        self.carry_out();
        answer
    }

    /// Commands of one event are carried out before the next is asked about.
    fn carry_out(&mut self) {
        loop {
            let mut under_way = std::mem::take(&mut self.under_way);
            std::mem::swap(&mut self.commands, &mut under_way);
            for command in under_way.drain(..) {
                self.command(command);
            }
            self.under_way = under_way;
            let Some(event) = self.events.pop_front() else { return };
            self.planner.on(self.hands.clock.now(), event, &mut self.commands);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish { block, key, residence } => {
                self.hands.residency.publish(block.number(), &key, residence);
                if residence.ram.is_some() {
                    self.hands.flights.land(&key, Landing::Ready);
                }
            }
            Command::Unpublish { block, key } => self.hands.residency.unpublish(block.number(), &key),
            Command::Unloadable { key } => self.hands.flights.land(&key, Landing::Gone),
            Command::Fill { put, block, slot, class } => self.grant(put, block, slot, class),
            Command::Refuse { put, block } => self.refuse(put, block),
            Command::Retire { slot, class: _ } => {
                if self.hands.ram.retire(slot) {
                    self.events.push_back(Event::RamFreed { slot });
                }
            }
            Command::Write(write) => self.write(write),
            Command::Load(load) => self.load(load),
            Command::Erase { key, slot, class: _ } => self.erase(key, slot),
            Command::Promise { key, promise } => self.note(|catalog| catalog.put_promise(&key, &promise, false)),
            Command::Unpromise { key } => self.note(|catalog| catalog.delete_promise(&key)),
        }
    }

    fn grant(&mut self, put: PutId, block: BlockRef, slot: SlotId, class: SlotClass) {
        // A put that is gone says so itself, and the planner takes the slot back then.
        let Some(slots) = self.puts.get(&put) else { return };
        let answer = match self.hands.ram.writer(slot, class) {
            Some(writer) => Slot::Granted(block, writer),
            None => Slot::Refused(block),
        };
        slots.try_send(answer).ok();
    }

    fn filled(&mut self, block: BlockRef, writer: SlotWriter, length: u32, crc: u64) {
        if self.planner.awaits(block) {
            let generation = writer.publish();
            self.on(Event::Filled { block, generation, length, crc });
        }
    }

    fn finished(&mut self, finished: Finished) {
        match finished {
            Finished::Wrote(block, outcome) => self.on(Event::Wrote { block, outcome }),
            Finished::Peeked(block, outcome) => self.on(Event::Peeked { block, outcome }),
            Finished::Lost(drive) => self.on(Event::DriveLost { drive }),
            Finished::Loaded(block, Ok(writer)) => {
                let outcome = Transfer::Done(writer.publish());
                self.on(Event::Loaded { block, outcome })
            }
            Finished::Loaded(block, Err(outcome)) => self.on(Event::Loaded { block, outcome }),
        };
    }

    fn finisher(&self) -> impl Fn(Finished) + Send + Sync + 'static {
        finisher(&self.finished, &self.wake)
    }

    fn write(&mut self, write: Write) {
        let (slot, class, generation) = write.from;
        let finish = self.finisher();
        let pin = self.hands.ram.pin(slot, class, generation, write.length);
        // Deleted later, the row of old would take the new one along.
        let pin = pin.filter(|_| !self.index.still_names(&write.key));
        let (Some(nvme), Some(pin)) = (&self.hands.nvme, pin) else {
            return self.events.push_back(Event::Wrote { block: write.block, outcome: Transfer::Refused });
        };
        let (block, complaints) = (write.block, Arc::clone(&self.hands.complaints));
        nvme.write(write.key, pin, row(&write), move |result| {
            finish(Finished::Wrote(
                block,
                match result {
                    Ok(()) => Transfer::Done(0),
                    Err(WriteError::QueueFull) => Transfer::Refused,
                    Err(error) => {
                        complaints.unwritten(&write.key, write.to.0, &error);
                        Transfer::Failed
                    }
                },
            ));
        });
    }

    fn load(&mut self, load: Load) {
        let finish = self.finisher();
        let writer = self.hands.ram.writer(load.to.0, load.to.1);
        let (Some(nvme), Some(writer)) = (&self.hands.nvme, writer) else {
            return self.events.push_back(Event::Loaded { block: load.block, outcome: Transfer::Refused });
        };
        let place = Place { slot: load.from.0, class: load.from.1, length: load.length, crc: load.crc };
        let complaints = Arc::clone(&self.hands.complaints);
        nvme.read(load.key, place, ReadInto::Slot(writer), move |result| {
            finish(Finished::Loaded(
                load.block,
                match result {
                    Ok(ReadDone::Slot(writer)) => Ok(writer),
                    Ok(ReadDone::Bytes(_) | ReadDone::Region(_)) | Err(ReadError::QueueFull) => Err(Transfer::Refused),
                    Err(error) => {
                        complaints.lost(&load.key, load.from.0, &error);
                        Err(Transfer::Failed)
                    }
                },
            ));
        });
    }

    /// Done on this thread, so that a later write of the same key can't overtake it.
    fn erase(&mut self, key: BlockKey, slot: SlotId) {
        let Some(nvme) = &self.hands.nvme else { return };
        match nvme.catalog().delete(key) {
            Ok(()) => self.events.push_back(Event::Erased { slot }),
            // The slot stays out of use: its row may still name it.
            Err(error) => {
                self.hands.complaints.undeleted(&key, slot, &error);
                self.index.keep(key, slot);
            }
        }
    }
}

impl Run {
    /// Tells the index of a promise. Not written, it is shorter after a restart, or longer by what nobody was told of.
    fn note(&self, note: impl FnOnce(&Catalog) -> Result<(), IndexError>) {
        if let Some(nvme) = &self.hands.nvme {
            note(nvme.catalog()).ok();
        }
    }

    /// Tells the planner when rows can't be written any more, has the catalog opened again, and deletes then what could not
    /// be deleted.
    fn look_at_index(&mut self, tick: bool) {
        let Some(nvme) = &self.hands.nvme else { return };
        let failing = nvme.catalog().is_failing();
        if !failing && !self.index.failing {
            return;
        }
        let nvme = Arc::clone(nvme);
        if failing && !self.index.failing {
            self.index.failing = true;
            self.on(Event::IndexFailing { failing });
        }
        if !tick {
            return;
        }
        if failing {
            return self.index.mend(&nvme, &self.hands.complaints);
        }
        for slot in self.index.delete_some(nvme.catalog()) {
            self.on(Event::Erased { slot });
        }
        if self.index.is_clean() && !nvme.catalog().is_failing() {
            tracing::warn!("the catalog can be written again: blocks come to the drives as before");
            self.index.failing = false;
            self.on(Event::IndexFailing { failing: false });
        }
    }
}

/// Where to put what is finished, from whatever thread it is finished on.
fn finisher(finished: &Finishes, wake: &mpsc::WeakSender<Message>) -> impl Fn(Finished) + Send + Sync + 'static {
    let (finished, wake) = (Arc::clone(finished), wake.clone());
    move |done| {
        finished.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        if let Some(inbox) = wake.upgrade() {
            inbox.try_send(Message::Wake).ok();
        }
    }
}
