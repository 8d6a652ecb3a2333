//! Memory of this process that the daemon maps, too: a pool that it reads into, or staging memory that it stores from.
#![expect(unsafe_code, reason = "hands out memory that another process reads")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::copy::{Access, Mapping, SpanMut, memfd, seal};

/// A mapping that both sides write.
#[derive(Debug)]
pub(super) struct Memory {
    mapping: Mapping,
    fd: OwnedFd,
}

impl Memory {
    /// New memory that can't shrink, with all its pages.
    pub(super) fn make(bytes: u64) -> io::Result<Self> {
        let fd = memfd("kvtier-pool", bytes, MemfdFlags::empty())?;
        seal(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Self::map(fd, bytes)
    }

    /// Memory that came from elsewhere.
    pub(super) fn map(fd: OwnedFd, bytes: u64) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::new(&fd, bytes, Access::Write)?, fd })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where `len` bytes from `at` are; `None` past the end.
    pub(super) fn address(&self, at: u64, len: usize) -> Option<*mut u8> {
        self.mapping.address(at, len)
    }

    /// Copies out; false past the end. The daemon writes there only while a load into it is under way; then the copy is torn
    /// and nothing else.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) -> bool {
        self.mapping.span(at, to.len()).is_some_and(|span| span.read(0, to))
    }

    /// Copies in; false past the end.
    pub(super) fn write(&self, at: u64, from: &[u8]) -> bool {
        // SAFETY: the span ends with this line, and nobody makes references to this memory. Two threads that copy to the same
        // bytes spoil them for each other, as the engine and the daemon would.
        unsafe { self.mapping.span_mut(at, from.len()) }.is_some_and(|mut span| span.write(0, from))
    }

    /// Lets `fill` write `len` bytes from `at`; `None` past the end. For parts that the daemon only reads, and has granted to
    /// one reservation.
    pub(super) fn fill<T>(&self, at: u64, len: usize, fill: impl FnOnce(&mut SpanMut<'_>) -> T) -> Option<T> {
        // SAFETY: as in `write`: a daemon that grants a part twice spoils what is stored, and no reference is broken.
        let mut span = unsafe { self.mapping.span_mut(at, len) }?;
        Some(fill(&mut span))
    }
}
