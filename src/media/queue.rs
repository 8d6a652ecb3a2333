//! What waits for a drive, and how much of it may be under way: foreground first, background never starved, bytes in
//! flight bounded. No threads here: whoever carries out the jobs asks for the next one and says when it has ended.

use std::collections::VecDeque;

use super::device::{Gauges, Io};
use crate::vocab::limits::{DEVICE_FOREGROUND_RUN, DEVICE_OPS, DEVICE_QUEUE};

/// Jobs of one drive.
#[derive(Debug)]
pub(super) struct Queues {
    foreground: VecDeque<Io>,
    background: VecDeque<Io>,
    /// Foreground jobs taken since the last background one.
    run: u32,
    closed: bool,
    bytes_max: u64,
    all: UnderWay,
    of_background: UnderWay,
    bytes_peak: u64,
}

/// What was taken and has not ended: its bytes until the drive is done, its place until it was reported.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    bytes: u64,
    jobs: usize,
}

/// What a job weighs, to be given back when it ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    bytes: u64,
    background: bool,
}

impl Queues {
    /// Empty, with at most `bytes_max` bytes in flight. A single job may be larger, and then goes alone.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            foreground: VecDeque::new(),
            background: VecDeque::new(),
            run: 0,
            closed: false,
            bytes_max,
            all: UnderWay::default(),
            of_background: UnderWay::default(),
            bytes_peak: 0,
        }
    }

    /// Queues a job; gives it back when its queue is full or closed.
    pub(super) fn push(&mut self, io: Io) -> Result<(), Io> {
        let queue = if io.background { &mut self.background } else { &mut self.foreground };
        if self.closed || queue.len() >= DEVICE_QUEUE {
            return Err(io);
        }
        queue.push_back(io);
        Ok(())
    }

    /// Takes nothing more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing is queued and nothing will be.
    pub(super) fn is_over(&self) -> bool {
        self.closed && self.foreground.is_empty() && self.background.is_empty()
    }

    /// The next job, if there is one that may go now.
    pub(super) fn take(&mut self) -> Option<(Io, Weight)> {
        let io = match self.turn()? {
            Turn::Foreground => {
                self.run = self.run.saturating_add(1);
                self.foreground.pop_front()
            }
            Turn::Background => {
                self.run = 0;
                self.background.pop_front()
            }
        }?;
        let weight = Weight { bytes: u64::from(io.length), background: io.background };
        for under_way in self.under_way(weight) {
            under_way.bytes += weight.bytes;
            under_way.jobs += 1;
        }
        self.bytes_peak = self.bytes_peak.max(self.all.bytes);
        Some((io, weight))
    }

    /// Whether [`take`](Self::take) would give a job.
    pub(super) fn has_work(&self) -> bool {
        self.turn().is_some()
    }

    /// The drive is done with a job: its bytes are no longer in flight.
    pub(super) fn landed(&mut self, weight: Weight) {
        for under_way in self.under_way(weight) {
            under_way.bytes -= weight.bytes;
        }
    }

    /// The job was reported: its place is free.
    pub(super) fn ended(&mut self, weight: Weight) {
        for under_way in self.under_way(weight) {
            under_way.jobs -= 1;
        }
    }

    /// Everything queued, whatever is under way: for a drive that can't go on.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Io> {
        self.foreground.drain(..).chain(self.background.drain(..))
    }

    /// The numbers that it knows.
    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            queued: self.foreground.len() + self.background.len(),
            inflight_bytes: self.all.bytes,
            inflight_bytes_peak: self.bytes_peak,
            ..Gauges::default()
        }
    }

    /// Whose turn it is, and whether it may go. Background jobs have at most half of the room, so that a read never
    /// finds a drive full of writes; where they have that, foreground goes on. Where the room is used up, the one whose
    /// turn it is waits for more of it, or a large job would be overtaken for ever.
    fn turn(&self) -> Option<Turn> {
        if let Some(io) = self.background.front() {
            let is_due = self.foreground.is_empty() || self.run >= DEVICE_FOREGROUND_RUN;
            if is_due && self.of_background.has_room(u64::from(io.length), self.bytes_max / 2, DEVICE_OPS / 2) {
                return self.all.has_room(u64::from(io.length), self.bytes_max, DEVICE_OPS).then_some(Turn::Background);
            }
        }
        let io = self.foreground.front()?;
        self.all.has_room(u64::from(io.length), self.bytes_max, DEVICE_OPS).then_some(Turn::Foreground)
    }

    fn under_way(&mut self, weight: Weight) -> impl Iterator<Item = &mut UnderWay> {
        std::iter::once(&mut self.all).chain(weight.background.then_some(&mut self.of_background))
    }
}

enum Turn {
    Foreground,
    Background,
}

impl UnderWay {
    /// For one more of `bytes`. The first one always has: a job larger than the bound goes alone.
    fn has_room(&self, bytes: u64, bytes_max: u64, jobs_max: usize) -> bool {
        self.jobs < jobs_max && (self.bytes == 0 || self.bytes + bytes <= bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AlignedBuf, Buffer, Op};
    use super::*;

    const JOB: u64 = 4096;

    fn job(number: u64, length: u64, background: bool) -> Io {
        let buffer = Buffer::Heap(AlignedBuf::with_room_for(1));
        let length = u32::try_from(length).unwrap();
        Io { op: Op::Read, offset: number, length, buffer, background, done: Box::new(|_, _| {}) }
    }

    fn filled(bytes_max: u64, jobs: u64) -> Queues {
        let mut queues = Queues::new(bytes_max);
        for number in 0..jobs {
            queues.push(job(number, JOB, false)).unwrap();
            queues.push(job(number, JOB, true)).unwrap();
        }
        queues
    }

    #[test]
    fn foreground_goes_first_but_background_is_not_starved() {
        let mut queues = filled(u64::MAX, 40);
        let order: Vec<bool> = std::iter::from_fn(|| queues.take()).map(|(io, _)| io.background).collect();
        assert_eq!(order.len(), 80);
        let run = DEVICE_FOREGROUND_RUN as usize;
        assert_eq!(order.iter().position(|background| *background), Some(run));
        assert_eq!(order[..=2 * run].iter().filter(|background| **background).count(), 1);
    }

    #[test]
    fn bytes_in_flight_stay_within_the_bound_and_background_within_half_of_it() {
        let mut queues = filled(8 * JOB, 40);
        let (mut under_way, mut ended) = (VecDeque::new(), 0);
        while ended < 80 {
            while let Some((io, weight)) = queues.take() {
                under_way.push_back((io.background, weight));
            }
            assert!(!queues.has_work());
            let background = under_way.iter().filter(|(background, _)| *background).count();
            assert!(under_way.len() <= 8 && background <= 4, "{background} of {}", under_way.len());
            let (_, weight) = under_way.pop_front().unwrap();
            queues.landed(weight);
            queues.ended(weight);
            ended += 1;
        }
        let gauges = queues.gauges();
        assert_eq!((gauges.inflight_bytes, gauges.inflight_bytes_peak, gauges.queued), (0, 8 * JOB, 0));
    }

    #[test]
    fn a_job_larger_than_the_bound_goes_alone_and_is_not_overtaken_for_ever() {
        for background in [false, true] {
            let mut queues = Queues::new(4 * JOB);
            queues.push(job(0, JOB, false)).unwrap();
            let (_, small) = queues.take().unwrap();
            queues.push(job(1, 100 * JOB, background)).unwrap();
            assert!(!queues.has_work(), "something else is under way");
            queues.landed(small);
            let (io, large) = queues.take().unwrap();
            assert_eq!(io.offset, 1);
            queues.push(job(2, JOB, false)).unwrap();
            assert!(queues.take().is_none(), "it goes alone");
            queues.landed(large);
            assert!(queues.take().is_some());
        }
    }

    #[test]
    fn jobs_not_yet_reported_keep_their_places_though_not_their_bytes() {
        let mut queues = filled(u64::MAX, DEVICE_OPS as u64);
        let taken: Vec<_> = std::iter::from_fn(|| queues.take()).collect();
        assert_eq!(taken.len(), DEVICE_OPS);
        for (_, weight) in &taken {
            queues.landed(*weight);
        }
        assert_eq!((queues.gauges().inflight_bytes, queues.has_work()), (0, false));
        queues.ended(taken[0].1);
        assert!(queues.take().is_some());
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
        let mut queues = filled(u64::MAX, 1);
        queues.close();
        assert_eq!(queues.push(job(7, JOB, false)).unwrap_err().offset, 7);
        assert!(!queues.is_over());
        assert_eq!((queues.take().is_some(), queues.take().is_some(), queues.is_over()), (true, true, true));
    }
}
