//! A block that went bad on its drive is found before anybody asks for it: by the scrub in the background, or by a
//! verification on demand. It is a miss from then on, and nothing else changes.

use std::os::unix::fs::FileExt;
use std::path::Path;

use kvtier::daemon::{Config, Daemon};
use kvtier::proto;
use kvtier::tiers::Catalog;
use kvtier::vocab::ByteCount;

use crate::support::{Gate, Server, chain, config, payload, refused, spec};

const MIB: u64 = 1 << 20;
/// Blocks of four prompts of six.
const BLOCKS: u64 = 24;

async fn start(dir: &Path, scrub: u64) -> Server {
    let daemon = Daemon::start(Config { scrub: ByteCount(scrub), ..config(dir, MIB, 4 * MIB) }).await.unwrap();
    Server { daemon, gate: Gate::connect(&dir.join("kvtier.sock")).await }
}

/// A folder with four prompts on its drive, and none of them in RAM.
async fn stored(dir: &Path) -> bytes::Bytes {
    let server = start(dir, 0).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    for seed in 0..4 {
        server.put(session, chain(&layout, seed, 6), |block| payload(seed, block)).await;
    }
    drop(stream);
    server.stop().await;
    layout
}

/// Flips one bit of the payload where it lies on the drive.
fn flip(dir: &Path, payload: &[u8]) {
    let slots = dir.join("data/slots/0.kv");
    let bytes = std::fs::read(&slots).unwrap();
    let at = bytes.chunks_exact(4096).position(|slot| slot == payload).expect("the payload is on the drive") * 4096;
    let file = std::fs::File::options().write(true).open(&slots).unwrap();
    file.write_all_at(&[bytes[at + 77] ^ 1], at as u64 + 77).unwrap();
    file.sync_all().unwrap();
}

/// Blocks of each prompt that are readable, without reading them.
async fn readable(server: &Server, layout: &bytes::Bytes) -> Vec<u32> {
    let mut found = Vec::new();
    for seed in 0..4 {
        let reply = server.lookup(chain(layout, seed, 6)).await;
        found.push(reply.blocks_ram + reply.blocks_nvme);
    }
    found
}

async fn verify(server: &Server) -> Vec<proto::VerifyReply> {
    let mut stream = server.admin().verify(proto::VerifyRequest {}).await.unwrap().into_inner();
    let mut replies = Vec::new();
    while let Some(reply) = stream.message().await.unwrap() {
        replies.push(reply);
    }
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_finds_a_flipped_byte_that_nobody_has_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let layout = stored(dir.path()).await;
    flip(dir.path(), &payload(2, 3));
    let server = start(dir.path(), 1 << 30).await;
    for _ in 0..1_000 {
        if server.status().await.scrub.unwrap().passes > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let status = server.status().await;
    let scrub = status.scrub.unwrap();
    // Two blocks hang on the bad one, and are read or not depending on which was read first.
    assert_eq!((scrub.passes, scrub.corrupt, status.counters["lost"]), (1, 1, 1));
    assert!((BLOCKS - 2..=BLOCKS).contains(&scrub.blocks), "{scrub:?}");
    assert_eq!((scrub.bytes, scrub.bytes_per_second), (scrub.blocks * 4096, 1 << 30));
    assert_eq!(readable(&server, &layout).await, [6, 6, 3, 6]);
    let (ram, peeked) = (status.ram.unwrap().blocks, status.counters["peeked"]);
    assert_eq!((ram, peeked, status.orphans), (0, 0, 2), "reading to check displaces nothing and serves nobody");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_of_a_running_daemon_names_what_it_finds_and_finds_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let layout = stored(dir.path()).await;
    let server = start(dir.path(), 0).await;
    let clean = verify(&server).await.pop().unwrap();
    assert_eq!((clean.done, clean.blocks, clean.of_blocks, clean.corrupt), (true, BLOCKS, BLOCKS, 0));
    assert_eq!(clean.bytes, BLOCKS * 4096);
    flip(dir.path(), &payload(1, 5));
    let found = verify(&server).await.pop().unwrap();
    assert_eq!((found.done, found.blocks, found.corrupt), (true, BLOCKS, 1));
    let prompt = proto::InspectPrefixRequest { chain: Some(chain(&layout, 1, 6)) };
    let bad = &server.admin().inspect_prefix(prompt).await.unwrap().into_inner().blocks[5];
    assert_eq!((found.problems.len(), &found.problems[0].key, bad.on_nvme), (1, &bad.key, false));
    assert!(found.problems[0].what.contains("checksum"), "{}", found.problems[0].what);
    assert_eq!(readable(&server, &layout).await, [6, 5, 6, 6]);
    let again = verify(&server).await.pop().unwrap();
    assert_eq!((again.blocks, again.corrupt), (BLOCKS - 1, 0));
    let status = server.status().await;
    assert_eq!((status.counters["lost"], status.scrub.unwrap().corrupt, status.orphans), (1, 1, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_verification_at_a_time_and_one_whose_reader_leaves_ends() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), 0).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    // Enough that a verification has more to say than its channel holds.
    for seed in 0..4 {
        server.put(session, chain(&layout, seed, 100), |block| payload(seed, block)).await;
        server.quiesce().await;
    }
    let (found, mut reader) = tokio::sync::mpsc::channel(1);
    let cache = std::sync::Arc::clone(server.daemon.cache());
    let first = tokio::spawn(async move { cache.verify(&found).await });
    assert!(!reader.recv().await.unwrap().unwrap().done, "it is under way");
    let mut second = server.admin().verify(proto::VerifyRequest {}).await.unwrap().into_inner();
    refused(second.message().await, tonic::Code::ResourceExhausted, &["a verification is under way"]);
    drop(reader);
    first.await.unwrap().unwrap();
    let last = verify(&server).await.pop().unwrap();
    assert_eq!((last.done, last.blocks, last.corrupt), (true, 400, 0));
    server.quiesce().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_goes_on_where_it_was_before_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path()).await;
    let catalog = || Catalog::open(&dir.path().join("data/catalog")).unwrap().catalog;
    catalog().put_meta("scrub", &[0x80; 32]).unwrap();
    // One block at once, the next in an hour.
    let server = start(dir.path(), 1).await;
    let mut scrub = server.status().await.scrub.unwrap();
    for _ in 0..1_000 {
        if scrub.blocks > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        scrub = server.status().await.scrub.unwrap();
    }
    assert!(scrub.blocks == 1 && scrub.progress > 0.5, "{scrub:?}");
    server.stop().await;
    let position = catalog().meta("scrub").unwrap().unwrap();
    assert!(position.len() == 32 && position[..] > [0x80; 32][..], "{position:?}");
}
