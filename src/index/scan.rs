//! One pass over all blocks on several threads: what a start waits for.
//!
//! Keys are hashes, so equal ranges of them hold about as many rows each. Threads take the ranges in turn, and their rows
//! are taken in the order of keys, whatever the number of threads. A thread is ahead of that by a few batches at most.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use rocksdb::{DB, DBRawIteratorWithThreadMode};

use super::catalog::{Catalog, Scanned, one_pass};
use super::database::family_of;
use super::row::Row;
use super::store::{BLOCKS, IndexError};
use crate::vocab::BlockKey;
use crate::vocab::limits::{SCAN_AHEAD_BATCHES, SCAN_BATCH_ROWS};

/// Ranges of keys by their first bits: 12 at most, so many that a range of 100 million rows fits what a thread may be
/// ahead; fewer where there are few rows, since each range is handed over by itself.
#[derive(Clone, Copy, Debug)]
struct Ranges {
    bits: u32,
}

impl Ranges {
    const BITS_MAX: u32 = 12;

    fn of(rows: u64) -> Self {
        let wanted = (rows / SCAN_BATCH_ROWS as u64).max(1).next_power_of_two();
        Self { bits: wanted.trailing_zeros().min(Self::BITS_MAX) }
    }

    fn count(self) -> u16 {
        1 << self.bits
    }

    /// The range of a key. One that is too short to be a key belongs where it stands.
    fn range_of(self, key: &[u8]) -> u16 {
        let byte = |at| key.get(at).copied().unwrap_or(0);
        let first = u32::from(u16::from_be_bytes([byte(0), byte(1)]));
        (first >> (16 - self.bits)) as u16
    }

    /// What the first key of a range begins with.
    fn start(self, range: u16) -> [u8; 2] {
        ((u32::from(range) << (16 - self.bits)) as u16).to_be_bytes()
    }
}

/// Some rows of a range.
struct Batch<T> {
    rows: Vec<T>,
    /// There are no more in it.
    last: bool,
}

/// One thread's way through its ranges.
struct Reader<'a> {
    catalog: &'a Catalog,
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
    ranges: Ranges,
    scanned: Scanned,
}

impl Catalog {
    /// About how many blocks there are.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn estimated_blocks(&self) -> Result<u64, IndexError> {
        let property = "rocksdb.estimate-num-keys";
        self.db.with(|db| Ok(db.property_int_value_cf(family_of(db, BLOCKS)?, property)?.unwrap_or(0)))
    }

    /// Gives all blocks to `visit` in the order of keys, some at a time, as [`scan`](Self::scan) does one by one; but reads
    /// on `threads` threads, which also make of each row what is wanted of it.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn scan_on<T: Send>(
        &self,
        threads: usize,
        pick: impl Fn(BlockKey, Row) -> T + Sync,
        visit: impl FnMut(Vec<T>),
    ) -> Result<Scanned, IndexError> {
        self.scan_in(Ranges::of(self.estimated_blocks()?), threads, pick, visit)
    }

    fn scan_in<T: Send>(
        &self,
        ranges: Ranges,
        threads: usize,
        pick: impl Fn(BlockKey, Row) -> T + Sync,
        visit: impl FnMut(Vec<T>),
    ) -> Result<Scanned, IndexError> {
        let threads = threads.clamp(1, usize::from(ranges.count()));
        let scanned = std::thread::scope(|scope| {
            let (mut readers, mut batches) = (Vec::new(), Vec::new());
            for thread in 0..threads {
                let (sender, receiver) = sync_channel(SCAN_AHEAD_BATCHES);
                let (pick, builder) = (&pick, std::thread::Builder::new().name("catalog-scan".into()));
                let own = (0..ranges.count()).skip(thread).step_by(threads);
                let read = move || self.db.with(|db| Reader::open(self, db, ranges)?.read(own, pick, &sender));
                let reader = builder.spawn_scoped(scope, read).map_err(|error| IndexError::Io(error.to_string()))?;
                readers.push(reader);
                batches.push(receiver);
            }
            take_in_order(ranges, &batches, visit);
            // Who is ahead of a thread that has failed must not wait for ever.
            drop(batches);
            join(readers)
        })?;
        self.tell_undecodable(scanned);
        Ok(scanned)
    }
}

impl<'a> Reader<'a> {
    fn open(catalog: &'a Catalog, db: &'a DB, ranges: Ranges) -> Result<Self, IndexError> {
        let mut iterator = db.raw_iterator_cf_opt(family_of(db, BLOCKS)?, one_pass());
        iterator.seek_to_first();
        Ok(Self { catalog, iterator, ranges, scanned: Scanned::default() })
    }

    /// Reads these ranges, until all have ended or nobody takes their rows.
    fn read<T>(
        mut self,
        ranges: impl Iterator<Item = u16>,
        pick: impl Fn(BlockKey, Row) -> T,
        batches: &SyncSender<Batch<T>>,
    ) -> Result<Scanned, IndexError> {
        for range in ranges {
            // Where rows are few, one range's search for its end has passed over others.
            if self.range().is_some_and(|at| at < range) {
                let start = self.ranges.start(range);
                // Without zeroes at its end, which are after a key that is too short to have them.
                let len = start.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                self.iterator.seek(&start[..len]);
            }
            loop {
                let batch = self.read_batch(range, &pick)?;
                let last = batch.last;
                if batches.send(batch).is_err() {
                    return Ok(self.scanned);
                }
                if last {
                    break;
                }
            }
        }
        Ok(self.scanned)
    }

    /// The range of the next key; `None` past the last.
    fn range(&self) -> Option<u16> {
        let key = self.iterator.key()?;
        Some(self.ranges.range_of(key))
    }

    fn read_batch<T>(&mut self, range: u16, pick: impl Fn(BlockKey, Row) -> T) -> Result<Batch<T>, IndexError> {
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        let mut last = false;
        while rows.len() + bad.len() < SCAN_BATCH_ROWS {
            last = self.range() != Some(range);
            let Some((key, bytes)) = self.iterator.item().filter(|_| !last) else { break };
            match (<[u8; 32]>::try_from(key), Row::decode(bytes)) {
                (Ok(key), Ok(row)) => {
                    if rows.is_empty() {
                        rows.reserve_exact(SCAN_BATCH_ROWS);
                    }
                    rows.push(pick(BlockKey::from_bytes(key), row));
                }
                _ => bad.push(key.into()),
            }
            self.iterator.next();
        }
        self.iterator.status()?;
        self.scanned.rows += rows.len() as u64;
        self.scanned.undecodable += bad.len() as u64;
        self.catalog.delete_raw(BLOCKS, &mut bad)?;
        Ok(Batch { rows, last })
    }
}

/// Takes one range after another, until all have ended or a thread has given up.
fn take_in_order<T>(ranges: Ranges, batches: &[Receiver<Batch<T>>], mut visit: impl FnMut(Vec<T>)) {
    for range in 0..usize::from(ranges.count()) {
        loop {
            let Ok(batch) = batches[range % batches.len()].recv() else { return };
            if !batch.rows.is_empty() {
                visit(batch.rows);
            }
            if batch.last {
                break;
            }
        }
    }
}

fn join(readers: Vec<ScopedJoinHandle<'_, Result<Scanned, IndexError>>>) -> Result<Scanned, IndexError> {
    let mut scanned = Scanned::default();
    for reader in readers {
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        scanned.rows += read.rows;
        scanned.undecodable += read.undecodable;
    }
    Ok(scanned)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
