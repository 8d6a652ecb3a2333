//! The protocol by which a slot changes hands between the daemon and its readers, checked for every interleaving and every
//! reordering that the memory model of C11 allows (with loom).
//!
//! What runs here is the arena's own code, compiled again with loom's atomics in the place of the processor's: the daemon's half
//! (`src/media/holders.rs` and `word.rs`: claim, fence, publish, retire, pin) and the reader's (`src/copy/held.rs`: read, fence, look
//! at the word). Bytes of a slot are atomics read and written without order, as a copy may do it.
//!
//! That the model would find a mistake is shown by tests in which the atomics leave something out: the daemon's fence, the
//! worker's, the look at the generation, or the order of the daemon's own readers. Without it a worker takes bytes of another
//! block for its own, or two have a slot at once.

#![cfg(test)]

#[path = "../src/copy/held.rs"]
mod held;
#[path = "../src/media/holders.rs"]
mod holders;
#[path = "../src/media/word.rs"]
mod word;

/// What these files ask of their crate.
mod copy {
    pub(crate) use super::held::SharedWord;
}
pub(crate) use kvtier::vocab;

use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use held::{SharedWord, held};
use holders::{Holders, OwnWord, Spot, Table};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;
use vocab::{GENERATION_SHIFT, SlotClass, SlotId};

/// As `media::lock`. No step of the model is taken while one is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the atomics do.
trait Rules: Send + Sync + 'static {
    /// Whether a fence of this order is one.
    fn fences(_: Ordering) -> bool {
        true
    }
    /// The order that a change of a word has.
    fn change(order: Ordering) -> Ordering {
        order
    }
    /// Whether a reader of another process sees the word, or always what it hopes for.
    const LOOKS: bool = true;
}

/// All that is asked of them.
struct Sound;
impl Rules for Sound {}

/// No fence between the claim and the first byte.
struct NoClaimFence;
impl Rules for NoClaimFence {
    fn fences(order: Ordering) -> bool {
        order != Ordering::Release
    }
}

/// No fence between a worker's last byte and its look at the word.
struct NoLookFence;
impl Rules for NoLookFence {
    fn fences(order: Ordering) -> bool {
        order != Ordering::Acquire
    }
}

/// The generation is not looked at.
struct Blind;
impl Rules for Blind {
    const LOOKS: bool = false;
}

/// Words are changed without any order.
struct Unordered;
impl Rules for Unordered {
    fn change(_: Ordering) -> Ordering {
        Ordering::Relaxed
    }
}

/// A word of the model.
struct LoomWord<R>(AtomicU64, PhantomData<R>);

impl<R: Rules> SharedWord for LoomWord<R> {
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn fence(order: Ordering) {
        if R::fences(order) {
            fence(order);
        }
    }
}

impl<R: Rules> OwnWord for LoomWord<R> {
    fn holding(value: u64) -> Self {
        Self(AtomicU64::new(value), PhantomData)
    }

    fn exchange(&self, before: u64, after: u64, success: Ordering, failure: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(before, after, R::change(success), failure)
    }

    fn subtract(&self, by: u64, order: Ordering) -> u64 {
        self.0.fetch_sub(by, order)
    }
}

/// The word as a worker sees it, or as one sees it that does not look.
struct Seen<'a, R>(&'a LoomWord<R>, u64);

impl<R: Rules> SharedWord for Seen<'_, R> {
    fn load(&self, order: Ordering) -> u64 {
        let now = self.0.load(order);
        if R::LOOKS { now } else { self.1 << GENERATION_SHIFT }
    }

    fn fence(order: Ordering) {
        LoomWord::<R>::fence(order);
    }
}

/// The words of an arena of one slot.
struct OneWord<R>(LoomWord<R>);

impl<R: Rules> Table for OneWord<R> {
    type Word = LoomWord<R>;

    fn get(&self, _: usize) -> &LoomWord<R> {
        &self.0
    }
}

/// The only slot.
fn spot() -> Spot {
    let (slot, class) = (SlotId { extent: 0, index: 0 }, SlotClass::of_bytes(4096));
    let Some(class) = class else { panic!("a class") };
    Spot { slot, class, word: 0 }
}

/// An arena of one slot, whose bytes are its generation, twice.
struct Arena<R: Rules> {
    holders: Holders<OneWord<R>>,
    bytes: [AtomicU64; 2],
    /// The generation that readers are told, through a socket: that orders it after what it speaks of.
    told: AtomicU64,
    /// Entered by whoever of the daemon has the slot: it panics where two do of which one writes.
    owned: UnsafeCell<()>,
}

impl<R: Rules> Arena<R> {
    /// In its first life.
    fn new() -> Self {
        let holders = Holders::new(OneWord(LoomWord::holding(0)), 1, 0);
        let (bytes, told) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
        let arena = Self { holders, bytes, told, owned: UnsafeCell::new(()) };
        assert!(arena.live(), "nobody else has it");
        arena
    }

    /// What a writer does; false where the slot is still had by somebody.
    fn live(&self) -> bool {
        let Some(generation) = self.holders.claim(&spot()) else { return false };
        self.owned.with_mut(|_| ());
        self.bytes.iter().for_each(|byte| byte.store(generation, Ordering::Relaxed));
        self.holders.publish(&spot());
        self.told.store(generation, Ordering::Release);
        true
    }

    fn retire(&self) -> bool {
        self.holders.retire(spot().slot, spot().word)
    }

    /// Slots that the planner is told of, because their last reader has gone.
    fn freed(&self) -> usize {
        let mut freed = Vec::new();
        self.holders.take_freed(&mut freed);
        freed.len()
    }

    /// What a worker does: right bytes or none.
    fn copy(&self) {
        let generation = self.told.load(Ordering::Acquire);
        let word = Seen(self.holders.words().get(0), generation);
        let copied = held(&word, generation, || [0, 1].map(|at: usize| self.bytes[at].load(Ordering::Relaxed)));
        assert!(copied.is_none_or(|bytes| bytes == [generation; 2]), "bytes of another generation");
    }

    /// What a reader in the daemon does; whether it came in time.
    fn read(&self) -> bool {
        let pinned = self.holders.pin(&spot(), 1);
        if pinned {
            self.owned.with(|_| ());
            self.holders.unpin(&spot());
        }
        pinned
    }
}

/// A slot is used again while a worker copies from it.
fn a_copy_races_with_a_slots_next_life<R: Rules>() {
    loom::model(|| {
        let arena = Arc::new(Arena::<R>::new());
        let worker = thread::spawn({
            let arena = Arc::clone(&arena);
            move || arena.copy()
        });
        assert!(arena.retire() && arena.live(), "nobody pins it");
        assert!(worker.join().is_ok(), "a worker's copy is right");
    });
}

/// A slot is retired and claimed again while a reader in the daemon comes and goes.
fn a_pin_races_with_a_slots_next_life<R: Rules>() {
    loom::model(|| {
        let arena = Arc::new(Arena::<R>::new());
        let reader = thread::spawn({
            let arena = Arc::clone(&arena);
            move || arena.read()
        });
        let ended = arena.retire();
        // The planner would wait for the last pin; the word does not rely on that.
        let lives = arena.live();
        let Ok(read) = reader.join() else { panic!("a reader has the slot to itself") };
        let freed = arena.freed();
        if ended {
            assert!(lives && freed == 0, "it has ended, and is not freed once more");
        } else {
            assert!(read && freed == 1, "the last pin says so");
            assert!(lives || arena.live());
        }
    });
}

/// A slot is retired while its writer gives up: the planner hears of it once, whichever is first.
#[test]
fn a_slot_whose_writer_gives_up_is_free_once() {
    loom::model(|| {
        let arena = Arc::new(Arena::<Sound>::new());
        let woken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let wakes = std::sync::Arc::clone(&woken);
        arena.holders.set_wake(Box::new(move || _ = wakes.fetch_add(1, Ordering::Relaxed)));
        assert!(arena.retire() && arena.holders.claim(&spot()) == Some(3));
        let writer = thread::spawn({
            let arena = Arc::clone(&arena);
            move || arena.holders.abandon(&spot())
        });
        let was_free = arena.retire();
        assert!(writer.join().is_ok(), "it ends");
        let freed = arena.freed();
        assert_eq!((usize::from(was_free) + freed, woken.load(Ordering::Relaxed)), (1, freed));
        assert!(!arena.holders.pin(&spot(), 3) && arena.live(), "the generation that was promised is skipped");
    });
}

#[test]
fn a_copy_that_is_kept_has_the_bytes_of_its_own_generation() {
    a_copy_races_with_a_slots_next_life::<Sound>();
}

#[test]
#[should_panic(expected = "bytes of another generation")]
fn the_model_fails_without_the_daemons_fence() {
    a_copy_races_with_a_slots_next_life::<NoClaimFence>();
}

#[test]
#[should_panic(expected = "bytes of another generation")]
fn the_model_fails_without_the_workers_fence() {
    a_copy_races_with_a_slots_next_life::<NoLookFence>();
}

#[test]
#[should_panic(expected = "bytes of another generation")]
fn the_model_fails_where_the_generation_is_not_looked_at() {
    a_copy_races_with_a_slots_next_life::<Blind>();
}

#[test]
fn a_slot_is_claimed_again_only_after_its_last_pin() {
    a_pin_races_with_a_slots_next_life::<Sound>();
}

#[test]
#[should_panic(expected = "Causality violation")]
fn the_model_fails_where_the_daemons_own_readers_keep_no_order() {
    a_pin_races_with_a_slots_next_life::<Unordered>();
}
