//! A reader that stalls keeps bytes from leaving: it pins a few slots, within its connection's budget, and when its
//! deadline is long past it loses its connection, not the cache its slots.

use std::time::{Duration, Instant};

use kvtier::proto::{self, cache_client::CacheClient, fetch_reply::Reply};
use kvtier::vocab::limits::{CONNECTION_PINNED_BYTES, FETCH_PINNED_MESSAGES};
use tonic::transport::Endpoint;

use crate::support::{Server, chain, spec};

const MIB: usize = 1 << 20;
/// Blocks of 1 MiB that RAM has; nothing else is in it.
const RAM: usize = 96;
const READERS: usize = 30;

fn request(session_id: u64, chain: &proto::Chain) -> proto::FetchRequest {
    let (request_id, chain) = ("fetch".into(), Some(chain.clone()));
    proto::FetchRequest { session_id, request_id, chain, deadline_ms: 300, ..Default::default() }
}

/// The most that are pinned until nothing changes any more.
async fn most_pins(server: &Server) -> usize {
    let (mut most, mut same) = (0, 0);
    while same < 50 {
        let pins = server.daemon.cache().ram().pins();
        same = if pins > most { 0 } else { same + 1 };
        most = most.max(pins);
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    most
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_pin_a_few_slots_lose_their_connection_and_give_every_slot_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), (RAM * MIB) as u64, 0).await;
    let spec = proto::NamespaceSpec { max_payload_bytes: MIB as u32, ..spec() };
    let fingerprint = server.register(spec).await;
    let (session, _alive) = server.session("writer").await;
    let chain_of = |seed| chain(&fingerprint, seed, RAM as u32 - 16);
    let stored = server.put(session, chain_of(1), |block| vec![block as u8; MIB]).await;
    assert_eq!(stored.stored_through as usize, RAM - 16);
    server.quiesce().await;

    // A stream's window takes 64 KiB, so that the rest stays with the daemon.
    let stalling = Endpoint::try_from(format!("unix:{}", dir.path().join("kvtier.sock").display())).unwrap();
    let stalling = stalling.initial_stream_window_size(64 << 10).initial_connection_window_size(1 << 30);
    let mut stalling = CacheClient::new(stalling.connect().await.unwrap());
    let mut one = stalling.fetch(request(session, &chain_of(1))).await.unwrap().into_inner();
    let pins = most_pins(&server).await;
    assert!((1..=FETCH_PINNED_MESSAGES as usize).contains(&pins), "{pins} slots pinned by one reader");

    let many: Vec<_> = (0..READERS)
        .map(|_| {
            let (mut client, request) = (stalling.clone(), request(session, &chain_of(1)));
            tokio::spawn(async move { client.fetch(request).await.unwrap().into_inner() })
        })
        .collect();
    eprintln!("slots pinned by one stalled reader: {pins}");
    let pins = most_pins(&server).await;
    let budget = usize::try_from(CONNECTION_PINNED_BYTES).unwrap() / MIB;
    assert!(pins > FETCH_PINNED_MESSAGES as usize && pins <= budget, "{pins} slots pinned by {READERS} readers");

    // Those that had no room by their deadline are told so, and are no error.
    let mut late = 0;
    for reader in many {
        let mut replies = reader.await.unwrap();
        if let Ok(Ok(Some(reply))) = tokio::time::timeout(Duration::from_millis(50), replies.message()).await
            && let Some(Reply::End(end)) = reply.reply
        {
            assert_eq!((end.outcome(), end.blocks_ram), (proto::FetchOutcome::Deadline, 0));
            assert!(!end.receipt.is_empty(), "it can be settled as any other");
            late += 1;
        } else {
            // Stays open, and unread.
            drop(tokio::spawn(async move { (replies, tokio::time::sleep(Duration::from_secs(60)).await) }));
        }
    }
    assert!(late > 0, "no reader had to wait");

    // Another connection is served meanwhile.
    let (payloads, end) = server.fetch(session, "other", chain_of(1)).await;
    assert_eq!((payloads.len(), end.outcome()), (RAM - 16, proto::FetchOutcome::Complete));

    until("a pin stays", || server.daemon.cache().ram().pins() == 0).await;
    let cut = loop {
        match one.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a fetch that was not read to its end"),
            Err(status) => break status,
        }
    };
    eprintln!("and by {READERS} on its connection: {pins}; then {cut}");
    // Every slot can be had again.
    for seed in 2..4 {
        let stored = server.put(session, chain_of(seed), |block| vec![block as u8; MIB]).await;
        assert_eq!(stored.stored_through as usize, RAM - 16, "{stored:?}");
    }
    server.stop().await;
}
