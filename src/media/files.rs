//! Small jobs on files that more than one room has: locks, free space, replacing a file in one step.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::statvfs;

use crate::vocab::limits::LOCK_RETRY;

/// Takes the exclusive `flock` of an open file, for as long as it stays open; tries for `wait`. False where somebody
/// else has it.
///
/// # Errors
/// When the file system refuses locks.
pub fn lock_file(file: &File, wait: Duration) -> io::Result<bool> {
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if waited >= wait => return Ok(false),
            Err(TryLockError::WouldBlock) => {
                thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
        }
    }
}

/// Bytes that may still be written to the file system of `path`.
///
/// # Errors
/// When it can't be asked.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Puts `bytes` into `folder/name`: after a crash at any point there is the old file or the new one, whole.
///
/// # Errors
/// When the folder can't be written to.
pub fn replace_file(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_refused_while_it_is_held_and_free_after() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        let first = File::create(&path).unwrap();
        assert!(lock_file(&first, Duration::ZERO).unwrap());
        let second = File::open(&path).unwrap();
        assert!(!lock_file(&second, Duration::ZERO).unwrap());
        drop(first);
        assert!(lock_file(&second, Duration::ZERO).unwrap());
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        replace_file(folder.path(), "F", b"one").unwrap();
        replace_file(folder.path(), "F", b"2").unwrap();
        assert_eq!(std::fs::read(folder.path().join("F")).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(free_bytes(folder.path()).unwrap() > 0);
    }
}
