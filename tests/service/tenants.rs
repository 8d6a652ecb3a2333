//! Accounts through the gate: shares, limits, public domains, lifetimes and pins, and what is left of them after a restart.

use kvtier::proto;
use tonic::Code;

use crate::support::{PAYLOAD, Server, chain, payload, refused, spec};

const MIB: u64 = 1 << 20;
const SLOT: u64 = PAYLOAD as u64;

fn of(tenant: &str, chain: proto::Chain) -> proto::Chain {
    proto::Chain { tenant: tenant.into(), ..chain }
}

fn keeping(retention: &str, chain: proto::Chain) -> proto::Chain {
    let storing = proto::Storing { retention: retention.into(), ..Default::default() };
    proto::Chain { storing: Some(storing), ..chain }
}

fn tier(share_bytes: u64, limit_bytes: Option<u64>) -> Option<proto::TierQuota> {
    Some(proto::TierQuota { share_bytes, limit_bytes })
}

async fn set_quota(server: &Server, tenant: &str, nvme: Option<proto::TierQuota>) -> proto::AccountInfo {
    let request = proto::SetQuotaRequest { tenant: tenant.into(), nvme, ..Default::default() };
    server.admin().set_quota(request).await.unwrap().into_inner().account.unwrap()
}

async fn account(server: &Server, tenant: &str) -> proto::AccountInfo {
    let accounts = server.admin().inspect_accounts(proto::InspectAccountsRequest {}).await.unwrap().into_inner();
    accounts.accounts.into_iter().find(|known| known.tenant == tenant).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_stays_within_its_limit_and_its_neighbours_hits_stay() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let limit = 64 * SLOT;
    set_quota(&server, "flood", tier(0, Some(limit))).await;
    set_quota(&server, "calm", tier(512 * SLOT, None)).await;
    let calm = |seed: u32| of("calm", chain(&layout, seed, 16));
    for seed in 0..16 {
        server.put(session, calm(seed), |block| payload(seed, block)).await;
    }
    for seed in 100..300 {
        server.put(session, of("flood", chain(&layout, seed, 8)), |block| payload(seed, block)).await;
        let held = account(&server, "flood").await;
        assert!(held.nvme_bytes <= limit, "{} of {limit} bytes", held.nvme_bytes);
    }
    server.quiesce().await;
    assert_eq!(account(&server, "flood").await.nvme_bytes, limit, "it has what it may have");
    let mut hits = 0;
    for seed in 0..16 {
        hits += server.lookup(calm(seed)).await.hit_tokens;
    }
    assert_eq!(hits, 16 * 16 * 16, "every token of the neighbour");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_refused_with_the_numbers_and_kept_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    set_quota(&server, "a", tier(3 * MIB, None)).await;
    let more = proto::SetQuotaRequest { tenant: "b".into(), nvme: tier(MIB, None), ..Default::default() };
    let words = ["nvme.share is 1048576 bytes", "others have 3145728", "80 %"];
    refused(server.admin().set_quota(more).await, Code::FailedPrecondition, &words);
    let upside_down = proto::SetQuotaRequest { tenant: "b".into(), ram: tier(9, Some(8)), ..Default::default() };
    refused(server.admin().set_quota(upside_down).await, Code::FailedPrecondition, &["ram.share is 9", "ram.limit (8"]);
    let nobody = proto::SetQuotaRequest::default();
    refused(server.admin().set_quota(nobody).await, Code::InvalidArgument, &["tenant is absent"]);
    let both = proto::SetQuotaRequest { tenant: "a".into(), domain: "d".into(), ..Default::default() };
    refused(server.admin().set_quota(both).await, Code::InvalidArgument, &["domain is d"]);
    // What is not given stays as it is.
    let ram = proto::SetQuotaRequest { tenant: "a".into(), ram: tier(0, Some(7)), ..Default::default() };
    let now = server.admin().set_quota(ram).await.unwrap().into_inner().account.unwrap();
    assert_eq!((now.ram, now.nvme), (tier(0, Some(7)), tier(3 * MIB, None)));
    server.stop().await;
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let known = account(&server, "a").await;
    assert_eq!((known.ram, known.nvme), (tier(0, Some(7)), tier(3 * MIB, None)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guaranteed_prefix_outlives_a_flood_and_a_restart_and_says_until_when() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let prompt = chain(&layout, 1, 8);
    let without = server.put(session, keeping("guaranteed:1h", prompt.clone()), |block| payload(1, block)).await;
    assert_eq!((without.stored_through, without.retained_until_s), (8, 0), "stored all the same");
    assert!(without.retention_refused.contains("0 bytes of the NVMe share of tenant acme"), "{without:?}");
    set_quota(&server, "acme", tier(8 * SLOT, None)).await;
    let kept = server.put(session, keeping("guaranteed:1h", prompt.clone()), |_| panic!("it is here")).await;
    assert_eq!(kept.retention_refused, "");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 3_590..=now + 3_600).contains(&kept.retained_until_s), "{kept:?} at {now}");
    let second = server.put(session, keeping("guaranteed:1h", chain(&layout, 2, 1)), |block| payload(2, block)).await;
    assert!(second.retention_refused.contains("4096 bytes are to be guaranteed"), "{second:?}");
    let lower = proto::SetQuotaRequest { tenant: "acme".into(), nvme: tier(SLOT, None), ..Default::default() };
    refused(server.admin().set_quota(lower).await, Code::FailedPrecondition, &["must be at least 32768 bytes"]);
    drop(stream);
    server.stop().await;

    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    assert_eq!(account(&server, "acme").await.kept_bytes, 8 * SLOT);
    for seed in 100..400 {
        server.put(session, chain(&layout, seed, 8), |block| payload(seed, block)).await;
    }
    assert_eq!(server.lookup(prompt).await.hit_tokens, 128);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_hold_until_they_are_taken_away_and_only_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let prompt = chain(&layout, 1, 4);
    set_quota(&server, "acme", tier(MIB, None)).await;
    let pin = |chain: &proto::Chain| proto::PinRequest { chain: Some(chain.clone()) };
    let unpin = |chain: &proto::Chain| proto::UnpinRequest { chain: Some(chain.clone()) };
    refused(server.admin().pin(pin(&prompt)).await, Code::FailedPrecondition, &["not readable here"]);
    server.put(session, prompt.clone(), |block| payload(1, block)).await;
    assert_eq!(server.admin().pin(pin(&prompt)).await.unwrap().into_inner().blocks, 4);
    let evicted = proto::EvictRequest { chain: Some(prompt.clone()), from_block: 0 };
    assert_eq!(server.admin().evict(evicted.clone()).await.unwrap().into_inner().blocks, 0);
    assert!(server.admin().unpin(unpin(&prompt)).await.unwrap().into_inner().unpinned);
    assert!(!server.admin().unpin(unpin(&prompt)).await.unwrap().into_inner().unpinned);
    assert_eq!(server.admin().evict(evicted).await.unwrap().into_inner().blocks, 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_domain_is_created_by_an_admin_and_pays_for_its_own_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, _stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let private = |tenant: &str, user: &str| {
        let step = |from_block, scope| proto::ScopeStep { from_block, scope: Some(scope) };
        let user = proto::UserScope { user: user.into(), ..Default::default() };
        let scopes = vec![
            step(0, proto::scope_step::Scope::Domain("docs".into())),
            step(3, proto::scope_step::Scope::User(user)),
        ];
        proto::Chain { scopes, ..of(tenant, chain(&layout, 1, 5)) }
    };
    let early = server.try_put(session, private("a", "ann"), |block| payload(1, block)).await;
    refused(
        early,
        Code::FailedPrecondition,
        &["public domain docs", "does not exist", "kvtier quota set --domain docs"],
    );
    let create = proto::SetQuotaRequest { domain: "docs".into(), ..Default::default() };
    server.admin().set_quota(create).await.unwrap();
    assert_eq!(server.put(session, private("a", "ann"), |block| payload(1, block)).await.accepted_blocks, 5);
    assert_eq!(server.lookup(private("b", "bob")).await.hit_tokens, 48, "another tenant has the public part");
    assert_eq!(server.lookup(private("a", "eve")).await.hit_tokens, 48, "and another user of the same one");
    assert_eq!(server.lookup(private("a", "ann")).await.hit_tokens, 80);
    server.quiesce().await;
    let accounts = server.admin().inspect_accounts(proto::InspectAccountsRequest {}).await.unwrap().into_inner();
    let held = accounts.accounts.iter().map(|known| (known.tenant.as_str(), known.domain.as_str(), known.nvme_bytes));
    assert_eq!(held.collect::<Vec<_>>(), [("a", "", 2 * SLOT), ("", "docs", 3 * SLOT)]);
    let inspected = proto::InspectPrefixRequest { chain: Some(private("a", "ann")) };
    let blocks = server.admin().inspect_prefix(inspected).await.unwrap().into_inner().blocks;
    assert_eq!(blocks.iter().map(|block| block.tenant.as_str()).collect::<Vec<_>>()[2..4], ["public domain docs", "a"]);
    // What is a user's can be erased without what is everybody's.
    let purge = proto::PurgeRequest { tenant: "a".into(), user: "ann".into(), ..Default::default() };
    let purged = server.admin().purge(purge).await.unwrap().into_inner();
    let receipt = kvtier::access::verify_erasure(&purged.receipt, &purged.public_key).unwrap();
    assert_eq!((purged.blocks, receipt.blocks, receipt.purged_at_ms), (2, 2, purged.purged_at_ms));
    assert_eq!((receipt.tenant.as_deref(), receipt.user.as_deref()), (Some("a"), Some("ann")));
    assert_eq!(server.lookup(private("a", "ann")).await.hit_tokens, 48);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_says_how_far_its_blocks_may_go_and_how_long_they_live() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    let (session, stream) = server.session("engine").await;
    let layout = server.register(spec()).await;
    let up_to = |tier: proto::FurthestTier, chain: proto::Chain| {
        let storing = proto::Storing { furthest_tier: tier.into(), ..Default::default() };
        proto::Chain { storing: Some(storing), ..chain }
    };
    let nothing = up_to(proto::FurthestTier::Nothing, chain(&layout, 1, 2));
    let stored = server.put(session, nothing.clone(), |_| panic!("nothing is wanted")).await;
    assert_eq!((stored.stored_through, stored.dropped_blocks), (0, 0));
    let ram = up_to(proto::FurthestTier::Ram, chain(&layout, 2, 2));
    assert_eq!(server.put(session, ram.clone(), |block| payload(2, block)).await.stored_through, 2);
    let forever = server.put(session, keeping("ttl:1h", chain(&layout, 3, 2)), |block| payload(3, block)).await;
    assert_eq!(forever.stored_through, 2);
    let short = server.put(session, keeping("ttl:1s", chain(&layout, 4, 2)), |block| payload(4, block)).await;
    assert_eq!(short.stored_through, 2);
    let bad = server.try_put(session, keeping("for ever", chain(&layout, 5, 2)), |_| vec![]).await;
    refused(bad, Code::InvalidArgument, &["chain.storing.retention \"for ever\" must be best-effort, ttl:TIME"]);
    server.quiesce().await;
    let nvme = server.status().await.nvme.unwrap().used_bytes;
    assert!(nvme <= 4 * SLOT, "RAM's two blocks are in RAM only");
    for _ in 0..200 {
        if server.lookup(chain(&layout, 4, 2)).await.hit_tokens == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(server.lookup(chain(&layout, 4, 2)).await.hit_tokens, 0, "its time is over");
    assert_eq!(server.lookup(chain(&layout, 3, 2)).await.hit_tokens, 32);
    assert_eq!(server.lookup(ram.clone()).await.hit_tokens, 32);
    drop(stream);
    server.stop().await;
    let server = Server::start(dir.path(), MIB, 4 * MIB).await;
    assert_eq!(server.lookup(ram).await.hit_tokens, 0, "gone with the daemon");
    assert_eq!(server.lookup(chain(&layout, 3, 2)).await.hit_tokens, 32, "its time is not over");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_that_was_told_is_kept_over_a_kill() {
    use kvtier::client::{Chain, Client};
    use kvtier::replay::live::namespace_spec;
    use kvtier::vocab::{AccountName, ByteCount, InstanceId, NamespaceName, RequestId, TenantName, TierQuota};
    let dir = tempfile::tempdir().unwrap();
    let tiers = ["--ram", "1MiB", "--nvme", "4MiB"];
    let (spec, tenant) = (namespace_spec(16, PAYLOAD).unwrap(), TenantName::parse("acme").unwrap());
    let keys: Vec<u8> = (0..8_u64).flat_map(u64::to_be_bytes).collect();
    let prompt = Chain::of_engine_keys(spec.fingerprint(), &tenant, 8, keys.into());
    for round in 0..3 {
        let (mut process, address) = crate::process::Process::start(dir.path(), &tiers).await;
        let client = Client::connect(&address).await.unwrap();
        let account = AccountName::Tenant(tenant.clone());
        let share = TierQuota { share: ByteCount(MIB), limit: None };
        if round == 0 {
            client.set_quota(&account, None, Some(share)).await.unwrap();
        }
        let kept = client.inspect_accounts().await.unwrap().first().map_or(0, |known| known.kept_bytes);
        assert_eq!(kept, if round == 0 { 0 } else { 8 * SLOT }, "round {round}");
        client.register_namespace(None, &NamespaceName::parse("m").unwrap(), &spec, None).await.unwrap();
        let session = client.open_session(&InstanceId::parse("e").unwrap(), "test").await.unwrap();
        let retention = kvtier::vocab::Retention::parse("guaranteed:1h").unwrap();
        let storing = prompt.clone().storing(kvtier::vocab::Furthest::Nvme, retention);
        let source = |block: usize| payload(round, block as u32).into();
        let stored = client.put(&session, &RequestId::parse("r").unwrap(), &storing, source).await.unwrap();
        assert!(stored.retained_until_s > 0, "{stored:?}");
        assert_eq!(stored.wanted_blocks, if round == 0 { 8 } else { 0 }, "what was promised is there");
        process.kill();
    }
}
