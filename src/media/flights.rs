//! The jobs that the kernel has: their memory stays here until the kernel has let go of it, whatever else happens.

use std::io;

use super::buffer::AlignedBuf;
use super::device::{Buffer, Io, Progress, Step};
use super::queue::Weight;
use super::ring::Transfer;

/// The jobs under way on one ring.
#[derive(Debug, Default)]
pub(super) struct Flights {
    places: Vec<Option<Flight>>,
    free: Vec<u32>,
    /// Counts the transfers, so that each has an id of its own even where it continues a job.
    sequence: u32,
}

#[derive(Debug)]
struct Flight {
    io: Io,
    weight: Weight,
    segment: Option<u16>,
    progress: Progress,
    /// Of its transfer that is under way.
    id: u64,
}

/// A job that is over.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) io: Io,
    pub(super) weight: Weight,
    pub(super) result: io::Result<()>,
}

/// What an answer leads to.
#[derive(Debug)]
pub(super) enum Next {
    /// One more transfer of the same job.
    Continue(Transfer),
    /// The job is over.
    Landed(Landed),
    /// Nothing: no transfer under way has this id.
    Unknown,
}

impl Flights {
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Takes a job in, and gives its first transfer. `segment` is the registered one that its memory lies in.
    pub(super) fn launch(&mut self, io: Io, weight: Weight, segment: Option<u16>) -> Transfer {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        let id = self.next_id(place);
        let flight = Flight { io, weight, segment, progress: Progress::default(), id };
        self.places[place as usize].insert(flight).transfer()
    }

    /// Takes in what the kernel says to transfer `id`: bytes moved, or the negative number of an error.
    pub(super) fn answered(&mut self, id: u64, answer: i32) -> Next {
        let place = (id & u64::from(u32::MAX)) as usize;
        let Some(flight) = self.places.get_mut(place).and_then(Option::as_mut).filter(|flight| flight.id == id) else {
            return Next::Unknown;
        };
        let answer = usize::try_from(answer).map_err(|_| io::Error::from_raw_os_error(answer.wrapping_neg()));
        match flight.progress.step(flight.io.length, answer) {
            Step::Again => self.again(place),
            Step::Done(result) => self.take(place, result),
        }
    }

    /// Takes back a job whose transfer `id` the kernel never had.
    pub(super) fn refused(&mut self, id: u64, error: io::Error) -> Next {
        let place = (id & u64::from(u32::MAX)) as usize;
        let is_it = self.places.get(place).and_then(Option::as_ref).is_some_and(|flight| flight.id == id);
        if is_it { self.take(place, Err(error)) } else { Next::Unknown }
    }

    /// Gives up on everything: the jobs are over, without their memory, which the kernel may still write to and which is
    /// therefore never used again.
    pub(super) fn abandon(&mut self) -> Vec<Landed> {
        self.free.clear();
        let lost = || io::Error::other("the drive's queue broke while the kernel had the job");
        let give_up = |Flight { mut io, weight, .. }| {
            let memory = std::mem::replace(&mut io.buffer, Buffer::Heap(AlignedBuf::with_room_for(0)));
            Box::leak(Box::new(memory));
            Landed { io, weight, result: Err(lost()) }
        };
        std::mem::take(&mut self.places).into_iter().flatten().map(give_up).collect()
    }

    fn again(&mut self, place: usize) -> Next {
        let id = self.next_id(place as u32);
        let Some(flight) = self.places[place].as_mut() else { return Next::Unknown };
        flight.id = id;
        Next::Continue(flight.transfer())
    }

    fn take(&mut self, place: usize, result: io::Result<()>) -> Next {
        let Some(Flight { io, weight, .. }) = self.places[place].take() else { return Next::Unknown };
        self.free.push(place as u32);
        Next::Landed(Landed { io, weight, result })
    }

    fn next_id(&mut self, place: u32) -> u64 {
        // Not the last number of all, which a ring may keep for itself.
        self.sequence = (self.sequence + 1) % (u32::MAX - 1);
        u64::from(self.sequence) << 32 | u64::from(place)
    }
}

impl Flight {
    /// What is left to be moved.
    fn transfer(&self) -> Transfer {
        let Io { op, offset, length, ref buffer, .. } = self.io;
        // No reference to the memory: the kernel may have it for another part of this job. Of a write it only reads.
        let address = buffer.span().base();
        let moved = self.progress.moved;
        Transfer {
            op,
            id: self.id,
            offset: offset + u64::from(moved),
            // Within the buffer: less than `length` was moved, and the job was checked to be no longer than it.
            address: address.wrapping_add(moved as usize),
            length: length - moved,
            segment: self.segment,
        }
    }
}

impl Drop for Flights {
    /// A thread that panics must not free what the kernel writes to.
    fn drop(&mut self) {
        for Landed { io, result, .. } in self.abandon() {
            io.complete(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::io::Errno;

    use super::super::device::Op;
    use super::super::queue::Queues;
    use super::*;
    use crate::vocab::limits::DEVICE_RETRIES;

    const OFFSET: u64 = 1 << 20;

    struct Told(Arc<AtomicU32>);

    impl Told {
        fn times(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn launch(flights: &mut Flights, op: Op, length: u32) -> (Transfer, Told) {
        let told = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&told);
        let done = Box::new(move |_, _| _ = count.fetch_add(1, Ordering::Relaxed));
        let buffer = Buffer::Heap(AlignedBuf::with_room_for(length));
        let mut queues = Queues::new(u64::MAX);
        queues.push(Io { op, offset: OFFSET, length, buffer, background: false, done }).unwrap();
        let (io, weight) = queues.take().unwrap();
        (flights.launch(io, weight, Some(3)), Told(told))
    }

    fn goes_on(next: Next) -> Transfer {
        let Next::Continue(transfer) = next else { panic!("{next:?}") };
        transfer
    }

    fn over(next: Next) -> io::Result<()> {
        let Next::Landed(Landed { io, result, .. }) = next else { panic!("{next:?}") };
        io.complete(Ok(()));
        result
    }

    #[test]
    fn a_short_answer_is_continued_behind_what_was_moved_in_file_and_memory() {
        for op in [Op::Read, Op::Write] {
            let mut flights = Flights::default();
            let (first, told) = launch(&mut flights, op, 65_536);
            assert_eq!((first.offset, first.length, first.segment), (OFFSET, 65_536, Some(3)));
            let at =
                |transfer: &Transfer| (transfer.offset - OFFSET, transfer.address as usize - first.address as usize);
            // What was moved of a last, broken 4 KiB is moved again.
            let second = goes_on(flights.answered(first.id, 8192 + 100));
            assert_eq!((at(&second), second.length), ((8192, 8192), 57_344));
            let third = goes_on(flights.answered(second.id, 4096));
            assert_eq!((at(&third), third.length, third.segment), ((12_288, 12_288), 53_248, Some(3)));
            assert_eq!(told.times(), 0);
            over(flights.answered(third.id, 53_248)).unwrap();
            assert!(flights.is_empty() && told.times() == 1);
        }
    }

    #[test]
    fn an_answer_without_bytes_is_the_end_of_the_file() {
        let mut flights = Flights::default();
        let (first, _told) = launch(&mut flights, Op::Read, 8192);
        let second = goes_on(flights.answered(first.id, 4096));
        let error = over(flights.answered(second.id, 0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_asks_for_patience_is_repeated_so_often_and_other_errors_are_reported_at_once() {
        let mut flights = Flights::default();
        for errno in [Errno::AGAIN, Errno::INTR] {
            let (mut transfer, told) = launch(&mut flights, Op::Write, 4096);
            for _ in 0..DEVICE_RETRIES {
                transfer = goes_on(flights.answered(transfer.id, -errno.raw_os_error()));
            }
            let error = over(flights.answered(transfer.id, -errno.raw_os_error())).unwrap_err();
            assert_eq!((error.raw_os_error(), told.times()), (Some(errno.raw_os_error()), 1));
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::CANCELED] {
            let (transfer, _told) = launch(&mut flights, Op::Write, 4096);
            let error = over(flights.answered(transfer.id, -errno.raw_os_error())).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()));
        }
    }

    #[test]
    fn an_answer_to_an_earlier_transfer_changes_nothing() {
        let mut flights = Flights::default();
        let (first, _told) = launch(&mut flights, Op::Read, 8192);
        let second = goes_on(flights.answered(first.id, 4096));
        assert!(matches!(flights.answered(first.id, 8192), Next::Unknown));
        over(flights.answered(second.id, 4096)).unwrap();
        let (again, _told) = launch(&mut flights, Op::Read, 8192);
        assert!(matches!(flights.answered(second.id, 4096), Next::Unknown), "the place is used again, the id is not");
        over(flights.answered(again.id, 8192)).unwrap();
    }

    #[test]
    #[expect(unsafe_code, reason = "plays the kernel")]
    fn what_is_given_up_is_reported_once_and_its_memory_is_not_freed() {
        let mut flights = Flights::default();
        let (transfer, told) = launch(&mut flights, Op::Read, 4096);
        drop(flights);
        assert_eq!(told.times(), 1);
        // The kernel's late answer: under a checker of memory this line is the test.
        // SAFETY: leaked, which is the claim.
        unsafe {
            transfer.address.write_bytes(7, 4096);
        }
    }
}
