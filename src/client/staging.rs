//! Storing without a socket: blocks are written into memory that the daemon made for this worker, and stored from there by
//! one copy.

use super::arena::take_parts;
use super::memory::Memory;
use super::put::{PutResult, put_result};
use super::region::RegionId;
use super::turns::Turns;
use super::{Chain, Client, ClientError, Session, SpanMut};
use crate::proto::{CommitRequest, ReserveRequest};
use crate::vocab::limits::CALL_MAX;
use crate::vocab::{RequestId, STAGING_HELLO};

/// Staging memory of this session.
#[derive(Debug)]
pub struct Staging {
    memory: Memory,
    region: RegionId,
    bytes: u64,
    session: u64,
}

/// Parts of it that wait to be filled.
struct Reserved {
    number: u64,
    /// Blocks of the chain that have a part.
    blocks: Vec<u32>,
    offsets: Vec<u64>,
    wanted: u32,
}

impl Client {
    /// Has `bytes` (whole pages, at most 1 GiB a session) of staging memory made; `None` where the daemon shares no memory
    /// with this process: then use [`Client::put`].
    ///
    /// # Errors
    /// When the daemon has no memory for it.
    pub async fn stage(&self, session: &Session, bytes: u64) -> Result<Option<Staging>, ClientError> {
        let Some(path) = session.arena_socket().map(str::to_owned) else { return Ok(None) };
        if !std::path::Path::new(&path).exists() {
            return Ok(None);
        }
        let region = self.attach_handle(session, 0, bytes).await?;
        let hello = [&STAGING_HELLO[..], &session.id().to_le_bytes(), &region.0.to_le_bytes()].concat();
        let taken = tokio::task::spawn_blocking(move || {
            let parts = take_parts(&path, &hello)?;
            let (fd, size) = parts.into_iter().next().ok_or_else(|| std::io::Error::other("the daemon refuses"))?;
            Memory::map(fd, size)
        });
        let memory = taken.await.map_err(|error| ClientError::protocol(error.to_string()))?;
        match memory {
            Ok(memory) => Ok(Some(Staging { memory, region, bytes, session: session.id() })),
            Err(error) => {
                // Nobody else knows of it, and a session may have few.
                self.detach_region(session, region).await.ok();
                Err(ClientError::protocol(format!("staging memory can't be had: {error}")))
            }
        }
    }

    /// Stores a chain through staging memory. `fill` writes the payload of a block to memory of `payload_bytes`, which the
    /// daemon has mapped, too, and says how long it is. While one half of the memory is stored, the other is filled.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn put_staged(
        &self,
        staging: &Staging,
        request_id: &RequestId,
        chain: &Chain,
        payload_bytes: u32,
        mut fill: impl FnMut(u32, &mut SpanMut<'_>) -> u32,
    ) -> Result<PutResult, ClientError> {
        let half = staging.bytes / 2 / u64::from(payload_bytes).next_multiple_of(4096).max(1);
        let half = u32::try_from(half).unwrap_or(u32::MAX).max(1);
        let mut total = PutResult::default();
        let mut committing: Option<tokio::task::JoinHandle<Result<PutResult, ClientError>>> = None;
        let (mut first, mut turns) = (true, Turns::default());
        loop {
            let mut reserved = self.reserve(staging.session, request_id, chain, payload_bytes, half).await?;
            if std::mem::take(&mut first) {
                total.wanted_blocks = reserved.wanted;
            }
            if reserved.blocks.is_empty()
                && reserved.wanted > 0
                && let Some(before) = committing.take()
            {
                // No room before the other half is stored.
                total.add(before.await.map_err(|error| ClientError::protocol(error.to_string()))??);
                reserved = self.reserve(staging.session, request_id, chain, payload_bytes, half).await?;
            }
            let mut lengths = Vec::with_capacity(reserved.blocks.len());
            for (block, offset) in reserved.blocks.iter().zip(&reserved.offsets) {
                turns.rest().await;
                let filled = staging.memory.fill(*offset, payload_bytes as usize, |part| fill(*block, part));
                let Some(length) = filled else {
                    return Err(ClientError::protocol("a part of staging memory that is not there"));
                };
                total.sent_bytes += u64::from(length);
                turns.took(length as usize);
                lengths.push(length);
            }
            if let Some(before) = committing.take() {
                total.add(before.await.map_err(|error| ClientError::protocol(error.to_string()))??);
            }
            let last = reserved.blocks.len() == reserved.wanted as usize || total.dropped_blocks > 0;
            let (client, session_id) = (self.clone(), staging.session);
            let commit = async move { client.commit(session_id, reserved.number, lengths).await };
            if last || reserved.blocks.is_empty() {
                // Also of a put that is refused: committing gives the memory back.
                total.add(commit.await?);
                break;
            }
            committing = Some(tokio::spawn(commit));
        }
        Ok(total)
    }

    async fn reserve(
        &self,
        session_id: u64,
        request_id: &RequestId,
        chain: &Chain,
        payload_bytes: u32,
        blocks_max: u32,
    ) -> Result<Reserved, ClientError> {
        let request = ReserveRequest {
            session_id,
            chain: Some(chain.to_wire()),
            payload_bytes,
            request_id: request_id.as_str().to_owned(),
            blocks_max,
        };
        let reply = self.answer("Reserve", self.cache_service().reserve(request)).await?;
        let wanted = reply.wanted.unwrap_or_default();
        let mut blocks = super::put::wanted_blocks(&wanted)?;
        if reply.offset.len() > blocks.len() {
            return Err(ClientError::protocol("more parts of staging memory than blocks wanted"));
        }
        blocks.truncate(reply.offset.len());
        Ok(Reserved { number: reply.reservation, blocks, offsets: reply.offset, wanted: wanted.blocks })
    }

    async fn commit(&self, session_id: u64, reservation: u64, length: Vec<u32>) -> Result<PutResult, ClientError> {
        let request = CommitRequest { session_id, reservation, blocks: 0, length };
        let mut service = self.cache_service();
        let stored = async { service.commit(request).await.map(tonic::Response::into_inner) };
        let reply = self.within("Commit", CALL_MAX.saturating_mul(2), stored).await?;
        Ok(put_result(reply.result.unwrap_or_default()))
    }
}

impl Staging {
    /// Names the memory, for [`Client::detach_region`].
    #[must_use]
    pub fn region(&self) -> RegionId {
        self.region
    }
}
