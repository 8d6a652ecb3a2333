//! A seed's life: random steps, then all comes to rest, then all is erased.

use std::time::Duration;

use kvtier::plan::{Answer, Filter};

use super::world::World;

const STEPS: u64 = 600;

impl World {
    pub(crate) fn live(&mut self) {
        for step in 0..STEPS {
            self.step = step;
            self.now = self.now + Duration::from_millis(self.chance.below(200));
            if self.chance.chance(self.temper.restarts, 1_000) {
                self.restart();
            } else if self.planner.is_working() && self.chance.chance(1, 2) {
                self.proceed();
            } else if !(self.chance.chance(self.temper.haste, 100) && self.work()) {
                self.act();
            }
        }
        self.come_to_rest();
        self.forget_everything();
    }

    fn act(&mut self) {
        if self.chance.chance(self.temper.purges, 100) {
            return self.purge();
        }
        if self.chance.chance(self.temper.tenants, 100) {
            return self.manage();
        }
        if self.chance.chance(self.temper.losses, 1_000) {
            return self.lose_drive();
        }
        match self.chance.below(100) {
            0..54 => self.put(),
            54..65 => self.lease(),
            65..73 => self.release_or_renew(),
            73..84 => self.want(),
            84..90 => self.peek(),
            90..93 => self.tick(),
            93..95 => self.evict(),
            95 => self.instance_gone(),
            96 | 97 => self.stray(),
            98 => self.flush(),
            _ => self.now = self.now + Duration::from_secs(self.chance.below(30)),
        }
    }

    fn finish_work(&mut self) {
        self.step = u64::MAX;
        loop {
            self.settle(Answer::Done);
            if !self.work() {
                return;
            }
        }
    }

    fn come_to_rest(&mut self) {
        // With the writers still there, every slot that was promised must come.
        self.finish_work();
        while let Some(last) = self.writers.len().checked_sub(1) {
            self.end_put(last);
        }
        self.finish_work();
        self.now = self.now + Duration::from_secs(3_600);
        self.tick();
        self.finish_work();
        let held = self.planner.holdings();
        let left = (held.leases, held.puts, held.reservations, held.background);
        assert_eq!(left, (0, 0, 0, 0), "leases, puts, reservations and work left at rest");
        assert!(self.planner.is_quiet());
        assert_eq!((self.ram.in_flight(), self.nvme.in_flight()), (0, 0), "slots are held by blocks only");
    }

    fn forget_everything(&mut self) {
        self.purge_what(Filter::default());
        self.finish_work();
        let held = self.planner.holdings();
        assert_eq!((held.ram_used_bytes, held.nvme_used_bytes, held.orphans), (0, 0, 0), "nothing is left");
        let known = self.prompts.nodes.iter().find(|node| self.planner.inspect(&node.key).is_some());
        assert!(known.is_none(), "{known:?} is still known");
        assert!(self.rows.is_empty(), "rows are left");
    }
}
