//! How the planner's commands are carried out.

use std::sync::Arc;

use super::super::flight::Landing;
use super::message::{Finished, Slot};
use super::run::Run;
use crate::plan::{Answer, BlockRef, Command, Event, Load, PutId, Transfer, Write};
use crate::tiers::{CODEC_RAW, Place, ReadDone, ReadError, ReadInto, Row, Rows, ShardRow, WriteError};
use crate::vocab::{SlotClass, SlotId};

impl Run {
    /// Asks the planner, and does what it commands and what follows from that.
    pub(super) fn on(&mut self, event: Event) -> Answer {
        let answer = self.planner.on_after(self.mark, self.hands.clock.now(), event, &mut self.commands);
        self.carry_out();
        answer
    }

    /// Commands of one event are carried out before the next is asked about.
    fn carry_out(&mut self) {
        loop {
            let mut under_way = std::mem::take(&mut self.under_way);
            std::mem::swap(&mut self.commands, &mut under_way);
            for command in under_way.drain(..) {
                self.command(command);
            }
            self.under_way = under_way;
            let Some(event) = self.events.pop_front() else { return };
            self.planner.on_after(self.mark, self.hands.clock.now(), event, &mut self.commands);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish { block, key, residence } => {
                self.hands.residency.publish(block.number(), &key, residence);
                if residence.ram.is_some() {
                    self.hands.flights.land(&key, Landing::Ready);
                }
            }
            Command::Unpublish { block, key } => self.hands.residency.unpublish(block.number(), &key),
            Command::Unloadable { key } => self.hands.flights.land(&key, Landing::Gone),
            Command::Fill { put, block, slot, class } => self.grant(put, block, slot, class),
            Command::Refuse { put, block } => self.refuse(put, block),
            Command::Retire { slot, class: _ } => {
                if self.hands.ram.retire(slot) {
                    self.events.push_back(Event::RamFreed { slot });
                }
            }
            Command::Write(write) => self.write(write),
            Command::Load(load) => self.load(load),
            Command::Erase { key, slot, class: _ } => self.with_rows(|rows| rows.delete(key, slot)),
            Command::Promise { key, promise } => self.with_rows(|rows| rows.promise(key, Some(promise))),
            Command::Unpromise { key } => self.with_rows(|rows| rows.promise(key, None)),
        }
    }

    fn grant(&mut self, put: PutId, block: BlockRef, slot: SlotId, class: SlotClass) {
        // A put that is gone says so itself, and the planner takes the slot back then.
        let Some(slots) = self.puts.get(&put) else { return };
        let answer = match self.hands.ram.writer(slot, class) {
            Some(writer) => Slot::Granted(block, writer),
            None => Slot::Refused(block),
        };
        slots.try_send(answer).ok();
    }

    fn write(&mut self, write: Write) {
        let (slot, class, generation) = write.from;
        let finished = Arc::clone(&self.finished);
        let pin = self.hands.ram.pin(slot, class, generation, write.length);
        let (Some(nvme), Some(pin)) = (&self.hands.nvme, pin) else {
            return self.events.push_back(Event::Wrote { block: write.block, outcome: Transfer::Refused });
        };
        let (block, complaints) = (write.block, Arc::clone(&self.hands.complaints));
        nvme.write(write.key, pin, row(&write), move |result| {
            finished.push(Finished::Wrote(
                block,
                match result {
                    Ok(()) => Transfer::Done(0),
                    Err(WriteError::QueueFull) => Transfer::Refused,
                    Err(error) => {
                        complaints.unwritten(&write.key, write.to.0, &error);
                        Transfer::Failed
                    }
                },
            ));
        });
    }

    fn load(&mut self, load: Load) {
        let finished = Arc::clone(&self.finished);
        let writer = self.hands.ram.writer(load.to.0, load.to.1);
        let (Some(nvme), Some(writer)) = (&self.hands.nvme, writer) else {
            return self.events.push_back(Event::Loaded { block: load.block, outcome: Transfer::Refused });
        };
        let place = Place { slot: load.from.0, class: load.from.1, length: load.length, crc: load.crc };
        let complaints = Arc::clone(&self.hands.complaints);
        nvme.read(load.key, place, ReadInto::Slot(writer), move |result| {
            finished.push(Finished::Loaded(
                load.block,
                match result {
                    Ok(ReadDone::Slot(writer)) => Ok(writer),
                    Ok(ReadDone::Bytes(_) | ReadDone::Region(_)) | Err(ReadError::QueueFull) => Err(Transfer::Refused),
                    Err(error) => {
                        complaints.lost(&load.key, load.from.0, &error);
                        Err(Transfer::Failed)
                    }
                },
            ));
        });
    }

    fn with_rows(&self, ask: impl FnOnce(&Rows)) {
        if let Some(nvme) = &self.hands.nvme {
            ask(nvme.rows());
        }
    }

    pub(super) fn refuse(&self, put: PutId, block: BlockRef) {
        if let Some(slots) = self.puts.get(&put) {
            slots.try_send(Slot::Refused(block)).ok();
        }
    }
}

/// The row of a block that is written.
fn row(write: &Write) -> Row {
    Row {
        slot: write.to.0,
        class: write.to.1,
        length: write.length,
        codec: CODEC_RAW,
        owner: write.owner,
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length: write.length, crc: write.crc }],
        parent: write.parent,
        depth: write.depth,
        retention: 0,
        created_s: write.created_s,
        last_use_s: write.created_s,
        expires_s: write.expires_s,
    }
}
