//! Which slots of a tier are free: extents are given to a size class when it first needs them, slots go round in the
//! order in which they were freed, so that a drive sees nearly sequential writes.

use std::collections::VecDeque;

use crate::vocab::{SlotClass, SlotId, TierShape};

/// The free slots of one size class.
#[derive(Debug)]
struct ClassSpace {
    class: SlotClass,
    /// Slots of its extents that were used and freed.
    freed: VecDeque<SlotId>,
    /// The part of its newest extent that was never used: extent, next index, slots.
    fresh: Option<(u16, u32, u32)>,
    /// Slots now in use.
    used: u64,
}

/// The free and used slots of one tier.
#[derive(Debug)]
pub(super) struct Space {
    shape: TierShape,
    /// Which class each extent belongs to, as an index of `classes`.
    extents: Vec<Option<u8>>,
    classes: Vec<ClassSpace>,
}

impl Space {
    pub(super) fn new(shape: TierShape) -> Self {
        Self { shape, extents: vec![None; shape.extents() as usize], classes: Vec::new() }
    }

    pub(super) fn shape(&self) -> TierShape {
        self.shape
    }

    /// The number of the class for payloads of at most `payload_bytes`; `None` where there are too many classes.
    pub(super) fn class_number(&mut self, payload_bytes: u32) -> Option<u8> {
        self.number_of(self.shape.class_for(payload_bytes))
    }

    fn number_of(&mut self, class: SlotClass) -> Option<u8> {
        if let Some(at) = self.classes.iter().position(|known| known.class == class) {
            return u8::try_from(at).ok();
        }
        let number = u8::try_from(self.classes.len()).ok().filter(|number| *number < u8::MAX)?;
        self.classes.push(ClassSpace { class, freed: VecDeque::new(), fresh: None, used: 0 });
        Some(number)
    }

    pub(super) fn class(&self, number: u8) -> SlotClass {
        self.classes[usize::from(number)].class
    }

    pub(super) fn class_count(&self) -> usize {
        self.classes.len()
    }

    /// The class that `slot` belongs to.
    pub(super) fn class_of(&self, slot: SlotId) -> Option<u8> {
        self.extents.get(usize::from(slot.extent)).copied().flatten()
    }

    /// Takes a free slot, opening a new extent when the class has none left.
    pub(super) fn take(&mut self, number: u8) -> Option<SlotId> {
        let at = usize::from(number);
        if let Some((extent, next, slots)) = self.classes[at].fresh {
            self.classes[at].fresh = (next + 1 < slots).then_some((extent, next + 1, slots));
            self.classes[at].used += 1;
            return Some(SlotId { extent, index: u16::try_from(next).unwrap_or(u16::MAX) });
        }
        if let Some(slot) = self.classes[at].freed.pop_front() {
            self.classes[at].used += 1;
            return Some(slot);
        }
        let class = self.classes[at].class;
        let empty = |extent: usize| {
            let extent = u16::try_from(extent).ok()?;
            let slots = self.shape.slots(extent, class);
            (slots > 0).then_some((extent, slots))
        };
        let (extent, slots) = (0..self.extents.len()).filter(|at| self.extents[*at].is_none()).find_map(empty)?;
        self.extents[usize::from(extent)] = Some(number);
        self.classes[at].fresh = Some((extent, 0, slots));
        self.take(number)
    }

    /// Gives a slot back.
    pub(super) fn give(&mut self, number: u8, slot: SlotId) {
        let class = &mut self.classes[usize::from(number)];
        debug_assert!(class.used > 0, "more slots given back than taken");
        class.used -= 1;
        class.freed.push_back(slot);
    }

    /// Marks slots that a stored index names as used, and all others of their extents as free. A slot that can't be one
    /// of this tier, or that another row named before, is refused: `false` in its place.
    pub(super) fn occupy(&mut self, slots: &[(SlotId, SlotClass)]) -> Vec<bool> {
        let mut taken: Vec<Vec<bool>> = vec![Vec::new(); self.extents.len()];
        let mut accepted = Vec::with_capacity(slots.len());
        for (slot, class) in slots {
            let extent = usize::from(slot.extent);
            let count = if extent < self.extents.len() { self.shape.slots(slot.extent, *class) } else { 0 };
            let number = if u32::from(slot.index) < count { self.number_of(*class) } else { None };
            let fits = number.is_some_and(|number| *self.extents[extent].get_or_insert(number) == number);
            if fits && taken[extent].is_empty() {
                taken[extent] = vec![false; count as usize];
            }
            let good = fits && !std::mem::replace(&mut taken[extent][usize::from(slot.index)], true);
            if let (true, Some(number)) = (good, number) {
                self.classes[usize::from(number)].used += 1;
            }
            accepted.push(good);
        }
        for (extent, slots) in (0_u16..).zip(&taken) {
            let Some(number) = self.extents[usize::from(extent)] else { continue };
            let free = (0_u16..=u16::MAX).zip(slots).filter(|(_, taken)| !**taken);
            self.classes[usize::from(number)].freed.extend(free.map(|(index, _)| SlotId { extent, index }));
        }
        accepted
    }

    /// Bytes of slots in use.
    pub(super) fn used_bytes(&self) -> u64 {
        self.classes.iter().map(|class| class.used * u64::from(class.class.bytes())).sum()
    }

    /// Slots of a class in use.
    pub(super) fn used(&self, number: u8) -> u64 {
        self.classes[usize::from(number)].used
    }

    /// Every free slot of a class that was used before: for the invariants' check.
    pub(super) fn freed(&self, number: u8) -> impl Iterator<Item = SlotId> + '_ {
        self.classes[usize::from(number)].freed.iter().copied()
    }

    /// Slots of a class in all its extents, never used ones included.
    pub(super) fn slots(&self, number: u8) -> u64 {
        let class = self.classes[usize::from(number)].class;
        let own = (0_u16..).zip(&self.extents).filter(|(_, owner)| **owner == Some(number));
        own.map(|(extent, _)| u64::from(self.shape.slots(extent, class))).sum()
    }

    /// Slots of a class that were never used.
    pub(super) fn fresh(&self, number: u8) -> u64 {
        self.classes[usize::from(number)].fresh.map_or(0, |(_, next, slots)| u64::from(slots - next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::ByteCount;

    #[test]
    fn every_slot_is_given_once_and_comes_back_in_order() {
        let mut space = Space::new(TierShape::with_extent(64 << 10, 16 << 10));
        let class = space.class_number(4096).unwrap();
        let slots: Vec<_> = std::iter::from_fn(|| space.take(class)).collect();
        assert_eq!(slots.len(), 16);
        space.give(class, slots[3]);
        space.give(class, slots[1]);
        assert_eq!((space.take(class), space.take(class), space.take(class)), (Some(slots[3]), Some(slots[1]), None));
        assert_eq!(space.used_bytes(), 64 << 10);
    }

    #[test]
    fn two_sizes_live_side_by_side() {
        let mut space = Space::new(TierShape::carve(ByteCount(1 << 20)));
        let (small, large) = (space.class_number(4096).unwrap(), space.class_number(60 << 10).unwrap());
        assert_ne!(space.take(small).unwrap().extent, space.take(large).unwrap().extent);
    }

    #[test]
    fn rows_of_a_restart_occupy_their_slots_and_bad_ones_are_refused() {
        let mut space = Space::new(TierShape::with_extent(32 << 10, 16 << 10));
        let class = SlotClass::of_bytes(4096).unwrap();
        let slot = |extent, index| (SlotId { extent, index }, class);
        let other = (SlotId { extent: 0, index: 0 }, SlotClass::of_bytes(8192).unwrap());
        let rows = [slot(0, 1), slot(0, 1), slot(0, 4), slot(7, 0), other];
        assert_eq!(space.occupy(&rows), [true, false, false, false, false]);
        let number = space.class_of(rows[0].0).unwrap();
        let free: Vec<_> = std::iter::from_fn(|| space.take(number)).collect();
        assert_eq!(free.len(), 7);
        assert!(!free.contains(&rows[0].0));
    }
}
