//! A warm start: the catalog as the index's rows tell it.

use super::entry::{Nvme, ROOT, UNKNOWN, is_block};
use super::event::Command;
use super::owner::Deed;
use super::planner::Planner;
use super::policy::Heat;
use crate::vocab::{BlockKey, Owner, SlotClass, SlotId, Timestamp};

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

impl Planner {
    /// Takes in the rows of the index, before any event. Rows that can't be true (a slot outside the tier, or one that
    /// another row names) are left out and given back: they are stale.
    pub fn recover(&mut self, mut rows: Vec<Recovered>, commands: &mut Vec<Command>) -> Vec<BlockKey> {
        std::mem::swap(&mut self.commands, commands);
        // The least recent first, and of equals the deepest: the order in which a running planner would hold them.
        rows.sort_by(|a, b| (a.last_use_s, b.depth, a.key).cmp(&(b.last_use_s, a.depth, b.key)));
        let mut stale = Vec::new();
        let mut numbers = Vec::with_capacity(rows.len());
        for row in &rows {
            match self.recover_row(row) {
                Some(number) => numbers.push((number, row)),
                None => stale.push(row.key),
            }
        }
        self.nvme.open_queues();
        self.nvme.space.occupied();
        for (number, row) in &numbers {
            let parent = match row.parent {
                None => ROOT,
                Some(key) if row.depth > 0 => {
                    let ghost = |planner: &mut Self| planner.catalog.add(key, UNKNOWN, row.depth - 1);
                    self.catalog.find(&key).or_else(|| ghost(self)).unwrap_or(UNKNOWN)
                }
                Some(_) => UNKNOWN,
            };
            if parent == UNKNOWN || parent == ROOT || self.catalog[parent].depth + 1 == row.depth {
                self.hang(*number, parent);
            }
        }
        // Each from the top of its tree, so that a chain is never taken for an orphan on the way; the least recent last,
        // so that of orphans it is the first to go.
        for (number, _) in numbers.iter().rev() {
            let parent = self.catalog[*number].parent;
            if !is_block(parent) || self.catalog[parent].is_ghost() {
                self.refresh(*number);
            }
        }
        std::mem::swap(&mut self.commands, commands);
        stale
    }

    fn recover_row(&mut self, row: &Recovered) -> Option<u32> {
        let number = self.catalog.add(row.key, UNKNOWN, row.depth)?;
        if !self.nvme.space.occupy(row.slot, row.class, number) {
            self.catalog.remove(number);
            return None;
        }
        self.nvme.open_queues();
        let class = self.nvme.space.class_of(row.slot)?;
        let used = Timestamp(u64::from(row.last_use_s) * 1_000);
        self.nvme.space.touch(row.slot, used);
        let deed = Deed { owner: row.owner, payload_max: row.payload_max };
        let owner = self.catalog.owners.hold(deed);
        let entry = &mut self.catalog[number];
        (entry.nvme_slot, entry.nvme_class) = (row.slot, class);
        (entry.length, entry.crc, entry.created_s) = (row.length, row.crc, row.created_s);
        entry.owner = owner;
        self.nvme.insert(class, number, Heat::Hot, used);
        self.set_nvme(number, Nvme::Resident);
        Some(number)
    }

    fn hang(&mut self, number: u32, parent: u32) {
        if parent == UNKNOWN {
            return;
        }
        self.catalog.attach(number, parent);
        if parent != ROOT {
            self.catalog[parent].nvme_children += 1;
        }
    }
}
