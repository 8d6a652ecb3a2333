//! The thread that has the ring: takes what may go, hands it to the kernel in one call, waits, and passes on what landed.
#![expect(unsafe_code, reason = "makes the promise of a ring")]

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::io::Errno;

use super::device::{Io, Moved};
use super::flights::{Flights, Landed, Next};
use super::inbox::Inbox;
use super::queue::Weight;
use super::registered::Segments;
use super::reports::Reports;
use super::ring::{Answer, Ring, Transfer};
use crate::vocab::limits::{DEVICE_DRAIN_MAX, DEVICE_ENTER_PAUSE, DEVICE_ENTER_RETRIES};
use crate::watch::Part;

/// What the thread works with.
pub(super) struct Engine<R: Ring> {
    /// First, so that it is closed before anything that the kernel may know is dropped.
    pub(super) ring: R,
    pub(super) flights: Flights,
    pub(super) inbox: Arc<Inbox>,
    pub(super) reports: Reports,
    pub(super) segments: Option<Segments>,
    pub(super) moved: Arc<Moved>,
    pub(super) size: u64,
    /// Over, and not yet reported.
    pub(super) landed: Vec<Landed>,
    pub(super) part: Part,
}

impl<R: Ring> Engine<R> {
    /// Works until the inbox is closed and everything has landed.
    ///
    /// # Errors
    /// When the ring broke. What the kernel still has is waited for first, so that no job is without an answer.
    pub(super) fn run(mut self) -> io::Result<()> {
        let served = self.serve();
        if let Err(error) = &served {
            tracing::error!(%error, "io_uring broke: the drive is given up");
            self.let_go();
        }
        served
    }

    fn serve(&mut self) -> io::Result<()> {
        let (mut jobs, mut answers) = (Vec::new(), Vec::new());
        while self.inbox.take(self.flights.is_empty(), &mut jobs) {
            self.part.beat();
            for (io, weight) in jobs.drain(..) {
                self.launch(io, weight);
            }
            // Some may have ended without the kernel, and must not wait for those that have not.
            self.report();
            if !self.flights.is_empty() {
                self.exchange(&mut answers)?;
            }
            if let Some(segments) = &mut self.segments {
                segments.register(&mut self.ring);
            }
        }
        Ok(())
    }

    fn launch(&mut self, io: Io, weight: Weight) {
        let result = io.check(self.size);
        if result.is_err() || io.length == 0 {
            return self.landed.push(Landed { io, weight, result });
        }
        let segment = self.segments.as_mut().and_then(|segments| segments.of(&io.buffer, io.length));
        let transfer = self.flights.launch(io, weight, segment);
        self.push(transfer);
    }

    fn push(&mut self, transfer: Transfer) {
        // SAFETY: `flights` has the job and with it the memory, and gives it out with the answer only, or never.
        let is_in_line = unsafe { self.ring.push(transfer) };
        if !is_in_line {
            // Not reached: a ring has room for every place of the queues.
            let full = io::Error::other("the ring is full");
            if let Next::Landed(landed) = self.flights.refused(transfer.id, full) {
                self.landed.push(landed);
            }
        }
    }

    /// Hands over what is in line, waits for answers, and works on them.
    fn exchange(&mut self, answers: &mut Vec<Answer>) -> io::Result<()> {
        let mut refusals = 0;
        while let Err(error) = self.ring.enter() {
            self.ring.reap(answers);
            refusals = if answers.is_empty() { refusals + 1 } else { 0 };
            if !is_passing(&error) || refusals > DEVICE_ENTER_RETRIES {
                self.work_on(answers);
                return Err(error);
            }
            self.work_on(answers);
            if error.kind() != io::ErrorKind::Interrupted {
                thread::sleep(DEVICE_ENTER_PAUSE);
            }
        }
        self.ring.reap(answers);
        self.work_on(answers);
        Ok(())
    }

    fn work_on(&mut self, answers: &mut Vec<Answer>) {
        for (id, answer) in answers.drain(..) {
            match self.flights.answered(id, answer) {
                Next::Continue(transfer) => self.push(transfer),
                Next::Landed(landed) => self.landed.push(landed),
                Next::Unknown => tracing::error!(id, answer, "io_uring answered what was not asked"),
            }
        }
        self.report();
    }

    /// Has reported what landed, after its bytes were given back: whoever is told of its job sees them gone.
    fn report(&mut self) {
        if self.landed.is_empty() {
            return;
        }
        self.inbox.landed(self.landed.iter().map(|landed| landed.weight));
        for landed in self.landed.drain(..) {
            if landed.result.is_ok() {
                self.moved.add(landed.io.op, landed.io.length);
            }
            self.reports.send(landed);
        }
    }

    /// The ring is broken. What waits is refused; what the kernel has is waited for, but not for ever.
    fn let_go(&mut self) {
        self.refuse_queued();
        let (began, mut answers) = (Instant::now(), Vec::new());
        while !self.flights.is_empty() && began.elapsed() < DEVICE_DRAIN_MAX {
            drop(self.ring.enter());
            self.ring.reap(&mut answers);
            if answers.is_empty() {
                thread::sleep(DEVICE_ENTER_PAUSE);
            }
            self.work_on(&mut answers);
        }
    }

    fn refuse_queued(&self) {
        for io in self.inbox.drain() {
            io.complete(Err(io::Error::other("the drive's queue broke")));
        }
    }
}

impl<R: Ring> Drop for Engine<R> {
    /// However the thread ends, also by a panic: nothing waits for it for ever. (What is in flight sees to itself.)
    fn drop(&mut self) {
        self.report();
        self.refuse_queued();
    }
}

/// Whether the kernel may take the same thing later.
fn is_passing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INTR | Errno::AGAIN | Errno::BUSY | Errno::NOMEM))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
