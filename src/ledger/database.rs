//! The open database. After a write that failed it takes no other until it was opened again: whether the failed rows are on
//! disk is known only then, and RocksDB refuses writes for good where its log could not be written. Until then it is read as
//! before, where it can be.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rocksdb::{BlockBasedOptions, DB, DBRecoveryMode, ErrorKind, Options, WriteBatch, WriteOptions};
use rustix::fs::FallocateFlags;

use super::LedgerError;
#[cfg(test)]
use super::faults::Faults;
use crate::vocab::limits::{ALIGNMENT, LEDGER_BUFFER_BYTES, LEDGER_READERS_WAIT, LEDGER_ROOM_BYTES};

/// Written whenever it was opened again.
const HEALED_KEY: &[u8] = b"mhealed";
/// The file by which room is looked for.
const PROBE: &str = "room.probe";

/// A database that can be closed and opened under its users.
pub(super) struct Database {
    path: PathBuf,
    /// Nothing while it is closed. Who reads holds it for as long as one answer takes.
    db: RwLock<Option<Arc<DB>>>,
    /// Whether writes are refused unwritten.
    failing: AtomicBool,
    trouble: Mutex<Option<Trouble>>,
    #[cfg(test)]
    pub(super) options: Options,
    #[cfg(test)]
    pub(super) faults: Faults,
}

/// Writes have failed, and nobody has made good for it yet.
struct Trouble {
    /// How the last one did, or what was in the way of opening it again.
    why: String,
    since: Instant,
    /// What failed writes may have changed, as it was before.
    before: Before,
}

/// Rows as they were: the value of each key, or that there was none.
pub(super) type Before = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl Database {
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, LedgerError> {
        let options = options(create);
        // Left by a process that was killed while it looked for room.
        fs::remove_file(path.join(PROBE)).ok();
        let db = DB::open(&options, path).map_err(|error| open_error(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            db: RwLock::new(Some(Arc::new(db))),
            failing: AtomicBool::new(false),
            trouble: Mutex::default(),
            #[cfg(test)]
            options,
            #[cfg(test)]
            faults: Faults::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The database, to be held for one answer: it is not opened again before it is let go.
    pub(super) fn hold(&self) -> Result<Arc<DB>, LedgerError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner).clone();
        db.ok_or_else(|| LedgerError::Failing(self.trouble().unwrap_or_else(|| "it is being opened again".into())))
    }

    /// Writes all rows or none, and returns when they are on disk. Where that fails, rows that are to be as they were
    /// `before` are, before anything else is written.
    pub(super) fn write(&self, rows: WriteBatch, before: Before) -> Result<(), LedgerError> {
        if self.failing.load(Ordering::Acquire) {
            return Err(LedgerError::Failing(self.trouble().unwrap_or_default()));
        }
        self.write_to(&*self.hold()?, rows).inspect_err(|error| self.fail(error, before))
    }

    fn write_to(&self, db: &DB, rows: WriteBatch) -> Result<(), LedgerError> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let write = || db.write_opt(rows, &synced).map_err(|error| database("write", &error));
        #[cfg(test)]
        let write = || self.faults.write(write);
        write()
    }

    /// From here on nothing is written.
    fn fail(&self, error: &LedgerError, before: Before) {
        let mut trouble = self.lock();
        self.failing.store(true, Ordering::Release);
        let known = trouble.is_some();
        let trouble =
            trouble.get_or_insert_with(|| Trouble { why: String::new(), since: Instant::now(), before: Vec::new() });
        trouble.why = error.to_string();
        trouble.before.extend(before);
        if !known {
            tracing::error!(
                %error,
                "the ledger can't be written: settles, corrections, quotas and acknowledgements are refused until it can, and \
                 it is tried again every few seconds; caching goes on"
            );
        }
    }

    /// Why it takes no writes.
    pub(super) fn trouble(&self) -> Option<String> {
        self.lock().as_ref().map(|trouble| trouble.why.clone())
    }

    /// Opens it again, and puts back what must be. It takes writes then, but is in trouble until [`healed`](Self::healed).
    pub(super) fn reopen(&self) -> Result<(), LedgerError> {
        let tried = self.try_reopen();
        if let (Err(error), Some(trouble)) = (&tried, &mut *self.lock()) {
            trouble.why = error.to_string();
        }
        tried
    }

    fn try_reopen(&self) -> Result<(), LedgerError> {
        // While the old one is still there to be read.
        find_room(&self.path).map_err(|error| folder_error(&self.path, &error))?;
        self.close()?;
        let opened = DB::open(&options(false), &self.path).map_err(|error| open_error(&self.path, &error));
        #[cfg(test)]
        let opened = self.faults.open(opened);
        let opened = match opened {
            Ok(db) => Ok(db),
            // To be read, if nothing else. One that is damaged, or another's, is not touched.
            Err(error @ LedgerError::Refused { .. }) => {
                if let Ok(db) = DB::open_for_read_only(&options(false), &self.path, false) {
                    self.put(db);
                }
                Err(error)
            }
            Err(error) => Err(error),
        };
        let db = opened?;
        // Also where nothing is to be put back: what can't be written is not healed.
        let mut rows = WriteBatch::default();
        rows.put(HEALED_KEY, []);
        // Nobody adds to it: writes that were under way ended before it was closed.
        let before = self.lock().as_ref().map(|trouble| trouble.before.clone()).unwrap_or_default();
        for (key, value) in before.into_iter().rev() {
            match value {
                Some(value) => rows.put(key, value),
                None => rows.delete(key),
            }
        }
        let written = self.write_to(&db, rows);
        self.put(db);
        written?;
        if let Some(trouble) = &mut *self.lock() {
            trouble.before.clear();
        }
        self.failing.store(false, Ordering::Release);
        Ok(())
    }

    /// The trouble is over, unless a write has failed since it was opened: for how long it was.
    pub(super) fn healed(&self) -> Option<Duration> {
        let mut trouble = self.lock();
        if self.failing.load(Ordering::Acquire) {
            return None;
        }
        Some(trouble.take()?.since.elapsed())
    }

    /// Waits for those who read it, but not for long.
    fn close(&self) -> Result<(), LedgerError> {
        let taken = self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut db) = taken else { return Ok(()) };
        // A compaction would hold it for long, and its output has no room.
        db.cancel_all_background_work(false);
        let until = Instant::now() + LEDGER_READERS_WAIT;
        while let Err(held) = Arc::try_unwrap(db) {
            db = held;
            if Instant::now() > until {
                *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(db);
                return Err(LedgerError::Failing("it is still being read, and can't be opened again meanwhile".into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn put(&self, db: DB) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(db));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is room for what opening writes (a table of what is in the log, which takes a little more than half as much,
/// and a log), and whether it reaches the drive. Where it is not quite enough, the database does not open, and is read all the same.
fn find_room(path: &Path) -> io::Result<()> {
    let mut bytes = LEDGER_ROOM_BYTES;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if is_log(&entry.path()) {
            bytes += entry.metadata().map_or(0, |file| file.len() / 2);
        }
    }
    let path = path.join(PROBE);
    let look = || {
        let probe = File::create(&path)?;
        match rustix::fs::fallocate(&probe, FallocateFlags::empty(), 0, bytes) {
            // A file system that can't reserve; what is written says enough.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        probe.write_all_at(&[0; ALIGNMENT as usize], 0)?;
        probe.sync_all()
    };
    let found = look();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => found.and(Err(error)),
        _ => found,
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log")
}

/// Whether there is a log: an open database always has one, and opens without a complaint when it is gone.
pub(super) fn has_log(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if is_log(&entry?.path()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    // A torn last write is what a crash leaves, and was never acknowledged. Anything else that is wrong in the log is
    // lost usage, and must be an error: the default would silently stop there and forget what follows.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A log file that is gone is an error, too; the last one is not covered by this, see `has_log`.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_size(LEDGER_BUFFER_BYTES);
    options.set_max_background_jobs(2);
    options.set_stats_dump_period_sec(0);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    #[cfg(test)]
    options.enable_statistics();
    let mut tables = BlockBasedOptions::default();
    // Nearly every settle asks for an identity that is not there.
    tables.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&tables);
    options
}

pub(super) fn unreadable(path: &Path, detail: &str) -> LedgerError {
    LedgerError::Unreadable { path: path.to_owned(), detail: detail.to_owned() }
}

pub(super) fn folder_error(path: &Path, error: &io::Error) -> LedgerError {
    LedgerError::Folder { path: path.to_owned(), detail: error.to_string() }
}

fn open_error(path: &Path, error: &rocksdb::Error) -> LedgerError {
    let (path, detail) = (path.to_owned(), error.to_string());
    if error.kind() != ErrorKind::IOError || detail.contains("No such file") {
        // A file that is gone is damage, whatever RocksDB calls it.
        return LedgerError::Unreadable { path, detail };
    }
    let locked = detail.contains("lock hold by") || detail.contains("lock file");
    if locked { LedgerError::InUse { path, detail } } else { LedgerError::Refused { path, detail } }
}

pub(super) fn database(doing: &'static str, error: &rocksdb::Error) -> LedgerError {
    LedgerError::Database { doing, detail: error.to_string() }
}
