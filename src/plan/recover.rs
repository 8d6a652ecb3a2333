//! A warm start: the catalog as the index's rows tell it, row by row, in whatever order they come.
//!
//! A row whose parent has not come yet hangs on a ghost, which becomes the parent when its row comes. What is kept
//! until the last row is when each block was used, in the place where a running planner keeps it; the order of going is
//! made from that in the end.

use super::entry::{Nvme, ROOT, Reach, UNKNOWN, is_block};
use super::event::{BlockRef, Residence};
use super::owner::Deed;
use super::planner::Planner;
use super::policy::Heat;
use crate::vocab::{BlockKey, Owner, SlotClass, SlotId};

/// One row of the index.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Which block.
    pub key: BlockKey,
    /// Where it is on NVMe.
    pub slot: SlotId,
    /// Size of that slot.
    pub class: SlotClass,
    /// Bytes of the payload.
    pub length: u32,
    /// Checksum, seeded with the key.
    pub crc: u64,
    /// Whose it is.
    pub owner: Owner,
    /// The largest payload of its namespace.
    pub payload_max: u32,
    /// The block before it; `None` for the first of a chain.
    pub parent: Option<BlockKey>,
    /// How many blocks come before it.
    pub depth: u32,
    /// When it was stored.
    pub created_s: u32,
    /// When it was last used, as far as known.
    pub last_use_s: u32,
}

/// A planner that takes in the rows of an index, before any event.
pub struct Recovery {
    planner: Planner,
}

/// A block's place in the order of going: orphans first, then the least recent, then the deepest, and its number.
/// Twelve bytes that compare as they stand.
type Turn = [u32; 3];

impl Recovery {
    /// Begins with a planner that has had no event; `blocks` is about how many rows will come.
    #[must_use]
    pub fn new(mut planner: Planner, blocks: u64) -> Self {
        planner.catalog.expect(blocks);
        Self { planner }
    }

    /// Takes in one row. False for one that can't be true (a slot outside the tier, or one that another row has named,
    /// or an extent of another class): it is stale. A key that has come before is known, whatever its second row says.
    pub fn row(&mut self, row: &Recovered) -> bool {
        // What a refused row has made vacant is used for the next.
        self.planner.catalog.begin();
        let number = match self.planner.catalog.find(&row.key) {
            Some(number) if !self.planner.catalog[number].is_ghost() => return true,
            Some(ghost) => ghost,
            None => match self.planner.catalog.add(row.key, UNKNOWN, row.depth) {
                Some(number) => number,
                None => return false,
            },
        };
        if !self.planner.nvme.space.occupy(row.slot, row.class, number) {
            self.planner.prune(number);
            return false;
        }
        self.planner.nvme.open_queues();
        self.adjust_depth(number, row.depth);
        self.fill_in(number, row);
        self.hang(number, row);
        self.spread_use(number);
        self.planner.spread_reach(number);
        true
    }

    /// A ghost has the depth that its first child expected. Children that contradict its row are not its own.
    fn adjust_depth(&mut self, number: u32, depth: u32) {
        let catalog = &mut self.planner.catalog;
        if catalog[number].depth == depth {
            return;
        }
        catalog[number].depth = depth;
        while is_block(catalog[number].first_child) {
            let child = catalog[number].first_child;
            catalog.detach(child);
        }
        catalog[number].nvme_children = 0;
    }

    fn fill_in(&mut self, number: u32, row: &Recovered) {
        let Planner { catalog, nvme, held, .. } = &mut self.planner;
        let owner = catalog.owners.hold(Deed { owner: row.owner, payload_max: row.payload_max });
        let entry = &mut catalog[number];
        (entry.nvme_slot, entry.nvme_class) = (row.slot, nvme.space.class_of(row.slot).unwrap_or_default());
        (entry.length, entry.crc, entry.created_s, entry.owner) = (row.length, row.crc, row.created_s, owner);
        entry.reach = Reach::Orphan;
        held.orphans += 1;
        nvme.use_later(number, row.last_use_s);
        self.planner.set_nvme(number, Nvme::Resident);
    }

    /// Hangs a block under its parent, or under a ghost in its place, unless the two contradict each other.
    fn hang(&mut self, number: u32, row: &Recovered) {
        let catalog = &mut self.planner.catalog;
        let parent = match (row.parent, row.depth.checked_sub(1)) {
            (None, _) => ROOT,
            (Some(key), Some(depth)) => {
                let known = catalog.find(&key).or_else(|| catalog.add(key, UNKNOWN, depth));
                known.filter(|parent| catalog[*parent].depth == depth).unwrap_or(UNKNOWN)
            }
            (Some(_), None) => UNKNOWN,
        };
        if parent != UNKNOWN {
            catalog.attach(number, parent);
        }
        if is_block(parent) {
            catalog[parent].nvme_children += 1;
        }
    }

    /// A use of a block was one of all its ancestors, though rows know only when each was written.
    fn spread_use(&mut self, number: u32) {
        let Planner { catalog, nvme, .. } = &mut self.planner;
        let used = nvme.used_s(number);
        let mut at = catalog[number].parent;
        while is_block(at) && nvme.use_later(at, used) {
            at = catalog[at].parent;
        }
    }

    /// The blocks that lookups may find, with their keys: what a running planner would have published.
    pub fn readable(&self) -> impl Iterator<Item = (BlockRef, BlockKey, Residence)> + '_ {
        let Planner { catalog, .. } = &self.planner;
        let readable = catalog.iter().filter(|(_, entry)| entry.is_readable());
        readable
            .map(|(number, _)| (self.planner.reference(number), catalog.key(number), self.planner.residence(number)))
    }

    /// The planner so far.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// All rows have come.
    #[must_use]
    pub fn finish(self) -> Planner {
        let mut turns = self.turns();
        turns.sort_unstable();
        let mut planner = self.planner;
        for [_, _, number] in turns {
            let (class, slot) = (planner.catalog[number].nvme_class, planner.catalog[number].nvme_slot);
            let used = planner.nvme.used(number);
            planner.nvme.space.touch(slot, used);
            planner.nvme.insert(class, number, Heat::Hot, used);
        }
        planner.nvme.space.occupied();
        planner
    }

    fn turns(&self) -> Vec<Turn> {
        let Planner { catalog, nvme, held, .. } = &self.planner;
        let mut turns = Vec::with_capacity(usize::try_from(held.nvme_blocks).unwrap_or_default());
        for (number, entry) in catalog.iter().filter(|(_, entry)| entry.nvme == Nvme::Resident) {
            const SHALLOWEST: u32 = u32::MAX >> 1;
            let (used, shallow) = (nvme.used_s(number), SHALLOWEST - entry.depth.min(SHALLOWEST));
            let reached = u32::from(entry.is_readable());
            turns.push([(reached << 31) | (used >> 1), (used << 31) | shallow, number]);
        }
        turns
    }
}

impl Planner {
    /// A block that has come may be reached, and with it what hangs on it.
    fn spread_reach(&mut self, number: u32) {
        let mut stack = std::mem::take(&mut self.stack);
        stack.push(number);
        while let Some(at) = stack.pop() {
            if self.catalog[at].is_orphan() && self.reach_of(at) == Reach::Readable {
                self.catalog[at].reach = Reach::Readable;
                self.held.orphans -= 1;
                stack.extend(self.catalog.children(at));
            }
        }
        self.stack = stack;
    }
}
