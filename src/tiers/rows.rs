//! Who writes the catalog's rows: one thread for all that moves blocks, in the order in which they were asked for, so that a
//! row that is put is never overtaken by a deletion of the same block that was asked for before, nor the other way round.
//!
//! Whoever asks waits for nothing: what waits here is bounded by what is under way, a row for each write to a drive, a deletion
//! for each slot that is being freed, and for each promise what was last said of it. A catalog that is slow makes the
//! list longer and its writes larger, and nobody else wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::index::{Catalog, IndexError, Row, RowChange};
use crate::vocab::limits::{MEND_EVERY, ROWS_AT_ONCE};
use crate::vocab::{BlockKey, Promise, SlotId};
use crate::watch::{Part, Watch};

/// Who hears what becomes of rows. Called on the thread that writes them.
pub trait RowsWatch: Send + Sync {
    /// The rows that named these slots are gone.
    fn erased(&self, slots: &[SlotId]);
    /// A row could not be deleted. It is tried again; its slot must not be used meanwhile.
    fn undeleted(&self, key: &BlockKey, slot: SlotId, error: &IndexError);
    /// The catalog still can't be written.
    fn unmended(&self, error: &IndexError);
}

/// What to do once a row is written, or could not be.
type Done = Box<dyn FnOnce(Result<(), IndexError>) + Send>;

enum Change {
    Put(BlockKey, Box<Row>, Done),
    Delete(BlockKey, SlotId),
    /// All before it is done.
    Passed(Box<dyn FnOnce(bool) + Send>),
}

#[derive(Default)]
struct Queue {
    changes: Vec<Change>,
    /// What was last said of each promise.
    promises: BTreeMap<BlockKey, Option<Promise>>,
    /// Who waits until promises are on the disk.
    synced: Vec<Done>,
    /// There is a thread that writes; without one whoever asks does.
    runs: bool,
    closed: bool,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.promises.is_empty()
    }
}

/// The rows' writer.
pub struct Rows {
    catalog: Arc<Catalog>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Rows that could not be deleted, and the slots that they name: at most those of the drives.
    undeleted: Mutex<HashMap<BlockKey, SlotId>>,
    /// Whether there are any.
    troubled: AtomicBool,
    watch: OnceLock<Box<dyn RowsWatch>>,
}

impl Rows {
    pub(super) fn new(catalog: Arc<Catalog>) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            queue: Mutex::default(),
            wake: Condvar::new(),
            undeleted: Mutex::default(),
            troubled: AtomicBool::new(false),
            watch: OnceLock::new(),
        })
    }

    /// Starts the thread. Before that, whoever asks for a change makes it.
    pub(super) fn start(self: &Arc<Self>, told: Box<dyn RowsWatch>, watch: &Watch) -> std::io::Result<JoinHandle<()>> {
        drop(self.watch.set(told));
        let rows = Arc::clone(self);
        // Without it nothing would come to the drives any more, and no slot of theirs would come free.
        let part = watch.vital("rows");
        let thread = std::thread::Builder::new().name(part.name()).spawn(move || part.run(|| rows.run(&part)))?;
        self.lock().runs = true;
        Ok(thread)
    }

    /// Has the thread end once it has written what it was asked for.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        (queue.closed, queue.runs) = (true, false);
        self.wake.notify_all();
    }

    /// Puts the row of a block whose payload is written.
    pub(super) fn put(&self, key: BlockKey, row: Row, done: impl FnOnce(Result<(), IndexError>) + Send + 'static) {
        self.ask(Change::Put(key, Box::new(row), Box::new(done)));
    }

    /// Deletes the row of a block that named this slot: the watch is told when it is gone.
    pub fn delete(&self, key: BlockKey, slot: SlotId) {
        self.ask(Change::Delete(key, slot));
    }

    /// Notes, by and by, what is promised of a block. Not written, it is shorter after a restart, or longer by what nobody
    /// was told of.
    pub fn promise(&self, key: BlockKey, promise: Option<Promise>) {
        self.ask_with(|queue| {
            queue.promises.insert(key, promise);
        });
    }

    /// Notes what is promised of a block; `done` once that is on the disk.
    pub fn promise_synced(
        &self,
        key: BlockKey,
        promise: Promise,
        done: impl FnOnce(Result<(), IndexError>) + Send + 'static,
    ) {
        self.ask_with(|queue| {
            queue.promises.insert(key, Some(promise));
            queue.synced.push(Box::new(done));
        });
    }

    /// `done` once all is done that was asked for before; with whether every row is deleted that was to be.
    pub fn passed(&self, done: impl FnOnce(bool) + Send + 'static) {
        self.ask(Change::Passed(Box::new(done)));
    }

    /// Whether the catalog can't be written now, or rows are left that should be gone.
    #[must_use]
    pub fn is_troubled(&self) -> bool {
        self.catalog.is_failing() || self.troubled.load(Ordering::Relaxed)
    }

    /// Has the thread look whether the catalog is to be opened again.
    pub fn look(&self) {
        self.wake.notify_all();
    }

    fn ask(&self, change: Change) {
        self.ask_with(|queue| queue.changes.push(change));
    }

    fn ask_with(&self, add: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        let was_empty = queue.is_empty();
        add(&mut queue);
        if queue.runs {
            if was_empty {
                self.wake.notify_all();
            }
        } else {
            let asked = take(&mut queue);
            drop(queue);
            self.write(asked);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, part: &Part) {
        let mut tried = None::<Instant>;
        loop {
            part.beat();
            let mut queue = self.lock();
            if queue.is_empty() && !queue.closed {
                queue = if self.is_troubled() {
                    let waited = self.wake.wait_timeout(queue, MEND_EVERY);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                } else {
                    self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
                };
            }
            if queue.is_empty() && queue.closed {
                return;
            }
            let asked = take(&mut queue);
            drop(queue);
            self.write(asked);
            // Soon after it began, and then once in a while.
            if self.is_troubled() && tried.is_none_or(|tried| tried.elapsed() >= MEND_EVERY) {
                tried = Some(Instant::now());
                self.mend();
            }
        }
    }

    fn write(&self, asked: Queue) {
        let Queue { mut changes, promises, synced, .. } = asked;
        if !(promises.is_empty() && synced.is_empty()) {
            let noted = promises.iter().map(|(key, promise)| RowChange::Promise(key, promise.as_ref()));
            let written = self.catalog.change(noted, !synced.is_empty());
            synced.into_iter().for_each(|done| done(written.clone()));
        }
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(ROWS_AT_ONCE));
            self.write_some(std::mem::replace(&mut changes, rest));
        }
    }

    /// Makes some changes with one write.
    fn write_some(&self, changes: Vec<Change>) {
        let rows = changes.iter().filter_map(|change| match change {
            Change::Put(key, row, _) => Some(RowChange::Put(key, row)),
            Change::Delete(key, _) => Some(RowChange::Delete(key)),
            Change::Passed(_) => None,
        });
        let written = if rows.clone().next().is_some() { self.catalog.change(rows, false) } else { Ok(()) };
        let mut erased = Vec::new();
        // Told in their order: whoever waits for what is before it finds it told.
        for change in changes {
            match (change, &written) {
                (Change::Put(key, _, done), Ok(())) => {
                    // A row of old that could not be deleted is overwritten.
                    erased.extend(self.with_undeleted(|undeleted| undeleted.remove(&key)));
                    done(Ok(()));
                }
                (Change::Put(_, _, done), Err(error)) => done(Err(error.clone())),
                (Change::Delete(key, slot), Ok(())) => {
                    self.with_undeleted(|undeleted| undeleted.remove(&key));
                    erased.push(slot);
                }
                (Change::Delete(key, slot), Err(error)) => {
                    self.with_undeleted(|undeleted| undeleted.insert(key, slot));
                    self.watch.get().into_iter().for_each(|watch| watch.undeleted(&key, slot, error));
                }
                (Change::Passed(done), _) => {
                    self.tell_erased(&mut erased);
                    done(!self.is_troubled());
                }
            }
        }
        self.tell_erased(&mut erased);
    }

    fn tell_erased(&self, erased: &mut Vec<SlotId>) {
        if !erased.is_empty() {
            self.watch.get().into_iter().for_each(|watch| watch.erased(erased));
            erased.clear();
        }
    }

    fn with_undeleted<T>(&self, work: impl FnOnce(&mut HashMap<BlockKey, SlotId>) -> T) -> T {
        let mut undeleted = self.undeleted.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut undeleted);
        self.troubled.store(!undeleted.is_empty(), Ordering::Relaxed);
        done
    }

    /// Opens the catalog again where it has failed, and deletes what could not be deleted.
    fn mend(&self) {
        if self.catalog.is_failing()
            && let Err(error) = self.catalog.mend()
        {
            self.watch.get().into_iter().for_each(|watch| watch.unmended(&error));
            return;
        }
        loop {
            let some: Vec<(BlockKey, SlotId)> = self.with_undeleted(|undeleted| {
                undeleted.iter().take(ROWS_AT_ONCE).map(|(key, slot)| (*key, *slot)).collect()
            });
            // Not deleted, they are tried again.
            if some.is_empty()
                || self.catalog.change(some.iter().map(|(key, _)| RowChange::Delete(key)), false).is_err()
            {
                return;
            }
            self.with_undeleted(|undeleted| {
                for (key, _) in &some {
                    undeleted.remove(key);
                }
            });
            self.tell_erased(&mut some.iter().map(|(_, slot)| *slot).collect());
        }
    }
}

/// What was asked for.
fn take(queue: &mut Queue) -> Queue {
    Queue {
        changes: std::mem::take(&mut queue.changes),
        promises: std::mem::take(&mut queue.promises),
        synced: std::mem::take(&mut queue.synced),
        ..Queue::default()
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
