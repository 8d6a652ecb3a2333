//! One word a slot: generation, two flags and the pin count, so that every change is one compare-and-swap.
//!
//! `generation (40 bits) | writing | draining | pins (22 bits)`. An odd generation is readable, an even one is not: the
//! slot is free, being written, or waiting for its last pin. Generations only grow, so a reader that comes late names one
//! that never returns. `tests/arena_protocol.rs` checks the steps for every interleaving.

use crate::vocab::GENERATION_SHIFT;

const PIN_BITS: u32 = 22;
const PINS: u64 = (1 << PIN_BITS) - 1;
const DRAINING: u64 = 1 << PIN_BITS;
const WRITING: u64 = 1 << (PIN_BITS + 1);
const _: () = assert!(GENERATION_SHIFT == PIN_BITS + 2, "workers find the generation where it is");
const GENERATIONS: u64 = u64::MAX >> GENERATION_SHIFT;

/// The state of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) u64);

/// What a change of the word means for the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Somebody has or may have it.
    Held,
    /// Nobody had it.
    WasFree,
    /// The last one has let go; the planner is waiting for it.
    Freed,
    /// Nobody has it, and the planner knows.
    Ended,
}

impl Word {
    /// Of a slot that nobody has had yet, in an arena that counts from about this generation.
    pub(super) fn first(generation: u64) -> Self {
        // Even, and with half of all generations before it overflows.
        Self((generation & GENERATIONS >> 1 & !1) << GENERATION_SHIFT)
    }

    pub(super) fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    fn pins(self) -> u64 {
        self.0 & PINS
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn readable(self) -> bool {
        !self.generation().is_multiple_of(2)
    }

    fn idle(self, generation: u64) -> Self {
        Self((generation & GENERATIONS) << GENERATION_SHIFT)
    }

    /// One more reader of `generation`; `None` unless that is what the slot holds.
    pub(super) fn pinned(self, generation: u64) -> Option<Self> {
        let good = self.generation() == generation && self.readable() && !self.has(DRAINING) && self.pins() < PINS;
        good.then(|| Self(self.0 + 1))
    }

    /// One reader less.
    pub(super) fn unpinned(self) -> (Self, Then) {
        debug_assert!(self.pins() > 0, "unpinned more often than pinned");
        let left = Self(self.0 - 1);
        if left.pins() == 0 && left.has(DRAINING) {
            (Self(left.0 & !DRAINING), Then::Freed)
        } else {
            (left, Then::Held)
        }
    }

    /// Taken by a writer; `None` unless nobody has it.
    pub(super) fn claimed(self) -> Option<Self> {
        let idle = !self.readable() && self == self.idle(self.generation());
        idle.then_some(Self(self.0 | WRITING))
    }

    /// The writer is done: readable, unless it was retired meanwhile.
    pub(super) fn published(self) -> (Self, Then) {
        debug_assert!(self.has(WRITING), "published by somebody else");
        if self.has(DRAINING) {
            (self.idle(self.generation() + 2), Then::Freed)
        } else {
            (self.idle(self.generation() + 1), Then::Held)
        }
    }

    /// The writer gave up. The generation that it might have named to somebody is skipped.
    pub(super) fn abandoned(self) -> (Self, Then) {
        debug_assert!(self.has(WRITING), "abandoned by somebody else");
        (self.idle(self.generation() + 2), if self.has(DRAINING) { Then::Freed } else { Then::Ended })
    }

    /// No reader comes in any more.
    pub(super) fn retired(self) -> (Self, Then) {
        if self.has(WRITING) {
            (Self(self.0 | DRAINING), Then::Held)
        } else if !self.readable() {
            (self, if self.has(DRAINING) { Then::Held } else { Then::WasFree })
        } else if self.pins() == 0 {
            (self.idle(self.generation() + 1), Then::Ended)
        } else {
            (Self(self.idle(self.generation() + 1).0 | DRAINING | self.pins()), Then::Held)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_without_readers_ends_at_once() {
        let word = Word(0).claimed().unwrap();
        assert_eq!(word.claimed(), None);
        assert_eq!(word.pinned(1), None);
        let (word, then) = word.published();
        assert_eq!((word.generation(), then), (1, Then::Held));
        assert_eq!(word.claimed(), None);
        let (word, then) = word.retired();
        assert_eq!((word.generation(), then), (2, Then::Ended));
        assert_eq!(word.retired().1, Then::WasFree);
    }

    #[test]
    fn a_retired_slot_waits_for_its_last_pin_and_takes_no_more() {
        let word = Word(0).claimed().unwrap().published().0;
        let word = word.pinned(1).unwrap().pinned(1).unwrap();
        let (word, then) = word.retired();
        assert_eq!(then, Then::Held);
        assert_eq!((word.pinned(1), word.pinned(2), word.claimed()), (None, None, None));
        let (word, then) = word.unpinned();
        assert_eq!((word.retired(), then), ((word, Then::Held), Then::Held));
        let (word, then) = word.unpinned();
        assert_eq!((word, then), (Word(2 << GENERATION_SHIFT), Then::Freed));
    }

    #[test]
    fn a_slot_retired_while_it_is_written_is_never_readable() {
        let (word, then) = Word(0).claimed().unwrap().retired();
        assert_eq!(then, Then::Held);
        let (word, then) = word.published();
        assert_eq!((word.pinned(1), then), (None, Then::Freed));
        assert!(word.claimed().is_some());
    }

    #[test]
    fn a_generation_named_by_a_writer_that_gave_up_is_not_used_again() {
        let (word, then) = Word(0).claimed().unwrap().abandoned();
        assert_eq!(then, Then::Ended);
        assert_eq!(word.claimed().unwrap().published().0.generation(), 3);
    }
}
