//! Who has which slot of the arena: the protocol of the slots' words, without their memory.
//!
//! A slot is claimed by one writer, published under a generation, pinned by readers that name it, and retired; it can be
//! claimed again once the last pin has ended. Planner and readers race, so every step is one compare-and-swap on the
//! slot's word (`word.rs`): a pin either counts before the retirement, which then waits for it, or fails.
//!
//! Generic over the words, so that `tests/arena_protocol.rs` runs these very lines, with the reader's half
//! (`copy/held.rs`), for every interleaving and reordering that the memory model allows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use super::lock;
use super::word::{Then, Word};
use crate::copy::SharedWord;
use crate::vocab::{SlotClass, SlotId};

/// A slot, and where its word is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) slot: SlotId,
    pub(super) class: SlotClass,
    /// Number of its word.
    pub(super) word: usize,
}

/// A word that is changed here.
pub(super) trait OwnWord: SharedWord {
    /// One that holds this.
    fn holding(value: u64) -> Self;
    /// As [`AtomicU64::compare_exchange_weak`].
    ///
    /// # Errors
    /// What it holds instead.
    fn exchange(&self, before: u64, after: u64, success: Ordering, failure: Ordering) -> Result<u64, u64>;
    /// As [`AtomicU64::fetch_sub`].
    fn subtract(&self, by: u64, order: Ordering) -> u64;
}

impl OwnWord for AtomicU64 {
    fn holding(value: u64) -> Self {
        Self::new(value)
    }

    #[inline]
    fn exchange(&self, before: u64, after: u64, success: Ordering, failure: Ordering) -> Result<u64, u64> {
        self.compare_exchange_weak(before, after, success, failure)
    }

    #[inline]
    fn subtract(&self, by: u64, order: Ordering) -> u64 {
        self.fetch_sub(by, order)
    }
}

/// The words of all slots, wherever they lie.
pub(super) trait Table {
    /// What a word is.
    type Word: OwnWord;
    /// Word number `at`.
    fn get(&self, at: usize) -> &Self::Word;
}

/// Who has which slot.
pub(super) struct Holders<T: Table> {
    words: T,
    /// What a word stands for that is still zero.
    first: Word,
    /// For each extent, the class that its held slots have and how many are held. Slots of two classes overlap, so the
    /// planner moves an extent only when it is empty; a mistake there must not become two writers of one byte.
    guards: Box<[T::Word]>,
    /// At most one entry a slot.
    freed: Mutex<Vec<SlotId>>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl<T: Table> Holders<T> {
    /// Nobody has any slot of these extents yet; generations count from `generation`.
    pub(super) fn new(words: T, extents: usize, generation: u64) -> Self {
        let guards = std::iter::repeat_with(|| T::Word::holding(0)).take(extents).collect();
        Self { words, first: Word::first(generation), guards, freed: Mutex::default(), wake: OnceLock::new() }
    }

    pub(super) fn words(&self) -> &T {
        &self.words
    }

    /// One more reader; false where the slot does not hold `generation` any more, or its extent has another class.
    pub(super) fn pin(&self, spot: &Spot, generation: u64) -> bool {
        // Acquire: what the writer wrote before it published is seen after.
        let pinned = |word| Word(word).pinned(generation).map(|word| word.0);
        if update(self.words.get(spot.word), Ordering::Acquire, pinned).is_none() {
            return false;
        }
        // A pinned slot is held, so its extent's class can't change under it.
        let is_own = guard_class(self.guard(spot.slot).load(Ordering::Relaxed)) == spot.class.bytes();
        if !is_own {
            self.unpin(spot);
        }
        is_own
    }

    /// Takes the slot for its only writer, who may write once this returns: the generation to come. `None` where somebody
    /// still has it, or slots of another class in its extent.
    pub(super) fn claim(&self, spot: &Spot) -> Option<u64> {
        update(self.guard(spot.slot), Ordering::Acquire, |guard| guard_claimed(guard, spot.class))?;
        // Acquire: the last reader's reads are over before the first write.
        let lived = |word| if word == 0 { self.first } else { Word(word) };
        let claimed = |word| lived(word).claimed().map(|word| word.0);
        let Some(before) = update(self.words.get(spot.word), Ordering::Acquire, claimed) else {
            self.release_extent(spot.slot);
            return None;
        };
        // A worker that sees one of the bytes to come sees this word, too, when it looks after its last read: the
        // other half is its acquire fence.
        T::Word::fence(Ordering::Release);
        Some(lived(before).generation() + 1)
    }

    /// Ends a slot's life; true where nobody has it and it may be handed out again.
    pub(super) fn retire(&self, slot: SlotId, word: usize) -> bool {
        match self.change(word, Word::retired) {
            Then::Held | Then::Freed => false,
            Then::WasFree => true,
            Then::Ended => {
                self.release_extent(slot);
                true
            }
        }
    }

    /// One reader less.
    pub(super) fn unpin(&self, spot: &Spot) {
        self.settle(spot.slot, self.change(spot.word, Word::unpinned));
    }

    /// The writer is done.
    pub(super) fn publish(&self, spot: &Spot) {
        self.settle(spot.slot, self.change(spot.word, Word::published));
    }

    /// The writer gave up.
    pub(super) fn abandon(&self, spot: &Spot) {
        self.settle(spot.slot, self.change(spot.word, Word::abandoned));
    }

    /// Moves the slots whose last holder let go after their retirement into `slots`.
    pub(super) fn take_freed(&self, slots: &mut Vec<SlotId>) {
        slots.append(&mut lock(&self.freed));
    }

    /// What to call when a slot was added to that list. The first hook stays.
    pub(super) fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        drop(self.wake.set(wake));
    }

    fn guard(&self, slot: SlotId) -> &T::Word {
        &self.guards[usize::from(slot.extent)]
    }

    /// One step of a slot's word. Acquire and release: reads and writes of the slot stay on their side of it.
    fn change(&self, word: usize, step: impl Fn(Word) -> (Word, Then)) -> Then {
        let word = self.words.get(word);
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let (after, then) = step(Word(before));
            match word.exchange(before, after.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return then,
                Err(now) => before = now,
            }
        }
    }

    fn settle(&self, slot: SlotId, then: Then) {
        match then {
            Then::Held | Then::WasFree => {}
            Then::Ended => self.release_extent(slot),
            Then::Freed => {
                self.release_extent(slot);
                lock(&self.freed).push(slot);
                if let Some(wake) = self.wake.get() {
                    wake();
                }
            }
        }
    }

    fn release_extent(&self, slot: SlotId) {
        self.guard(slot).subtract(1, Ordering::Release);
    }
}

/// Changes a word where `step` has something to change it to: what it held before.
fn update<W: OwnWord>(word: &W, order: Ordering, step: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let mut before = word.load(Ordering::Relaxed);
    loop {
        match word.exchange(before, step(before)?, order, Ordering::Relaxed) {
            Ok(_) => return Some(before),
            Err(now) => before = now,
        }
    }
}

/// A guard is `class bytes (32 bits) | held slots (32 bits)`.
fn guard_claimed(guard: u64, class: SlotClass) -> Option<u64> {
    let class = u64::from(class.bytes()) << 32;
    let held = guard & u64::from(u32::MAX);
    (held == 0 || guard - held == class).then_some(class | (held + 1))
}

fn guard_class(guard: u64) -> u32 {
    (guard >> 32) as u32
}
