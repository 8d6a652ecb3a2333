//! A drive that dies at a chosen write, so that a test can count the writes of a run and then crash at each of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::device::{Device, Gauges, Io, Op};
use super::fault::torn;

/// Wraps a device and cuts its power after a number of writes, counted as they are submitted. From then on every job of
/// either kind ends with `EIO` before `submit` returns, and changes nothing.
///
/// The bytes stay in the device that it wraps: what a new process finds is read from there.
pub struct CrashAt {
    inner: Arc<dyn Device>,
    at_write: u64,
    torn: bool,
    writes: AtomicU64,
}

impl CrashAt {
    /// The first `at_write` writes are done and nothing after them; where `torn`, the last of them only by half, and it
    /// fails with `EIO`. `u64::MAX` never crashes, and counts.
    #[must_use]
    pub fn new(inner: Arc<dyn Device>, at_write: u64, torn: bool) -> Self {
        Self { inner, at_write, torn, writes: AtomicU64::new(0) }
    }

    /// Writes submitted so far, those after the crash included.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Whether the power is off: the last write that is done was submitted.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.writes() >= self.at_write
    }
}

impl Device for CrashAt {
    fn submit(&self, io: Io) -> Result<(), Io> {
        let number = match io.op {
            Op::Read => self.writes().saturating_add(1),
            Op::Write => self.writes.fetch_add(1, Ordering::SeqCst) + 1,
        };
        if number > self.at_write {
            io.complete(Err(io::Error::from(Errno::IO)));
            return Ok(());
        }
        let is_torn = self.torn && io.op == Op::Write && number == self.at_write;
        self.inner.submit(if is_torn { torn(io, false) } else { io })
    }

    fn kind(&self) -> &'static str {
        "crashing"
    }

    fn gauges(&self) -> Gauges {
        self.inner.gauges()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn stop(&self) {
        self.inner.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::super::{AlignedBuf, Buffer, MemDevice};
    use super::*;

    const LEN: u32 = 8192;

    fn carry_out(device: &dyn Device, op: Op, number: u64, fill: u8) -> io::Result<Vec<u8>> {
        let mut buffer = AlignedBuf::with_room_for(LEN);
        buffer.fill(fill);
        let (sender, receiver) = sync_channel(1);
        let done = Box::new(move |buffer: Buffer, result: io::Result<()>| {
            sender.send(result.map(|()| buffer.span().to_vec())).unwrap();
        });
        let (offset, buffer) = (number * u64::from(LEN), Buffer::Heap(buffer));
        let io = if op == Op::Read { Io::read } else { Io::write };
        device.submit(io(offset, LEN, buffer, done)).unwrap();
        receiver.recv().unwrap()
    }

    #[test]
    fn what_was_written_before_the_crash_is_there_and_nothing_else() {
        for (at_write, torn) in [(0, false), (3, false), (3, true), (5, false), (u64::MAX, false)] {
            let inner = Arc::new(MemDevice::inline(1 << 20));
            let device = CrashAt::new(Arc::<MemDevice>::clone(&inner), at_write, torn);
            for number in 0..5 {
                let written = carry_out(&device, Op::Write, number, 7);
                let whole = number < if torn { at_write - 1 } else { at_write };
                assert_eq!(
                    written.map_err(|error| error.raw_os_error()).map(|_| ()),
                    whole.then_some(()).ok_or(Some(5))
                );
                assert_eq!(device.crashed(), number + 1 >= at_write);
                assert_eq!(carry_out(&device, Op::Read, 0, 1).is_ok(), !device.crashed());
                let found = carry_out(&*inner, Op::Read, number, 1).unwrap();
                let half = torn && number + 1 == at_write;
                let there = if whole { LEN } else { LEN / 2 * u32::from(half) };
                assert!(found.iter().enumerate().all(|(at, byte)| *byte == if at < there as usize { 7 } else { 0 }));
            }
            assert_eq!(device.writes(), 5);
        }
    }
}
