//! A fetch: refusals before the first byte, then blocks in messages of about 1 MiB, then how it ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;
use tonic::Status;

use super::access::Caller;
use super::chain;
use super::pins::{self, ConnectionPins, Hold};
use super::status::{invalid, status, word};
use crate::cache::Cache;
use crate::cache::load::{FetchOutcome, FetchRequest, Fetched, FetchedBlock};
use crate::proto::{self, fetch_reply::Reply};
use crate::session::Session;
use crate::vocab::limits::{
    ALIGNMENT, FETCH_DEADLINE_DEFAULT, FETCH_DEADLINE_MAX, FETCH_MESSAGE_BLOCKS, FETCH_PINNED_MESSAGES,
    FETCH_STALL_MAX, MESSAGE_PAYLOAD_BYTES,
};
use crate::vocab::{LeaseId, RequestId};

/// Starts a fetch, and gives its replies.
pub(super) async fn fetch(
    cache: Arc<Cache>,
    caller: &Caller,
    session: Session,
    pinned: ConnectionPins,
    request: proto::FetchRequest,
) -> Result<Replies, Status> {
    let deadline = deadline(request.deadline_ms)?;
    let lease = (request.lease_id != 0).then_some(LeaseId(request.lease_id));
    let request = FetchRequest {
        request: RequestId::parse(&request.request_id).map_err(word)?,
        chain: chain::parse(&cache, caller, request.chain, None).await?,
        lease,
        deadline,
        promote: !request.do_not_promote,
        session,
    };
    cache.check_lease(&request.session, lease, deadline).await.map_err(status)?;
    let slot = u64::from(request.chain.namespace.spec.max_payload_bytes).next_multiple_of(ALIGNMENT);
    let message_blocks = message_blocks(slot);
    let (blocks, queue) = mpsc::channel(message_blocks);
    let (end, ended) = oneshot::channel();
    let Ok(hold) = timeout_at(deadline, pinned.hold(slot * message_blocks as u64 * FETCH_PINNED_MESSAGES)).await else {
        // A walk without a reader sends nothing, and its receipt says so.
        drop(blocks);
        let (nobody, _) = mpsc::channel(1);
        let nothing = cache.fetch(FetchRequest { promote: false, ..request }, nobody).await;
        end.send(Fetched { outcome: FetchOutcome::Deadline, ..nothing }).ok();
        return Ok(Replies { queue, ended, message_blocks, cut: None, hold: None });
    };
    let sent = hold.ended();
    tokio::spawn(async move {
        let fetched = cache.fetch(request, blocks).await;
        end.send(fetched).ok();
        // A reader that takes nothing keeps slots pinned in buffers that can't be taken back while its connection lives.
        let patience = deadline.saturating_duration_since(Instant::now()) + FETCH_STALL_MAX;
        if !pins::have_left(&sent, patience).await && !pinned.cut().is_cancelled() {
            tracing::warn!("a reader has left bytes of a fetch unread past its deadline: its connection is cut");
            pinned.cut().cancel();
        }
    });
    Ok(Replies { queue, ended, message_blocks, cut: None, hold: Some(Arc::new(hold)) })
}

/// Blocks of a message, and of the queue before it: as many slots as are about 1 MiB, so that what is pinned is bounded
/// also where payloads are far smaller than their slots.
fn message_blocks(slot: u64) -> usize {
    usize::try_from(MESSAGE_PAYLOAD_BYTES as u64 / slot.max(1))
        .map_or(1, |blocks| blocks.clamp(1, FETCH_MESSAGE_BLOCKS))
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

/// A fetch's replies, made when they are asked for: as many small blocks as are there, or a part of a large one.
#[derive(Debug)]
pub(super) struct Replies {
    queue: mpsc::Receiver<FetchedBlock>,
    ended: oneshot::Receiver<Fetched>,
    message_blocks: usize,
    /// A block of which a part is still to be sent, and from where on.
    cut: Option<(FetchedBlock, usize)>,
    /// None once it has ended.
    hold: Option<Arc<Hold>>,
}

impl Stream for Replies {
    type Item = Result<proto::FetchReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut pieces = Vec::new();
        let mut packed = 0;
        // Nothing waits for company: what is read goes out as soon as there is no more to add.
        while pieces.len() < self.message_blocks {
            let next = match self.cut.take() {
                Some(next) => next,
                None => match self.queue.poll_recv(cx) {
                    Poll::Ready(Some(block)) => (self.keep(block), 0),
                    Poll::Ready(None) if pieces.is_empty() => return self.poll_end(cx),
                    Poll::Pending if pieces.is_empty() => return Poll::Pending,
                    Poll::Ready(None) | Poll::Pending => break,
                },
            };
            let (block, start) = next;
            let end = block.bytes.len().min(start + MESSAGE_PAYLOAD_BYTES);
            if packed + end - start > MESSAGE_PAYLOAD_BYTES {
                self.cut = Some((block, start));
                break;
            }
            packed += end - start;
            pieces.push(piece(&block, start, end));
            if end < block.bytes.len() {
                self.cut = Some((block, end));
            }
        }
        let data = Reply::Data(proto::FetchData { pieces });
        Poll::Ready(Some(Ok(proto::FetchReply { reply: Some(data) })))
    }
}

impl Replies {
    fn keep(&self, block: FetchedBlock) -> FetchedBlock {
        match &self.hold {
            Some(hold) => FetchedBlock { bytes: hold.keep(block.bytes), ..block },
            None => block,
        }
    }

    /// The blocks' end comes before the fetch's.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<proto::FetchReply, Status>>> {
        if self.ended.is_terminated() {
            return Poll::Ready(None);
        }
        let fetched = ready!(Pin::new(&mut self.ended).poll(cx));
        self.hold = None;
        let end = fetched.map(|fetched| proto::FetchReply { reply: Some(Reply::End(wire_end(fetched))) });
        Poll::Ready(Some(end.map_err(|_| Status::internal("the fetch has died"))))
    }
}

fn piece(block: &FetchedBlock, start: usize, end: usize) -> proto::BlockPiece {
    proto::BlockPiece {
        block: number(block.at),
        shard: 0,
        offset: number(start),
        length: number(block.bytes.len()),
        crc: block.crc,
        data: block.bytes.slice(start..end),
    }
}

fn number(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
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
