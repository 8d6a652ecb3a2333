//! One part of the arena as this process sees it: read-only, shared with the daemon, which goes on writing to it.
#![expect(unsafe_code, reason = "reads words that another process writes")]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;

use crate::copy::{Access, Mapping as Shared};
use crate::vocab::crc::PayloadCrc;

/// A mapping. Its bytes may change at any time: they are copied out, and what the copy is worth is found out afterwards.
#[derive(Debug)]
pub(super) struct Mapping(Shared);

impl Mapping {
    /// Maps the first `bytes` of a descriptor, with their pages, so that no later read waits for one.
    pub(super) fn new(fd: &OwnedFd, bytes: u64) -> io::Result<Self> {
        Shared::new(fd, bytes, Access::Read).map(Self)
    }

    /// Where `len` bytes from `at` are; `None` past the end.
    pub(super) fn address(&self, at: u64, len: usize) -> Option<*const u8> {
        Some(self.0.address(at, len)?.cast_const())
    }

    /// Word number `at`, to be loaded and nothing else; `None` past the end.
    pub(super) fn word(&self, at: u32) -> Option<&AtomicU64> {
        let address = self.0.address(u64::from(at) * 8, 8)?;
        // SAFETY: within the mapping and aligned, since a mapping starts at a page. It is only ever loaded, which is
        // allowed for memory that can't be written.
        Some(unsafe { AtomicU64::from_ptr(address.cast()) })
    }

    /// Copies the bytes from `at` to `to`, and their checksum with them where one is wanted. False past the end. The daemon
    /// may write them meanwhile; whatever is copied then is dropped by who looks at the word.
    pub(super) fn copy(&self, at: u64, to: &mut [u8], crc: Option<&mut PayloadCrc>) -> bool {
        self.0.span(at, to.len()).is_some_and(|span| span.copy_out(0, to, crc))
    }
}
