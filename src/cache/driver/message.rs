//! What the planner's thread is asked, and told of what others have finished.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::super::peek::PeekPermit;
use super::Driver;
use crate::plan::{Answer, BlockRef, Event, Planner, PutId, Removed, Transfer};
use crate::tiers::SlotWriter;
use crate::vocab::{BlockKey, SlotId};

/// What a put's task is told about a block that it needs a slot for.
pub(in crate::cache) enum Slot {
    /// The block may be written here.
    Granted(BlockRef, SlotWriter),
    /// There is none.
    Refused(BlockRef),
}

/// A look at the planner from its own thread: at what it counts, never at all blocks.
pub(super) type Look = Box<dyn FnOnce(&Planner) + Send>;

/// What was removed, and whether no row of it is left.
pub(super) type RemovedReply = oneshot::Sender<(Removed, bool)>;

/// Called once, when something is done.
pub(super) type OnceDone = Box<dyn FnOnce() + Send>;

/// What the thread is asked.
pub(super) enum Message {
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
    /// Blocks are to be removed.
    Remove(Event, RemovedReply),
    /// What whoever says it could not wait to say, and who is to hear when all that follows is done.
    Told(Event, Option<OnceDone>),
    Look(Look),
    Quiet(oneshot::Sender<()>),
    /// The list of what is finished is not empty.
    Wake,
}

impl Message {
    /// Whether it may be answered before those that came before it and wait for the order of going to be that of now. (What
    /// their senders do next, they do after their answers.)
    pub(super) fn may_overtake(&self) -> bool {
        match self {
            Self::Event(event, _) => !event.asks_for_order(),
            Self::Wake => true,
            _ => false,
        }
    }

    /// Whether the order of going is nothing to it.
    pub(super) fn needs_no_order(&self) -> bool {
        self.may_overtake() || matches!(self, Self::Look(_) | Self::Quiet(_))
    }
}

/// What was finished elsewhere.
pub(super) enum Finished {
    Wrote(BlockRef, Transfer),
    Loaded(BlockRef, Result<SlotWriter, Transfer>),
    Peeked(BlockRef, Transfer),
    /// The row that named this slot is gone.
    Erased(SlotId),
    /// Nobody reads this slot of RAM any more.
    RamFreed(SlotId),
    /// A drive was taken out.
    Lost(u16),
    /// What whoever says it could not wait to say, and who is to hear when all that follows is done.
    Told(Event, Option<OnceDone>),
}

/// The list of it.
pub(super) struct Finishes {
    list: Mutex<Vec<Finished>>,
    inbox: mpsc::WeakSender<Message>,
}

impl Finishes {
    pub(super) fn new(inbox: mpsc::WeakSender<Message>) -> Self {
        Self { list: Mutex::default(), inbox }
    }

    pub(super) fn push(&self, finished: Finished) {
        self.push_all([finished]);
    }

    pub(super) fn push_all(&self, finished: impl IntoIterator<Item = Finished>) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).extend(finished);
        self.wake();
    }

    /// Has the thread look at what is finished.
    pub(super) fn wake(&self) {
        // A full inbox is awake anyway.
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.try_send(Message::Wake).ok();
        }
    }

    /// Exchanges the list for an empty one.
    pub(super) fn take(&self, empty: &mut Vec<Finished>) {
        std::mem::swap(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner), empty);
    }
}
