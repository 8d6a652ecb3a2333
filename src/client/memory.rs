//! Memory of this process that the daemon maps, too: a pool that it reads into, or staging memory that it stores from.
#![expect(unsafe_code, reason = "maps memory that another process writes")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapping that both sides write.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the process and not to a thread, and is touched through copies only.
unsafe impl Send for Memory {}
// SAFETY: as above. Two threads that copy to the same bytes spoil them for each other, as two processes would.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory that can't shrink, with all its pages.
    pub(super) fn make(bytes: u64) -> io::Result<Self> {
        let fd = memfd_create("kvtier-pool", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, bytes)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Self::map(fd, bytes)
    }

    /// Memory that came from elsewhere.
    pub(super) fn map(fd: OwnedFd, bytes: u64) -> io::Result<Self> {
        // A page past the end of a file is a signal when it is touched, not an error.
        let whole = fstat(&fd)?.st_size;
        if bytes == 0 || u64::try_from(whole).map_or(true, |whole| whole < bytes) {
            return Err(io::Error::other(format!("a part of {bytes} bytes has a file of {whole}")));
        }
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a fresh mapping at an address of the kernel's choice. The file is sealed against shrinking.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, flags, &fd, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        Ok(Self { base, len, fd })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where `len` bytes from `at` are; `None` past the end.
    pub(super) fn address(&self, at: u64, len: usize) -> Option<*mut u8> {
        let at = usize::try_from(at).ok()?;
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len);
        // SAFETY: within the mapping, by the line above.
        fits.then(|| unsafe { self.base.as_ptr().add(at) })
    }

    /// Copies out; false past the end.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) -> bool {
        let Some(from) = self.address(at, to.len()) else { return false };
        // SAFETY: as many bytes of the mapping as `to` has, which is no part of it. The daemon writes them only while a load
        // into them is under way; then the copy is torn and nothing else.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        true
    }

    /// Copies in; false past the end.
    pub(super) fn write(&self, at: u64, from: &[u8]) -> bool {
        let Some(to) = self.address(at, from.len()) else { return false };
        // SAFETY: as in `read`, the other way round.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        true
    }

    /// Lets `fill` write `len` bytes from `at`; `None` past the end. For parts that the daemon only reads, and that one caller
    /// has at a time.
    pub(super) fn fill<T>(&self, at: u64, len: usize, fill: impl FnOnce(&mut [u8]) -> T) -> Option<T> {
        let address = self.address(at, len)?;
        // SAFETY: within the mapping. Nobody else writes there: the daemon never writes staging memory, and grants each part
        // to one reservation.
        Some(fill(unsafe { std::slice::from_raw_parts_mut(address, len) }))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing that borrows from it outlives it. It can't fail for a whole mapping.
        unsafe { munmap(self.base.as_ptr().cast(), self.len) }.ok();
    }
}
