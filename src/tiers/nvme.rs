//! The NVMe shelf: payloads in slots of a device, rows in the catalog, and the order between the two.
//!
//! A row is put once its payload is written, so that the catalog names only bytes that are there; what a device gives
//! back is believed only when its checksum is the row's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::index::{Catalog, IndexError, Row, RowError};
use crate::media::{AlignedBuf, Buffer, Device, Io, SlotPin, SlotWriter};
use crate::vocab::crc::payload_crc;
use crate::vocab::limits::{ALIGNMENT, WRITE_QUEUE_BYTES};
use crate::vocab::{BlockKey, SlotClass, SlotId, TierShape};

/// Why a block did not come to the drive. It has no row.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// More is waiting to be written than may wait, or the drive was stopped.
    #[error("the drive's queue is full")]
    QueueFull,
    /// The drive failed; the slot may be half written.
    #[error("the drive failed to write: {0}")]
    Io(io::Error),
    /// The payload is written and its row is not.
    #[error(transparent)]
    Index(IndexError),
    /// A row that could not be read again, or does not describe the payload; nothing was written.
    #[error("the row can't be stored: {0}")]
    Row(RowError),
}

/// Why a block did not come from the drive. It is a miss.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More jobs are waiting than may wait, or the drive was stopped.
    #[error("the drive's queue is full")]
    QueueFull,
    /// The drive failed.
    #[error("the drive failed to read: {0}")]
    Io(io::Error),
    /// The bytes are not those that were written under this key.
    #[error("checksum {found:016x} instead of {expected:016x}")]
    Corrupt {
        /// The row's.
        expected: u64,
        /// That of the bytes.
        found: u64,
    },
}

/// Where a payload lies and how to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which slot.
    pub slot: SlotId,
    /// The slot's class.
    pub class: SlotClass,
    /// Bytes of the payload.
    pub length: u32,
    /// Its checksum, seeded with its key.
    pub crc: u64,
}

impl Place {
    /// Where a row of one shard says that its payload lies; `None` for more shards, which are not built.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let [shard] = row.shards.as_slice() else { return None };
        let whole = shard.offset == 0 && shard.length == row.length;
        whole.then_some(Self { slot: row.slot, class: row.class, length: row.length, crc: shard.crc })
    }
}

/// Where to read to.
#[derive(Debug)]
pub enum ReadInto {
    /// A RAM slot.
    Slot(SlotWriter),
    /// Memory of its own: reads that should not displace RAM.
    Heap,
}

/// A payload whose checksum is right.
#[derive(Debug)]
pub enum ReadDone {
    /// In the RAM slot, not yet published.
    Slot(SlotWriter),
    /// In memory of its own.
    Bytes(Bytes),
}

/// What the shelf has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmeStats {
    /// Blocks read and right.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Blocks written, with their rows.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Reads that the drive failed.
    pub read_errors: u64,
    /// Writes that the drive or the catalog failed.
    pub write_errors: u64,
    /// Reads of bytes that were not what was written.
    pub corrupt: u64,
    /// Reads and writes dropped because too much was waiting.
    pub dropped: u64,
    /// Bytes waiting to be written now.
    pub write_queue_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    corrupt: AtomicU64,
    dropped: AtomicU64,
    write_queue_bytes: AtomicU64,
}

/// One drive with its catalog. `done` callbacks run on a thread of the device, or on the caller's before the call
/// returns: they must not wait for either. Pins and failed writers have ended when they run.
pub struct NvmeShelf {
    device: Arc<dyn Device>,
    catalog: Arc<Catalog>,
    shape: TierShape,
    counters: Arc<Counters>,
}

impl NvmeShelf {
    /// A shelf of `shape` on `device`.
    #[must_use]
    pub fn new(device: Arc<dyn Device>, catalog: Arc<Catalog>, shape: TierShape) -> Self {
        Self { device, catalog, shape, counters: Arc::default() }
    }

    /// What the drive is carved into.
    #[must_use]
    pub fn shape(&self) -> TierShape {
        self.shape
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The catalog.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Writes the payload `from` to the slot that `row` names, then the row.
    pub fn write(
        &self,
        key: BlockKey,
        from: SlotPin,
        row: Row,
        done: impl FnOnce(Result<(), WriteError>) + Send + 'static,
    ) {
        let offset = match self.write_offset(&from, &row) {
            Ok(offset) => offset,
            Err(error) => {
                drop(from);
                return done(Err(WriteError::Row(error)));
            }
        };
        let (length, counters) = (row.length, Arc::clone(&self.counters));
        let waiting = u64::from(length).next_multiple_of(ALIGNMENT);
        if counters.write_queue_bytes.fetch_add(waiting, Ordering::Relaxed) + waiting > WRITE_QUEUE_BYTES {
            counters.write_queue_bytes.fetch_sub(waiting, Ordering::Relaxed);
            add(&counters.dropped, 1);
            drop(from);
            return done(Err(WriteError::QueueFull));
        }
        let catalog = Arc::clone(&self.catalog);
        let finish = move |buffer: Buffer, result: io::Result<()>| {
            drop(buffer);
            let written = match result {
                Ok(()) => catalog.put(key, &row).map_err(WriteError::Index),
                Err(error) if is_refusal(&error) => Err(WriteError::QueueFull),
                Err(error) => Err(WriteError::Io(error)),
            };
            counters.write_queue_bytes.fetch_sub(waiting, Ordering::Relaxed);
            counters.wrote(&written, length);
            done(written);
        };
        self.submit(Io::write(offset, length, Buffer::Slot(from), Box::new(finish)));
    }

    /// Reads the payload of `key` from its place and checks it.
    pub fn read(
        &self,
        key: BlockKey,
        place: Place,
        into: ReadInto,
        done: impl FnOnce(Result<ReadDone, ReadError>) + Send + 'static,
    ) {
        let buffer = match into {
            ReadInto::Slot(writer) => Buffer::Fill(writer),
            ReadInto::Heap => Buffer::Heap(AlignedBuf::with_room_for(place.length)),
        };
        let counters = Arc::clone(&self.counters);
        let finish = move |buffer: Buffer, result: io::Result<()>| {
            let read = match result {
                Ok(()) => checked(&key, &place, buffer),
                Err(error) => {
                    drop(buffer);
                    Err(if is_refusal(&error) { ReadError::QueueFull } else { ReadError::Io(error) })
                }
            };
            counters.read(&read, place.length);
            done(read);
        };
        let offset = self.offset(place.slot, place.class, place.length);
        let io = Io::read(offset.unwrap_or_default(), place.length, buffer, Box::new(finish));
        if offset.is_none() {
            return io.complete(Err(io::Error::new(io::ErrorKind::InvalidInput, "no such slot on this drive")));
        }
        self.submit(io);
    }

    /// Deletes the row of `key`, and says when it is gone: only then may its slot be used again.
    pub fn erase(&self, key: BlockKey, done: impl FnOnce(Result<(), IndexError>) + Send + 'static) {
        done(self.catalog.delete(key));
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> NvmeStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &*self.counters;
        NvmeStats {
            reads: get(&counters.reads),
            read_bytes: get(&counters.read_bytes),
            writes: get(&counters.writes),
            written_bytes: get(&counters.written_bytes),
            read_errors: get(&counters.read_errors),
            write_errors: get(&counters.write_errors),
            corrupt: get(&counters.corrupt),
            dropped: get(&counters.dropped),
            write_queue_bytes: get(&counters.write_queue_bytes),
        }
    }

    /// Finishes what is queued and takes nothing more.
    pub fn stop(&self) {
        self.device.stop();
    }

    fn submit(&self, io: Io) {
        if let Err(io) = self.device.submit(io) {
            io.complete(Err(io::Error::other(Refused)));
        }
    }

    /// Where the slot begins; `None` unless it exists and has room for `length`.
    fn offset(&self, slot: SlotId, class: SlotClass, length: u32) -> Option<u64> {
        let exists = u32::from(slot.extent) < self.shape.extents()
            && u32::from(slot.index) < self.shape.slots(slot.extent, class);
        (exists && length > 0 && length <= class.bytes()).then(|| self.shape.offset(slot, class))
    }

    fn write_offset(&self, from: &SlotPin, row: &Row) -> Result<u64, RowError> {
        row.check()?;
        if from.len() != row.length as usize {
            return Err(RowError::Field("length"));
        }
        self.offset(row.slot, row.class, row.length).ok_or(RowError::Field("slot"))
    }
}

impl Counters {
    fn wrote(&self, written: &Result<(), WriteError>, length: u32) {
        match written {
            Ok(()) => {
                add(&self.writes, 1);
                add(&self.written_bytes, u64::from(length));
            }
            Err(WriteError::QueueFull) => add(&self.dropped, 1),
            Err(_) => add(&self.write_errors, 1),
        }
    }

    fn read(&self, read: &Result<ReadDone, ReadError>, length: u32) {
        match read {
            Ok(_) => {
                add(&self.reads, 1);
                add(&self.read_bytes, u64::from(length));
            }
            Err(ReadError::QueueFull) => add(&self.dropped, 1),
            Err(ReadError::Io(_)) => add(&self.read_errors, 1),
            Err(ReadError::Corrupt { .. }) => add(&self.corrupt, 1),
        }
    }
}

/// The device gave the job back.
#[derive(Debug, thiserror::Error)]
#[error("the device takes no more jobs")]
struct Refused;

fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Refused>())
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The payload, if it is the one that was written under `key`.
fn checked(key: &BlockKey, place: &Place, buffer: Buffer) -> Result<ReadDone, ReadError> {
    let length = place.length as usize;
    let found = payload_crc(key, buffer.bytes().get(..length).unwrap_or_default());
    if found != place.crc {
        return Err(ReadError::Corrupt { expected: place.crc, found });
    }
    match buffer {
        Buffer::Fill(writer) => Ok(ReadDone::Slot(writer)),
        Buffer::Heap(buffer) => Ok(ReadDone::Bytes(buffer.into_bytes(length))),
        Buffer::Slot(_) => Err(ReadError::Io(io::ErrorKind::InvalidInput.into())),
    }
}

#[cfg(test)]
#[path = "nvme_tests.rs"]
mod tests;
