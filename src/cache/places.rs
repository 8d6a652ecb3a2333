//! The walk of a load: where blocks lie in the shared arena, in prefix order, promoted on the way.
//!
//! Nothing is pinned here: the reader's lease keeps the blocks, and the generation tells a reader without one that it came
//! too late. So what is in RAM already costs a look at the published map and no more.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Cache;
use super::delivery::Sent;
use super::flight::Landing;
use super::load::{Ahead, FetchOutcome, FetchRequest, Fetched};
use crate::plan::InRam;
use crate::vocab::Tier;
use crate::vocab::limits::{FETCH_READ_AHEAD, PLACES_PER_MESSAGE};

/// Where one block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Segment of the arena.
    pub segment: u32,
    /// Offset in the segment.
    pub offset: u64,
    /// Number of the slot's word.
    pub word: u32,
    /// The generation that the word must have after the last read.
    pub generation: u64,
    /// Bytes of the payload.
    pub length: u32,
    /// Its checksum, seeded with its key.
    pub crc: u64,
}

/// Places on their way out: of block `first` and those after it.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Number of the first block within the request.
    pub first: usize,
    /// The places.
    pub places: Vec<Placed>,
}

/// What one load has found and not sent yet.
struct Batch<'a> {
    out: &'a mpsc::Sender<Places>,
    request: &'a FetchRequest,
    next: Places,
    from_nvme: Vec<bool>,
}

impl Cache {
    /// Sends the places of blocks into `out` as they become readable, and records what was taken.
    pub async fn locate(self: Arc<Self>, request: FetchRequest, out: mpsc::Sender<Places>) -> Fetched {
        let mut sent = Sent { depth: request.chain.depth, ..Sent::default() };
        let mut batch = Batch { out: &out, request: &request, next: Places::default(), from_nvme: Vec::new() };
        let walked = self.walk(&mut batch, &mut sent).await;
        let outcome = match batch.send(&mut sent).await {
            Ok(()) => walked,
            Err(unsent) => unsent,
        };
        self.used_by(&request, &sent);
        self.deliver(&request, outcome, &sent)
    }

    /// The places of a whole chain that fits one message and is in RAM, found without waiting for anything; `None` where it
    /// takes more.
    pub fn locate_at_once(&self, request: &FetchRequest) -> Option<(Places, Fetched)> {
        let chain = &request.chain;
        let blocks = Some(chain.len()).filter(|blocks| *blocks <= PLACES_PER_MESSAGE)?;
        let place = |at| self.placed(&self.residency.get(&chain.key(at))?.ram?);
        let places = (0..blocks).map(place).collect::<Option<Vec<_>>>()?;
        let sent = Sent { depth: chain.depth, from_nvme: vec![false; blocks] };
        self.used_by(request, &sent);
        Some((Places { first: 0, places }, self.deliver(request, FetchOutcome::Complete, &sent)))
    }

    async fn walk(&self, batch: &mut Batch<'_>, sent: &mut Sent) -> FetchOutcome {
        let (chain, deadline) = (&batch.request.chain, batch.request.deadline);
        let blocks = chain.len();
        let mut ahead: VecDeque<Ahead> = VecDeque::new();
        for at in 0..blocks {
            let key = chain.key(at);
            if ahead.is_empty()
                && let Some(place) = self.residency.get(&key).and_then(|residence| residence.ram)
            {
                let Some(placed) = self.placed(&place) else { return FetchOutcome::Miss };
                if let Err(unsent) = batch.add(placed, false, sent).await {
                    return unsent;
                }
                continue;
            }
            // Whoever waits for a drive has something to copy meanwhile.
            if let Err(unsent) = batch.send(sent).await {
                return unsent;
            }
            while ahead.len() < FETCH_READ_AHEAD.min(blocks - at) {
                ahead.push_back(self.ask_ahead(&chain.key(at + ahead.len()), true));
            }
            let Some(next) = ahead.pop_front() else { return FetchOutcome::Miss };
            let from_nvme = next.tier() == Tier::Nvme;
            let Ok(landed) = tokio::time::timeout_at(deadline, self.landed(&key, next)).await else {
                return FetchOutcome::Deadline;
            };
            let place = self.residency.get(&key).and_then(|residence| residence.ram);
            let (Landing::Ready, Some(place)) = (landed, place) else { return FetchOutcome::Miss };
            let Some(placed) = self.placed(&place) else { return FetchOutcome::Miss };
            if let Err(unsent) = batch.add(placed, from_nvme, sent).await {
                return unsent;
            }
        }
        FetchOutcome::Complete
    }

    fn placed(&self, place: &InRam) -> Option<Placed> {
        let (segment, offset, word) = self.ram.place(place.slot, place.class)?;
        let InRam { generation, length, crc, .. } = *place;
        Some(Placed { segment, offset, word, generation, length, crc })
    }
}

impl Batch<'_> {
    async fn add(&mut self, placed: Placed, from_nvme: bool, sent: &mut Sent) -> Result<(), FetchOutcome> {
        self.next.places.push(placed);
        self.from_nvme.push(from_nvme);
        if self.next.places.len() < PLACES_PER_MESSAGE { Ok(()) } else { self.send(sent).await }
    }

    async fn send(&mut self, sent: &mut Sent) -> Result<(), FetchOutcome> {
        if self.next.places.is_empty() {
            return Ok(());
        }
        let first = self.next.first + self.next.places.len();
        let places = std::mem::replace(&mut self.next, Places { first, places: Vec::new() });
        match tokio::time::timeout_at(self.request.deadline, self.out.send(places)).await {
            Err(_) => Err(FetchOutcome::Deadline),
            Ok(Err(_)) => Err(FetchOutcome::Abandoned),
            Ok(Ok(())) => {
                sent.from_nvme.append(&mut self.from_nvme);
                Ok(())
            }
        }
    }
}
