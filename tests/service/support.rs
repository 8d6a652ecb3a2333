//! An embedded daemon for tests, and the plain generated clients to talk to it: what any gRPC client sees.

use std::path::Path;

use kvtier::daemon::{Config, Daemon, DriveSpec};
use kvtier::proto::admin_client::AdminClient;
use kvtier::proto::cache_client::CacheClient;
use kvtier::proto::sessions_client::SessionsClient;
use kvtier::proto::usage_client::UsageClient;
use kvtier::proto::{self, put_request, session_event};
use kvtier::vocab::ByteCount;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

pub(crate) const BLOCK_TOKENS: u32 = 16;
pub(crate) const PAYLOAD: u32 = 4096;

/// A daemon on a Unix socket, and a connection to it.
pub(crate) struct Server {
    pub(crate) daemon: Daemon,
    pub(crate) gate: Gate,
}

impl std::ops::Deref for Server {
    type Target = Gate;
    fn deref(&self) -> &Gate {
        &self.gate
    }
}

/// A connection.
pub(crate) struct Gate {
    channel: Channel,
}

pub(crate) fn config(dir: &Path, ram: u64, nvme: u64) -> Config {
    Config {
        socket: Some(dir.join("kvtier.sock")),
        // What it reads is counted, and not let go meanwhile.
        scrub: ByteCount(0),
        nvme: (nvme > 0).then(|| DriveSpec::here(ByteCount(nvme))).into_iter().collect(),
        ..Config::new(dir.join("data"), ByteCount(ram))
    }
}

impl Server {
    pub(crate) async fn start(dir: &Path, ram: u64, nvme: u64) -> Self {
        let daemon = Daemon::start(config(dir, ram, nvme)).await.unwrap();
        let gate = Gate::connect(&dir.join("kvtier.sock")).await;
        Self { daemon, gate }
    }

    pub(crate) async fn stop(self) {
        drop(self.gate);
        self.daemon.stop().await;
    }
}

impl Gate {
    pub(crate) async fn connect(socket: &Path) -> Self {
        let endpoint = Endpoint::try_from(format!("unix:{}", socket.display())).unwrap();
        Self { channel: endpoint.connect().await.unwrap() }
    }

    pub(crate) fn sessions(&self) -> SessionsClient<Channel> {
        SessionsClient::new(self.channel.clone())
    }

    pub(crate) fn cache(&self) -> CacheClient<Channel> {
        CacheClient::new(self.channel.clone())
    }

    pub(crate) fn usage(&self) -> UsageClient<Channel> {
        UsageClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    pub(crate) async fn status(&self) -> proto::Status {
        self.admin().get_status(proto::GetStatusRequest {}).await.unwrap().into_inner()
    }

    pub(crate) async fn quiesce(&self) {
        let quiet = self.admin().quiesce(proto::QuiesceRequest::default()).await.unwrap().into_inner().quiet;
        assert!(quiet, "background work ends");
    }

    /// Opens a session; dropping the stream ends it.
    pub(crate) async fn session(&self, instance: &str) -> (u64, Streaming<proto::SessionEvent>) {
        let request = proto::OpenSessionRequest {
            instance: instance.into(),
            process: "test".into(),
            protocol_revision: 1,
            features: vec![],
        };
        let mut stream = self.sessions().open_session(request).await.unwrap().into_inner();
        let event = stream.message().await.unwrap().unwrap().event.unwrap();
        let session_event::Event::Opened(opened) = event else { panic!("the first event is `opened`") };
        (opened.session_id, stream)
    }

    pub(crate) async fn register(&self, spec: proto::NamespaceSpec) -> bytes::Bytes {
        self.try_register(0, spec, vec![]).await.unwrap().fingerprint
    }

    pub(crate) async fn try_register(
        &self,
        session_id: u64,
        spec: proto::NamespaceSpec,
        expected: Vec<u8>,
    ) -> Result<proto::RegisterNamespaceReply, Status> {
        let request = proto::RegisterNamespaceRequest {
            session_id,
            name: "test".into(),
            spec: Some(spec),
            expected_fingerprint: expected.into(),
        };
        self.sessions().register_namespace(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn lookup(&self, chain: proto::Chain) -> proto::LookupReply {
        self.try_lookup(0, "", chain, 0).await.unwrap()
    }

    pub(crate) async fn try_lookup(
        &self,
        session_id: u64,
        request_id: &str,
        chain: proto::Chain,
        lease_ttl_ms: u64,
    ) -> Result<proto::LookupReply, Status> {
        let request = proto::LookupRequest {
            session_id,
            request_id: request_id.into(),
            chain: Some(chain),
            lease_ttl_ms,
            ..Default::default()
        };
        self.cache().lookup(request).await.map(tonic::Response::into_inner)
    }

    /// Stores a chain; every wanted block gets `payload(block)`.
    pub(crate) async fn put(
        &self,
        session: u64,
        chain: proto::Chain,
        payload: impl Fn(u32) -> Vec<u8>,
    ) -> proto::PutResult {
        self.try_put(session, chain, payload).await.unwrap()
    }

    pub(crate) async fn try_put(
        &self,
        session_id: u64,
        chain: proto::Chain,
        payload: impl Fn(u32) -> Vec<u8>,
    ) -> Result<proto::PutResult, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let offer = proto::PutOffer { session_id, request_id: "put".into(), chain: Some(chain) };
        sender.send(proto::PutRequest { request: Some(put_request::Request::Offer(offer)) }).await.unwrap();
        let mut replies = self.cache().put(tokio_stream::wrappers::ReceiverStream::new(receiver)).await?.into_inner();
        let Some(proto::put_reply::Reply::Wanted(wanted)) = replies.message().await?.and_then(|reply| reply.reply)
        else {
            panic!("first what is wanted")
        };
        let blocks = u32::try_from(wanted.bitmap.len() * 8).unwrap();
        for block in (0..blocks).filter(|block| wanted.bitmap[*block as usize / 8] >> (block % 8) & 1 == 1) {
            let data = payload(block);
            let length = u32::try_from(data.len()).unwrap();
            let piece = proto::BlockPiece { block, length, data: data.into(), ..Default::default() };
            let data = proto::PutData { pieces: vec![piece] };
            let request = proto::PutRequest { request: Some(put_request::Request::Data(data)) };
            if sender.send(request).await.is_err() {
                break;
            }
        }
        drop(sender);
        match replies.message().await?.and_then(|reply| reply.reply) {
            Some(proto::put_reply::Reply::Result(result)) => Ok(result),
            other => panic!("last the result, not {other:?}"),
        }
    }

    /// Fetches a chain: payloads in order, and the end.
    pub(crate) async fn fetch(
        &self,
        session: u64,
        request: &str,
        chain: proto::Chain,
    ) -> (Vec<Vec<u8>>, proto::FetchEnd) {
        self.try_fetch(session, request, chain, 0).await.unwrap()
    }

    pub(crate) async fn try_fetch(
        &self,
        session_id: u64,
        request_id: &str,
        chain: proto::Chain,
        lease_id: u64,
    ) -> Result<(Vec<Vec<u8>>, proto::FetchEnd), Status> {
        let request = proto::FetchRequest {
            session_id,
            request_id: request_id.into(),
            chain: Some(chain),
            lease_id,
            ..Default::default()
        };
        let mut replies = self.cache().fetch(request).await?.into_inner();
        let mut payloads: Vec<Vec<u8>> = Vec::new();
        while let Some(reply) = replies.message().await? {
            match reply.reply.unwrap() {
                proto::fetch_reply::Reply::Data(data) => {
                    for piece in data.pieces {
                        if piece.offset == 0 {
                            payloads.push(Vec::new());
                        }
                        assert_eq!(piece.block as usize + 1, payloads.len(), "prefix order");
                        payloads.last_mut().unwrap().extend_from_slice(&piece.data);
                    }
                }
                proto::fetch_reply::Reply::End(end) => return Ok((payloads, end)),
            }
        }
        panic!("a fetch ends with its end")
    }
}

/// A small layout of token blocks.
pub(crate) fn spec() -> proto::NamespaceSpec {
    proto::NamespaceSpec {
        weights_digest: vec![7; 32].into(),
        dtype: "u8".into(),
        layout: "test".into(),
        block_tokens: BLOCK_TOKENS,
        max_payload_bytes: PAYLOAD,
        ..Default::default()
    }
}

/// A chain of `blocks` token blocks, whose tokens follow from `seed`.
pub(crate) fn chain(fingerprint: &bytes::Bytes, seed: u32, blocks: u32) -> proto::Chain {
    let tokens = (0..blocks * BLOCK_TOKENS).map(|at| seed.wrapping_mul(0x9e37_79b9).wrapping_add(at)).collect();
    proto::Chain {
        fingerprint: fingerprint.clone(),
        tenant: "acme".into(),
        blocks: Some(proto::chain::Blocks::Tokens(proto::Tokens { tokens, extras: vec![] })),
        ..Default::default()
    }
}

/// Bytes that tell one block from every other.
pub(crate) fn payload(seed: u32, block: u32) -> Vec<u8> {
    let word = u64::from(seed) << 32 | u64::from(block);
    (0..PAYLOAD / 8).flat_map(|at| (word ^ u64::from(at) << 17).to_le_bytes()).collect()
}

/// Asserts that a call was refused with this code, and that its sentence has all these parts.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, parts: &[&str]) {
    let status = result.expect_err("this must be refused");
    assert_eq!(status.code(), code, "{}", status.message());
    for part in parts {
        assert!(status.message().contains(part), "{part:?} is not in: {}", status.message());
    }
}
