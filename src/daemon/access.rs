//! The access file of a running daemon: read at start, and again whenever it changes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use super::run::StartError;
use crate::access::{Book, BookError, Gatekeeper};
use crate::vocab::limits::ACCESS_LOOK_EVERY;
use crate::watch::Watch;

/// What tells one version of a file from the next: its inode, and when that changed last. Unlike its time of modification, tools
/// that copy a file can't set that.
type Version = Option<(u64, i64, i64)>;

/// The keeper of a daemon: by its access file, where it has one.
pub(super) fn keeper(path: Option<&Path>, parts: &Watch) -> Result<Arc<Gatekeeper>, StartError> {
    let Some(path) = path else { return Ok(Arc::new(Gatekeeper::open())) };
    let version = version(path);
    let book = read(path).map_err(|error| StartError::Access { path: path.into(), why: error.0 })?;
    let keeper = Arc::new(Gatekeeper::new(book, rustix::process::geteuid().as_raw()));
    // Without it, a token that was taken out would stay good.
    tokio::spawn(parts.vital("access file").task(watch(path.into(), version, Arc::downgrade(&keeper))));
    Ok(keeper)
}

/// Takes in what the file says whenever it changes, until the daemon is gone. One that can't be used changes nothing.
async fn watch(path: PathBuf, mut seen: Version, keeper: Weak<Gatekeeper>) {
    loop {
        tokio::time::sleep(ACCESS_LOOK_EVERY).await;
        let Some(keeper) = keeper.upgrade() else { return };
        let now = version(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path) {
            Ok(book) => {
                keeper.replace(book);
                tracing::info!(target: "kvtier::access", path = %path.display(), "the access file was read again");
            }
            Err(error) => {
                let path = path.display();
                tracing::error!(target: "kvtier::access", %path, %error, "what was in force before stays in force");
            }
        }
    }
}

fn version(path: &Path) -> Version {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn read(path: &Path) -> Result<Book, BookError> {
    let text = std::fs::read_to_string(path).map_err(|error| BookError(error.to_string()))?;
    Book::parse(&text)
}
