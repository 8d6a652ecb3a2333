//! Which segments of RAM are registered with a ring: the kernel holds their pages, and a transfer saves looking each up
//! (measured: a quarter of the CPU time at 4 MiB, half at 1 MiB).
//!
//! To register is to have all of a segment's pages, which takes seconds a GiB where they are not there yet. So a segment
//! is registered once as many bytes have gone through it as it has, and its pages are called for by a thread of their own.
#![expect(unsafe_code, reason = "makes the promise of a ring")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::arena::Arena;
use super::device::Buffer;
use super::ring::Ring;
use crate::watch::Watch;

/// What is registered, as others see it.
#[derive(Debug, Default)]
pub(super) struct Registered {
    bytes: AtomicU64,
    refused: OnceLock<String>,
}

impl Registered {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Why no more will be.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }
}

/// The segments of one arena, for one ring.
pub(super) struct Segments {
    arena: Arc<Arena>,
    states: Vec<State>,
    /// The segment whose pages are being called for.
    coming: Option<(u16, Receiver<()>)>,
    seen: Arc<Registered>,
    watch: Watch,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Used(u64),
    Registered,
}

impl Segments {
    pub(super) fn new(arena: Arc<Arena>, seen: Arc<Registered>, watch: Watch) -> Self {
        let states = vec![State::Used(0); arena.segments().len()];
        Self { arena, states, coming: None, seen, watch }
    }

    /// The registered segment that `buffer` lies in, of which `length` bytes are about to be used.
    pub(super) fn of(&mut self, buffer: &Buffer, length: u32) -> Option<u16> {
        let number = buffer.segment_of(&self.arena)?;
        match self.states.get_mut(usize::from(number))? {
            State::Registered => Some(number),
            State::Used(bytes) => {
                *bytes = bytes.saturating_add(u64::from(length));
                let is_worn = *bytes >= self.arena.segments()[usize::from(number)].size() as u64;
                if is_worn && self.coming.is_none() && self.seen.refused().is_none() {
                    self.coming = self.call_for(number);
                }
                None
            }
        }
    }

    /// Registers the segment whose pages are there by now, if there is one.
    pub(super) fn register(&mut self, ring: &mut impl Ring) {
        let Some((number, there)) = &self.coming else { return };
        if there.try_recv() == Err(TryRecvError::Empty) {
            return;
        }
        let (number, segment) = (*number, &self.arena.segments()[usize::from(*number)]);
        self.coming = None;
        // SAFETY: `self.arena` keeps the segment mapped, and the engine drops its ring before this.
        match unsafe { ring.register(number, segment) } {
            Ok(()) => {
                self.states[usize::from(number)] = State::Registered;
                self.seen.bytes.fetch_add(segment.size() as u64, Ordering::Relaxed);
            }
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&self, error: &io::Error) {
        let why = explain(error, getrlimit(Resource::Memlock).current);
        tracing::warn!(why, "RAM can't be registered with io_uring: the drive works with more CPU time");
        drop(self.seen.refused.set(why));
    }

    /// Has the pages of a segment made, or does nothing where no thread can be had: they will be asked for again.
    fn call_for(&self, number: u16) -> Option<(u16, Receiver<()>)> {
        let (sender, receiver) = sync_channel(1);
        let arena = Arc::clone(&self.arena);
        let populate = move || {
            if let Err(error) = arena.segments()[usize::from(number)].populate() {
                tracing::debug!(%error, number, "a segment's pages could not be called for");
            }
            // Dropped or sent: either way it is over.
            _ = sender.send(());
        };
        // Without it the segment is used as it is, with more CPU time.
        let part = self.watch.optional("kvtier-populate");
        thread::Builder::new().name(part.name()).spawn(move || part.run(populate)).ok()?;
        Some((number, receiver))
    }
}

fn explain(error: &io::Error, memlock: Option<u64>) -> String {
    match (Errno::from_io_error(error), memlock) {
        (Some(Errno::NOMEM | Errno::PERM), Some(limit)) => format!(
            "the limit on locked memory, {} KiB, is too low to register the RAM tier: raise it (LimitMEMLOCK, ulimit -l)",
            limit >> 10
        ),
        (Some(Errno::INVAL | Errno::NXIO), _) => "the kernel registers no single segments (before 5.19)".to_owned(),
        _ => format!("registering the RAM tier failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::AlignedBuf;
    use super::super::ring::{Answer, Transfer};
    use super::super::segment::Segment;
    use super::*;
    use crate::vocab::{ByteCount, SlotClass, SlotId, TierShape};

    #[derive(Default)]
    struct Kernel {
        refuses: Option<Errno>,
        registered: Vec<u16>,
    }

    impl Ring for Kernel {
        unsafe fn push(&mut self, _: Transfer) -> bool {
            true
        }

        fn enter(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn reap(&mut self, _: &mut Vec<Answer>) {}

        unsafe fn register(&mut self, number: u16, _: &Segment) -> io::Result<()> {
            self.registered.push(number);
            self.refuses.map_or(Ok(()), |errno| Err(errno.into()))
        }
    }

    /// An arena of 16 segments of 8 KiB.
    fn segments() -> (Segments, Buffer) {
        let arena = Arena::new(TierShape::carve(ByteCount(16 * 8192))).unwrap();
        let class = SlotClass::of_bytes(4096).unwrap();
        let buffer = Buffer::Fill(arena.writer(SlotId { extent: 5, index: 0 }, class).unwrap());
        (Segments::new(arena, Arc::default(), Watch::default()), buffer)
    }

    fn wait_for_pages(segments: &mut Segments, kernel: &mut Kernel) {
        while segments.coming.is_some() {
            segments.register(kernel);
            thread::yield_now();
        }
    }

    #[test]
    fn a_segment_is_registered_once_as_much_went_through_it_as_it_has() {
        let (mut segments, buffer) = segments();
        let mut kernel = Kernel::default();
        assert_eq!(segments.of(&buffer, 4096), None);
        assert!(segments.coming.is_none());
        assert_eq!(segments.of(&buffer, 4096), None);
        assert_eq!(segments.of(&Buffer::Heap(AlignedBuf::with_room_for(1)), 4096), None);
        wait_for_pages(&mut segments, &mut kernel);
        assert_eq!((kernel.registered, segments.seen.bytes()), (vec![5], 8192));
        assert_eq!(segments.of(&buffer, 4096), Some(5));
        let (_other, buffer) = self::segments();
        assert_eq!(segments.of(&buffer, 4096), None, "a segment of another arena");
    }

    #[test]
    fn a_refusal_is_remembered_and_not_asked_for_again() {
        let (mut segments, buffer) = segments();
        let mut kernel = Kernel { refuses: Some(Errno::NOMEM), ..Kernel::default() };
        for _ in 0..10 {
            assert_eq!(segments.of(&buffer, 8192), None);
            wait_for_pages(&mut segments, &mut kernel);
        }
        assert_eq!((kernel.registered, segments.seen.bytes()), (vec![5], 0));
        assert!(segments.seen.refused().unwrap().contains("limit on locked memory"));
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        assert!(explain(&Errno::NOMEM.into(), Some(8 << 20)).contains("8192 KiB, is too low"));
        assert!(explain(&Errno::NXIO.into(), None).contains("before 5.19"));
        assert!(explain(&Errno::FAULT.into(), None).contains("Bad address"));
    }
}
