//! The drive: blocks through the shelf, and in turn as many bytes through a bare loop, between the same file and the same
//! memory.

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use super::blocks::Blocks;
use super::{BenchError, BenchOptions, BenchReport, Measured, gigabytes, in_turn};
use crate::index::Catalog;
use crate::media::{Arena, DeviceOptions, Op, RawDrive, open};
use crate::tiers::NvmeShelf;
use crate::vocab::limits::EXTENT_BYTES_MAX;
use crate::vocab::{SlotClass, TierShape};

/// Block sizes, with the names of their figures.
const SIZES: [(u32, &str, &str); 2] =
    [(1 << 20, "nvme_read_1mib", "nvme_write_1mib"), (4 << 20, "nvme_read_4mib", "nvme_write_4mib")];
/// Bytes of one round: long beside what is in flight, short beside the moods of a disk.
const ROUND_BYTES: u64 = 512 << 20;

pub(super) fn measure(options: &BenchOptions, say: &impl Fn(&'static str)) -> Result<BenchReport, BenchError> {
    let least = u64::from(SIZES[SIZES.len() - 1].0) * 16;
    if options.size.0 < least {
        return Err(BenchError::TooSmall { size: options.size, least });
    }
    // As much as is in flight, so that both sides go through all of it: parts of a virtual machine's memory can be twice
    // as fast as others.
    let inflight = options.inflight_bytes.clamp(least, EXTENT_BYTES_MAX);
    let ram = Arena::new(TierShape::with_extent(inflight, inflight))?;
    let shape = TierShape::carve(options.size);
    let device = DeviceOptions { inflight_bytes: inflight, arena: Some(Arc::clone(&ram)), ..DeviceOptions::default() };
    let path = options.dir.join("slots");
    let device = open(&path, shape.total().0, device)?;
    let raw = RawDrive::open(&path, Arc::clone(&ram));
    // Gone from here on, however this process ends.
    drop(std::fs::remove_file(&path));
    let no_limit = raw.as_ref().err().map(|why| format!("no limit to compare with: {why}"));
    let mut hints = Vec::from_iter(no_limit);
    let mut raw = raw.ok();
    let catalog = Arc::new(Catalog::open(&options.dir.join("catalog"))?.catalog);
    let shelf = NvmeShelf::new(Arc::clone(&device), catalog, shape);
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for (bytes, read, write) in SIZES {
        let Some(class) = SlotClass::of_bytes(bytes) else { continue };
        let mut sides = Sides::new(Blocks::new(&shelf, Arc::clone(&ram), class), class, raw.as_mut());
        // What was only reserved is not written as it will be later.
        sides.fill()?;
        say(write);
        writes.push(sides.measure(Op::Write, write, options.time)?);
        // The bare device has written over some.
        sides.fill()?;
        say(read);
        reads.push(sides.measure(Op::Read, read, options.time)?);
    }
    hints.extend(device.drawback());
    shelf.stop();
    Ok(BenchReport { results: [reads, writes].concat(), nvme_kind: device.kind().to_owned(), hints })
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
    fn measure(&mut self, op: Op, name: &'static str, time: Duration) -> Result<Measured, BenchError> {
        let mut all: Vec<usize> = (0..self.ours.len()).collect();
        let blocks = (all.len() / 2).min((ROUND_BYTES / u64::from(self.class.bytes())) as usize);
        let bytes = blocks as u64 * u64::from(self.class.bytes());
        in_turn(name, "GB/s", time, |ours_first| {
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
        Ok(Some(raw.round(op, self.class, &offsets)?))
    }
}
