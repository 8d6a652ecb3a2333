//! The daemon's addresses: taken before anything else is done, so that a wrong one is refused at once, and answering from then
//! on. Until the cache is there, calls are told how far the start has come; then the services take over on the same
//! connections.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::service::{AxumBody, Routes};
use tonic::transport::ServerTlsConfig;

use super::config::Config;
use super::run::StartError;
use super::{scrape, serve};
use crate::access::Gatekeeper;
use crate::cache::Cache;
use crate::rpc::Gate;
use crate::vocab::SystemClock;
use crate::vocab::limits::FAILURE_TOLD;
use crate::watch::{Health, Watch};

/// What answers at an address: some services at first, all of them later.
#[derive(Clone)]
pub(super) struct Door(Arc<Doors>);

struct Doors {
    starting: Routes,
    open: OnceLock<Routes>,
}

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = <Routes as Service<Request<Body>>>::Error;
    type Future = <Routes as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // As that of the routes, which are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.open.get().unwrap_or(&self.0.starting).clone().call(request)
    }
}

/// Tells every call that it comes too early.
#[derive(Clone)]
struct TooEarly(Health);

impl Service<Request<AxumBody>> for TooEarly {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<AxumBody>) -> Self::Future {
        let why = self.0.board().of(None).reasons.join("; ");
        let status = Status::unavailable(format!("the daemon is starting: {why}"));
        Box::pin(std::future::ready(Ok(status.into_http())))
    }
}

/// Who may come in, and what is watched.
pub(super) struct Guards {
    pub(super) keeper: Arc<Gatekeeper>,
    pub(super) tls: Option<ServerTlsConfig>,
    pub(super) watch: Watch,
    pub(super) health: Health,
}

/// The addresses. Dropped, they are given up at once, and the sockets' files are gone.
pub(super) struct Front {
    pub(super) closing: CancellationToken,
    pub(super) tcp: Option<SocketAddr>,
    pub(super) metrics: Option<SocketAddr>,
    /// The Unix socket that it listens on, and the one that hands the arena over.
    pub(super) sockets: Vec<PathBuf>,
    door: Door,
    cache: Arc<OnceLock<Arc<Cache>>>,
    serving: Vec<JoinHandle<()>>,
}

impl Front {
    /// Takes all addresses of a configuration, and answers there.
    pub(super) async fn bind(config: &Config, guards: Guards) -> Result<Self, StartError> {
        let mut starting = serve::always(&guards.health)?.routes();
        let router = std::mem::take(starting.axum_router_mut());
        *starting.axum_router_mut() = router.fallback_service(TooEarly(guards.health.clone()));
        let mut front = Self {
            closing: CancellationToken::new(),
            tcp: None,
            metrics: None,
            sockets: Vec::new(),
            door: Door(Arc::new(Doors { starting: starting.prepare(), open: OnceLock::new() })),
            cache: Arc::default(),
            serving: Vec::new(),
        };
        match front.take(config, guards).await {
            Ok(()) => Ok(front),
            Err(error) => {
                // Whoever is told finds the others free again.
                front.close(Instant::now()).await;
                Err(error)
            }
        }
    }

    async fn take(&mut self, config: &Config, guards: Guards) -> Result<(), StartError> {
        let Guards { keeper, tls, watch, health } = guards;
        let gate = Gate::new(keeper, Arc::new(SystemClock));
        if let Some(address) = config.listen {
            let (bound, listener) = serve::listen(address).await?;
            let served = serve::tcp(listener, self.door.clone(), gate.clone(), tls, self.closing.clone())?;
            self.spawn("TCP server", &watch, served);
            self.tcp = Some(bound);
        }
        if let Some(address) = config.metrics {
            let (bound, listener) = serve::listen(address).await?;
            let routes = scrape::routes(Arc::clone(&self.cache), health.clone());
            let served = serve::http(listener, routes, self.closing.clone());
            self.spawn("metrics server", &watch, served);
            self.metrics = Some(bound);
        }
        if let Some(path) = &config.socket {
            let listener = serve::bind(path).await?;
            self.sockets.push(path.clone());
            let served = serve::unix(listener, self.door.clone(), gate, self.closing.clone());
            self.spawn("Unix socket server", &watch, served);
        }
        Ok(())
    }

    fn spawn<E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        watch: &Watch,
        served: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let closing = self.closing.clone();
        let served = async move {
            let served = served.await;
            match served {
                _ if closing.is_cancelled() => Ok(()),
                Ok(()) => Err("it accepts no more connections".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let served = watch.vital(name).task(served);
        self.serving.push(tokio::spawn(async move { served.await.unwrap_or(()) }));
    }

    /// From now on all services answer.
    pub(super) fn open(&self, routes: Routes, cache: &Arc<Cache>) {
        drop(self.cache.set(Arc::clone(cache)));
        drop(self.door.0.open.set(routes));
    }

    /// Takes no more requests and ends those under way, until a moment at which the rest is cut off; whether none was.
    pub(super) async fn close(&mut self, until: Instant) -> bool {
        self.closing.cancel();
        let mut is_quiet = true;
        for mut serving in self.serving.drain(..) {
            if tokio::time::timeout_at(until, &mut serving).await.is_err() {
                is_quiet = false;
                serving.abort();
                // Its address is free once it is gone; it is at its next step.
                tokio::time::timeout(FAILURE_TOLD, serving).await.ok();
            }
        }
        is_quiet
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.closing.cancel();
        self.serving.iter().for_each(JoinHandle::abort);
        for path in &self.sockets {
            std::fs::remove_file(path).ok();
        }
    }
}
