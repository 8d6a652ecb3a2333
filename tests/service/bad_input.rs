//! Bad input gets one sentence that names the field, the value and the rule, the right status, and changes nothing.

use kvtier::daemon::Daemon;
use kvtier::proto;
use tonic::Code;

use crate::support::{Server, chain, config, payload, refused, spec};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_checked_field_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, MIB).await;
    let bad = [
        (proto::NamespaceSpec { block_tokens: 8, ..spec() }, "spec.block_tokens is 8, it must be 16 to 512"),
        (proto::NamespaceSpec { stride: 3, ..spec() }, "spec.stride is 3"),
        (proto::NamespaceSpec { max_payload_bytes: 0, ..spec() }, "spec.max_payload_bytes is 0"),
        (proto::NamespaceSpec { max_payload_bytes: 65 << 20, ..spec() }, "67108864 (64 MiB)"),
        (proto::NamespaceSpec { weights_digest: vec![1; 3].into(), ..spec() }, "spec.weights_digest is 3 bytes"),
        (proto::NamespaceSpec { weights_digest: vec![].into(), ..spec() }, "spec.weights_digest is empty"),
        (proto::NamespaceSpec { dtype: String::new(), ..spec() }, "spec.dtype"),
    ];
    for (spec, sentence) in bad {
        refused(server.try_register(0, spec, vec![]).await, Code::InvalidArgument, &[sentence]);
    }
    for unbuilt in [proto::NamespaceSpec { shards: 2, ..spec() }, proto::NamespaceSpec { groups: 2, ..spec() }] {
        refused(server.try_register(0, unbuilt, vec![]).await, Code::Unimplemented, &["2", "not built"]);
    }
    let wide = proto::NamespaceSpec { max_payload_bytes: 70_000, ..spec() };
    refused(server.try_register(0, wide, vec![]).await, Code::FailedPrecondition, &["70000", "65536", "--ram"]);
    let known = server.register(spec()).await.to_vec();
    let other = proto::NamespaceSpec { dtype: "fp8".into(), ..spec() };
    let pinned = server.try_register(0, other, known).await;
    refused(pinned, Code::FailedPrecondition, &["expected_fingerprint", "spec.dtype"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chains_are_checked_field_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, MIB).await;
    let layout = server.register(spec()).await;
    let engine = server.register(proto::NamespaceSpec { engine_hash: "vllm".into(), ..spec() }).await;
    let keys = |key_len: u32, bytes: usize| {
        let keys = proto::EngineKeys { key_len, keys: vec![1; bytes].into() };
        let blocks = Some(proto::chain::Blocks::EngineKeys(keys));
        proto::Chain { fingerprint: engine.clone(), tenant: "acme".into(), blocks, ..Default::default() }
    };
    let good = chain(&layout, 1, 2);
    let scope = |from_block, scope| proto::ScopeStep { from_block, scope: Some(scope) };
    let public = || proto::scope_step::Scope::Public(true);
    let bad = [
        (keys(4, 16), "key_len is 4, it must be 8 to 128 bytes"),
        (keys(129, 129), "key_len is 129"),
        (keys(16, 24), "a multiple of key_len (16)"),
        (keys(8, 8 * 65_537), "65537 blocks"),
        (proto::Chain { fingerprint: engine.clone(), ..good.clone() }, "engine_keys"),
        (proto::Chain { fingerprint: layout.clone(), ..keys(8, 8) }, "tokens"),
        (proto::Chain { tenant: "two words".into(), ..good.clone() }, "tenant \"two words\""),
        (proto::Chain { tenant: String::new(), ..good.clone() }, "tenant"),
        (proto::Chain { fingerprint: vec![1; 5].into(), ..good.clone() }, "chain.fingerprint length is 5 bytes"),
        (proto::Chain { chain_offset: 3, ..good.clone() }, "chain.parent_key length is 0 bytes"),
        (proto::Chain { scopes: vec![scope(1, public())], ..good.clone() }, "scopes[0].from_block must be 0"),
        (
            proto::Chain { scopes: vec![scope(0, public()), scope(1, public())], ..good.clone() },
            "scopes[1] must be narrower",
        ),
        (
            proto::Chain { scopes: vec![scope(0, proto::scope_step::Scope::Tenant("other".into()))], ..good.clone() },
            "chain.scopes[0].tenant is other, it must be the chain's tenant",
        ),
        (proto::Chain { blocks: None, ..good.clone() }, "chain.blocks is absent"),
    ];
    for (chain, sentence) in bad {
        refused(server.try_lookup(0, "", chain, 0).await, Code::InvalidArgument, &[sentence]);
    }
    let unknown = proto::Chain { fingerprint: vec![9; 32].into(), ..good.clone() };
    refused(
        server.try_lookup(0, "", unknown, 0).await,
        Code::NotFound,
        &["chain.fingerprint 0909", "RegisterNamespace"],
    );
    let group = proto::Chain { group: 1, ..good.clone() };
    refused(server.try_lookup(0, "", group, 0).await, Code::Unimplemented, &["chain.group 1"]);
    refused(server.try_lookup(77, "r", good.clone(), 1000).await, Code::NotFound, &["session_id 77", "OpenSession"]);
    refused(server.try_lookup(0, "", good.clone(), 600_001).await, Code::InvalidArgument, &["lease_ttl_ms is 600001"]);
    let found = server.lookup(good).await;
    assert_eq!(found.blocks_missed, 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_breaks_its_rules_ends_and_leaves_what_was_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let too_large = server.try_put(session, chain(&layout, 1, 3), |block| vec![1; 4096 + block as usize]).await;
    refused(too_large, Code::InvalidArgument, &["pieces[].length of block 1 is 4097", "max_payload_bytes (4096)"]);
    for _ in 0..100 {
        if server.status().await.puts == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.quiesce().await;
    let found = server.lookup(chain(&layout, 1, 3)).await;
    assert_eq!((found.blocks_ram, found.blocks_missed), (1, 2), "the first block was whole");
    let status = server.status().await;
    assert_eq!((status.puts, status.reservations), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_its_instances_own_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, MIB).await;
    let (session, stream) = server.session("engine").await;
    let (stranger, _other) = server.session("stranger").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 1, 3), |block| payload(1, block)).await;
    let lease = server.try_lookup(session, "r", chain(&layout, 1, 3), 60_000).await.unwrap().lease.unwrap();
    let again = server.try_lookup(session, "r", chain(&layout, 1, 3), 60_000).await.unwrap().lease.unwrap();
    assert_eq!(lease.lease_id, again.lease_id, "idempotent by (instance, request id)");
    let lease_id = lease.lease_id;
    let foreign = server.try_fetch(stranger, "r", chain(&layout, 1, 3), lease_id).await;
    refused(foreign, Code::PermissionDenied, &["another engine instance"]);
    let release = proto::ReleaseRequest { session_id: stranger, lease_id };
    refused(server.cache().release(release).await, Code::PermissionDenied, &["another engine instance"]);
    let renew = |ttl_ms| proto::RenewRequest { session_id: session, lease_id, ttl_ms };
    refused(server.cache().renew(renew(600_001)).await, Code::InvalidArgument, &["ttl_ms is 600001"]);
    assert_eq!(server.status().await.leases, 1);
    server.cache().renew(renew(1)).await.unwrap();
    for _ in 0..500 {
        if server.status().await.leases == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    refused(server.cache().renew(renew(1000)).await, Code::FailedPrecondition, &["has ended"]);
    let expired = server.try_fetch(session, "r", chain(&layout, 1, 3), lease_id).await;
    refused(expired, Code::FailedPrecondition, &["has ended"]);
    // A lease ends with its instance too.
    server.try_lookup(session, "r2", chain(&layout, 1, 3), 60_000).await.unwrap();
    assert_eq!(server.status().await.leases, 1);
    drop(stream);
    for _ in 0..500 {
        if server.status().await.leases == 0 {
            return server.stop().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the lease outlives its instance");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purges_and_evictions_say_what_they_need() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    server.put(session, chain(&layout, 1, 4), |block| payload(1, block)).await;
    server.quiesce().await;
    refused(server.admin().purge(proto::PurgeRequest::default()).await, Code::InvalidArgument, &["at least one of"]);
    let user = proto::PurgeRequest { user: "u".into(), ..Default::default() };
    refused(server.admin().purge(user).await, Code::InvalidArgument, &["user is u, it must be given with its tenant"]);
    let evict = |from_block| proto::EvictRequest { chain: Some(chain(&layout, 1, 4)), from_block };
    refused(server.admin().evict(evict(4)).await, Code::InvalidArgument, &["from_block is 4"]);
    let evicted = server.admin().evict(evict(2)).await.unwrap().into_inner();
    assert_eq!((evicted.blocks, evicted.kept), (2, 0));
    let stranger = proto::PurgeRequest { tenant: "nobody".into(), ..Default::default() };
    assert_eq!(server.admin().purge(stranger).await.unwrap().into_inner().blocks, 0);
    let own = proto::PurgeRequest { tenant: "acme".into(), ..Default::default() };
    assert_eq!(server.admin().purge(own).await.unwrap().into_inner().blocks, 2);
    assert_eq!(server.lookup(chain(&layout, 1, 4)).await.blocks_missed, 4);
    server.quiesce().await;
    let status = server.status().await;
    assert_eq!((status.ram.unwrap().used_bytes, status.nvme.unwrap().used_bytes), (0, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_cannot_start_says_why_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = |result: Result<Daemon, kvtier::daemon::StartError>| result.err().expect("refused").to_string();
    let huge = sentence(Daemon::start(config(dir.path(), MIB, 1 << 60)).await);
    assert!(huge.contains("nvme"), "{huge}");
    assert!(!dir.path().join("data").exists(), "nothing is left behind");
    let server = Server::start(dir.path(), MIB, MIB).await;
    let taken = kvtier::daemon::Config { data_dir: dir.path().join("other"), ..config(dir.path(), MIB, MIB) };
    let taken = sentence(Daemon::start(taken).await);
    assert!(taken.contains("kvtier.sock") && taken.contains("another daemon"), "{taken}");
    server.stop().await;
    let format = dir.path().join("data/FORMAT");
    let text = std::fs::read_to_string(&format).unwrap();
    let newer = text.replacen(r#""format": 2"#, r#""format": 999"#, 1);
    assert_ne!(text, newer);
    std::fs::write(&format, &newer).unwrap();
    let refused = sentence(Daemon::start(config(dir.path(), MIB, MIB)).await);
    assert!(refused.contains("999"), "{refused}");
    assert_eq!(std::fs::read_to_string(&format).unwrap(), newer);
}
