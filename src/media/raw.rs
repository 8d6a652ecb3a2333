//! The bare device, to be measured beside [`Device`](super::Device): one loop on one ring, nothing checked but lengths.
#![expect(unsafe_code, reason = "hands addresses to the kernel")]

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::IoUring;

use super::device::Op;
use super::ring::{Transfer, build, entry, iovecs};
use super::segment::Segment;
use super::slot_file::{OpenError, SlotFile};
use crate::vocab::limits::{DEVICE_OPS, EXTENT_BYTES_MAX, LOCK_WAIT};

/// A slot file and a ring on it, with memory of its own.
pub struct RawDrive {
    // First: closed before the memory goes.
    ring: IoUring,
    _file: SlotFile,
    memory: Option<Segment>,
    is_registered: bool,
}

impl RawDrive {
    /// Opens or creates a slot file, as [`open`](super::open) does, with memory for `inflight_bytes` (1 GiB at most),
    /// registered where the kernel lets us.
    ///
    /// # Errors
    /// As `open`, or where there is no io_uring.
    pub fn open(path: &Path, len: u64, inflight_bytes: u64) -> Result<Self, OpenError> {
        let file = SlotFile::open(path, len, LOCK_WAIT)?;
        let fail = |doing| move |source| OpenError::Io { path: path.into(), doing, source };
        let bytes = usize::try_from(inflight_bytes.min(EXTENT_BYTES_MAX)).unwrap_or(1 << 30);
        let memory = Segment::new(bytes).map_err(fail("map memory"))?;
        memory.populate().map_err(fail("map memory"))?;
        let ring = build().map_err(fail("use io_uring"))?;
        ring.submitter().register_files(&[file.file.as_raw_fd()]).map_err(fail("register"))?;
        // SAFETY: mapped, and for longer than the ring is there; only its address and length are read.
        let whole = [IoSlice::new(unsafe { std::slice::from_raw_parts(memory.address(0, bytes), bytes) })];
        // SAFETY: as above.
        let is_registered = unsafe { ring.submitter().register_buffers(iovecs(&whole)) }.is_ok();
        Ok(Self { ring, _file: file, memory: Some(memory), is_registered })
    }

    /// Moves one block of `block` bytes at each of `offsets`, as many at once as the memory holds, and says how long it
    /// took.
    ///
    /// # Errors
    /// When the kernel refuses or moves fewer bytes.
    pub fn round(&mut self, op: Op, block: u32, offsets: &[u64]) -> io::Result<Duration> {
        let places = self.memory.as_ref().map_or(0, Segment::size) / block as usize;
        if places == 0 {
            return Err(io::Error::other("no memory for a block"));
        }
        let mut free: Vec<usize> = (0..places.min(DEVICE_OPS)).collect();
        let (began, mut left, mut under_way, mut failed) = (Instant::now(), offsets.iter(), 0, None);
        loop {
            while let Some(&offset) = left.as_slice().first()
                && failed.is_none()
                && let Some(place) = free.pop()
            {
                left.next();
                match self.push(op, block, offset, place) {
                    Ok(()) => under_way += 1,
                    Err(error) => failed = Some(error),
                }
            }
            if under_way == 0 {
                return failed.map_or_else(|| Ok(began.elapsed()), Err);
            }
            if let Err(error) = self.ring.submit_and_wait(1) {
                // Something may still land in it: it is never used again.
                _ = self.memory.take().map(|memory| Box::leak(Box::new(memory)));
                return Err(error);
            }
            for answer in self.ring.completion() {
                under_way -= 1;
                free.push(answer.user_data() as usize);
                if answer.result() != block.cast_signed() {
                    let words = format!("{op:?} of {block} bytes gave {}", answer.result());
                    failed = Some(io::Error::other(words));
                }
            }
        }
    }

    fn push(&mut self, op: Op, block: u32, offset: u64, place: usize) -> io::Result<()> {
        let Some(memory) = &self.memory else { return Err(io::ErrorKind::InvalidInput.into()) };
        let address = memory.address(place * block as usize, block as usize);
        let segment = self.is_registered.then_some(0);
        let transfer = Transfer { op, id: place as u64, offset, address, length: block, segment };
        // SAFETY: the memory is this drive's and nobody refers to it. `round` does not return before all has landed, or
        // leaves the memory to the kernel.
        let pushed = unsafe { self.ring.submission().push(&entry(transfer)) };
        pushed.map_err(|_| io::Error::other("the ring is full"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        let Ok(mut raw) = RawDrive::open(&path, 1 << 20, 32 << 10) else { return };
        // SAFETY: nothing is under way.
        unsafe { raw.memory.as_ref().unwrap().address(0, 32 << 10).write_bytes(7, 32 << 10) };
        let offsets: Vec<u64> = (0..256).step_by(2).map(|block| block * 4096).collect();
        raw.round(Op::Write, 4096, &offsets).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert!(found.chunks(8192).all(|pair| pair[..4096] == [7; 4096] && pair[4096..] == [0; 4096]));
        raw.round(Op::Read, 4096, &offsets).unwrap();
        assert!(raw.round(Op::Read, 4096, &[2 << 20, 0, 4096]).is_err(), "past the end");
        raw.round(Op::Read, 4096, &offsets).unwrap();
    }
}
