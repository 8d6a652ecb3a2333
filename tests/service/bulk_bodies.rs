//! A fetch's messages are laid out by hand; to a client they are gRPC as any other, and all payloads are whole.

use kvtier::daemon::{Config, Daemon};
use kvtier::proto::{self, FetchOutcome, cache_client::CacheClient, fetch_reply::Reply};
use tonic::transport::{Channel, Endpoint};

use crate::support::{Gate, chain, config, spec};

/// Around what is copied in between, a message, and several of them.
const SIZES: [usize; 16] = [
    1, 100, 8_191, 8_192, 8_193, 5, 65_536, 1_048_575, 1_048_576, 1_048_577, 1, 3_500_000, 600_000, 600_000, 700_000, 2,
];
const LARGEST: u32 = 3_500_000;

fn payload(block: u32) -> Vec<u8> {
    let size = SIZES[block as usize];
    (0..size).map(|at| (at * 31 + at / 251 + block as usize * 7) as u8).collect()
}

/// Reads a fetch as a program would that knows the contract and nothing else.
async fn read(cache: &mut CacheClient<Channel>, session_id: u64, chain: proto::Chain) -> (Vec<Vec<u8>>, FetchOutcome) {
    let request = proto::FetchRequest {
        session_id,
        request_id: "plain".into(),
        chain: Some(chain),
        deadline_ms: 60_000,
        ..Default::default()
    };
    let mut request = tonic::Request::new(request);
    // Nothing is compressed for a client that would take it.
    request.metadata_mut().insert("grpc-accept-encoding", "gzip,identity".parse().unwrap());
    let response = cache.fetch(request).await.unwrap();
    assert_eq!(response.metadata().get("grpc-encoding"), None);
    let mut replies = response.into_inner();
    let (mut payloads, mut outcome) = (vec![Vec::new(); SIZES.len()], None);
    while let Some(reply) = replies.message().await.unwrap() {
        assert_eq!(outcome, None, "nothing after the end");
        match reply.reply.unwrap() {
            Reply::Data(data) => {
                for piece in data.pieces {
                    let payload = &mut payloads[piece.block as usize];
                    assert_eq!(
                        (piece.offset as usize, piece.length as usize),
                        (payload.len(), SIZES[piece.block as usize])
                    );
                    payload.extend_from_slice(&piece.data);
                }
            }
            Reply::End(end) => outcome = Some(end.outcome()),
        }
    }
    assert!(replies.trailers().await.unwrap().is_some(), "gRPC ends with trailers");
    (payloads, outcome.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_reads_payloads_of_all_sizes_over_both_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let listen = Some(([127, 0, 0, 1], 0).into());
    let daemon = Daemon::start(Config { listen, ..config(dir.path(), 128 << 20, 0) }).await.unwrap();
    let gate = Gate::connect(&dir.path().join("kvtier.sock")).await;
    let fingerprint = gate.register(proto::NamespaceSpec { max_payload_bytes: LARGEST, ..spec() }).await;
    let (session, _alive) = gate.session("plain").await;
    let chain = chain(&fingerprint, 1, SIZES.len() as u32);
    let stored = gate.put(session, chain.clone(), payload).await;
    assert_eq!(stored.stored_through as usize, SIZES.len());

    let tcp = Endpoint::try_from(format!("http://{}", daemon.tcp().unwrap())).unwrap().connect().await.unwrap();
    for mut cache in [gate.cache(), CacheClient::new(tcp)] {
        let (payloads, outcome) = read(&mut cache, session, chain.clone()).await;
        assert_eq!(outcome, FetchOutcome::Complete);
        for (block, got) in (0..).zip(payloads) {
            assert!(got == payload(block), "block {block} of {} bytes", SIZES[block as usize]);
        }
    }
    drop(gate);
    daemon.stop().await;
}
