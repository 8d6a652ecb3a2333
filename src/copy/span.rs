//! Memory that somebody else may write at this moment: an address and a length, and copies.
#![expect(unsafe_code, reason = "copies memory that somebody else may write")]

use std::cell::UnsafeCell;
use std::marker::PhantomData;

use super::copy_from;
#[cfg(feature = "media")]
use super::copy_to;
use crate::vocab::BlockKey;
use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::COPY_CHUNK_BYTES;

/// Mapped bytes that may change at any moment, to be copied out. While it lives, they stay mapped, and this process has no
/// `&mut` to them.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    base: *mut u8,
    len: usize,
    memory: PhantomData<&'a UnsafeCell<u8>>,
}

impl<'a> Span<'a> {
    /// # Safety
    /// `len` bytes from `base` are mapped for as long as `'a`, and this process makes no `&mut` to them meanwhile.
    pub(crate) unsafe fn new(base: *mut u8, len: usize) -> Self {
        Self { base, len, memory: PhantomData }
    }

    /// How many bytes.
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Where they begin. Whoever reads there looks at bytes that may change between two looks.
    #[must_use]
    pub fn address(self) -> *const u8 {
        self.base
    }

    /// As [`address`](Self::address), for the kernel, whose calls take it so also where they only read.
    #[cfg(feature = "media")]
    pub(crate) fn base(self) -> *mut u8 {
        self.base
    }

    /// `len` of them from `at`; `None` past the end.
    #[must_use]
    pub fn part(self, at: usize, len: usize) -> Option<Self> {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len);
        fits.then(|| Self { base: self.base.wrapping_add(at), len, memory: PhantomData })
    }

    /// Copies as many bytes as `to` has from `at`; false, and nothing copied, past the end.
    #[must_use]
    pub fn read(self, at: usize, to: &mut [u8]) -> bool {
        self.copy_out(at, to, None)
    }

    /// As [`read`](Self::read), and takes what was copied into `crc`.
    pub(crate) fn copy_out(self, at: usize, to: &mut [u8], crc: Option<&mut PayloadCrc>) -> bool {
        let Some(part) = self.part(at, to.len()) else { return false };
        // SAFETY: mapped, as many bytes as `to` has, and no part of it, since `to` is a `&mut`.
        unsafe { copy_from(to, part.base, crc) };
        true
    }

    /// A copy of all of them.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        let copied = self.read(0, &mut bytes);
        debug_assert!(copied, "as long as it is");
        bytes
    }

    /// The checksum of a copy of them, as the payload of `key`. The copy is made and forgotten piece by piece.
    #[must_use]
    pub fn checksum(self, key: &BlockKey) -> u64 {
        let (mut crc, mut piece) = (PayloadCrc::new(key), [0; COPY_CHUNK_BYTES]);
        for at in (0..self.len).step_by(COPY_CHUNK_BYTES) {
            let len = COPY_CHUNK_BYTES.min(self.len - at);
            let copied = self.copy_out(at, &mut piece[..len], Some(&mut crc));
            debug_assert!(copied, "within it");
        }
        crc.finish()
    }
}

/// The same, to be written as well: by one caller of this process at a time.
#[derive(Debug)]
pub struct SpanMut<'a>(Span<'a>);

impl<'a> SpanMut<'a> {
    /// # Safety
    /// As [`Span::new`]; and this process makes no reference at all to the bytes meanwhile, and has no other `SpanMut` of them.
    pub(crate) unsafe fn new(base: *mut u8, len: usize) -> Self {
        // SAFETY: the caller's promise says more.
        Self(unsafe { Span::new(base, len) })
    }

    /// Memory of this process's own.
    #[must_use]
    pub fn of(bytes: &'a mut [u8]) -> Self {
        // SAFETY: borrowed for as long as `'a`, by nobody else.
        unsafe { Self::new(bytes.as_mut_ptr(), bytes.len()) }
    }

    /// To be read.
    #[must_use]
    pub fn span(&self) -> Span<'_> {
        self.0
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where they begin, for whoever makes them in place.
    #[must_use]
    pub fn address(&mut self) -> *mut u8 {
        self.0.base
    }

    /// `len` of them from `at`; `None` past the end.
    #[must_use]
    pub fn part(&mut self, at: usize, len: usize) -> Option<SpanMut<'_>> {
        self.0.part(at, len).map(SpanMut)
    }

    /// Copies `from` to `at`; false, and nothing copied, past the end.
    #[must_use]
    pub fn write(&mut self, at: usize, from: &[u8]) -> bool {
        let Some(part) = self.0.part(at, from.len()) else { return false };
        // SAFETY: mapped, as many bytes as `from` has, and no part of it, since there is no reference to them.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), part.base, from.len()) };
        true
    }

    /// As [`write`](Self::write), past the caches: for what this process does not read again.
    #[cfg(feature = "media")]
    pub(crate) fn stream(&mut self, at: usize, from: &[u8]) -> bool {
        let Some(part) = self.0.part(at, from.len()) else { return false };
        // SAFETY: as in `write`.
        unsafe { copy_to(part.base, from) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::crc::payload_crc;

    #[test]
    fn what_is_written_is_read_and_nothing_past_the_end() {
        let mut memory = vec![0; 100];
        let mut span = SpanMut::of(&mut memory);
        assert!(span.write(3, b"abc") && span.part(50, 50).unwrap().write(49, b"z"));
        assert!(!span.write(98, b"abc") && !span.write(usize::MAX, b"a") && span.part(51, 50).is_none());
        let mut seen = [0; 4];
        assert!(span.span().read(2, &mut seen) && seen == *b"\0abc");
        assert!(!span.span().read(97, &mut seen) && !span.span().read(usize::MAX, &mut seen));
        assert_eq!((span.span().part(4, 2).unwrap().to_vec(), span.len()), (b"bc".to_vec(), 100));
        assert_eq!((memory[..7].to_vec(), memory[99]), (b"\0\0\0abc\0".to_vec(), b'z'));
    }

    #[test]
    fn the_checksum_is_that_of_the_bytes_whatever_their_number() {
        let key = BlockKey::from_bytes([3; 32]);
        for len in [0, 1, COPY_CHUNK_BYTES - 1, COPY_CHUNK_BYTES, 3 * COPY_CHUNK_BYTES + 7] {
            let mut memory: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let expected = payload_crc(&key, &memory);
            assert_eq!(SpanMut::of(&mut memory).span().checksum(&key), expected, "{len}");
        }
    }
}
