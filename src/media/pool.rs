//! Threads that carry out a device's jobs from two bounded queues, foreground first.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::device::Io;
use super::lock;
use crate::vocab::limits::{DEVICE_FOREGROUND_RUN, DEVICE_QUEUE};

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
}

#[derive(Default)]
struct Queues {
    foreground: VecDeque<Io>,
    background: VecDeque<Io>,
    /// Foreground jobs taken since the last background one.
    run: u32,
    closed: bool,
}

impl Pool {
    /// Starts `threads` threads.
    pub(super) fn start(name: &str, threads: usize, work: Box<Work>) -> io::Result<Self> {
        let shared = Arc::new(Shared { queues: Mutex::default(), ready: Condvar::new(), work });
        let pool = Self { shared, threads: Mutex::default() };
        for number in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("{name}-{number}")).spawn(move || shared.run())?;
            lock(&pool.threads).push(thread);
        }
        Ok(pool)
    }

    /// Queues a job; gives it back when its queue is full or the pool is stopped.
    pub(super) fn submit(&self, io: Io) -> Result<(), Io> {
        let mut queues = lock(&self.shared.queues);
        let closed = queues.closed;
        let queue = if io.background { &mut queues.background } else { &mut queues.foreground };
        if closed || queue.len() >= DEVICE_QUEUE {
            return Err(io);
        }
        queue.push_back(io);
        drop(queues);
        self.shared.ready.notify_one();
        Ok(())
    }

    /// Finishes what is queued and ends the threads. From one of them (a completion may drop the last handle of its
    /// device) it does not wait for itself.
    pub(super) fn stop(&self) {
        lock(&self.shared.queues).closed = true;
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
    fn run(&self) {
        while let Some(mut io) = self.next() {
            let result = (self.work)(&mut io);
            io.complete(result);
        }
    }

    /// The next job; waits for one; `None` when closed and empty.
    fn next(&self) -> Option<Io> {
        let queues = lock(&self.queues);
        let mut queues = self.ready.wait_while(queues, |queues| queues.waits()).unwrap_or_else(PoisonError::into_inner);
        queues.take()
    }
}

impl Queues {
    fn waits(&self) -> bool {
        !self.closed && self.foreground.is_empty() && self.background.is_empty()
    }

    fn take(&mut self) -> Option<Io> {
        if self.background.is_empty() || (self.run < DEVICE_FOREGROUND_RUN && !self.foreground.is_empty()) {
            self.run = self.run.saturating_add(1);
            self.foreground.pop_front()
        } else {
            self.run = 0;
            self.background.pop_front()
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
    fn foreground_goes_first_but_background_is_not_starved() {
        let mut queues = Queues::default();
        for number in 0..40 {
            queues.foreground.push_back(job(number, false));
            queues.background.push_back(job(number, true));
        }
        let order: Vec<bool> = std::iter::from_fn(|| queues.take()).map(|io| io.background).collect();
        assert_eq!(order.len(), 80);
        let run = DEVICE_FOREGROUND_RUN as usize;
        assert_eq!(order.iter().position(|background| *background), Some(run));
        assert_eq!(order[..=2 * run].iter().filter(|background| **background).count(), 1);
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
        let pool = Pool::start("test", 1, Box::new(work)).unwrap();
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
    fn a_completion_may_drop_the_last_handle_of_its_pool() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let pool = Arc::new(Pool::start("test", 2, Box::new(|_| Ok(()))).unwrap());
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
