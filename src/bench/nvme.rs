//! The drive: blocks through the shelf, and in turn as many bytes through a bare loop, between the same file and the same
//! memory.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use super::blocks::Blocks;
use super::hints::about_file_system;
use super::rounds::{Effort, Rounds, gigabytes, in_turn};
use super::{BenchError, BenchOptions, BenchReport};
use crate::index::Catalog;
use crate::media::{Arena, DeviceOptions, Op, RawDrive, RawMemory, open};
use crate::tiers::NvmeShelf;
use crate::vocab::limits::EXTENT_BYTES_MAX;
use crate::vocab::{ByteCount, SlotClass, TierShape};

/// Block sizes, with the names of their figures.
const SIZES: [(u32, &str, &str); 2] =
    [(1 << 20, "nvme_read_1mib", "nvme_write_1mib"), (4 << 20, "nvme_read_4mib", "nvme_write_4mib")];
/// Bytes of one round: long beside what is in flight, short beside the moods of a disk.
const ROUND_BYTES: u64 = 512 << 20;

/// Takes the figures of these names; what there is to say of the drive goes into the report.
pub(super) fn measure(
    options: &BenchOptions,
    effort: Effort,
    names: &[&'static str],
    say: &dyn Fn(&'static str),
    report: &mut BenchReport,
) -> Result<Vec<(&'static str, Rounds)>, BenchError> {
    let least = u64::from(SIZES[SIZES.len() - 1].0) * 16;
    if options.size.0 < least {
        return Err(BenchError::TooSmall { size: options.size, least: ByteCount(least) });
    }
    let mut taken = Vec::new();
    if names.is_empty() {
        return Ok(taken);
    }
    // As much as is in flight, so that both sides go through all of it: parts of a virtual machine's memory can be twice
    // as fast as others.
    let inflight = options.inflight_bytes.clamp(least, EXTENT_BYTES_MAX);
    let ram = Arena::new(TierShape::with_extent(inflight, inflight))?;
    let shape = TierShape::carve(options.size);
    let device = DeviceOptions { inflight_bytes: inflight, arena: Some(Arc::clone(&ram)), ..DeviceOptions::default() };
    let path = options.dir.join("slots");
    let device = open(&path, shape.total().0, device)?;
    let raw = RawDrive::open(&path, RawMemory::Arena(Arc::clone(&ram)));
    // Gone from here on, however this process ends.
    drop(std::fs::remove_file(&path));
    report.hints.extend(raw.as_ref().err().map(|why| format!("no limit to compare with: {why}")));
    let mut raw = raw.ok();
    let catalog = Arc::new(Catalog::open(&options.dir.join("catalog"))?.catalog);
    let shelf = NvmeShelf::new(Arc::clone(&device), catalog, shape);
    for (bytes, read, write) in SIZES {
        let Some(class) = SlotClass::of_bytes(bytes) else { continue };
        let mut sides = Sides::new(Blocks::new(&shelf, Arc::clone(&ram), class), class, raw.as_mut());
        for (op, name) in [(Op::Write, write), (Op::Read, read)] {
            let Some(name) = names.iter().find(|wanted| **wanted == name) else { continue };
            say(name);
            // What was only reserved is not written as it will be later, and the bare device has written over some.
            sides.fill()?;
            taken.push((*name, sides.measure(op, effort)?));
        }
    }
    report.hints.extend(device.drawback());
    report.hints.extend(about_file_system(device.kind(), &options.dir));
    report.nvme_kind = Some(device.kind().to_owned());
    shelf.stop();
    Ok(taken)
}

/// Ours and the bare one, for one size of block.
struct Sides<'a> {
    ours: Blocks<'a>,
    raw: Option<&'a mut RawDrive>,
    class: SlotClass,
    random: Pcg64,
}

impl<'a> Sides<'a> {
    fn new(ours: Blocks<'a>, class: SlotClass, raw: Option<&'a mut RawDrive>) -> Self {
        Self { ours, raw, class, random: Pcg64::seed_from_u64(1) }
    }

    /// Writes every block.
    fn fill(&mut self) -> Result<(), BenchError> {
        let all: Vec<usize> = (0..self.ours.len()).collect();
        self.ours(Op::Write, &all).map(drop)
    }

    /// In each round both have as many blocks, and others: what one has read, some cache may have kept.
    fn measure(&mut self, op: Op, effort: Effort) -> Result<Rounds, BenchError> {
        let mut all: Vec<usize> = (0..self.ours.len()).collect();
        let blocks = (all.len() / 2).min((ROUND_BYTES / u64::from(self.class.bytes())) as usize);
        let bytes = blocks as u64 * u64::from(self.class.bytes());
        in_turn(effort, |ours_first| {
            all.shuffle(&mut self.random);
            let (numbers, others) = (&all[..blocks], &all[blocks..2 * blocks]);
            let (ours, bare) = if ours_first {
                let ours = self.ours(op, numbers)?;
                (ours, self.bare(op, others)?)
            } else {
                let bare = self.bare(op, others)?;
                (self.ours(op, numbers)?, bare)
            };
            Ok((gigabytes(bytes, ours), bare.map(|time| gigabytes(bytes, time))))
        })
    }

    fn ours(&self, op: Op, numbers: &[usize]) -> Result<Duration, BenchError> {
        match op {
            Op::Read => self.ours.read(numbers),
            Op::Write => self.ours.write(numbers),
        }
    }

    fn bare(&mut self, op: Op, numbers: &[usize]) -> Result<Option<Duration>, BenchError> {
        let Some(raw) = &mut self.raw else { return Ok(None) };
        let offsets: Vec<u64> = numbers.iter().map(|number| *number as u64 * u64::from(self.class.bytes())).collect();
        Ok(Some(raw.round(op, self.class, &offsets, usize::MAX)?))
    }
}
