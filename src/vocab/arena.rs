//! How a tier is carved: extents of one size, each cut into slots of one class; a slot is addressed by both numbers.
//!
//! Four bytes address a slot: 65,536 extents of at most 1 GiB are 64 TiB a host, and a class is never so small that an
//! extent would hold more than 65,536 slots.

use std::fmt;

use super::ByteCount;
use super::limits::{ALIGNMENT, DRIVES_MAX, EXTENT_BYTES_MAX, EXTENTS_MAX, EXTENTS_MIN, SLOTS_PER_EXTENT_MAX};

/// What a worker says first that asks for the arena, before the number of its session.
pub const ARENA_HELLO: &[u8; 8] = b"kvtier-1";
/// Bytes of a place in `LoadReply.places`.
pub const PLACE_BYTES: usize = 40;
/// What a process says that hands over memory of its own.
pub const REGION_OFFER: &[u8; 8] = b"kvtier-2";
/// What a process says that wants the staging memory made for it.
pub const STAGING_HELLO: &[u8; 8] = b"kvtier-3";
/// Bits of a slot's shared word below its generation: flags and pins, which are the daemon's own.
pub const GENERATION_SHIFT: u32 = 24;

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

/// What a tier is carved into: extents that take turns on its drives (memory is one drive). Extent `e` is extent
/// `e / stride` of drive `e % stride`, so that a drive can grow, go, or be added without renumbering the others. The last
/// extent of a drive may be shorter; numbers beyond a drive's end name no extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierShape {
    extent: u64,
    stride: u16,
    drives: [u64; DRIVES_MAX],
}

impl TierShape {
    /// A tier with no room at all.
    pub const NONE: Self = Self { extent: ALIGNMENT, stride: 1, drives: [0; DRIVES_MAX] };

    /// Carves `total` into the fewest extents of at most 1 GiB, at least 16 of them, rounding down to whole 4 KiB.
    #[must_use]
    pub fn carve(total: ByteCount) -> Self {
        let total = round_down(total.0);
        Self::with_extent(total, extent_for(&[total]))
    }

    /// A tier of `total` bytes on one drive, in extents of `extent` bytes.
    #[must_use]
    pub fn with_extent(total: u64, extent: u64) -> Self {
        Self::striped(&[total], extent, 1)
    }

    /// A tier that holds exactly `slots` slots of `class`: what a simulation is asked for.
    #[must_use]
    pub fn of_slots(slots: u64, class: SlotClass) -> Self {
        let bytes = u64::from(class.bytes());
        Self::with_extent(slots * bytes, bytes * u64::from(SLOTS_PER_EXTENT_MAX))
    }

    /// A tier on several drives: what a data folder was created with. `stride` is the most drives that it can ever have;
    /// a drive that is missing has 0 bytes, and what lies beyond the last number of an extent is left unused.
    #[must_use]
    pub fn striped(drives: &[u64], extent: u64, stride: u16) -> Self {
        let (extent, stride) = (round_down(extent).max(ALIGNMENT), stride.clamp(1, DRIVES_MAX as u16));
        let most = extent * u64::from(EXTENTS_MAX / u32::from(stride));
        let mut shape = Self { extent, stride, drives: [0; DRIVES_MAX] };
        for (bytes, asked) in shape.drives.iter_mut().zip(drives).take(stride.into()) {
            *bytes = round_down(*asked).min(most);
        }
        shape
    }

    /// The extent size and stride for a new tier on drives of these sizes: room for as many drives as the numbers of
    /// extents allow, so that some can be added later.
    #[must_use]
    pub fn plan(drives: &[u64]) -> (u64, u16) {
        let extent = extent_for(drives);
        let largest = drives.iter().copied().max().unwrap_or_default();
        let fits = |stride: &u16| largest.div_ceil(extent) <= u64::from(EXTENTS_MAX / u32::from(*stride));
        let stride = [16, 8, 4, 2].into_iter().find(fits).unwrap_or(1);
        (extent, stride)
    }

    /// Bytes in all.
    #[must_use]
    pub fn total(self) -> ByteCount {
        ByteCount(self.drives.iter().sum())
    }

    /// Bytes of a full extent.
    #[must_use]
    pub const fn extent_bytes(self) -> u64 {
        self.extent
    }

    /// The most drives that it can have.
    #[must_use]
    pub const fn stride(self) -> u16 {
        self.stride
    }

    /// Bytes of each drive, by number; 0 for one that is missing.
    pub fn drives(&self) -> impl Iterator<Item = u64> + '_ {
        self.drives[..usize::from(self.stride)].iter().copied()
    }

    /// How many numbers of extents there are: one more than the highest that names an extent.
    #[must_use]
    pub fn extents(self) -> u32 {
        let last = |(drive, bytes): (u64, u64)| {
            bytes.div_ceil(self.extent).checked_sub(1).map_or(0, |local| local * u64::from(self.stride) + drive + 1)
        };
        let numbers = (0..).zip(self.drives()).map(last).max().unwrap_or_default();
        u32::try_from(numbers).unwrap_or(EXTENTS_MAX)
    }

    /// The drive of extent number `extent`.
    #[must_use]
    pub const fn drive_of(self, extent: u16) -> u16 {
        extent % self.stride
    }

    /// Where extent number `extent` begins on its drive, and how many bytes it has there; 0 where it is beyond the end.
    #[must_use]
    pub fn extent_on_drive(self, extent: u16) -> (u64, u64) {
        let start = u64::from(extent / self.stride) * self.extent;
        (start, self.drives[usize::from(self.drive_of(extent))].saturating_sub(start).min(self.extent))
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
        let (_, bytes) = self.extent_on_drive(extent);
        u32::try_from(bytes / u64::from(class.bytes())).unwrap_or(u32::MAX).min(SLOTS_PER_EXTENT_MAX)
    }

    /// Where `slot` begins, in bytes from the start of its drive.
    #[must_use]
    pub fn offset(self, slot: SlotId, class: SlotClass) -> u64 {
        self.extent_on_drive(slot.extent).0 + u64::from(slot.index) * u64::from(class.bytes())
    }
}

/// Extents of at most 1 GiB, at least 16 in all, and at least one on the smallest drive.
fn extent_for(drives: &[u64]) -> u64 {
    let each = u64::from(EXTENTS_MIN).div_ceil(drives.len().max(1) as u64);
    let smallest = drives.iter().copied().filter(|bytes| *bytes > 0).min().unwrap_or_default();
    round_up(round_down(smallest).div_ceil(each)).clamp(ALIGNMENT, EXTENT_BYTES_MAX)
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
    fn extents_take_turns_on_drives_and_a_larger_drive_has_more() {
        let shape = TierShape::striped(&[3 << 20, 1 << 20, 0, (1 << 20) + 8192], 1 << 20, 4);
        let class = shape.class_for(64 << 10);
        let slots: Vec<u32> = (0..shape.extents() as u16).map(|extent| shape.slots(extent, class)).collect();
        assert_eq!(slots, [16, 16, 0, 16, 16, 0, 0, 0, 16]);
        assert_eq!(shape.total(), ByteCount((5 << 20) + 8192));
        assert_eq!(
            (shape.drive_of(8), shape.offset(SlotId { extent: 8, index: 1 }, class)),
            (0, (2 << 20) + (64 << 10))
        );
    }

    #[test]
    fn a_new_tier_leaves_numbers_for_drives_to_come_unless_its_own_need_them_all() {
        assert_eq!(TierShape::plan(&[8 << 30]), (512 << 20, 16));
        assert_eq!(TierShape::plan(&[8 << 30; 4]), (1 << 30, 16));
        assert_eq!(TierShape::plan(&[8 << 40; 4]), (1 << 30, 8));
        assert_eq!(TierShape::plan(&[60 << 40]), (1 << 30, 1));
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
