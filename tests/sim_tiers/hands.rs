//! What the daemon's planner thread does with commands, and with what others have finished: the same steps in the same
//! order, but the ends of jobs may be reported late and in any order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use kvtier::plan::{BlockRef, Command, Event, Load, Peek, PutId, Transfer, Write};
use kvtier::tiers::{CODEC_RAW, Place, ReadDone, ReadError, ReadInto, Row, ShardRow, SlotWriter, WriteError};
use kvtier::vocab::{BlockKey, SlotClass, SlotId};

use crate::world::{Change, World, lies, payload_of};

/// Changes of the catalog that a power loss may undo.
const UNSYNCED: usize = 12;

/// A job that has ended.
#[derive(Debug)]
pub(crate) enum Finished {
    Wrote(Write, Result<(), WriteError>),
    Loaded(Load, Result<SlotWriter, ReadError>),
    Peeked(Peek, BlockKey, Result<Bytes, ReadError>),
}

impl World {
    pub(crate) fn carry_out(&mut self, mut commands: Vec<Command>) {
        let mut events = Vec::new();
        while !commands.is_empty() {
            for command in std::mem::take(&mut commands) {
                self.note(&command);
                self.carry_out_one(command, &mut events);
            }
            for event in std::mem::take(&mut events) {
                self.note(&event);
                self.planner.on(self.now, event, &mut commands);
            }
        }
    }

    fn carry_out_one(&mut self, command: Command, events: &mut Vec<Event>) {
        match command {
            Command::Publish { key, residence, .. } => {
                self.published.insert(key, residence);
                if residence.ram.is_some() {
                    self.awaited.remove(&key);
                }
            }
            Command::Unpublish { key, .. } => {
                assert!(self.published.remove(&key).is_some(), "{key:?} is unpublished twice");
            }
            Command::Unloadable { key } => drop(self.awaited.remove(&key)),
            Command::Promise { .. } | Command::Unpromise { .. } => {}
            Command::Fill { put, block, slot, class } => self.grant(put, block, slot, class),
            Command::Refuse { put, block } => {
                let writer = self.writers.iter_mut().find(|writer| writer.put == put);
                writer.expect("a put that has ended is refused").refused(block);
                self.count("slot refused after all");
            }
            Command::Retire { slot, class: _ } => {
                if self.ram.retire(slot) {
                    events.push(Event::RamFreed { slot });
                }
            }
            Command::Write(write) => self.write(write),
            Command::Load(load) => self.load(load),
            Command::Erase { key, slot, class: _ } => {
                self.erase(key, slot);
                events.push(Event::Erased { slot });
            }
        }
    }

    fn grant(&mut self, put: PutId, block: BlockRef, slot: SlotId, class: SlotClass) {
        let writer = self.ram.writer(slot, class).expect("a slot that is handed out is free");
        let of = self.writers.iter_mut().find(|writer| writer.put == put).expect("a slot for a put that has ended");
        of.granted(block, writer);
    }

    fn write(&mut self, write: Write) {
        let (slot, class, generation) = write.from;
        let pin = self.ram.pin(slot, class, generation, write.length).expect("what is written is in its slot");
        let taken = self.rows.iter().find(|(_, of)| **of == write.to.0);
        assert_eq!(taken, None, "slot {} is written while a row names it", write.to.0);
        let ended = Arc::clone(&self.ended);
        self.shelf.write(write.key, pin, row(&write), move |result| {
            ended.lock().unwrap().push(Finished::Wrote(write, result));
        });
        self.take_ended();
    }

    fn load(&mut self, load: Load) {
        let writer = self.ram.writer(load.to.0, load.to.1).expect("a slot that is handed out is free");
        let place = Place { slot: load.from.0, class: load.from.1, length: load.length, crc: load.crc };
        let ended = Arc::clone(&self.ended);
        self.shelf.read(load.key, place, ReadInto::Slot(writer), move |result| {
            let result = result.map(|done| match done {
                ReadDone::Slot(writer) => writer,
                _ => panic!("read into a slot"),
            });
            ended.lock().unwrap().push(Finished::Loaded(load, result));
        });
        self.take_ended();
    }

    pub(crate) fn read_past_ram(&mut self, peek: Peek, key: BlockKey) {
        let place = Place { slot: peek.slot, class: peek.class, length: peek.length, crc: peek.crc };
        let ended = Arc::clone(&self.ended);
        self.shelf.read(key, place, ReadInto::Heap, move |result| {
            let result = result.map(|done| match done {
                ReadDone::Bytes(bytes) => bytes,
                _ => panic!("read past the slots"),
            });
            ended.lock().unwrap().push(Finished::Peeked(peek, key, result));
        });
        self.take_ended();
    }

    fn erase(&mut self, key: BlockKey, slot: SlotId) {
        let row = self.catalog.get(key).unwrap();
        self.catalog.delete(key).unwrap();
        assert_eq!(self.rows.remove(&key), Some(slot), "a row is deleted that names another slot");
        self.changed(Change::Deleted(key, row.expect("what is on the drive has a row")));
    }

    fn changed(&mut self, change: Change) {
        self.changes.push_back(change);
        if self.changes.len() > UNSYNCED {
            self.changes.pop_front();
        }
    }

    /// Takes in what callbacks have left; it is reported some steps later.
    pub(crate) fn take_ended(&mut self) {
        let ended = std::mem::take(&mut *self.ended.lock().unwrap());
        for finished in ended {
            if let Finished::Wrote(write, result) = &finished {
                self.judge_write(write, result);
            }
            let late = self.step.saturating_add(self.chance.below(self.temper.delay + 1));
            self.late.push((late, finished));
        }
    }

    /// A drive that kept failing was taken out: the planner is told, as the daemon's thread would be.
    fn hear_of_loss(&mut self) {
        if self.went_out.swap(false, Ordering::Relaxed) {
            self.count("drive taken out");
            let lost: Vec<BlockKey> = self.rows.keys().copied().collect();
            self.excuse(|key| lost.contains(key));
            self.tell(Event::DriveLost { drive: 0 });
        }
    }

    /// A job is served, or the end of one is reported. Whether there was something to do.
    pub(crate) fn work(&mut self) -> bool {
        self.hear_of_loss();
        let due: Vec<usize> = (0..self.late.len()).filter(|at| self.late[*at].0 <= self.step).collect();
        let waiting = self.drive.waiting();
        if waiting > 0 && (due.is_empty() || self.chance.chance(1, 2)) {
            let at = self.chance.index(waiting);
            let what = self.drive.serve(at);
            self.note(&what);
            self.take_ended();
        } else if !due.is_empty() {
            let (_, finished) = self.late.swap_remove(self.chance.pick(&due));
            self.report(finished);
        } else {
            return false;
        }
        self.take_freed();
        true
    }

    /// Tells the planner of slots whose last reader has gone.
    pub(crate) fn take_freed(&mut self) {
        let mut freed = Vec::new();
        self.ram.take_freed(&mut freed);
        for slot in freed {
            self.tell(Event::RamFreed { slot });
        }
    }

    fn report(&mut self, finished: Finished) {
        let event = match finished {
            Finished::Wrote(write, result) => Event::Wrote { block: write.block, outcome: outcome_of_write(&result) },
            Finished::Loaded(load, result) => {
                let at = (load.from.0, load.from.1);
                let outcome = self.judge_read(load.key, at, result.as_ref().map(|writer| writer.bytes()));
                self.count("load");
                let generation = result.ok().map(SlotWriter::publish);
                Event::Loaded { block: load.block, outcome: generation.map_or(outcome, Transfer::Done) }
            }
            Finished::Peeked(peek, key, result) => {
                let outcome = self.judge_read(key, (peek.slot, peek.class), result.as_ref().map(|bytes| &bytes[..]));
                Event::Peeked { block: peek.block, outcome }
            }
        };
        self.tell(event);
    }

    /// What the drive has done to a write, by what is on the disk.
    fn judge_write(&mut self, write: &Write, result: &Result<(), WriteError>) {
        let offset = self.shelf.shape().offset(write.to.0, write.to.1);
        let payload = payload_of(&write.key);
        let on_disk = self.disk.read(offset, write.length);
        match result {
            Ok(()) if on_disk == payload => {}
            Ok(()) if payload.len() > 4096 && on_disk[..4096] == payload[..4096] => self.count("torn write"),
            Ok(()) => self.count("lost write"),
            Err(WriteError::QueueFull) => self.count("queue full for a write"),
            Err(WriteError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => self.count("ENOSPC"),
            Err(WriteError::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.count("short write")
            }
            Err(WriteError::Io(_)) => self.count("EIO on write"),
            Err(error) => panic!("{error}"),
        }
        if result.is_err() {
            return;
        }
        // The shelf has put the row before it said so.
        self.rows.insert(write.key, write.to.0);
        self.changed(Change::Put(write.key));
        if on_disk != payload {
            assert!(lies(&self.temper.faults), "{:?} was written and is not on the disk", write.key);
            self.lied_to = true;
        }
    }

    /// Bytes that come are right; those that don't have a reason.
    fn judge_read(&mut self, key: BlockKey, at: (SlotId, SlotClass), read: Result<&[u8], &ReadError>) -> Transfer {
        let payload = payload_of(&key);
        let offset = self.shelf.shape().offset(at.0, at.1);
        match read {
            Ok(bytes) => {
                assert!(bytes[..payload.len()] == payload[..], "wrong bytes of {key:?}");
                return Transfer::Done(0);
            }
            Err(ReadError::QueueFull) => {
                self.count("queue full for a read");
                return Transfer::Refused;
            }
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => self.count("short read"),
            Err(ReadError::Io(_)) => self.count("EIO on read"),
            Err(ReadError::Corrupt { .. }) if self.disk.read(offset, payload.len() as u32) == payload => {
                assert!(self.temper.faults.bit_flip > 0.0, "{key:?} is on the disk and was read as something else");
                self.count("flipped bit");
            }
            Err(ReadError::Corrupt { .. }) => {
                assert!(self.lied_to, "{key:?} is not on the disk, and nothing took it from there");
                self.count("wrong bytes found");
            }
        }
        self.excuse(|lost| *lost == key);
        Transfer::Failed
    }
}

fn outcome_of_write(result: &Result<(), WriteError>) -> Transfer {
    match result {
        Ok(()) => Transfer::Done(0),
        Err(WriteError::QueueFull) => Transfer::Refused,
        Err(_) => Transfer::Failed,
    }
}

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
