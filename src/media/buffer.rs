//! A heap buffer that a device can read into past the page cache.
#![expect(unsafe_code, reason = "allocates with an alignment")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytes::Bytes;

use crate::copy::{Span, SpanMut};
use crate::vocab::limits::ALIGNMENT;

/// Zeroed bytes, aligned to 4 KiB and a multiple of 4 KiB long.
#[derive(Debug)]
pub struct AlignedBuf {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: owns its bytes, as a `Vec<u8>` does.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// At least `len` bytes, and at least 4 KiB.
    #[must_use]
    pub fn with_room_for(len: u32) -> Self {
        let align = ALIGNMENT as usize;
        let size = (len as usize).max(1).next_multiple_of(align);
        let Ok(layout) = Layout::from_size_align(size, align) else { handle_alloc_error(Layout::new::<u8>()) };
        // SAFETY: the size is not 0.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, layout }
    }

    /// Where its bytes are, for the kernel.
    pub(super) fn span(&self) -> Span<'_> {
        // SAFETY: allocated with this size; a `&mut` to the bytes borrows the buffer to itself.
        unsafe { Span::new(self.base.as_ptr(), self.layout.size()) }
    }

    /// The same, to be filled.
    pub(super) fn span_mut(&mut self) -> SpanMut<'_> {
        // SAFETY: as in `span`, and `&mut self` is exclusive.
        unsafe { SpanMut::new(self.base.as_ptr(), self.layout.size()) }
    }

    /// The first `len` bytes as `Bytes`, not copied; all of them where it has fewer.
    #[must_use]
    pub fn into_bytes(self, len: usize) -> Bytes {
        let mut bytes = Bytes::from_owner(self);
        bytes.truncate(len);
        bytes
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: allocated with this size, and zeroed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.layout.size()) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated in `with_room_for` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_and_rounded_up() {
        for (asked, len) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192)] {
            let buffer = AlignedBuf::with_room_for(asked);
            assert!((buffer.as_ptr() as usize).is_multiple_of(4096));
            assert_eq!(buffer.len(), len);
        }
    }

    #[test]
    fn bytes_of_it_are_cut_to_the_payload() {
        let mut buffer = AlignedBuf::with_room_for(5);
        buffer[..5].copy_from_slice(b"hello");
        assert_eq!(&buffer.into_bytes(5)[..], b"hello");
    }
}
