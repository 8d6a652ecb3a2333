//! The connection to one daemon.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tonic::transport::Endpoint;
use tonic::{Response, Status};

use super::bulk::BulkChannel;
use super::credentials::Shown;
use super::{ClientError, Credentials, ServerAddress};
use crate::proto::admin_client::AdminClient;
use crate::proto::cache_client::CacheClient;
use crate::proto::sessions_client::SessionsClient;
use crate::proto::usage_client::UsageClient;
use crate::vocab::limits::{
    CALL_MAX, CONNECT_MAX, DEADLINE_GRACE, GRPC_MESSAGE_BYTES_MAX, HTTP2_FRAME_BYTES, HTTP2_STREAM_WINDOW_BYTES,
    HTTP2_WINDOW_BYTES, KEEP_ALIVE_EVERY, KEEP_ALIVE_MAX,
};

/// A connection to a daemon. Cheap to clone; clones share it. A worker that wants more speed than one connection's
/// single task gives opens several.
#[derive(Clone, Debug)]
pub struct Client {
    address: Arc<ServerAddress>,
    channel: Shown,
}

impl Client {
    /// Connects, through TCP or a Unix socket. A connection that breaks later is opened again by the next call.
    ///
    /// # Errors
    /// When nobody answers there within five seconds.
    pub async fn connect(address: &ServerAddress) -> Result<Self, ClientError> {
        Self::connect_as(address, &Credentials::default()).await
    }

    /// The same, showing who is calling.
    ///
    /// # Errors
    /// When nobody answers there, or TLS can't be agreed on: another authority, an expired certificate, a missing one.
    pub async fn connect_as(address: &ServerAddress, credentials: &Credentials) -> Result<Self, ClientError> {
        let unreachable = |error: tonic::transport::Error| ClientError::unreachable(address, &error);
        let endpoint = Endpoint::from_shared(address.endpoint())
            .and_then(|endpoint| endpoint.user_agent(concat!("kvtier/", env!("CARGO_PKG_VERSION"))))
            .map_err(unreachable)?
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_MAX)
            // Counted over a connection's life are answers to calls that were given up; past a thousand, the session would end.
            .http2_max_local_error_reset_streams(None)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_WINDOW_BYTES);
        let endpoint = match credentials.tls(address)? {
            Some(tls) => endpoint.tls_config(tls).map_err(unreachable)?,
            None => endpoint,
        };
        let channel = Shown::new(endpoint.connect().await.map_err(unreachable)?, credentials.header(address)?);
        Ok(Self { address: Arc::new(address.clone()), channel })
    }

    /// Where the daemon listens.
    #[must_use]
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    pub(super) fn channel(&self) -> Shown {
        self.channel.clone()
    }

    pub(super) fn sessions_service(&self) -> SessionsClient<Shown> {
        SessionsClient::new(self.channel.clone()).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    pub(super) fn cache_service(&self) -> CacheClient<BulkChannel> {
        CacheClient::new(BulkChannel(self.channel.clone()))
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    pub(super) fn usage_service(&self) -> UsageClient<Shown> {
        UsageClient::new(self.channel.clone()).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    pub(super) fn admin_service(&self) -> AdminClient<Shown> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    /// Waits for an answer, but not for ever.
    pub(super) async fn answer<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        self.within(call, CALL_MAX, async { answer.await.map(Response::into_inner) }).await
    }

    /// Waits for what the daemon says next, but not for longer than `after`.
    pub(super) async fn within<T>(
        &self,
        call: &'static str,
        after: Duration,
        next: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(after, next).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(ClientError::TimedOut { call, after }),
        }
    }

    /// Reads a stream to its very end after its last message. Dropped before its trailers have come, it would be reset,
    /// and after a thousand resets HTTP/2 takes the connection for an attack and ends it, the session with it.
    pub(super) async fn hang_up(&self, stream: &mut (impl Stream + Unpin)) {
        tokio::time::timeout(DEADLINE_GRACE, stream.next()).await.ok();
    }

    pub(super) fn error(&self, status: &Status) -> ClientError {
        ClientError::of_status(&self.address, status)
    }
}
