//! Blocks through the NVMe shelf, as the daemon moves them: RAM slot to device to row, and device to RAM slot to checksum.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::BenchError;
use crate::index::{CODEC_RAW, Row, ShardRow};
use crate::media::Arena;
use crate::tiers::{NvmeShelf, Place, ReadDone, ReadInto};
use crate::vocab::crc::payload_crc;
use crate::vocab::{BlockKey, Owner, SlotClass, SlotId, TierShape};

/// As many blocks of one size as the shelf holds, and RAM slots to move them through.
pub(super) struct Blocks<'a> {
    shelf: &'a NvmeShelf,
    ram: Arc<Arena>,
    class: SlotClass,
    blocks: Vec<(BlockKey, Row)>,
    payload: Vec<u8>,
    slots: Vec<SlotId>,
}

/// What a callback says: which RAM slot is free again, or what went wrong.
type Freed = Result<SlotId, String>;

impl<'a> Blocks<'a> {
    /// Blocks of `bytes` bytes; nothing is written yet.
    pub(super) fn new(shelf: &'a NvmeShelf, ram: Arc<Arena>, class: SlotClass) -> Self {
        let mut random = Pcg64::seed_from_u64(u64::from(class.bytes()));
        // Bytes that no drive can make smaller.
        let mut payload = vec![0; class.bytes() as usize];
        random.fill_bytes(&mut payload);
        let row = |slot: SlotId| {
            let mut key = [0; 32];
            random.fill_bytes(&mut key);
            let key = BlockKey::from_bytes(key);
            (key, row(slot, class, payload_crc(&key, &payload)))
        };
        let blocks = slots_of(shelf.shape(), class).map(row).collect();
        let slots = slots_of(ram.shape(), class).collect();
        Self { shelf, ram, class, blocks, payload, slots }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Writes the blocks with these numbers, with their rows.
    pub(super) fn write(&self, numbers: &[usize]) -> Result<Duration, BenchError> {
        let generations = self.fill_slots()?;
        let time = self.through_slots(numbers, |(key, row), slot, freed| {
            let generation = generations[self.slots.iter().position(|known| *known == slot).unwrap_or_default()];
            let Some(pin) = self.ram.pin(slot, self.class, generation, row.length) else { return false };
            self.shelf.write(*key, pin, row.clone(), move |written| {
                // There is room for every slot, so this does not wait.
                _ = freed.send(written.map(|()| slot).map_err(|error| error.to_string()));
            });
            true
        });
        for slot in &self.slots {
            self.ram.retire(*slot);
        }
        self.ram.take_freed(&mut Vec::new());
        time
    }

    /// Reads the blocks with these numbers into RAM slots, and checks them.
    pub(super) fn read(&self, numbers: &[usize]) -> Result<Duration, BenchError> {
        self.through_slots(numbers, |(key, row), slot, freed| {
            let (Some(place), Some(writer)) = (Place::of(row), self.ram.writer(slot, self.class)) else { return false };
            self.shelf.read(*key, place, ReadInto::Slot(writer), move |read: Result<ReadDone, _>| {
                let read = read.map(drop).map(|()| slot).map_err(|error| error.to_string());
                _ = freed.send(read);
            });
            true
        })
    }

    /// Has every block moved through whatever RAM slot is free, and waits until all are.
    fn through_slots(
        &self,
        numbers: &[usize],
        mut start: impl FnMut(&(BlockKey, Row), SlotId, SyncSender<Freed>) -> bool,
    ) -> Result<Duration, BenchError> {
        let (sender, receiver): (_, Receiver<Freed>) = sync_channel(self.slots.len());
        let lost = |why: String| BenchError::Lost(why);
        let (began, mut free) = (Instant::now(), self.slots.clone());
        for number in numbers {
            let slot = match free.pop() {
                Some(slot) => slot,
                None => receiver.recv().map_err(|_| lost("no answer".into()))?.map_err(lost)?,
            };
            if !start(&self.blocks[*number], slot, sender.clone()) {
                return Err(lost(format!("RAM slot {slot} is taken")));
            }
        }
        drop(sender);
        receiver.iter().try_for_each(|freed| freed.map(drop)).map_err(lost)?;
        Ok(began.elapsed())
    }

    /// The payload in every RAM slot, and the generation of each.
    fn fill_slots(&self) -> Result<Vec<u64>, BenchError> {
        let fill = |slot: &SlotId| {
            let mut writer = self.ram.writer(*slot, self.class)?;
            writer.write_at(0, &self.payload).then(|| writer.publish())
        };
        let generations: Option<Vec<u64>> = self.slots.iter().map(fill).collect();
        generations.ok_or_else(|| BenchError::Lost("a RAM slot is taken".into()))
    }
}

fn slots_of(shape: TierShape, class: SlotClass) -> impl Iterator<Item = SlotId> {
    let extents = u16::try_from(shape.extents()).unwrap_or(u16::MAX);
    (0..extents).flat_map(move |extent| {
        let slots = u16::try_from(shape.slots(extent, class)).unwrap_or(u16::MAX);
        (0..slots).map(move |index| SlotId { extent, index })
    })
}

fn row(slot: SlotId, class: SlotClass, crc: u64) -> Row {
    let length = class.bytes();
    Row {
        slot,
        class,
        length,
        codec: CODEC_RAW,
        owner: Owner::default(),
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length, crc }],
        parent: None,
        depth: 0,
        retention: 0,
        created_s: 0,
        last_use_s: 0,
        expires_s: 0,
    }
}
