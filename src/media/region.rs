//! Memory that an engine and the daemon share, both writing: an engine's own host pool, or staging memory that the daemon
//! made for a worker. What lies in it belongs to the engine; the daemon copies in and out, and believes nothing it holds.
#![expect(unsafe_code, reason = "hands out memory that another process writes")]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_get_seals, fstat};

use super::lock;
use crate::copy::{Access, Mapping, Span, SpanMut, memfd, seal};
use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::ALIGNMENT;

/// Why a descriptor is no region.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// It can be cut short: then a copy would be a signal instead of an error.
    #[error("its memory can shrink: make it with memfd_create(MFD_ALLOW_SEALING) and add F_SEAL_SHRINK")]
    CanShrink,
    /// It is sealed against what it is for.
    #[error("it is sealed against writing: loads could not write to it")]
    CanNotWrite,
    /// It has not as many bytes as were said.
    #[error("bytes is {said}, its memory has {found}")]
    TooShort {
        /// What was said.
        said: u64,
        /// What is there.
        found: u64,
    },
    /// It begins or ends within a page.
    #[error("bytes is {0}, it must be a multiple of 4096 and not 0")]
    Unaligned(u64),
    /// The kernel refuses to map it.
    #[error("it can't be mapped: {0}")]
    Map(#[from] io::Error),
}

/// Memory shared with an engine.
#[derive(Debug)]
pub struct Region {
    mapping: Mapping,
    fd: OwnedFd,
    /// What loads are writing to now: start and end. Two loads never write the same bytes.
    claimed: Mutex<BTreeMap<usize, usize>>,
}

impl Region {
    /// Maps an engine's memory, with all its pages.
    ///
    /// # Errors
    /// For memory that can shrink, can't be written, is shorter than `bytes`, or can't be mapped.
    pub fn attach(fd: OwnedFd, bytes: u64) -> Result<Arc<Self>, RegionError> {
        if bytes == 0 || !bytes.is_multiple_of(ALIGNMENT) {
            return Err(RegionError::Unaligned(bytes));
        }
        // What can't be sealed says so here.
        let seals = fcntl_get_seals(&fd).map_err(|_| RegionError::CanShrink)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(RegionError::CanShrink);
        }
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(RegionError::CanNotWrite);
        }
        let found = u64::try_from(fstat(&fd).map_err(io::Error::from)?.st_size).unwrap_or_default();
        if found < bytes {
            return Err(RegionError::TooShort { said: bytes, found });
        }
        Ok(Arc::new(Self::map(fd, bytes)?))
    }

    /// Makes memory to be handed to a worker, who can't cut it short.
    ///
    /// # Errors
    /// When the kernel has none.
    pub fn make(bytes: u64) -> Result<Arc<Self>, RegionError> {
        if bytes == 0 || !bytes.is_multiple_of(ALIGNMENT) {
            return Err(RegionError::Unaligned(bytes));
        }
        let fd = memfd("kvtier-staging", bytes, MemfdFlags::empty())?;
        seal(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(io::Error::from)?;
        Ok(Arc::new(Self::map(fd, bytes)?))
    }

    fn map(fd: OwnedFd, bytes: u64) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::new(&fd, bytes, Access::Write)?, fd, claimed: Mutex::default() })
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.mapping.len()
    }

    /// The descriptor, to be mapped by others.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its parts of at most `bytes`.
    pub(super) fn parts(&self, bytes: usize) -> impl Iterator<Item = Span<'_>> {
        let parts = (0..self.size()).step_by(bytes);
        parts.filter_map(move |at| self.mapping.span(at as u64, bytes.min(self.size() - at)))
    }

    /// The sole right to write `len` bytes from `at`; `None` past the end, or where another load writes.
    #[must_use]
    pub fn claim(self: &Arc<Self>, at: u64, len: usize) -> Option<RegionWriter> {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(len).filter(|end| *end <= self.size() && len > 0)?;
        let mut claimed = lock(&self.claimed);
        // The claim that begins last before this one ends is the only one that can reach into it.
        if claimed.range(..end).next_back().is_some_and(|(_, other)| *other > at) {
            return None;
        }
        claimed.insert(at, end);
        Some(RegionWriter { region: Arc::clone(self), at, len })
    }

    /// Copies `to.len()` bytes from `at` out of it, and takes what was copied into `crc`. False past the end. The engine
    /// may write meanwhile: then the copy is what the engine made of it, and the checksum is the copy's.
    #[must_use]
    pub fn copy_out(&self, at: u64, to: &mut [u8], crc: &mut PayloadCrc) -> bool {
        self.mapping.span(at, to.len()).is_some_and(|span| span.copy_out(0, to, Some(crc)))
    }
}

/// The right to write some bytes of a region; ends when dropped. It keeps the region mapped, also when its engine is gone.
#[derive(Debug)]
pub struct RegionWriter {
    region: Arc<Region>,
    at: usize,
    len: usize,
}

impl RegionWriter {
    /// Where the bytes are. They are this load's by the engine's word: one that writes to them meanwhile spoils its own load.
    #[must_use]
    pub fn span(&self) -> Span<'_> {
        // SAFETY: within the mapping, by `claim`; nobody makes a reference to a region's bytes.
        unsafe { Span::new(self.address(), self.len) }
    }

    /// The same, to be filled.
    pub fn span_mut(&mut self) -> SpanMut<'_> {
        // SAFETY: as in `span`; no other writer of this process has these bytes, and `&mut self` is exclusive.
        unsafe { SpanMut::new(self.address(), self.len) }
    }

    /// Copies `from` to `at`, past the caches; false where it would not fit.
    #[must_use]
    pub fn copy_in(&mut self, at: usize, from: &[u8]) -> bool {
        self.span_mut().stream(at, from)
    }

    fn address(&self) -> *mut u8 {
        let address = self.region.mapping.address(self.at as u64, self.len);
        address.unwrap_or_else(|| unreachable!("a claim is within its region"))
    }
}

impl Drop for RegionWriter {
    fn drop(&mut self) {
        lock(&self.region.claimed).remove(&self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::BlockKey;
    use crate::vocab::crc::payload_crc;

    fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
        let fd = memfd("test", bytes, MemfdFlags::empty()).unwrap();
        seal(&fd, seals).unwrap();
        fd
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel for seals")]
    fn only_memory_that_can_not_shrink_and_can_be_written_is_attached() {
        let attach = |seals, bytes| Region::attach(memory(8192, seals), bytes);
        assert_eq!(attach(SealFlags::SHRINK, 8192).unwrap().size(), 8192);
        assert!(matches!(attach(SealFlags::empty(), 8192), Err(RegionError::CanShrink)));
        assert!(matches!(attach(SealFlags::SHRINK | SealFlags::WRITE, 8192), Err(RegionError::CanNotWrite)));
        assert!(matches!(attach(SealFlags::SHRINK, 12288), Err(RegionError::TooShort { said: 12288, found: 8192 })));
        for bytes in [0, 4095, 5000] {
            assert!(matches!(attach(SealFlags::SHRINK, bytes), Err(RegionError::Unaligned(_))), "{bytes}");
        }
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(Region::attach(socket.into(), 4096), Err(RegionError::CanShrink)));
    }

    #[test]
    fn no_two_loads_write_the_same_bytes() {
        let region = Region::make(16384).unwrap();
        let first = region.claim(4096, 4096).unwrap();
        for (at, len) in [(4096, 4096), (0, 4097), (8191, 1), (0, 16384), (5000, 10)] {
            assert!(region.claim(at, len).is_none(), "{len} bytes from {at}");
        }
        let (before, after) = (region.claim(0, 4096), region.claim(8192, 8192));
        assert!(before.is_some() && after.is_some());
        drop(first);
        assert!(region.claim(4096, 4096).is_some());
        let mut whole = region.claim(4096, 4096).unwrap();
        assert!(whole.copy_in(4000, &[5; 96]) && whole.span().to_vec()[4000..] == [5; 96]);
        assert!(!whole.copy_in(4001, &[5; 96]) && !whole.copy_in(usize::MAX, &[5; 2]));
        for (at, len) in [(16384, 1), (0, 0), (1, 16384), (u64::MAX, 4096)] {
            assert!(region.claim(at, len).is_none(), "{len} bytes from {at}");
        }
    }

    #[test]
    fn what_is_copied_out_has_the_checksum_of_what_was_written() {
        let (region, key) = (Region::make(1 << 20).unwrap(), BlockKey::from_bytes([1; 32]));
        let bytes: Vec<u8> = (0..100_000).map(|at| (at % 251) as u8).collect();
        assert!(region.claim(8192, bytes.len()).unwrap().copy_in(0, &bytes));
        let (mut copy, mut crc) = (vec![0; bytes.len()], PayloadCrc::new(&key));
        assert!(region.copy_out(8192, &mut copy, &mut crc));
        assert_eq!((copy == bytes, crc.finish()), (true, payload_crc(&key, &bytes)));
        assert!(!region.copy_out((1 << 20) - 10, &mut copy, &mut PayloadCrc::new(&key)));
    }
}
