//! The planner's thread as it runs: in turns, each as short as the other.
//!
//! A turn takes a message, some of what was finished, a part of an offer that is long, a step of what is too long for one event,
//! and touches some blocks of chains that were used. Then it looks at its inbox again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::super::flight::Landing;
use super::super::offers::{Offers, Part};
use super::super::peek::PeekPermit;
use super::Hands;
use super::message::{Finished, Finishes, Message, OnceDone, RemovedReply, Slot};
use super::turns::{Turn, Turns};
use crate::plan::{Answer, BlockRef, Command, Event, JobId, Planner, PutId, Removed, Transfer, Wanted};
use crate::tiers::SlotWriter;
use crate::vocab::SlotId;
use crate::vocab::limits::{FINISHED_AT_ONCE, HELD_MAX, JOBS_MAX, TOUCHED_AT_ONCE, UNTOUCHED_CHAINS_MAX};

/// Who waits for the end of a job.
enum Waits {
    /// Until no row is left of what it removed.
    Reply(RemovedReply),
    Done(OnceDone),
}

/// The thread's own state.
pub(super) struct Run {
    pub(super) planner: Planner,
    pub(super) hands: Hands,
    pub(super) puts: HashMap<PutId, mpsc::Sender<Slot>>,
    offers: Offers,
    pub(super) commands: Vec<Command>,
    /// Those being carried out: the two lists change places, so that no event allocates one.
    pub(super) under_way: Vec<Command>,
    /// Events that carrying out commands has caused.
    pub(super) events: VecDeque<Event>,
    pub(super) finished: Arc<Finishes>,
    /// What was finished and is still to be told, each with the chains that are to be touched before.
    done: VecDeque<(u64, Finished)>,
    /// What was told past the inbox, each with the messages to be taken before.
    told: VecDeque<(u64, Message)>,
    messages_taken: u64,
    /// Messages that wait for the order of going, in their order, each with the same.
    held: VecDeque<(u64, Message)>,
    /// Chains that were used before what is being told: these are touched before the order of going counts.
    pub(super) mark: u64,
    /// The same for what goes on in parts.
    parts_mark: u64,
    jobs: HashMap<JobId, Waits>,
    waiting_for_quiet: Vec<oneshot::Sender<()>>,
    /// The planner was told that rows can't be written.
    index_failing: bool,
    /// Time has passed since the catalog was looked at.
    ticked: bool,
    turn: Turn,
    // Emptied in each turn.
    taken: Vec<Finished>,
    freed: Vec<SlotId>,
}

/// What the inbox has.
enum Next {
    Message(Message),
    /// Nothing, and there is work to go on with.
    Work,
    /// Nobody who could ask anything.
    End,
}

impl Run {
    pub(super) fn new(planner: Planner, hands: Hands, finished: Arc<Finishes>, turns: Arc<Turns>) -> Self {
        Self {
            planner,
            hands,
            puts: HashMap::new(),
            offers: Offers::default(),
            commands: Vec::new(),
            under_way: Vec::new(),
            events: VecDeque::new(),
            finished,
            done: VecDeque::new(),
            told: VecDeque::new(),
            messages_taken: 0,
            held: VecDeque::new(),
            mark: 0,
            parts_mark: 0,
            jobs: HashMap::new(),
            waiting_for_quiet: Vec::new(),
            index_failing: false,
            ticked: false,
            turn: Turn::new(turns),
            taken: Vec::new(),
            freed: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            match self.next(&mut messages) {
                Next::Message(message) => {
                    self.messages_taken += 1;
                    self.take(message);
                }
                Next::Work => {}
                Next::End => break,
            }
            if self.held.front().is_some_and(|(mark, _)| self.planner.has_touched(*mark))
                && let Some((mark, message)) = self.held.pop_front()
            {
                self.mark = mark;
                self.message(message);
            }
            self.take_finished(messages.len());
            if self.planner.has_touched(self.parts_mark) {
                self.go_on();
            }
            self.planner.catch_up(TOUCHED_AT_ONCE);
            let waits = self.told.len() + self.held.len() + self.done.len();
            if !self.waiting_for_quiet.is_empty() && waits == 0 && self.planner.is_quiet() {
                self.waiting_for_quiet.drain(..).for_each(|reply| reply.send(()).unwrap_or(()));
            }
        }
        self.wait_for_rows();
    }

    /// Looks at the inbox: between two looks is one turn.
    fn next(&mut self, messages: &mut mpsc::Receiver<Message>) -> Next {
        let is_full = self.offers.is_full()
            || self.held.len() >= HELD_MAX
            || self.planner.jobs() >= JOBS_MAX
            || self.planner.untouched_chains() >= UNTOUCHED_CHAINS_MAX;
        if is_full {
            return Next::Work;
        }
        let has_work = !self.offers.is_empty()
            || self.told.len() + self.held.len() + self.done.len() > 0
            || self.planner.untouched_chains() > 0
            || self.planner.is_working();
        self.turn.end();
        if !has_work {
            let message = messages.blocking_recv();
            self.turn.begin();
            return message.map_or(Next::End, Next::Message);
        }
        match messages.try_recv() {
            Ok(message) => Next::Message(message),
            Err(TryRecvError::Empty) => Next::Work,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }

    /// Takes a message, or holds it until chains that were used before are touched.
    fn take(&mut self, message: Message) {
        self.mark = self.planner.used_chains();
        let waits = !self.held.is_empty() || !(message.needs_no_order() || self.planner.has_touched(self.mark));
        if waits && !message.may_overtake() {
            self.held.push_back((self.mark, message));
        } else {
            self.message(message);
        }
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Event(event, reply) => {
                self.ticked |= matches!(event, Event::Tick);
                self.event(event, reply);
            }
            Message::Offer(event, put, slots, reply) => {
                self.puts.insert(put, slots);
                let answer = self.on(event);
                self.offers.answered(Part::first(put, reply), answer);
            }
            Message::Need(put, block) => {
                if self.on(Event::Need { block }) == Answer::NoRoom {
                    self.refuse(put, block);
                }
            }
            Message::Filled { block, writer, length, crc } => self.filled(block, writer, length, crc),
            Message::Peek(key, driver, reply) => {
                let Answer::Peek(peek) = self.on(Event::Peek { key }) else { return };
                // Who has left drops it, and with that ends it.
                reply.send(peek.map(|peek| PeekPermit::new(peek, driver))).ok();
            }
            Message::Remove(event, reply) => self.remove(event, Waits::Reply(reply)),
            Message::Told(event, None) => self.event(event, None),
            Message::Told(event, Some(done)) => self.remove(event, Waits::Done(done)),
            Message::Look(look) => look(&self.planner),
            Message::Quiet(reply) => self.waiting_for_quiet.push(reply),
            Message::Wake => {}
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

    fn filled(&mut self, block: BlockRef, writer: SlotWriter, length: u32, crc: u64) {
        if self.planner.awaits(block) {
            let generation = writer.publish();
            self.on(Event::Filled { block, generation, length, crc });
        }
    }

    /// Has blocks removed, in one event or many.
    fn remove(&mut self, event: Event, waits: Waits) {
        match self.on(event) {
            Answer::Removing(job) => drop(self.jobs.insert(job, waits)),
            Answer::Removed(removed) => self.removed(removed, waits),
            _ => self.removed(Removed::default(), waits),
        }
    }

    /// All that a job should remove is removed, and the deletion of its rows asked for.
    fn removed(&self, removed: Removed, waits: Waits) {
        match (waits, &self.hands.nvme) {
            // Who has left needs no answer.
            (Waits::Reply(reply), None) => {
                reply.send((removed, true)).ok();
            }
            (Waits::Reply(reply), Some(nvme)) => {
                nvme.rows().passed(move |gone| {
                    reply.send((removed, gone)).ok();
                });
            }
            (Waits::Done(done), _) => done(),
        }
    }

    /// Tells the planner some of what was finished; so many messages are in the inbox.
    fn take_finished(&mut self, in_inbox: usize) {
        let now = self.planner.used_chains();
        self.finished.take(&mut self.taken);
        for finished in self.taken.drain(..) {
            match finished {
                // After what the same task has said before.
                Finished::Told(event, done) => {
                    self.told.push_back((self.messages_taken + in_inbox as u64, Message::Told(event, done)));
                }
                finished => self.done.push_back((now, finished)),
            }
        }
        if let Some((_, told)) = self.told.pop_front_if(|(after, _)| *after <= self.messages_taken) {
            self.take(told);
        }
        self.hands.ram.take_freed(&mut self.freed);
        self.done.extend(self.freed.drain(..).map(|slot| (now, Finished::RamFreed(slot))));
        for _ in 0..FINISHED_AT_ONCE {
            let Some((mark, finished)) = self.done.pop_front_if(|(mark, _)| self.planner.has_touched(*mark)) else {
                return;
            };
            self.mark = mark;
            self.finished(finished);
        }
    }

    fn finished(&mut self, finished: Finished) {
        match finished {
            Finished::Wrote(block, outcome) => drop(self.on(Event::Wrote { block, outcome })),
            Finished::Peeked(block, outcome) => drop(self.on(Event::Peeked { block, outcome })),
            Finished::Erased(slot) => drop(self.on(Event::Erased { slot })),
            Finished::RamFreed(slot) => drop(self.on(Event::RamFreed { slot })),
            Finished::Lost(drive) => drop(self.on(Event::DriveLost { drive })),
            Finished::Loaded(block, Ok(writer)) => {
                let outcome = Transfer::Done(writer.publish());
                self.on(Event::Loaded { block, outcome });
            }
            Finished::Loaded(block, Err(outcome)) => drop(self.on(Event::Loaded { block, outcome })),
            Finished::Told(event, done) => self.message(Message::Told(event, done)),
        }
    }

    /// A part, or a step, of what is too long for one event.
    fn go_on(&mut self) {
        self.mark = self.parts_mark;
        if let Some(part) = self.offers.next() {
            let answer = self.on(Event::OfferMore { put: part.put });
            self.offers.answered(part, answer);
        }
        if self.planner.is_working()
            && let Answer::Proceeded(Some((job, removed))) = self.on(Event::Proceed)
            && let Some(waits) = self.jobs.remove(&job)
        {
            self.removed(removed, waits);
        }
        self.look_at_index();
        self.parts_mark = self.planner.used_chains();
    }

    /// Tells the planner when rows can't be written any more, and when they can be again.
    fn look_at_index(&mut self) {
        let Some(nvme) = &self.hands.nvme else { return };
        let failing = nvme.rows().is_troubled();
        if std::mem::take(&mut self.ticked) && failing {
            nvme.rows().look();
        }
        if failing != self.index_failing {
            self.index_failing = failing;
            if !failing {
                tracing::warn!("the catalog can be written again: blocks come to the drives as before");
            }
            self.on(Event::IndexFailing { failing });
        }
    }

    /// Nobody asks any more: whoever joins the thread finds all rows written.
    fn wait_for_rows(&self) {
        let Some(nvme) = &self.hands.nvme else { return };
        let (sender, passed) = std::sync::mpsc::sync_channel(1);
        nvme.rows().passed(move |_| {
            sender.send(()).ok();
        });
        // Without an answer its thread is gone, and with it what could be waited for.
        passed.recv().ok();
    }
}
