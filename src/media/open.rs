//! Opens a drive in the best way that this host allows, and says where that is not the best there is.

use std::path::Path;
use std::sync::Arc;

use super::arena::Arena;
use super::device::Device;
use super::posix::PosixDevice;
use super::refusal::Refusal;
use super::slot_file::{OpenError, SlotFile};
use super::uring::UringDevice;
use crate::vocab::limits::{DEVICE_INFLIGHT_BYTES, DEVICE_THREADS, LOCK_WAIT};
use crate::watch::Watch;

/// What carries out a drive's jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceEngine {
    /// io_uring, and where it can't be had, threads.
    #[default]
    Auto,
    /// io_uring, or nothing.
    Uring,
    /// Threads with `pread` and `pwrite`.
    Posix,
}

impl DeviceEngine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Uring, Self::Posix];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "io_uring",
            Self::Posix => "pread",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|engine| engine.name() == name)
    }
}

/// How to open a drive.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// Bytes that the drive works on at once. A single job may be larger, and then goes alone.
    pub inflight_bytes: u64,
    /// What carries out its jobs.
    pub engine: DeviceEngine,
    /// The RAM tier, whose segments are registered where the kernel lets us.
    pub arena: Option<Arc<Arena>>,
    /// Who is told when a thread of the drive ends on its own.
    pub watch: Watch,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self { inflight_bytes: DEVICE_INFLIGHT_BYTES, engine: DeviceEngine::Auto, arena: None, watch: Watch::default() }
    }
}

/// Opens or creates the slot file at exactly `len` bytes, preallocated and locked, and starts what carries out its jobs.
///
/// # Errors
/// When it does not fit the file system, another process has it, the file system refuses something, or io_uring does
/// where nothing else was wanted.
pub fn open(path: &Path, len: u64, options: DeviceOptions) -> Result<Arc<dyn Device>, OpenError> {
    let file = SlotFile::open(path, len, LOCK_WAIT)?;
    open_with(path, &file, options, |file, options| {
        UringDevice::start("kvtier-io", file, options.inflight_bytes, options.arena, &options.watch)
    })
}

fn open_with(
    path: &Path,
    file: &SlotFile,
    options: DeviceOptions,
    uring: impl FnOnce(&SlotFile, DeviceOptions) -> Result<UringDevice, Refusal>,
) -> Result<Arc<dyn Device>, OpenError> {
    let (bytes_max, engine, watch) = (options.inflight_bytes, options.engine, options.watch.clone());
    let because = match engine {
        DeviceEngine::Posix => None,
        DeviceEngine::Auto | DeviceEngine::Uring => match uring(file, options) {
            Ok(device) => return Ok(Arc::new(device)),
            Err(refusal) => Some(refusal.sentence()),
        },
    };
    let fail = |doing, source| OpenError::Io { path: path.into(), doing, source };
    if let Some(why) = &because {
        if engine == DeviceEngine::Uring {
            return Err(OpenError::NoUring { path: path.into(), why: why.clone() });
        }
        tracing::warn!(path = %path.display(), why, "no io_uring: the drive is read and written by {DEVICE_THREADS} threads");
    }
    let device = PosixDevice::start(file, DEVICE_THREADS, bytes_max, because, &watch);
    Ok(Arc::new(device.map_err(|source| fail("start threads", source))?))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::contract_tests::{payload, read, write};
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn open_where_io_uring_is_forbidden(path: &Path, engine: DeviceEngine) -> Result<Arc<dyn Device>, OpenError> {
        let file = SlotFile::open(path, SIZE, LOCK_WAIT)?;
        let options = DeviceOptions { engine, ..DeviceOptions::default() };
        open_with(path, &file, options, |_, _| Err(Refusal::Setup(Errno::NOSYS.into())))
    }

    #[test]
    fn where_io_uring_is_forbidden_threads_do_the_work_and_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.kv");
        let device = open_where_io_uring_is_forbidden(&path, DeviceEngine::Auto).unwrap();
        assert_eq!(device.kind(), "pread, O_DIRECT");
        assert!(device.drawback().unwrap().contains("the kernel has no io_uring"), "{:?}", device.drawback());
        write(&*device, 4096, &payload(9000, 1)).unwrap();
        assert!(read(&*device, 4096, 9000).unwrap() == payload(9000, 1));
    }

    #[test]
    fn where_nothing_but_io_uring_was_wanted_its_refusal_is_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.kv");
        let error = open_where_io_uring_is_forbidden(&path, DeviceEngine::Uring).err().unwrap().to_string();
        assert!(error.contains("0.kv: use io_uring: the kernel has no io_uring"), "{error}");
        // Nothing of it is left: the file is free for somebody else.
        let device = open(&path, SIZE, DeviceOptions { engine: DeviceEngine::Posix, ..DeviceOptions::default() });
        assert_eq!(device.unwrap().drawback(), None);
    }
}
