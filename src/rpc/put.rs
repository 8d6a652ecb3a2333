//! A put's two streams: offer in, wanted out, bytes in, result out.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::access::Caller;
use super::chain;
use super::status::{invalid, status};
use crate::cache::Cache;
use crate::cache::put::{Piece, PutResult, PutWalk};
use crate::proto::{self, put_reply::Reply, put_request::Request};
use crate::vocab::RequestId;
use crate::vocab::limits::{PUT_IDLE_MAX, TURN_BYTES};

type Replies = Pin<Box<dyn Stream<Item = Result<proto::PutReply, Status>> + Send>>;

/// What the writer sends.
pub(super) type Requests = Pin<Box<dyn Stream<Item = Result<proto::PutRequest, Status>> + Send>>;

/// Answers a put.
pub(super) fn put(cache: Arc<Cache>, caller: Caller, requests: Requests) -> Replies {
    // Two answers at most: what is wanted, and the end.
    let (replies, stream) = mpsc::channel(2);
    tokio::spawn(async move {
        let end = tokio::select! {
            end = receive(&cache, &caller, requests, &replies) => end,
            // The writer is gone: dropping the walk gives its slots back.
            () = replies.closed() => return,
        };
        let end = end.map(|result| proto::PutReply { reply: Some(Reply::Result(wire(result))) });
        replies.send(end).await.ok();
    });
    Box::pin(ReceiverStream::new(stream))
}

async fn receive(
    cache: &Arc<Cache>,
    caller: &Caller,
    mut requests: Requests,
    replies: &mpsc::Sender<Result<proto::PutReply, Status>>,
) -> Result<PutResult, Status> {
    let Some(Request::Offer(offer)) = next(&mut requests).await? else {
        return Err(invalid("request", "data", "an offer in the first message"));
    };
    let session = caller.session(cache, offer.session_id)?;
    let chain = chain::parse(cache, caller, offer.chain, Some(&session)).await?;
    let (mut walk, complete) = cache.put(&chain).await.map_err(status)?;
    // Writers that settle nothing name no request.
    if let Ok(request) = RequestId::parse(&offer.request_id) {
        walk.written_by(session.instance.digest(), request.digest(), chain.depth);
    }
    let wanted = proto::PutReply { reply: Some(Reply::Wanted(wanted(&walk, complete))) };
    if replies.send(Ok(wanted)).await.is_err() {
        return Err(Status::cancelled("the writer is gone"));
    }
    let mut copied = 0;
    while let Some(request) = next(&mut requests).await? {
        let Request::Data(data) = request else {
            return Err(invalid("request", "offer", "data after the first message: a put has one offer"));
        };
        for piece in &data.pieces {
            if piece.shard != 0 {
                return Err(invalid("pieces[].shard", piece.shard, "0: the namespace has one shard"));
            }
            let proto::BlockPiece { block, offset, length, data, .. } = piece;
            let piece = Piece { block: *block, offset: *offset, length: *length, data };
            walk.piece(piece).await.map_err(status)?;
            copied += data.len();
            if copied >= TURN_BYTES {
                // Its bytes are here already, and so may the next ones be: other calls have the thread in between.
                copied = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    walk.finish().await.map_err(status)
}

async fn next(requests: &mut Requests) -> Result<Option<Request>, Status> {
    match tokio::time::timeout(PUT_IDLE_MAX, requests.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(message))) => {
            message.request.map(Some).ok_or_else(|| invalid("request", "absent", "an offer or data"))
        }
        Ok(Some(Err(status))) => Err(status),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "the put has sent nothing for {} seconds, which is the limit",
            PUT_IDLE_MAX.as_secs()
        ))),
    }
}

fn wanted(walk: &PutWalk, complete: bool) -> proto::PutWanted {
    let (bitmap, blocks) = bitmap(walk.offered(), walk.wanted());
    proto::PutWanted { bitmap, blocks, complete }
}

/// Which of `blocks` are named, lowest bit first, and how many.
pub(super) fn bitmap(blocks: usize, named: impl Iterator<Item = usize>) -> (Bytes, u32) {
    let mut bitmap = vec![0_u8; blocks.div_ceil(8)];
    let mut count = 0;
    for at in named {
        bitmap[at / 8] |= 1 << (at % 8);
        count += 1;
    }
    (bitmap.into(), count)
}

pub(super) fn wire(result: PutResult) -> proto::PutResult {
    proto::PutResult {
        stored_through: result.stored_through,
        accepted_blocks: result.accepted,
        dropped_blocks: result.dropped,
        drop_reason: result.reason.into(),
        retained_until_s: result.retained_until_s.into(),
        retention_refused: result.not_retained.unwrap_or_default(),
    }
}
