//! A drive is gone: its blocks are lost a few at a time, so that no event takes long, and its slots are not used again.

use super::entry::Nvme;
use super::event::Answer;
use super::planner::Planner;
use crate::vocab::limits::LOST_BLOCKS_A_TICK;

impl Planner {
    pub(super) fn lose_drive(&mut self, drive: u16) -> Answer {
        let (extents, broken) = self.nvme.lose_drive(drive);
        self.lost_extents.extend(extents);
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

    /// Lets go some of the blocks of lost drives. A reader that comes to one before finds that it can't be read.
    pub(super) fn sweep_lost_extents(&mut self) {
        let mut left = LOST_BLOCKS_A_TICK;
        while let Some(extent) = self.lost_extents.last().copied() {
            let resident = |number: &u32| self.catalog[*number].nvme == Nvme::Resident;
            let blocks = self.nvme.space.extent(extent).into_iter().flat_map(|extent| extent.blocks());
            let blocks: Vec<u32> =
                blocks.filter(resident).filter(|number| !self.catalog[*number].doomed).take(left).collect();
            if blocks.is_empty() {
                self.lost_extents.pop();
                continue;
            }
            left -= blocks.len();
            for number in blocks {
                self.counters.drive_lost += 1;
                self.lose(number);
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Bytes of slots in use on each drive.
    #[must_use]
    pub fn nvme_used_bytes_of_drives(&self) -> Vec<u64> {
        self.nvme.space.used_bytes_of_drives()
    }
}
