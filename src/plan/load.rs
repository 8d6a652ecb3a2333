//! Reading from NVMe: promotion into RAM, once for all who wait, or a peek past RAM when it has no room.

use super::active::NO_PUT;
use super::command::{Command, Load};
use super::entry::{Nvme, ROOT, Ram, is_block};
use super::event::{Answer, BlockRef, Peek, Transfer, Wanted};
use super::planner::Planner;
use super::policy::Heat;
use crate::vocab::BlockKey;

/// Peeks of one block at a time: reads are counted with 16 bits, and one is kept for a load.
const PEEKS_MAX: u16 = u16::MAX - 1;

impl Planner {
    pub(super) fn want(&mut self, key: &BlockKey) -> Wanted {
        let Some(number) = self.catalog.find(key) else { return Wanted::Gone };
        let entry = &self.catalog[number];
        if !entry.is_readable() || self.is_being_purged(number) {
            return Wanted::Gone;
        }
        match entry.ram {
            Ram::Resident => return Wanted::Ready,
            Ram::Waiting | Ram::Filling => return Wanted::Coming,
            Ram::Absent | Ram::Offered => {}
        }
        // RAM without the parent is worth less than anything in a run, so it displaces nothing for long.
        let attached = match entry.parent {
            ROOT => true,
            parent => is_block(parent) && self.catalog[parent].ram != Ram::Absent,
        };
        self.begin_read(number);
        if self.take_ram_slot(number, if attached { Heat::Hot } else { Heat::Cold }) {
            return Wanted::Coming;
        }
        self.end_read(number);
        Wanted::NoRoom
    }

    /// The slot for a promotion is there.
    pub(super) fn load_into_slot(&mut self, number: u32) {
        let (entry, active) = (&self.catalog[number], self.catalog.active(number));
        debug_assert_eq!(entry.nvme, Nvme::Resident, "what is being read stays");
        self.commands.push(Command::Load(Load {
            block: self.reference(number),
            key: self.catalog.key(number),
            from: (entry.nvme_slot, self.nvme.class(entry.nvme_class)),
            to: (active.ram_slot, self.ram.class(entry.ram_class)),
            length: entry.length,
            crc: entry.crc,
        }));
    }

    pub(super) fn loaded(&mut self, block: BlockRef, outcome: Transfer) -> Answer {
        let Some(number) = self.catalog.resolve(block) else { return Answer::Done };
        if self.catalog[number].ram != Ram::Filling || self.catalog.active(number).put != NO_PUT {
            return Answer::Done;
        }
        self.end_read(number);
        match outcome {
            Transfer::Done(generation) => {
                self.catalog.active_mut(number).generation = generation;
                self.set_ram(number, Ram::Resident);
                self.counters.promoted += 1;
                self.refresh(number);
                if !self.catalog[number].is_readable() {
                    // Erased, or cut off from its chain, while it came: those who wait must not wait for ever.
                    self.commands.push(Command::Unloadable { key: self.catalog.key(number) });
                }
                self.chill_unreachable(number);
                self.finish_doomed(number);
            }
            Transfer::Failed | Transfer::Refused => {
                let (key, doomed) = (self.catalog.key(number), self.catalog[number].doomed);
                self.commands.push(Command::Unloadable { key });
                self.abandon_ram(number);
                self.catalog[number].doomed = doomed;
                if outcome == Transfer::Failed {
                    self.lose(number);
                }
                self.finish_if_doomed(block);
            }
        }
        Answer::Done
    }

    pub(super) fn peek(&mut self, key: &BlockKey) -> Option<Peek> {
        let number = self.catalog.find(key)?;
        let entry = &self.catalog[number];
        let may_be_read = entry.is_readable()
            && entry.nvme == Nvme::Resident
            && !self.is_being_purged(number)
            && !self.is_on_lost_drive(number);
        if !may_be_read || self.catalog.active(number).reads >= PEEKS_MAX {
            return None;
        }
        let peek = Peek {
            block: self.reference(number),
            slot: entry.nvme_slot,
            class: self.nvme.class(entry.nvme_class),
            length: entry.length,
            crc: entry.crc,
        };
        self.begin_read(number);
        Some(peek)
    }

    pub(super) fn peeked(&mut self, block: BlockRef, outcome: Transfer) -> Answer {
        let Some(number) = self.catalog.resolve(block) else { return Answer::Done };
        self.end_read(number);
        match outcome {
            Transfer::Done(_) => self.counters.peeked += 1,
            Transfer::Refused => {}
            Transfer::Failed => self.lose(number),
        }
        self.finish_if_doomed(block);
        Answer::Done
    }

    /// Lets a doomed block go, unless losing it has made the catalog forget it already.
    fn finish_if_doomed(&mut self, block: BlockRef) {
        if let Some(number) = self.catalog.resolve(block) {
            self.finish_doomed(number);
        }
    }

    /// The bytes on NVMe are gone or wrong. To a cache that is a miss, not an error.
    pub(super) fn lose(&mut self, number: u32) {
        if self.catalog[number].doomed {
            return;
        }
        self.counters.lost += 1;
        if self.catalog.active(number).reads > 0 {
            // Others still read the slot: they will see the same, and the last of them lets it go.
            self.catalog[number].doomed = true;
            self.refresh(number);
        } else if self.catalog[number].nvme == Nvme::Resident {
            self.drop_from_nvme(number);
            self.prune(number);
        }
    }
}
