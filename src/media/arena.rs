//! The RAM tier's memory and who holds which slot of it.
//!
//! A slot is claimed by one writer, published under a generation, pinned by readers that name it, and retired; it can be
//! claimed again once the last pin has ended. Planner and readers race, so every step is one compare-and-swap on the
//! slot's word (`word.rs`): a pin either counts before the retirement, which then waits for it, or fails.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};

use super::lock;
use super::segment::Segment;
use super::slot::{SlotPin, SlotWriter};
use super::word::{Then, Word};
use super::words::Words;
use crate::vocab::limits::{ALIGNMENT, POPULATE_BYTES, SLOTS_PER_EXTENT_MAX};
use crate::vocab::{SlotClass, SlotId, TierShape};

/// Where a slot lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) slot: SlotId,
    pub(super) class: SlotClass,
    start: usize,
    word: usize,
}

/// The memory of the RAM tier.
pub struct Arena {
    shape: TierShape,
    segments: Box<[Segment]>,
    words: Words,
    words_per_extent: usize,
    /// What a word stands for that is still zero.
    first: Word,
    /// For each extent, the class that its held slots have and how many are held. Slots of two classes overlap, so the
    /// planner moves an extent only when it is empty; a mistake there must not become two writers of one byte.
    guards: Box<[AtomicU64]>,
    pins: AtomicUsize,
    /// Bytes whose pages were made ahead of their first use.
    populated: AtomicU64,
    /// At most one entry a slot.
    freed: Mutex<Vec<SlotId>>,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Arena {
    /// Maps memory for every extent of `shape`, without touching it.
    ///
    /// # Errors
    /// When the kernel refuses a segment.
    pub fn new(shape: TierShape) -> io::Result<Arc<Self>> {
        Self::counting_from(shape, 0)
    }

    /// As [`new`](Self::new), with generations that count from somewhere else: where each daemon begins at one of its own, what
    /// a worker was told by the one before names nothing in the next one's memory.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn counting_from(shape: TierShape, generation: u64) -> io::Result<Arc<Self>> {
        let extents = shape.extents() as usize;
        let last = |extent: usize| shape.total().0 - extent as u64 * shape.extent_bytes();
        let segment = |extent| Segment::new(usize_of(last(extent).min(shape.extent_bytes()))?);
        let segments = (0..extents).map(segment).collect::<io::Result<_>>()?;
        let slots = (shape.extent_bytes() / ALIGNMENT).min(u64::from(SLOTS_PER_EXTENT_MAX));
        let words_per_extent = usize_of(slots)?;
        Ok(Arc::new(Self {
            shape,
            segments,
            words: Words::new(extents * words_per_extent)?,
            words_per_extent,
            first: Word::first(generation),
            guards: zeroes(extents),
            pins: AtomicUsize::new(0),
            populated: AtomicU64::new(0),
            freed: Mutex::default(),
            wake: OnceLock::new(),
        }))
    }

    /// What the memory is carved into.
    #[must_use]
    pub fn shape(&self) -> TierShape {
        self.shape
    }

    /// The segment of each extent.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Makes all pages, some at a time while `go_on`: to be run by a thread of its own, since a kernel may take seconds for a
    /// gigabyte. Whoever uses the memory meanwhile is not disturbed.
    ///
    /// # Errors
    /// When the kernel has no more memory.
    pub fn populate(&self, go_on: impl Fn() -> bool) -> io::Result<()> {
        for segment in &self.segments {
            for at in (0..segment.size()).step_by(POPULATE_BYTES) {
                if !go_on() {
                    return Ok(());
                }
                let len = POPULATE_BYTES.min(segment.size() - at);
                segment.populate_part(at, len)?;
                self.populated.fetch_add(len as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Bytes whose pages were made so.
    #[must_use]
    pub fn populated_bytes(&self) -> u64 {
        self.populated.load(Ordering::Relaxed)
    }

    /// Bytes in huge pages that the host had reserved.
    #[must_use]
    pub fn huge_bytes(&self) -> u64 {
        let huge = self.segments.iter().filter(|segment| segment.page_bytes() > ALIGNMENT);
        huge.map(|segment| segment.size() as u64).sum()
    }

    /// Whether workers may have it.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        self.segments.iter().all(Segment::is_shareable) && self.words.is_shareable()
    }

    /// What a worker maps to read it: the words first, then each segment, with their bytes.
    pub fn parts(&self) -> impl Iterator<Item = (BorrowedFd<'_>, u64)> {
        let segments = self.segments.iter().map(|segment| (segment.fd(), segment.size() as u64));
        std::iter::once((self.words.fd(), self.words.bytes() as u64)).chain(segments)
    }

    /// Where a worker that maps it finds a slot: segment, offset in it, and number of its word.
    #[must_use]
    pub fn place(&self, slot: SlotId, class: SlotClass) -> Option<(u32, u64, u32)> {
        let spot = self.spot(slot, class)?;
        Some((slot.extent.into(), spot.start as u64, u32::try_from(spot.word).ok()?))
    }

    /// The right to read the first `len` bytes of `slot`; `None` where it no longer holds `generation`, which is a miss.
    #[must_use]
    pub fn pin(self: &Arc<Self>, slot: SlotId, class: SlotClass, generation: u64, len: u32) -> Option<SlotPin> {
        let spot = self.spot(slot, class).filter(|_| len <= class.bytes())?;
        // Acquire: what the writer wrote before it published is seen after.
        let pinned = |word| Word(word).pinned(generation).map(|word| word.0);
        self.words.get(spot.word).fetch_update(Ordering::Acquire, Ordering::Relaxed, pinned).ok()?;
        self.pins.fetch_add(1, Ordering::Relaxed);
        // Dropping the pin undoes it. A pinned slot is held, so its extent's class can't change under it.
        let pin = SlotPin::new(Arc::clone(self), spot, len);
        (guard_class(self.guards[usize::from(slot.extent)].load(Ordering::Relaxed)) == class.bytes()).then_some(pin)
    }

    /// The sole right to fill `slot`, which the planner has just handed out. `None` where somebody still has it, or
    /// slots of another class in its extent: a planner's mistake, to be counted as a miss.
    #[must_use]
    pub fn writer(self: &Arc<Self>, slot: SlotId, class: SlotClass) -> Option<SlotWriter> {
        let spot = self.spot(slot, class)?;
        let guard = &self.guards[usize::from(slot.extent)];
        guard.fetch_update(Ordering::Acquire, Ordering::Relaxed, |guard| guard_claimed(guard, class)).ok()?;
        // Acquire: the last reader's reads are over before the first write.
        let lived = |word| if word == 0 { self.first } else { Word(word) };
        let claimed = |word| lived(word).claimed().map(|word| word.0);
        match self.words.get(spot.word).fetch_update(Ordering::Acquire, Ordering::Relaxed, claimed) {
            Ok(before) => {
                // A worker that sees one of the bytes to come sees this word, too, when it looks after its last read: the
                // other half is its acquire fence.
                fence(Ordering::Release);
                Some(SlotWriter::new(Arc::clone(self), spot, lived(before).generation() + 1))
            }
            Err(_) => {
                self.release_extent(slot);
                None
            }
        }
    }

    /// Ends a slot's life: whoever comes later fails. True where nobody has it and it may be handed out again; otherwise
    /// it appears in [`take_freed`](Self::take_freed) once the last pin has ended.
    pub fn retire(&self, slot: SlotId) -> bool {
        let Some(word) = self.word_index(slot) else { return false };
        match self.change(word, Word::retired) {
            Then::Held | Then::Freed => false,
            Then::WasFree => true,
            Then::Ended => {
                self.release_extent(slot);
                true
            }
        }
    }

    /// Moves the slots whose last pin ended after their retirement into `slots`.
    pub fn take_freed(&self, slots: &mut Vec<SlotId>) {
        slots.append(&mut lock(&self.freed));
    }

    /// What to call when a slot was added to that list, from whatever thread dropped the pin: it must not block. The
    /// first hook stays.
    pub fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        drop(self.wake.set(wake));
    }

    /// Pins that live now.
    #[must_use]
    pub fn pins(&self) -> usize {
        self.pins.load(Ordering::Relaxed)
    }

    pub(super) fn address(&self, spot: &Spot, len: usize) -> *mut u8 {
        self.segments[usize::from(spot.slot.extent)].address(spot.start, len)
    }

    pub(super) fn unpin(&self, spot: &Spot) {
        let then = self.change(spot.word, Word::unpinned);
        self.pins.fetch_sub(1, Ordering::Relaxed);
        self.settle(spot.slot, then);
    }

    pub(super) fn publish(&self, spot: &Spot) {
        let then = self.change(spot.word, Word::published);
        self.settle(spot.slot, then);
    }

    pub(super) fn abandon(&self, spot: &Spot) {
        let then = self.change(spot.word, Word::abandoned);
        self.settle(spot.slot, then);
    }

    /// One step of a slot's word. Acquire and release: reads and writes of the slot stay on their side of it.
    fn change(&self, word: usize, step: impl Fn(Word) -> (Word, Then)) -> Then {
        let word = self.words.get(word);
        let mut before = word.load(Ordering::Relaxed);
        loop {
            let (after, then) = step(Word(before));
            match word.compare_exchange_weak(before, after.0, Ordering::AcqRel, Ordering::Relaxed) {
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
        self.guards[usize::from(slot.extent)].fetch_sub(1, Ordering::Release);
    }

    fn word_index(&self, slot: SlotId) -> Option<usize> {
        let index = usize::from(slot.index);
        let known = usize::from(slot.extent) < self.segments.len() && index < self.words_per_extent;
        known.then_some(usize::from(slot.extent) * self.words_per_extent + index)
    }

    fn spot(&self, slot: SlotId, class: SlotClass) -> Option<Spot> {
        let word = self.word_index(slot)?;
        let start = usize::from(slot.index) * class.bytes() as usize;
        let end = start + class.bytes() as usize;
        (end <= self.segments[usize::from(slot.extent)].size()).then_some(Spot { slot, class, start, word })
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("shape", &self.shape).field("pins", &self.pins()).finish_non_exhaustive()
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

fn zeroes(count: usize) -> Box<[AtomicU64]> {
    std::iter::repeat_with(|| AtomicU64::new(0)).take(count).collect()
}

fn usize_of(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
