//! Claims about the thread that has the ring, with a test in the kernel's place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

use super::super::{AlignedBuf, Buffer, Op, lock};
use super::*;
use crate::media::segment::Segment;
use crate::vocab::limits::DEVICE_FOREGROUND_RUN;
use crate::watch::Watch;

/// What the kernel does with what it is handed.
#[derive(Default)]
struct Kernel {
    /// Handed over and not answered.
    has: VecDeque<Transfer>,
    /// In line, not handed over.
    in_line: Vec<Transfer>,
    /// In the order in which they were handed over.
    seen: Vec<(u64, u32)>,
    /// What to answer to the next transfers, instead of that all was moved.
    script: VecDeque<i32>,
    /// What the next calls of `enter` fail with.
    refusals: VecDeque<Errno>,
    enters: usize,
}

// SAFETY: addresses, of which the tests see to that they stay valid.
unsafe impl Send for Kernel {}

/// A ring whose kernel is `Kernel`. It answers all that it has at each `enter`, while `open`.
#[derive(Clone, Default)]
struct Fake {
    kernel: Arc<Mutex<Kernel>>,
    is_shut: Arc<AtomicBool>,
}

impl Fake {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        lock(&self.kernel)
    }
}

impl Ring for Fake {
    unsafe fn push(&mut self, transfer: Transfer) -> bool {
        self.kernel().in_line.push(transfer);
        true
    }

    fn enter(&mut self) -> io::Result<()> {
        let mut kernel = self.kernel();
        kernel.enters += 1;
        if let Some(errno) = kernel.refusals.pop_front() {
            return Err(errno.into());
        }
        let in_line = std::mem::take(&mut kernel.in_line);
        kernel.seen.extend(in_line.iter().map(|transfer| (transfer.offset, transfer.length)));
        kernel.has.extend(in_line);
        drop(kernel);
        while self.is_shut.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        Ok(())
    }

    fn reap(&mut self, answers: &mut Vec<Answer>) {
        let mut kernel = self.kernel();
        while let Some(transfer) = kernel.has.pop_front() {
            let answer = kernel.script.pop_front().unwrap_or(transfer.length as i32);
            if transfer.op == Op::Read && answer > 0 {
                // SAFETY: what `push` was promised. Memory freed too early is found by a checker of memory here.
                unsafe { transfer.address.write_bytes(7, answer as usize) };
            }
            answers.push((transfer.id, answer));
        }
    }

    unsafe fn register(&mut self, _: u16, _: &Segment) -> io::Result<()> {
        Ok(())
    }
}

/// Of the job at an offset.
type Outcome = (u64, io::Result<Vec<u8>>);

struct Drive {
    inbox: Arc<Inbox>,
    threads: Vec<JoinHandle<()>>,
    watch: Watch,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
}

impl Drive {
    fn start(bytes_max: u64, fake: Fake) -> Self {
        let (inbox, _) = Inbox::new(bytes_max).unwrap();
        let watch = Watch::default();
        let part = watch.vital("ring");
        let inbox = Arc::new(inbox);
        let (reports, reporters) = Reports::start("test", &inbox, &watch).unwrap();
        let engine = Engine {
            ring: fake,
            flights: Flights::default(),
            inbox: Arc::clone(&inbox),
            reports,
            segments: None,
            moved: Arc::default(),
            size: 1 << 30,
            landed: Vec::new(),
            part: part.clone(),
        };
        let mut threads = Vec::from(reporters);
        threads.insert(0, thread::spawn(move || drop(part.run(|| engine.run()))));
        Self { inbox, threads, watch, outcomes: Arc::default() }
    }

    fn submit(&self, op: Op, offset: u64, length: u32) {
        let outcomes = Arc::clone(&self.outcomes);
        let done = Box::new(move |buffer: Buffer, result: io::Result<()>| {
            lock(&outcomes).push((offset, result.map(|()| buffer.span().to_vec())));
        });
        let buffer = Buffer::Heap(AlignedBuf::with_room_for(length));
        self.inbox.submit(Io { op, offset, length, buffer, background: op == Op::Write, done }).unwrap();
    }

    /// Stops it, and gives each job's end, by offset.
    fn outcomes(self) -> Vec<Outcome> {
        self.inbox.close();
        for thread in self.threads {
            drop(thread.join());
        }
        let mut outcomes = std::mem::take(&mut *lock(&self.outcomes));
        outcomes.sort_by_key(|(offset, _)| *offset);
        outcomes
    }
}

#[test]
fn short_answers_are_continued_until_all_is_there() {
    let fake = Fake::default();
    fake.kernel().script = VecDeque::from([4096 + 17, -Errno::AGAIN.raw_os_error(), 8192]);
    let drive = Drive::start(u64::MAX, fake.clone());
    drive.submit(Op::Read, 0, 16_384);
    let outcomes = drive.outcomes();
    assert!(outcomes[0].1.as_ref().unwrap() == &vec![7; 16_384]);
    assert_eq!(fake.kernel().seen, [(0, 16_384), (4096, 12_288), (4096, 12_288), (12_288, 4096)]);
}

#[test]
fn what_is_queued_goes_to_the_kernel_in_one_call_and_no_more_than_the_bound() {
    let fake = Fake::default();
    fake.is_shut.store(true, Ordering::Relaxed);
    let drive = Drive::start(8 * 4096, fake.clone());
    for number in 0..40 {
        drive.submit(Op::Read, number * 4096, 4096);
    }
    fake.is_shut.store(false, Ordering::Relaxed);
    let inbox = Arc::clone(&drive.inbox);
    assert_eq!(drive.outcomes().len(), 40);
    assert_eq!(inbox.gauges().inflight_bytes_peak, 8 * 4096);
    // The first call had what was there by then; the rest of 40 came 8 at a time.
    assert!(fake.kernel().enters <= 1 + 40_usize.div_ceil(8), "{}", fake.kernel().enters);
}

#[test]
fn reads_overtake_queued_writes_and_writes_are_not_starved() {
    let fake = Fake::default();
    fake.is_shut.store(true, Ordering::Relaxed);
    let drive = Drive::start(4096, fake.clone());
    drive.submit(Op::Write, 0, 4096);
    while fake.kernel().has.is_empty() {
        thread::yield_now();
    }
    for number in 1..=40 {
        drive.submit(Op::Write, number * 4096, 4096);
    }
    for number in 101..=140 {
        drive.submit(Op::Read, number * 4096, 4096);
    }
    fake.is_shut.store(false, Ordering::Relaxed);
    assert_eq!(drive.outcomes().len(), 81);
    let order: Vec<u64> = fake.kernel().seen.iter().map(|(offset, _)| offset / 4096).collect();
    let run = u64::from(DEVICE_FOREGROUND_RUN);
    let expected = std::iter::once(0).chain(101..101 + run).chain([1]).chain(101 + run..101 + 2 * run).chain([2]);
    assert_eq!(order[..2 * run as usize + 3], expected.collect::<Vec<_>>());
}

#[test]
fn a_kernel_that_is_busy_for_a_while_loses_nothing() {
    let fake = Fake::default();
    fake.kernel().refusals = VecDeque::from([Errno::INTR, Errno::AGAIN, Errno::BUSY, Errno::INTR]);
    let drive = Drive::start(u64::MAX, fake);
    for number in 0..10 {
        drive.submit(Op::Read, number * 4096, 4096);
    }
    let outcomes = drive.outcomes();
    assert!(outcomes.len() == 10 && outcomes.iter().all(|(_, result)| result.is_ok()));
}

#[test]
fn a_ring_that_breaks_reports_what_it_still_has_once_and_takes_nothing_more() {
    let fake = Fake::default();
    fake.is_shut.store(true, Ordering::Relaxed);
    let drive = Drive::start(4096, fake.clone());
    for number in 0..5 {
        drive.submit(Op::Read, number * 4096, 4096);
    }
    while fake.kernel().has.is_empty() {
        thread::yield_now();
    }
    // The first job is with the kernel, and its answer comes. The second breaks the ring, and is answered later.
    fake.kernel().refusals = VecDeque::from([Errno::BADF, Errno::BADF]);
    fake.is_shut.store(false, Ordering::Relaxed);
    let (inbox, watch) = (Arc::clone(&drive.inbox), drive.watch.clone());
    let outcomes = drive.outcomes();
    let failure = watch.failure().expect("a drive without its ring is told");
    assert!(failure.part == "ring" && failure.why.starts_with("ended: "), "{failure}");
    let good: Vec<bool> = outcomes.iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(good, [true, true, false, false, false]);
    let buffer = Buffer::Heap(AlignedBuf::with_room_for(1));
    assert!(inbox.submit(Io::read(0, 1, buffer, Box::new(|_, _| {}))).is_err());
}

#[test]
fn a_completion_that_panics_is_told_and_ends_no_other_job() {
    let drive = Drive::start(u64::MAX, Fake::default());
    let told = Arc::new(AtomicUsize::new(0));
    let buffer = || Buffer::Heap(AlignedBuf::with_room_for(1));
    drive.inbox.submit(Io::read(0, 1, buffer(), Box::new(|_, _| panic!("on purpose")))).unwrap();
    let count = Arc::clone(&told);
    let done = Box::new(move |_, _| _ = count.fetch_add(1, Ordering::Relaxed));
    drive.inbox.submit(Io::read(0, 1, buffer(), done)).unwrap();
    let watch = drive.watch.clone();
    drive.outcomes();
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert_eq!(watch.failure().unwrap().to_string(), "test-done panicked: on purpose");
}
