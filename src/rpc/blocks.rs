//! `kvtier.v1.Cache`: finding, storing and reading blocks.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::access::Caller;
use super::body::Bulk;
use super::pins::ConnectionPins;
use super::status::{invalid, status, word};
use super::{chain, fetch, load, put, regions};
use crate::cache::Cache;
use crate::cache::lookup::{LeaseRequest, LookupOptions};
use crate::cache::ticket::{PrefetchRequest, Prefetched};
use crate::proto::{self, Messages, RawBody, cache_server};
use crate::vocab::limits::{GRPC_MESSAGE_BYTES_MAX, LEASE_TTL_DEFAULT, LEASE_TTL_MAX};
use crate::vocab::{LeaseId, RequestId};

/// The service.
#[derive(Clone)]
pub struct CacheService {
    cache: Arc<Cache>,
    /// Whether same-host workers are handed the arena.
    hands_over: bool,
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl CacheService {
    /// Over this cache, whose arena is handed to same-host workers, or not.
    #[must_use]
    pub fn new(cache: Arc<Cache>, hands_over: bool) -> Self {
        Self { cache, hands_over }
    }

    fn check_hands_over(&self, instead: &str) -> Result<(), Status> {
        let why = "this daemon shares no memory with workers, neither its arena nor theirs: it needs a Unix socket (--socket)";
        if self.hands_over { Ok(()) } else { Err(Status::failed_precondition(format!("{why}; {instead}"))) }
    }

    fn lease_request(&self, caller: &Caller, request: &proto::LookupRequest) -> Result<Option<LeaseRequest>, Status> {
        if request.lease_ttl_ms == 0 {
            return Ok(None);
        }
        let ttl = ttl("lease_ttl_ms", request.lease_ttl_ms)?;
        let session = caller.session(&self.cache, request.session_id)?;
        let request = RequestId::parse(&request.request_id).map_err(word)?;
        Ok(Some(LeaseRequest { session, request, ttl }))
    }
}

fn ttl(field: &str, ms: u64) -> Result<Duration, Status> {
    let ttl = if ms == 0 { LEASE_TTL_DEFAULT } else { Duration::from_millis(ms) };
    if ttl > LEASE_TTL_MAX { Err(invalid(field, ms, "at most 600000 (10 minutes)")) } else { Ok(ttl) }
}

fn wire_lease(leased: crate::cache::Leased, ttl: Duration) -> proto::Lease {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    proto::Lease { lease_id: leased.lease.0, blocks: leased.blocks, ttl_ms }
}

#[tonic::async_trait]
impl cache_server::Cache for CacheService {
    type FetchStream = Answers<proto::FetchReply>;
    type PutStream = Answers<proto::PutReply>;
    type LoadStream = Answers<proto::LoadReply>;
    type LoadIntoStream = Answers<proto::LoadIntoReply>;

    async fn lookup(&self, request: Request<proto::LookupRequest>) -> Result<Response<proto::LookupReply>, Status> {
        let caller = Caller::of(&request)?;
        let mut request = request.into_inner();
        let lease = self.lease_request(&caller, &request)?;
        let options = LookupOptions {
            membership: request.mode() == proto::LookupMode::Membership,
            already_computed: request.already_computed_blocks,
            prompt_tokens: (request.prompt_tokens > 0).then_some(request.prompt_tokens),
        };
        let chain = chain::parse(&self.cache, &caller, request.chain.take(), None).await?;
        let found = self.cache.lookup(&chain, &options, lease).await.map_err(status)?;
        Ok(Response::new(proto::LookupReply {
            hit_tokens: found.hit_tokens,
            miss_tokens: found.miss_tokens,
            blocks_engine: found.counts.engine,
            blocks_ram: found.counts.ram,
            blocks_nvme: found.counts.nvme,
            blocks_missed: found.counts.missed,
            membership: found.membership.into(),
            lease: found.lease.map(|(leased, ttl)| wire_lease(leased, ttl)),
            last_key: found.last_key.map(|key| key.as_bytes().to_vec().into()).unwrap_or_default(),
        }))
    }

    async fn fetch(&self, request: Request<proto::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        // A caller without a connection, such as a program that embeds the service, has a budget for this call.
        let pins = request.extensions().get::<ConnectionPins>().cloned().unwrap_or_default();
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        let bulk = Bulk::new(fetch::fetch(Arc::clone(&self.cache), &caller, session, pins, request).await?);
        let mut response = Response::new(Box::pin(bulk.clone()) as Self::FetchStream);
        response.extensions_mut().insert(bulk);
        Ok(response)
    }

    async fn put(&self, request: Request<Streaming<proto::PutRequest>>) -> Result<Response<Self::PutStream>, Status> {
        let caller = Caller::of(&request)?;
        let raw = request.extensions().get::<RawBody>().and_then(RawBody::take);
        let requests: put::Requests = match raw {
            Some(body) => Box::pin(Messages::of_request(body, GRPC_MESSAGE_BYTES_MAX)),
            None => Box::pin(request.into_inner()),
        };
        Ok(Response::new(put::put(Arc::clone(&self.cache), caller, requests)))
    }

    async fn release(&self, request: Request<proto::ReleaseRequest>) -> Result<Response<proto::ReleaseReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        let released = self.cache.release(&session, LeaseId(request.lease_id)).await.map_err(status)?;
        Ok(Response::new(proto::ReleaseReply { released }))
    }

    async fn renew(&self, request: Request<proto::RenewRequest>) -> Result<Response<proto::RenewReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        let ttl = ttl("ttl_ms", request.ttl_ms)?;
        let leased = self.cache.renew(&session, LeaseId(request.lease_id), ttl).await.map_err(status)?;
        Ok(Response::new(proto::RenewReply { lease: Some(wire_lease(leased, ttl)) }))
    }

    async fn prefetch(
        &self,
        request: Request<proto::PrefetchRequest>,
    ) -> Result<Response<proto::PrefetchReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let request = PrefetchRequest {
            session: caller.session(&self.cache, request.session_id)?,
            request: RequestId::parse(&request.request_id).map_err(word)?,
            chain: chain::parse(&self.cache, &caller, request.chain, None).await?,
            already_computed: request.already_computed_blocks,
            deadline: fetch::deadline(request.deadline_ms)?,
        };
        let Prefetched { ticket, counts, hit_tokens, lease } = self.cache.prefetch(request).await.map_err(status)?;
        Ok(Response::new(proto::PrefetchReply {
            ticket,
            hit_tokens,
            blocks_ram: counts.ram,
            blocks_nvme: counts.nvme,
            lease: lease.map(|leased| wire_lease(leased, LEASE_TTL_MAX)),
        }))
    }

    async fn accept(&self, request: Request<proto::AcceptRequest>) -> Result<Response<proto::AcceptReply>, Status> {
        let caller = Caller::of(&request)?;
        let proto::AcceptRequest { session_id, ticket, tokens } = request.into_inner();
        self.cache.accept(&caller.session(&self.cache, session_id)?, ticket, tokens).await.map_err(status)?;
        Ok(Response::new(proto::AcceptReply {}))
    }

    async fn finish_request(
        &self,
        request: Request<proto::FinishRequestRequest>,
    ) -> Result<Response<proto::FinishRequestReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        let id = RequestId::parse(&request.request_id).map_err(word)?;
        let stop = request.outcome() != proto::RequestOutcome::Completed;
        self.cache.finish_request(&session, &id, stop).await.map_err(status)?;
        Ok(Response::new(proto::FinishRequestReply {}))
    }

    async fn load(&self, request: Request<proto::LoadRequest>) -> Result<Response<Self::LoadStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        self.check_hands_over("use Fetch")?;
        load::load(Arc::clone(&self.cache), &caller, session, request).await.map(Response::new)
    }

    async fn reserve(&self, request: Request<proto::ReserveRequest>) -> Result<Response<proto::ReserveReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        regions::reserve(&self.cache, &caller, &session, request).await.map(Response::new)
    }

    async fn commit(&self, request: Request<proto::CommitRequest>) -> Result<Response<proto::CommitReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        regions::commit(Arc::clone(&self.cache), session, request).await.map(Response::new)
    }

    async fn attach_region(
        &self,
        request: Request<proto::AttachRegionRequest>,
    ) -> Result<Response<proto::AttachRegionReply>, Status> {
        let caller = Caller::of(&request)?;
        let proto::AttachRegionRequest { session_id, bytes, handle } = request.into_inner();
        let session = caller.session(&self.cache, session_id)?;
        self.check_hands_over("use Put and Fetch")?;
        let region = self.cache.attach(&session, handle, bytes).await.map_err(status)?;
        Ok(Response::new(proto::AttachRegionReply { region }))
    }

    async fn detach_region(
        &self,
        request: Request<proto::DetachRegionRequest>,
    ) -> Result<Response<proto::DetachRegionReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = caller.session(&self.cache, request.session_id)?;
        let detached = self.cache.detach(&session, request.region);
        Ok(Response::new(proto::DetachRegionReply { detached }))
    }

    async fn load_into(
        &self,
        request: Request<proto::LoadIntoRequest>,
    ) -> Result<Response<Self::LoadIntoStream>, Status> {
        let caller = Caller::of(&request)?;
        regions::load_into(Arc::clone(&self.cache), &caller, request.into_inner()).await.map(Response::new)
    }

    async fn put_from(&self, request: Request<proto::PutFromRequest>) -> Result<Response<proto::PutResult>, Status> {
        let caller = Caller::of(&request)?;
        regions::put_from(Arc::clone(&self.cache), &caller, request.into_inner()).await.map(Response::new)
    }
}
