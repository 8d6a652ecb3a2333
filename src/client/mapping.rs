//! One part of the arena as this process sees it: read-only, shared with the daemon, which goes on writing to it.
#![expect(unsafe_code, reason = "maps memory that another process writes")]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::copy::copy_from;
use crate::vocab::crc::PayloadCrc;

/// A mapping. Its bytes may change at any time: they are copied out, and what the copy is worth is found out afterwards.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process and not to a thread, and nobody here writes to it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of a descriptor, with their pages, so that no later read waits for one. Shared, because a
    /// private mapping may keep a page as it was.
    pub(super) fn new(fd: &OwnedFd, bytes: u64) -> io::Result<Self> {
        // A page past the end of a file is a signal when it is touched, not an error.
        let whole = rustix::fs::fstat(fd)?.st_size;
        if bytes == 0 || u64::try_from(whole).map_or(true, |whole| whole < bytes) {
            return Err(io::Error::other(format!("a part of {bytes} bytes has a file of {whole}")));
        }
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice. The file is sealed against shrinking.
        let base =
            unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED | MapFlags::POPULATE, fd, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { base, len })
    }

    /// Where `len` bytes from `at` are; `None` past the end.
    pub(super) fn address(&self, at: u64, len: usize) -> Option<*const u8> {
        let at = usize::try_from(at).ok()?;
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len);
        // SAFETY: within the mapping, by the line above.
        fits.then(|| unsafe { self.base.as_ptr().add(at).cast_const() })
    }

    /// Word number `at`; `None` past the end.
    pub(super) fn word(&self, at: u32) -> Option<u64> {
        let address = self.address(u64::from(at) * 8, 8)?;
        // SAFETY: within the mapping and aligned, since a mapping starts at a page. It is only ever loaded, which is
        // allowed for memory that can't be written.
        Some(unsafe { AtomicU64::from_ptr(address.cast_mut().cast()) }.load(Ordering::Relaxed))
    }

    /// Copies the bytes from `at` to `to`, and their checksum with them where one is wanted. False past the end.
    pub(super) fn copy(&self, at: u64, to: &mut [u8], crc: Option<&mut PayloadCrc>) -> bool {
        let Some(from) = self.address(at, to.len()) else { return false };
        // SAFETY: that many bytes of the mapping, and a mapping that nobody here writes is no part of `to`. The daemon may
        // write them meanwhile; whatever is copied then is dropped by who asks for the word.
        unsafe { copy_from(to, from, crc) };
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing that borrows from it outlives it. It can't fail for a whole mapping.
        unsafe { munmap(self.base.as_ptr().cast(), self.len) }.ok();
    }
}
