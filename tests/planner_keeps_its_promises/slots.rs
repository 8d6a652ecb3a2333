//! One tier as the world sees it: what is in each slot, and who has not yet let go of it.

use std::collections::BTreeMap;

use kvtier::vocab::{BlockKey, SlotClass, SlotId};

/// Who has a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Bytes are coming in.
    Filling(BlockKey),
    /// It holds a block.
    Resident(BlockKey),
    /// It was given up and is still read, or its row is still there.
    Going,
}

/// The slots of a tier that are in use.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    uses: BTreeMap<SlotId, (Use, SlotClass)>,
    /// Transfers out of a slot that have not ended.
    readers: BTreeMap<SlotId, u32>,
    /// Each extent belongs to one size class.
    extents: BTreeMap<u16, SlotClass>,
}

impl Slots {
    pub(crate) fn hand_out(&mut self, slot: SlotId, class: SlotClass, key: BlockKey) {
        let before = self.uses.insert(slot, (Use::Filling(key), class));
        assert_eq!(before, None, "slot {slot} is handed out while in use");
        assert!(!self.readers.contains_key(&slot), "slot {slot} is handed out while it is read");
        // An extent changes its class only when nothing is in it.
        let others = self.uses.keys().any(|other| other.extent == slot.extent && *other != slot);
        let of = self.extents.insert(slot.extent, class).filter(|_| others);
        assert!(of.is_none_or(|of| of == class), "slot {slot} lies in an extent of another class");
    }

    /// The bytes have come.
    pub(crate) fn filled(&mut self, slot: SlotId) -> BlockKey {
        let (state, _) = self.uses.get_mut(&slot).expect("a slot that is filled was handed out");
        let Use::Filling(key) = *state else { panic!("slot {slot} is filled while {state:?}") };
        *state = Use::Resident(key);
        key
    }

    /// The bytes will not come.
    pub(crate) fn given_up(&mut self, slot: SlotId) {
        let before = self.uses.remove(&slot);
        assert!(matches!(before, Some((Use::Filling(_), _))), "slot {slot} is given up while {before:?}");
    }

    /// A command lets the slot go.
    pub(crate) fn going(&mut self, slot: SlotId) {
        let found = self.uses.get_mut(&slot).map(|(state, _)| state);
        assert!(matches!(found, Some(Use::Resident(_))), "slot {slot} is let go while {found:?}");
        assert!(!self.readers.contains_key(&slot), "slot {slot} is let go while it is read");
        self.uses.insert(slot, (Use::Going, self.extents[&slot.extent]));
    }

    pub(crate) fn gone(&mut self, slot: SlotId) {
        let before = self.uses.remove(&slot);
        assert!(matches!(before, Some((Use::Going, _))), "slot {slot} has gone while {before:?}");
    }

    pub(crate) fn begin_read(&mut self, slot: SlotId, key: BlockKey) {
        assert_eq!(self.get(slot), Some(Use::Resident(key)), "slot {slot} is read as if it held {key:?}");
        *self.readers.entry(slot).or_default() += 1;
    }

    pub(crate) fn end_read(&mut self, slot: SlotId) {
        let left = self.readers.get_mut(&slot).expect("a read that ends has begun");
        *left -= 1;
        if *left == 0 {
            self.readers.remove(&slot);
        }
    }

    pub(crate) fn get(&self, slot: SlotId) -> Option<Use> {
        self.uses.get(&slot).map(|(state, _)| *state)
    }

    /// The slot of each block that is in the tier.
    pub(crate) fn residents(&self) -> BTreeMap<BlockKey, SlotId> {
        let mut residents = BTreeMap::new();
        for (slot, (state, _)) in &self.uses {
            if let Use::Resident(key) = state {
                assert_eq!(residents.insert(*key, *slot), None, "{key:?} is in two slots");
            }
        }
        residents
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.uses.values().map(|(_, class)| u64::from(class.bytes())).sum()
    }

    pub(crate) fn in_flight(&self) -> usize {
        let moving = self.uses.values().filter(|(state, _)| !matches!(state, Use::Resident(_))).count();
        moving + self.readers.len()
    }

    /// After a restart: only what rows name is there.
    pub(crate) fn recovered(slots: impl Iterator<Item = (SlotId, SlotClass, BlockKey)>) -> Self {
        let mut new = Self::default();
        for (slot, class, key) in slots {
            new.hand_out(slot, class, key);
            new.filled(slot);
        }
        new
    }
}
