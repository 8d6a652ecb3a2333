//! How a tier is carved: extents of one size, each cut into slots of one class; a slot is addressed by both numbers.
//!
//! Four bytes address a slot: 65,536 extents of at most 1 GiB are 64 TiB a host, and a class is never so small that an
//! extent would hold more than 65,536 slots.

use std::fmt;

use super::ByteCount;
use super::limits::{ALIGNMENT, EXTENT_BYTES_MAX, EXTENTS_MAX, EXTENTS_MIN, SLOTS_PER_EXTENT_MAX};

/// A slot's address within its tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    /// Which extent of the tier.
    pub extent: u16,
    /// Which slot of the extent.
    pub index: u16,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.extent, self.index)
    }
}

/// A slot size: a multiple of 4 KiB, so that every slot can be read and written past the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotClass(u32);

impl SlotClass {
    /// The class of a slot of exactly `bytes`; `None` unless a positive multiple of 4 KiB.
    #[must_use]
    pub fn of_bytes(bytes: u32) -> Option<Self> {
        (bytes > 0 && u64::from(bytes).is_multiple_of(ALIGNMENT)).then_some(Self(bytes))
    }

    /// The slot's size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

/// What a tier is carved into. The last extent may be shorter than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierShape {
    total: u64,
    extent: u64,
}

impl TierShape {
    /// A tier with no room at all.
    pub const NONE: Self = Self { total: 0, extent: ALIGNMENT };

    /// Carves `total` into the fewest extents of at most 1 GiB, at least 16 of them, rounding down to whole 4 KiB.
    #[must_use]
    pub fn carve(total: ByteCount) -> Self {
        let total = round_down(total.0);
        let extent = round_up(total.div_ceil(u64::from(EXTENTS_MIN))).clamp(ALIGNMENT, EXTENT_BYTES_MAX);
        Self::with_extent(total, extent)
    }

    /// A tier of `total` bytes in extents of `extent` bytes: what a data folder was created with.
    #[must_use]
    pub fn with_extent(total: u64, extent: u64) -> Self {
        let extent = round_down(extent).max(ALIGNMENT);
        Self { total: round_down(total).min(extent * u64::from(EXTENTS_MAX)), extent }
    }

    /// A tier that holds exactly `slots` slots of `class`: what a simulation is asked for.
    #[must_use]
    pub fn of_slots(slots: u64, class: SlotClass) -> Self {
        let bytes = u64::from(class.bytes());
        Self { total: slots * bytes, extent: bytes * u64::from(SLOTS_PER_EXTENT_MAX) }
    }

    /// Bytes in all.
    #[must_use]
    pub const fn total(self) -> ByteCount {
        ByteCount(self.total)
    }

    /// Bytes of a full extent.
    #[must_use]
    pub const fn extent_bytes(self) -> u64 {
        self.extent
    }

    /// How many extents there are.
    #[must_use]
    pub fn extents(self) -> u32 {
        u32::try_from(self.total.div_ceil(self.extent)).unwrap_or(EXTENTS_MAX)
    }

    /// The class for payloads of at most `payload_bytes` here: whole 4 KiB, and not so small that an extent would hold
    /// more than 65,536 slots.
    #[must_use]
    pub fn class_for(self, payload_bytes: u32) -> SlotClass {
        let least = round_up(self.extent.div_ceil(u64::from(SLOTS_PER_EXTENT_MAX)));
        let bytes = round_up(u64::from(payload_bytes)).max(least).max(ALIGNMENT);
        SlotClass(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// How many slots of `class` extent number `extent` holds.
    #[must_use]
    pub fn slots(self, extent: u16, class: SlotClass) -> u32 {
        let start = u64::from(extent) * self.extent;
        let bytes = self.total.saturating_sub(start).min(self.extent);
        u32::try_from(bytes / u64::from(class.bytes())).unwrap_or(u32::MAX).min(SLOTS_PER_EXTENT_MAX)
    }

    /// Where `slot` begins, in bytes from the start of the tier.
    #[must_use]
    pub fn offset(self, slot: SlotId, class: SlotClass) -> u64 {
        u64::from(slot.extent) * self.extent + u64::from(slot.index) * u64::from(class.bytes())
    }
}

fn round_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

fn round_down(bytes: u64) -> u64 {
    bytes / ALIGNMENT * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gibibyte_becomes_sixteen_extents_and_holds_every_64_kib_slot() {
        let shape = TierShape::carve(ByteCount(1 << 30));
        let class = shape.class_for(64 << 10);
        assert_eq!((shape.extents(), class.bytes()), (16, 64 << 10));
        let slots: u32 = (0..16).map(|extent| shape.slots(extent, class)).sum();
        assert_eq!(slots, 16_384);
    }

    #[test]
    fn an_extent_never_holds_more_slots_than_an_index_can_name() {
        let shape = TierShape::carve(ByteCount(1 << 40));
        assert_eq!(shape.extent_bytes(), 1 << 30);
        assert_eq!(shape.class_for(100).bytes(), 16 << 10);
        assert_eq!(shape.slots(0, shape.class_for(100)), 65_536);
    }

    #[test]
    fn a_simulated_tier_holds_exactly_what_was_asked() {
        let class = SlotClass::of_bytes(4096).unwrap();
        for asked in [0_u64, 1, 10_000, 65_536, 65_537, 10_000_000] {
            let shape = TierShape::of_slots(asked, class);
            let extents = u16::try_from(shape.extents()).unwrap();
            let slots: u64 = (0..extents).map(|extent| u64::from(shape.slots(extent, class))).sum();
            assert_eq!(slots, asked);
        }
    }
}
