//! Where the drives of a store are: each has a number, a directory by which it is known, and a file of slots there.
//!
//! The drive in the data folder is `slots/N.kv`. One with a directory is `DIR/kvtier-<store>/N.kv` beside `DRIVE`, a
//! marker that names store and number. A directory is a mount point more often than not, so a folder that should be in
//! it and is not means that nothing is mounted: the drive is missing, and is not begun anew on whatever lies below. Who
//! has put an empty drive there says so by making the folder.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder_error::{FolderError, fail};
use super::format::{Format, KnownDrive, StoreId};
use crate::media::files::{free_bytes, replace_file};
use crate::vocab::limits::EXTENTS_MAX;
use crate::vocab::{ByteCount, TierShape};

const MARKER: &str = "DRIVE";

/// A drive as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveSpec {
    /// Where it is mounted; `None` for the data folder itself.
    pub dir: Option<PathBuf>,
    /// How much of it to use.
    pub bytes: ByteCount,
}

impl DriveSpec {
    /// The data folder itself.
    #[must_use]
    pub fn here(bytes: ByteCount) -> Self {
        Self { dir: None, bytes }
    }
}

impl fmt::Display for DriveSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.dir {
            Some(dir) => write!(f, "{}={}", dir.display(), self.bytes),
            None => self.bytes.fmt(f),
        }
    }
}

/// A drive of the store as it is now, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrivePlace {
    /// Its number.
    pub number: u16,
    /// Its directory.
    pub dir: PathBuf,
    /// Why the store goes on without it.
    pub missing: Option<String>,
}

/// What a drive's own folder says of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    store: StoreId,
    drive: u16,
}

/// A drive of the store.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) number: u16,
    /// Its directory; `None` for the data folder.
    pub(super) dir: Option<PathBuf>,
    /// The folder of its own, and the file in it.
    pub(super) folder: PathBuf,
    pub(super) file: PathBuf,
    /// Bytes to use of it.
    pub(super) bytes: u64,
    /// The store had it before.
    pub(super) known: bool,
    /// Nothing that a row could name was written there.
    pub(super) anew: bool,
    /// Why the store goes on without it.
    pub(super) missing: Option<String>,
}

/// Finds out the number of each drive given, adding new ones to `format`, and carves a store that has none yet.
pub(super) fn sites(data: &Path, format: &mut Format, specs: &[DriveSpec]) -> Result<Vec<Site>, FolderError> {
    if format.stride == 0 && !specs.is_empty() {
        let sizes: Vec<u64> = specs.iter().map(|spec| spec.bytes.0).collect();
        (format.extent_bytes, format.stride) = TierShape::plan(&sizes);
    }
    let known = format.drives.len();
    let mut given: BTreeMap<usize, u64> = BTreeMap::new();
    for spec in specs {
        let dir = spec.dir.as_deref().map(|dir| std::path::absolute(dir).map_err(fail(dir, "resolve"))).transpose()?;
        let shown = || dir.clone().unwrap_or_else(|| data.into());
        let number = match format.drives.iter().position(|drive| drive.dir == dir) {
            Some(number) => number,
            None if format.drives.len() >= usize::from(format.stride) => {
                return Err(FolderError::TooManyDrives { drive: shown(), dir: data.into(), most: format.stride });
            }
            None => {
                format.drives.push(KnownDrive { dir: dir.clone() });
                format.drives.len() - 1
            }
        };
        if given.insert(number, spec.bytes.0).is_some() {
            return Err(FolderError::Twice { drive: shown() });
        }
    }
    let site = |(number, drive): (u16, &KnownDrive)| {
        let at = usize::from(number);
        let bytes = given.get(&at).copied().unwrap_or_default();
        Site::new(data, &format.store, number, drive.dir.clone(), bytes, at < known)
    };
    Ok((0..).zip(&format.drives).map(site).collect())
}

/// The drives that a stopped store has, each as large as its file is.
pub(super) fn sites_as_found(data: &Path, format: &Format) -> Vec<Site> {
    let found = |(number, drive): (u16, &KnownDrive)| {
        let mut site = Site::new(data, &format.store, number, drive.dir.clone(), 0, true);
        match site.file.metadata() {
            Ok(metadata) if metadata.len() == 0 => site.missing = Some(format!("{} is empty", site.file.display())),
            Ok(metadata) => site.bytes = metadata.len(),
            Err(error) => site.missing = Some(format!("{}: {error}", site.file.display())),
        }
        site
    };
    (0..).zip(&format.drives).map(found).collect()
}

/// What the drives are carved into, those without bytes that are missing.
pub(super) fn shape(format: &Format, sites: &[Site]) -> TierShape {
    let bytes: Vec<u64> = sites.iter().map(|site| if site.missing.is_some() { 0 } else { site.bytes }).collect();
    TierShape::striped(&bytes, format.extent_bytes, format.stride)
}

/// Refuses sizes that the store's numbers or its file systems have no room for.
pub(super) fn check_sizes(data: &Path, format: &Format, sites: &[Site]) -> Result<(), FolderError> {
    let extents = u64::from(EXTENTS_MAX / u32::from(format.stride.max(1)));
    // Drives that share a file system share its room.
    let mut room: BTreeMap<u64, u64> = BTreeMap::new();
    for site in sites.iter().filter(|site| site.missing.is_none()) {
        let asked = ByteCount(site.bytes);
        if site.bytes / format.extent_bytes.max(1) > extents {
            let most = ByteCount(extents * format.extent_bytes);
            return Err(FolderError::Unaddressable { asked, most, dir: data.into() });
        }
        let dir = site.dir.as_deref().unwrap_or(data);
        let (system, free) = (dir.metadata().map_err(fail(dir, "stat"))?.dev(), free_bytes(dir));
        let free = free.map_err(fail(dir, "statvfs"))?;
        let left = room.entry(system).or_insert(free);
        let allocated = site.file.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        let needs = site.bytes.saturating_sub(allocated);
        if needs > *left {
            let free = ByteCount(left.saturating_add(allocated));
            return Err(FolderError::TooLarge { asked, free, dir: dir.into() });
        }
        *left -= needs;
    }
    Ok(())
}

/// Drives that are given and all missing are no choice but a failure.
pub(super) fn check_any(sites: &[Site]) -> Result<(), FolderError> {
    let given: Vec<&Site> = sites.iter().filter(|site| site.bytes > 0).collect();
    if given.is_empty() || given.iter().any(|site| site.missing.is_none()) {
        return Ok(());
    }
    let why = given.into_iter().filter_map(|site| site.missing.as_deref()).collect::<Vec<_>>().join("; ");
    Err(FolderError::NoDrive { why })
}

/// Refuses two names of one directory: its drives would have one fate.
pub(super) fn refuse_aliases(sites: &[Site]) -> Result<(), FolderError> {
    let mut seen = BTreeMap::new();
    for dir in sites.iter().filter(|site| site.missing.is_none()).filter_map(|site| site.dir.as_deref()) {
        let metadata = dir.metadata().map_err(fail(dir, "stat"))?;
        if seen.insert((metadata.dev(), metadata.ino()), dir).is_some() {
            return Err(FolderError::Twice { drive: dir.into() });
        }
    }
    Ok(())
}

impl Site {
    fn new(data: &Path, store: &StoreId, number: u16, dir: Option<PathBuf>, bytes: u64, known: bool) -> Self {
        let folder = dir.as_deref().map_or_else(|| data.join("slots"), |dir| dir.join(format!("kvtier-{store}")));
        let file = folder.join(format!("{number}.kv"));
        Self { number, dir, folder, file, bytes, known, anew: false, missing: None }
    }

    /// Looks at what is there. `knows`: how many drives the store had before.
    pub(super) fn examine(&mut self, store: &StoreId, knows: u16) -> Result<(), FolderError> {
        if self.missing.is_some() {
            return Ok(());
        }
        if self.bytes == 0 {
            self.missing = Some("it is not among the drives given".into());
            return Ok(());
        }
        let Some(dir) = self.dir.clone() else {
            self.anew = !self.known || !self.file.exists();
            return Ok(());
        };
        let folder = dir
            .metadata()
            .and_then(|metadata| if metadata.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) });
        match folder {
            Err(error) if self.known => self.missing = Some(format!("{}: {error}", dir.display())),
            Err(source) => return Err(FolderError::NoDirectory { drive: dir, source }),
            Ok(()) => match Marker::read(&self.folder) {
                Err(error) if self.known => self.missing = Some(format!("{}: {error}", self.folder.display())),
                Err(error) => return Err(fail(&self.folder, "read")(error)),
                Ok(Some(marker)) => self.judge(store, knows, marker)?,
                Ok(None) => self.judge_unmarked()?,
            },
        }
        Ok(())
    }

    fn judge(&mut self, store: &StoreId, knows: u16, marker: Marker) -> Result<(), FolderError> {
        let own = marker.store == *store && marker.drive == self.number;
        // A start that ended before the store knew the drive.
        let unfinished = marker.store == *store && !self.known && marker.drive >= knows;
        if !own && !unfinished {
            let name = |store: &StoreId, drive| format!("drive {drive} of store {store}");
            let (found, expected) = (name(&marker.store, marker.drive), name(store, self.number));
            return Err(FolderError::OtherDrive { path: self.folder.join(MARKER), found, expected });
        }
        self.anew = !self.known;
        if self.known && !self.file.exists() {
            let (file, marker) = (self.file.display(), self.folder.join(MARKER));
            self.missing = Some(format!("{file} is gone: to begin the drive anew, remove {}", marker.display()));
        }
        Ok(())
    }

    fn judge_unmarked(&mut self) -> Result<(), FolderError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.anew = true;
                if self.known {
                    let folder = self.folder.display();
                    self.missing = Some(format!(
                        "{folder} is not there: mount the drive, or, if it is a new and empty one, run: mkdir {folder}"
                    ));
                }
                return Ok(());
            }
            Err(error) => return Err(fail(&self.folder, "list")(error)),
        };
        let own = self.file.file_name().unwrap_or_default();
        for entry in entries {
            let name = entry.map_err(fail(&self.folder, "list"))?.file_name();
            // A start that ended before it left its marker may have left these.
            if name != own && name != format!("{MARKER}.tmp").as_str() {
                let why = format!("it has no {MARKER}, and holds {}", name.display());
                return Err(FolderError::BadDrive { path: self.folder.clone(), why });
            }
        }
        self.anew = true;
        Ok(())
    }

    /// Leaves its marker.
    pub(super) fn mark(&self, store: &StoreId) -> Result<(), FolderError> {
        let failed = |source| fail(&self.folder.join(MARKER), "write")(source);
        let marker = Marker { store: store.clone(), drive: self.number };
        let mut bytes = serde_json::to_vec(&marker).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        replace_file(&self.folder, MARKER, &bytes).map_err(failed)
    }

    /// Where that is.
    pub(super) fn marker(&self) -> PathBuf {
        self.folder.join(MARKER)
    }

    /// For people.
    pub(super) fn place(&self, data: &Path) -> DrivePlace {
        let dir = self.dir.clone().unwrap_or_else(|| data.into());
        DrivePlace { number: self.number, dir, missing: self.missing.clone() }
    }
}

impl Marker {
    /// The marker in a drive's folder; `None` where there is none.
    fn read(folder: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(folder.join(MARKER)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
