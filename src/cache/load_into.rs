//! The walk of a load into an engine's own memory: one read from the drive straight to where the engine wants the block, or
//! one copy from RAM. Nothing is promoted: the bytes would be held twice.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::Cache;
use super::delivery::Sent;
use super::error::Error;
use super::load::{FetchOutcome, FetchRequest, Fetched, TRIES};
use super::regions::{WriteGuard, check_offset};
use crate::plan::{Peek, Transfer};
use crate::session::{Region, RegionWriter};
use crate::tiers::{Place, ReadDone, ReadError, ReadInto, SlotPin};
use crate::vocab::limits::{ALIGNMENT, DEVICE_INFLIGHT_BYTES, DEVICE_OPS, FETCH_READ_AHEAD, MESSAGE_PAYLOAD_BYTES};
use crate::vocab::{BlockKey, Tier};

/// A load whose places in the engine's memory are claimed.
pub struct LoadInto {
    request: FetchRequest,
    /// Of each block.
    places: Vec<RegionWriter>,
    guard: Arc<WriteGuard>,
}

/// A block whose turn has not come.
enum Ahead {
    InRam(RegionWriter),
    Reading(oneshot::Receiver<bool>),
    Missing,
}

/// Blocks that were started, in the order of their turns.
struct Queue {
    queue: mpsc::Receiver<Ahead>,
    /// The one whose turn it is.
    next: Option<Ahead>,
}

impl Queue {
    async fn front(&mut self) -> Option<&mut Ahead> {
        if self.next.is_none() {
            self.next = self.queue.recv().await;
        }
        self.next.as_mut()
    }

    /// The memory is the engine's alone only when the drive has no more to write there.
    async fn wait_for_drive(mut self) {
        self.queue.close();
        while let Some(ahead) = self.front().await {
            if let Ahead::Reading(landed) = ahead {
                landed.await.ok();
            }
            self.next = None;
        }
    }
}

impl Cache {
    /// Claims the places: `offsets` has one for each block, with room for the largest payload of the namespace.
    ///
    /// # Errors
    /// For offsets that are not aligned, past the end, or being written by another load.
    pub fn load_into(&self, request: FetchRequest, region: &Arc<Region>, offsets: &[u64]) -> Result<LoadInto, Error> {
        let room = u64::from(request.chain.namespace.spec.max_payload_bytes).next_multiple_of(ALIGNMENT);
        let blocks = request.chain.len();
        if offsets.len() != blocks {
            let given = offsets.len();
            return Err(Error::Invalid(format!(
                "offset has {given} entries, the chain names {blocks} blocks: one for each"
            )));
        }
        for (at, offset) in offsets.iter().enumerate() {
            if !offset.is_multiple_of(ALIGNMENT) {
                return Err(Error::Invalid(format!(
                    "offset[{at}] is {offset}: a drive reads to multiples of 4096 only"
                )));
            }
            check_offset(region, at, *offset, room)?;
        }
        let guard = self.writing.begin(request.session.number, request.request.digest());
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let claim = |(at, offset): (usize, &u64)| {
            let why = "another load is writing there, or another block of this one";
            let taken = || Error::Refused(format!("offset[{at}] is {offset}: {why}"));
            region.claim(*offset, room).ok_or_else(taken)
        };
        let places = offsets.iter().enumerate().map(claim).collect::<Result<_, _>>()?;
        Ok(LoadInto { request, places, guard })
    }

    /// Fills the places in prefix order, telling `out` after each block how many are there, and records what was delivered.
    /// When it returns, nothing is written any more: it ends by the deadline, and as long after it as the drive needs for what
    /// it was given before.
    pub async fn fill(self: Arc<Self>, load: LoadInto, out: mpsc::Sender<u32>) -> Fetched {
        let LoadInto { request, places, guard } = load;
        let mut sent = Sent { depth: request.chain.depth, ..Sent::default() };
        let payload = u64::from(request.chain.namespace.spec.max_payload_bytes);
        // The places are claimed already, so what is in flight takes no memory. Twice of what a drive works on at once: reads
        // land in any order, and while the first is late, those behind it keep the drive busy.
        let read_ahead =
            usize::try_from(2 * DEVICE_INFLIGHT_BYTES / payload).unwrap_or(1).clamp(FETCH_READ_AHEAD, DEVICE_OPS);
        let (started, queue) = mpsc::channel(read_ahead);
        let mut queue = Queue { queue, next: None };
        let stop = guard.stop().clone();
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => FetchOutcome::Abandoned,
            () = tokio::time::sleep_until(request.deadline) => FetchOutcome::Deadline,
            () = out.closed() => FetchOutcome::Abandoned,
            outcome = self.take_in_turn(&request, &mut queue, &out, &mut sent) => outcome,
            // Beside it: a planner that takes its time holds up no block that is in RAM.
            () = self.start_reads(&request, places, &guard, started) => FetchOutcome::Miss,
        };
        queue.wait_for_drive().await;
        self.used_by(&request, &sent);
        self.deliver(&request, outcome, &sent)
    }

    /// Fills the places of blocks as their turn comes.
    async fn take_in_turn(
        &self,
        request: &FetchRequest,
        queue: &mut Queue,
        out: &mpsc::Sender<u32>,
        sent: &mut Sent,
    ) -> FetchOutcome {
        for at in 0..request.chain.len() {
            // It stays in the queue until it has landed, whatever happens to this walk.
            let tier = match queue.front().await {
                None | Some(Ahead::Missing) => None,
                Some(Ahead::Reading(landed)) => landed.await.unwrap_or(false).then_some(Tier::Nvme),
                Some(Ahead::InRam(place)) => {
                    self.copy_from_ram(&request.chain.key(at), place).await.then_some(Tier::Ram)
                }
            };
            queue.next = None;
            let Some(tier) = tier else { return FetchOutcome::Miss };
            sent.from_nvme.push(tier == Tier::Nvme);
            // A reader that is behind hears of it with the next one.
            out.try_send(u32::try_from(at + 1).unwrap_or(u32::MAX)).ok();
        }
        FetchOutcome::Complete
    }

    /// Starts the reads, as far ahead as the queue has room. Returns when nobody takes them any more.
    async fn start_reads(
        &self,
        request: &FetchRequest,
        places: Vec<RegionWriter>,
        guard: &Arc<WriteGuard>,
        started: mpsc::Sender<Ahead>,
    ) {
        for (at, place) in places.into_iter().enumerate() {
            // Its place first: what was started is in the queue at once, or nobody would wait for it.
            let Ok(room) = started.reserve().await else { return };
            room.send(self.start_read(request.chain.key(at), place, guard).await);
        }
        started.closed().await;
    }

    async fn start_read(&self, key: BlockKey, place: RegionWriter, guard: &Arc<WriteGuard>) -> Ahead {
        match self.residency.get(&key) {
            None => Ahead::Missing,
            Some(residence) if residence.ram.is_some() => Ahead::InRam(place),
            Some(_) => match self.read_to(key, place, Arc::clone(guard)).await {
                Ok(landed) => Ahead::Reading(landed),
                // It may have come to RAM meanwhile.
                Err(Some(place)) => Ahead::InRam(place),
                Err(None) => Ahead::Missing,
            },
        }
    }

    /// Starts a read from the drive. The place comes back where the drive has no such block.
    async fn read_to(
        &self,
        key: BlockKey,
        place: RegionWriter,
        guard: Arc<WriteGuard>,
    ) -> Result<oneshot::Receiver<bool>, Option<RegionWriter>> {
        let Some(nvme) = self.nvme.as_ref() else { return Err(Some(place)) };
        let Ok(Some(permit)) = self.driver.peek(key).await else { return Err(Some(place)) };
        let Peek { slot, class, length, crc, .. } = permit.peek();
        let (reply, landed) = oneshot::channel();
        let complaints = Arc::clone(&self.complaints);
        nvme.read(key, Place { slot, class, length, crc }, ReadInto::Region(place), move |result| {
            let outcome = match &result {
                Ok(ReadDone::Region(_)) => Transfer::Done(0),
                Ok(ReadDone::Slot(_) | ReadDone::Bytes(_)) | Err(ReadError::QueueFull) => Transfer::Refused,
                Err(error) => {
                    complaints.lost(&key, slot, error);
                    Transfer::Failed
                }
            };
            let landed = matches!(outcome, Transfer::Done(_));
            // The place, and then the word that nobody writes there.
            drop(result);
            drop(guard);
            permit.end(outcome);
            reply.send(landed).ok();
        });
        Ok(landed)
    }

    /// Copies a block from its RAM slot, in parts, so that others get their turn. RAM's bytes were checked when they came in.
    async fn copy_from_ram(&self, key: &BlockKey, place: &mut RegionWriter) -> bool {
        let Some(pin) = self.pin(key) else { return false };
        for (number, part) in pin.chunks(MESSAGE_PAYLOAD_BYTES).enumerate() {
            if !place.copy_in(number * MESSAGE_PAYLOAD_BYTES, part) {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }

    fn pin(&self, key: &BlockKey) -> Option<SlotPin> {
        (0..TRIES).find_map(|_| {
            let place = self.residency.get(key)?.ram?;
            self.ram.pin(place.slot, place.class, place.generation, place.length)
        })
    }
}
