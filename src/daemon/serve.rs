//! The services, and the servers of each kind of address.

use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};

use super::connection::Connection;
use super::door::Door;
use super::health::HealthService;
use super::run::StartError;
use crate::access::Gatekeeper;
use crate::cache::Cache;
use crate::proto::admin_server::AdminServer;
use crate::proto::cache_server::CacheServer;
use crate::proto::sessions_server::SessionsServer;
use crate::proto::usage_server::UsageServer;
use crate::rpc::{AccessLayer, AdminService, BulkBodies, CacheService, Gate, Peer, SessionsService, UsageService};
use crate::vocab::limits::{
    GRPC_MESSAGE_BYTES_MAX, HTTP2_FRAME_BYTES, HTTP2_GIVEN_UP_MAX, HTTP2_STREAM_WINDOW_BYTES, HTTP2_WINDOW_BYTES,
    KEEP_ALIVE_EVERY, KEEP_ALIVE_RETRIES,
};
use crate::watch::Health;

/// All services over one cache, with health and reflection.
pub(super) fn routes(
    cache: &Arc<Cache>,
    keeper: &Arc<Gatekeeper>,
    handover: Option<&Path>,
    closing: &CancellationToken,
    health: &Health,
) -> Result<Routes, StartError> {
    let at = handover.map(|path| path.display().to_string());
    let sessions = SessionsServer::new(SessionsService::new(Arc::clone(cache), at, closing.clone()))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let cache_service = CacheServer::new(CacheService::new(Arc::clone(cache), handover.is_some()))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let usage = UsageServer::new(UsageService::new(Arc::clone(cache), closing.clone()));
    let (hands_over, health_of) = (handover.is_some(), health.clone());
    let admin = AdminService::new(Arc::clone(cache), Arc::clone(keeper), hands_over, closing.clone(), health_of);
    let admin = AdminServer::new(admin).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let mut routes = always(health)?;
    routes.add_service(sessions).add_service(BulkBodies::new(cache_service)).add_service(usage).add_service(admin);
    Ok(routes.routes().prepare())
}

/// What is there from the first moment on: health and reflection.
pub(super) fn always(health: &Health) -> Result<RoutesBuilder, StartError> {
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let reflection = |error: tonic_reflection::server::Error| StartError::Reflection(error.to_string());
    let mut routes = Routes::builder();
    routes
        .add_service(HealthService::server(health))
        .add_service(describe().build_v1().map_err(reflection)?)
        .add_service(describe().build_v1alpha().map_err(reflection)?);
    Ok(routes)
}

fn server() -> Server {
    Server::builder()
        .max_frame_size(HTTP2_FRAME_BYTES)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        // Workers drop streams as they please for as long as they live; counted over a connection's life, a limit here
        // would cut the session of an engine that has run for a week.
        .http2_max_local_error_reset_streams(None)
        // A daemon that was paused finds the calls and their end at once. By default twenty of them end the connection.
        .http2_max_pending_accept_reset_streams(Some(HTTP2_GIVEN_UP_MAX))
        .tcp_nodelay(true)
}

/// How a server ends.
type Served = Result<(), tonic::transport::Error>;

/// Serves on TCP.
pub(super) fn tcp(
    listener: TcpListener,
    door: Door,
    gate: Gate,
    tls: Option<ServerTlsConfig>,
    closing: CancellationToken,
) -> Result<impl Future<Output = Served>, StartError> {
    let incoming = incoming(listener).map(|socket| {
        socket.map(|socket| {
            let address = socket.peer_addr().ok();
            Connection::new(socket, Peer { address, ..Peer::default() })
        })
    });
    let mut server = server();
    if let Some(tls) = tls {
        let refused = |error: tonic::transport::Error| StartError::Tls(super::tls::chain(&error));
        server = server.tls_config(tls).map_err(refused)?;
    }
    let server = server.layer(AccessLayer::new(gate));
    Ok(server.serve_with_incoming_shutdown(door, incoming, closing.cancelled_owned()))
}

/// Serves on a Unix socket.
pub(super) fn unix(
    listener: UnixListener,
    door: Door,
    gate: Gate,
    closing: CancellationToken,
) -> impl Future<Output = Served> {
    let incoming = UnixListenerStream::new(listener).map(|socket| {
        socket.map(|socket| {
            let uid = socket.peer_cred().ok().map(|credentials| credentials.uid());
            Connection::new(socket, Peer { uid, ..Peer::default() })
        })
    });
    let server = server().layer(AccessLayer::new(gate));
    server.serve_with_incoming_shutdown(door, incoming, closing.cancelled_owned())
}

/// Serves plain HTTP on TCP.
pub(super) fn http(listener: TcpListener, routes: Routes, closing: CancellationToken) -> impl Future<Output = Served> {
    let server = Server::builder().accept_http1(true);
    server.serve_with_incoming_shutdown(routes, incoming(listener), closing.cancelled_owned())
}

/// A TCP address, taken; with the port that it is.
pub(super) async fn listen(address: SocketAddr) -> Result<(SocketAddr, TcpListener), StartError> {
    let refused = |error: std::io::Error| StartError::Listen { address: address.to_string(), why: error.to_string() };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    Ok((listener.local_addr().map_err(refused)?, listener))
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    // A host that vanishes says nothing: without this its sessions, and their leases, would stay.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(KEEP_ALIVE_EVERY));
    incoming.with_keepalive_interval(Some(KEEP_ALIVE_EVERY)).with_keepalive_retries(Some(KEEP_ALIVE_RETRIES))
}

/// A socket of that name. One that a dead daemon has left is replaced; a living one's is not.
pub(super) async fn bind(path: &Path) -> Result<UnixListener, StartError> {
    let refused = |why: String| StartError::Listen { address: format!("unix:{}", path.display()), why };
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(refused("there is a file of that name which is no socket".into()));
        }
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(refused("another daemon listens there".into()));
        }
        std::fs::remove_file(path).map_err(|error| refused(error.to_string()))?;
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| refused(error.to_string()))?;
    }
    UnixListener::bind(path).map_err(|error| refused(error.to_string()))
}
