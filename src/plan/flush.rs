//! A planned stop: what only RAM has is written to NVMe, so that the next start is warm; and blocks that leave RAM only
//! once they are written.

use std::cmp::Reverse;

use super::admission::AdmissionKind;
use super::entry::{NO_PUT, Nvme, Ram};
use super::event::{Answer, Command, PutId};
use super::planner::Planner;

impl Planner {
    /// Begins the writes of what only RAM has, the hottest first, until the write queue is full.
    pub(super) fn flush(&mut self) -> Answer {
        let mut worth: Vec<_> = self
            .catalog
            .iter()
            .filter(|(_, entry)| {
                entry.ram == Ram::Resident && entry.nvme == Nvme::Absent && entry.readable && !entry.owner.ram_only
            })
            .map(|(number, entry)| (Reverse(entry.used_s), entry.depth, number))
            .collect();
        if !self.nvme.exists() {
            worth.clear();
        }
        // A use of a block is one of all before it: ancestors are as hot and less deep, so they come first.
        worth.sort_unstable();
        let mut begun = 0;
        for (_, _, number) in &worth {
            if self.is_worth_flushing(*number) {
                self.admit_to_nvme(*number);
                begun += u64::from(self.catalog[*number].nvme != Nvme::Absent);
            }
        }
        self.counters.flushed += begun;
        Answer::Flushing { begun, left: worth.len() as u64 - begun }
    }

    /// It displaces nothing that was used later than it.
    fn is_worth_flushing(&mut self, number: u32) -> bool {
        let entry = &self.catalog[number];
        let (payload_max, used_s) = (entry.payload_max, entry.used_s);
        let Some(class) = self.nvme.class_number(payload_max) else { return false };
        if !self.nvme.space.is_full(class) {
            return true;
        }
        let coldest = self.nvme.coldest(class);
        coldest.is_some_and(|coldest| self.catalog[coldest].orphan || self.catalog[coldest].used_s <= used_s)
    }

    /// Begins the write of a block that RAM lets go, where that is when blocks are written. Its slot is promised from now
    /// on, and its bytes stay readable until the write has ended. False where it has nothing to be written for.
    pub(super) fn leave_ram_written(&mut self, number: u32) -> bool {
        let entry = &self.catalog[number];
        let unwritten = entry.nvme == Nvme::Absent && entry.readable;
        if self.admission != AdmissionKind::RamEviction || !unwritten {
            return false;
        }
        self.admit_with_ancestors(number);
        let entry = &self.catalog[number];
        if entry.nvme == Nvme::Absent || entry.ram != Ram::Resident {
            return false;
        }
        let class = entry.ram_class;
        self.catalog[number].leaving = true;
        self.ram.remove(class, number);
        self.ram.promise(class, 1);
        true
    }

    /// The write of a block that is leaving RAM has ended: it goes, unless it has been leased or got children in RAM
    /// meanwhile, and another goes in its place.
    pub(super) fn finish_leaving(&mut self, number: u32) {
        let entry = &self.catalog[number];
        if !entry.leaving {
            return;
        }
        if entry.leases == 0 && entry.ram_children == 0 {
            self.drop_from_ram(number);
            self.prune(number);
            return;
        }
        let class = entry.ram_class;
        self.catalog[number].leaving = false;
        self.ram.insert(class, number, super::policy::Heat::Hot);
        self.evict_from_ram(class);
        let Self { ram, catalog, .. } = self;
        let wants = |block| catalog.resolve(block).filter(|number| catalog[*number].ram == Ram::Waiting);
        if let Some(refused) = ram.break_promise(class, wants) {
            self.refuse_ram(refused);
        }
    }

    /// The RAM slot that a block waited for will not come.
    fn refuse_ram(&mut self, number: u32) {
        let entry = &self.catalog[number];
        let (key, put, block) = (entry.key, entry.put, self.reference(number));
        if put == NO_PUT {
            self.end_read(number);
            self.commands.push(Command::Unloadable { key });
        } else {
            self.commands.push(Command::Refuse { put: PutId(put), block });
        }
        self.set_ram(number, Ram::Absent);
        self.ram.remove(self.catalog[number].ram_class, number);
        let doomed = self.catalog[number].doomed;
        self.after_refusal(number, doomed);
    }

    fn after_refusal(&mut self, number: u32, doomed: bool) {
        let block = self.reference(number);
        self.chill_descendants(number);
        if doomed {
            self.finish_doomed(number);
        }
        if let Some(number) = self.catalog.resolve(block) {
            self.prune(number);
        }
    }
}
