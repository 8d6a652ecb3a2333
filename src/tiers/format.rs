//! The `FORMAT` file of a data folder: which version wrote it, which store it is, how its drive is carved.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::folder::FolderError;
use crate::media::files::replace_file;
use crate::vocab::Timestamp;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;
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
    created_ms: u64,
}

/// What every version has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Format {
    pub(super) fn new(now: Timestamp) -> Self {
        let store = StoreId(format!("{:032x}", rand::random::<u128>()));
        Self { format: VERSION, store, extent_bytes: 0, created_ms: now.0 }
    }

    /// The folder's format; `None` where it has no such file.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, FolderError> {
        let path = dir.join(FORMAT);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FolderError::Io { path, doing: "read", source }),
        };
        let bad = |error: serde_json::Error| FolderError::BadFormat { path: path.clone(), why: error.to_string() };
        let AnyFormat { format: found } = serde_json::from_slice(&bytes).map_err(bad)?;
        if found > VERSION {
            return Err(FolderError::NewerFormat { dir: dir.into(), found, known: VERSION });
        }
        Ok(Some(serde_json::from_slice(&bytes).map_err(bad)?))
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), FolderError> {
        let fail = |source| FolderError::Io { path: dir.join(FORMAT), doing: "write", source };
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| fail(error.into()))?;
        bytes.push(b'\n');
        replace_file(dir, FORMAT, &bytes).map_err(fail)
    }
}
