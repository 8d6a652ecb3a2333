//! `GET /metrics` over plain HTTP, for whoever scrapes.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::http::{Method, Request, Response, StatusCode, header};
use tonic::codegen::{BoxFuture, Service};
use tonic::service::{AxumBody, AxumRouter, Routes};

use super::metrics;
use crate::cache::Cache;

/// What is served at the metrics' address: `/metrics`, and nothing else.
pub(super) fn routes(cache: &Arc<Cache>) -> Routes {
    AxumRouter::new().route_service("/metrics", Scrapes(Arc::clone(cache))).into()
}

#[derive(Clone)]
struct Scrapes(Arc<Cache>);

impl Service<Request<AxumBody>> for Scrapes {
    type Response = Response<AxumBody>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<AxumBody>) -> Self::Future {
        let cache = Arc::clone(&self.0);
        let asked = matches!(*request.method(), Method::GET | Method::HEAD);
        Box::pin(async move { Ok(if asked { scraped(&cache).await } else { refused(StatusCode::METHOD_NOT_ALLOWED) }) })
    }
}

async fn scraped(cache: &Cache) -> Response<AxumBody> {
    let text = match cache.status().await.map(metrics::text) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return refused(StatusCode::INTERNAL_SERVER_ERROR),
        // It is stopping.
        Err(_) => return refused(StatusCode::SERVICE_UNAVAILABLE),
    };
    let mut response = Response::new(AxumBody::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

fn refused(code: StatusCode) -> Response<AxumBody> {
    let mut response = Response::new(AxumBody::empty());
    *response.status_mut() = code;
    response
}
