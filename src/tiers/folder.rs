//! The data folder: one process at a time, a format that is checked before anything is touched, and a place for each
//! database and each drive.
//!
//! `FORMAT` what it is · `LOCK` who has it · `catalog/`, `ledger/` databases · `slots/0.kv` the drive.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;

use super::format::{FORMAT, Format, StoreId};
use crate::media::files::{free_bytes, lock_file};
use crate::media::{Device, OpenError, PosixDevice};
use crate::vocab::limits::{DEVICE_THREADS, LOCK_WAIT};
use crate::vocab::{ByteCount, Clock, TierShape};

const LOCK: &str = "LOCK";

/// Why a data folder can't be used. Nothing that was in it is changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("data folder {dir} is in use{}", holder.map_or(String::new(), |pid| format!(" by process {pid}")))]
    InUse {
        /// Which folder.
        dir: PathBuf,
        /// Who, where it left its number.
        holder: Option<u32>,
    },
    /// A newer kvtier wrote it.
    #[error(
        "data folder {dir} has format {found}, and this kvtier reads up to {known}: use a newer one, or another folder"
    )]
    NewerFormat {
        /// Which folder.
        dir: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
    /// Its `FORMAT` can't be read.
    #[error("{path} is no kvtier format file: {why}")]
    BadFormat {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is something else in it.
    #[error("{dir} is no kvtier data folder: it has no FORMAT file, and is not empty")]
    NotAStore {
        /// Which folder.
        dir: PathBuf,
    },
    /// There is no store in it.
    #[error("{dir} is no kvtier data folder: it has no FORMAT file")]
    NoStore {
        /// Which folder.
        dir: PathBuf,
    },
    /// The drive is too small.
    #[error("nvme: {} does not fit: {} free on the file system of {dir}", ByteSize(asked.0), ByteSize(free.0))]
    TooLarge {
        /// The size asked.
        asked: ByteCount,
        /// The most that would fit.
        free: ByteCount,
        /// Which folder.
        dir: PathBuf,
    },
    /// The store was carved for a much smaller size.
    #[error(
        "nvme: {} is more than data folder {dir} can address, since it was begun much smaller: at most {}, or begin a new folder",
        ByteSize(asked.0), ByteSize(most.0)
    )]
    Unaddressable {
        /// The size asked.
        asked: ByteCount,
        /// The most that its extents allow.
        most: ByteCount,
        /// Which folder.
        dir: PathBuf,
    },
    /// The file system refused something.
    #[error("{path}: {doing}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// A data folder that belongs to this process until dropped.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    store: StoreId,
    shape: TierShape,
    /// Held for its lock.
    _lock: File,
}

impl Folder {
    /// Opens the folder, or makes an empty one a store, with a drive of `nvme` bytes (0 for none).
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn open(dir: &Path, nvme: ByteCount, clock: &dyn Clock) -> Result<Self, FolderError> {
        Self::open_within(dir, nvme, clock, LOCK_WAIT)
    }

    fn open_within(dir: &Path, nvme: ByteCount, clock: &dyn Clock, wait: Duration) -> Result<Self, FolderError> {
        if Format::read(dir)?.is_none() {
            refuse_strangers(dir)?;
            std::fs::create_dir_all(dir).map_err(fail(dir, "create"))?;
        }
        let mut file = take_lock(dir, true, wait)?;
        // Again: another process may have made it a store meanwhile.
        let found = Format::read(dir)?;
        let mut format = found.clone().unwrap_or_else(|| Format::new(clock.now()));
        if format.extent_bytes == 0 && nvme > ByteCount::ZERO {
            format.extent_bytes = TierShape::carve(nvme).extent_bytes();
        }
        let shape = checked_shape(dir, nvme, format.extent_bytes)?;
        if found.as_ref() != Some(&format) {
            format.write(dir)?;
        }
        for name in ["ledger", "slots"] {
            std::fs::create_dir_all(dir.join(name)).map_err(fail(&dir.join(name), "create"))?;
        }
        leave_pid(&mut file).map_err(fail(&dir.join(LOCK), "write"))?;
        Ok(Self { dir: dir.into(), store: format.store, shape, _lock: file })
    }

    /// Opens a store that no daemon runs on, for a look at it. Creates nothing, changes nothing.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn inspect(dir: &Path) -> Result<Self, FolderError> {
        let no_store = || FolderError::NoStore { dir: dir.into() };
        Format::read(dir)?.ok_or_else(no_store)?;
        let file = take_lock(dir, false, Duration::ZERO)?;
        let format = Format::read(dir)?.ok_or_else(no_store)?;
        let total = slots_file(dir).metadata().map_or(0, |metadata| metadata.len());
        let shape = TierShape::with_extent(total, format.extent_bytes);
        Ok(Self { dir: dir.into(), store: format.store, shape, _lock: file })
    }

    /// Which store it is.
    #[must_use]
    pub fn store(&self) -> &StoreId {
        &self.store
    }

    /// What the drive is carved into; of no bytes where there is none.
    #[must_use]
    pub fn shape(&self) -> TierShape {
        self.shape
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the catalog database is.
    #[must_use]
    pub fn catalog(&self) -> PathBuf {
        self.dir.join("catalog")
    }

    /// Where the ledger database is.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    /// Opens the drive's slot file, preallocating what it lacks; `None` where there is no drive.
    ///
    /// # Errors
    /// When it does not fit after all, I/O of a killed daemon does not end, or the file system refuses something.
    pub fn open_device(&self) -> Result<Option<Arc<dyn Device>>, FolderError> {
        let size = self.shape.total();
        if size == ByteCount::ZERO {
            return Ok(None);
        }
        match PosixDevice::open(&slots_file(&self.dir), size.0, DEVICE_THREADS) {
            Ok(device) => Ok(Some(Arc::new(device))),
            Err(OpenError::NoSpace { asked, free, .. }) => {
                Err(FolderError::TooLarge { asked, free, dir: self.dir.clone() })
            }
            Err(OpenError::InUse { .. }) => Err(FolderError::InUse { dir: self.dir.clone(), holder: None }),
            Err(OpenError::Io { path, doing, source }) => Err(FolderError::Io { path, doing, source }),
        }
    }
}

fn fail(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io { path: path.into(), doing, source }
}

fn slots_file(dir: &Path) -> PathBuf {
    dir.join("slots").join("0.kv")
}

/// A folder without a format becomes a store only where there is nothing that could be somebody else's.
fn refuse_strangers(dir: &Path) -> Result<(), FolderError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(dir, "list")(error)),
    };
    let leftover = format!("{FORMAT}.tmp");
    for entry in entries {
        let name = entry.map_err(fail(dir, "list"))?.file_name();
        if name != LOCK && name != "lost+found" && *name != *leftover {
            return Err(FolderError::NotAStore { dir: dir.into() });
        }
    }
    Ok(())
}

fn take_lock(dir: &Path, create: bool, wait: Duration) -> Result<File, FolderError> {
    let path = dir.join(LOCK);
    let options = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(&path);
    let mut file = options.map_err(fail(&path, "open"))?;
    let mut held = lock_file(&file, Duration::ZERO).map_err(fail(&path, "lock"))?;
    if !held && wait > Duration::ZERO {
        tracing::info!(dir = %dir.display(), "the data folder is in use: waiting for it");
        held = lock_file(&file, wait).map_err(fail(&path, "lock"))?;
    }
    if held {
        return Ok(file);
    }
    let mut text = String::new();
    let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    Err(FolderError::InUse { dir: dir.into(), holder })
}

/// For whoever finds the folder in use.
fn leave_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn checked_shape(dir: &Path, nvme: ByteCount, extent_bytes: u64) -> Result<TierShape, FolderError> {
    let shape = TierShape::with_extent(nvme.0, extent_bytes);
    if shape.total().0 / extent_bytes.max(1) < nvme.0 / extent_bytes.max(1) {
        return Err(FolderError::Unaddressable { asked: nvme, most: shape.total(), dir: dir.into() });
    }
    let allocated = slots_file(dir).metadata().map_or(0, |metadata| metadata.blocks() * 512);
    let free = free_bytes(dir).map_err(fail(dir, "statvfs"))?.saturating_add(allocated);
    if shape.total().0 > free {
        return Err(FolderError::TooLarge { asked: nvme, free: ByteCount(free), dir: dir.into() });
    }
    Ok(shape)
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
