//! One block's whole life through the gate: offered, stored, found, delivered, settled, and there after a restart.

use kvtier::proto;
use kvtier::vocab::limits::OFFERED_AT_ONCE;
use tonic::Code;

use crate::support::{self, PAYLOAD, Server, chain, payload, spec};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_is_found_fetched_and_settled_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let prompt = chain(&layout, 1, 5);
    assert_eq!(server.lookup(prompt.clone()).await.blocks_missed, 5);

    let stored = server.put(session, prompt.clone(), |block| payload(1, block)).await;
    assert_eq!((stored.stored_through, stored.accepted_blocks, stored.dropped_blocks), (5, 5, 0));
    let again = server.put(session, prompt.clone(), |_| panic!("duplicates cost nothing")).await;
    assert_eq!((again.stored_through, again.accepted_blocks), (5, 0));

    let longer = chain(&layout, 1, 8);
    let found = server.try_lookup(session, "r1", longer, 10_000).await.unwrap();
    assert_eq!((found.hit_tokens, found.miss_tokens), (80, 48));
    assert_eq!((found.blocks_ram, found.blocks_nvme, found.blocks_missed), (5, 0, 3));
    let lease = found.lease.unwrap();
    assert_eq!(lease.blocks, 5);

    let (payloads, end) = server.try_fetch(session, "r1", prompt.clone(), lease.lease_id).await.unwrap();
    assert!(payloads == (0..5).map(|block| payload(1, block)).collect::<Vec<_>>(), "{end:?}");
    assert_eq!((end.outcome(), end.tokens), (proto::FetchOutcome::Complete, 80));
    let release = proto::ReleaseRequest { session_id: session, lease_id: lease.lease_id };
    assert!(server.cache().release(release).await.unwrap().into_inner().released);
    assert!(!server.cache().release(release).await.unwrap().into_inner().released);

    let settle = proto::SettleRequest {
        tenant: "acme".into(),
        billing_id: "bill-1".into(),
        instance: "engine".into(),
        request_id: "r1".into(),
        fingerprint: layout.clone(),
        prompt_tokens: 128,
        cached_tokens: 80,
        ..Default::default()
    };
    let greedy = proto::SettleRequest { billing_id: "bill-2".into(), cached_tokens: 81, ..settle.clone() };
    support::refused(server.usage().settle(greedy).await, Code::FailedPrecondition, &["81", "80"]);
    let first = server.usage().settle(settle.clone()).await.unwrap().into_inner();
    let second = server.usage().settle(settle.clone()).await.unwrap().into_inner();
    assert_eq!((first.repeated, second.repeated, first.record.clone()), (false, true, second.record));
    let record = first.record.unwrap();
    assert_eq!((record.hit_tokens, record.miss_tokens, record.hit_tokens_ram), (80, 48, 80));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_warm_and_receipts_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 1, 6), |block| payload(1, block)).await;
    let (_, end) = server.fetch(session, "r1", chain(&layout, 1, 6)).await;
    drop(stream);
    server.stop().await;

    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine-2").await;
    let found = server.lookup(chain(&layout, 1, 6)).await;
    assert_eq!((found.blocks_ram, found.blocks_nvme, found.blocks_missed), (0, 6, 0));
    let (payloads, again) = server.fetch(session, "r2", chain(&layout, 1, 6)).await;
    assert!(payloads == (0..6).map(|block| payload(1, block)).collect::<Vec<_>>(), "{again:?}");
    assert_eq!((again.blocks_ram, again.blocks_nvme), (0, 6));
    assert_eq!(server.lookup(chain(&layout, 1, 6)).await.blocks_ram, 6, "promoted on the way");

    let settle = proto::SettleRequest {
        tenant: "acme".into(),
        billing_id: "b".into(),
        instance: "engine".into(),
        request_id: "r1".into(),
        fingerprint: layout.clone(),
        prompt_tokens: 96,
        cached_tokens: 96,
        ..Default::default()
    };
    support::refused(server.usage().settle(settle.clone()).await, Code::FailedPrecondition, &["96"]);
    let proven = proto::SettleRequest { receipts: vec![end.receipt.clone(), end.receipt], ..settle };
    let record = server.usage().settle(proven).await.unwrap().into_inner().record.unwrap();
    assert_eq!(record.hit_tokens, 96);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_one_miss_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    for seed in 0..4 {
        server.put(session, chain(&layout, seed, 6), |block| payload(seed, block)).await;
    }
    drop(stream);
    server.stop().await;
    flip(&dir.path().join("data/slots/0.kv"), &payload(2, 3));

    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    for seed in 0..4 {
        let (payloads, end) = server.fetch(session, &format!("r{seed}"), chain(&layout, seed, 6)).await;
        let good = if seed == 2 { 3 } else { 6 };
        assert!(
            payloads == (0..good).map(|block| payload(seed, block)).collect::<Vec<_>>(),
            "{} payloads",
            payloads.len()
        );
        assert_eq!(end.outcome() == proto::FetchOutcome::Miss, seed == 2);
    }
    let found = server.lookup(chain(&layout, 2, 6)).await;
    assert_eq!((found.blocks_ram + found.blocks_nvme, found.blocks_missed), (3, 3));
    let status = server.status().await;
    assert_eq!((status.counters["lost"], status.counters["device_corrupt"], status.orphans), (1, 1, 2));
    // The writer sends the lost block alone, and its orphans are healed.
    let healed = server.put(session, chain(&layout, 2, 6), |block| payload(2, block)).await;
    assert_eq!((healed.accepted_blocks, healed.stored_through), (1, 6));
    assert_eq!(server.status().await.orphans, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payload_sizes_live_side_by_side_and_blocks_larger_than_a_message_come_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 64 * MIB, 128 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let small = server.register(spec()).await;
    let large = server.register(proto::NamespaceSpec { max_payload_bytes: 3 << 20, ..spec() }).await;
    assert_ne!(small, large, "another layout has another identity");
    let wide = |block: u32| -> Vec<u8> { payload(9, block).repeat(3 << 20 >> 12)[..(3 << 20) - 5].to_vec() };
    server.put(session, chain(&large, 9, 3), wide).await;
    server.put(session, chain(&small, 9, 3), |block| payload(9, block)).await;
    let (payloads, _) = server.fetch(session, "large", chain(&large, 9, 3)).await;
    assert!(payloads == (0..3).map(wide).collect::<Vec<_>>());
    let (payloads, _) = server.fetch(session, "small", chain(&small, 9, 3)).await;
    assert!(payloads.iter().all(|payload| payload.len() == PAYLOAD as usize));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_the_planner_takes_in_parts_is_stored_and_found_whole() {
    const BLOCKS: u32 = OFFERED_AT_ONCE as u32 * 2 + 7;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), 16 * MIB, 32 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 3, BLOCKS), |block| payload(3, block)).await;
    assert_eq!(server.lookup(chain(&layout, 3, BLOCKS)).await.blocks_ram, BLOCKS);
    let (payloads, _) = server.fetch(session, "long", chain(&layout, 3, BLOCKS)).await;
    assert!(payloads == (0..BLOCKS).map(|block| payload(3, block)).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layout_of_unknown_weights_goes_with_its_instance() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let spec = proto::NamespaceSpec { weights_digest: bytes::Bytes::new(), ..spec() };
    let layout = server.try_register(session, spec.clone(), vec![]).await.unwrap().fingerprint;
    server.put(session, chain(&layout, 1, 4), |block| payload(1, block)).await;
    server.quiesce().await;
    assert_eq!(server.status().await.nvme.unwrap().blocks, 0, "never on a drive");
    assert_eq!(server.lookup(chain(&layout, 1, 4)).await.blocks_ram, 4);
    drop(stream);
    for _ in 0..200 {
        if server.status().await.ram.unwrap().blocks == 0 {
            return server.stop().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the blocks are still there");
}

/// Flips one bit of the payload where it lies on the drive.
fn flip(slots: &std::path::Path, payload: &[u8]) {
    use std::os::unix::fs::FileExt;
    let bytes = std::fs::read(slots).unwrap();
    let at =
        bytes.chunks_exact(4096).position(|slot| slot == payload).expect("the payload is on the drive") * 4096 + 77;
    let file = std::fs::File::options().write(true).open(slots).unwrap();
    file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_whose_blocks_are_purged_under_way_is_told_so_and_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let purge = || {
        let all = proto::PurgeRequest { tenant: "acme".into(), ..Default::default() };
        let purged = async { server.admin().purge(all).await.unwrap() };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(purged));
    };
    for seed in 0..20 {
        let put = server.put(session, chain(&layout, seed, 64), |block| {
            if block % 7 == seed % 7 {
                purge();
            }
            payload(seed, block)
        });
        // A slot that nobody grants or refuses is given up after half a minute.
        let stored =
            tokio::time::timeout(kvtier::vocab::limits::PUT_IDLE_MAX / 2, put).await.expect("nothing to wait for");
        assert_eq!(stored.accepted_blocks + stored.dropped_blocks, 64, "{stored:?}");
    }
    server.quiesce().await;
    let status = server.status().await;
    assert_eq!((status.puts, status.reservations, status.pins), (0, 0, 0), "{status:?}");
    server.stop().await;
}
