//! Shared memory that workers of the same host may map: a memfd, sealed so that they can read it and nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::copy::{Access, Mapping, Span, memfd, populate, prefer_huge_pages, seal};
use crate::vocab::limits::ALIGNMENT;

/// Huge pages, where the host has reserved some: a copy of a gigabyte then needs 512 translations and not 262,144.
const HUGE_PAGE: usize = 2 << 20;

/// Shared memory of a fixed size, zeroed, not prefaulted: pages come with their first write.
#[derive(Debug)]
pub struct Segment {
    mapping: Mapping,
    fd: OwnedFd,
    page: usize,
    shareable: bool,
}

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
        prefer_huge_pages(segment.whole()).ok();
        Ok(segment)
    }

    fn map(len: usize, page: usize, pages: MemfdFlags) -> io::Result<Self> {
        let fd = memfd("kvtier-ram", len as u64, pages)?;
        let mapping = Mapping::new(&fd, len as u64, Access::WriteLater)?;
        let shareable = seal_for_reading(&fd, SealFlags::FUTURE_WRITE)?;
        Ok(Self { mapping, fd, page, shareable })
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
        self.mapping.len()
    }

    /// Has the kernel make all its pages now, whoever uses it meanwhile.
    pub(super) fn populate(&self) -> io::Result<()> {
        self.populate_part(0, self.size())
    }

    /// The same for `len` bytes from `at`, whole pages.
    pub(super) fn populate_part(&self, at: usize, len: usize) -> io::Result<()> {
        populate(self.span(at, len))
    }

    /// The descriptor, to be mapped by others.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Address of byte `at`, of which `len` are wanted.
    pub(super) fn address(&self, at: usize, len: usize) -> *mut u8 {
        self.span(at, len).base()
    }

    /// All of it.
    pub(super) fn whole(&self) -> Span<'_> {
        self.span(0, self.size())
    }

    fn span(&self, at: usize, len: usize) -> Span<'_> {
        let span = self.mapping.span(at as u64, len);
        span.unwrap_or_else(|| panic!("a slot ends within its segment"))
    }
}

/// Seals memory, so that who gets it can map it for reading and nothing else; whether this kernel can. It must know
/// `read_only`, the seal of Linux 5.1: where it does not, nobody gets the memory.
fn seal_for_reading(fd: &OwnedFd, read_only: SealFlags) -> io::Result<bool> {
    match seal(fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL | read_only) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{fcntl_add_seals, ftruncate};

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel for seals")]
    fn a_kernel_that_can_not_seal_memory_keeps_it_for_itself() {
        let fd = memfd("test", 4096, MemfdFlags::empty()).unwrap();
        assert!(!seal_for_reading(&fd, SealFlags::from_bits_retain(1 << 20)).unwrap(), "a seal that no kernel knows");
        assert!(seal_for_reading(&fd, SealFlags::FUTURE_WRITE).unwrap());
        assert!(Segment::new(8192).unwrap().is_shareable());
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel about a descriptor")]
    fn a_segment_is_page_aligned_zeroed_and_closed_on_exec() {
        let segment = Segment::new(8192).unwrap();
        assert!((segment.address(0, 8192) as usize).is_multiple_of(4096));
        assert!(segment.whole().to_vec().iter().all(|byte| *byte == 0));
        let flags = rustix::io::fcntl_getfd(segment.fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel for seals")]
    #[expect(unsafe_code, reason = "writes where a slot would lie")]
    fn who_gets_the_descriptor_can_read_it_and_nothing_else() {
        let segment = Segment::new(8192).unwrap();
        let map = |access| Mapping::new(segment.fd(), 8192, access);
        let read_only = map(Access::Read).unwrap();
        // SAFETY: nobody else has the segment.
        assert!(unsafe { segment.mapping.span_mut(0, 1) }.unwrap().write(0, &[7]));
        assert_eq!(read_only.span(0, 1).unwrap().to_vec(), [7], "as it is now");
        for access in [Access::Write, Access::WriteLater] {
            assert_eq!(Errno::from_io_error(&map(access).unwrap_err()), Some(Errno::PERM));
        }
        assert_eq!(rustix::io::pwrite(segment.fd(), b"x", 0).unwrap_err(), Errno::PERM);
        for size in [0, 4096, 16384] {
            assert_eq!(ftruncate(segment.fd(), size).unwrap_err(), Errno::PERM, "{size}");
        }
        let more = fcntl_add_seals(segment.fd(), SealFlags::WRITE);
        assert_eq!(more.unwrap_err(), Errno::PERM, "nor shut the daemon out");
    }

    #[test]
    #[should_panic(expected = "within its segment")]
    fn an_address_past_the_end_is_refused() {
        Segment::new(4096).unwrap().address(1, 4096);
    }
}
