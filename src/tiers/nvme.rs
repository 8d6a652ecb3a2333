//! The NVMe shelf: payloads in slots of a device, rows in the catalog, and the order between the two.
//!
//! A row is put once its payload is written, so that the catalog names only bytes that are there; what a device gives
//! back is believed only when its checksum is the row's.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::drive::{Drive, DriveLost, NvmeStats, is_refusal};
use super::rows::{Rows, RowsWatch};
use crate::index::{Catalog, IndexError, Row, RowError};
use crate::media::{AlignedBuf, Buffer, Device, Io, RegionWriter, SlotPin, SlotWriter};
use crate::vocab::limits::{ALIGNMENT, WRITE_QUEUE_BYTES};
use crate::vocab::{BlockKey, SlotClass, SlotId, TierShape};
use crate::watch::Watch;

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
    /// The same, in the background: nobody waits for it.
    Scrub,
    /// Memory of an engine, whole 4 KiB of it.
    Region(RegionWriter),
}

/// A payload whose checksum is right.
#[derive(Debug)]
pub enum ReadDone {
    /// In the RAM slot, not yet published.
    Slot(SlotWriter),
    /// In memory of its own.
    Bytes(Bytes),
    /// In the engine's memory.
    Region(RegionWriter),
}

/// The drives with their catalog. `done` callbacks run on a thread of the device or of the rows, or on the caller's
/// before the call returns: they must not wait for any. Pins and failed writers have ended when they run.
pub struct NvmeShelf {
    drives: Box<[Arc<Drive>]>,
    catalog: Arc<Catalog>,
    rows: Arc<Rows>,
    rows_thread: Mutex<Option<JoinHandle<()>>>,
    shape: TierShape,
    shared: Arc<Shared>,
}

/// What completions on all drives have to do with.
#[derive(Default)]
struct Shared {
    /// Bytes waiting to be written, on all drives.
    write_queue_bytes: AtomicU64,
    lost: OnceLock<DriveLost>,
}

impl NvmeShelf {
    /// A shelf of one drive.
    #[must_use]
    pub fn new(device: Arc<dyn Device>, catalog: Arc<Catalog>, shape: TierShape) -> Self {
        Self::striped(vec![Some(device)], catalog, shape)
    }

    /// A shelf on these drives, by number; `None` for one that is missing.
    #[must_use]
    pub fn striped(devices: Vec<Option<Arc<dyn Device>>>, catalog: Arc<Catalog>, shape: TierShape) -> Self {
        let mut devices = devices.into_iter();
        let drive = |number| Arc::new(Drive::new(number, devices.next().flatten()));
        let (drives, rows) = ((0..shape.stride()).map(drive).collect(), Rows::new(Arc::clone(&catalog)));
        Self { drives, catalog, rows, rows_thread: Mutex::default(), shape, shared: Arc::default() }
    }

    /// Has rows written by a thread of its own from now on, a part of `watch`, until this is dropped, instead of by whoever
    /// asks for it.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start_rows(&self, told: Box<dyn RowsWatch>, watch: &Watch) -> io::Result<()> {
        let thread = self.rows.start(told, watch)?;
        *self.rows_thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Who writes the rows.
    #[must_use]
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// What to call when a drive is taken out. The first hook stays.
    pub fn on_lost(&self, hook: DriveLost) {
        drop(self.shared.lost.set(hook));
    }

    /// What the drives are carved into.
    #[must_use]
    pub fn shape(&self) -> TierShape {
        self.shape
    }

    /// Each drive's number, device and deeds, and whether it is out; drives that never were are left out.
    pub fn drives(&self) -> impl Iterator<Item = (u16, Option<&Arc<dyn Device>>, NvmeStats, bool)> {
        let drive = |(number, drive)| -> (u16, Option<&Arc<dyn Device>>, NvmeStats, bool) {
            let drive: &Arc<Drive> = drive;
            (number, drive.device(), drive.stats(), drive.is_out())
        };
        (0..).zip(&self.drives).map(drive).filter(|(_, device, ..)| device.is_some())
    }

    /// Bytes waiting to be written now.
    #[must_use]
    pub fn write_queue_bytes(&self) -> u64 {
        self.shared.write_queue_bytes.load(Ordering::Relaxed)
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
        let (drive, shared) = (self.drive_of(row.slot), Arc::clone(&self.shared));
        let (length, waiting) = (row.length, u64::from(row.length).next_multiple_of(ALIGNMENT));
        if shared.write_queue_bytes.fetch_add(waiting, Ordering::Relaxed) + waiting > WRITE_QUEUE_BYTES {
            shared.write_queue_bytes.fetch_sub(waiting, Ordering::Relaxed);
            add(&drive.counters.dropped, 1);
            drop(from);
            return done(Err(WriteError::QueueFull));
        }
        let (rows, of) = (Arc::clone(&self.rows), Arc::clone(&drive));
        let finish = move |buffer: Buffer, result: io::Result<()>| {
            drop(buffer);
            shared.judge(&of, &result);
            let end = move |written| {
                shared.write_queue_bytes.fetch_sub(waiting, Ordering::Relaxed);
                of.count_write(&written, length);
                done(written);
            };
            match result {
                Ok(()) => rows.put(key, row, move |put| end(put.map_err(WriteError::Index))),
                Err(error) if is_refusal(&error) => end(Err(WriteError::QueueFull)),
                Err(error) => end(Err(WriteError::Io(error))),
            }
        };
        drive.submit(Io::write(offset, length, Buffer::Slot(from), Box::new(finish)));
    }

    /// Reads the payload of `key` from its place and checks it.
    pub fn read(
        &self,
        key: BlockKey,
        place: Place,
        into: ReadInto,
        done: impl FnOnce(Result<ReadDone, ReadError>) + Send + 'static,
    ) {
        let background = matches!(into, ReadInto::Scrub);
        let buffer = match into {
            ReadInto::Slot(writer) => Buffer::Fill(writer),
            ReadInto::Region(writer) => Buffer::Region(writer),
            ReadInto::Heap | ReadInto::Scrub => Buffer::Heap(AlignedBuf::with_room_for(place.length)),
        };
        let drive = self.drive_of(place.slot);
        let (shared, of) = (Arc::clone(&self.shared), Arc::clone(&drive));
        let finish = move |buffer: Buffer, result: io::Result<()>| {
            shared.judge(&of, &result);
            let read = match result {
                Ok(()) => checked(&key, &place, buffer),
                Err(error) => {
                    drop(buffer);
                    Err(if is_refusal(&error) { ReadError::QueueFull } else { ReadError::Io(error) })
                }
            };
            of.count_read(&read, place.length);
            done(read);
        };
        let offset = self.offset(place.slot, place.class, place.length);
        let io = Io::read(offset.unwrap_or_default(), place.length, buffer, Box::new(finish));
        let io = Io { background, ..io };
        if offset.is_none() {
            return io.complete(Err(io::Error::new(io::ErrorKind::InvalidInput, "no such slot on this drive")));
        }
        drive.submit(io);
    }

    /// What all drives have done.
    #[must_use]
    pub fn stats(&self) -> NvmeStats {
        self.drives.iter().map(|drive| drive.stats()).fold(NvmeStats::default(), NvmeStats::plus)
    }

    /// Finishes what is queued and takes nothing more.
    pub fn stop(&self) {
        self.drives.iter().filter_map(|drive| drive.device()).for_each(|device| device.stop());
    }

    fn drive_of(&self, slot: SlotId) -> Arc<Drive> {
        Arc::clone(&self.drives[usize::from(self.shape.drive_of(slot.extent))])
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

/// What was asked for is written before it is gone.
impl Drop for NvmeShelf {
    fn drop(&mut self) {
        self.rows.close();
        let thread = self.rows_thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Where its last user was what that thread told of a row, it ends by itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            drop(thread.join());
        }
    }
}

impl Shared {
    /// Counts a job's end for or against its drive.
    fn judge(&self, drive: &Drive, result: &io::Result<()>) {
        match result {
            Ok(()) => drive.worked(),
            Err(error) if is_refusal(error) => {}
            Err(error) => {
                if drive.failed(error)
                    && let Some(lost) = self.lost.get()
                {
                    lost(drive.number());
                }
            }
        }
    }
}

impl Drive {
    fn count_write(&self, written: &Result<(), WriteError>, length: u32) {
        let counters = &self.counters;
        if !matches!(written, Err(WriteError::QueueFull)) {
            add(&counters.device_written_bytes, u64::from(length).next_multiple_of(ALIGNMENT));
        }
        match written {
            Ok(()) => {
                add(&counters.writes, 1);
                add(&counters.written_bytes, u64::from(length));
            }
            Err(WriteError::QueueFull) => add(&counters.dropped, 1),
            Err(_) => add(&counters.write_errors, 1),
        }
    }

    fn count_read(&self, read: &Result<ReadDone, ReadError>, length: u32) {
        let counters = &self.counters;
        match read {
            Ok(_) => {
                add(&counters.reads, 1);
                add(&counters.read_bytes, u64::from(length));
            }
            Err(ReadError::QueueFull) => add(&counters.dropped, 1),
            Err(ReadError::Io(_)) => add(&counters.read_errors, 1),
            Err(ReadError::Corrupt { .. }) => add(&counters.corrupt, 1),
        }
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The payload, if it is the one that was written under `key`.
fn checked(key: &BlockKey, place: &Place, buffer: Buffer) -> Result<ReadDone, ReadError> {
    let length = place.length as usize;
    let found = buffer.checksum(key, length);
    if found != place.crc {
        return Err(ReadError::Corrupt { expected: place.crc, found });
    }
    match buffer {
        Buffer::Fill(writer) => Ok(ReadDone::Slot(writer)),
        Buffer::Heap(buffer) => Ok(ReadDone::Bytes(buffer.into_bytes(length))),
        Buffer::Region(writer) => Ok(ReadDone::Region(writer)),
        Buffer::Slot(_) => Err(ReadError::Io(io::ErrorKind::InvalidInput.into())),
    }
}

#[cfg(test)]
#[path = "nvme_tests.rs"]
mod tests;
