//! A fetch's stream: blocks into messages of about 1 MiB.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::chain;
use super::status::{invalid, status, word};
use crate::cache::Cache;
use crate::cache::load::{FetchOutcome, FetchRequest, Fetched, FetchedBlock};
use crate::proto::{self, fetch_reply::Reply};
use crate::session::Session;
use crate::vocab::limits::{FETCH_CHANNEL, FETCH_DEADLINE_DEFAULT, FETCH_DEADLINE_MAX, MESSAGE_PAYLOAD_BYTES};
use crate::vocab::{LeaseId, RequestId};

type Replies = Pin<Box<dyn Stream<Item = Result<proto::FetchReply, Status>> + Send>>;

/// Answers a fetch: refusals before the first byte, then bytes, then the end.
pub(super) async fn fetch(
    cache: Arc<Cache>,
    session: Session,
    request: proto::FetchRequest,
) -> Result<Replies, Status> {
    let deadline = deadline(request.deadline_ms)?;
    let lease = (request.lease_id != 0).then_some(LeaseId(request.lease_id));
    let request = FetchRequest {
        request: RequestId::parse(&request.request_id).map_err(word)?,
        chain: chain::parse(&cache, request.chain, None)?,
        lease,
        deadline,
        promote: !request.do_not_promote,
        session,
    };
    cache.check_lease(&request.session, lease).await.map_err(status)?;
    let (blocks, queue) = mpsc::channel(FETCH_CHANNEL);
    let (replies, stream) = mpsc::channel(FETCH_CHANNEL);
    let sending = tokio::spawn(send(queue, replies.clone()));
    tokio::spawn(async move {
        let fetched = cache.fetch(request, blocks).await;
        // The blocks' end comes before the fetch's.
        sending.await.ok();
        replies.send(Ok(end(fetched))).await.ok();
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

pub(super) fn deadline(ms: u32) -> Result<Instant, Status> {
    let deadline = match ms {
        0 => FETCH_DEADLINE_DEFAULT,
        ms => Duration::from_millis(ms.into()),
    };
    if deadline > FETCH_DEADLINE_MAX {
        return Err(invalid("deadline_ms", ms, "at most 600000 (10 minutes)"));
    }
    Ok(Instant::now() + deadline)
}

/// Packs blocks into messages: as many small ones as are there, or a large one in parts.
async fn send(mut blocks: mpsc::Receiver<FetchedBlock>, replies: mpsc::Sender<Result<proto::FetchReply, Status>>) {
    let mut pieces: Vec<proto::BlockPiece> = Vec::new();
    let mut packed = 0;
    while let Some(block) = blocks.recv().await {
        for piece in cut(&block) {
            if packed + piece.data.len() > MESSAGE_PAYLOAD_BYTES && !pieces.is_empty() {
                packed = 0;
                if replies.send(Ok(data(std::mem::take(&mut pieces)))).await.is_err() {
                    return;
                }
            }
            packed += piece.data.len();
            pieces.push(piece);
        }
        // Nothing waits for company: what is read goes out as soon as there is no more to add.
        if blocks.is_empty() && !pieces.is_empty() {
            packed = 0;
            if replies.send(Ok(data(std::mem::take(&mut pieces)))).await.is_err() {
                return;
            }
        }
    }
    if !pieces.is_empty() {
        replies.send(Ok(data(pieces))).await.ok();
    }
}

fn cut(block: &FetchedBlock) -> impl Iterator<Item = proto::BlockPiece> + '_ {
    let total = block.bytes.len();
    (0..total).step_by(MESSAGE_PAYLOAD_BYTES).map(move |offset| {
        let part: Bytes = block.bytes.slice(offset..total.min(offset + MESSAGE_PAYLOAD_BYTES));
        proto::BlockPiece {
            block: number(block.at),
            shard: 0,
            offset: number(offset),
            length: number(total),
            crc: block.crc,
            data: part,
        }
    })
}

fn number(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn data(pieces: Vec<proto::BlockPiece>) -> proto::FetchReply {
    proto::FetchReply { reply: Some(Reply::Data(proto::FetchData { pieces })) }
}

fn end(fetched: Fetched) -> proto::FetchReply {
    proto::FetchReply { reply: Some(Reply::End(wire_end(fetched))) }
}

pub(super) fn wire_end(fetched: Fetched) -> proto::FetchEnd {
    let outcome = match fetched.outcome {
        FetchOutcome::Complete => proto::FetchOutcome::Complete,
        FetchOutcome::Miss => proto::FetchOutcome::Miss,
        FetchOutcome::Deadline => proto::FetchOutcome::Deadline,
        FetchOutcome::Abandoned => proto::FetchOutcome::Closing,
    };
    proto::FetchEnd {
        outcome: outcome.into(),
        blocks_ram: fetched.blocks_ram,
        blocks_nvme: fetched.blocks_nvme,
        tokens: fetched.tokens,
        receipt: fetched.receipt.into(),
    }
}
