//! The half of the arena's protocol that readers of other processes follow, and the atomics that both halves are written in.
//!
//! The daemon retires a slot by a new generation in its word, fences, and only then writes the next bytes (`media/holders.rs`). A
//! reader reads, fences, and looks at the word: has it still the generation that the reader was told, all reads before were of
//! its bytes. Both halves are generic over the word, so that `tests/arena_protocol.rs` runs these very lines under a model checker.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::vocab::GENERATION_SHIFT;

/// A word that the daemon changes and others look at: the processor's, or a model checker's.
pub(crate) trait SharedWord {
    /// As [`AtomicU64::load`].
    fn load(&self, order: Ordering) -> u64;
    /// As [`fence`].
    fn fence(order: Ordering);
}

impl SharedWord for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        Self::load(self, order)
    }

    #[inline]
    fn fence(order: Ordering) {
        fence(order);
    }
}

/// What `read` makes of a slot's bytes; `None` where they may have changed before its last look: the slot's word has another
/// generation than the one that the reader was told.
#[inline]
pub(crate) fn held<W: SharedWord, T>(word: &W, generation: u64, read: impl FnOnce() -> T) -> Option<T> {
    let seen = read();
    // The other half is the daemon's fence between the new generation and the new bytes.
    W::fence(Ordering::Acquire);
    (word.load(Ordering::Relaxed) >> GENERATION_SHIFT == generation).then_some(seen)
}
