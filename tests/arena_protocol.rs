//! The protocol by which a slot changes hands between the daemon and its readers, checked for every interleaving and every
//! reordering that the memory model of C11 allows (with loom).
//!
//! The word's steps are the daemon's own (`src/media/word.rs`). What surrounds them is written out here as it stands in
//! `media/arena.rs` (claim, fence, fill, publish, retire, pin) and in `client/arena.rs` (copy, fence, look at the word),
//! since loom has atomics of its own. Bytes of a slot are atomics read and written without order, as a copy may do it.
//!
//! That the model would find a mistake is shown by three of its tests: without the daemon's fence, without the worker's, or
//! without a look at the generation, a worker takes bytes of another block for its own.

#![cfg(test)]

#[path = "../src/media/word.rs"]
mod word;

/// What the word's file asks of its crate.
mod vocab {
    pub(crate) use kvtier::vocab::GENERATION_SHIFT;
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use vocab::GENERATION_SHIFT;
use word::{Then, Word};

/// What of the protocol is kept.
#[derive(Clone, Copy)]
struct Rules {
    /// The daemon's fence between the claim and the first byte.
    claim_fence: bool,
    /// The worker's between its last byte and its look at the word.
    look_fence: bool,
    /// Whether the worker looks at the generation.
    look: bool,
}

const ALL: Rules = Rules { claim_fence: true, look_fence: true, look: true };

/// A slot whose bytes are its generation, twice.
struct Slot {
    word: AtomicU64,
    bytes: [AtomicU64; 2],
    /// The generation that readers are told, through a socket: that orders it after what it speaks of.
    told: AtomicU64,
    rules: Rules,
}

/// `Arena::change`.
fn change(word: &AtomicU64, step: impl Fn(Word) -> (Word, Then)) -> Then {
    let mut before = word.load(Ordering::Relaxed);
    loop {
        let (after, then) = step(Word(before));
        match word.compare_exchange(before, after.0, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return then,
            Err(now) => before = now,
        }
    }
}

/// The word's part of `Arena::writer`: the generation to come.
fn claim(word: &AtomicU64) -> Option<u64> {
    let claimed = |word| Word(word).claimed().map(|word| word.0);
    let before = word.fetch_update(Ordering::Acquire, Ordering::Relaxed, claimed).ok()?;
    Some(Word(before).generation() + 1)
}

/// A word of generation 1: readable.
fn published() -> AtomicU64 {
    AtomicU64::new(Word::first(0).claimed().map_or(0, |word| word.published().0.0))
}

impl Slot {
    /// In its first life.
    fn new(rules: Rules) -> Self {
        Self { word: published(), bytes: [AtomicU64::new(1), AtomicU64::new(1)], told: AtomicU64::new(1), rules }
    }

    /// `Arena::writer` to `SlotWriter::publish`.
    fn live(&self) {
        let Some(generation) = claim(&self.word) else { panic!("nobody else has it") };
        if self.rules.claim_fence {
            fence(Ordering::Release);
        }
        self.bytes.iter().for_each(|byte| byte.store(generation, Ordering::Relaxed));
        assert_eq!(change(&self.word, Word::published), Then::Held);
        self.told.store(generation, Ordering::Release);
    }

    /// `client::Arena::copy`: right bytes or none.
    fn copy(&self) -> Option<u64> {
        let generation = self.told.load(Ordering::Acquire);
        let copied = [self.bytes[0].load(Ordering::Relaxed), self.bytes[1].load(Ordering::Relaxed)];
        if self.rules.look_fence {
            fence(Ordering::Acquire);
        }
        let now = self.word.load(Ordering::Relaxed) >> GENERATION_SHIFT;
        if self.rules.look && now != generation {
            return None;
        }
        assert_eq!(copied, [generation; 2], "bytes of another generation");
        Some(generation)
    }
}

/// A slot is used again while a worker copies from it.
fn a_copy_races_with_a_slots_next_life(rules: Rules) {
    loom::model(move || {
        let slot = Arc::new(Slot::new(rules));
        let worker = thread::spawn({
            let slot = Arc::clone(&slot);
            move || slot.copy()
        });
        assert_eq!(change(&slot.word, Word::retired), Then::Ended);
        slot.live();
        assert!(worker.join().is_ok(), "a worker's copy is right");
    });
}

#[test]
fn a_copy_that_is_kept_has_the_bytes_of_its_own_generation() {
    a_copy_races_with_a_slots_next_life(ALL);
}

#[test]
#[should_panic(expected = "bytes of another generation")]
fn the_model_fails_without_the_daemons_fence() {
    a_copy_races_with_a_slots_next_life(Rules { claim_fence: false, ..ALL });
}

#[test]
#[should_panic(expected = "bytes of another generation")]
fn the_model_fails_without_the_workers_fence() {
    a_copy_races_with_a_slots_next_life(Rules { look_fence: false, ..ALL });
}

#[test]
#[should_panic(expected = "bytes of another generation")]
fn the_model_fails_where_the_generation_is_not_looked_at() {
    a_copy_races_with_a_slots_next_life(Rules { look: false, ..ALL });
}

/// A reader in the daemon pins the slot: nobody writes to it meanwhile. The cell panics when somebody does.
#[test]
fn a_slot_is_claimed_again_only_after_its_last_pin() {
    loom::model(|| {
        let slot = Arc::new((published(), UnsafeCell::new(())));
        // Whether the slot could be claimed, and lives again.
        let live = || {
            let claimed = claim(&slot.0);
            if claimed.is_some() {
                assert_eq!(claimed, Some(3));
                slot.1.with_mut(|_| ());
                assert_eq!(change(&slot.0, Word::published), Then::Held);
            }
            claimed.is_some()
        };
        let reader = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                let pinned = |word| Word(word).pinned(1).map(|word| word.0);
                if slot.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, pinned).is_err() {
                    return None;
                }
                slot.1.with(|_| ());
                Some(change(&slot.0, Word::unpinned))
            }
        });
        let ended = change(&slot.0, Word::retired);
        // The planner would wait for the last pin; the word does not rely on that.
        let lives = live();
        let Ok(unpinned) = reader.join() else { panic!("a reader has the slot to itself") };
        match ended {
            Then::Ended => assert!(lives && unpinned != Some(Then::Freed), "it has ended, and is not freed once more"),
            then => {
                assert_eq!((then, unpinned), (Then::Held, Some(Then::Freed)), "the last pin says so");
                assert!(lives || live());
            }
        }
    });
}
