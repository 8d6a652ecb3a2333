//! The RAM tier's memory and who holds which slot of it.
//!
//! Who may touch which bytes is said by the slots' words (`holders.rs`); here are the bytes, and the pins and writers that
//! hand them out for as long as they are had.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::holders::{Holders, Spot};
use super::segment::Segment;
use super::slot::{SlotPin, SlotWriter};
use super::words::Words;
use crate::vocab::limits::{ALIGNMENT, POPULATE_BYTES, SLOTS_PER_EXTENT_MAX};
use crate::vocab::{SlotClass, SlotId, TierShape};

/// The memory of the RAM tier.
pub struct Arena {
    shape: TierShape,
    segments: Box<[Segment]>,
    holders: Holders<Words>,
    words_per_extent: usize,
    pins: AtomicUsize,
    /// Bytes whose pages were made ahead of their first use.
    populated: AtomicU64,
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
            holders: Holders::new(Words::new(extents * words_per_extent)?, extents, generation),
            words_per_extent,
            pins: AtomicUsize::new(0),
            populated: AtomicU64::new(0),
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
        self.segments.iter().all(Segment::is_shareable) && self.holders.words().is_shareable()
    }

    /// What a worker maps to read it: the words first, then each segment, with their bytes.
    pub fn parts(&self) -> impl Iterator<Item = (BorrowedFd<'_>, u64)> {
        let segments = self.segments.iter().map(|segment| (segment.fd(), segment.size() as u64));
        let words = self.holders.words();
        std::iter::once((words.fd(), words.bytes() as u64)).chain(segments)
    }

    /// Where a worker that maps it finds a slot: segment, offset in it, and number of its word.
    #[must_use]
    pub fn place(&self, slot: SlotId, class: SlotClass) -> Option<(u32, u64, u32)> {
        let spot = self.spot(slot, class)?;
        Some((slot.extent.into(), start(&spot) as u64, u32::try_from(spot.word).ok()?))
    }

    /// The right to read the first `len` bytes of `slot`; `None` where it no longer holds `generation`, which is a miss.
    #[must_use]
    pub fn pin(self: &Arc<Self>, slot: SlotId, class: SlotClass, generation: u64, len: u32) -> Option<SlotPin> {
        let spot = self.spot(slot, class).filter(|_| len <= class.bytes())?;
        if !self.holders.pin(&spot, generation) {
            return None;
        }
        self.pins.fetch_add(1, Ordering::Relaxed);
        Some(SlotPin::new(Arc::clone(self), spot, len))
    }

    /// The sole right to fill `slot`, which the planner has just handed out. `None` where somebody still has it, or
    /// slots of another class in its extent: a planner's mistake, to be counted as a miss.
    #[must_use]
    pub fn writer(self: &Arc<Self>, slot: SlotId, class: SlotClass) -> Option<SlotWriter> {
        let spot = self.spot(slot, class)?;
        let generation = self.holders.claim(&spot)?;
        Some(SlotWriter::new(Arc::clone(self), spot, generation))
    }

    /// Ends a slot's life: whoever comes later fails. True where nobody has it and it may be handed out again; otherwise
    /// it appears in [`take_freed`](Self::take_freed) once the last pin has ended.
    pub fn retire(&self, slot: SlotId) -> bool {
        self.word_index(slot).is_some_and(|word| self.holders.retire(slot, word))
    }

    /// Moves the slots whose last pin ended after their retirement into `slots`.
    pub fn take_freed(&self, slots: &mut Vec<SlotId>) {
        self.holders.take_freed(slots);
    }

    /// What to call when a slot was added to that list, from whatever thread dropped the pin: it must not block. The
    /// first hook stays.
    pub fn set_wake(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.holders.set_wake(wake);
    }

    /// Pins that live now.
    #[must_use]
    pub fn pins(&self) -> usize {
        self.pins.load(Ordering::Relaxed)
    }

    pub(super) fn address(&self, spot: &Spot, len: usize) -> *mut u8 {
        self.segments[usize::from(spot.slot.extent)].address(start(spot), len)
    }

    pub(super) fn unpin(&self, spot: &Spot) {
        self.holders.unpin(spot);
        self.pins.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn publish(&self, spot: &Spot) {
        self.holders.publish(spot);
    }

    pub(super) fn abandon(&self, spot: &Spot) {
        self.holders.abandon(spot);
    }

    fn word_index(&self, slot: SlotId) -> Option<usize> {
        let index = usize::from(slot.index);
        let known = usize::from(slot.extent) < self.segments.len() && index < self.words_per_extent;
        known.then_some(usize::from(slot.extent) * self.words_per_extent + index)
    }

    fn spot(&self, slot: SlotId, class: SlotClass) -> Option<Spot> {
        let word = self.word_index(slot)?;
        let spot = Spot { slot, class, word };
        let end = start(&spot) + class.bytes() as usize;
        (end <= self.segments[usize::from(slot.extent)].size()).then_some(spot)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("shape", &self.shape).field("pins", &self.pins()).finish_non_exhaustive()
    }
}

/// Bytes before the slot in its segment.
fn start(spot: &Spot) -> usize {
    usize::from(spot.slot.index) * spot.class.bytes() as usize
}

fn usize_of(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
