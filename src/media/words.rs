//! The slots' words, in a segment of their own: workers that map it see the generation of every slot.
#![expect(unsafe_code, reason = "words lie in shared memory")]

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;

use super::holders::Table;
use super::segment::Segment;

/// One word a slot, zeroed.
#[derive(Debug)]
pub(super) struct Words {
    segment: Segment,
    count: usize,
}

impl Words {
    /// Memory for `count` words; at least one.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let bytes = count.checked_mul(size_of::<AtomicU64>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { segment: Segment::new(bytes)?, count })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.segment.fd()
    }

    pub(super) fn is_shareable(&self) -> bool {
        self.segment.is_shareable()
    }

    pub(super) fn bytes(&self) -> usize {
        self.segment.size()
    }
}

impl Table for Words {
    type Word = AtomicU64;

    fn get(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.count, "a slot has its word");
        let address = self.segment.address(at * size_of::<AtomicU64>(), size_of::<AtomicU64>());
        // SAFETY: within the mapping, by the lines above, aligned since a mapping starts at a page, and zeroed at first.
        // Others can map it for reading only.
        unsafe { AtomicU64::from_ptr(address.cast()) }
    }
}
