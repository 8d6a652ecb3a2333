//! Loads into and puts from memory that engines share with the daemon.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::access::Caller;
use super::chain;
use super::fetch::wire_end;
use super::load::load_request;
use super::put::{bitmap, wire};
use super::status::{invalid, status, word};
use crate::cache::Cache;
use crate::cache::put_from;
use crate::cache::reserve::Filled;
use crate::proto;
use crate::session::Session;
use crate::vocab::RequestId;
use crate::vocab::limits::FETCH_CHANNEL;

type Replies = Pin<Box<dyn Stream<Item = Result<proto::LoadIntoReply, Status>> + Send>>;

/// Answers a load into a region: refusals before the first byte, then how far it is, then the end.
pub(super) async fn load_into(
    cache: Arc<Cache>,
    caller: &Caller,
    request: proto::LoadIntoRequest,
) -> Result<Replies, Status> {
    let proto::LoadIntoRequest { load, region, offset } = request;
    let load = load.ok_or_else(|| invalid("load", "absent", "given"))?;
    let session = caller.session(&cache, load.session_id)?;
    let region = cache.region(&session, region).map_err(status)?;
    let load = load_request(&cache, caller, session, load).await?;
    let load = cache.load_into(load, &region, &offset).map_err(status)?;
    let (out, mut progress) = mpsc::channel(FETCH_CHANNEL);
    let (replies, stream) = mpsc::channel(FETCH_CHANNEL);
    let walk = tokio::spawn(cache.fill(load, out));
    tokio::spawn(async move {
        while let Some(mut loaded) = progress.recv().await {
            while let Ok(more) = progress.try_recv() {
                loaded = more;
            }
            let reply = proto::LoadIntoReply { loaded_blocks: loaded, end: None };
            if replies.send(Ok(reply)).await.is_err() {
                // The walk sees that nobody listens any more.
                return;
            }
        }
        if let Ok(fetched) = walk.await {
            let loaded_blocks = fetched.blocks_ram + fetched.blocks_nvme;
            let end = proto::LoadIntoReply { loaded_blocks, end: Some(wire_end(fetched)) };
            replies.send(Ok(end)).await.ok();
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Answers a put from a region.
pub(super) async fn put_from(
    cache: Arc<Cache>,
    caller: &Caller,
    request: proto::PutFromRequest,
) -> Result<proto::PutResult, Status> {
    let proto::PutFromRequest { offer, region, offset, length } = request;
    let offer = offer.ok_or_else(|| invalid("offer", "absent", "given"))?;
    let session = caller.session(&cache, offer.session_id)?;
    let region = cache.region(&session, region).map_err(status)?;
    let chain = chain::parse(&cache, caller, offer.chain, Some(&session)).await?;
    let parts = put_from::parts(&chain, &region, &offset, &length).map_err(status)?;
    // A caller who stops listening ends it here: it may use its memory for something else.
    let id = RequestId::parse(&offer.request_id).map_err(word)?;
    cache.put_from(&session, &id, &chain, &region, &parts).await.map(wire).map_err(status)
}

/// Answers a reservation.
pub(super) async fn reserve(
    cache: &Cache,
    caller: &Caller,
    session: &Session,
    request: proto::ReserveRequest,
) -> Result<proto::ReserveReply, Status> {
    let chain = chain::parse(cache, caller, request.chain, Some(session)).await?;
    let (blocks, id) = (chain.len(), RequestId::parse(&request.request_id).map_err(word)?);
    let payload = (request.payload_bytes > 0).then_some(request.payload_bytes);
    let most = if request.blocks_max == 0 { usize::MAX } else { request.blocks_max as usize };
    let reserved = cache.reserve(session, &id, &chain, payload, most).await.map_err(status)?;
    let (bitmap, wanted) = bitmap(blocks, reserved.wanted.iter().copied());
    let wanted = proto::PutWanted { bitmap, blocks: wanted, complete: true };
    Ok(proto::ReserveReply { reservation: reserved.number, wanted: Some(wanted), offset: reserved.offsets })
}

/// Answers a commit.
pub(super) async fn commit(
    cache: Arc<Cache>,
    session: Session,
    request: proto::CommitRequest,
) -> Result<proto::CommitReply, Status> {
    let blocks = (request.blocks > 0).then_some(request.blocks as usize);
    let filled = Filled { blocks, lengths: request.length };
    let stored = cache.commit(&session, request.reservation, filled).await.map_err(status)?;
    Ok(proto::CommitReply { result: Some(wire(stored)) })
}
