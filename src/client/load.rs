//! Where blocks lie in the daemon's RAM, in prefix order.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Streaming;

use super::fetch::{FetchEnd, outcome};
use super::lookup::millis;
use super::{Chain, Client, ClientError, Session};
use crate::proto::{LoadReply, LoadRequest};
use crate::vocab::limits::{DEADLINE_GRACE, FETCH_DEADLINE_DEFAULT};
use crate::vocab::{LeaseId, RequestId};

/// Where one block lies in the [`Arena`](super::Arena).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number within the chain asked for.
    pub index: u32,
    /// Segment of the arena.
    pub segment: u32,
    /// Offset in the segment, in bytes.
    pub offset: u64,
    /// Bytes of its payload.
    pub length: u32,
    /// Number of its slot's word.
    pub word: u32,
    /// The generation that the word must have after the last read.
    pub generation: u64,
    /// Its checksum, seeded with its key.
    pub crc: u64,
}

/// A load under way. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    client: Client,
    replies: Streaming<LoadReply>,
    located: u32,
    end: Option<FetchEnd>,
    patience: Duration,
    until: Instant,
}

impl Client {
    /// Asks where a chain's blocks lie; what is on NVMe is promoted on the way. Copy them from the [`Arena`](super::Arena)
    /// while more come. `deadline`: what has not been read by then is a miss; `None` for ten seconds.
    ///
    /// # Errors
    /// As [`Client::fetch`], and where the daemon hands over no arena.
    pub async fn load(
        &self,
        session: &Session,
        request_id: &RequestId,
        chain: &Chain,
        lease: Option<LeaseId>,
        deadline: Option<Duration>,
    ) -> Result<Load, ClientError> {
        let request = LoadRequest {
            session_id: session.id(),
            request_id: request_id.as_str().to_owned(),
            chain: Some(chain.to_wire()),
            lease_id: lease.map_or(0, |lease| lease.0),
            // 0 would mean the default.
            deadline_ms: deadline.map_or(0, |most| u32::try_from(millis(most).max(1)).unwrap_or(u32::MAX)),
        };
        let patience = deadline.unwrap_or(FETCH_DEADLINE_DEFAULT).saturating_add(DEADLINE_GRACE);
        let until = Instant::now() + patience;
        let mut service = self.cache_service();
        let asked = async { service.load(request).await.map(tonic::Response::into_inner) };
        let replies = self.within("Load", patience, asked).await?;
        Ok(Load { client: self.clone(), replies, located: 0, end: None, patience, until })
    }
}

impl Load {
    /// The next places, in order; none after the last.
    ///
    /// # Errors
    /// When the connection breaks, or the daemon neither sends nor ends in time.
    pub async fn next_places(&mut self) -> Result<Vec<Place>, ClientError> {
        if self.end.is_some() {
            return Ok(Vec::new());
        }
        let reply = match tokio::time::timeout_at(self.until, self.replies.message()).await {
            Ok(reply) => reply.map_err(|status| self.client.error(&status))?,
            Err(_) => return Err(ClientError::TimedOut { call: "Load", after: self.patience }),
        };
        let Some(mut reply) = reply else { return Err(ClientError::protocol("a load without an end")) };
        if let Some(end) = reply.end.take() {
            self.client.hang_up(&mut self.replies).await;
            let outcome = outcome(end.outcome());
            self.end = Some(FetchEnd {
                outcome,
                blocks: self.located,
                blocks_ram: end.blocks_ram,
                blocks_nvme: end.blocks_nvme,
                tokens: end.tokens,
                corrupt: 0,
                receipt: end.receipt,
            });
            return Ok(Vec::new());
        }
        let places = places(&reply)
            .filter(|places| places.first().is_some_and(|place| place.index == self.located))
            .ok_or_else(|| ClientError::protocol("a load's columns are not of one length, or not the next ones"))?;
        self.located += u32::try_from(places.len()).unwrap_or(u32::MAX);
        Ok(places)
    }

    /// Reads what is left, and says how the load ended. `blocks` and `tokens` count what was located: what of that could be
    /// copied, the copier knows.
    ///
    /// # Errors
    /// As [`next_places`](Self::next_places).
    pub async fn end(mut self) -> Result<FetchEnd, ClientError> {
        while !self.next_places().await?.is_empty() {}
        self.end.take().ok_or_else(|| ClientError::protocol("a load without an end"))
    }
}

fn places(reply: &LoadReply) -> Option<Vec<Place>> {
    let count = reply.segment.len();
    let columns = [reply.offset.len(), reply.length.len(), reply.generation.len(), reply.crc.len(), reply.word.len()];
    if columns.iter().any(|column| *column != count) {
        return None;
    }
    let place = |at: usize| Place {
        index: reply.first_block + at as u32,
        segment: reply.segment[at],
        offset: reply.offset[at],
        length: reply.length[at],
        word: reply.word[at],
        generation: reply.generation[at],
        crc: reply.crc[at],
    };
    Some((0..count).map(place).collect())
}
