//! The kernel's side of io_uring: how a ring is made here, and the few calls that are made on it. What it is used for
//! stands in `engine.rs`, which sees it as a trait, so that tests can be the kernel.
#![expect(unsafe_code, reason = "hands addresses to the kernel")]

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{Builder, IoUring, Probe, opcode, squeue, types};
use rustix::io::Errno;

use super::device::Op;
use super::refusal::Refusal;
use super::segment::Segment;
use crate::copy::Span;
use crate::vocab::limits::DEVICE_OPS;

/// One transfer for the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) op: Op,
    /// Comes back with the answer.
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) address: *mut u8,
    pub(super) length: u32,
    /// The registered segment of RAM that the memory lies in.
    pub(super) segment: Option<u16>,
}

/// What the kernel says to a transfer: its id, and how many bytes were moved or the negative number of an error.
pub(super) type Answer = (u64, i32);

/// A ring, or a test that plays one.
pub(super) trait Ring {
    /// Puts a transfer in line; false where there is no room, and then nothing happens.
    ///
    /// # Safety
    /// The memory must stay valid, and untouched by others, until the answer has come, whatever becomes of the ring.
    unsafe fn push(&mut self, transfer: Transfer) -> bool;

    /// Hands what is in line to the kernel, and waits for an answer or a byte in the pipe.
    ///
    /// # Errors
    /// Where the kernel did not take all; what it has taken is under way all the same.
    fn enter(&mut self) -> io::Result<()>;

    /// Adds the answers that have come.
    fn reap(&mut self, answers: &mut Vec<Answer>);

    /// Registers a segment under `number`, so that transfers can name it.
    ///
    /// # Safety
    /// The segment must stay mapped for as long as the ring is there.
    ///
    /// # Errors
    /// When the kernel refuses: most often for the limit on locked memory.
    unsafe fn register(&mut self, number: u16, segment: &Segment) -> io::Result<()>;
}

/// The id of the ring's own poll of its pipe.
const WAKE: u64 = u64::MAX;
/// `POLLIN` of poll(2).
const POLLIN: u32 = 1;

/// A ring on one file.
pub(super) struct KernelRing {
    // First, so that it is closed before what it names.
    ring: IoUring,
    _file: Arc<File>,
    wake: PipeReader,
    is_wake_armed: bool,
}

impl KernelRing {
    /// Makes a ring for `file` that also wakes for a byte in `wake`, with a table for `segments` buffers. To be called on
    /// the thread that will use it.
    pub(super) fn new(file: Arc<File>, wake: PipeReader, segments: u16) -> Result<Self, Refusal> {
        let ring = build().map_err(Refusal::Setup)?;
        check(&ring)?;
        ring.submitter().register_files(&[file.as_raw_fd()]).map_err(Refusal::Setup)?;
        if segments > 0 {
            // Refused before Linux 5.19: then no segment can be registered, and each says so.
            drop(ring.submitter().register_buffers_sparse(u32::from(segments)));
        }
        Ok(Self { ring, _file: file, wake, is_wake_armed: false })
    }

    fn arm_wake(&mut self) {
        if !self.is_wake_armed {
            let poll = opcode::PollAdd::new(types::Fd(self.wake.as_raw_fd()), POLLIN).build().user_data(WAKE);
            // SAFETY: a poll names no memory, and the pipe is open for as long as the ring.
            self.is_wake_armed = unsafe { self.ring.submission().push(&poll).is_ok() };
        }
    }
}

impl Ring for KernelRing {
    unsafe fn push(&mut self, transfer: Transfer) -> bool {
        // SAFETY: the memory is the caller's promise, the file is open for as long as the ring.
        unsafe { self.ring.submission().push(&entry(transfer)).is_ok() }
    }

    fn enter(&mut self) -> io::Result<()> {
        self.arm_wake();
        self.ring.submit_and_wait(1).map(drop)
    }

    fn reap(&mut self, answers: &mut Vec<Answer>) {
        for answer in self.ring.completion() {
            if answer.user_data() == WAKE {
                // A poll that failed is not repeated: what is in flight wakes the thread, too.
                if answer.result() > 0 {
                    self.is_wake_armed = false;
                    // There is a byte, so this does not wait.
                    drop(self.wake.read(&mut [0; 64]));
                }
            } else {
                answers.push((answer.user_data(), answer.result()));
            }
        }
    }

    unsafe fn register(&mut self, number: u16, segment: &Segment) -> io::Result<()> {
        // SAFETY: mapped, by the caller's promise. The kernel holds the pages themselves from here on.
        unsafe { self.ring.submitter().register_buffers_update(u32::from(number), &[iovec(segment.whole())], None) }
    }
}

/// The ring with the flags that suit one thread, or with fewer where the kernel is older than they are.
pub(super) fn build() -> io::Result<IoUring> {
    // Since 6.1: answers are worked on when this thread asks for them, and not in the middle of something else. Since
    // 5.19: at least not by an interrupt.
    let flags: [fn(&mut Builder); 3] = [
        |builder| _ = builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all(),
        |builder| _ = builder.setup_coop_taskrun(),
        |_| {},
    ];
    let mut made = Err(Errno::INVAL.into());
    for flags in flags {
        let mut builder = IoUring::builder();
        flags(&mut builder);
        made = builder.build(DEVICE_OPS as u32 + 1);
        if !made.as_ref().is_err_and(|error| Errno::from_io_error(error) == Some(Errno::INVAL)) {
            break;
        }
    }
    made
}

/// Whether the kernel knows what is used here.
fn check(ring: &IoUring) -> Result<(), Refusal> {
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(Refusal::Setup)?;
    let used = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
        opcode::PollAdd::CODE,
    ];
    let knows_all = used.iter().all(|code| probe.is_supported(*code)) && ring.params().is_feature_nodrop();
    knows_all.then_some(()).ok_or(Refusal::Incomplete)
}

pub(super) fn entry(transfer: Transfer) -> squeue::Entry {
    let file = types::Fixed(0);
    let Transfer { op, id, offset, address, length, segment } = transfer;
    let entry = match (op, segment) {
        (Op::Read, None) => opcode::Read::new(file, address, length).offset(offset).build(),
        (Op::Write, None) => opcode::Write::new(file, address, length).offset(offset).build(),
        (Op::Read, Some(number)) => opcode::ReadFixed::new(file, address, length, number).offset(offset).build(),
        (Op::Write, Some(number)) => opcode::WriteFixed::new(file, address, length, number).offset(offset).build(),
    };
    entry.user_data(id)
}

/// Memory as the kernel takes it: no slice, since it is written by others all the time.
pub(super) fn iovec(memory: Span<'_>) -> libc::iovec {
    libc::iovec { iov_base: memory.base().cast(), iov_len: memory.len() }
}
