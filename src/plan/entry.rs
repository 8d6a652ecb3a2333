//! What the planner knows of one block.

use crate::vocab::{BlockKey, Owner, SlotId, Timestamp};

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

/// What the planner knows of one block. A block that is in no tier stays as a ghost while it has children, so that a
/// new put of it heals them.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: BlockKey,
    pub stamp: u32,
    pub parent: u32,
    pub first_child: u32,
    pub next_sibling: u32,
    pub prev_sibling: u32,
    /// Children that RAM holds or awaits.
    pub ram_children: u32,
    /// Children that NVMe holds or awaits.
    pub nvme_children: u32,
    pub depth: u32,
    pub leases: u32,
    /// Reads of its NVMe slot under way.
    pub reads: u16,
    pub ram: Ram,
    pub nvme: Nvme,
    pub ram_class: u8,
    pub nvme_class: u8,
    pub ram_slot: SlotId,
    pub nvme_slot: SlotId,
    pub generation: u64,
    pub length: u32,
    pub crc: u64,
    pub owner: Owner,
    pub created_s: u32,
    /// The put that will send it, while `ram` is before `Resident` and it is not being loaded.
    pub put: u64,
    /// RAM has it and all its ancestors.
    pub ram_run: bool,
    /// Some tier has it, and the same holds for its ancestors: it is published.
    pub readable: bool,
    /// Some tier has it, but not so all its ancestors: unreachable, first to go.
    pub orphan: bool,
    /// It goes as soon as what moves it ends.
    pub doomed: bool,
    /// The largest payload of its namespace: what its slots are cut for.
    pub payload_max: u32,
    /// When it was used last, in seconds.
    pub used_s: u32,
    /// RAM lets it go once its write to NVMe has ended; its slot is promised to others already.
    pub leaving: bool,
}

/// No put.
pub(super) const NO_PUT: u64 = u64::MAX;
/// No slot.
pub(super) const NO_SLOT: SlotId = SlotId { extent: u16::MAX, index: u16::MAX };

impl Entry {
    pub(super) fn new(key: BlockKey, stamp: u32, parent: u32, depth: u32) -> Self {
        Self {
            key,
            stamp,
            parent,
            first_child: NONE,
            next_sibling: NONE,
            prev_sibling: NONE,
            ram_children: 0,
            nvme_children: 0,
            depth,
            leases: 0,
            reads: 0,
            ram: Ram::Absent,
            nvme: Nvme::Absent,
            ram_class: 0,
            nvme_class: 0,
            ram_slot: NO_SLOT,
            nvme_slot: NO_SLOT,
            generation: 0,
            length: 0,
            crc: 0,
            owner: Owner::default(),
            created_s: 0,
            put: NO_PUT,
            ram_run: false,
            readable: false,
            orphan: false,
            doomed: false,
            payload_max: 0,
            used_s: 0,
            leaving: false,
        }
    }

    /// When it was used last.
    pub(super) fn used(&self) -> Timestamp {
        Timestamp(u64::from(self.used_s) * 1_000)
    }

    /// In no tier and awaited by none.
    pub(super) fn is_ghost(&self) -> bool {
        self.ram == Ram::Absent && self.nvme == Nvme::Absent
    }

    /// Some tier holds its bytes.
    pub(super) fn has_bytes(&self) -> bool {
        self.ram == Ram::Resident || self.nvme == Nvme::Resident
    }

    /// Its bytes are being moved, or are about to be.
    pub(super) fn is_moving(&self) -> bool {
        self.reads > 0
            || matches!(self.nvme, Nvme::Waiting | Nvme::Writing)
            || matches!(self.ram, Ram::Offered | Ram::Waiting | Ram::Filling)
    }

    /// RAM may let it go: nothing in RAM hangs on it, nothing is written from it, and it is not the only copy of what
    /// blocks on NVMe hang on.
    pub(super) fn ram_may_go(&self) -> bool {
        self.ram_is_idle() && !self.carries_nvme()
    }

    /// RAM would let it go, but blocks on NVMe hang on it, which has no copy of it: its write was dropped or failed.
    /// Unreachable ones are not worth keeping for that.
    pub(super) fn is_sole_support(&self) -> bool {
        self.ram_is_idle() && self.carries_nvme()
    }

    fn ram_is_idle(&self) -> bool {
        self.ram_children == 0 && self.is_idle_but_for_children()
    }

    fn is_idle_but_for_children(&self) -> bool {
        self.ram == Ram::Resident && self.leases == 0 && !matches!(self.nvme, Nvme::Waiting | Nvme::Writing)
    }

    /// RAM may let it go together with all that hangs on it there.
    pub(super) fn ram_may_go_with_children(&self) -> bool {
        self.is_idle_but_for_children() && !self.carries_nvme()
    }

    /// Both tiers may let it go together with all that hangs on it.
    pub(super) fn may_go_with_children(&self) -> bool {
        self.leases == 0 && !self.is_moving()
    }

    fn carries_nvme(&self) -> bool {
        self.nvme == Nvme::Absent && self.nvme_children > 0 && !self.orphan
    }

    /// NVMe may let it go: nothing in either tier hangs on it. RAM is a cache over NVMe, so its RAM copy goes with it.
    pub(super) fn nvme_may_go(&self) -> bool {
        self.nvme == Nvme::Resident
            && self.nvme_children == 0
            && self.leases == 0
            && self.reads == 0
            && if self.ram == Ram::Absent { self.ram_children == 0 || self.orphan } else { self.ram_may_go() }
    }
}
