//! A mapping of memory that processes share.
#![expect(unsafe_code, reason = "maps memory that another process writes")]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use super::kernel::{map, unmap};
use super::{Span, SpanMut};

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To be read, with all pages at once, so that no later read waits for one.
    Read,
    /// To be written, too.
    Write,
    /// To be written, with pages as they come.
    #[cfg(feature = "media")]
    WriteLater,
}

/// A mapping, until it is dropped. Shared, because a private one may keep a page as it was.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process and not to a thread, and is touched through addresses only.
unsafe impl Send for Mapping {}
// SAFETY: as above. Two threads that copy to the same bytes spoil them for each other, as two processes would.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `bytes` of a descriptor, which must be sealed against shrinking, or a copy would be a signal one day.
    pub(crate) fn new(fd: impl AsFd, bytes: u64, access: Access) -> io::Result<Self> {
        let len = usize::try_from(bytes).ok().filter(|len| *len > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let base = map(fd.as_fd(), len, access)?;
        Ok(Self { base, len })
    }

    #[cfg(feature = "media")]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where `len` bytes from `at` are; `None` past the end.
    pub(crate) fn address(&self, at: u64, len: usize) -> Option<*mut u8> {
        let at = usize::try_from(at).ok()?;
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len);
        fits.then(|| self.base.as_ptr().wrapping_add(at))
    }

    /// The same, to be copied from.
    pub(crate) fn span(&self, at: u64, len: usize) -> Option<Span<'_>> {
        // SAFETY: within the mapping, which lives as long as the span; nobody makes a reference to its bytes but slots, whose
        // holders have them to themselves.
        self.address(at, len).map(|address| unsafe { Span::new(address, len) })
    }

    /// The same, to be copied to.
    ///
    /// # Safety
    /// The mapping is for writing, and no other thread writes these bytes, nor refers to them, while the span lives.
    pub(crate) unsafe fn span_mut(&self, at: u64, len: usize) -> Option<SpanMut<'_>> {
        // SAFETY: within the mapping; the rest is the caller's promise.
        self.address(at, len).map(|address| unsafe { SpanMut::new(address, len) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `map`, and nothing that borrows from it outlives it.
        if let Err(error) = unsafe { unmap(self.base, self.len) } {
            tracing::warn!(%error, len = self.len, "shared memory could not be unmapped");
        }
    }
}
