//! What stands for the kernel's calls under Miri, which interprets no memfd: memory of the heap, that only this process has.
#![expect(unsafe_code, reason = "allocates in place of a mapping")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, open};

use super::Access;
#[cfg(feature = "media")]
use super::Span;

const PAGE: usize = 4096;

pub(crate) fn memfd(_: &str, _: u64, _: MemfdFlags) -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlags::RDONLY, Mode::empty())?)
}

pub(crate) fn seal(_: &OwnedFd, _: SealFlags) -> rustix::io::Result<()> {
    Ok(())
}

pub(super) fn map(_: BorrowedFd<'_>, len: usize, _: Access) -> io::Result<NonNull<u8>> {
    let layout = Layout::from_size_align(len, PAGE).map_err(io::Error::other)?;
    // SAFETY: the length is not 0.
    NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

#[cfg(feature = "media")]
pub(crate) fn populate(_: Span<'_>) -> io::Result<()> {
    Ok(())
}

#[cfg(feature = "media")]
pub(crate) fn prefer_huge_pages(_: Span<'_>) -> io::Result<()> {
    Ok(())
}

/// # Safety
/// `base` is what `map` gave for `len`, and is not used any more.
pub(super) unsafe fn unmap(base: NonNull<u8>, len: usize) -> io::Result<()> {
    let layout = Layout::from_size_align(len, PAGE).map_err(io::Error::other)?;
    // SAFETY: the caller's promise.
    unsafe { dealloc(base.as_ptr(), layout) };
    Ok(())
}
