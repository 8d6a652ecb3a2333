//! One drive of the NVMe shelf: its device, what it has done, and whether it is still believed to work.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::media::{Device, Io};
use crate::vocab::limits::{DRIVE_FAILURE_WEIGHT, DRIVE_FAILURES_MAX};

/// What a drive has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NvmeStats {
    /// Blocks read and right.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Blocks written, with their rows.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Bytes that were sent to the device: payloads rounded up to whole 4 KiB, failed writes included.
    pub device_written_bytes: u64,
    /// Reads that the drive failed.
    pub read_errors: u64,
    /// Writes that the drive or the catalog failed.
    pub write_errors: u64,
    /// Reads of bytes that were not what was written.
    pub corrupt: u64,
    /// Reads and writes dropped because too much was waiting.
    pub dropped: u64,
}

impl NvmeStats {
    /// The sum of two drives.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            reads: self.reads + other.reads,
            read_bytes: self.read_bytes + other.read_bytes,
            writes: self.writes + other.writes,
            written_bytes: self.written_bytes + other.written_bytes,
            device_written_bytes: self.device_written_bytes + other.device_written_bytes,
            read_errors: self.read_errors + other.read_errors,
            write_errors: self.write_errors + other.write_errors,
            corrupt: self.corrupt + other.corrupt,
            dropped: self.dropped + other.dropped,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) reads: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) device_written_bytes: AtomicU64,
    pub(super) read_errors: AtomicU64,
    pub(super) write_errors: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// Called once when a drive is taken out, with its number, from whatever thread found it failing: it must not block.
pub type DriveLost = Box<dyn Fn(u16) + Send + Sync>;

/// A drive, or the place of one that is missing.
pub(super) struct Drive {
    number: u16,
    device: Option<Arc<dyn Device>>,
    pub(super) counters: Counters,
    /// Grows with failures, shrinks with successes: see [`Drive::failed`].
    trouble: AtomicU32,
    out: AtomicBool,
}

impl Drive {
    pub(super) fn new(number: u16, device: Option<Arc<dyn Device>>) -> Self {
        let out = AtomicBool::new(device.is_none());
        Self { number, device, counters: Counters::default(), trouble: AtomicU32::new(0), out }
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn device(&self) -> Option<&Arc<dyn Device>> {
        self.device.as_ref()
    }

    /// Missing, or taken out.
    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }

    /// Queues a job; a drive that is out, and one whose queue is full, end it at once.
    pub(super) fn submit(&self, io: Io) {
        match &self.device {
            Some(device) if !self.is_out() => {
                if let Err(io) = device.submit(io) {
                    io.complete(Err(io::Error::other(Refused)));
                }
            }
            _ => io.complete(Err(io::Error::other(Out))),
        }
    }

    pub(super) fn worked(&self) {
        // The common case writes nothing that another core would have to fetch.
        if self.trouble.load(Ordering::Relaxed) > 0 {
            self.trouble.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |trouble| trouble.checked_sub(1)).ok();
        }
    }

    /// A job has failed. True for the one that makes the drive go out: one failure weighs as much as many successes, so
    /// that a drive that dies and one that fails now and then for good are both found, and a single error is forgotten.
    pub(super) fn failed(&self, error: &io::Error) -> bool {
        if is_out(error) {
            return false;
        }
        let trouble = self.trouble.fetch_add(DRIVE_FAILURE_WEIGHT, Ordering::Relaxed) + DRIVE_FAILURE_WEIGHT;
        let goes = trouble >= DRIVE_FAILURES_MAX * DRIVE_FAILURE_WEIGHT && !self.out.swap(true, Ordering::Relaxed);
        if goes {
            tracing::error!(
                drive = self.number,
                %error,
                "a drive keeps failing and is taken out: its blocks are misses, the cache goes on with the rest"
            );
        }
        goes
    }

    pub(super) fn stats(&self) -> NvmeStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        NvmeStats {
            reads: get(&counters.reads),
            read_bytes: get(&counters.read_bytes),
            writes: get(&counters.writes),
            written_bytes: get(&counters.written_bytes),
            device_written_bytes: get(&counters.device_written_bytes),
            read_errors: get(&counters.read_errors),
            write_errors: get(&counters.write_errors),
            corrupt: get(&counters.corrupt),
            dropped: get(&counters.dropped),
        }
    }
}

/// The device gave the job back.
#[derive(Debug, thiserror::Error)]
#[error("the device takes no more jobs")]
struct Refused;

/// There is no device any more.
#[derive(Debug, thiserror::Error)]
#[error("the drive is out")]
struct Out;

pub(super) fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Refused>())
}

/// Whether a job failed because its drive was out before it was tried.
pub(super) fn is_out(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Out>())
}
