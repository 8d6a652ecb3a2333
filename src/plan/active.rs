//! What is known of a block only while RAM holds or awaits it, it is leased, or its bytes are moved: few blocks of those
//! that a drive holds. Also the questions that need it.

use super::catalog::Catalog;
use super::column::Column;
use super::entry::{Entry, NO_SLOT, NONE, Nvme, Ram};
use crate::vocab::SlotId;

/// No put.
pub(super) const NO_PUT: u64 = u64::MAX;

/// What is known of an active block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Active {
    /// Which block.
    pub block: u32,
    pub ram_slot: SlotId,
    /// Generation of the bytes in its RAM slot.
    pub generation: u64,
    /// The put that will send it, while `ram` is before `Resident` and it is not being loaded.
    pub put: u64,
    pub leases: u32,
    /// Promises that lie on it: see `keep.rs`.
    pub promises: u32,
    /// Reads of its NVMe slot under way.
    pub reads: u16,
    /// RAM lets it go once its write to NVMe has ended; its slot is promised to others already.
    pub leaving: bool,
}

/// What holds for all others.
static AT_REST: Active = Active::new(NONE);

impl Active {
    const fn new(block: u32) -> Self {
        Self { block, ram_slot: NO_SLOT, generation: 0, put: NO_PUT, leases: 0, promises: 0, reads: 0, leaving: false }
    }
}

/// The active blocks. A block's place among them is also its number in RAM's order of going, which so is as long as RAM
/// has blocks, however many a drive has.
#[derive(Debug)]
pub(super) struct Actives {
    places: Column<Active>,
    /// Places that were given so far.
    given: u32,
    vacant: Vec<u32>,
}

impl Default for Actives {
    fn default() -> Self {
        Self { places: Column::new(AT_REST), given: 0, vacant: Vec::new() }
    }
}

impl Actives {
    fn add(&mut self, block: u32) -> u32 {
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.given += 1;
            self.given - 1
        });
        self.places.reach(at);
        self.places[at] = Active::new(block);
        at
    }

    fn remove(&mut self, at: u32) {
        self.places[at] = AT_REST;
        self.vacant.push(at);
    }

    /// The block at a place: what RAM's order of going calls it.
    pub(super) fn block(&self, at: u32) -> u32 {
        self.places[at].block
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.given as usize - self.vacant.len()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.places.bytes() + self.vacant.capacity() * size_of::<u32>()
    }
}

impl Catalog {
    /// What is moving of a block.
    pub(super) fn active(&self, number: u32) -> &Active {
        self.actives.places.find(self[number].active).unwrap_or(&AT_REST)
    }

    /// The same, to change it; it is kept until the block is at [`rest`](Self::rest).
    pub(super) fn active_mut(&mut self, number: u32) -> &mut Active {
        let at = self.ram_number(number);
        &mut self.actives.places[at]
    }

    /// What RAM's order of going calls a block.
    pub(super) fn ram_number(&mut self, number: u32) -> u32 {
        if self[number].active == NONE {
            self[number].active = self.actives.add(number);
        }
        self[number].active
    }

    /// Forgets what was moving of a block if nothing is.
    pub(super) fn rest(&mut self, number: u32) {
        let (entry, active) = (&self[number], self.active(number));
        let at_rest = entry.ram == Ram::Absent && active.leases == 0 && active.reads == 0 && active.promises == 0;
        if at_rest && entry.active != NONE {
            let at = std::mem::replace(&mut self[number].active, NONE);
            self.actives.remove(at);
        }
    }

    /// Its bytes are being moved, or are about to be.
    pub(super) fn is_moving(&self, number: u32) -> bool {
        let entry = &self[number];
        matches!(entry.nvme, Nvme::Waiting | Nvme::Writing)
            || matches!(entry.ram, Ram::Offered | Ram::Waiting | Ram::Filling)
            || self.active(number).reads > 0
    }

    /// RAM may let it go: nothing in RAM hangs on it, nothing is written from it, and it is not the only copy of what
    /// blocks on NVMe hang on.
    pub(super) fn ram_may_go(&self, number: u32) -> bool {
        self.ram_is_idle(number) && !carries_nvme(&self[number])
    }

    /// RAM would let it go, but blocks on NVMe hang on it, which has no copy of it: its write was dropped or failed.
    /// Unreachable ones are not worth keeping for that.
    pub(super) fn is_sole_support(&self, number: u32) -> bool {
        self.ram_is_idle(number) && carries_nvme(&self[number])
    }

    /// RAM may let it go together with all that hangs on it there.
    pub(super) fn ram_may_go_with_children(&self, number: u32) -> bool {
        self.is_idle_but_for_children(number) && !carries_nvme(&self[number])
    }

    /// Both tiers may let it go together with all that hangs on it.
    pub(super) fn may_go_with_children(&self, number: u32) -> bool {
        let active = self.active(number);
        active.leases == 0 && active.promises == 0 && !self.is_moving(number)
    }

    fn ram_is_idle(&self, number: u32) -> bool {
        self[number].ram_children == 0 && self.is_idle_but_for_children(number)
    }

    fn is_idle_but_for_children(&self, number: u32) -> bool {
        let entry = &self[number];
        entry.ram == Ram::Resident
            && !matches!(entry.nvme, Nvme::Waiting | Nvme::Writing)
            && self.active(number).leases == 0
    }

    /// NVMe may let it go: nothing in either tier hangs on it. RAM is a cache over NVMe, so its RAM copy goes with it.
    pub(super) fn nvme_may_go(&self, number: u32) -> bool {
        let entry = &self[number];
        let ram_may_go = || match entry.ram {
            Ram::Absent => entry.ram_children == 0 || entry.is_orphan(),
            _ => self.ram_may_go(number),
        };
        entry.nvme == Nvme::Resident
            && entry.nvme_children == 0
            && self.active(number).leases == 0
            && self.active(number).promises == 0
            && self.active(number).reads == 0
            && ram_may_go()
    }

    /// Each active block has one place, and each that must have one has it. O(blocks).
    pub(super) fn check_actives(&self) -> Result<(), String> {
        let mut found = 0;
        for (number, entry) in self.iter().filter(|(_, entry)| entry.active != NONE) {
            found += 1;
            if self.active(number).block != number {
                return Err(format!("block {number} is active as {:?}", self.active(number)));
            }
            let active = self.active(number);
            if entry.ram == Ram::Absent && active.leases == 0 && active.reads == 0 && active.promises == 0 {
                return Err(format!("block {number} is at rest and still active"));
            }
        }
        let all = self.actives.len();
        if found == all { Ok(()) } else { Err(format!("{all} blocks are kept as active, {found} are")) }
    }
}

fn carries_nvme(entry: &Entry) -> bool {
    entry.nvme == Nvme::Absent && entry.nvme_children > 0 && !entry.is_orphan()
}
