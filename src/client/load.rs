//! Where blocks lie in the daemon's RAM, in prefix order.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Streaming;

use super::fetch::{FetchEnd, outcome};
use super::lookup::millis;
use super::{Chain, Client, ClientError, Session};
use crate::proto::{LoadReply, LoadRequest};
use crate::vocab::limits::{DEADLINE_GRACE, FETCH_DEADLINE_DEFAULT};
use crate::vocab::{LeaseId, PLACE_BYTES, RequestId};

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
            .ok_or_else(|| ClientError::protocol("a load's places are cut short, or not the next ones"))?;
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
    let (records, rest) = reply.places.as_chunks::<PLACE_BYTES>();
    let (mut index, mut places) = (reply.first_block, Vec::with_capacity(records.len()));
    for record in records {
        let (words, _) = record.as_chunks::<8>();
        let [offset, generation, crc, low, high] = words else { return None };
        let (low, high) = (u64::from_le_bytes(*low), u64::from_le_bytes(*high));
        places.push(Place {
            index,
            segment: low as u32,
            offset: u64::from_le_bytes(*offset),
            length: (low >> 32) as u32,
            word: high as u32,
            generation: u64::from_le_bytes(*generation),
            crc: u64::from_le_bytes(*crc),
        });
        index = index.checked_add(1)?;
    }
    rest.is_empty().then_some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_field_by_field_and_one_that_is_cut_short_is_none() {
        let packed: Vec<u8> = (1..=80).collect();
        let reply = LoadReply { first_block: 7, places: packed.clone().into(), end: None };
        let [first, second] = places(&reply).unwrap()[..] else { panic!("two places") };
        let (offset, generation, crc) = (0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09, 0x1817_1615_1413_1211);
        let (segment, length, word) = (0x1c1b_1a19, 0x201f_1e1d, 0x2423_2221);
        assert_eq!(first, Place { index: 7, segment, offset, length, word, generation, crc });
        assert_eq!((second.index, second.offset & 0xff), (8, 41));
        let reply = LoadReply { places: packed[..79].to_vec().into(), ..reply };
        assert_eq!(places(&reply), None);
    }
}
