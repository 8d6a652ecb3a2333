//! `pread` and `pwrite` by address: the memory may be an engine's, which writes there at the same time, so that there is no slice
//! of it to hand over.
#![expect(unsafe_code, reason = "hands addresses to the kernel")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::copy::{Span, SpanMut};

/// Reads at `at` of the file to memory: how many bytes came.
pub(super) fn pread(file: &File, to: &mut SpanMut<'_>, at: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(at).map_err(io::Error::other)?;
    // SAFETY: mapped for as long as the span, which nobody else of this process has.
    answer(unsafe { libc::pread(file.as_raw_fd(), to.address().cast(), to.len(), offset) })
}

/// Writes memory at `at` of the file: how many bytes went.
pub(super) fn pwrite(file: &File, from: Span<'_>, at: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(at).map_err(io::Error::other)?;
    // SAFETY: mapped for as long as the span.
    answer(unsafe { libc::pwrite(file.as_raw_fd(), from.address().cast(), from.len(), offset) })
}

fn answer(moved: isize) -> io::Result<usize> {
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
