//! `GET /metrics` over plain HTTP, for whoever scrapes.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tonic::codegen::http::{Method, Request, Response, StatusCode, header};
use tonic::codegen::{BoxFuture, Service};
use tonic::service::{AxumBody, AxumRouter, Routes};

use super::metrics;
use crate::cache::Cache;
use crate::watch::Health;

/// What is served at the metrics' address: `/metrics`, and nothing else. Until there is a cache it tells the health alone.
pub(super) fn routes(cache: Arc<OnceLock<Arc<Cache>>>, health: Health) -> Routes {
    AxumRouter::new().route_service("/metrics", Scrapes { cache, health }).into()
}

#[derive(Clone)]
struct Scrapes {
    cache: Arc<OnceLock<Arc<Cache>>>,
    health: Health,
}

impl Service<Request<AxumBody>> for Scrapes {
    type Response = Response<AxumBody>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<AxumBody>) -> Self::Future {
        let scrapes = self.clone();
        let asked = matches!(*request.method(), Method::GET | Method::HEAD);
        Box::pin(async move { Ok(if asked { scrapes.text().await } else { refused(StatusCode::METHOD_NOT_ALLOWED) }) })
    }
}

impl Scrapes {
    async fn text(&self) -> Response<AxumBody> {
        let status = match self.cache.get() {
            Some(cache) => match cache.status().await {
                Ok(status) => Some(status),
                // It is stopping.
                Err(_) => return refused(StatusCode::SERVICE_UNAVAILABLE),
            },
            None => None,
        };
        let Ok(text) = metrics::text(status, self.health.board()) else {
            return refused(StatusCode::INTERNAL_SERVER_ERROR);
        };
        let mut response = Response::new(AxumBody::from(text));
        let kind = header::HeaderValue::from_static(metrics::CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

fn refused(code: StatusCode) -> Response<AxumBody> {
    let mut response = Response::new(AxumBody::empty());
    *response.status_mut() = code;
    response
}
