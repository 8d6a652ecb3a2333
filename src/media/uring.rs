//! A drive through io_uring: one thread with the ring, two that report what landed.

use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::arena::Arena;
use super::device::{Device, Gauges, Io, Moved};
use super::engine::Engine;
use super::flights::Flights;
use super::inbox::Inbox;
use super::lock;
use super::refusal::Refusal;
use super::registered::{Registered, Segments};
use super::reports::Reports;
use super::ring::KernelRing;
use super::slot_file::SlotFile;
use crate::watch::Watch;

/// One slot file. Dropping it finishes what is queued.
pub struct UringDevice {
    inbox: Arc<Inbox>,
    moved: Arc<Moved>,
    registered: Arc<Registered>,
    size: u64,
    direct: bool,
    buffered_because: Option<String>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl UringDevice {
    /// Works on `file` with at most `bytes_max` bytes in flight, and registers the segments of `arena` where it can. Its threads
    /// are parts of `watch`.
    pub(super) fn start(
        name: &str,
        file: &SlotFile,
        bytes_max: u64,
        arena: Option<Arc<Arena>>,
        watch: &Watch,
    ) -> Result<Self, Refusal> {
        let (inbox, wake) = Inbox::new(bytes_max).map_err(Refusal::Setup)?;
        let inbox = Arc::new(inbox);
        let (reports, reporters) = Reports::start(name, &inbox, watch).map_err(Refusal::Thread)?;
        let device = Self {
            inbox,
            moved: Arc::default(),
            registered: Arc::default(),
            size: file.len,
            direct: file.direct,
            buffered_because: file.buffered_because.clone(),
            threads: Mutex::new(reporters.into()),
        };
        let (inbox, moved, size) = (Arc::clone(&device.inbox), Arc::clone(&device.moved), device.size);
        let seen = Arc::clone(&device.registered);
        let file = Arc::clone(&file.file);
        let (sender, made) = sync_channel(1);
        let (watched, helpers) = (watch.vital(format!("{name}-ring")), watch.clone());
        let (part, thread) = (watched.clone(), thread::Builder::new().name(watched.name()));
        let work = move || {
            let count = arena.as_ref().map_or(0, |arena| arena.segments().len());
            let ring = match KernelRing::new(file, wake, u16::try_from(count).unwrap_or(u16::MAX)) {
                Ok(ring) => ring,
                Err(refusal) => {
                    drop(sender.send(Err(refusal)));
                    return Ok(());
                }
            };
            drop(sender.send(Ok(())));
            let segments = arena.map(|arena| Segments::new(arena, seen, helpers));
            let flights = Flights::default();
            Engine { ring, flights, inbox, reports, segments, moved, size, landed: Vec::new(), part }.run()
        };
        let run = move || {
            // Its owner hears of it by its jobs.
            watched.run(work).ok();
        };
        let thread = thread.spawn(run).map_err(Refusal::Thread)?;
        // Before those that report: they end after it.
        lock(&device.threads).insert(0, thread);
        let gone = |_| Err(Refusal::Setup(io::Error::other("its thread panicked")));
        made.recv().unwrap_or_else(gone).map(|()| device)
    }
}

impl Device for UringDevice {
    fn submit(&self, io: Io) -> Result<(), Io> {
        self.inbox.submit(io)
    }

    fn kind(&self) -> &'static str {
        match (self.direct, self.registered.bytes() > 0) {
            (true, true) => "io_uring, O_DIRECT, registered buffers",
            (true, false) => "io_uring, O_DIRECT",
            (false, true) => "io_uring, buffered, registered buffers",
            (false, false) => "io_uring, buffered",
        }
    }

    fn drawback(&self) -> Option<String> {
        let known = [self.buffered_because.as_deref(), self.registered.refused()];
        let known: Vec<_> = known.into_iter().flatten().collect();
        (!known.is_empty()).then(|| known.join("; "))
    }

    fn gauges(&self) -> Gauges {
        let gauges = Gauges { registered_bytes: self.registered.bytes(), ..self.inbox.gauges() };
        self.moved.fill(gauges)
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn stop(&self) {
        self.inbox.close();
        let threads = std::mem::take(&mut *lock(&self.threads));
        let current = thread::current().id();
        // Each of them needs the others to end, so one of them waits for none: they end by themselves.
        if threads.iter().any(|thread| thread.thread().id() == current) {
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a device thread panicked");
            }
        }
    }
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::super::contract_tests::{completion, heap};
    use super::*;

    /// Long enough for any host, and shorter than for ever.
    const HANGS: Duration = Duration::from_secs(30);

    /// On a pipe instead of a file: a read of it is in flight for as long as the test wants.
    #[test]
    fn a_job_does_not_wait_for_one_that_is_in_flight() {
        let (reader, mut writer) = io::pipe().unwrap();
        let file = Arc::new(File::from(OwnedFd::from(reader)));
        let file = SlotFile { file, len: 4096, direct: false, buffered_because: None };
        let Ok(device) = UringDevice::start("test", &file, u64::MAX, None, &Watch::default()) else { return };
        let (done, slow) = completion();
        device.submit(Io::read(0, 4096, heap(&[0; 4096]), done)).unwrap();
        while device.gauges().inflight_bytes == 0 {
            thread::yield_now();
        }
        for _ in 0..1_000 {
            let (done, outcome) = completion();
            device.submit(Io::read(4096, 4096, heap(&[0; 4096]), done)).unwrap();
            assert_eq!(outcome.recv_timeout(HANGS).unwrap().1.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert!(slow.try_recv().is_err());
        writer.write_all(&[7; 4096]).unwrap();
        let (buffer, result) = slow.recv_timeout(HANGS).unwrap();
        assert!(result.is_ok() && buffer.span().to_vec() == [7; 4096]);
    }
}
