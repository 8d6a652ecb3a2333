//! Many clients at once, some of which die in the middle of a stream: no wrong byte, and nothing held afterwards.
//!
//! `KVTIER_STORM_SECONDS` makes it longer than the few seconds of a test run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvtier::proto::{self, put_request};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::support::{Gate, Server, chain, payload, spec};

const MIB: u64 = 1 << 20;
const CLIENTS: u64 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_dying_clients_leaves_no_wrong_byte_and_nothing_held() {
    let seconds = std::env::var("KVTIER_STORM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let dir = tempfile::tempdir().unwrap();
    // Room for a third of the blocks in RAM and two thirds on NVMe, so that everything is evicted again and again.
    let server = Arc::new(Server::start(dir.path(), 2 * MIB, 4 * MIB).await);
    let layout = server.register(spec()).await;
    let end = Instant::now() + Duration::from_secs(seconds);
    let (wrong, right) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (server, layout) = (Arc::clone(&server), layout.clone());
        let (wrong, right) = (Arc::clone(&wrong), Arc::clone(&right));
        clients.spawn(async move {
            let mut random = SmallRng::seed_from_u64(client);
            while Instant::now() < end {
                // A connection a life: who dies takes it along.
                let gate = Gate::connect(server.daemon.socket().unwrap()).await;
                one_life(&gate, &layout, &mut random, &wrong, &right).await;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "wrong bytes");
    assert!(right.load(Ordering::Relaxed) > 100, "the storm has read something");
    let mut status = server.status().await;
    for _ in 0..500 {
        let held =
            status.sessions + status.leases + status.puts + status.reservations + status.pins + status.background;
        if held == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        status = server.status().await;
    }
    let held = (status.sessions, status.leases, status.puts, status.reservations, status.pins, status.background);
    assert_eq!(held, (0, 0, 0, 0, 0, 0), "sessions, leases, puts, reservations, pins, background");
    let (ram, nvme) = (status.ram.clone().unwrap(), status.nvme.clone().unwrap());
    assert_eq!((ram.used_bytes, nvme.used_bytes), (ram.blocks * 4096, nvme.blocks * 4096), "slots without a block");
    eprintln!("{} blocks read right; {:?}", right.load(Ordering::Relaxed), status.counters);
    Arc::into_inner(server).unwrap().stop().await;
}

/// A session that puts, looks up, fetches, and dies where it likes.
async fn one_life(server: &Gate, layout: &bytes::Bytes, random: &mut SmallRng, wrong: &AtomicU64, right: &AtomicU64) {
    let (session, _stream) = server.session(&format!("engine-{}", random.random_range(0..16))).await;
    for _ in 0..random.random_range(1..6) {
        let (seed, blocks) = (random.random_range(0..60), random.random_range(1..40));
        let prompt = chain(layout, seed, blocks);
        match random.random_range(0..5) {
            0 => die_in_put(server, session, prompt, seed, random.random_range(0..blocks)).await,
            1 => die_in_fetch(server, session, prompt).await,
            2 => {
                server.try_put(session, prompt, |block| payload(seed, block)).await.ok();
            }
            _ => {
                let request = format!("r{}", random.random_range(0..4));
                let Ok(found) = server.try_lookup(session, &request, prompt.clone(), 30_000).await else { continue };
                let lease = found.lease.map_or(0, |lease| lease.lease_id);
                let Ok((payloads, _)) = server.try_fetch(session, &request, prompt, lease).await else { continue };
                for (block, bytes) in (0..).zip(payloads) {
                    let count = if bytes == payload(seed, block) { right } else { wrong };
                    count.fetch_add(1, Ordering::Relaxed);
                }
                if random.random() {
                    let release = proto::ReleaseRequest { session_id: session, lease_id: lease };
                    server.cache().release(release).await.ok();
                }
            }
        }
    }
}

/// Offers a chain, sends some of it and half a block, and goes away.
async fn die_in_put(server: &Gate, session_id: u64, prompt: proto::Chain, seed: u32, whole: u32) {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let offer = proto::PutOffer { session_id, request_id: "dies".into(), chain: Some(prompt) };
    sender.send(proto::PutRequest { request: Some(put_request::Request::Offer(offer)) }).await.ok();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let Ok(replies) = server.cache().put(stream).await else { return };
    let mut replies = replies.into_inner();
    let Ok(Some(proto::PutReply { reply: Some(proto::put_reply::Reply::Wanted(wanted)) })) = replies.message().await
    else {
        return;
    };
    let is_wanted =
        |block: &u32| wanted.bitmap.get(*block as usize / 8).is_some_and(|byte| byte >> (block % 8) & 1 == 1);
    for block in (0..=whole).filter(is_wanted) {
        let data = payload(seed, block);
        let cut = if block == whole { data.len() / 2 } else { data.len() };
        let length = u32::try_from(data.len()).unwrap();
        let piece = proto::BlockPiece { block, length, data: data[..cut].to_vec().into(), ..Default::default() };
        let data = proto::PutData { pieces: vec![piece] };
        sender.send(proto::PutRequest { request: Some(put_request::Request::Data(data)) }).await.ok();
    }
}

/// Reads one message of a fetch, and goes away.
async fn die_in_fetch(server: &Gate, session_id: u64, prompt: proto::Chain) {
    let request =
        proto::FetchRequest { session_id, request_id: "dies".into(), chain: Some(prompt), ..Default::default() };
    if let Ok(replies) = server.cache().fetch(request).await {
        replies.into_inner().message().await.ok();
    }
}
