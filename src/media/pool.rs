//! Threads that carry out a device's jobs, as its queues hand them out.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::device::{Gauges, Io, Moved};
use super::lock;
use super::queue::{Queues, Weight};
use crate::watch::{Part, Watch};

/// How a job is carried out.
pub(super) type Work = dyn Fn(&mut Io) -> io::Result<()> + Send + Sync;

/// The threads and their queues.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    queues: Mutex<Queues>,
    ready: Condvar,
    work: Box<Work>,
    moved: Moved,
}

impl Pool {
    /// Starts `threads` threads, which work on at most `bytes_max` bytes at once; each is a part of `watch`.
    pub(super) fn start(
        name: &str,
        threads: usize,
        bytes_max: u64,
        work: Box<Work>,
        watch: &Watch,
    ) -> io::Result<Self> {
        let queues = Mutex::new(Queues::new(bytes_max));
        let shared = Arc::new(Shared { queues, ready: Condvar::new(), work, moved: Moved::default() });
        let pool = Self { shared, threads: Mutex::default() };
        for number in 0..threads.max(1) {
            let (shared, part) = (Arc::clone(&pool.shared), watch.vital(format!("{name}-{number}")));
            let thread = thread::Builder::new().name(part.name()).spawn(move || part.run(|| shared.run(&part)))?;
            lock(&pool.threads).push(thread);
        }
        Ok(pool)
    }

    /// Queues a job; gives it back when its queue is full or the pool is stopped.
    pub(super) fn submit(&self, io: Io) -> Result<(), Io> {
        lock(&self.shared.queues).push(io)?;
        self.shared.ready.notify_one();
        Ok(())
    }

    /// What it is doing now, and what it has done.
    pub(super) fn gauges(&self) -> Gauges {
        let gauges = lock(&self.shared.queues).gauges();
        self.shared.moved.fill(gauges)
    }

    /// Finishes what is queued and ends the threads. From one of them (a completion may drop the last handle of its
    /// device) it does not wait for itself.
    pub(super) fn stop(&self) {
        lock(&self.shared.queues).close();
        self.shared.ready.notify_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a device thread panicked");
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, part: &Part) {
        while let Some((mut io, weight)) = self.next() {
            part.beat();
            let result = (self.work)(&mut io);
            if result.is_ok() {
                self.moved.add(io.op, io.length);
            }
            self.give_back(weight);
            // One job's broken completion must not end the drive, and not be forgotten.
            part.attempt(|| io.complete(result));
        }
    }

    /// The next job; waits for one; `None` when closed and empty.
    fn next(&self) -> Option<(Io, Weight)> {
        let queues = lock(&self.queues);
        let waits = |queues: &mut Queues| !queues.is_over() && !queues.has_work();
        let mut queues = self.ready.wait_while(queues, waits).unwrap_or_else(PoisonError::into_inner);
        let next = queues.take();
        self.tell_others(&queues);
        next
    }

    /// Makes room for others, who may be waiting for it; the caller may be busy with its completion for a while.
    fn give_back(&self, weight: Weight) {
        let mut queues = lock(&self.queues);
        queues.landed(weight);
        queues.ended(weight);
        self.tell_others(&queues);
    }

    fn tell_others(&self, queues: &Queues) {
        if queues.is_over() {
            self.ready.notify_all();
        } else if queues.has_work() {
            self.ready.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AlignedBuf, Buffer, Op};
    use super::*;

    fn job(number: u64, background: bool) -> Io {
        let buffer = Buffer::Heap(AlignedBuf::with_room_for(1));
        Io { op: Op::Read, offset: number, length: 4096, buffer, background, done: Box::new(|_, _| {}) }
    }

    #[test]
    fn stop_finishes_what_is_queued_and_later_jobs_come_back() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Mutex::new(()));
        let held = lock(&gate);
        let (seen, gate_of_work) = (Arc::clone(&done), Arc::clone(&gate));
        let work = move |io: &mut Io| {
            drop(lock(&gate_of_work));
            lock(&seen).push(io.offset);
            Ok(())
        };
        let pool = Pool::start("test", 1, u64::MAX, Box::new(work), &Watch::default()).unwrap();
        for number in 0..10 {
            pool.submit(job(number, number % 2 == 0)).unwrap();
        }
        drop(held);
        pool.stop();
        let mut seen = lock(&done).clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(pool.submit(job(99, false)).unwrap_err().offset, 99);
        pool.stop();
    }

    #[test]
    fn a_completion_that_panics_is_told_and_ends_no_other_job() {
        let watch = Watch::default();
        let pool = Pool::start("test", 1, u64::MAX, Box::new(|_| Ok(())), &watch).unwrap();
        pool.submit(Io { done: Box::new(|_, _| panic!("on purpose")), ..job(0, false) }).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        pool.submit(Io { done: Box::new(move |_, _| sender.send(()).unwrap()), ..job(1, false) }).unwrap();
        receiver.recv().unwrap();
        assert_eq!(watch.failure().unwrap().to_string(), "test-0 panicked: on purpose");
    }

    #[test]
    fn a_completion_may_drop_the_last_handle_of_its_pool() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let pool = Arc::new(Pool::start("test", 2, u64::MAX, Box::new(|_| Ok(())), &Watch::default()).unwrap());
        let (gate, wait) = std::sync::mpsc::channel::<()>();
        let last = Arc::clone(&pool);
        let done = Box::new(move |_: Buffer, _: io::Result<()>| {
            wait.recv().unwrap();
            drop(last);
            sender.send(()).unwrap();
        });
        pool.submit(Io { done, ..job(0, false) }).unwrap();
        drop(pool);
        gate.send(()).unwrap();
        receiver.recv().unwrap();
    }
}
