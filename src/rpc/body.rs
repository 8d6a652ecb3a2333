//! A fetch's response body: its replies as chunks that are not copied, its end as gRPC's trailers. tonic answers the call
//! as any other, with a stream of replies; on the way out the body that would encode them is exchanged for this one. A
//! put's body is taken aside on its way in likewise.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio_stream::Stream;
use tonic::Status;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::fetch::Replies;
use super::wire;
use crate::proto::{FetchReply, RawBody};

/// A fetch's replies on their way to the wire. What tonic answers with holds one, and so do the response's extensions:
/// whoever comes first has the replies.
#[derive(Clone, Debug)]
pub(super) struct Bulk(Arc<Mutex<Option<Replies>>>);

impl Bulk {
    pub(super) fn new(replies: Replies) -> Self {
        Self(Arc::new(Mutex::new(Some(replies))))
    }

    fn take(&self) -> Option<Replies> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// For whoever serves without [`BulkBodies`]: the same messages, copied once more.
impl Stream for Bulk {
    type Item = Result<FetchReply, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(replies) => Pin::new(replies).poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}

/// The call whose messages are read past tonic's decoder.
const PUT: &str = "/kvtier.v1.Cache/Put";

/// A service whose payloads are neither copied on their way out of a slot nor before they get into one.
#[derive(Clone, Debug)]
pub struct BulkBodies<S>(S);

impl<S> BulkBodies<S> {
    /// Around the gate's `Cache` service.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: NamedService> NamedService for BulkBodies<S> {
    const NAME: &'static str = S::NAME;
}

type Request = http::Request<tonic::body::Body>;
type Response = http::Response<tonic::body::Body>;

impl<S> Service<Request> for BulkBodies<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if request.uri().path() == PUT {
            let body = RawBody::new(std::mem::take(request.body_mut()));
            request.extensions_mut().insert(body);
        }
        let response = self.0.call(request);
        Box::pin(async {
            let mut response = response.await?;
            Ok(match response.extensions_mut().remove::<Bulk>().and_then(|bulk| bulk.take()) {
                Some(replies) => response.map(|_| tonic::body::Body::new(Body::new(replies))),
                None => response,
            })
        })
    }
}

/// Chunks of the reply at hand, then of the next, then trailers.
struct Body<R> {
    replies: R,
    chunks: std::vec::IntoIter<Bytes>,
    ended: bool,
}

impl<R> Body<R> {
    fn new(replies: R) -> Self {
        Self { replies, chunks: Vec::new().into_iter(), ended: false }
    }
}

impl<R: Stream<Item = Result<FetchReply, Status>> + Unpin> http_body::Body for Body<R> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(chunk) = self.chunks.next() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            let status = match ready!(Pin::new(&mut self.replies).poll_next(cx)) {
                Some(Ok(reply)) => {
                    self.chunks = wire::chunks(&reply).into_iter();
                    continue;
                }
                Some(Err(status)) => status,
                None => Status::ok(""),
            };
            self.ended = true;
            let mut trailers = http::HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::proto::{BlockPiece, FetchData, fetch_reply::Reply};
    use crate::vocab::limits::WIRE_INLINE_BYTES;

    fn reply(fill: u8) -> FetchReply {
        let data = vec![fill; WIRE_INLINE_BYTES].into();
        let pieces = vec![BlockPiece { data, ..BlockPiece::default() }];
        FetchReply { reply: Some(Reply::Data(FetchData { pieces })) }
    }

    /// Data's bytes, and the trailers' status and message.
    fn read(replies: Vec<Result<FetchReply, Status>>) -> (Vec<u8>, Option<Status>) {
        let mut body = Body::new(tokio_stream::iter(replies));
        let (mut bytes, mut status) = (Vec::new(), None);
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(frame)) = http_body::Body::poll_frame(Pin::new(&mut body), &mut cx) {
            match frame.unwrap().into_data() {
                Ok(data) => bytes.extend(data),
                Err(frame) => status = Status::from_header_map(frame.trailers_ref().unwrap()),
            }
        }
        assert!(http_body::Body::is_end_stream(&body));
        (bytes, status)
    }

    fn messages(replies: &[FetchReply]) -> Vec<u8> {
        replies.iter().flat_map(wire::chunks).collect::<Vec<_>>().concat()
    }

    #[test]
    fn replies_come_one_after_another_and_end_with_the_status_ok() {
        let (bytes, status) = read(vec![Ok(reply(1)), Ok(reply(2))]);
        assert_eq!(bytes, messages(&[reply(1), reply(2)]));
        assert_eq!(status.unwrap().code(), tonic::Code::Ok);
    }

    #[test]
    fn an_error_in_the_middle_ends_the_stream_with_its_status() {
        let (bytes, status) = read(vec![Ok(reply(1)), Err(Status::unavailable("gone")), Ok(reply(2))]);
        let status = status.unwrap();
        assert_eq!((bytes, status.code(), status.message()), (messages(&[reply(1)]), tonic::Code::Unavailable, "gone"));
    }
}
