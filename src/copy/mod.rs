//! Memory that two processes share: mapped once, copied past the caches, and never a Rust reference.
//!
//! A reference promises that bytes stay as they are, or that nobody else writes them. Neither holds for memory that an engine,
//! a worker's daemon or the kernel writes at that moment, so it is an address and a length here ([`Span`]), and is copied.
//! What a copy is worth is found out from the copy (its checksum) or from the slot's word ([`held`]), after the last read.
//!
//! **Past the caches.** A store into a line that no cache holds reads the line first, so `memcpy` of a gigabyte moves three; a
//! streaming store moves two. Each chunk is checksummed from a copy of its own in the first-level cache: it was made by the
//! same loads as the bytes at the destination, and nobody else can change it. (Measured on 2 cores of an EPYC of 2022, 1 MiB
//! blocks, GB/s: `memcpy` 10.5, streamed 17.1, streamed and checksummed 14.8; chunks of 4 to 8 KiB are best, of 1 or 16 KiB a
//! quarter slower.)
#![expect(unsafe_code, reason = "copies memory that another process may write, with streaming stores")]

mod held;
#[cfg(not(miri))]
mod kernel;
#[cfg(miri)]
#[path = "kernel_miri.rs"]
mod kernel;
mod mapping;
mod span;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as x86;
use std::sync::atomic::{Ordering, compiler_fence};

#[cfg(feature = "media")]
pub(crate) use held::SharedWord;
pub(crate) use held::held;
pub(crate) use kernel::{memfd, seal};
#[cfg(feature = "media")]
pub(crate) use kernel::{populate, prefer_huge_pages};
pub(crate) use mapping::{Access, Mapping};
pub use span::{Span, SpanMut};

use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::{COPY_CHUNK_BYTES, COPY_STREAM_BYTES};

/// Bytes of a cache line: streaming stores must fill whole ones, or each costs a read again.
const LINE: usize = 64;

/// Whether so many bytes are stored past the caches. What is small is likely to be read at once, and should be in one then.
const fn streams(bytes: usize) -> bool {
    cfg!(all(target_arch = "x86_64", not(miri))) && bytes >= COPY_STREAM_BYTES
}

/// Copies as many bytes from `src` as `dst` has, and takes what was copied into `crc` where there is one.
///
/// # Safety
/// That many bytes at `src` must be mapped, and none of them belong to `dst`. Another process may write them meanwhile: the
/// checksum is that of the copy, and whether the copy is worth anything the caller must find out afterwards.
// Not inlined: no compiler sees what a caller does with the source before or after.
#[inline(never)]
pub(crate) unsafe fn copy_from(dst: &mut [u8], src: *const u8, mut crc: Option<&mut PayloadCrc>) {
    let head = if streams(dst.len()) { dst.as_ptr().align_offset(LINE).min(dst.len()) } else { dst.len() };
    let (head, rest) = dst.split_at_mut(head);
    let (lines, tail) = rest.split_at_mut(rest.len() / LINE * LINE);
    // SAFETY: the three parts follow each other, and together are as long as `dst`.
    unsafe {
        cached(head, src, crc.as_deref_mut());
        streamed(lines, src.add(head.len()), crc.as_deref_mut());
        cached(tail, src.add(head.len() + lines.len()), crc);
    }
}

/// Copies `src` to `dst`.
///
/// # Safety
/// As many bytes at `dst` must be mapped, and none of them belong to `src` or to any reference. Another process may read or
/// write them meanwhile: what it makes of them is its own affair.
#[cfg(feature = "media")]
#[inline(never)]
pub(crate) unsafe fn copy_to(dst: *mut u8, src: &[u8]) {
    let head = if streams(src.len()) { dst.align_offset(LINE).min(src.len()) } else { src.len() };
    let (head, rest) = src.split_at(head);
    let (whole, tail) = rest.split_at(rest.len() / LINE * LINE);
    // SAFETY: the three parts follow each other, and together are as long as `src`.
    unsafe {
        std::ptr::copy_nonoverlapping(head.as_ptr(), dst, head.len());
        let dst = dst.add(head.len());
        #[cfg(target_arch = "x86_64")]
        if !whole.is_empty() {
            lines(dst, whole.as_ptr(), whole.len(), |_, _| {});
            x86::_mm_sfence();
        }
        #[cfg(not(target_arch = "x86_64"))]
        std::ptr::copy_nonoverlapping(whole.as_ptr(), dst, whole.len());
        std::ptr::copy_nonoverlapping(tail.as_ptr(), dst.add(whole.len()), tail.len());
    }
}

/// Copies memory that nobody writes meanwhile, as [`copy_from`] does; both must be of one length.
pub(crate) fn copy_slice(dst: &mut [u8], src: &[u8], crc: Option<&mut PayloadCrc>) {
    assert_eq!(dst.len(), src.len(), "a copy is as long as what is copied");
    // SAFETY: `src` has as many bytes, and is borrowed beside `dst`.
    unsafe { copy_from(dst, src.as_ptr(), crc) };
}

/// # Safety
/// As [`copy_from`].
unsafe fn cached(dst: &mut [u8], mut src: *const u8, mut crc: Option<&mut PayloadCrc>) {
    for to in dst.chunks_mut(COPY_CHUNK_BYTES) {
        // SAFETY: the next bytes of the source, as many as the chunk has; at most one past its end at last.
        unsafe {
            std::ptr::copy_nonoverlapping(src, to.as_mut_ptr(), to.len());
            src = src.add(to.len());
        }
        // The copy and not the source, which may change between two looks: nor may the compiler look there instead.
        compiler_fence(Ordering::SeqCst);
        if let Some(crc) = crc.as_deref_mut() {
            crc.update(to);
        }
    }
}

/// One chunk as it was read.
#[cfg(target_arch = "x86_64")]
#[repr(align(64))]
struct Chunk([u8; COPY_CHUNK_BYTES]);

/// Whole lines, aligned at the destination.
///
/// # Safety
/// As [`copy_from`].
#[cfg(target_arch = "x86_64")]
unsafe fn streamed(dst: &mut [u8], mut src: *const u8, mut crc: Option<&mut PayloadCrc>) {
    if dst.is_empty() {
        return;
    }
    let mut read = Chunk([0; COPY_CHUNK_BYTES]);
    for to in dst.chunks_mut(COPY_CHUNK_BYTES) {
        // SAFETY: the next bytes of the source, as many as the chunk has: whole lines, aligned at the destination because
        // the first is and a chunk has whole ones.
        unsafe {
            match crc.as_deref_mut() {
                None => lines(to.as_mut_ptr(), src, to.len(), |_, _| {}),
                Some(crc) => {
                    let keep = read.0.as_mut_ptr();
                    lines(to.as_mut_ptr(), src, to.len(), |at, line| {
                        x86::_mm_store_si128(keep.add(at).cast(), line[0]);
                        x86::_mm_store_si128(keep.add(at + 16).cast(), line[1]);
                        x86::_mm_store_si128(keep.add(at + 32).cast(), line[2]);
                        x86::_mm_store_si128(keep.add(at + 48).cast(), line[3]);
                    });
                    crc.update(&read.0[..to.len()]);
                }
            }
            src = src.add(to.len());
        }
    }
    // Streaming stores are ordered with no other: whoever is told of these bytes must see them.
    // SAFETY: every processor of this kind has it.
    unsafe { x86::_mm_sfence() };
}

/// Streams `len` bytes from `src` to `dst`; `keep` sees each line and where it is.
///
/// # Safety
/// `dst` is aligned to a line and `len` is whole ones; as many bytes must be mapped at both.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn lines(dst: *mut u8, src: *const u8, len: usize, keep: impl Fn(usize, [x86::__m128i; 4])) {
    for at in (0..len).step_by(LINE) {
        // SAFETY: within both, by the caller's promise.
        unsafe {
            let (src, dst) = (src.add(at), dst.add(at));
            let line = [0, 16, 32, 48].map(|part| x86::_mm_loadu_si128(src.add(part).cast()));
            x86::_mm_stream_si128(dst.cast(), line[0]);
            x86::_mm_stream_si128(dst.add(16).cast(), line[1]);
            x86::_mm_stream_si128(dst.add(32).cast(), line[2]);
            x86::_mm_stream_si128(dst.add(48).cast(), line[3]);
            keep(at, line);
        }
    }
}

/// Elsewhere nothing is streamed.
#[cfg(not(target_arch = "x86_64"))]
use cached as streamed;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::BlockKey;
    use crate::vocab::crc::payload_crc;

    #[test]
    fn the_copy_is_equal_and_so_is_its_checksum_wherever_it_begins() {
        let key = BlockKey::from_bytes([5; 32]);
        let edges = [COPY_CHUNK_BYTES, COPY_STREAM_BYTES, COPY_STREAM_BYTES + COPY_CHUNK_BYTES];
        // Nothing is streamed under Miri, which takes a minute for a megabyte.
        let edges = if cfg!(miri) { &edges[..1] } else { &edges[..] };
        let lengths = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1, edge + LINE + 17]);
        for len in [0, 1].into_iter().chain(lengths) {
            for (from, to) in [(0, 0), (3, 0), (0, 1), (5, 17), (0, 63)] {
                let src: Vec<u8> = (0..len + from).map(|at| (at % 251) as u8).collect();
                for crc in [None, Some(PayloadCrc::new(&key))] {
                    let (mut dst, mut crc) = (vec![0xee; len + to + 1], crc);
                    // SAFETY: `src` has so many bytes from there.
                    unsafe { copy_from(&mut dst[to..to + len], src[from..].as_ptr(), crc.as_mut()) };
                    assert_eq!(dst[to..to + len], src[from..], "{len} bytes from {from} to {to}");
                    assert!(dst[..to].iter().chain(&dst[to + len..]).all(|byte| *byte == 0xee), "only these");
                    assert!(crc.is_none_or(|crc| crc.finish() == payload_crc(&key, &src[from..])));
                }
                #[cfg(feature = "media")]
                {
                    let mut dst = vec![0xee; len + to + 1];
                    assert!(SpanMut::of(&mut dst[to..]).stream(0, &src[from..]));
                    assert_eq!(dst[to..to + len], src[from..], "{len} bytes from {from} to {to}, the other way");
                    assert!(dst[..to].iter().chain(&dst[to + len..]).all(|byte| *byte == 0xee), "only these");
                }
            }
        }
    }
}
