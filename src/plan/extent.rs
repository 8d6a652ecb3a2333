//! One extent of a tier: which class its slots are cut for, and whose each of them is.

use crate::vocab::Timestamp;

/// No block: the slot is free, or is being freed.
const NOBODY: u32 = u32::MAX;

/// An extent that belongs to a class.
#[derive(Debug)]
pub(super) struct Extent {
    pub class: u8,
    /// The class that gets it once its last slot is free.
    pub leaving: Option<u8>,
    /// Slots in use, those that are being freed included.
    pub used: u32,
    /// When any of its blocks was last used. Since a use of a block is one of all its ancestors, nothing that hangs on
    /// one of its blocks was used later.
    pub touched: Timestamp,
    owned: u32,
    owners: Box<[u32]>,
}

impl Extent {
    pub(super) fn new(class: u8, slots: u32) -> Self {
        let owners = vec![NOBODY; slots as usize].into_boxed_slice();
        Self { class, leaving: None, used: 0, touched: Timestamp(0), owned: 0, owners }
    }

    pub(super) fn take(&mut self, index: u16, block: u32) {
        debug_assert_eq!(self.owners[usize::from(index)], NOBODY, "a slot of two blocks");
        self.owners[usize::from(index)] = block;
        self.owned += 1;
        self.used += 1;
    }

    /// As [`take`](Self::take), from a stored index: false where the slot is taken.
    pub(super) fn occupy(&mut self, index: u16, block: u32) -> bool {
        let free = self.owners[usize::from(index)] == NOBODY;
        if free {
            self.take(index, block);
        }
        free
    }

    /// The slot's block lets it go. False where it had none.
    pub(super) fn disown(&mut self, index: u16) -> bool {
        let owned = std::mem::replace(&mut self.owners[usize::from(index)], NOBODY) != NOBODY;
        self.owned -= u32::from(owned);
        owned
    }

    /// Slots that their blocks have let go and that are not free yet: promised to others.
    pub(super) fn draining(&self) -> u32 {
        self.used - self.owned
    }

    /// The blocks in it, in the order of their slots.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u32> + '_ {
        self.owners.iter().copied().filter(|owner| *owner != NOBODY)
    }

    /// The slots from one on that have a block, and the blocks.
    pub(super) fn blocks_from(&self, index: u32) -> impl Iterator<Item = (u16, u32)> + '_ {
        let owners = (0_u16..=u16::MAX).zip(&self.owners).skip(index as usize);
        owners.map(|(index, owner)| (index, *owner)).filter(|(_, owner)| *owner != NOBODY)
    }

    /// Slots that no block has.
    pub(super) fn unowned(&self) -> impl Iterator<Item = u16> + '_ {
        (0_u16..=u16::MAX).zip(&self.owners).filter(|(_, owner)| **owner == NOBODY).map(|(index, _)| index)
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.owners)
    }

    /// The block in a slot.
    pub(super) fn owner(&self, index: u16) -> Option<u32> {
        self.owners.get(usize::from(index)).copied().filter(|owner| *owner != NOBODY)
    }
}
