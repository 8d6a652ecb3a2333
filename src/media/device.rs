//! A drive as a queue: jobs go in with the memory they own, and come out through a callback.
//!
//! The buffer belongs to the job until its completion, even when nobody waits for it any more: io_uring lets the kernel
//! write to it for so long.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::arena::Arena;
use super::buffer::AlignedBuf;
use super::region::RegionWriter;
use super::slot::{SlotPin, SlotWriter};
use crate::copy::{Span, SpanMut};
use crate::vocab::BlockKey;
use crate::vocab::crc::payload_crc;
use crate::vocab::limits::{ALIGNMENT, DEVICE_RETRIES};

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// From the drive into the buffer.
    Read,
    /// From the buffer to the drive.
    Write,
}

/// The memory of a job, owned until it completes.
#[derive(Debug)]
pub enum Buffer {
    /// A RAM slot to be filled.
    Fill(SlotWriter),
    /// A RAM slot to be written out; can't be read into.
    Slot(SlotPin),
    /// Memory of its own.
    Heap(AlignedBuf),
    /// Memory of an engine, to be filled.
    Region(RegionWriter),
}

impl Buffer {
    /// Where its bytes are, whole 4 KiB of them. An address and no slice: the kernel, or an engine, may be writing there.
    #[must_use]
    pub fn span(&self) -> Span<'_> {
        match self {
            Self::Fill(writer) => writer.span(),
            Self::Slot(pin) => pin.padded(),
            Self::Heap(buffer) => buffer.span(),
            Self::Region(writer) => writer.span(),
        }
    }

    /// The same, to be filled; `None` for what may not be.
    #[must_use]
    pub fn span_mut(&mut self) -> Option<SpanMut<'_>> {
        match self {
            Self::Fill(writer) => Some(writer.span_mut()),
            Self::Slot(_) => None,
            Self::Heap(buffer) => Some(buffer.span_mut()),
            Self::Region(writer) => Some(writer.span_mut()),
        }
    }

    /// The checksum of its first `length` bytes, or of all where it has fewer, as the payload of `key`. To be asked once its
    /// job has ended: then nobody else writes them, unless they are an engine's.
    #[must_use]
    pub fn checksum(&self, key: &BlockKey, length: usize) -> u64 {
        let cut = |bytes: &[u8]| payload_crc(key, &bytes[..length.min(bytes.len())]);
        match self {
            Self::Fill(writer) => cut(writer.bytes()),
            Self::Slot(pin) => cut(pin),
            Self::Heap(buffer) => cut(buffer),
            Self::Region(writer) => {
                let span = writer.span();
                span.part(0, length).unwrap_or(span).checksum(key)
            }
        }
    }
}

impl Buffer {
    /// The segment of `arena` that the memory lies in.
    pub(super) fn segment_of(&self, arena: &Arc<Arena>) -> Option<u16> {
        match self {
            Self::Fill(writer) => writer.is_of(arena).then(|| writer.slot().extent),
            Self::Slot(pin) => pin.is_of(arena).then(|| pin.slot().extent),
            Self::Heap(_) | Self::Region(_) => None,
        }
    }
}

/// What is called when a job ends, with its memory. It runs on a thread of the device, or on the submitter's before
/// `submit` returns: it must not wait for either.
pub type Completion = Box<dyn FnOnce(Buffer, io::Result<()>) + Send>;

/// One job.
pub struct Io {
    /// What to do.
    pub op: Op,
    /// Where on the device, in bytes: a multiple of 4 KiB.
    pub offset: u64,
    /// How many bytes: a multiple of 4 KiB.
    pub length: u32,
    /// The memory.
    pub buffer: Buffer,
    /// May wait for those that may not.
    pub background: bool,
    /// Told of the end, once.
    pub done: Completion,
}

impl Io {
    /// A read of `length` bytes, rounded up to whole 4 KiB, that somebody waits for.
    #[must_use]
    pub fn read(offset: u64, length: u32, buffer: Buffer, done: Completion) -> Self {
        Self { op: Op::Read, offset, length: padded(length), buffer, background: false, done }
    }

    /// A write of `length` bytes, rounded up to whole 4 KiB, that nobody waits for.
    #[must_use]
    pub fn write(offset: u64, length: u32, buffer: Buffer, done: Completion) -> Self {
        Self { op: Op::Write, offset, length: padded(length), buffer, background: true, done }
    }

    /// Hands the memory back.
    pub fn complete(self, result: io::Result<()>) {
        (self.done)(self.buffer, result);
    }

    /// Whether a device of `device_bytes` can carry it out at all.
    pub(super) fn check(&self, device_bytes: u64) -> io::Result<()> {
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{self:?}: {why}")));
        let aligned = |number: u64| number.is_multiple_of(ALIGNMENT);
        if !aligned(self.offset) || !aligned(u64::from(self.length)) {
            return refuse("not aligned to 4 KiB");
        }
        if self.offset.checked_add(u64::from(self.length)).is_none_or(|end| end > device_bytes) {
            return refuse("past the end of the device");
        }
        if self.op == Op::Read && matches!(self.buffer, Buffer::Slot(_)) {
            return refuse("a pinned slot can't be read into");
        }
        if (self.length as usize) > self.buffer.span().len() {
            return refuse("longer than its buffer");
        }
        Ok(())
    }

    /// Moves all bytes with `read` or `write`, which may move fewer at a time: continues short ones, repeats interrupted
    /// ones.
    pub(super) fn transfer(
        &mut self,
        read: impl Fn(&mut SpanMut<'_>, u64) -> io::Result<usize>,
        write: impl Fn(Span<'_>, u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let length = self.length as usize;
        let mut progress = Progress::default();
        loop {
            let moved = progress.moved as usize;
            let at = self.offset + moved as u64;
            let rest = length - moved;
            let step = match self.op {
                Op::Read => {
                    let mut whole = self.buffer.span_mut();
                    whole.as_mut().and_then(|whole| whole.part(moved, rest)).map(|mut to| read(&mut to, at))
                }
                Op::Write => self.buffer.span().part(moved, rest).map(|from| write(from, at)),
            };
            let step = step.unwrap_or_else(|| Err(io::ErrorKind::InvalidInput.into()));
            if let Step::Done(result) = progress.step(self.length, step) {
                return result;
            }
        }
    }
}

/// How far a job has come: what each answer of the kernel means for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Bytes that need not be moved again, whole 4 KiB of them.
    pub(super) moved: u32,
    retries: u32,
}

/// What to do after an answer.
#[derive(Debug)]
pub(super) enum Step {
    /// The rest, from [`Progress::moved`] on.
    Again,
    /// Nothing more.
    Done(io::Result<()>),
}

impl Progress {
    /// Takes in that of the rest of `length` bytes so many were moved, or why not. What follows a short transfer starts
    /// at whole 4 KiB again; one that moves nothing has met the end of the file. Answers that ask for patience are
    /// repeated, but not for ever.
    pub(super) fn step(&mut self, length: u32, answer: io::Result<usize>) -> Step {
        let bytes = match answer {
            Err(error) if is_transient(&error) && self.retries < DEVICE_RETRIES => {
                self.retries += 1;
                return Step::Again;
            }
            Err(error) => return Step::Done(Err(error)),
            Ok(bytes) => u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        if self.moved.saturating_add(bytes) >= length {
            return Step::Done(Ok(()));
        }
        if u64::from(bytes) < ALIGNMENT {
            return Step::Done(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.moved += bytes - bytes % ALIGNMENT as u32;
        self.retries = 0;
        Step::Again
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INTR | Errno::AGAIN))
        || error.kind() == io::ErrorKind::Interrupted
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes at {}", self.op, self.length, self.offset)
    }
}

fn padded(length: u32) -> u32 {
    length.next_multiple_of(ALIGNMENT as u32)
}

/// A drive. A trait because there is a real one, a plain one, and one that lies.
pub trait Device: Send + Sync {
    /// Queues a job. Foreground jobs go before background ones.
    ///
    /// # Errors
    /// Gives the job back, not completed, when the queue is full or the device was stopped.
    fn submit(&self, io: Io) -> Result<(), Io>;

    /// How it works, for people: `io_uring, O_DIRECT, registered buffers`.
    fn kind(&self) -> &'static str;

    /// Why it works in a slower way than it could, and what to do about it, as one sentence; `None` where it does not.
    fn drawback(&self) -> Option<String> {
        None
    }

    /// What it is doing now, and what it has done.
    fn gauges(&self) -> Gauges {
        Gauges::default()
    }

    /// Size in bytes.
    fn size(&self) -> u64;

    /// Takes no more jobs, finishes what is queued, and ends the device's threads. Does nothing the second time. From one
    /// of those threads (a completion may drop the last handle of its device) it does not wait for them.
    fn stop(&self);
}

/// A drive in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Jobs that wait for their turn.
    pub queued: usize,
    /// Bytes of the jobs that the drive has now.
    pub inflight_bytes: u64,
    /// The most that it ever had at once.
    pub inflight_bytes_peak: u64,
    /// Bytes read from the drive, with their padding to whole 4 KiB; of jobs that failed, nothing.
    pub read_bytes: u64,
    /// Bytes written to it, likewise.
    pub written_bytes: u64,
    /// Bytes of RAM that are registered with the kernel.
    pub registered_bytes: u64,
}

/// Counts what was moved.
#[derive(Debug, Default)]
pub(super) struct Moved {
    read: AtomicU64,
    written: AtomicU64,
}

impl Moved {
    pub(super) fn add(&self, op: Op, bytes: u32) {
        let counter = if op == Op::Read { &self.read } else { &self.written };
        counter.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }

    pub(super) fn fill(&self, gauges: Gauges) -> Gauges {
        let (read_bytes, written_bytes) = (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        Gauges { read_bytes, written_bytes, ..gauges }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    fn heap(op: Op, length: u32) -> Io {
        let buffer = Buffer::Heap(AlignedBuf::with_room_for(length));
        Io { op, offset: 8192, length, buffer, background: false, done: Box::new(|_, _| {}) }
    }

    fn never(_: Span<'_>, _: u64) -> io::Result<usize> {
        panic!("not asked for")
    }

    #[test]
    fn short_and_interrupted_transfers_go_on_where_they_stopped() {
        let steps = RefCell::new(vec![Ok(8192), Err(io::ErrorKind::Interrupted), Ok(4096 + 100), Ok(4096)]);
        let seen = RefCell::new(Vec::new());
        let read = |to: &mut SpanMut<'_>, at| {
            seen.borrow_mut().push((at, to.len()));
            steps.borrow_mut().pop().unwrap().map_err(io::Error::from)
        };
        heap(Op::Read, 16_384).transfer(read, never).unwrap();
        assert_eq!(*seen.borrow(), vec![(8192, 16_384), (12_288, 12_288), (16_384, 8192), (16_384, 8192)]);
    }

    #[test]
    fn a_transfer_that_does_not_move_is_an_error_and_not_a_loop() {
        let calls = Cell::new(0);
        let stuck = |_: Span<'_>, _| {
            calls.set(calls.get() + 1);
            Ok(0)
        };
        let error = heap(Op::Write, 4096).transfer(|_, _| panic!("not asked for"), stuck).unwrap_err();
        assert_eq!((error.kind(), calls.get()), (io::ErrorKind::UnexpectedEof, 1));
    }

    #[test]
    fn a_transfer_is_interrupted_only_so_often() {
        let mut progress = Progress::default();
        let patience = |progress: &mut Progress| {
            let answers = std::iter::repeat_with(|| progress.step(8192, Err(Errno::AGAIN.into())));
            answers.take_while(|step| matches!(step, Step::Again)).take(10_000).count()
        };
        assert_eq!(patience(&mut progress), DEVICE_RETRIES as usize);
        assert!(matches!(progress.step(8192, Ok(4096)), Step::Again));
        assert_eq!(patience(&mut progress), DEVICE_RETRIES as usize, "what moves has all its patience again");
        let Step::Done(Err(error)) = progress.step(8192, Err(Errno::NOSPC.into())) else { panic!("reported at once") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_job_that_does_not_fit_is_refused() {
        assert!(heap(Op::Read, 4096).check(12_288).is_ok());
        assert!(heap(Op::Read, 8192).check(12_288).is_err());
        assert!(Io { offset: 1, ..heap(Op::Read, 4096) }.check(12_288).is_err());
        assert!(Io { length: 8192, ..heap(Op::Read, 4096) }.check(1 << 20).is_err());
        assert!(Io { offset: u64::MAX - 4095, ..heap(Op::Read, 4096) }.check(1 << 20).is_err());
    }
}
