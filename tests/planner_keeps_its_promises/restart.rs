//! The daemon dies at any moment and starts again from its rows.

use kvtier::plan::{Options, Planner, Recovered, Recovery};
use kvtier::vocab::{BlockKey, SlotClass, SlotId, TierShape};

use super::slots::Slots;
use super::tenants::Told;
use super::world::{Job, Row, World};

impl World {
    pub(crate) fn restart(&mut self) {
        self.die();
        let rows = self.rows_found();
        let mut nvme = self.options.nvme;
        if self.chance.chance(1, 2) {
            // What is still gone is missing now.
            let bytes = |(drive, bytes)| if self.lost_drives.contains(&drive) { 0 } else { bytes };
            let drives: Vec<u64> = (0..).zip(nvme.drives()).map(bytes).collect();
            nvme = TierShape::striped(&drives, nvme.extent_bytes(), nvme.stride());
        }
        self.lost_drives.clear();
        self.options = Options { boot: self.options.boot + 1, nvme, ..self.options };
        let mut recovery = Recovery::new(Planner::new(self.options), rows.len() as u64);
        let quotas: Vec<_> = self.planner.accounts().into_iter().map(|known| (known.account, known.quota)).collect();
        for (account, quota) in quotas {
            if recovery.quota(account, quota).is_err() {
                // A drive is missing: what is guaranteed is more than there is.
                self.told.clear();
            }
        }
        for row in &rows {
            if !recovery.row(row) {
                self.rows.remove(&row.key);
            }
        }
        self.nvme = Slots::recovered(self.rows.iter().map(|(key, row)| (row.slot, row.class, *key)));
        self.planner = recovery.finish();
        let (planner, now) = (&mut self.planner, self.now.seconds());
        self.promised.retain(|key, promise| planner.recover_promise(key, *promise, now));
        let kept = |told: &Told| self.promised.contains_key(&told.prefix[0]);
        self.told.retain(kept);
        self.published = self.planner.readable().map(|(_, key, residence)| (key, residence)).collect();
        self.audit();
    }

    /// What was under way has happened, or not; what was held is gone.
    fn die(&mut self) {
        for (_, job) in std::mem::take(&mut self.jobs) {
            let happened = self.chance.chance(1, 2);
            match job {
                Job::Write(write) if happened => self.write_row(write),
                Job::Erase { key, slot } if happened => self.rows.retain(|of, row| *of != key || row.slot != slot),
                _ => {}
            }
        }
        self.ended.clear();
        self.writers.clear();
        self.strays.clear();
        self.leases.clear();
        self.awaited.clear();
        self.published.clear();
        self.generations.clear();
        self.ram = Slots::default();
    }

    /// The rows, some of them lost, some of them wrong.
    fn rows_found(&mut self) -> Vec<Recovered> {
        let keys: Vec<BlockKey> = self.rows.keys().copied().collect();
        for key in keys {
            if self.chance.chance(self.temper.read_troubles, 200) {
                self.rows.remove(&key);
            } else if self.chance.chance(self.temper.read_troubles, 200) {
                self.corrupt(key);
            }
        }
        let recovered = |(key, row): (&BlockKey, &Row)| Recovered {
            key: *key,
            slot: row.slot,
            class: row.class,
            length: row.write.length,
            crc: row.write.crc,
            owner: row.write.owner,
            payload_max: row.payload_max,
            parent: row.write.parent,
            depth: row.write.depth,
            created_s: row.write.created_s,
            last_use_s: u32::from(key.as_bytes()[0] % 4),
            expires_s: row.write.expires_s,
        };
        let mut rows: Vec<Recovered> = self.rows.iter().map(recovered).collect();
        // The order of rows is that of hashes: children come before their parents or after them.
        for at in 1..rows.len() {
            rows.swap(at, self.chance.below(at as u64 + 1) as usize);
        }
        rows
    }

    fn corrupt(&mut self, key: BlockKey) {
        self.tainted.insert(key);
        let slot = SlotId { extent: self.chance.below(20) as u16, index: self.chance.below(5) as u16 };
        let class = SlotClass::of_bytes(self.chance.pick(&[4_096, 8_192]));
        let change_class = self.chance.chance(1, 3);
        if let Some(row) = self.rows.get_mut(&key) {
            row.slot = slot;
            row.class = class.filter(|_| change_class).unwrap_or(row.class);
        }
    }
}
