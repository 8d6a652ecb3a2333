//! The standard's health service (`grpc.health.v1`) over the board, and who keeps the board true.
//!
//! A stream of `Watch` ends with the daemon: one that stayed open would hold up every stop until its limit.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as Contract, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::cache::Cache;
use crate::vocab::limits::{HEALTH_LOOK_EVERY, REBUILT_TOLD};
use crate::watch::{Board, Health, Service, State, Trouble, Watch};

/// The service.
#[derive(Clone)]
pub(super) struct HealthService(Health);

impl HealthService {
    /// Over this board.
    pub(super) fn server(health: &Health) -> HealthServer<Self> {
        HealthServer::new(Self(health.clone()))
    }
}

type Said = Result<HealthCheckResponse, Status>;

#[tonic::async_trait]
impl Contract for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        match status_of(&self.0.board(), name) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("service {name:?} is not known here"))),
            status => Ok(Response::new(said(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Said> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(tell(self.0.changes(), request.into_inner().service, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends what a service is, and each change of it, until nobody listens or the daemon stops.
async fn tell(mut board: watch::Receiver<Board>, name: String, to: tokio::sync::mpsc::Sender<Said>) {
    let mut before = None;
    loop {
        let (status, is_last) = {
            let board = board.borrow_and_update();
            (status_of(&board, &name), board.of(None).state == State::Stopping)
        };
        if before != Some(status) && to.send(Ok(said(status))).await.is_err() {
            return;
        }
        before = Some(status);
        if is_last {
            return;
        }
        tokio::select! {
            () = to.closed() => return,
            changed = board.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

fn status_of(board: &Board, name: &str) -> ServingStatus {
    let known = Service::ALL.into_iter().find(|service| service.name() == name);
    let serves = match known {
        None if !name.is_empty() => return ServingStatus::ServiceUnknown,
        service => board.of(service).serves,
    };
    if serves { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Who writes on the board while the daemon serves.
pub(super) struct Keeper {
    pub(super) cache: Weak<Cache>,
    pub(super) health: Health,
    pub(super) watch: Watch,
    /// Since when the catalog is a new one, because it could not be read.
    pub(super) rebuilt: Option<Instant>,
}

impl Keeper {
    /// Keeps it true until the daemon closes, or a vital part of it ends.
    pub(super) async fn keep(self, closing: CancellationToken) {
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                failure = self.watch.failed() => return self.health.stop(&failure.to_string()),
                () = tokio::time::sleep(HEALTH_LOOK_EVERY) => {}
            }
            let Some(cache) = self.cache.upgrade() else { return };
            self.look(&cache);
        }
    }

    /// Writes down what is wrong now.
    pub(super) fn look(&self, cache: &Arc<Cache>) {
        let mut troubles = cache.troubles();
        let of_blocks = |why| Trouble { of: Service::Cache, why };
        if self.rebuilt.is_some_and(|since| since.elapsed() < REBUILT_TOLD) {
            troubles.push(of_blocks(
                "the catalog could not be read and was begun anew: what the drives held is forgotten".into(),
            ));
        }
        troubles.extend(self.watch.lost().iter().map(|lost| of_blocks(lost.to_string())));
        self.health.set_troubles(troubles);
    }
}
