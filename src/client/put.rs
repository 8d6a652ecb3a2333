//! Storing blocks: the whole chain is offered, what is wanted is sent.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::pack::Packer;
use super::turns::Turns;
use super::{Chain, Client, ClientError, Session};
use crate::proto::put_reply::Reply;
use crate::proto::put_request::Request;
use crate::proto::{PutData, PutOffer, PutReply, PutRequest, PutWanted};
use crate::vocab::RequestId;
use crate::vocab::limits::{DEADLINE_GRACE, MESSAGE_PAYLOAD_BYTES, PUT_CHANNEL, PUT_IDLE_MAX};

/// The daemon may wait this long for room; after that it has lost the put.
const PATIENCE: Duration = PUT_IDLE_MAX.saturating_add(DEADLINE_GRACE);

/// How far a chain is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResult {
    /// Blocks that the daemon asked for.
    pub wanted_blocks: u32,
    /// Blocks from the chain's start that are readable now.
    pub stored_through: u32,
    /// Blocks taken from this put.
    pub accepted_blocks: u32,
    /// Blocks wanted or missing, and not taken.
    pub dropped_blocks: u32,
    /// Why the first of them was dropped; empty for none.
    pub drop_reason: String,
    /// Payload bytes sent, taken or not.
    pub sent_bytes: u64,
    /// Until when the stored prefix is guaranteed, in seconds since 1970; 0 where nothing was asked for, or given.
    pub retained_until_s: u64,
    /// Why a guarantee that was asked for is not given; empty otherwise.
    pub retention_refused: String,
}

/// A put under way: what [`Client::put`] does, step by step. Dropping it before its end gives up what is not complete.
#[derive(Debug)]
pub struct Put {
    // First: dropped, it resets the stream before the closed channel could look like the put's end.
    replies: Streaming<PutReply>,
    client: Client,
    messages: mpsc::Sender<PutRequest>,
    packer: Packer,
    wanted: Vec<u32>,
    complete: bool,
    sent_bytes: u64,
    ended: Option<PutResult>,
}

impl Client {
    /// Stores a chain: `source` is asked for the payload of each block that the daemon wants, in order.
    ///
    /// # Errors
    /// For a payload that is empty or larger than the namespace allows, and as [`Client::lookup`]. Blocks that can't be
    /// taken are no error: the result counts them.
    pub async fn put(
        &self,
        session: &Session,
        request_id: &RequestId,
        chain: &Chain,
        mut source: impl FnMut(usize) -> Bytes,
    ) -> Result<PutResult, ClientError> {
        let mut put = self.begin_put(session, request_id, chain).await?;
        let mut turns = Turns::default();
        for block in put.wanted().to_vec() {
            turns.rest().await;
            let payload = source(block as usize);
            turns.took(payload.len());
            if !put.send(block, &payload).await? {
                break;
            }
        }
        put.finish().await
    }

    /// Offers a chain, and learns which of its blocks are wanted.
    ///
    /// # Errors
    /// As [`Client::lookup`].
    pub async fn begin_put(
        &self,
        session: &Session,
        request_id: &RequestId,
        chain: &Chain,
    ) -> Result<Put, ClientError> {
        let (messages, receiver) = mpsc::channel(PUT_CHANNEL);
        let offer = PutOffer {
            session_id: session.id(),
            request_id: request_id.as_str().to_owned(),
            chain: Some(chain.to_wire()),
        };
        // The channel is new and has room: the offer waits in it until the stream is up.
        messages
            .try_send(PutRequest { request: Some(Request::Offer(offer)) })
            .map_err(|_| ClientError::protocol("an offer that could not be queued"))?;
        let mut service = self.cache_service();
        let mut replies = self.answer("Put", service.put(ReceiverStream::new(receiver))).await?;
        let first = self.within("Put", PATIENCE, replies.message()).await?;
        let Some(Reply::Wanted(answer)) = first.and_then(|reply| reply.reply) else {
            return Err(ClientError::protocol("the first answer to a put must be `wanted`"));
        };
        let limit = match session.limits().message_payload_bytes as usize {
            0 => MESSAGE_PAYLOAD_BYTES,
            liked => liked.min(MESSAGE_PAYLOAD_BYTES),
        };
        Ok(Put {
            replies,
            client: self.clone(),
            messages,
            packer: Packer::new(limit),
            wanted: wanted_blocks(&answer)?,
            complete: answer.complete,
            sent_bytes: 0,
            ended: None,
        })
    }
}

impl Put {
    /// Numbers of the blocks to send, in order.
    #[must_use]
    pub fn wanted(&self) -> &[u32] {
        &self.wanted
    }

    /// Whether all blocks that are not wanted are there or on their way; false when some were refused for want of room.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Sends a block's payload, or keeps it until a message is full. False when the daemon takes no more, and waits
    /// only for [`finish`](Self::finish).
    ///
    /// # Errors
    /// When the daemon refuses what was sent, or the connection breaks.
    pub async fn send(&mut self, block: u32, payload: &Bytes) -> Result<bool, ClientError> {
        self.sent_bytes += payload.len() as u64;
        for data in self.packer.push(block, payload) {
            if !self.message(data).await? {
                return Ok(false);
            }
        }
        Ok(self.ended.is_none())
    }

    /// Sends what is kept back, without ending the put: for tests that stop in the middle.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn flush(&mut self) -> Result<bool, ClientError> {
        match self.packer.flush() {
            Some(data) => self.message(data).await,
            None => Ok(self.ended.is_none()),
        }
    }

    /// Says that no more comes, and how far the chain is stored.
    ///
    /// # Errors
    /// When the daemon refuses what was sent, or the connection breaks.
    pub async fn finish(mut self) -> Result<PutResult, ClientError> {
        self.flush().await?;
        let Self { mut replies, client, messages, wanted, sent_bytes, ended, .. } = self;
        drop(messages);
        let result = match ended {
            Some(result) => result,
            None => result_of(client.within("Put", PATIENCE, replies.message()).await?)?,
        };
        client.hang_up(&mut replies).await;
        Ok(PutResult { wanted_blocks: u32::try_from(wanted.len()).unwrap_or(u32::MAX), sent_bytes, ..result })
    }

    /// Whether the message is on its way. A daemon that has enough says so while there is still something to send.
    async fn message(&mut self, data: PutData) -> Result<bool, ClientError> {
        if self.ended.is_some() {
            return Ok(false);
        }
        let message = PutRequest { request: Some(Request::Data(data)) };
        let step = async {
            tokio::select! {
                // A full channel waits; an answer does not come before the end, unless something is wrong.
                biased;
                reply = self.replies.message() => reply.map(Some),
                sent = self.messages.send(message) => match sent {
                    Ok(()) => Ok(None),
                    // The stream is gone: why is in the answer.
                    Err(_) => self.replies.message().await.map(Some),
                },
            }
        };
        let Some(reply) = self.client.within("Put", PATIENCE, step).await? else { return Ok(true) };
        self.ended = Some(result_of(reply)?);
        Ok(false)
    }
}

fn result_of(reply: Option<PutReply>) -> Result<PutResult, ClientError> {
    let Some(Reply::Result(result)) = reply.and_then(|reply| reply.reply) else {
        return Err(ClientError::protocol("a put without a result"));
    };
    Ok(put_result(result))
}

/// What the daemon says became of a put.
pub(super) fn put_result(result: crate::proto::PutResult) -> PutResult {
    PutResult {
        stored_through: result.stored_through,
        accepted_blocks: result.accepted_blocks,
        dropped_blocks: result.dropped_blocks,
        drop_reason: result.drop_reason,
        retained_until_s: result.retained_until_s,
        retention_refused: result.retention_refused,
        ..PutResult::default()
    }
}

impl PutResult {
    /// A later put of more of the same chain.
    pub(super) fn add(&mut self, later: Self) {
        self.stored_through = self.stored_through.max(later.stored_through);
        self.accepted_blocks += later.accepted_blocks;
        self.dropped_blocks += later.dropped_blocks;
        if self.drop_reason.is_empty() {
            self.drop_reason = later.drop_reason;
        }
        // What the last part says holds for all before it.
        (self.retained_until_s, self.retention_refused) = (later.retained_until_s, later.retention_refused);
    }
}

/// Numbers of the blocks whose bits are set.
pub(super) fn wanted_blocks(wanted: &PutWanted) -> Result<Vec<u32>, ClientError> {
    let bytes = (0_u32..).step_by(8).zip(&wanted.bitmap);
    let blocks: Vec<u32> = bytes
        .flat_map(|(first, byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| first + bit))
        .collect();
    if blocks.len() != wanted.blocks as usize {
        let what = format!("a put wants {} blocks, its bitmap names {}", wanted.blocks, blocks.len());
        return Err(ClientError::Protocol { what });
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_blocks_are_the_set_bits_lowest_first() {
        let bitmap = Bytes::from_static(&[0b1000_0001, 0, 0b10]);
        let wanted = PutWanted { bitmap: bitmap.clone(), blocks: 3, complete: true };
        assert_eq!(wanted_blocks(&wanted).unwrap(), [0, 7, 17]);
        assert!(wanted_blocks(&PutWanted { bitmap, blocks: 4, complete: true }).is_err());
    }
}
