//! The open database. After a write that failed it takes no other until it was opened again: RocksDB refuses them for good
//! then, also where the disk has recovered, and only its log says what of the failed one is there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use rocksdb::{ColumnFamily, DB, WriteBatch, WriteOptions};

use super::store::{self, IndexError};

/// A database that can be closed and opened under its users.
pub(super) struct Database {
    path: PathBuf,
    /// `None` after it could not be opened again.
    db: RwLock<Option<DB>>,
    /// Whether there is any trouble.
    failing: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    /// What every write takes longer, in microseconds.
    pause_us: AtomicU64,
    #[cfg(test)]
    lying: AtomicBool,
}

/// A write has failed.
struct Trouble {
    /// How the first one did.
    why: String,
    /// Rows that may be there or not: as many as were being put when the trouble began.
    unsure: Vec<(&'static str, Box<[u8]>)>,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, IndexError> {
        Ok(Self::of(path, store::open(path, true)?))
    }

    pub(super) fn open_read_only(path: &Path) -> Result<Self, IndexError> {
        Ok(Self::of(path, store::open_read_only(path)?))
    }

    fn of(path: &Path, db: DB) -> Self {
        Self {
            path: path.into(),
            db: RwLock::new(Some(db)),
            failing: AtomicBool::new(false),
            trouble: Mutex::default(),
            pause_us: AtomicU64::new(0),
            #[cfg(test)]
            lying: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Does something with the database; nothing while it is being opened again.
    pub(super) fn with<T>(&self, work: impl FnOnce(&DB) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let db = match self.db.try_read() {
            Ok(db) => db,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(IndexError::Failing("it is being opened again".into())),
        };
        match &*db {
            Some(db) => work(db),
            None => Err(self.failing().unwrap_or_else(|| IndexError::Failing("it is closed".into()))),
        }
    }

    /// Writes what `fill` puts into a batch, all of it or nothing.
    pub(super) fn write(
        &self,
        options: &WriteOptions,
        fill: impl FnOnce(&DB, &mut WriteBatch) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        self.write_or(options, std::iter::empty(), fill)
    }

    /// Puts one row. Where that fails it may be there all the same, until the database was opened again.
    pub(super) fn put(&self, family: &'static str, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        self.write_or(&WriteOptions::default(), std::iter::once((family, key)), |db, batch| {
            batch.put_cf(family_of(db, family)?, key, value);
            Ok(())
        })
    }

    /// As [`write`](Self::write); where it fails, the `unsure` rows may be there all the same, until the database was opened again.
    pub(super) fn write_or<'a>(
        &self,
        options: &WriteOptions,
        unsure: impl Iterator<Item = (&'static str, &'a [u8])>,
        fill: impl FnOnce(&DB, &mut WriteBatch) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        if self.is_failing()
            && let Some(failing) = self.failing()
        {
            return Err(failing);
        }
        self.with(|db| {
            let mut batch = WriteBatch::default();
            fill(db, &mut batch)?;
            let pause = self.pause_us.load(Ordering::Relaxed);
            if pause > 0 {
                std::thread::sleep(Duration::from_micros(pause));
            }
            let written = db.write_opt(batch, options).map_err(IndexError::from);
            #[cfg(test)]
            let written =
                if self.lying.load(Ordering::Relaxed) { Err(IndexError::Io("a lie".into())) } else { written };
            let Err(error) = written else { return Ok(()) };
            let mut trouble = self.trouble();
            let trouble = trouble.get_or_insert_with(|| Trouble { why: error.to_string(), unsure: Vec::new() });
            trouble.unsure.extend(unsure.map(|(family, key)| (family, key.into())));
            self.failing.store(true, Ordering::Relaxed);
            Err(error)
        })
    }

    /// Has every write from now on take this much longer.
    pub(super) fn slow_down(&self, by: Duration) {
        self.pause_us.store(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether writes are refused because one has failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    fn failing(&self) -> Option<IndexError> {
        self.trouble().as_ref().map(|trouble| IndexError::Failing(trouble.why.clone()))
    }

    /// Opens it again, and takes back what was put in vain. Waits for those who read it.
    pub(super) fn mend(&self) -> Result<(), IndexError> {
        let mut place = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // First: a database is opened once at a time.
        *place = None;
        let db = store::open(&self.path, false)?;
        let mut trouble = self.trouble();
        let mut batch = WriteBatch::default();
        for (family, key) in trouble.iter().flat_map(|trouble| &trouble.unsure) {
            batch.delete_cf(family_of(&db, family)?, key);
        }
        // Also where it is empty: what can't be written now is not mended.
        batch.put_cf(family_of(&db, store::META)?, "mended", []);
        db.write(batch)?;
        (*place, *trouble) = (Some(db), None);
        self.failing.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Database {
    /// Whether every later write is done and said to have failed.
    pub(super) fn lie(&self, lying: bool) {
        self.lying.store(lying, Ordering::Relaxed);
    }
}

pub(super) fn family_of<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily, IndexError> {
    db.cf_handle(name).ok_or_else(|| IndexError::Damaged(format!("it has no {name}")))
}
