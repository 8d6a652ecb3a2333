//! The way of a fetch's bytes past tonic's decoder, which would copy them once more.

use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Error;

use super::credentials::Shown;
use crate::proto::RawBody;

/// The call whose answer is read by [`Messages`](crate::proto::Messages).
const FETCH: &str = "/kvtier.v1.Cache/Fetch";

/// A channel that takes the body of a fetch's answer aside. Status and headers are tonic's business as in any call.
#[derive(Clone, Debug)]
pub(super) struct BulkChannel(pub(super) Shown);

impl Service<http::Request<Body>> for BulkChannel {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Self::Response, Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let is_fetch = request.uri().path() == FETCH;
        let response = self.0.call(request);
        Box::pin(async move {
            let mut response = response.await?;
            if is_fetch {
                let body = RawBody::new(std::mem::take(response.body_mut()));
                response.extensions_mut().insert(body);
            }
            Ok(response)
        })
    }
}
