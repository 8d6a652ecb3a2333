//! A drive through `pread` and `pwrite` on a few threads: the body that works everywhere.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::device::{Device, Io};
use super::pool::Pool;
use super::slot_file::{OpenError, SlotFile};
use crate::vocab::limits::LOCK_WAIT;

/// One slot file. Dropping it finishes what is queued.
pub struct PosixDevice {
    pool: Pool,
    size: u64,
    direct: bool,
}

impl PosixDevice {
    /// Opens or creates the slot file at exactly `len` bytes, preallocated and locked, and starts `threads` threads.
    ///
    /// # Errors
    /// When it does not fit the file system, another process has it, or the file system refuses something.
    pub fn open(path: &Path, len: u64, threads: usize) -> Result<Self, OpenError> {
        let SlotFile { file, direct } = SlotFile::open(path, len, LOCK_WAIT)?;
        let work = move |io: &mut Io| {
            io.check(len)?;
            io.transfer(|bytes, at| file.read_at(bytes, at), |bytes, at| file.write_at(bytes, at))
        };
        let pool = Pool::start("kvtier-nvme", threads, Box::new(work)).map_err(|source| OpenError::Io {
            path: path.into(),
            doing: "start threads",
            source,
        })?;
        Ok(Self { pool, size: len, direct })
    }
}

impl Device for PosixDevice {
    fn submit(&self, io: Io) -> Result<(), Io> {
        self.pool.submit(io)
    }

    fn kind(&self) -> &'static str {
        if self.direct { "pread, O_DIRECT" } else { "pread, buffered" }
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn stop(&self) {
        self.pool.stop();
    }
}
