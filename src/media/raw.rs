//! The bare device, to be measured beside [`Device`](super::Device): one loop on one ring, nothing checked but lengths. On
//! the same file and in the same memory: where either lies can make a difference of two on virtual machines.
#![expect(unsafe_code, reason = "hands addresses to the kernel")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::IoUring;

use super::arena::Arena;
use super::device::Op;
use super::refusal::Refusal;
use super::ring::{Transfer, build, entry, iovecs};
use super::slot::SlotWriter;
use super::slot_file::open_direct;
use crate::vocab::limits::DEVICE_OPS;
use crate::vocab::{SlotClass, SlotId};

/// An open file and a ring on it.
pub struct RawDrive {
    // First: closed before the memory that it names.
    ring: IoUring,
    _file: File,
    arena: Arc<Arena>,
    is_registered: bool,
}

impl RawDrive {
    /// Opens a file that is there, past the page cache where that is possible, to move bytes between it and slots of
    /// `arena`, which are registered where the kernel lets us. It takes no lock: the file may be a slot file in use.
    ///
    /// # Errors
    /// When the file can't be opened, or there is no io_uring: then with words on what to do about it.
    pub fn open(path: &Path, arena: Arc<Arena>) -> io::Result<Self> {
        let (file, _) = open_direct(path)?;
        let ring = build().map_err(|error| io::Error::other(Refusal::Setup(error).sentence()))?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let whole = |segment: &super::Segment| {
            // SAFETY: mapped for as long as the arena is there; only its address and length are read.
            IoSlice::new(unsafe { slice::from_raw_parts(segment.address(0, segment.size()), segment.size()) })
        };
        let segments: Vec<_> = arena.segments().iter().map(whole).collect();
        // SAFETY: as above.
        let is_registered = unsafe { ring.submitter().register_buffers(iovecs(&segments)) }.is_ok();
        Ok(Self { ring, _file: file, arena, is_registered })
    }

    /// Moves one block of `class` at each of `offsets`, as many at once as there are slots that nobody has, and says how
    /// long it took.
    ///
    /// # Errors
    /// When the kernel refuses or moves fewer bytes.
    pub fn round(&mut self, op: Op, class: SlotClass, offsets: &[u64]) -> io::Result<Duration> {
        let slots = self.claim(class);
        let mut free: Vec<usize> = (0..slots.len().min(DEVICE_OPS)).collect();
        if free.is_empty() {
            return Err(io::Error::other("no RAM slot is free"));
        }
        let (began, mut left, mut under_way, mut failed) = (Instant::now(), offsets.iter(), 0, None);
        loop {
            while let Some(&offset) = left.as_slice().first()
                && failed.is_none()
                && let Some(place) = free.pop()
            {
                left.next();
                if self.push(op, &slots, place, offset) {
                    under_way += 1;
                } else {
                    failed = Some(io::Error::other("the ring is full"));
                }
            }
            if under_way == 0 {
                return failed.map_or_else(|| Ok(began.elapsed()), Err);
            }
            if let Err(error) = self.ring.submit_and_wait(1) {
                // Something may still land in them: they are never used again.
                Box::leak(Box::new(slots));
                return Err(error);
            }
            for answer in self.ring.completion() {
                under_way -= 1;
                free.push(answer.user_data() as usize);
                if answer.result() != class.bytes().cast_signed() {
                    failed = Some(io::Error::other(format!("{op:?} of {class:?} gave {}", answer.result())));
                }
            }
        }
    }

    fn push(&mut self, op: Op, slots: &[SlotWriter], place: usize, offset: u64) -> bool {
        let (bytes, slot) = (slots[place].bytes(), slots[place].slot());
        let address = bytes.as_ptr().cast_mut();
        let segment = self.is_registered.then_some(slot.extent);
        let transfer = Transfer { op, id: place as u64, offset, address, length: bytes.len() as u32, segment };
        // SAFETY: the slot is claimed, and nobody refers to its bytes. `round` keeps it until all has landed, or for ever.
        unsafe { self.ring.submission().push(&entry(transfer)) }.is_ok()
    }

    /// All slots that nobody has.
    fn claim(&self, class: SlotClass) -> Vec<SlotWriter> {
        let shape = self.arena.shape();
        let extents = u16::try_from(shape.extents()).unwrap_or(u16::MAX);
        let slots = (0..extents).flat_map(|extent| {
            let slots = u16::try_from(shape.slots(extent, class)).unwrap_or(u16::MAX);
            (0..slots).map(move |index| SlotId { extent, index })
        });
        slots.filter_map(|slot| self.arena.writer(slot, class)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot_file::SlotFile;
    use super::*;
    use crate::vocab::{ByteCount, TierShape};

    #[test]
    fn every_block_is_moved_and_the_slots_are_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        let file = SlotFile::open(&path, 1 << 20, Duration::ZERO).unwrap();
        let arena = Arena::new(TierShape::carve(ByteCount(16 * 8192))).unwrap();
        let class = SlotClass::of_bytes(4096).unwrap();
        let Ok(mut raw) = RawDrive::open(&path, Arc::clone(&arena)) else { return };
        for mut slot in raw.claim(class) {
            slot.as_mut_slice().fill(7);
        }
        let offsets: Vec<u64> = (0..256).step_by(2).map(|block| block * 4096).collect();
        raw.round(Op::Write, class, &offsets).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert!(found.chunks(8192).all(|pair| pair[..4096] == [7; 4096] && pair[4096..] == [0; 4096]));
        raw.round(Op::Read, class, &offsets).unwrap();
        assert!(raw.round(Op::Read, class, &[2 << 20, 0, 4096]).is_err(), "past the end");
        raw.round(Op::Read, class, &offsets).unwrap();
        assert_eq!(raw.claim(class).len(), 32);
        drop(file);
    }
}
