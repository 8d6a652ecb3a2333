//! `kvtier.v1.Sessions`: who is there, and which layouts they speak.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::access::Caller;
use super::spec;
use super::status::{session as refuse_session, status, word};
use crate::cache::{Cache, Leased};
use crate::proto::{self, sessions_server::Sessions};
use crate::session::{News, Session, SessionError};
use crate::vocab::limits::{LEASE_TTL_MAX, MESSAGE_PAYLOAD_BYTES, PAYLOAD_BYTES_MAX, REQUEST_BLOCKS_MAX};
use crate::vocab::{InstanceId, NamespaceName};

/// The revision of the protocol that this daemon speaks.
const PROTOCOL_REVISION: u32 = 1;

/// The service.
#[derive(Clone)]
pub struct SessionsService {
    cache: Arc<Cache>,
    /// Ends the streams when the daemon stops.
    closing: tokio_util::sync::CancellationToken,
    /// Path of the socket that hands the arena over.
    handover: Option<String>,
}

impl SessionsService {
    /// Over this cache, whose arena is handed over at the socket `handover`; sessions end when `closing` is cancelled.
    #[must_use]
    pub fn new(cache: Arc<Cache>, handover: Option<String>, closing: tokio_util::sync::CancellationToken) -> Self {
        Self { cache, closing, handover }
    }

    fn arena(&self) -> Option<proto::ArenaDescription> {
        let socket = self.handover.clone()?;
        let segments = (0..).zip(self.cache.ram().segments()).map(|(id, segment)| proto::Segment {
            id,
            bytes: segment.size() as u64,
            page_bytes: segment.page_bytes(),
            ..Default::default()
        });
        let segments = segments.collect();
        Some(proto::ArenaDescription { segments, socket })
    }
}

/// A session's stream. Dropped when the connection or the caller is gone, and the session with it.
pub struct SessionStream {
    opened: Option<proto::SessionEvent>,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    cache: Arc<Cache>,
    session: Session,
}

fn ticket_update(news: &News) -> proto::SessionEvent {
    let lease = |leased: Leased| proto::Lease { lease_id: leased.lease.0, blocks: leased.blocks, ttl_ms: 0 };
    let update = proto::TicketUpdate {
        ticket: news.ticket,
        ready_blocks: news.ready_blocks,
        bytes: news.bytes,
        estimate_ms: news.estimate_ms,
        lease: news.lease.map(lease),
        done: news.done,
    };
    proto::SessionEvent { event: Some(proto::session_event::Event::Ticket(update)) }
}

impl Stream for SessionStream {
    type Item = Result<proto::SessionEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(opened) = self.opened.take() {
            return Poll::Ready(Some(Ok(opened)));
        }
        if self.closed.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        self.session.outbox.poll_next(context).map(|news| Some(Ok(ticket_update(&news))))
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        self.cache.close_session(self.session.id);
    }
}

#[tonic::async_trait]
impl Sessions for SessionsService {
    type OpenSessionStream = SessionStream;

    async fn open_session(
        &self,
        request: Request<proto::OpenSessionRequest>,
    ) -> Result<Response<SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        if request.protocol_revision != PROTOCOL_REVISION {
            let (asked, spoken) = (request.protocol_revision, PROTOCOL_REVISION);
            return Err(Status::failed_precondition(format!(
                "protocol_revision is {asked}, this daemon speaks {spoken}"
            )));
        }
        let instance = InstanceId::parse(&request.instance).map_err(word)?;
        self.cache.sessions().until_left(&instance).await;
        let session = self.cache.open_session(instance, caller.name()).map_err(|error| match error {
            SessionError::Foreign(_) => caller.foreign_instance(&error),
            error => refuse_session(error),
        })?;
        tracing::debug!(instance = %session.instance, process = %request.process, "session opened");
        let opened = proto::SessionOpened {
            session_id: session.id,
            protocol_revision: PROTOCOL_REVISION,
            features: features(self.handover.is_some() && caller.acts_for_all()),
            version: env!("CARGO_PKG_VERSION").into(),
            limits: Some(limits()),
            // It shows all tenants' blocks; others get their bytes through gRPC.
            arena: self.arena().filter(|_| caller.acts_for_all()),
        };
        Ok(Response::new(SessionStream {
            opened: Some(proto::SessionEvent { event: Some(proto::session_event::Event::Opened(opened)) }),
            closed: Box::pin(self.closing.clone().cancelled_owned()),
            cache: Arc::clone(&self.cache),
            session,
        }))
    }

    async fn register_namespace(
        &self,
        request: Request<proto::RegisterNamespaceRequest>,
    ) -> Result<Response<proto::RegisterNamespaceReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let session = match request.session_id {
            0 => None,
            id => Some(caller.session(&self.cache, id)?),
        };
        let name = NamespaceName::parse(&request.name).map_err(word)?;
        let instance = session.as_ref().map(|session| session.instance.clone());
        let spec = spec::parse(request.spec.unwrap_or_default(), instance)?;
        if !request.expected_fingerprint.is_empty() {
            self.check_expected(&spec, &request.expected_fingerprint)?;
        }
        let session = session.map(|session| session.id);
        let (namespace, created) = self.cache.register(session, name, spec).map_err(status)?;
        let fingerprint = namespace.fingerprint.0.to_vec().into();
        Ok(Response::new(proto::RegisterNamespaceReply { fingerprint, created }))
    }
}

fn features(hands_over: bool) -> Vec<String> {
    let built = ["lookup", "put", "fetch", "prefetch", "settle"].into_iter();
    let built = built.chain(hands_over.then_some(["load", "load_into", "put_from", "reserve"]).into_iter().flatten());
    built.map(String::from).collect()
}

impl SessionsService {
    /// Refuses a spec that is not the one the caller expects, with the field that differs where that is known.
    fn check_expected(&self, given: &crate::vocab::NamespaceSpec, expected: &[u8]) -> Result<(), Status> {
        let expected = spec::fingerprint("expected_fingerprint", expected)?;
        let found = given.fingerprint();
        if found == expected {
            return Ok(());
        }
        let differs = self.cache.names().namespace(&expected).and_then(|known| known.spec.difference(given));
        let why = differs.map_or("no namespace with that fingerprint is registered here".into(), |field| {
            format!("it differs in spec.{field}")
        });
        Err(Status::failed_precondition(format!("expected_fingerprint is {expected}, the spec has {found}: {why}")))
    }
}

fn limits() -> proto::Limits {
    proto::Limits {
        request_blocks_max: u32::try_from(REQUEST_BLOCKS_MAX).unwrap_or(u32::MAX),
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        lease_ttl_ms_max: u64::try_from(LEASE_TTL_MAX.as_millis()).unwrap_or(u64::MAX),
        message_payload_bytes: u32::try_from(MESSAGE_PAYLOAD_BYTES).unwrap_or(u32::MAX),
    }
}
