//! The two ways to hold a slot: a pin reads it, a writer fills it. Neither outlives its right: the arena's word of the
//! slot says who has it, and both give it back when dropped.
#![expect(unsafe_code, reason = "turns addresses of a segment into slices")]

use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;

use super::arena::Arena;
use super::holders::Spot;
use crate::copy::{Span, SpanMut};
use crate::vocab::limits::ALIGNMENT;
use crate::vocab::{SlotClass, SlotId};

/// The right to read a slot's payload; the bytes do not change while it lives.
#[derive(Debug)]
pub struct SlotPin {
    arena: Arc<Arena>,
    spot: Spot,
    len: u32,
}

impl SlotPin {
    /// Made by the arena once the pin is counted.
    pub(super) fn new(arena: Arc<Arena>, spot: Spot, len: u32) -> Self {
        Self { arena, spot, len }
    }

    /// Which slot.
    #[must_use]
    pub fn slot(&self) -> SlotId {
        self.spot.slot
    }

    /// Whether the slot is one of `arena`.
    pub(super) fn is_of(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    /// The payload as `Bytes`, not copied: the pin ends when the last clone is dropped.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// The payload with what follows it up to whole 4 KiB: what a device writes.
    pub(super) fn padded(&self) -> Span<'_> {
        let len = (self.len as usize).next_multiple_of(ALIGNMENT as usize);
        debug_assert!(len <= self.spot.class.bytes() as usize, "a pin stays within its slot");
        // SAFETY: within the segment, which the arena keeps mapped; while the slot is pinned nobody claims it.
        unsafe { Span::new(self.arena.address(&self.spot, len), len) }
    }
}

impl Deref for SlotPin {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let len = self.len as usize;
        let start = self.arena.address(&self.spot, len);
        // SAFETY: `len` bytes of the segment, which the arena keeps mapped, zeroed or written before. The pin is counted
        // in the slot's word, so no writer can claim the slot, and the extent's guard keeps other classes out; other
        // processes can map the segment for reading only.
        unsafe { slice::from_raw_parts(start, len) }
    }
}

impl AsRef<[u8]> for SlotPin {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for SlotPin {
    fn drop(&mut self) {
        self.arena.unpin(&self.spot);
    }
}

/// The sole right to fill a slot that nobody can see. Dropped without [`publish`](Self::publish), it leaves the slot
/// unreadable; the planner then frees it.
#[derive(Debug)]
pub struct SlotWriter {
    arena: Arc<Arena>,
    spot: Spot,
    generation: u64,
    published: bool,
}

impl SlotWriter {
    /// Made by the arena once the slot is claimed.
    pub(super) fn new(arena: Arc<Arena>, spot: Spot, generation: u64) -> Self {
        Self { arena, spot, generation, published: false }
    }

    /// Which slot.
    #[must_use]
    pub fn slot(&self) -> SlotId {
        self.spot.slot
    }

    /// Whether it is one of `arena`.
    pub(super) fn is_of(&self, arena: &Arc<Arena>) -> bool {
        Arc::ptr_eq(&self.arena, arena)
    }

    /// Its class.
    #[must_use]
    pub fn class(&self) -> SlotClass {
        self.spot.class
    }

    /// The generation that readers will have to name once it is published.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The whole slot.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let len = self.spot.class.bytes() as usize;
        // SAFETY: the slot is claimed by this writer alone, and its bytes are within the mapped segment. The kernel writes them
        // only for a device's job, which owns the writer and makes no reference.
        unsafe { slice::from_raw_parts(self.arena.address(&self.spot, len), len) }
    }

    /// Where the whole slot is, for the kernel.
    pub(super) fn span(&self) -> Span<'_> {
        let len = self.spot.class.bytes() as usize;
        // SAFETY: as in `bytes`; a `&mut` to them borrows the writer to itself.
        unsafe { Span::new(self.arena.address(&self.spot, len), len) }
    }

    /// The same, to be filled.
    pub(super) fn span_mut(&mut self) -> SpanMut<'_> {
        let len = self.spot.class.bytes() as usize;
        // SAFETY: as in `bytes`, and `&mut self` is exclusive.
        unsafe { SpanMut::new(self.arena.address(&self.spot, len), len) }
    }

    /// The whole slot, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.spot.class.bytes() as usize;
        // SAFETY: as in `bytes`; the slot's word admits neither pins nor a second writer, and `&mut self` is exclusive.
        unsafe { slice::from_raw_parts_mut(self.arena.address(&self.spot, len), len) }
    }

    /// Copies `bytes` to `offset`; false, and nothing copied, where they would not fit the slot.
    #[must_use]
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let Some(end) = offset.checked_add(bytes.len()) else { return false };
        let Some(place) = self.as_mut_slice().get_mut(offset..end) else { return false };
        place.copy_from_slice(bytes);
        true
    }

    /// Makes the slot readable to whoever names the generation that this returns. Where the slot was retired meanwhile
    /// nobody will find it readable, and it is on the list of freed slots.
    pub fn publish(mut self) -> u64 {
        self.published = true;
        self.arena.publish(&self.spot);
        self.generation
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        if !self.published {
            self.arena.abandon(&self.spot);
        }
    }
}
