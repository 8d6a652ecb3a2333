//! Claims about the NVMe shelf, over drives that work, lie and wait.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::*;
use crate::index::{CODEC_RAW, ShardRow};
use crate::media::{Arena, Faults, FaultyDevice, MemDevice, PosixDevice};
use crate::vocab::crc::payload_crc;
use crate::vocab::limits::PAYLOAD_BYTES_MAX;
use crate::vocab::{ByteCount, Owner};

const SIZE: u64 = 4 << 20;
const LENGTH: u32 = 16_384;

/// Takes jobs and does nothing with them until told.
#[derive(Default)]
struct Parked(Mutex<Vec<Io>>);

impl Device for Parked {
    fn submit(&self, io: Io) -> Result<(), Io> {
        self.0.lock().unwrap().push(io);
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "parked"
    }

    fn size(&self) -> u64 {
        u64::MAX
    }

    fn stop(&self) {}
}

struct Bench {
    shelf: NvmeShelf,
    ram: Arc<Arena>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(device: Arc<dyn Device>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog")).unwrap().catalog;
        let shape = TierShape::carve(ByteCount(SIZE));
        let ram = Arena::new(TierShape::carve(ByteCount(SIZE))).unwrap();
        Self { shelf: NvmeShelf::new(device, Arc::new(catalog), shape), ram, _folder: folder }
    }

    fn class(&self) -> SlotClass {
        self.shelf.shape().class_for(LENGTH)
    }

    /// The payload in a RAM slot, pinned, and the slot retired.
    fn pinned(&self, payload: &[u8]) -> SlotPin {
        let slot = SlotId { extent: 0, index: 0 };
        let mut writer = self.ram.writer(slot, self.class()).unwrap();
        assert!(writer.write_at(0, payload));
        let length = u32::try_from(payload.len()).unwrap();
        let pin = self.ram.pin(slot, self.class(), writer.publish(), length).unwrap();
        assert!(!self.ram.retire(slot));
        pin
    }

    fn write(&self, key: BlockKey, payload: &[u8]) -> Result<(), WriteError> {
        let (sender, receiver) = channel();
        let row = row(key, payload, self.class());
        self.shelf.write(key, self.pinned(payload), row, move |written| sender.send(written).unwrap());
        let written = receiver.recv().unwrap();
        assert_eq!((self.ram.pins(), self.shelf.write_queue_bytes()), (0, 0));
        written
    }

    fn read(&self, key: BlockKey, place: Place, into: ReadInto) -> Result<ReadDone, ReadError> {
        let (sender, receiver) = channel();
        self.shelf.read(key, place, into, move |read| sender.send(read).unwrap());
        receiver.recv().unwrap()
    }

    fn ram_slot(&self) -> ReadInto {
        ReadInto::Slot(self.ram.writer(SlotId { extent: 1, index: 1 }, self.class()).unwrap())
    }
}

fn memory() -> Arc<dyn Device> {
    Arc::new(MemDevice::inline(SIZE))
}

fn key(byte: u8) -> BlockKey {
    BlockKey::from_bytes([byte; 32])
}

fn payload(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at % 249) as u8 + 1).collect()
}

fn row(key: BlockKey, payload: &[u8], class: SlotClass) -> Row {
    let length = u32::try_from(payload.len()).unwrap();
    Row {
        slot: SlotId { extent: 2, index: 3 },
        class,
        length,
        codec: CODEC_RAW,
        owner: Owner::default(),
        shard_bitmap: 1,
        shards: vec![ShardRow { offset: 0, length, crc: payload_crc(&key, payload) }],
        parent: None,
        depth: 0,
        retention: 0,
        created_s: 1,
        last_use_s: 1,
        expires_s: 0,
    }
}

fn stored(bench: &Bench, byte: u8) -> Place {
    Place::of(&bench.shelf.catalog().get(key(byte)).unwrap().unwrap()).unwrap()
}

fn comes_back(device: Arc<dyn Device>) {
    let bench = Bench::new(device);
    for length in [LENGTH, 1, 5000] {
        bench.write(key(1), &payload(length)).unwrap();
        let place = stored(&bench, 1);
        let Ok(ReadDone::Slot(writer)) = bench.read(key(1), place, bench.ram_slot()) else { panic!("not read") };
        assert!(writer.bytes()[..length as usize] == payload(length));
        drop(writer);
        let Ok(ReadDone::Bytes(bytes)) = bench.read(key(1), place, ReadInto::Heap) else { panic!("not read") };
        assert!(bytes == payload(length));
    }
    let stats = bench.shelf.stats();
    let bytes = u64::from(LENGTH) + 5001;
    let expected = NvmeStats { reads: 6, read_bytes: 2 * bytes, writes: 3, written_bytes: bytes, ..stats };
    assert_eq!(stats, expected);
    bench.shelf.stop();
    assert!(matches!(bench.write(key(2), &payload(LENGTH)), Err(WriteError::QueueFull)));
    assert!(matches!(bench.read(key(1), stored(&bench, 1), ReadInto::Heap), Err(ReadError::QueueFull)));
    assert_eq!((bench.shelf.catalog().get(key(2)).unwrap(), bench.shelf.stats().dropped), (None, 2));
}

#[test]
fn what_was_written_comes_back() {
    comes_back(memory());
    let folder = tempfile::tempdir().unwrap();
    comes_back(Arc::new(PosixDevice::open(&folder.path().join("0.kv"), SIZE, 2).unwrap()));
}

#[test]
fn a_row_is_put_only_after_its_payload_is_written() {
    let parked = Arc::new(Parked::default());
    let bench = Bench::new(Arc::<Parked>::clone(&parked));
    let (sender, receiver) = channel();
    let row = row(key(1), &payload(LENGTH), bench.class());
    bench.shelf.write(key(1), bench.pinned(&payload(LENGTH)), row, move |written| sender.send(written).unwrap());
    assert_eq!(bench.shelf.catalog().get(key(1)).unwrap(), None);
    assert!(receiver.try_recv().is_err());
    assert_eq!((bench.ram.pins(), bench.shelf.write_queue_bytes()), (1, u64::from(LENGTH)));
    let io = parked.0.lock().unwrap().pop().unwrap();
    assert!(io.background);
    io.complete(Ok(()));
    assert!(receiver.recv().unwrap().is_ok());
    assert!(bench.shelf.catalog().get(key(1)).unwrap().is_some());
    assert_eq!(bench.ram.pins(), 0);
}

#[test]
fn torn_lost_and_flipped_bytes_are_corrupt_and_never_given_out() {
    let lies = [
        Faults { torn_write: 1.0, ..Faults::default() },
        Faults { lost_write: 1.0, ..Faults::default() },
        Faults { bit_flip: 1.0, ..Faults::default() },
    ];
    for lie in lies {
        let bench = Bench::new(Arc::new(FaultyDevice::new(memory(), lie, 3)));
        bench.write(key(1), &payload(LENGTH)).unwrap();
        for _ in 0..2 {
            let read = bench.read(key(1), stored(&bench, 1), bench.ram_slot());
            assert!(matches!(read, Err(ReadError::Corrupt { .. })), "{lie:?}");
        }
        let read = bench.read(key(1), stored(&bench, 1), ReadInto::Heap);
        assert!(matches!(read, Err(ReadError::Corrupt { expected, found }) if expected != found), "{lie:?}");
        assert_eq!((bench.shelf.stats().corrupt, bench.shelf.stats().reads), (3, 0));
    }
}

#[test]
fn a_stale_row_reads_as_corrupt_once_its_slot_was_reused() {
    let bench = Bench::new(memory());
    bench.write(key(1), &payload(LENGTH)).unwrap();
    let stale = stored(&bench, 1);
    bench.write(key(2), &payload(LENGTH)).unwrap();
    assert!(bench.read(key(2), stored(&bench, 2), ReadInto::Heap).is_ok());
    let same_bytes_of_another_block = Place { crc: stored(&bench, 2).crc, ..stale };
    assert!(matches!(bench.read(key(1), same_bytes_of_another_block, ReadInto::Heap), Err(ReadError::Corrupt { .. })));
}

#[test]
fn a_failed_write_leaves_no_row_and_a_failed_read_no_slot() {
    let faulty = Arc::new(FaultyDevice::new(memory(), Faults::default(), 3));
    let bench = Bench::new(Arc::<FaultyDevice>::clone(&faulty));
    for fault in [Faults { write_error: 1.0, ..Faults::default() }, Faults { no_space: 1.0, ..Faults::default() }] {
        faulty.set_faults(fault);
        assert!(matches!(bench.write(key(1), &payload(LENGTH)), Err(WriteError::Io(_))));
        assert_eq!(bench.shelf.catalog().get(key(1)).unwrap(), None);
    }
    faulty.set_faults(Faults { read_error: 1.0, ..Faults::default() });
    bench.write(key(1), &payload(LENGTH)).unwrap();
    assert!(matches!(bench.read(key(1), stored(&bench, 1), bench.ram_slot()), Err(ReadError::Io(_))));
    assert!(bench.ram.retire(SlotId { extent: 1, index: 1 }), "the writer is gone");
    assert_eq!((bench.shelf.stats().write_errors, bench.shelf.stats().read_errors), (2, 1));
}

#[test]
fn a_row_that_does_not_describe_its_payload_is_not_written() {
    let bench = Bench::new(Arc::new(Parked::default()));
    let good = row(key(1), &payload(LENGTH), bench.class());
    let bad = [
        Row { length: LENGTH - 1, ..good.clone() },
        Row { slot: SlotId { extent: 16, index: 0 }, ..good.clone() },
        Row { slot: SlotId { extent: 0, index: 16 }, ..good.clone() },
        Row { owner: Owner { ram_only: true, ..Owner::default() }, ..good },
    ];
    for row in bad {
        let (sender, receiver) = channel();
        bench.shelf.write(key(1), bench.pinned(&payload(LENGTH)), row, move |written| sender.send(written).unwrap());
        assert!(matches!(receiver.recv().unwrap(), Err(WriteError::Row(_))));
        assert_eq!(bench.ram.pins(), 0);
    }
    let nowhere = Place { slot: SlotId { extent: 99, index: 0 }, class: bench.class(), length: LENGTH, crc: 0 };
    assert!(matches!(bench.read(key(1), nowhere, ReadInto::Heap), Err(ReadError::Io(_))));
}

#[test]
fn writes_past_the_queues_bytes_are_dropped_and_counted() {
    let parked = Arc::new(Parked::default());
    let class = SlotClass::of_bytes(PAYLOAD_BYTES_MAX).unwrap();
    let ram = Arena::new(TierShape::of_slots(1, class)).unwrap();
    let bench = Bench::new(Arc::new(Parked::default()));
    let shape = TierShape::of_slots(1, class);
    let shelf = NvmeShelf::new(Arc::<Parked>::clone(&parked), Arc::clone(bench.shelf.catalog()), shape);
    let slot = SlotId { extent: 0, index: 0 };
    let generation = ram.writer(slot, class).unwrap().publish();
    let fits = WRITE_QUEUE_BYTES / u64::from(PAYLOAD_BYTES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    for _ in 0..fits + 3 {
        let pin = ram.pin(slot, class, generation, PAYLOAD_BYTES_MAX).unwrap();
        let shard = ShardRow { offset: 0, length: PAYLOAD_BYTES_MAX, crc: 0 };
        let row = Row { slot, length: PAYLOAD_BYTES_MAX, shards: vec![shard], ..row(key(1), b"x", class) };
        let count = Arc::clone(&dropped);
        shelf.write(key(1), pin, row, move |written| {
            if matches!(written, Err(WriteError::QueueFull)) {
                add(&count, 1);
            }
        });
    }
    assert_eq!((dropped.load(Ordering::Relaxed), shelf.stats().dropped), (3, 3));
    assert_eq!(parked.0.lock().unwrap().len() as u64, fits);
    assert_eq!(ram.pins() as u64, fits);
}

#[test]
fn a_read_that_nobody_waits_for_goes_after_those_that_somebody_does() {
    let parked = Arc::new(Parked::default());
    let bench = Bench::new(Arc::<Parked>::clone(&parked));
    let place = Place { slot: SlotId { extent: 0, index: 0 }, class: bench.class(), length: LENGTH, crc: 0 };
    for (into, background) in [(ReadInto::Heap, false), (bench.ram_slot(), false), (ReadInto::Scrub, true)] {
        bench.shelf.read(key(1), place, into, |_| {});
        assert_eq!(parked.0.lock().unwrap().pop().unwrap().background, background);
    }
}
