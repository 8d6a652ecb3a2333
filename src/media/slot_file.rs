//! Opens the file that slots live in: locked, preallocated, and past the page cache where the file system lets us.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags, fallocate, fcntl_getfl, fcntl_setfl, statx};
use rustix::io::Errno;

use super::buffer::AlignedBuf;
use super::files::{free_bytes, lock_file};
use crate::vocab::ByteCount;
use crate::vocab::limits::ALIGNMENT;

/// Why a slot file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system has too little room.
    #[error("nvme size {} does not fit: {} free on the file system of {path}", ByteSize(asked.0), ByteSize(free.0))]
    NoSpace {
        /// Which file.
        path: PathBuf,
        /// Its size to be.
        asked: ByteCount,
        /// What it could be at most.
        free: ByteCount,
    },
    /// Another process has it, or I/O of one that was killed has not ended yet.
    #[error("{path} is in use by another process")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// io_uring, which alone was wanted, can't be had.
    #[error("{path}: use io_uring: {why}")]
    NoUring {
        /// Which file.
        path: PathBuf,
        /// Why not, and what to do about it.
        why: String,
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

/// An open slot file.
#[derive(Debug)]
pub(super) struct SlotFile {
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    /// Past the page cache.
    pub(super) direct: bool,
    /// Why it is not, where it could be better.
    pub(super) buffered_because: Option<String>,
}

impl SlotFile {
    /// Opens or creates `path` at exactly `len` bytes, waiting up to `wait` for its lock.
    pub(super) fn open(path: &Path, len: u64, wait: Duration) -> Result<Self, OpenError> {
        let created = !path.exists();
        let fail = |doing| move |source| OpenError::Io { path: path.into(), doing, source };
        let (file, refused) = open_direct(path).map_err(fail("open"))?;
        // On this descriptor and not on a file beside it: I/O in flight keeps the descriptor's lock after a kill.
        if !lock_file(&file, wait).map_err(fail("lock"))? {
            return Err(OpenError::InUse { path: path.into() });
        }
        if let Err(error) = reserve(path, &file, len) {
            if created {
                drop(std::fs::remove_file(path));
            }
            return Err(error);
        }
        // A file without a block has nothing to read or write directly.
        let refused = refused.or_else(|| if len < ALIGNMENT { None } else { why_not_direct(&file, created) });
        let mut opened = Self { file: Arc::new(file), len, direct: len >= ALIGNMENT, buffered_because: None };
        if let Some(why) = refused {
            tracing::warn!(path = %path.display(), why, "slots go through the page cache");
            opened.go_buffered(why).map_err(fail("set flags"))?;
        }
        Ok(opened)
    }

    /// Goes through the page cache from now on.
    pub(super) fn go_buffered(&mut self, because: String) -> io::Result<()> {
        fcntl_setfl(&self.file, fcntl_getfl(&self.file)? - OFlags::DIRECT)?;
        self.direct = false;
        self.buffered_because = Some(because);
        Ok(())
    }
}

/// Opens with `O_DIRECT`, and where that is refused here already, without, and says why.
pub(super) fn open_direct(path: &Path) -> io::Result<(File, Option<String>)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    match options.clone().custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path) {
        Ok(file) => Ok((file, None)),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::OPNOTSUPP)) => {
            Ok((options.open(path)?, Some(format!("the file system refuses O_DIRECT: {error}"))))
        }
        Err(error) => Err(error),
    }
}

/// Asks the kernel and then the file whether it can be used directly, in pieces of 4 KiB.
fn why_not_direct(file: &File, created: bool) -> Option<String> {
    // Since Linux 6.1, where the file system knows; asked on the descriptor and not by a name that may mean another file.
    if let Ok(found) = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN)
        && let Some(why) = misaligned(found.stx_dio_mem_align, found.stx_dio_offset_align)
    {
        return Some(why);
    }
    // Some file systems take the flag and refuse the I/O. Writes only where nothing can be lost.
    let mut buffer = AlignedBuf::with_room_for(ALIGNMENT as u32);
    let write = if created { file.write_at(&buffer, 0).map(|_| ()) } else { Ok(()) };
    let error = write.and_then(|()| file.read_at(&mut buffer, 0)).err()?;
    Some(format!("O_DIRECT failed its test: {error}"))
}

/// What is wrong with an alignment that the kernel demands, of memory and of offsets; 0 means that it takes none.
fn misaligned(memory: u32, offset: u32) -> Option<String> {
    let suits = |align: u32| align > 0 && ALIGNMENT.is_multiple_of(u64::from(align));
    if memory == 0 || offset == 0 {
        return Some("the file system has no O_DIRECT for this file".to_owned());
    }
    (!suits(memory) || !suits(offset)).then(|| {
        format!("O_DIRECT demands alignment to {memory} bytes of memory and {offset} of the file, and slots have 4096")
    })
}

/// Gives the file its size and its blocks, so that no write can run out of space later.
fn reserve(path: &Path, file: &File, len: u64) -> Result<(), OpenError> {
    let fail = |doing| move |source| OpenError::Io { path: path.into(), doing, source };
    let metadata = file.metadata().map_err(fail("stat"))?;
    let (before, allocated) = (metadata.len(), metadata.blocks() * 512);
    if before > len {
        file.set_len(len).map_err(fail("shrink"))?;
    }
    if before >= len && allocated >= len {
        return Ok(());
    }
    let free = free_bytes(path).map_err(fail("statvfs"))?;
    let no_space = || OpenError::NoSpace {
        path: path.into(),
        asked: ByteCount(len),
        free: ByteCount(free.saturating_add(allocated)),
    };
    if len.saturating_sub(allocated) > free {
        return Err(no_space());
    }
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            tracing::warn!(path = %path.display(), "no fallocate here: the slot file is sparse, and writes may run out of space");
            file.set_len(len).map_err(fail("grow"))
        }
        Err(Errno::NOSPC) => {
            file.set_len(before.min(len)).map_err(fail("shrink"))?;
            Err(no_space())
        }
        Err(error) => Err(fail("preallocate")(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_exactly_the_size_asked_whatever_it_had_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.kv");
        for len in [1 << 20, 4 << 20, 64 << 10] {
            drop(SlotFile::open(&path, len, Duration::ZERO).unwrap());
            let metadata = path.metadata().unwrap();
            assert_eq!(metadata.len(), len);
            assert!(metadata.blocks() * 512 >= len, "preallocated");
        }
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_with_what_would_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.kv");
        let error = SlotFile::open(&path, 1 << 50, Duration::ZERO).unwrap_err();
        assert!(error.to_string().starts_with("nvme size 1.0 PiB does not fit: "), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn an_alignment_of_up_to_4_kib_suits_and_a_larger_one_is_named() {
        for align in [1, 512, 4096] {
            assert_eq!(misaligned(align, align), None);
        }
        assert!(misaligned(0, 0).unwrap().contains("no O_DIRECT for this file"));
        assert!(misaligned(512, 65_536).unwrap().contains("65536 of the file"));
        assert!(misaligned(8192, 512).unwrap().contains("8192 bytes of memory"));
        assert!(misaligned(768, 512).is_some());
    }

    #[test]
    fn a_file_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.kv");
        let first = SlotFile::open(&path, 1 << 20, Duration::ZERO).unwrap();
        let error = SlotFile::open(&path, 1 << 20, Duration::ZERO).unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
        drop(first);
        SlotFile::open(&path, 1 << 20, Duration::ZERO).unwrap();
    }

    #[test]
    fn opening_again_does_not_touch_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.kv");
        drop(SlotFile::open(&path, 1 << 20, Duration::ZERO).unwrap());
        let payload = [7_u8; 4096];
        File::options().write(true).open(&path).unwrap().write_all_at(&payload, 0).unwrap();
        drop(SlotFile::open(&path, 2 << 20, Duration::ZERO).unwrap());
        assert_eq!(std::fs::read(&path).unwrap()[..4096], payload);
    }
}
