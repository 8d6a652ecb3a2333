//! The `FORMAT` file of a data folder: which version wrote it, which store it is, how its drives are carved, and where
//! they are.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder_error::FolderError;
use crate::media::files::replace_file;
use crate::vocab::Timestamp;
use crate::vocab::limits::{ALIGNMENT, DRIVES_MAX};

/// The version that is written, and the newest that is read.
pub(super) const VERSION: u32 = 2;
pub(super) const FORMAT: &str = "FORMAT";

/// The identity of a data folder: 128 random bits, as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreId(String);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    format: u32,
    pub(super) store: StoreId,
    /// 0 where there never was a drive: it is carved when there is one.
    pub(super) extent_bytes: u64,
    /// The most drives that it can ever have; 0 where there never was one.
    pub(super) stride: u16,
    /// By number, in the order in which they were first given.
    pub(super) drives: Vec<KnownDrive>,
    created_ms: u64,
}

/// A drive that the store has, or once had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownDrive {
    /// Its directory, absolute; `None` for the data folder itself.
    pub(super) dir: Option<PathBuf>,
}

/// What every version has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// Format 1: one drive at most, in the data folder.
#[derive(Deserialize)]
struct Format1 {
    store: StoreId,
    extent_bytes: u64,
    created_ms: u64,
}

impl From<Format1> for Format {
    /// The drive keeps its file, its carving, and with that the numbers of its extents: no row changes its meaning.
    fn from(Format1 { store, extent_bytes, created_ms }: Format1) -> Self {
        let (stride, drives) = if extent_bytes > 0 { (1, vec![KnownDrive { dir: None }]) } else { (0, Vec::new()) };
        Self { format: 1, store, extent_bytes, stride, drives, created_ms }
    }
}

impl Format {
    pub(super) fn new(now: Timestamp) -> Self {
        let store = StoreId(format!("{:032x}", rand::random::<u128>()));
        Self { format: VERSION, store, extent_bytes: 0, stride: 0, drives: Vec::new(), created_ms: now.0 }
    }

    /// The same, as this version writes it.
    pub(super) fn migrated(self) -> Self {
        Self { format: VERSION, ..self }
    }

    /// The same store, not yet carved.
    pub(super) fn without_drives(&self) -> Self {
        Self { extent_bytes: 0, stride: 0, drives: Vec::new(), ..self.clone() }
    }

    /// Which version wrote it.
    pub(super) fn version(&self) -> u32 {
        self.format
    }

    /// The folder's format; `None` where it has no such file.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, FolderError> {
        let path = dir.join(FORMAT);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FolderError::Io { path, doing: "read", source }),
        };
        let bad = |why: String| FolderError::BadFormat { path: path.clone(), why };
        let json = |error: serde_json::Error| bad(error.to_string());
        let AnyFormat { format: found } = serde_json::from_slice(&bytes).map_err(json)?;
        match found {
            0 => Err(bad("there is no format 0".into())),
            1 => Ok(Some(serde_json::from_slice::<Format1>(&bytes).map_err(json)?.into())),
            VERSION => {
                let format: Self = serde_json::from_slice(&bytes).map_err(json)?;
                format.check().map_err(bad)?;
                Ok(Some(format))
            }
            found => Err(FolderError::NewerFormat { dir: dir.into(), found, known: VERSION }),
        }
    }

    /// Whether its numbers fit together: what is carved by them would be misread otherwise.
    fn check(&self) -> Result<(), String> {
        let Self { extent_bytes, stride, drives, .. } = self;
        let (carved, aligned) = (*extent_bytes > 0, extent_bytes.is_multiple_of(ALIGNMENT));
        let fits = drives.len() <= usize::from(*stride) && usize::from(*stride) <= DRIVES_MAX;
        if aligned && fits && carved == (*stride > 0) {
            return Ok(());
        }
        Err(format!("extent_bytes {extent_bytes}, stride {stride} and {} drives do not fit together", drives.len()))
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), FolderError> {
        let fail = |source| FolderError::Io { path: dir.join(FORMAT), doing: "write", source };
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| fail(error.into()))?;
        bytes.push(b'\n');
        replace_file(dir, FORMAT, &bytes).map_err(fail)
    }
}
