//! What the planner knows of one block, in one cache line. Its key is in [`Keys`](super::keys::Keys), its owner among
//! [`Owners`](super::owner::Owners), and what only some blocks need in [`Active`](super::active::Active).

use super::owner::NOBODY;
use crate::vocab::SlotId;

/// No block: the end of a list of children.
pub(super) const NONE: u32 = u32::MAX;
/// The parent of a chain's first block.
pub(super) const ROOT: u32 = u32::MAX - 1;
/// The parent of a block whose parent is not known any more: it is found again when its chain is offered.
pub(super) const UNKNOWN: u32 = u32::MAX - 2;

/// Whether `number` is a block rather than one of the marks above.
pub(super) const fn is_block(number: u32) -> bool {
    number < UNKNOWN
}

/// A block's state in RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ram {
    /// Not there.
    #[default]
    Absent,
    /// A put will send it; it has no slot yet.
    Offered,
    /// Wants a slot that is being freed.
    Waiting,
    /// A put or a load is filling its slot.
    Filling,
    /// There.
    Resident,
}

/// A block's state on NVMe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Nvme {
    /// Not there.
    #[default]
    Absent,
    /// Wants a slot that is being freed.
    Waiting,
    /// Being written.
    Writing,
    /// There, with its row.
    Resident,
}

/// Who can reach a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nobody: no tier has it, or it is erased.
    #[default]
    Nobody,
    /// Some tier has it, but not so all its ancestors: unreachable, first to go.
    Orphan,
    /// Some tier has it, and the same holds for its ancestors: it is published.
    Readable,
    /// The same, and RAM has it and all its ancestors.
    Run,
}

/// What the planner knows of one block. A block that is in no tier stays as a ghost while it has children, so that a
/// new put of it heals them.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Entry {
    /// How often this record was another block's. A completion that speaks of another one is late by no more than what
    /// waits for the planner, so that 16 bits tell.
    pub stamp: u16,
    pub ram_class: u8,
    /// It goes as soon as what moves it ends.
    pub doomed: bool,
    pub parent: u32,
    pub first_child: u32,
    pub next_sibling: u32,
    pub prev_sibling: u32,
    /// Children that RAM holds or awaits.
    pub ram_children: u32,
    /// Children that NVMe holds or awaits.
    pub nvme_children: u32,
    pub depth: u32,
    /// Bytes of its payload.
    pub length: u32,
    pub nvme_slot: SlotId,
    pub crc: u64,
    pub created_s: u32,
    /// Whose it is.
    pub owner: u32,
    /// Where what is moving of it is kept; `NONE` for nothing, `VACANT` where the record is no block's.
    pub active: u32,
    pub ram: Ram,
    pub nvme: Nvme,
    pub nvme_class: u8,
    pub reach: Reach,
}

const _: () = assert!(size_of::<Entry>() == 64, "one cache line a block");

/// A record that is no block's.
pub(super) const VACANT: u32 = u32::MAX - 1;
/// No slot.
pub(super) const NO_SLOT: SlotId = SlotId { extent: u16::MAX, index: u16::MAX };

impl Entry {
    /// A record that is no block's yet.
    pub(super) const BLANK: Self = Self { active: VACANT, ..Self::new(0, 0) };

    pub(super) const fn new(stamp: u16, depth: u32) -> Self {
        Self {
            stamp,
            ram_class: 0,
            doomed: false,
            parent: UNKNOWN,
            first_child: NONE,
            next_sibling: NONE,
            prev_sibling: NONE,
            ram_children: 0,
            nvme_children: 0,
            depth,
            length: 0,
            nvme_slot: NO_SLOT,
            crc: 0,
            created_s: 0,
            owner: NOBODY,
            active: NONE,
            ram: Ram::Absent,
            nvme: Nvme::Absent,
            nvme_class: 0,
            reach: Reach::Nobody,
        }
    }

    /// In no tier and awaited by none.
    pub(super) fn is_ghost(&self) -> bool {
        self.ram == Ram::Absent && self.nvme == Nvme::Absent
    }

    /// Some tier holds its bytes.
    pub(super) fn has_bytes(&self) -> bool {
        self.ram == Ram::Resident || self.nvme == Nvme::Resident
    }

    /// It is published.
    pub(super) fn is_readable(&self) -> bool {
        matches!(self.reach, Reach::Readable | Reach::Run)
    }

    /// RAM has it and all its ancestors.
    pub(super) fn is_ram_run(&self) -> bool {
        self.reach == Reach::Run
    }

    /// It has bytes that nobody can reach.
    pub(super) fn is_orphan(&self) -> bool {
        self.reach == Reach::Orphan
    }
}
