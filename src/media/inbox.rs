//! Between those who submit and the one thread that has the ring: the queues, and how that thread sleeps and is woken.
//!
//! With nothing in flight it waits on a condition variable: a thread that waits in a ring counts as waiting for I/O, and an
//! idle host would look busy. With something in flight it waits in the ring, for an answer or for a byte in a pipe. A
//! byte is written only where the thread sleeps there and there is a job that may go: under load, nobody wakes anybody.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::{Condvar, Mutex, PoisonError};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::device::{Gauges, Io};
use super::lock;
use super::queue::{Queues, Weight};

/// What is submitted to one ring.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    ready: Condvar,
    pipe: PipeWriter,
}

#[derive(Debug)]
struct State {
    queues: Queues,
    sleep: Sleep,
}

/// Where the ring's thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Awake,
    Idle,
    InRing,
}

impl Inbox {
    /// An inbox, and the pipe that the ring wakes for.
    pub(super) fn new(bytes_max: u64) -> io::Result<(Self, PipeReader)> {
        let (reader, pipe) = io::pipe()?;
        // A full pipe wakes as well as one more byte would.
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        let state = Mutex::new(State { queues: Queues::new(bytes_max), sleep: Sleep::Awake });
        Ok((Self { state, ready: Condvar::new(), pipe }, reader))
    }

    /// Queues a job; gives it back when its queue is full or closed.
    pub(super) fn submit(&self, io: Io) -> Result<(), Io> {
        let mut refused = Ok(());
        self.change(|queues| refused = queues.push(io));
        refused
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.change(Queues::close);
    }

    /// A job was reported.
    pub(super) fn ended(&self, weight: Weight) {
        self.change(|queues| queues.ended(weight));
    }

    /// The drive is done with these. Wakes nobody: the ring's thread is who says so.
    pub(super) fn landed(&self, weights: impl Iterator<Item = Weight>) {
        let mut state = lock(&self.state);
        weights.for_each(|weight| state.queues.landed(weight));
    }

    /// Takes all jobs that may go now. Waits for one where the ring is empty and there is none; where it then is over,
    /// returns false. Otherwise the caller's next step is to wait in the ring.
    pub(super) fn take(&self, is_ring_empty: bool, jobs: &mut Vec<(Io, Weight)>) -> bool {
        let mut state = lock(&self.state);
        if is_ring_empty {
            state.sleep = Sleep::Idle;
            let waits = |state: &mut State| !state.queues.is_over() && !state.queues.has_work();
            state = self.ready.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        }
        jobs.extend(std::iter::from_fn(|| state.queues.take()));
        state.sleep = Sleep::InRing;
        !(is_ring_empty && jobs.is_empty())
    }

    /// Closes, and takes everything that is queued: for a ring that can't go on.
    pub(super) fn drain(&self) -> Vec<Io> {
        let mut state = lock(&self.state);
        state.queues.close();
        state.queues.drain().collect()
    }

    /// The numbers that it knows.
    pub(super) fn gauges(&self) -> Gauges {
        lock(&self.state).queues.gauges()
    }

    fn change(&self, change: impl FnOnce(&mut Queues)) {
        let mut state = lock(&self.state);
        change(&mut state.queues);
        if !state.queues.has_work() && !state.queues.is_over() {
            return;
        }
        let sleep = std::mem::replace(&mut state.sleep, Sleep::Awake);
        drop(state);
        match sleep {
            Sleep::Awake => {}
            Sleep::Idle => self.ready.notify_one(),
            // Fails only where it is full.
            Sleep::InRing => drop((&self.pipe).write(&[1])),
        }
    }
}
