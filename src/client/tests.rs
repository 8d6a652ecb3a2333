//! The client against a daemon that breaks the protocol, hangs, or ends in the middle: what the real one never does.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::proto::{self, cache_server, fetch_reply, put_reply, put_request, sessions_server};
use crate::vocab::crc::payload_crc;
use crate::vocab::{BlockKey, Fingerprint, InstanceId, RequestId, TenantName};

/// What the daemon does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    EndCountsMore,
    NoEnd,
    FailsAfterABlock,
    HangsAfterABlock,
    HangsWithinABlock,
    ResultBeforeTheBytes,
    RefusesTheBytes,
    NoResult,
    SessionEnds,
}

#[derive(Clone)]
struct Fake(Fault);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn key(block: u32) -> BlockKey {
    BlockKey::from_bytes([u8::try_from(block).unwrap(); 32])
}

fn payload(block: u32) -> Bytes {
    Bytes::from(vec![u8::try_from(block).unwrap(); 1_000])
}

fn sent(block: u32) -> Result<proto::FetchReply, Status> {
    let data = payload(block);
    let (crc, length) = (payload_crc(&key(block), &data), 1_000);
    let halves = [data.slice(..600), data.slice(600..)];
    let pieces = halves.into_iter().zip([0, 600]).map(|(data, offset)| proto::BlockPiece {
        block,
        shard: 0,
        offset,
        length,
        crc,
        data,
    });
    Ok(proto::FetchReply { reply: Some(fetch_reply::Reply::Data(proto::FetchData { pieces: pieces.collect() })) })
}

/// Its first half.
fn begun(block: u32) -> Result<proto::FetchReply, Status> {
    let mut reply = sent(block)?;
    if let Some(fetch_reply::Reply::Data(data)) = &mut reply.reply {
        data.pieces.truncate(1);
    }
    Ok(reply)
}

fn end(blocks_ram: u32) -> Result<proto::FetchReply, Status> {
    let end = proto::FetchEnd { blocks_ram, tokens: u64::from(blocks_ram) * 16, ..proto::FetchEnd::default() };
    Ok(proto::FetchReply { reply: Some(fetch_reply::Reply::End(end)) })
}

fn not_built<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not built"))
}

#[tonic::async_trait]
impl sessions_server::Sessions for Fake {
    type OpenSessionStream = Answers<proto::SessionEvent>;
    async fn open_session(
        &self,
        _: Request<proto::OpenSessionRequest>,
    ) -> Result<Response<Self::OpenSessionStream>, Status> {
        let opened = proto::SessionOpened { session_id: 7, protocol_revision: 1, ..proto::SessionOpened::default() };
        let opened = proto::SessionEvent { event: Some(proto::session_event::Event::Opened(opened)) };
        let first = tokio_stream::once(Ok(opened));
        Ok(Response::new(match self.0 {
            Fault::SessionEnds => Box::pin(first.chain(tokio_stream::once(Err(Status::aborted("thrown out"))))),
            _ => Box::pin(first.chain(tokio_stream::pending())),
        }))
    }
    async fn register_namespace(
        &self,
        _: Request<proto::RegisterNamespaceRequest>,
    ) -> Result<Response<proto::RegisterNamespaceReply>, Status> {
        not_built()
    }
}

#[tonic::async_trait]
impl cache_server::Cache for Fake {
    type FetchStream = Answers<proto::FetchReply>;
    type PutStream = Answers<proto::PutReply>;
    type LoadStream = Answers<proto::LoadReply>;
    type LoadIntoStream = Answers<proto::LoadIntoReply>;

    async fn fetch(&self, _: Request<proto::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let replies = match self.0 {
            Fault::EndCountsMore => vec![sent(0), end(2)],
            Fault::NoEnd => vec![sent(0)],
            Fault::FailsAfterABlock => vec![sent(0), Err(Status::internal("a disk is on fire"))],
            Fault::HangsAfterABlock => vec![sent(0)],
            Fault::HangsWithinABlock => vec![begun(0)],
            _ => vec![sent(0), sent(1), sent(2), end(3)],
        };
        let replies = tokio_stream::iter(replies);
        Ok(Response::new(match self.0 {
            Fault::HangsAfterABlock | Fault::HangsWithinABlock => Box::pin(replies.chain(tokio_stream::pending())),
            _ => Box::pin(replies),
        }))
    }

    async fn put(&self, request: Request<Streaming<proto::PutRequest>>) -> Result<Response<Self::PutStream>, Status> {
        let mut requests = request.into_inner();
        let Some(put_request::Request::Offer(_)) = requests.message().await?.and_then(|first| first.request) else {
            return Err(Status::invalid_argument("no offer"));
        };
        let reply = |reply| Ok(proto::PutReply { reply: Some(reply) });
        let wanted = proto::PutWanted { bitmap: Bytes::from_static(&[0xff; 8]), blocks: 64, complete: true };
        let wanted = reply(put_reply::Reply::Wanted(wanted));
        let result = move |accepted_blocks| {
            let result = proto::PutResult { accepted_blocks, ..proto::PutResult::default() };
            reply(put_reply::Reply::Result(result))
        };
        let fault = self.0;
        let rest = async move {
            let mut blocks = 0;
            match fault {
                Fault::ResultBeforeTheBytes => return result(0),
                Fault::RefusesTheBytes => return Err(Status::invalid_argument("pieces[] are not nice")),
                _ => {}
            }
            while let Ok(Some(message)) = requests.message().await {
                if let Some(put_request::Request::Data(data)) = message.request {
                    let whole = |piece: &&proto::BlockPiece| piece.offset as usize + piece.data.len() == 1 << 20;
                    blocks += u32::try_from(data.pieces.iter().filter(whole).count()).unwrap();
                }
            }
            if fault == Fault::NoResult { Err(Status::ok("")) } else { result(blocks) }
        };
        let (sender, rest_of_replies) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move { sender.send(rest.await).await });
        let rest_of_replies = tokio_stream::wrappers::ReceiverStream::new(rest_of_replies);
        Ok(Response::new(Box::pin(tokio_stream::once(wanted).chain(rest_of_replies))))
    }

    async fn lookup(&self, _: Request<proto::LookupRequest>) -> Result<Response<proto::LookupReply>, Status> {
        Ok(Response::new(proto::LookupReply { last_key: Bytes::from_static(b"short"), ..Default::default() }))
    }
    async fn prefetch(&self, _: Request<proto::PrefetchRequest>) -> Result<Response<proto::PrefetchReply>, Status> {
        not_built()
    }
    async fn accept(&self, _: Request<proto::AcceptRequest>) -> Result<Response<proto::AcceptReply>, Status> {
        not_built()
    }
    async fn finish_request(
        &self,
        _: Request<proto::FinishRequestRequest>,
    ) -> Result<Response<proto::FinishRequestReply>, Status> {
        not_built()
    }
    async fn load(&self, _: Request<proto::LoadRequest>) -> Result<Response<Self::LoadStream>, Status> {
        not_built()
    }
    async fn reserve(&self, _: Request<proto::ReserveRequest>) -> Result<Response<proto::ReserveReply>, Status> {
        not_built()
    }
    async fn commit(&self, _: Request<proto::CommitRequest>) -> Result<Response<proto::CommitReply>, Status> {
        not_built()
    }
    async fn release(&self, _: Request<proto::ReleaseRequest>) -> Result<Response<proto::ReleaseReply>, Status> {
        Err(Status::permission_denied("lease 9 is another instance's"))
    }
    async fn renew(&self, _: Request<proto::RenewRequest>) -> Result<Response<proto::RenewReply>, Status> {
        not_built()
    }
    async fn attach_region(
        &self,
        _: Request<proto::AttachRegionRequest>,
    ) -> Result<Response<proto::AttachRegionReply>, Status> {
        not_built()
    }
    async fn detach_region(
        &self,
        _: Request<proto::DetachRegionRequest>,
    ) -> Result<Response<proto::DetachRegionReply>, Status> {
        not_built()
    }
    async fn load_into(&self, _: Request<proto::LoadIntoRequest>) -> Result<Response<Self::LoadIntoStream>, Status> {
        not_built()
    }
    async fn put_from(&self, _: Request<proto::PutFromRequest>) -> Result<Response<proto::PutResult>, Status> {
        not_built()
    }
}

fn server(fault: Fault) -> tonic::transport::server::Router {
    tonic::transport::Server::builder()
        .add_service(sessions_server::SessionsServer::new(Fake(fault)))
        .add_service(cache_server::CacheServer::new(Fake(fault)).max_decoding_message_size(16 << 20))
}

async fn connected(fault: Fault) -> (Client, Session) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = ServerAddress::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    tokio::spawn(server(fault).serve_with_incoming(TcpListenerStream::new(listener)));
    let client = Client::connect(&address).await.unwrap();
    let session = client.open_session(&InstanceId::parse("test").unwrap(), "test").await.unwrap();
    (client, session)
}

fn chain() -> Chain {
    Chain::of_block_keys(Fingerprint([0; 32]), &TenantName::parse("acme").unwrap(), &[key(0), key(1), key(2)])
}

fn request() -> RequestId {
    RequestId::parse("r").unwrap()
}

async fn fetched(fault: Fault, options: FetchOptions) -> (u32, Result<FetchEnd, ClientError>) {
    let (client, session) = connected(fault).await;
    let mut fetch = client.fetch(&session, &request(), &chain(), options).await.unwrap();
    let mut blocks = 0;
    loop {
        match fetch.next_block().await {
            Ok(Some(block)) => assert_eq!((block.index, &block.bytes), (blocks, &payload(blocks))),
            Ok(None) => return (blocks, fetch.end().await),
            Err(error) => return (blocks, Err(error)),
        }
        blocks += 1;
    }
}

#[tokio::test]
async fn blocks_come_whole_and_in_order_and_the_end_says_how_many() {
    let (blocks, end) = fetched(Fault::None, FetchOptions::default()).await;
    let end = end.unwrap();
    assert_eq!((blocks, end.blocks, end.tokens, end.corrupt, end.outcome), (3, 3, 48, 0, FetchOutcome::Complete));
}

#[tokio::test]
async fn blocks_are_copied_to_the_callers_memory_and_the_first_wrong_one_ends_them() {
    for (keys, good) in [([key(0), key(1), key(2)], 3), ([key(0), key(9), key(2)], 1)] {
        let (client, session) = connected(Fault::None).await;
        let options = FetchOptions { verify_with: Some(keys.to_vec().into()), ..FetchOptions::default() };
        let mut fetch = client.fetch(&session, &request(), &chain(), options).await.unwrap();
        let mut memory = vec![0xee; 1_001];
        let mut copied = 0;
        while let Some(CopiedBlock { index, length, .. }) = fetch.next_block_into(&mut memory).await.unwrap() {
            assert_eq!((index, length, &memory[..1_000], memory[1_000]), (copied, 1_000, &payload(copied)[..], 0xee));
            copied += 1;
        }
        let end = fetch.end().await.unwrap();
        assert_eq!((copied, end.blocks, end.corrupt), (good, good, u32::from(good < 3)));
    }
}

#[tokio::test]
async fn a_block_that_was_given_up_in_its_middle_is_never_handed_out() {
    let (client, session) = connected(Fault::HangsWithinABlock).await;
    let mut fetch = client.fetch(&session, &request(), &chain(), FetchOptions::default()).await.unwrap();
    let mut first = vec![0; 1_000];
    while !fetch.is_within_a_block() {
        let asked = fetch.next_block_into(&mut first);
        assert!(tokio::time::timeout(Duration::from_millis(20), asked).await.is_err(), "it never comes whole");
    }
    // Its rest would make a block of which half is in other memory.
    let words = "a block was given up in its middle";
    assert!(fetch.next_block_into(&mut vec![0; 1_000]).await.unwrap_err().to_string().contains(words));
    assert!(fetch.next_block().await.unwrap_err().to_string().contains(words));
}

#[tokio::test]
async fn a_block_with_wrong_bytes_ends_the_prefix_as_a_miss() {
    let keys = vec![key(0), key(9), key(2)];
    let options = FetchOptions { verify_with: Some(keys.into()), ..FetchOptions::default() };
    let (blocks, end) = fetched(Fault::None, options).await;
    let end = end.unwrap();
    assert_eq!((blocks, end.blocks, end.tokens, end.corrupt, end.outcome), (1, 1, 16, 1, FetchOutcome::Miss));
}

#[tokio::test]
async fn an_end_that_does_not_fit_what_came_is_an_error() {
    for (fault, words) in [
        (Fault::EndCountsMore, "the end of a fetch counts 2 blocks, 1 came"),
        (Fault::NoEnd, "a fetch without an end"),
        (Fault::FailsAfterABlock, "a disk is on fire (Internal)"),
    ] {
        let (blocks, end) = fetched(fault, FetchOptions::default()).await;
        let error = end.unwrap_err().to_string();
        assert!(blocks == 1 && error.contains(words), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_daemon_that_neither_sends_nor_ends_is_given_up_after_the_deadline() {
    let options = FetchOptions { deadline: Some(Duration::from_millis(1)), ..FetchOptions::default() };
    let (blocks, end) = fetched(Fault::HangsAfterABlock, options).await;
    assert!(blocks == 1 && matches!(end, Err(ClientError::TimedOut { call: "Fetch", .. })), "{end:?}");
}

async fn put(fault: Fault) -> Result<PutResult, ClientError> {
    let (client, session) = connected(fault).await;
    client.put(&session, &request(), &chain(), |_| Bytes::from(vec![0; 1 << 20])).await
}

#[tokio::test]
async fn every_wanted_block_is_sent() {
    let result = put(Fault::None).await.unwrap();
    assert_eq!((result.wanted_blocks, result.accepted_blocks, result.sent_bytes), (64, 64, 64 << 20));
}

#[tokio::test]
async fn a_daemon_that_ends_a_put_early_is_not_sent_the_rest() {
    let result = put(Fault::ResultBeforeTheBytes).await.unwrap();
    assert!(result.accepted_blocks == 0 && result.sent_bytes < 64 << 20, "{result:?}");
    let refused = put(Fault::RefusesTheBytes).await.unwrap_err();
    assert_eq!(refused.to_string(), "pieces[] are not nice (InvalidArgument)");
    assert_eq!(put(Fault::NoResult).await.unwrap_err().to_string(), "protocol: a put without a result");
}

#[tokio::test]
async fn a_session_knows_when_the_daemon_has_ended_it() {
    let (_client, session) = connected(Fault::SessionEnds).await;
    assert_eq!(session.closed().await, "thrown out");
    assert!(!session.is_open());
    let (_client, session) = connected(Fault::None).await;
    assert!(session.is_open() && session.id() == 7);
}

#[tokio::test]
async fn a_refusal_and_an_answer_of_another_version_are_told_apart() {
    let (client, session) = connected(Fault::None).await;
    let refused = client.release(&session, crate::vocab::LeaseId(9)).await.unwrap_err();
    assert_eq!(refused.code(), Some(tonic::Code::PermissionDenied));
    let strange = client.lookup(&chain(), &LookupOptions::default()).await.unwrap_err();
    assert_eq!(strange.to_string(), "protocol: a block's key of 5 bytes");
}

#[tokio::test]
async fn a_unix_socket_serves_as_tcp_does_and_an_absent_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let address = ServerAddress::parse(&format!("unix:{}", path.display())).unwrap();
    let absent = Client::connect(&address).await.unwrap_err().to_string();
    assert!(absent.starts_with(&address.to_string()) && absent.contains("No such file"), "{absent}");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(server(Fault::None).serve_with_incoming(UnixListenerStream::new(listener)));
    let client = Client::connect(&address).await.unwrap();
    let session = client.open_session(&InstanceId::parse("test").unwrap(), "test").await.unwrap();
    assert_eq!(session.id(), 7);
}
