//! The bytes of blocks, in prefix order.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::assemble::{Assembled, Assembler, Into};
use super::lookup::millis;
use super::turns::Turns;
use super::{Chain, Client, ClientError, Session};
use crate::proto::{self, FetchRequest, Messages, RawBody, SlicedPiece, SlicedReply};
use crate::vocab::limits::{DEADLINE_GRACE, FETCH_DEADLINE_DEFAULT, GRPC_MESSAGE_BYTES_MAX};
use crate::vocab::{BlockKey, LeaseId, RequestId};

/// What a fetch asks besides the chain.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// A lease over the blocks; `None` to read without protection.
    pub lease: Option<LeaseId>,
    /// What has not been read by then is a miss; `None` for the daemon's default, ten seconds.
    pub deadline: Option<Duration>,
    /// Read from NVMe without keeping a copy in RAM.
    pub do_not_promote: bool,
    /// The blocks' keys, where the caller knows them: every payload is checked against its checksum, and the first that
    /// fails ends the prefix.
    pub verify_with: Option<Arc<[BlockKey]>>,
}

/// One block's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedBlock {
    /// Its number within the chain asked for.
    pub index: u32,
    /// Its payload. A block that came in one piece is a slice of the message that it came in.
    pub bytes: Bytes,
    /// Its checksum, seeded with its key, as the daemon's index has it.
    pub crc: u64,
}

/// One block whose bytes were copied to the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiedBlock {
    /// Its number within the chain asked for.
    pub index: u32,
    /// Bytes of its payload.
    pub length: u32,
    /// Its checksum, seeded with its key, as the daemon's index has it.
    pub crc: u64,
}

/// Why a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// Every block came.
    Complete,
    /// The next block is not readable (any more), or its bytes were wrong.
    Miss,
    /// The deadline passed.
    Deadline,
    /// The daemon is shutting down.
    Closing,
}

/// What was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchEnd {
    /// Why it ended.
    pub outcome: FetchOutcome,
    /// Whole blocks that can be used, from the first.
    pub blocks: u32,
    /// Whole blocks that the daemon sent from RAM.
    pub blocks_ram: u32,
    /// Whole blocks that the daemon sent from NVMe.
    pub blocks_nvme: u32,
    /// Tokens of the blocks that can be used.
    pub tokens: u64,
    /// Blocks whose bytes did not match their checksum.
    pub corrupt: u32,
    /// For [`Client::settle`](super::Client::settle), should the daemon restart before. Opaque.
    pub receipt: Bytes,
}

/// A fetch under way. Dropping it ends it.
#[derive(Debug)]
pub struct Fetch {
    client: Client,
    replies: Messages<SlicedReply>,
    pieces: std::vec::IntoIter<SlicedPiece>,
    assembler: Assembler,
    /// The block under way goes to memory of a caller who may have given it up.
    copying: bool,
    turns: Turns,
    verify_with: Option<Arc<[BlockKey]>>,
    corrupt: u32,
    good: u32,
    end: Option<proto::FetchEnd>,
    patience: Duration,
    until: Instant,
}

impl Client {
    /// Asks for the bytes of a chain's blocks. All that are named are sent, so name only those that are needed.
    ///
    /// # Errors
    /// For a lease that has ended or is another instance's, and as [`Client::lookup`].
    pub async fn fetch(
        &self,
        session: &Session,
        request_id: &RequestId,
        chain: &Chain,
        options: FetchOptions,
    ) -> Result<Fetch, ClientError> {
        let request = FetchRequest {
            session_id: session.id(),
            request_id: request_id.as_str().to_owned(),
            chain: Some(chain.to_wire()),
            lease_id: options.lease.map_or(0, |lease| lease.0),
            // 0 would mean the default.
            deadline_ms: options.deadline.map_or(0, |most| u32::try_from(millis(most).max(1)).unwrap_or(u32::MAX)),
            do_not_promote: options.do_not_promote,
        };
        let patience = options.deadline.unwrap_or(FETCH_DEADLINE_DEFAULT).saturating_add(DEADLINE_GRACE);
        let until = Instant::now() + patience;
        let mut service = self.cache_service();
        let asked = async { service.fetch(request).await };
        let response = self.within("Fetch", patience, asked).await?;
        let body = response.extensions().get::<RawBody>().and_then(RawBody::take).unwrap_or_default();
        let replies = Messages::of_response(body, GRPC_MESSAGE_BYTES_MAX);
        Ok(Fetch {
            client: self.clone(),
            replies,
            pieces: Vec::new().into_iter(),
            assembler: Assembler::default(),
            copying: false,
            turns: Turns::default(),
            verify_with: options.verify_with,
            corrupt: 0,
            good: 0,
            end: None,
            patience,
            until,
        })
    }
}

pub(super) fn outcome(outcome: proto::FetchOutcome) -> FetchOutcome {
    match outcome {
        proto::FetchOutcome::Complete => FetchOutcome::Complete,
        proto::FetchOutcome::Miss => FetchOutcome::Miss,
        proto::FetchOutcome::Deadline => FetchOutcome::Deadline,
        proto::FetchOutcome::Closing => FetchOutcome::Closing,
    }
}

impl Fetch {
    /// The next block, or nothing after the last one that can be used. What is here already is handed out even when
    /// the deadline has passed.
    ///
    /// # Errors
    /// When the connection breaks, or the daemon neither sends nor ends in time. Blocks handed out stay good.
    pub async fn next_block(&mut self) -> Result<Option<FetchedBlock>, ClientError> {
        let whole = self.next_good(Into::Own).await?;
        Ok(whole.map(|Assembled { block: index, bytes, crc, .. }| FetchedBlock { index, bytes, crc }))
    }

    /// The next block, copied to the start of `to` in the pass that compares its checksum: bytes that go elsewhere anyway are
    /// read once and not twice. What `to` holds is worth nothing unless this says which block it is.
    ///
    /// # Errors
    /// As [`next_block`](Self::next_block), for a block that is longer than `to`, and after a call that was dropped within a block.
    pub async fn next_block_into(&mut self, to: &mut [u8]) -> Result<Option<CopiedBlock>, ClientError> {
        let whole = self.next_good(Into::Memory(to)).await?;
        Ok(whole.map(|Assembled { block: index, length, crc, .. }| CopiedBlock { index, length, crc }))
    }

    async fn next_good(&mut self, mut to: Into<'_>) -> Result<Option<Assembled>, ClientError> {
        let copies = matches!(to, Into::Memory(_));
        if self.assembler.is_within() && (copies || self.copying) {
            return Err(ClientError::protocol("a block was given up in its middle: the fetch can't go on"));
        }
        self.copying = copies;
        loop {
            while self.pieces.len() > 0 {
                self.turns.rest().await;
                let Some(piece) = self.pieces.next() else { break };
                let len = piece.data.remaining();
                let keys = self.verify_with.as_deref();
                let key = keys.and_then(|keys| keys.get(piece.names.block as usize));
                let unnamed = keys.is_some() && key.is_none();
                let whole = self.assembler.piece(piece, key, &mut to)?;
                if copies || keys.is_some() {
                    self.turns.took(len);
                }
                if let Some(whole) = whole
                    && self.is_good(whole.is_right && !unnamed)
                {
                    return Ok(Some(whole));
                }
            }
            if self.end.is_some() {
                return Ok(None);
            }
            self.receive().await?;
        }
    }

    /// Reads what is left, and says how the fetch ended.
    ///
    /// # Errors
    /// As [`next_block`](Self::next_block).
    pub async fn end(mut self) -> Result<FetchEnd, ClientError> {
        while self.next_block().await?.is_some() {}
        let end = self.end.take().ok_or_else(|| ClientError::protocol("a fetch without an end"))?;
        let outcome = if self.corrupt > 0 { FetchOutcome::Miss } else { outcome(end.outcome()) };
        let sent = u64::from(self.assembler.blocks());
        Ok(FetchEnd {
            outcome,
            blocks: self.good,
            blocks_ram: end.blocks_ram,
            blocks_nvme: end.blocks_nvme,
            // Every block has the same number of them.
            tokens: end.tokens / sent.max(1) * u64::from(self.good),
            corrupt: self.corrupt,
            receipt: end.receipt,
        })
    }

    /// Whether a block belongs to the usable prefix: nothing after a corrupt one does.
    fn is_good(&mut self, is_right: bool) -> bool {
        self.corrupt += u32::from(!is_right);
        let good = self.corrupt == 0;
        self.good += u32::from(good);
        good
    }

    #[cfg(test)]
    pub(super) fn is_within_a_block(&self) -> bool {
        self.assembler.is_within()
    }

    async fn receive(&mut self) -> Result<(), ClientError> {
        let reply = match tokio::time::timeout_at(self.until, self.replies.next()).await {
            Ok(reply) => reply.transpose().map_err(|status| self.client.error(&status))?,
            Err(_) => return Err(ClientError::TimedOut { call: "Fetch", after: self.patience }),
        };
        match reply {
            Some(SlicedReply::Data(pieces)) => self.pieces = pieces.into_iter(),
            Some(SlicedReply::End(end))
                if u64::from(end.blocks_ram) + u64::from(end.blocks_nvme) == u64::from(self.assembler.blocks()) =>
            {
                self.end = Some(end);
                self.client.hang_up(&mut self.replies).await;
            }
            Some(SlicedReply::End(end)) => {
                let (said, came) = (u64::from(end.blocks_ram) + u64::from(end.blocks_nvme), self.assembler.blocks());
                return Err(ClientError::protocol(format!("the end of a fetch counts {said} blocks, {came} came")));
            }
            Some(SlicedReply::Nothing) | None => return Err(ClientError::protocol("a fetch without an end")),
        }
        Ok(())
    }
}
