//! A load's stream: places in the shared arena, packed.

use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::access::Caller;
use super::chain;
use super::fetch::{deadline, wire_end};
use super::status::{status, word};
use crate::cache::Cache;
use crate::cache::load::FetchRequest;
use crate::cache::places::Places;
use crate::proto;
use crate::session::Session;
use crate::vocab::limits::FETCH_CHANNEL;
use crate::vocab::{LeaseId, PLACE_BYTES, RequestId};

type Replies = Pin<Box<dyn Stream<Item = Result<proto::LoadReply, Status>> + Send>>;

/// Answers a load: refusals before the first place, then places, then the end.
pub(super) async fn load(
    cache: Arc<Cache>,
    caller: &Caller,
    session: Session,
    request: proto::LoadRequest,
) -> Result<Replies, Status> {
    let request = load_request(&cache, caller, session, request).await?;
    if let Some((places, fetched)) = cache.locate_at_once(&request) {
        let last = proto::LoadReply { end: Some(wire_end(fetched)), ..Default::default() };
        return Ok(Box::pin(tokio_stream::iter([Ok(packed(&places)), Ok(last)])));
    }
    let (out, mut found) = mpsc::channel(FETCH_CHANNEL);
    let (replies, stream) = mpsc::channel(FETCH_CHANNEL);
    let walk = tokio::spawn(cache.locate(request, out));
    tokio::spawn(async move {
        while let Some(places) = found.recv().await {
            if replies.send(Ok(packed(&places))).await.is_err() {
                // The walk sees that nobody takes its places any more.
                return;
            }
        }
        if let Ok(fetched) = walk.await {
            let end = proto::LoadReply { end: Some(wire_end(fetched)), ..Default::default() };
            replies.send(Ok(end)).await.ok();
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Parses what a load asks for, and checks what can be refused before the first block.
pub(super) async fn load_request(
    cache: &Cache,
    caller: &Caller,
    session: Session,
    request: proto::LoadRequest,
) -> Result<FetchRequest, Status> {
    let lease = (request.lease_id != 0).then_some(LeaseId(request.lease_id));
    let request = FetchRequest {
        deadline: deadline(request.deadline_ms)?,
        request: RequestId::parse(&request.request_id).map_err(word)?,
        chain: chain::parse(cache, caller, request.chain, None).await?,
        lease,
        promote: true,
        session,
    };
    cache.check_lease(&request.session, lease, request.deadline).await.map_err(status)?;
    Ok(request)
}

/// The wire's form of places: `LoadReply.places` says what lies where.
fn packed(Places { first, places }: &Places) -> proto::LoadReply {
    let mut packed = BytesMut::with_capacity(places.len() * PLACE_BYTES);
    for place in places {
        let mut record = [0; PLACE_BYTES];
        record[..8].copy_from_slice(&place.offset.to_le_bytes());
        record[8..16].copy_from_slice(&place.generation.to_le_bytes());
        record[16..24].copy_from_slice(&place.crc.to_le_bytes());
        record[24..28].copy_from_slice(&place.segment.to_le_bytes());
        record[28..32].copy_from_slice(&place.length.to_le_bytes());
        record[32..36].copy_from_slice(&place.word.to_le_bytes());
        packed.extend_from_slice(&record);
    }
    let first_block = u32::try_from(*first).unwrap_or(u32::MAX);
    proto::LoadReply { first_block, places: packed.freeze(), end: None }
}
