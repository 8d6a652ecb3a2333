//! Shared memory that workers of the same host may map: a memfd, sealed so that they can read it and nothing else.
#![expect(unsafe_code, reason = "maps memory")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::vocab::limits::ALIGNMENT;

/// Huge pages, where the host has reserved some: a copy of a gigabyte then needs 512 translations and not 262,144.
const HUGE_PAGE: usize = 2 << 20;

/// Shared memory of a fixed size, zeroed, not prefaulted: pages come with their first write.
#[derive(Debug)]
pub struct Segment {
    base: NonNull<u8>,
    len: usize,
    fd: OwnedFd,
    page: usize,
    shareable: bool,
}

// SAFETY: the mapping belongs to the process and not to a thread; who may touch which bytes is the arena's protocol.
unsafe impl Send for Segment {}
// SAFETY: as above; a shared `Segment` gives out addresses only.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps `len` bytes, which must not be 0: in huge pages where the host has reserved as many.
    ///
    /// # Errors
    /// When the kernel refuses the descriptor or the address space.
    pub fn new(len: usize) -> io::Result<Self> {
        if len.is_multiple_of(HUGE_PAGE)
            && let Ok(segment) = Self::map(len, HUGE_PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
        {
            return Ok(segment);
        }
        let segment = Self::map(len, ALIGNMENT as usize, MemfdFlags::empty())?;
        // Where the host gives huge pages of its own accord to who asks (shmem_enabled is `advise`); a hint, no more.
        // SAFETY: advice about this mapping, which changes no byte.
        unsafe { madvise(segment.base.as_ptr().cast(), len, Advice::LinuxHugepage) }.ok();
        Ok(segment)
    }

    fn map(len: usize, page: usize, pages: MemfdFlags) -> io::Result<Self> {
        let fd = memfd_create("kvtier-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages)?;
        ftruncate(&fd, len as u64)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let base = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap gave address 0"))?;
        let mut segment = Self { base, len, fd, page, shareable: false };
        segment.shareable = seal(&segment.fd, SealFlags::FUTURE_WRITE)?;
        Ok(segment)
    }

    /// Bytes of its pages.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        self.page as u64
    }

    /// Whether others may have it: it is sealed, so that they can read it and nothing else.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        self.shareable
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.len
    }

    /// Has the kernel make all its pages now, whoever uses it meanwhile.
    pub(super) fn populate(&self) -> io::Result<()> {
        self.populate_part(0, self.len)
    }

    /// The same for `len` bytes from `at`, whole pages.
    pub(super) fn populate_part(&self, at: usize, len: usize) -> io::Result<()> {
        // SAFETY: within the mapping; it makes pages as a write to them would, and changes no byte.
        unsafe { madvise(self.address(at, len).cast(), len, Advice::LinuxPopulateWrite) }?;
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

/// Seals memory, so that who gets it can map it for reading and nothing else; whether this kernel can. It must know
/// `read_only`, the seal of Linux 5.1: where it does not, nobody gets the memory.
fn seal(fd: &OwnedFd, read_only: SealFlags) -> io::Result<bool> {
    match fcntl_add_seals(fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL | read_only) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
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
    fn a_kernel_that_can_not_seal_memory_keeps_it_for_itself() {
        let fd = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(!seal(&fd, SealFlags::from_bits_retain(1 << 20)).unwrap(), "a seal that no kernel knows");
        assert!(seal(&fd, SealFlags::FUTURE_WRITE).unwrap());
        assert!(Segment::new(8192).unwrap().is_shareable());
    }

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
        assert_eq!(map(ProtFlags::READ | ProtFlags::WRITE).unwrap_err(), Errno::PERM);
        assert_eq!(rustix::io::pwrite(segment.fd(), b"x", 0).unwrap_err(), Errno::PERM);
        for size in [0, 4096, 16384] {
            assert_eq!(ftruncate(segment.fd(), size).unwrap_err(), Errno::PERM, "{size}");
        }
        let more = fcntl_add_seals(segment.fd(), SealFlags::WRITE);
        assert_eq!(more.unwrap_err(), Errno::PERM, "nor shut the daemon out");
        // SAFETY: mapped above, used no more.
        unsafe { munmap(read_only, 8192) }.unwrap();
    }

    #[test]
    #[should_panic(expected = "within its segment")]
    fn an_address_past_the_end_is_refused() {
        Segment::new(4096).unwrap().address(1, 4096);
    }
}
