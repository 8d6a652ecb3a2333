//! The kernel's calls for memory that processes share. `kernel_miri.rs` has what stands for them under Miri, which knows none.
#![expect(unsafe_code, reason = "maps memory that another process writes")]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create};
#[cfg(feature = "media")]
use rustix::mm::{Advice, madvise};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::Access;
#[cfg(feature = "media")]
use super::Span;

/// New memory of `bytes`, zeroed, that is closed on exec and can be sealed.
pub(crate) fn memfd(name: &str, bytes: u64, pages: MemfdFlags) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages)?;
    ftruncate(&fd, bytes)?;
    Ok(fd)
}

/// Seals memory.
pub(crate) fn seal(fd: &OwnedFd, seals: SealFlags) -> rustix::io::Result<()> {
    fcntl_add_seals(fd, seals)
}

pub(super) fn map(fd: BorrowedFd<'_>, len: usize, access: Access) -> io::Result<NonNull<u8>> {
    // A page past the end of a file is a signal when it is touched, not an error.
    let whole = fstat(fd)?.st_size;
    if usize::try_from(whole).map_or(true, |whole| whole < len) {
        return Err(io::Error::other(format!("a part of {len} bytes has a file of {whole}")));
    }
    let (protection, flags) = match access {
        Access::Read => (ProtFlags::READ, MapFlags::SHARED | MapFlags::POPULATE),
        Access::Write => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE),
        #[cfg(feature = "media")]
        Access::WriteLater => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
    };
    // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
    let base = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, 0) }?;
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))
}

/// Has the kernel make the pages of shared memory now, whoever uses it meanwhile.
#[cfg(feature = "media")]
pub(crate) fn populate(memory: Span<'_>) -> io::Result<()> {
    // SAFETY: mapped; it makes pages as a write to them would, and changes no byte.
    Ok(unsafe { madvise(memory.base().cast(), memory.len(), Advice::LinuxPopulateWrite) }?)
}

/// Asks for huge pages, where the host gives them to who asks.
#[cfg(feature = "media")]
pub(crate) fn prefer_huge_pages(memory: Span<'_>) -> io::Result<()> {
    // SAFETY: mapped; advice that changes no byte.
    Ok(unsafe { madvise(memory.base().cast(), memory.len(), Advice::LinuxHugepage) }?)
}

/// # Safety
/// `base` is what `map` gave for `len`, and is not used any more.
pub(super) unsafe fn unmap(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: the caller's promise.
    Ok(unsafe { munmap(base.as_ptr().cast(), len) }?)
}
