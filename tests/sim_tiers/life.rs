//! A seed's life: random steps and crashes, then all comes to rest, then all is erased.

use std::time::Duration;

use kvtier::media::Faults;
use kvtier::plan::Filter;
use kvtier::tiers::Row;

use crate::world::World;

const STEPS: u64 = 500;

impl World {
    pub(crate) fn live(&mut self) {
        assert_eq!(self.catalog.scan(|_, _| ()).unwrap().rows, 0, "the life before has left nothing");
        for step in 0..STEPS {
            self.step = step;
            self.now = self.now + Duration::from_millis(self.chance.below(200));
            self.unpin();
            if self.chance.chance(self.temper.crashes, 1_000) {
                self.crash();
            } else if !(self.chance.chance(self.temper.haste, 100) && self.work()) {
                self.act();
            }
        }
        self.come_to_rest();
        self.forget_everything();
    }

    fn act(&mut self) {
        if self.chance.chance(self.temper.purges, 100) {
            return self.some_purge();
        }
        match self.chance.below(100) {
            0..50 => self.put(),
            50..62 => self.read(),
            62..76 => self.want(),
            76..82 => self.peek(),
            82..87 => self.lease(),
            87..91 => self.release(),
            91..93 => self.tick(),
            93..95 => self.evict(),
            95..98 => self.release_held(),
            _ => self.now = self.now + Duration::from_secs(self.chance.below(30)),
        }
    }

    /// The drive reports what it has held back.
    fn release_held(&mut self) {
        let held = self.drive.faulty.release_held();
        if held > 0 {
            self.count("completion held back");
            self.note(&format!("{held} completions held back"));
            self.take_ended();
        }
    }

    fn finish_work(&mut self) {
        self.step = u64::MAX;
        self.unpin();
        loop {
            self.release_held();
            if !self.work() {
                return;
            }
        }
    }

    pub(crate) fn come_to_rest(&mut self) {
        self.finish_work();
        assert!(self.writers.iter().all(|writer| writer.promised.is_empty()), "every slot that was promised has come");
        while let Some(last) = self.writers.len().checked_sub(1) {
            self.end_put(last);
        }
        self.finish_work();
        self.now = self.now + Duration::from_secs(3_600);
        self.tick();
        self.finish_work();
        assert!(self.awaited.is_empty(), "{:?} were said to be coming", self.awaited);
        let held = self.planner.holdings();
        let left = (held.leases, held.puts, held.reservations, held.background);
        assert_eq!(left, (0, 0, 0, 0), "leases, puts, reservations and work left at rest");
        assert_eq!((self.ram.pins(), self.shelf.write_queue_bytes()), (0, 0), "pins and queued bytes at rest");
        for (counter, kind) in [("ram_evicted", "evicted from RAM"), ("nvme_evicted", "evicted from NVMe")] {
            let named = self.planner.counters().named();
            let count = named.iter().find(|(name, _)| *name == counter).unwrap().1;
            *self.counts.entry(kind).or_default() += count;
        }
        self.compare_rows();
    }

    /// The catalog says of every block what the planner says, and nothing else.
    pub(crate) fn compare_rows(&mut self) {
        let mut found = std::collections::BTreeMap::new();
        let visit = |key, row: Row| {
            found.insert(key, row.slot);
        };
        self.catalog.scan(visit).unwrap();
        assert_eq!(found, self.rows, "rows, and those that were put and not deleted");
        for node in &self.prompts.nodes {
            let on_drive = self.planner.inspect(&node.key).and_then(|known| known.nvme_slot);
            assert_eq!(on_drive, found.get(&node.key).copied(), "{:?} on the drive, and its row", node.key);
        }
    }

    fn forget_everything(&mut self) {
        self.drive.faulty.set_faults(Faults::default());
        self.purge(Filter::default());
        self.finish_work();
        let held = self.planner.holdings();
        assert_eq!((held.ram_used_bytes, held.nvme_used_bytes, held.orphans), (0, 0, 0), "nothing is left");
        assert!(self.rows.is_empty(), "rows are left");
        self.compare_rows();
    }
}
