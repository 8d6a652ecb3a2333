//! A drive through `pread` and `pwrite` on a few threads: the body that works everywhere.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::device::{Device, Gauges, Io};
use super::pool::Pool;
use super::pread::{pread, pwrite};
use super::slot_file::{OpenError, SlotFile};
use crate::vocab::limits::{DEVICE_INFLIGHT_BYTES, LOCK_WAIT};
use crate::watch::Watch;

/// One slot file. Dropping it finishes what is queued.
pub struct PosixDevice {
    pool: Pool,
    size: u64,
    direct: bool,
    drawback: Option<String>,
}

impl PosixDevice {
    /// Opens or creates the slot file at exactly `len` bytes, preallocated and locked, and starts `threads` threads.
    ///
    /// # Errors
    /// When it does not fit the file system, another process has it, or the file system refuses something.
    pub fn open(path: &Path, len: u64, threads: usize) -> Result<Self, OpenError> {
        let file = SlotFile::open(path, len, LOCK_WAIT)?;
        let fail = |source| OpenError::Io { path: path.into(), doing: "start threads", source };
        Self::start(&file, threads, DEVICE_INFLIGHT_BYTES, None, &Watch::default()).map_err(fail)
    }

    /// Works on `file`; `because` says why it is this body and not a faster one.
    pub(super) fn start(
        file: &SlotFile,
        threads: usize,
        bytes_max: u64,
        because: Option<String>,
        watch: &Watch,
    ) -> io::Result<Self> {
        let SlotFile { len, direct, .. } = *file;
        let known: Vec<_> = because.into_iter().chain(file.buffered_because.clone()).collect();
        let file = Arc::clone(&file.file);
        let work = move |io: &mut Io| {
            io.check(len)?;
            io.transfer(|to, at| pread(&file, to, at), |from, at| pwrite(&file, from, at))
        };
        let pool = Pool::start("kvtier-nvme", threads, bytes_max, Box::new(work), watch)?;
        Ok(Self { pool, size: len, direct, drawback: (!known.is_empty()).then(|| known.join("; ")) })
    }
}

impl Device for PosixDevice {
    fn submit(&self, io: Io) -> Result<(), Io> {
        self.pool.submit(io)
    }

    fn kind(&self) -> &'static str {
        if self.direct { "pread, O_DIRECT" } else { "pread, buffered" }
    }

    fn drawback(&self) -> Option<String> {
        self.drawback.clone()
    }

    fn gauges(&self) -> Gauges {
        self.pool.gauges()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn stop(&self) {
        self.pool.stop();
    }
}
