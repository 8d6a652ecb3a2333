//! Shared memory that workers of the same host may map: a memfd, sealed so that they can read it and nothing else.
#![expect(unsafe_code, reason = "maps memory")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// Shared memory of a fixed size, zeroed, not prefaulted: pages come with their first write.
#[derive(Debug)]
pub struct Segment {
    base: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the process and not to a thread; who may touch which bytes is the arena's protocol.
unsafe impl Send for Segment {}
// SAFETY: as above; a shared `Segment` gives out addresses only.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps `len` bytes, which must not be 0.
    ///
    /// # Errors
    /// When the kernel refuses the descriptor or the address space.
    pub fn new(len: usize) -> io::Result<Self> {
        let fd = memfd_create("kvtier-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, len as u64)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let base = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        let segment = Self { base, len, fd };
        // From now on nobody maps it writable, also who gets the descriptor; this mapping stays writable.
        fcntl_add_seals(&segment.fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
        Ok(segment)
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.len
    }

    /// Has the kernel make all its pages now, whoever uses it meanwhile.
    pub(super) fn populate(&self) -> io::Result<()> {
        // SAFETY: within the mapping; it makes pages as a write to them would, and changes no byte.
        unsafe { madvise(self.base.as_ptr().cast(), self.len, Advice::LinuxPopulateWrite) }?;
        Ok(())
    }

    /// The descriptor, to be mapped by others.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Address of byte `at`, of which `len` are wanted.
    pub(super) fn address(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len), "a slot ends within its segment");
        // SAFETY: within the mapping, by the line above.
        unsafe { self.base.as_ptr().add(at) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new`, and pins and writers keep the arena and with it this segment alive.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.len) } {
            tracing::warn!(%error, len = self.len, "a RAM segment could not be unmapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_page_aligned_zeroed_and_closed_on_exec() {
        let segment = Segment::new(8192).unwrap();
        assert!((segment.address(0, 8192) as usize).is_multiple_of(4096));
        // SAFETY: nobody else has the segment.
        let bytes = unsafe { std::slice::from_raw_parts(segment.address(0, 8192), 8192) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        let flags = rustix::io::fcntl_getfd(segment.fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn who_gets_the_descriptor_can_read_it_and_nothing_else() {
        let segment = Segment::new(8192).unwrap();
        // SAFETY: nobody else has the segment.
        unsafe { segment.address(0, 1).write(7) };
        let map = |protection| {
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            unsafe { mmap(ptr::null_mut(), 8192, protection, MapFlags::SHARED, segment.fd(), 0) }
        };
        let read_only = map(ProtFlags::READ).unwrap();
        // SAFETY: mapped above; nobody writes meanwhile.
        assert_eq!(unsafe { read_only.cast::<u8>().read() }, 7);
        assert_eq!(map(ProtFlags::READ | ProtFlags::WRITE).unwrap_err(), rustix::io::Errno::PERM);
        assert_eq!(rustix::io::pwrite(segment.fd(), b"x", 0).unwrap_err(), rustix::io::Errno::PERM);
        for size in [0, 4096, 16384] {
            assert_eq!(ftruncate(segment.fd(), size).unwrap_err(), rustix::io::Errno::PERM, "{size}");
        }
        let more = fcntl_add_seals(segment.fd(), SealFlags::WRITE);
        assert_eq!(more.unwrap_err(), rustix::io::Errno::PERM, "nor shut the daemon out");
        // SAFETY: mapped above, used no more.
        unsafe { munmap(read_only, 8192) }.unwrap();
    }

    #[test]
    #[should_panic(expected = "within its segment")]
    fn an_address_past_the_end_is_refused() {
        Segment::new(4096).unwrap().address(1, 4096);
    }
}
