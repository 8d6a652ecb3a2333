//! One pass over all blocks on several threads: what a start waits for.
//!
//! The keys are hashes, so equal runs of them hold as many rows each. Every thread reads its runs a batch at a time in
//! turn, and the batches are taken in the same turn, so that rows come in the same order whatever the number of threads,
//! and no thread is ahead of the one who takes them by more than a few batches.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use rocksdb::{DB, DBRawIteratorWithThreadMode};

use super::catalog::{Catalog, Scanned};
use super::row::Row;
use super::store::{BLOCKS, IndexError};
use crate::vocab::BlockKey;
use crate::vocab::limits::{SCAN_AHEAD_BATCHES, SCAN_BATCH_ROWS};

/// Runs of keys, by their first four bits.
const RUNS: u8 = 16;

/// Some rows of a run.
struct Batch<T> {
    rows: Vec<T>,
    /// There are no more in it.
    last: bool,
}

/// One run as it is read.
struct Run<'a> {
    iterator: DBRawIteratorWithThreadMode<'a, DB>,
    ended: bool,
}

impl Catalog {
    /// About how many blocks there are.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn estimated_blocks(&self) -> Result<u64, IndexError> {
        Ok(self.db.property_int_value_cf(self.family(BLOCKS)?, "rocksdb.estimate-num-keys")?.unwrap_or(0))
    }

    /// Gives every block to `visit`, as [`scan`](Self::scan) does, but reads on `threads` threads, which also make of each
    /// row what is wanted of it. The order of rows is always the same, and not that of keys.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn scan_on<T: Send>(
        &self,
        threads: usize,
        pick: impl Fn(BlockKey, Row) -> T + Sync,
        visit: impl FnMut(T),
    ) -> Result<Scanned, IndexError> {
        let threads = threads.clamp(1, usize::from(RUNS));
        let scanned = std::thread::scope(|scope| {
            let (mut readers, mut batches) = (Vec::new(), Vec::new());
            for thread in 0..threads {
                let (sender, receiver) = sync_channel(SCAN_AHEAD_BATCHES);
                let (pick, builder) = (&pick, std::thread::Builder::new().name("catalog-scan".into()));
                let read = move || self.read_runs((0..RUNS).skip(thread).step_by(threads), pick, &sender);
                let reader = builder.spawn_scoped(scope, read).map_err(|error| IndexError::Io(error.to_string()))?;
                readers.push(reader);
                batches.push(receiver);
            }
            take_turns(batches, visit);
            join(readers)
        })?;
        self.tell_undecodable(scanned);
        Ok(scanned)
    }

    /// Reads some runs, a batch of each in turn, until all have ended or nobody takes them.
    fn read_runs<T>(
        &self,
        runs: impl Iterator<Item = u8>,
        pick: impl Fn(BlockKey, Row) -> T,
        batches: &SyncSender<Batch<T>>,
    ) -> Result<Scanned, IndexError> {
        let mut runs = runs.map(|run| self.open_run(run)).collect::<Result<Vec<_>, _>>()?;
        let mut scanned = Scanned::default();
        while runs.iter().any(|run| !run.ended) {
            for run in runs.iter_mut().filter(|run| !run.ended) {
                let batch = self.read_batch(run, &pick, &mut scanned)?;
                if batches.send(batch).is_err() {
                    return Ok(scanned);
                }
            }
        }
        Ok(scanned)
    }

    fn open_run(&self, run: u8) -> Result<Run<'_>, IndexError> {
        let mut options = super::catalog::one_pass();
        if run + 1 < RUNS {
            options.set_iterate_upper_bound([(run + 1) << 4]);
        }
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(BLOCKS)?, options);
        // The first run begins before all keys, also those that are none.
        if run == 0 {
            iterator.seek_to_first();
        } else {
            iterator.seek([run << 4]);
        }
        Ok(Run { iterator, ended: false })
    }

    fn read_batch<T>(
        &self,
        run: &mut Run<'_>,
        pick: impl Fn(BlockKey, Row) -> T,
        scanned: &mut Scanned,
    ) -> Result<Batch<T>, IndexError> {
        let (mut rows, mut bad) = (Vec::with_capacity(SCAN_BATCH_ROWS), Vec::new());
        while rows.len() + bad.len() < SCAN_BATCH_ROWS {
            let Some((key, bytes)) = run.iterator.item() else {
                run.iterator.status()?;
                run.ended = true;
                break;
            };
            match (<[u8; 32]>::try_from(key), Row::decode(bytes)) {
                (Ok(key), Ok(row)) => rows.push(pick(BlockKey::from_bytes(key), row)),
                _ => bad.push(key.into()),
            }
            run.iterator.next();
        }
        scanned.rows += rows.len() as u64;
        scanned.undecodable += bad.len() as u64;
        self.delete_raw(BLOCKS, &mut bad)?;
        Ok(Batch { rows, last: run.ended })
    }
}

/// Takes a batch of each run in turn, until all have ended or a thread has given up.
fn take_turns<T>(batches: Vec<Receiver<Batch<T>>>, mut visit: impl FnMut(T)) {
    let mut ended = [false; RUNS as usize];
    while ended.iter().any(|ended| !ended) {
        for (run, ended) in ended.iter_mut().enumerate().filter(|(_, ended)| !**ended) {
            let Ok(batch) = batches[run % batches.len()].recv() else { return };
            batch.rows.into_iter().for_each(&mut visit);
            *ended = batch.last;
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
