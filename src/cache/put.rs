//! The walk of a put: the chain is offered, what is wanted is written straight into its slots as it comes in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::chain::Chain;
use super::driver::Slot;
use super::error::Error;
use super::keep::NotKept;
use super::{Cache, unexpected};
use crate::plan::{Answer, BlockRef, Event, Offer, PutId};
use crate::tiers::{SlotWriter, copy_with_crc};
use crate::vocab::crc::PayloadCrc;
use crate::vocab::limits::{MESSAGE_PAYLOAD_BYTES, PUT_AHEAD};
use crate::vocab::{BlockKey, Furthest, Retention};

/// Bytes of a block, or of a part of it.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Number of the block within the offer.
    pub block: u32,
    /// Where the bytes belong.
    pub offset: u32,
    /// Bytes of the whole payload.
    pub length: u32,
    /// The bytes.
    pub data: &'a [u8],
}

/// How a put ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResult {
    /// Blocks of the chain readable from its first on.
    pub stored_through: u32,
    /// Blocks taken.
    pub accepted: u32,
    /// Blocks wanted or missing, and not taken.
    pub dropped: u32,
    /// Why the first of them was not.
    pub reason: &'static str,
    /// Until when what is stored is guaranteed, in seconds since 1970; 0 where nothing was asked for, or given.
    pub retained_until_s: u32,
    /// Why a guarantee that was asked for is not given.
    pub not_retained: Option<NotKept>,
}

/// A block being received.
struct Receiving {
    at: usize,
    block: BlockRef,
    writer: SlotWriter,
    crc: PayloadCrc,
    length: u32,
    received: u32,
}

/// A put under way. Dropped before its end, it gives up what it has not filled.
pub struct PutWalk {
    cache: Arc<Cache>,
    put: PutId,
    /// The digest of whose blocks they are.
    tenant: u128,
    keys: Arc<[BlockKey]>,
    payload_max: u32,
    retention: Retention,
    /// Whether anything may be stored at all.
    stores: bool,
    /// Numbers of the wanted blocks within the offer, in order.
    wanted: Vec<(usize, BlockRef)>,
    /// How many of them are done with, and for how many a slot was asked.
    next: usize,
    needed: usize,
    slots: mpsc::Receiver<Slot>,
    granted: HashMap<u32, Option<SlotWriter>>,
    receiving: Option<Receiving>,
    result: PutResult,
    /// A block was refused: the rest of the chain is read and dropped.
    refused: bool,
    ended: bool,
}

impl Cache {
    /// Offers a chain: which blocks are wanted, whether all others are here or on their way, and the walk to go on with.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn put(self: &Arc<Self>, chain: &Chain) -> Result<(PutWalk, bool), Error> {
        let put = PutId(self.puts.fetch_add(1, Ordering::Relaxed));
        let keys = chain.keys_in_turns(chain.len()).await;
        let (sender, slots) = mpsc::channel(keys.len().max(1));
        let offer = Offer {
            put,
            parent: chain.parent,
            depth: chain.depth,
            keys: Arc::clone(&keys),
            payload_max: chain.namespace.spec.max_payload_bytes,
            owners: chain.owners.clone(),
            retention: chain.retention,
            hints: chain.hints,
        };
        let mut walk = PutWalk {
            cache: Arc::clone(self),
            put,
            tenant: chain.tenant.digest(),
            keys,
            payload_max: chain.namespace.spec.max_payload_bytes,
            retention: chain.retention,
            stores: true,
            wanted: Vec::new(),
            next: 0,
            needed: 0,
            slots,
            granted: HashMap::new(),
            receiving: None,
            result: PutResult::default(),
            refused: false,
            ended: false,
        };
        if chain.furthest == Furthest::Nothing {
            walk.stores = false;
            return Ok((walk, true));
        }
        let answer = self.driver.offer(Event::Offer(offer), put, sender).await?;
        let Answer::Offered { wanted, complete, .. } = answer else { return Err(unexpected(&answer)) };
        walk.wanted = wanted.iter().enumerate().filter_map(|(at, block)| Some((at, (*block)?))).collect();
        walk.ask_ahead().await?;
        Ok((walk, complete))
    }
}

impl PutWalk {
    /// Notes that the wanted blocks are the request's own, before anybody can load them: loaded by the same request again,
    /// they are no delivery.
    pub fn written_by(&self, instance: u128, request: u128, depth: u32) {
        if let Some((first, _)) = self.wanted.first() {
            let first = u32::try_from(*first).unwrap_or(u32::MAX);
            self.cache.deliveries.wrote(self.tenant, (instance, request), depth.saturating_add(first));
        }
    }

    /// Numbers of the blocks to send, in order.
    pub fn wanted(&self) -> impl Iterator<Item = usize> + '_ {
        self.wanted.iter().map(|(at, _)| *at)
    }

    /// Blocks offered.
    #[must_use]
    pub fn offered(&self) -> usize {
        self.keys.len()
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// For bytes that are not the next ones of the wanted blocks.
    pub async fn piece(&mut self, piece: Piece<'_>) -> Result<(), Error> {
        if self.receiving.is_none() {
            self.begin(&piece).await?;
        }
        let Some(receiving) = self.receiving.as_mut() else {
            // Refused: its bytes are dropped.
            return self.skip(&piece);
        };
        let block = piece.block as usize;
        let end = piece.offset as usize + piece.data.len();
        if block != receiving.at || piece.offset != receiving.received || end > receiving.length as usize {
            return Err(self.out_of_order(&piece));
        }
        let slot = &mut receiving.writer.as_mut_slice()[piece.offset as usize..end];
        copy_with_crc(slot, piece.data, &mut receiving.crc);
        receiving.received = u32::try_from(end).unwrap_or(u32::MAX);
        if receiving.received == receiving.length
            && let Some(received) = self.receiving.take()
        {
            self.filled(received).await?;
        }
        Ok(())
    }

    /// Takes the next wanted block whole: `fill` writes its bytes from an offset on, and takes them into the checksum, in
    /// parts, so that others get their turn. False: it is refused, or `fill` could not.
    pub(super) async fn block(
        &mut self,
        length: u32,
        fill: impl Fn(u64, &mut [u8], &mut PayloadCrc) -> bool,
    ) -> Result<bool, Error> {
        let Some((at, _)) = self.wanted.get(self.next).copied() else { return Ok(false) };
        self.begin(&Piece { block: u32::try_from(at).unwrap_or(u32::MAX), offset: 0, length, data: &[] }).await?;
        let Some(mut receiving) = self.receiving.take() else { return Ok(false) };
        let slot = &mut receiving.writer.as_mut_slice()[..length as usize];
        for (number, part) in slot.chunks_mut(MESSAGE_PAYLOAD_BYTES).enumerate() {
            if !fill((number * MESSAGE_PAYLOAD_BYTES) as u64, part, &mut receiving.crc) {
                return Ok(false);
            }
            tokio::task::yield_now().await;
        }
        self.filled(receiving).await?;
        Ok(true)
    }

    /// The block's bytes are all there.
    async fn filled(&mut self, receiving: Receiving) -> Result<(), Error> {
        let Receiving { block, writer, crc, length, .. } = receiving;
        self.cache.driver.filled(block, writer, length, crc.finish()).await?;
        self.result.accepted += 1;
        self.next += 1;
        self.ask_ahead().await
    }

    /// The first piece of the next block: gets it its slot.
    async fn begin(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        let Some((at, block)) = self.wanted.get(self.next).copied() else { return Err(self.out_of_order(piece)) };
        if piece.length == 0 || piece.length > self.payload_max {
            let (length, most) = (piece.length, self.payload_max);
            let rule = format!("pieces[].length of block {at} is {length}, it must be 1 to max_payload_bytes ({most})");
            return Err(Error::Invalid(rule));
        }
        if piece.block as usize != at {
            return Err(self.out_of_order(piece));
        }
        if self.refused {
            return Ok(());
        }
        match self.slot_for(block).await? {
            Some(writer) => {
                let crc = PayloadCrc::new(&self.keys[at]);
                self.receiving = Some(Receiving { at, block, writer, crc, length: piece.length, received: 0 });
            }
            None => self.refuse("RAM has no room: everything in it is leased, being moved, or worth more"),
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &'static str) {
        self.refused = true;
        if self.result.reason.is_empty() {
            self.result.reason = reason;
        }
    }

    fn skip(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        let end = piece.offset as usize + piece.data.len();
        if end > piece.length as usize {
            return Err(self.out_of_order(piece));
        }
        if end == piece.length as usize {
            self.next += 1;
        }
        Ok(())
    }

    fn out_of_order(&self, piece: &Piece<'_>) -> Error {
        let expected = match (&self.receiving, self.wanted.get(self.next)) {
            (Some(receiving), _) => format!("block {} from offset {}", receiving.at, receiving.received),
            (None, Some((at, _))) => format!("block {at} from offset 0"),
            (None, None) => "no more bytes".into(),
        };
        let Piece { block, offset, length, data } = piece;
        let got = format!("block {block} offset {offset} length {length} with {} bytes", data.len());
        Error::Invalid(format!("pieces[] has {got}, expected {expected}: wanted blocks come in order, each whole"))
    }

    /// Asks for the slots of the next few blocks, so that a block's bytes rarely wait for one.
    async fn ask_ahead(&mut self) -> Result<(), Error> {
        while !self.refused && self.needed < self.wanted.len().min(self.next + PUT_AHEAD) {
            let (_, block) = self.wanted[self.needed];
            self.cache.driver.need(self.put, block).await?;
            self.needed += 1;
        }
        Ok(())
    }

    async fn slot_for(&mut self, block: BlockRef) -> Result<Option<SlotWriter>, Error> {
        loop {
            if let Some(granted) = self.granted.remove(&block.number()) {
                return Ok(granted);
            }
            let idle = crate::vocab::limits::PUT_IDLE_MAX;
            match tokio::time::timeout(idle, self.slots.recv()).await {
                Ok(Some(Slot::Granted(block, writer))) => self.granted.insert(block.number(), Some(writer)),
                Ok(Some(Slot::Refused(block))) => self.granted.insert(block.number(), None),
                Ok(None) => return Err(Error::Closing),
                // Slots are promised to arrive; a reader that holds one this long has stalled the tier.
                Err(_) => return Ok(None),
            };
        }
    }

    /// The writer has sent all it will.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn finish(mut self) -> Result<PutResult, Error> {
        self.receiving = None;
        self.granted.clear();
        self.slots.close();
        while self.slots.try_recv().is_ok() {}
        self.ended = true;
        if !self.stores {
            let keys = Arc::clone(&self.keys);
            let stored_through = self.cache.driver.look(move |planner| planner.prefix(&keys).hit()).await?;
            return Ok(PutResult { stored_through, ..PutResult::default() });
        }
        let answer = self.cache.driver.ask(Event::PutEnded { put: self.put }).await?;
        let Answer::Stored { through } = answer else { return Err(unexpected(&answer)) };
        let mut result = std::mem::take(&mut self.result);
        result.stored_through = through;
        let wanted = u32::try_from(self.wanted.len()).unwrap_or(u32::MAX);
        result.dropped = wanted - result.accepted.min(wanted);
        if result.dropped > 0 && result.reason.is_empty() {
            result.reason = "the writer ended before it had sent them";
        }
        self.retain(&mut result).await?;
        Ok(result)
    }

    /// Has what is stored guaranteed for as long as was asked for.
    async fn retain(&self, result: &mut PutResult) -> Result<(), Error> {
        let Retention::Guaranteed(lifetime) = self.retention else { return Ok(()) };
        let Some(last) = (result.stored_through as usize).checked_sub(1) else {
            result.not_retained = Some("nothing of the chain is stored".into());
            return Ok(());
        };
        match self.cache.keep(self.keys[last], Some(lifetime)).await? {
            Ok(promise) => result.retained_until_s = promise.until_s,
            Err(why) => result.not_retained = Some(why),
        }
        Ok(())
    }
}

impl Drop for PutWalk {
    fn drop(&mut self) {
        if !self.ended {
            // Writers first: the planner may hand their slots out again as soon as it knows.
            self.receiving = None;
            self.granted.clear();
            self.slots.close();
            while self.slots.try_recv().is_ok() {}
            self.cache.driver.tell_soon(Event::PutEnded { put: self.put });
        }
    }
}
