//! A warm start: the catalog as the index's rows tell it, row by row, in whatever order they come.
//!
//! A row whose parent has not come yet hangs on a ghost, which becomes the parent when its row comes. What takes all rows
//! to know is worked out in the end: see `recover_order.rs`.

use super::entry::{NONE, Nvme, ROOT, UNKNOWN, is_block};
use super::owner::Deed;
use super::planner::Planner;
use crate::vocab::{AccountId, BlockKey, Owner, Quota, QuotaError, SlotClass, SlotId};

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
    /// When its time to live is over, in seconds since 1970; 0 for never.
    pub expires_s: u32,
}

/// A planner that takes in the rows of an index, before any event.
pub struct Recovery {
    planner: Planner,
    /// Working memory: the number of each row's block, `NONE` where it is not taken, and of its parent.
    work: Vec<(u32, u32)>,
}

impl Recovery {
    /// Begins with a planner that has had no event; `blocks` is about how many rows will come.
    #[must_use]
    pub fn new(mut planner: Planner, blocks: u64) -> Self {
        planner.catalog.expect(blocks);
        Self { planner, work: Vec::new() }
    }

    /// Takes in one row. False where it is stale: see [`rows`](Self::rows).
    pub fn row(&mut self, row: &Recovered) -> bool {
        let mut good = true;
        self.rows(std::slice::from_ref(row), |_| good = false);
        good
    }

    /// Takes in some rows, of distinct keys. Those that can't be true (a slot outside the tier, or one that another row has
    /// named, or an extent of another class) are `stale`.
    ///
    /// Each step for a row touches memory that no step before it has touched. So each is done for all rows in a short loop,
    /// where a processor that waits for one row's memory asks for the next ones'.
    pub fn rows(&mut self, rows: &[Recovered], mut stale: impl FnMut(BlockKey)) {
        // What refused rows have made vacant is used for these.
        self.planner.catalog.begin();
        let mut work = std::mem::take(&mut self.work);
        work.extend(rows.iter().map(|row| (self.number(row), UNKNOWN)));
        for ((number, _), row) in work.iter_mut().zip(rows).filter(|((number, _), _)| *number != NONE) {
            if !self.planner.nvme.space.occupy(row.slot, row.class, *number) {
                self.planner.prune(std::mem::replace(number, NONE));
                stale(row.key);
            }
        }
        self.planner.nvme.open_queues();
        for ((_, parent), row) in work.iter_mut().zip(rows).filter(|((number, _), _)| *number != NONE) {
            *parent = self.parent(row);
        }
        let taken = || work.iter().copied().zip(rows).filter(|((number, _), _)| *number != NONE);
        taken().for_each(|((number, _), row)| self.fill_in(number, row));
        taken().for_each(|((number, parent), row)| self.hang(number, parent, row));
        work.clear();
        self.work = work;
    }

    /// The number of a row's block, which is new or a ghost. `NONE` for one that is known already, or one too many.
    fn number(&mut self, row: &Recovered) -> u32 {
        let catalog = &mut self.planner.catalog;
        match catalog.find(&row.key) {
            Some(number) if catalog[number].is_ghost() => number,
            Some(_) => NONE,
            None => catalog.add(row.key, UNKNOWN, row.depth).unwrap_or(NONE),
        }
    }

    fn fill_in(&mut self, number: u32, row: &Recovered) {
        self.adjust_depth(number, row.depth);
        let Planner { catalog, nvme, .. } = &mut self.planner;
        let owner = catalog.owners.hold(Deed { owner: row.owner, payload_max: row.payload_max });
        let entry = &mut catalog[number];
        (entry.nvme_slot, entry.nvme_class) = (row.slot, nvme.space.class_of(row.slot).unwrap_or_default());
        (entry.length, entry.crc, entry.created_s, entry.owner) = (row.length, row.crc, row.created_s, owner);
        nvme.use_later(number, row.last_use_s);
        if row.expires_s > 0 {
            self.planner.expiries.set(number, row.expires_s, None);
        }
        self.planner.set_nvme(number, Nvme::Resident);
    }

    /// A ghost has the depth that its first child expected. Children that its row contradicts are not its own.
    fn adjust_depth(&mut self, number: u32, depth: u32) {
        let catalog = &mut self.planner.catalog;
        if catalog[number].depth == depth {
            return;
        }
        catalog[number].depth = depth;
        catalog[number].nvme_children = 0;
        while is_block(catalog[number].first_child) {
            let child = catalog[number].first_child;
            catalog.detach(child);
        }
    }

    /// The number of a row's parent; `NONE` for one that has not come yet.
    fn parent(&self, row: &Recovered) -> u32 {
        match row.parent {
            None => ROOT,
            Some(_) if row.depth == 0 => UNKNOWN,
            Some(key) => self.planner.catalog.find(&key).unwrap_or(NONE),
        }
    }

    /// Hangs a block under its parent, or under a ghost in its place, unless the two contradict each other.
    fn hang(&mut self, number: u32, parent: u32, row: &Recovered) {
        let catalog = &mut self.planner.catalog;
        let parent = match row.parent {
            // A row before this one may have made the ghost.
            Some(key) if parent == NONE => {
                catalog.find(&key).or_else(|| catalog.add(key, UNKNOWN, row.depth - 1)).unwrap_or(UNKNOWN)
            }
            _ => parent,
        };
        if !is_block(parent) {
            catalog[number].parent = parent;
        } else if catalog[parent].depth + 1 == row.depth {
            catalog.attach(number, parent);
            catalog[parent].nvme_children += 1;
        }
    }

    /// What an account may hold: to be said before any row.
    ///
    /// # Errors
    /// When it can't be had: the tier became too small for all that is guaranteed.
    pub fn quota(&mut self, account: AccountId, quota: Quota) -> Result<(), QuotaError> {
        self.planner.accounts.set(account, quota).map(drop)
    }

    /// The planner so far.
    #[must_use]
    pub fn planner(&self) -> &Planner {
        &self.planner
    }

    /// All rows have come: finds out what can be reached and in which order blocks go.
    #[must_use]
    pub fn finish(self) -> Planner {
        super::recover_order::settle(self.planner)
    }
}
