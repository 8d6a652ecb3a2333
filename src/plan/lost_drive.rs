//! A drive is gone: its blocks are lost a few at a time, so that no event takes long, and its slots are not used again.

use super::chores::{DROP, LOOK};
use super::entry::Nvme;
use super::event::Answer;
use super::planner::Planner;

impl Planner {
    pub(super) fn lose_drive(&mut self, drive: u16) -> Answer {
        let (extents, broken) = self.nvme.lose_drive(drive);
        self.lost_extents.extend(extents.into_iter().map(|extent| (extent, 0)));
        for class in broken {
            let Self { nvme, catalog, .. } = self;
            let wants = |block| catalog.resolve(block).filter(|number| catalog[*number].nvme == Nvme::Waiting);
            if let Some(refused) = nvme.break_promise(class, wants) {
                self.refuse_nvme(refused);
            }
        }
        self.sweep_lost_extents();
        Answer::Done
    }

    /// Lets blocks of lost drives go, as far as this event may. A reader that comes to one before finds that it can't be
    /// read.
    pub(super) fn sweep_lost_extents(&mut self) {
        while self.chores.has_steps() {
            let Some((extent, next)) = self.lost_extents.pop() else { return };
            let space = &self.nvme.space;
            let first = space.extent(extent).and_then(|extent| extent.blocks_from(next).next());
            let Some((index, number)) = first else {
                self.chores.spend(DROP);
                continue;
            };
            self.lost_extents.push((extent, u32::from(index) + 1));
            self.chores.spend(LOOK * (u32::from(index) - next) as usize / 16 + LOOK);
            if self.catalog[number].nvme == Nvme::Resident && !self.catalog[number].doomed {
                self.chores.spend(DROP);
                self.counters.drive_lost += 1;
                self.lose(number);
            }
        }
    }

    /// Bytes of slots in use on each drive.
    #[must_use]
    pub fn nvme_used_bytes_of_drives(&self) -> Vec<u64> {
        self.nvme.space.used_bytes_of_drives().to_vec()
    }
}
