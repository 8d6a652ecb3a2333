//! Faults that tests put below the database.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rocksdb::DB;

use super::LedgerError;

/// What a test makes fail.
#[derive(Default)]
pub(super) struct Faults {
    writes: AtomicU8,
    opens: AtomicU8,
}

/// How a write fails.
#[derive(Clone, Copy)]
pub(super) enum Write {
    /// It does not.
    Works = 0,
    /// Nothing of it is on disk.
    Lost = 1,
    /// All of it is on disk, and an error is told all the same: a sync that failed after the log was written.
    Kept = 2,
}

/// How opening fails.
#[derive(Clone, Copy)]
pub(super) enum Open {
    Works = 0,
    /// The file system refuses.
    Refused = 1,
    /// What is there is no ledger.
    Damaged = 2,
}

impl Faults {
    pub(super) fn writes(&self, how: Write) {
        self.writes.store(how as u8, Relaxed);
    }

    pub(super) fn opens(&self, how: Open) {
        self.opens.store(how as u8, Relaxed);
    }

    pub(super) fn write(&self, write: impl FnOnce() -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        let told = || Err(LedgerError::Database { doing: "write", detail: "told to fail by a test".into() });
        match self.writes.load(Relaxed) {
            0 => write(),
            1 => told(),
            _ => write().and_then(|()| told()),
        }
    }

    pub(super) fn open(&self, opened: Result<DB, LedgerError>) -> Result<DB, LedgerError> {
        let (path, detail) = ("ledger".into(), "told to fail by a test".into());
        match self.opens.load(Relaxed) {
            0 => opened,
            1 => opened.and_then(|_| Err(LedgerError::Refused { path, detail })),
            _ => opened.and_then(|_| Err(LedgerError::Unreadable { path, detail })),
        }
    }
}
