//! Which slots of a tier are free. An extent is given to a size class when the class first needs it, and is taken from it
//! again when another needs it more (see `extents.rs`). Within a class slots go round in the order in which they were
//! freed, so that a drive sees nearly sequential writes; drives take turns.

use std::collections::{BTreeSet, VecDeque};

use super::extent::Extent;
use crate::vocab::{SlotClass, SlotId, TierShape, Timestamp};

/// The free slots of one size class on one drive.
#[derive(Debug, Default)]
struct Lane {
    /// Slots of its extents that were used and freed.
    freed: VecDeque<SlotId>,
    /// The part of its newest extents that was never used: extent, next index, slots.
    fresh: Vec<(u16, u32, u32)>,
}

/// One size class.
#[derive(Debug)]
struct ClassSpace {
    class: SlotClass,
    /// One a drive.
    lanes: Vec<Lane>,
    /// The drive whose turn it is.
    turn: usize,
    /// Slots now in use, those of extents that are leaving included.
    used: u64,
    /// Extents it has, without those that are leaving or on a lost drive.
    extents: u32,
}

/// The free and used slots of one tier.
#[derive(Debug)]
pub(super) struct Space {
    shape: TierShape,
    extents: Vec<Option<Extent>>,
    /// Extents of no class, for each drive.
    unassigned: Vec<BTreeSet<u16>>,
    classes: Vec<ClassSpace>,
    /// Drives that are not written to while another can be.
    tired: Vec<bool>,
    /// Drives whose slots are not used any more.
    lost: Vec<bool>,
    /// Slots of lost drives that are being freed.
    ebbing: u64,
    /// Bytes of slots in use on each drive.
    used_of_drives: Vec<u64>,
}

impl Space {
    pub(super) fn new(shape: TierShape) -> Self {
        let drives = usize::from(shape.stride());
        let mut unassigned = vec![BTreeSet::new(); drives];
        for extent in (0..=u16::MAX).take(shape.extents() as usize) {
            if shape.extent_on_drive(extent).1 > 0 {
                unassigned[usize::from(shape.drive_of(extent))].insert(extent);
            }
        }
        let extents = std::iter::repeat_with(|| None).take(shape.extents() as usize).collect();
        Self {
            shape,
            extents,
            unassigned,
            classes: Vec::new(),
            tired: vec![false; drives],
            lost: vec![false; drives],
            ebbing: 0,
            used_of_drives: vec![0; drives],
        }
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
        let lanes = std::iter::repeat_with(Lane::default).take(self.lost.len()).collect();
        self.classes.push(ClassSpace { class, lanes, turn: 0, used: 0, extents: 0 });
        Some(number)
    }

    pub(super) fn class(&self, number: u8) -> SlotClass {
        self.classes[usize::from(number)].class
    }

    pub(super) fn class_count(&self) -> usize {
        self.classes.len()
    }

    pub(super) fn extent(&self, extent: u16) -> Option<&Extent> {
        self.extents.get(usize::from(extent)).and_then(Option::as_ref)
    }

    fn extent_mut(&mut self, extent: u16) -> Option<&mut Extent> {
        self.extents.get_mut(usize::from(extent)).and_then(Option::as_mut)
    }

    /// Every extent that belongs to a class.
    pub(super) fn extents(&self) -> impl Iterator<Item = (u16, &Extent)> + '_ {
        (0_u16..=u16::MAX).zip(&self.extents).filter_map(|(number, extent)| Some((number, extent.as_ref()?)))
    }

    /// The class that `slot` belongs to.
    pub(super) fn class_of(&self, slot: SlotId) -> Option<u8> {
        self.extent(slot.extent).map(|extent| extent.class)
    }

    /// Extents of a class that it keeps.
    pub(super) fn extents_of(&self, number: u8) -> u32 {
        self.classes[usize::from(number)].extents
    }

    /// Which drives are written to only where no other can be.
    pub(super) fn spare(&mut self, tired: impl Fn(u16) -> bool) {
        (0_u16..).zip(&mut self.tired).for_each(|(drive, flag)| *flag = tired(drive));
    }

    /// Takes a free slot for `block`, from the drives in turn, opening a new extent when the class has none left there.
    pub(super) fn take(&mut self, number: u8, block: u32) -> Option<SlotId> {
        let drives = self.lost.len();
        let turn = self.classes[usize::from(number)].turn;
        for may_be_tired in [false, true] {
            for drive in (0..drives).map(|step| (turn + step) % drives) {
                if self.tired[drive] != may_be_tired {
                    continue;
                }
                let Some(slot) = self.take_on(number, drive) else { continue };
                let class = &mut self.classes[usize::from(number)];
                (class.turn, class.used) = ((drive + 1) % drives, class.used + 1);
                self.used_of_drives[drive] += u64::from(class.class.bytes());
                if let Some(extent) = self.extent_mut(slot.extent) {
                    extent.take(slot.index, block);
                }
                return Some(slot);
            }
        }
        None
    }

    fn take_on(&mut self, number: u8, drive: usize) -> Option<SlotId> {
        let class = &mut self.classes[usize::from(number)];
        let (slot_class, lane) = (class.class, &mut class.lanes[drive]);
        if let Some((extent, next, slots)) = lane.fresh.pop() {
            if next + 1 < slots {
                lane.fresh.push((extent, next + 1, slots));
            }
            return Some(SlotId { extent, index: u16::try_from(next).unwrap_or(u16::MAX) });
        }
        if let Some(slot) = lane.freed.pop_front() {
            return Some(slot);
        }
        let shape = self.shape;
        let extent = self.unassigned[drive].iter().copied().find(|extent| shape.slots(*extent, slot_class) > 0)?;
        self.unassigned[drive].remove(&extent);
        self.assign(extent, number);
        self.take_on(number, drive)
    }

    /// Whether the class can take no slot now.
    pub(super) fn is_full(&self, number: u8) -> bool {
        let class = &self.classes[usize::from(number)];
        let has_free = |lane: &Lane| !lane.fresh.is_empty() || !lane.freed.is_empty();
        let has_slots = |extent: &u16| self.shape.slots(*extent, class.class) > 0;
        !class.lanes.iter().any(has_free) && !self.unassigned.iter().flatten().any(has_slots)
    }

    /// Gives an extent, all of whose slots are free, to a class.
    fn assign(&mut self, extent: u16, number: u8) {
        let class = &mut self.classes[usize::from(number)];
        let slots = self.shape.slots(extent, class.class);
        class.lanes[usize::from(self.shape.drive_of(extent))].fresh.push((extent, 0, slots));
        class.extents += 1;
        self.extents[usize::from(extent)] = Some(Extent::new(number, slots));
    }

    /// The slot's block lets it go; it is free once [`give`](Self::give)n.
    pub(super) fn disown(&mut self, slot: SlotId) {
        let lost = self.is_lost(slot.extent);
        if let Some(extent) = self.extent_mut(slot.extent)
            && extent.disown(slot.index)
        {
            self.ebbing += u64::from(lost);
        }
    }

    /// The block in the slot was used.
    pub(super) fn touch(&mut self, slot: SlotId, now: Timestamp) {
        if let Some(extent) = self.extent_mut(slot.extent) {
            extent.touched = extent.touched.max(now);
        }
    }

    /// Gives a slot back. Returns the class that may have more free slots now: the slot's own, or, with the last slot of
    /// an extent that is leaving, its new one, and how many.
    pub(super) fn give(&mut self, slot: SlotId) -> Option<(u8, u32)> {
        let drive = usize::from(self.shape.drive_of(slot.extent));
        let extent = self.extent_mut(slot.extent)?;
        let was_draining = !extent.disown(slot.index);
        extent.used -= 1;
        let (number, leaving, used) = (extent.class, extent.leaving, extent.used);
        let class = &mut self.classes[usize::from(number)];
        debug_assert!(class.used > 0, "more slots given back than taken");
        class.used -= 1;
        self.used_of_drives[drive] -= u64::from(class.class.bytes());
        if self.lost[drive] {
            self.ebbing -= u64::from(was_draining);
            return None;
        }
        let Some(next) = leaving else {
            class.lanes[drive].freed.push_back(slot);
            return Some((number, 1));
        };
        (used == 0).then(|| {
            self.assign(slot.extent, next);
            (next, self.shape.slots(slot.extent, self.class(next)))
        })
    }

    /// Takes an extent from its class, for class `next`: its free slots are handed out no more, and with the last used one
    /// it changes hands. Returns how many slots it will have then; 0 where it has changed hands at once.
    pub(super) fn leave(&mut self, extent: u16, next: u8) -> u32 {
        let drive = usize::from(self.shape.drive_of(extent));
        let Some(leaving) = self.extent_mut(extent) else { return 0 };
        leaving.leaving = Some(next);
        let (number, used) = (leaving.class, leaving.used);
        let class = &mut self.classes[usize::from(number)];
        class.extents -= 1;
        class.lanes[drive].freed.retain(|slot| slot.extent != extent);
        class.lanes[drive].fresh.retain(|(of, ..)| *of != extent);
        if used == 0 {
            self.assign(extent, next);
            return 0;
        }
        self.shape.slots(extent, self.class(next))
    }

    /// A drive is gone: its free slots are forgotten, and those in use when they are given back. Returns its extents.
    pub(super) fn lose_drive(&mut self, drive: u16) -> Vec<u16> {
        let at = usize::from(drive);
        if self.lost.get(at).is_none_or(|lost| *lost) {
            return Vec::new();
        }
        self.lost[at] = true;
        self.unassigned[at].clear();
        let shape = self.shape;
        let own: Vec<_> = self.extents().filter(|(number, _)| shape.drive_of(*number) == drive).collect();
        let ebbing: u64 = own.iter().map(|(_, extent)| u64::from(extent.draining())).sum();
        let own: Vec<_> = own.into_iter().map(|(number, extent)| (number, extent.class, extent.leaving)).collect();
        self.ebbing += ebbing;
        for class in &mut self.classes {
            class.lanes[at] = Lane::default();
        }
        for (_, class, leaving) in &own {
            self.classes[usize::from(*class)].extents -= u32::from(leaving.is_none());
        }
        own.into_iter().map(|(number, ..)| number).collect()
    }

    /// Slots of lost drives that are being freed.
    pub(super) fn ebbing(&self) -> u64 {
        self.ebbing
    }

    pub(super) fn is_lost(&self, extent: u16) -> bool {
        self.lost[usize::from(self.shape.drive_of(extent))]
    }

    /// Marks a slot that a stored index names as used by `block`. False for one that can't be one of this tier, or that
    /// another row named before. Before anything is taken; [`occupied`](Self::occupied) follows.
    pub(super) fn occupy(&mut self, slot: SlotId, class: SlotClass, block: u32) -> bool {
        let slots =
            if usize::from(slot.extent) < self.extents.len() { self.shape.slots(slot.extent, class) } else { 0 };
        if u32::from(slot.index) >= slots {
            return false;
        }
        let Some(number) = self.number_of(class) else { return false };
        if self.extents[usize::from(slot.extent)].is_none() {
            self.unassigned[usize::from(self.shape.drive_of(slot.extent))].remove(&slot.extent);
            self.extents[usize::from(slot.extent)] = Some(Extent::new(number, slots));
            self.classes[usize::from(number)].extents += 1;
        }
        let good = self
            .extent_mut(slot.extent)
            .is_some_and(|extent| extent.class == number && extent.occupy(slot.index, block));
        let drive = usize::from(self.shape.drive_of(slot.extent));
        let bytes = u64::from(self.class(number).bytes());
        self.classes[usize::from(number)].used += u64::from(good);
        self.used_of_drives[drive] += u64::from(good) * bytes;
        good
    }

    /// All slots that are used have been named: the others of their extents are free.
    pub(super) fn occupied(&mut self) {
        for (number, extent) in (0_u16..=u16::MAX).zip(&self.extents) {
            let Some(extent) = extent else { continue };
            let lane = &mut self.classes[usize::from(extent.class)].lanes[usize::from(self.shape.drive_of(number))];
            lane.freed.extend(extent.unowned().map(|index| SlotId { extent: number, index }));
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let lanes = self.classes.iter().flat_map(|class| &class.lanes);
        let freed: usize = lanes.map(|lane| lane.freed.capacity() * size_of::<SlotId>()).sum();
        let owners: usize = self.extents().map(|(_, extent)| extent.bytes()).sum();
        freed + owners + self.extents.capacity() * size_of::<Option<Extent>>()
    }

    /// Bytes of slots in use.
    pub(super) fn used_bytes(&self) -> u64 {
        self.classes.iter().map(|class| class.used * u64::from(class.class.bytes())).sum()
    }

    /// Bytes of slots in use on each drive.
    pub(super) fn used_bytes_of_drives(&self) -> &[u64] {
        &self.used_of_drives
    }

    /// Slots of a class in use.
    pub(super) fn used(&self, number: u8) -> u64 {
        self.classes[usize::from(number)].used
    }

    /// Every free slot of a class, never used ones included: for the invariants' check.
    pub(super) fn free(&self, number: u8) -> Vec<SlotId> {
        let mut free = Vec::new();
        for lane in &self.classes[usize::from(number)].lanes {
            free.extend(&lane.freed);
            for (extent, next, slots) in &lane.fresh {
                free.extend((*next..*slots).map(|index| SlotId { extent: *extent, index: index as u16 }));
            }
        }
        free
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
