//! The data folder: one process at a time, a format that is checked before anything is touched, and a place for each
//! database and each drive.
//!
//! `FORMAT` what it is · `LOCK` who has it · `catalog/`, `ledger/` databases · `slots/N.kv` the drive in it; other drives
//! are where [`site`](super::site) says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::begun::Begun;
use super::folder_error::{FolderError, fail};
use super::format::{FORMAT, Format, StoreId, VERSION};
use super::io::IoOptions;
use super::site::{self, DrivePlace, DriveSpec, Site};
use crate::index::{Catalog, IndexError};
use crate::media::files::lock_file;
use crate::media::{self, Arena, Device, DeviceOptions, OpenError};
use crate::vocab::limits::LOCK_WAIT;
use crate::vocab::{BlockKey, Clock, TierShape};
use crate::watch::Watch;

const LOCK: &str = "LOCK";
/// Rows that are forgotten at a time.
const FORGET_BATCH: usize = 1_024;

/// Drives by number; `None` for one that is missing.
pub type Devices = Vec<Option<Arc<dyn Device>>>;

/// A data folder that belongs to this process until dropped.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// As it was found, and as it is to be.
    found: Option<Format>,
    format: Format,
    sites: Vec<Site>,
    /// Opened for a look: nothing is written.
    looks: bool,
    /// Who is told when a thread of a drive ends on its own.
    watch: Watch,
    /// Before the lock, so that nothing is removed that is another's already.
    begun: Begun,
    /// Held for its lock.
    _lock: File,
}

impl Folder {
    /// Opens the folder, or makes an empty one a store, with these drives. It becomes one for good, new drives become
    /// its own, and an older format is left behind, when [`open_devices`](Self::open_devices) succeeds.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn open(dir: &Path, drives: &[DriveSpec], clock: &dyn Clock) -> Result<Self, FolderError> {
        Self::open_within(dir, drives, clock, LOCK_WAIT)
    }

    fn open_within(dir: &Path, drives: &[DriveSpec], clock: &dyn Clock, wait: Duration) -> Result<Self, FolderError> {
        let mut made = Begun::default();
        if Format::read(dir)?.is_none() {
            refuse_strangers(dir)?;
            made.folder(dir).map_err(fail(dir, "create"))?;
        }
        let (mut lock, made_lock) = take_lock(dir, true, wait)?;
        // Bound after the lock, so that what is removed on a refusal is removed while nobody else can have it.
        let mut begun = made;
        if made_lock {
            begun.made(&dir.join(LOCK));
        }
        // Again: another process may have made it a store meanwhile.
        let found = Format::read(dir)?;
        let mut format = found.clone().unwrap_or_else(|| Format::new(clock.now())).migrated();
        let knows = u16::try_from(format.drives.len()).unwrap_or(u16::MAX);
        let mut sites = site::sites(dir, &mut format, drives)?;
        for site in &mut sites {
            site.examine(&format.store, knows)?;
        }
        site::refuse_aliases(&sites)?;
        site::check_sizes(dir, &format, &sites)?;
        site::check_any(&sites)?;
        if found.is_none() {
            // Its identity first, so that no later step can leave what looks like somebody else's folder.
            begun.file(&dir.join(FORMAT));
            format.without_drives().write(dir)?;
        }
        for name in ["ledger", "slots"] {
            begun.folder(&dir.join(name)).map_err(fail(&dir.join(name), "create"))?;
        }
        leave_pid(&mut lock).map_err(fail(&dir.join(LOCK), "write"))?;
        Ok(Self { dir: dir.into(), found, format, sites, looks: false, watch: Watch::default(), begun, _lock: lock })
    }

    /// Opens a store that no daemon runs on, for a look at it. Creates nothing, changes nothing.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn inspect(dir: &Path) -> Result<Self, FolderError> {
        let no_store = || FolderError::NoStore { dir: dir.into() };
        Format::read(dir)?.ok_or_else(no_store)?;
        let (lock, _) = take_lock(dir, false, Duration::ZERO)?;
        let format = Format::read(dir)?.ok_or_else(no_store)?;
        let mut sites = site::sites_as_found(dir, &format);
        for site in &mut sites {
            site.examine(&format.store, u16::MAX)?;
        }
        let found = Some(format.clone());
        let (watch, begun) = (Watch::default(), Begun::default());
        Ok(Self { dir: dir.into(), found, format, sites, looks: true, watch, begun, _lock: lock })
    }

    /// Who is told when a thread of a drive ends on its own; nobody, unless this was called before the drives are opened.
    #[must_use]
    pub fn watched(self, watch: &Watch) -> Self {
        Self { watch: watch.clone(), ..self }
    }

    /// Which store it is.
    #[must_use]
    pub fn store(&self) -> &StoreId {
        &self.format.store
    }

    /// What the drives are carved into; of no bytes where there is none, and a missing drive has none.
    #[must_use]
    pub fn shape(&self) -> TierShape {
        site::shape(&self.format, &self.sites)
    }

    /// Every drive that the store has or had, by number.
    pub fn drives(&self) -> impl Iterator<Item = DrivePlace> + '_ {
        self.sites.iter().map(|site| site.place(&self.dir))
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

    /// Opens the drives' slot files, preallocating what they lack, all at a time. A drive that the store knows and that
    /// can't be opened is left out with a warning, and [`shape`](Self::shape) tells; a new one is not begun halfway.
    /// `ram` is the memory that they will read into and write from, to be known to the kernel beforehand.
    ///
    /// # Errors
    /// When one does not fit after all, I/O of a killed daemon does not end, or no drive is left.
    pub fn open_devices(&mut self, options: IoOptions, ram: Option<&Arc<Arena>>) -> Result<Devices, FolderError> {
        let opened: Vec<Option<Opened>> = thread::scope(|scope| {
            let (shape, store, looks, watch) = (self.shape(), &self.format.store, self.looks, &self.watch);
            let start = |(site, length): (_, u64)| {
                let site: &Site = site;
                let open =
                    move || open_site(site, length, device_options(options, ram, watch), (!looks).then_some(store));
                site.missing.is_none().then(|| thread::Builder::new().spawn_scoped(scope, open))
            };
            let opening: Vec<_> = self.sites.iter().zip(shape.drives()).map(start).collect();
            opening.into_iter().map(|thread| thread.map(joined)).collect()
        });
        let mut devices = Vec::with_capacity(opened.len());
        for (site, opened) in self.sites.iter_mut().zip(opened) {
            let Some((begun, opened)) = opened else {
                devices.push(None);
                continue;
            };
            self.begun.absorb(begun);
            devices.push(match opened {
                Ok(device) => Some(device),
                Err(error @ FolderError::Io { .. }) if site.known => {
                    site.missing = Some(error.to_string());
                    None
                }
                Err(FolderError::InUse { holder, .. }) => {
                    return Err(FolderError::InUse { dir: self.dir.clone(), holder });
                }
                Err(error) => return Err(error),
            });
        }
        site::check_any(&self.sites)?;
        self.settle()?;
        Ok(devices)
    }

    /// Forgets the rows of drives that were begun anew, whose bytes can't be there.
    ///
    /// # Errors
    /// When the catalog refuses.
    pub fn forget_replaced(&self, catalog: &Catalog) -> Result<(), IndexError> {
        let shape = self.shape();
        let anew = |site: &&Site| site.known && site.anew && site.missing.is_none();
        let replaced: Vec<u16> = self.sites.iter().filter(anew).map(|site| site.number).collect();
        if replaced.is_empty() {
            return Ok(());
        }
        let (mut keys, mut rows, mut failed): (Vec<BlockKey>, _, _) = (Vec::new(), 0_u64, Ok(()));
        catalog.scan(|key, row| {
            if failed.is_ok() && replaced.contains(&shape.drive_of(row.slot.extent)) {
                keys.push(key);
                rows += 1;
            }
            if keys.len() >= FORGET_BATCH {
                failed = catalog.delete_batch(keys.drain(..));
            }
        })?;
        failed?;
        tracing::warn!(drives = ?replaced, rows, "drives are begun anew: what they held is forgotten");
        catalog.delete_batch(keys)
    }

    /// All that was begun is there to stay.
    fn settle(&mut self) -> Result<(), FolderError> {
        if !self.looks {
            if self.found.as_ref() != Some(&self.format) {
                self.format.write(&self.dir)?;
            }
            if let Some(before) = self.found.as_ref().map(Format::version).filter(|version| *version != VERSION) {
                tracing::info!(dir = %self.dir.display(), before, now = VERSION, "the data folder's format is migrated");
            }
            self.found = Some(self.format.clone());
        }
        self.begun.keep();
        // Who wants no drive at all is not told of each.
        if self.sites.iter().any(|site| site.missing.is_none()) {
            for DrivePlace { number, dir, missing } in self.drives() {
                if let Some(why) = missing {
                    tracing::warn!(drive = number, dir = %dir.display(), why, "starting without a drive: its blocks are misses");
                }
            }
        }
        Ok(())
    }
}

type Opened = (Begun, Result<Arc<dyn Device>, FolderError>);

fn joined(thread: io::Result<thread::ScopedJoinHandle<'_, Opened>>) -> Opened {
    let failed = |source| (Begun::default(), Err(FolderError::Io { path: "thread".into(), doing: "start", source }));
    match thread.map(thread::ScopedJoinHandle::join) {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) => failed(io::Error::other("it panicked")),
        Err(source) => failed(source),
    }
}

/// Opens one drive; for a `store` that may write to it, with its marker once its file is there.
fn open_site(site: &Site, length: u64, options: DeviceOptions, store: Option<&StoreId>) -> Opened {
    let mut begun = Begun::default();
    let open = || {
        if store.is_some() {
            begun.folder(&site.folder).map_err(fail(&site.folder, "create"))?;
            begun.file(&site.file);
        }
        let device = open_device(site, length, options)?;
        if let Some(store) = store.filter(|_| site.anew && site.dir.is_some()) {
            begun.file(&site.marker());
            site.mark(store)?;
        }
        Ok(device)
    };
    let opened = open();
    (begun, opened)
}

/// The one place that knows bodies of devices.
fn device_options(options: IoOptions, ram: Option<&Arc<Arena>>, watch: &Watch) -> DeviceOptions {
    let IoOptions { engine, inflight_bytes } = options;
    DeviceOptions { engine, inflight_bytes, arena: ram.map(Arc::clone), watch: watch.clone() }
}

fn open_device(site: &Site, length: u64, options: DeviceOptions) -> Result<Arc<dyn Device>, FolderError> {
    match media::open(&site.file, length, options) {
        Ok(device) => Ok(device),
        Err(OpenError::NoSpace { asked, free, .. }) => {
            Err(FolderError::TooLarge { asked, free, dir: site.folder.clone() })
        }
        Err(OpenError::InUse { .. }) => Err(FolderError::InUse { dir: site.folder.clone(), holder: None }),
        Err(OpenError::NoUring { path, why }) => Err(FolderError::NoUring { path, why }),
        Err(OpenError::Io { path, doing, source }) => Err(FolderError::Io { path, doing, source }),
    }
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
        let entry = entry.map_err(fail(dir, "list"))?;
        let name = entry.file_name();
        // A daemon that is told to listen in its data folder has bound its socket before.
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            continue;
        }
        if name != LOCK && name != "lost+found" && *name != *leftover {
            return Err(FolderError::NotAStore { dir: dir.into() });
        }
    }
    Ok(())
}

/// The folder's lock, and whether its file is new.
fn take_lock(dir: &Path, create: bool, wait: Duration) -> Result<(File, bool), FolderError> {
    let path = dir.join(LOCK);
    loop {
        let (mut file, made) = open_lock(&path, create).map_err(fail(&path, "open"))?;
        let mut held = lock_file(&file, Duration::ZERO).map_err(fail(&path, "lock"))?;
        if !held && wait > Duration::ZERO {
            tracing::info!(dir = %dir.display(), "the data folder is in use: waiting for it");
            held = lock_file(&file, wait).map_err(fail(&path, "lock"))?;
        }
        if !held {
            let mut text = String::new();
            let holder = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(FolderError::InUse { dir: dir.into(), holder });
        }
        let own = file.metadata().map_err(fail(&path, "stat"))?.ino();
        // Whoever had it before may have been refused, and have taken away what it had made.
        if path.metadata().is_ok_and(|metadata| metadata.ino() == own) {
            return Ok((file, made));
        }
    }
}

fn open_lock(path: &Path, create: bool) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    match options.clone().create_new(create).open(path) {
        Ok(file) => Ok((file, create)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((options.open(path)?, false)),
        Err(error) => Err(error),
    }
}

/// For whoever finds the folder in use.
fn leave_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod site_tests;
#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
