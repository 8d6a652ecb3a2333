//! The daemon dies, or the power goes, and all begins again with the disk and the rows that are left.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvtier::media::Op;
use kvtier::plan::{Options, Planner, Recovered, Recovery};
use kvtier::tiers::{Place, RamShelf, Row};
use kvtier::vocab::BlockKey;

use crate::drive::Drive;
use crate::prompts::PAYLOADS;
use crate::world::{Change, World, faulty, payload_of, shelf};

impl World {
    pub(crate) fn crash(&mut self) {
        let power = self.chance.chance(self.temper.power_losses, 100);
        self.count(if power { "power loss" } else { "crash" });
        self.note(&if power { "the power goes" } else { "the daemon dies" });
        self.die();
        if power {
            self.lose_power();
        }
        self.judge_what_is_left(power);
        self.begin_again();
        self.recover(power);
    }

    /// What was queued has happened, or not, or half; what was held in memory is gone.
    fn die(&mut self) {
        let Self { drive, chance, counts, .. } = self;
        drive.die(|op, pages| {
            let done = chance.index(pages + 1);
            let kind = match op {
                Op::Read => "load at a crash",
                Op::Write if done == 0 => "write at a crash, not done",
                Op::Write if done < pages => "write at a crash, torn",
                Op::Write => "write at a crash, done",
            };
            *counts.entry(kind).or_default() += 1;
            done
        });
        self.late.clear();
        self.ended.lock().unwrap().clear();
        self.pins.clear();
        self.writers.clear();
        self.leases.clear();
        self.awaited.clear();
        self.published.clear();
    }

    /// The drive's last writes and the catalog's last batches go, each its own way: of the log it is the end that is lost.
    fn lose_power(&mut self) {
        let Self { drive, chance, counts, .. } = self;
        let mut undone = 0;
        drive.lose_power(|pages| {
            let stays = if chance.chance(1, 2) { pages } else { chance.index(pages + 1) };
            undone += u64::from(stays < pages);
            stays
        });
        *counts.entry("write undone by a power loss").or_default() += undone;
        self.lied_to |= undone > 0;
        for _ in 0..self.chance.index(self.changes.len() + 1) {
            let Some(change) = self.changes.pop_back() else { break };
            self.count("batches lost with the power");
            match change {
                Change::Put(key) => {
                    self.catalog.delete(key).unwrap();
                    self.rows.remove(&key);
                }
                Change::Deleted(key, row) => {
                    self.count("deletion undone by a power loss");
                    self.catalog.put(key, &row).unwrap();
                    self.rows.insert(key, row.slot);
                    // Its slot may hold another block by now.
                    self.lied_to = true;
                }
            }
        }
        self.changes.clear();
    }

    /// A killed process loses no row, and no byte that a row names.
    fn judge_what_is_left(&mut self, power: bool) {
        let mut rows = BTreeMap::new();
        self.catalog.scan(|key, row| drop(rows.insert(key, row))).unwrap();
        let slots: BTreeMap<_, _> = rows.iter().map(|(key, row)| (*key, row.slot)).collect();
        assert_eq!(slots, self.rows, "rows, and those that were put and not deleted");
        for (key, row) in rows.iter().filter(|_| !power && !self.lied_to) {
            let offset = self.shelf.shape().offset(row.slot, row.class);
            assert!(self.disk.read(offset, row.length) == payload_of(key), "{key:?} has a row, and its bytes are gone");
        }
    }

    fn begin_again(&mut self) {
        let shape = self.shelf.shape();
        let seed = self.chance.next();
        self.drive = Arc::new(Drive::new(&self.disk, faulty(&self.disk, &self.temper, seed), self.temper.room));
        self.went_out = Arc::default();
        self.shelf = shelf(&self.drive, &self.catalog, shape, &self.went_out);
        self.ram = RamShelf::new(self.options.ram).unwrap();
        self.options = Options { boot: self.options.boot + 1, ..self.options };
    }

    /// As a daemon does that starts.
    fn recover(&mut self, power: bool) {
        let mut recovery = Recovery::new(Planner::new(self.options), self.rows.len() as u64);
        let mut stale = Vec::new();
        let take = |key, row: Row| {
            if !recovery.row(&recovered(key, &row)) {
                stale.push(key);
            }
        };
        let blocks = self.catalog.scan(take).unwrap().rows;
        self.planner = recovery.finish();
        self.published = self.planner.readable().map(|(_, key, residence)| (key, residence)).collect();
        assert!(power || stale.is_empty() || self.lied_to, "a killed daemon has left stale rows: {stale:?}");
        for key in &stale {
            self.count("stale row at recovery");
            self.rows.remove(key);
        }
        self.catalog.delete_batch(stale).unwrap();
        *self.counts.entry("recovered block").or_default() += blocks;
        let orphans = self.planner.holdings().orphans;
        *self.counts.entry("block orphaned").or_default() += orphans;
        self.compare_rows();
        self.check();
    }
}

fn recovered(key: BlockKey, row: &Row) -> Recovered {
    let place = Place::of(row).unwrap();
    Recovered {
        key,
        slot: place.slot,
        class: place.class,
        length: place.length,
        crc: place.crc,
        owner: row.owner,
        payload_max: PAYLOADS[usize::from(row.owner.namespace.0)],
        parent: row.parent,
        depth: row.depth,
        created_s: row.created_s,
        last_use_s: row.last_use_s,
        expires_s: row.expires_s,
    }
}
