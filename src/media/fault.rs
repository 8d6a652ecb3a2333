//! A drive that lies, by seed: errors, flipped bits, writes that were lost or torn though acknowledged, and completions
//! that come late or are held back. The same seed and the same jobs in the same order give the same faults, since late is
//! counted in jobs and not in time.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use rustix::io::Errno;

use super::device::{Buffer, Completion, Device, Gauges, Io, Op};
use super::lock;
use crate::vocab::limits::{ALIGNMENT, DEVICE_QUEUE};

/// How often each fault happens, 0 to 1. A job has one fault at most, so those of a kind of job add up to 1 at most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Reads that fail with `EIO`.
    pub read_error: f64,
    /// Reads that end early, as past the end of a file: half of the bytes are there.
    pub short_read: f64,
    /// Reads with one bit flipped, reported as good.
    pub bit_flip: f64,
    /// Writes that fail with `EIO`, half done.
    pub write_error: f64,
    /// Writes that fail with `ENOSPC`.
    pub no_space: f64,
    /// Writes that end early, half done, and are not taken up again.
    pub short_write: f64,
    /// Writes reported as good and not done.
    pub lost_write: f64,
    /// Writes reported as good of which only the first half was done.
    pub torn_write: f64,
    /// Jobs of either kind, done but not reported until [`FaultyDevice::release_held`].
    pub held: f64,
    /// Jobs of either kind, done but not reported before `late_by` more were submitted: a drive that takes its time.
    pub late: f64,
    /// How many.
    pub late_by: u64,
}

/// Wraps a device and makes it lie.
pub struct FaultyDevice {
    inner: Arc<dyn Device>,
    chance: Mutex<(Faults, Pcg64)>,
    held: Arc<Held>,
    /// Jobs so far.
    submitted: AtomicU64,
}

/// Completions that wait, for a number of jobs: at most as many as a device queues.
type Held = Mutex<Vec<(u64, Completion, Buffer, io::Result<()>)>>;

/// For no number of jobs.
const UNTIL_RELEASED: u64 = u64::MAX;

#[derive(Clone, Copy)]
enum Fault {
    None,
    Fails(Errno),
    Short,
    Flips(u64),
    Lost,
    Torn { acknowledged: bool },
    Held,
    Late(u64),
}

impl FaultyDevice {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Device>, faults: Faults, seed: u64) -> Self {
        Self {
            inner,
            chance: Mutex::new((faults, Pcg64::seed_from_u64(seed))),
            held: Arc::default(),
            submitted: AtomicU64::new(0),
        }
    }

    /// Changes what happens from now on; the seed's sequence goes on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.chance).0 = faults;
    }

    /// Reports what was held back or is late, in the order in which it ended; how many there were.
    pub fn release_held(&self) -> usize {
        self.release(UNTIL_RELEASED)
    }

    /// Reports what waits for no more than `submitted` jobs.
    fn release(&self, submitted: u64) -> usize {
        let due: Vec<_> = lock(&self.held).extract_if(.., |(until, ..)| *until <= submitted).collect();
        let count = due.len();
        for (_, done, buffer, result) in due {
            done(buffer, result);
        }
        count
    }

    fn choose(&self, op: Op) -> Fault {
        let (faults, random) = &mut *lock(&self.chance);
        let (mut roll, bit): (f64, u64) = (random.random(), random.random());
        let choices = match op {
            Op::Read => [
                (faults.read_error, Fault::Fails(Errno::IO)),
                (faults.short_read, Fault::Short),
                (faults.bit_flip, Fault::Flips(bit)),
                (faults.held, Fault::Held),
                (faults.late, Fault::Late(faults.late_by)),
                (0.0, Fault::None),
                (0.0, Fault::None),
            ],
            Op::Write => [
                (faults.write_error, Fault::Torn { acknowledged: false }),
                (faults.no_space, Fault::Fails(Errno::NOSPC)),
                (faults.short_write, Fault::Short),
                (faults.lost_write, Fault::Lost),
                (faults.torn_write, Fault::Torn { acknowledged: true }),
                (faults.held, Fault::Held),
                (faults.late, Fault::Late(faults.late_by)),
            ],
        };
        for (rate, fault) in choices {
            if roll < rate {
                return fault;
            }
            roll -= rate;
        }
        Fault::None
    }
}

impl Device for FaultyDevice {
    fn submit(&self, io: Io) -> Result<(), Io> {
        let number = self.submitted.fetch_add(1, Ordering::SeqCst) + 1;
        self.release(number);
        match self.choose(io.op) {
            Fault::None => self.inner.submit(io),
            Fault::Fails(errno) => {
                io.complete(Err(errno.into()));
                Ok(())
            }
            Fault::Short => self.inner.submit(half(io, |result| result.and(Err(io::ErrorKind::UnexpectedEof.into())))),
            Fault::Lost => {
                io.complete(Ok(()));
                Ok(())
            }
            Fault::Flips(bit) => self.inner.submit(flipped(io, bit)),
            Fault::Torn { acknowledged } => self.inner.submit(torn(io, acknowledged)),
            Fault::Held => self.inner.submit(held_back(io, UNTIL_RELEASED, Arc::clone(&self.held))),
            Fault::Late(jobs) => self.inner.submit(held_back(io, number.saturating_add(jobs), Arc::clone(&self.held))),
        }
    }

    fn kind(&self) -> &'static str {
        "faulty"
    }

    fn gauges(&self) -> Gauges {
        self.inner.gauges()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn stop(&self) {
        self.inner.stop();
        self.release_held();
    }
}

/// A write of the first half of `io`, reported as if it were the whole, or as failed.
pub(super) fn torn(io: Io, acknowledged: bool) -> Io {
    half(io, move |result| if acknowledged { result } else { result.and(Err(Errno::IO.into())) })
}

/// The first half of `io`, reported as `report` makes of its end.
fn half(io: Io, report: impl FnOnce(io::Result<()>) -> io::Result<()> + Send + 'static) -> Io {
    let (length, done) = (io.length / 2 / ALIGNMENT as u32 * ALIGNMENT as u32, io.done);
    Io { length, done: Box::new(move |buffer, result| done(buffer, report(result))), ..io }
}

fn flipped(io: Io, bit: u64) -> Io {
    let (length, done) = (u64::from(io.length).max(1), io.done);
    let flip = Box::new(move |mut buffer: Buffer, result| {
        let at = usize::try_from(bit / 8 % length).unwrap_or_default();
        let mut byte = [0];
        if let Some(mut span) = buffer.span_mut()
            && span.span().read(at, &mut byte)
        {
            byte[0] ^= 1 << (bit % 8);
            let flipped = span.write(at, &byte);
            debug_assert!(flipped, "where it was read");
        }
        done(buffer, result);
    });
    Io { done: flip, ..io }
}

fn held_back(io: Io, until: u64, held: Arc<Held>) -> Io {
    let done = io.done;
    let hold = Box::new(move |buffer, result: io::Result<()>| {
        // A job that the device gave back is ended by whoever submitted it, with an error of its own: not to be held.
        let is_of_device = result.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::Other);
        let mut waiting = lock(&held);
        if is_of_device && waiting.len() < DEVICE_QUEUE {
            waiting.push((until, done, buffer, result));
        } else {
            drop(waiting);
            done(buffer, result);
        }
    });
    Io { done: hold, ..io }
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
