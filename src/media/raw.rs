//! The bare device, to be measured beside [`Device`](super::Device): one loop on one ring, nothing checked but lengths. On
//! the same file and in the same memory: where either lies can make a difference of two on virtual machines.
#![expect(unsafe_code, reason = "hands addresses to the kernel")]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::IoUring;

use super::arena::Arena;
use super::device::Op;
use super::refusal::Refusal;
use super::region::{Region, RegionWriter};
use super::ring::{Transfer, build, entry, iovec};
use super::slot::SlotWriter;
use super::slot_file::open_direct;
use crate::copy::Span;
use crate::vocab::limits::DEVICE_OPS;
use crate::vocab::{SlotClass, SlotId};

/// The kernel registers no larger buffer.
const REGISTERED_MAX: usize = 1 << 30;

/// Where the bytes go and come from.
#[derive(Clone, Debug)]
pub enum RawMemory {
    /// Slots of the RAM tier.
    Arena(Arc<Arena>),
    /// Memory that was shared: an engine's pool.
    Region(Arc<Region>),
}

/// An open file and a ring on it.
pub struct RawDrive {
    // First: closed before the memory that it names.
    ring: IoUring,
    _file: File,
    memory: RawMemory,
    is_registered: bool,
}

/// Memory of one block.
enum Place {
    Slot(SlotWriter),
    Region(RegionWriter, u16),
}

impl Place {
    fn span(&self) -> Span<'_> {
        match self {
            Self::Slot(slot) => slot.span(),
            Self::Region(place, _) => place.span(),
        }
    }

    /// Number of the registered buffer that it lies in.
    fn buffer(&self) -> u16 {
        match self {
            Self::Slot(slot) => slot.slot().extent,
            Self::Region(_, buffer) => *buffer,
        }
    }
}

impl RawDrive {
    /// Opens a file that is there, past the page cache where that is possible, to move bytes between it and `memory`,
    /// which is registered where the kernel lets us. It takes no lock: the file may be a slot file in use.
    ///
    /// # Errors
    /// When the file can't be opened, or there is no io_uring: then with words on what to do about it.
    pub fn open(path: &Path, memory: RawMemory) -> io::Result<Self> {
        let (file, _) = open_direct(path)?;
        let ring = build().map_err(|error| io::Error::other(Refusal::Setup(error).sentence()))?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        let buffers: Vec<_> = match &memory {
            RawMemory::Arena(arena) => arena.segments().iter().map(|segment| iovec(segment.whole())).collect(),
            RawMemory::Region(region) => region.parts(REGISTERED_MAX).map(iovec).collect(),
        };
        // SAFETY: mapped for as long as the memory is there, which the ring does not outlive.
        let is_registered = unsafe { ring.submitter().register_buffers(&buffers) }.is_ok();
        Ok(Self { ring, _file: file, memory, is_registered })
    }

    /// Moves one block of `class` at each of `offsets`, at most `at_once` at a time, through all of the memory that nobody
    /// has, and says how long it took.
    ///
    /// # Errors
    /// When the kernel refuses or moves fewer bytes.
    pub fn round(&mut self, op: Op, class: SlotClass, offsets: &[u64], at_once: usize) -> io::Result<Duration> {
        let slots = self.claim(class);
        let at_once = at_once.min(DEVICE_OPS);
        // In turn, so that as much memory is touched as by whoever is measured beside.
        let mut free: VecDeque<usize> = (0..slots.len()).collect();
        if free.is_empty() {
            return Err(io::Error::other("no RAM slot is free"));
        }
        let (began, mut left, mut under_way, mut failed) = (Instant::now(), offsets.iter(), 0, None);
        loop {
            while let Some(&offset) = left.as_slice().first()
                && failed.is_none()
                && under_way < at_once
                && let Some(place) = free.pop_front()
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
                free.push_back(answer.user_data() as usize);
                if answer.result() != class.bytes().cast_signed() {
                    failed = Some(io::Error::other(format!("{op:?} of {class:?} gave {}", answer.result())));
                }
            }
        }
    }

    fn push(&mut self, op: Op, slots: &[Place], place: usize, offset: u64) -> bool {
        let memory = slots[place].span();
        let (address, length) = (memory.base(), memory.len() as u32);
        let segment = self.is_registered.then_some(slots[place].buffer());
        let transfer = Transfer { op, id: place as u64, offset, address, length, segment };
        // SAFETY: the slot is claimed, and nobody refers to its bytes. `round` keeps it until all has landed, or for ever.
        unsafe { self.ring.submission().push(&entry(transfer)) }.is_ok()
    }

    /// All places that nobody has.
    fn claim(&self, class: SlotClass) -> Vec<Place> {
        let arena = match &self.memory {
            RawMemory::Arena(arena) => arena,
            RawMemory::Region(region) => return in_region(region, class),
        };
        let shape = arena.shape();
        let extents = u16::try_from(shape.extents()).unwrap_or(u16::MAX);
        let slots = (0..extents).flat_map(|extent| {
            let slots = u16::try_from(shape.slots(extent, class)).unwrap_or(u16::MAX);
            (0..slots).map(move |index| SlotId { extent, index })
        });
        slots.filter_map(|slot| arena.writer(slot, class).map(Place::Slot)).collect()
    }
}

/// Places side by side, none in two registered buffers.
fn in_region(region: &Arc<Region>, class: SlotClass) -> Vec<Place> {
    let bytes = class.bytes() as usize;
    let places = (0..region.size() / bytes).map(|place| place * bytes);
    let within = places.filter(|at| at / REGISTERED_MAX == (at + bytes - 1) / REGISTERED_MAX);
    let claim = |at: usize| {
        let buffer = u16::try_from(at / REGISTERED_MAX).unwrap_or(u16::MAX);
        region.claim(at as u64, bytes).map(|place| Place::Region(place, buffer))
    };
    within.filter_map(claim).collect()
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
        let Ok(mut raw) = RawDrive::open(&path, RawMemory::Arena(Arc::clone(&arena))) else { return };
        for place in raw.claim(class) {
            let Place::Slot(mut slot) = place else { panic!("memory of an arena") };
            slot.as_mut_slice().fill(7);
        }
        let offsets: Vec<u64> = (0..256).step_by(2).map(|block| block * 4096).collect();
        raw.round(Op::Write, class, &offsets, usize::MAX).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert!(found.chunks(8192).all(|pair| pair[..4096] == [7; 4096] && pair[4096..] == [0; 4096]));
        raw.round(Op::Read, class, &offsets, usize::MAX).unwrap();
        assert!(raw.round(Op::Read, class, &[2 << 20, 0, 4096], usize::MAX).is_err(), "past the end");
        raw.round(Op::Read, class, &offsets, usize::MAX).unwrap();
        assert_eq!(raw.claim(class).len(), 32);
        let region = Region::make(128 * 4096).unwrap();
        let mut raw = RawDrive::open(&path, RawMemory::Region(Arc::clone(&region))).unwrap();
        raw.round(Op::Read, class, &offsets, 3).unwrap();
        assert!(
            raw.claim(class).iter().all(|place| place.span().to_vec() == [7; 4096]),
            "each place has had its block"
        );
        drop(file);
    }
}
