//! A principal of one tenant, whatever its role: what it can't reach, tell or bill.

use std::time::{Duration, Instant};

use kvtier::access::{Grant, Token};
use kvtier::proto;
use kvtier::vocab::{TenantName, UserName};
use tonic::{Code, Request};

use crate::access::{Guarded, calls, code, key_pair};
use crate::indistinct::shorter;
use crate::process::Process;
use crate::support::{Gate, PAYLOAD, chain, payload, refused, spec};

/// What is open to principals of one tenant, by role; everything else is not, for any role. Sums and purges that name no tenant
/// are of all, and so are not open.
const OPEN: &[(&str, &str)] = &[
    ("Sessions/OpenSession", "worker admin"),
    ("Sessions/RegisterNamespace", "worker admin"),
    ("Cache/Lookup", "worker admin"),
    ("Cache/Prefetch", "worker admin"),
    ("Cache/Accept", "worker admin"),
    ("Cache/FinishRequest", "worker admin"),
    ("Cache/Fetch", "worker admin"),
    ("Cache/Put", "worker admin"),
    ("Cache/Reserve", "worker admin"),
    ("Cache/Commit", "worker admin"),
    ("Cache/Release", "worker admin"),
    ("Cache/Renew", "worker admin"),
    ("Cache/AttachRegion", "worker admin"),
    ("Cache/DetachRegion", "worker admin"),
    ("Cache/LoadInto", "worker admin"),
    ("Cache/PutFrom", "worker admin"),
    ("Usage/Settle", "worker biller admin"),
    ("Usage/CorrectUsage", "biller admin"),
    ("Admin/InspectPrefix", "admin read-only"),
    ("Admin/Evict", "admin"),
    ("Admin/Pin", "admin"),
    ("Admin/Unpin", "admin"),
];

/// A line of the access file for a principal, and its token.
fn principal(name: &str, role: &str, tenant: &str) -> (String, String) {
    let minted = Token::mint();
    let entry = format!(
        "[[principal]]\nname = \"{name}\"\nrole = \"{role}\"\ntenants = [\"{tenant}\"]\ntokens = [\"{}\"]\n",
        minted.stored
    );
    (entry, minted.text)
}

fn as_bearer<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// A daemon with a principal of acme in each role, and the way in of its own user, who may do everything.
async fn guarded() -> (Guarded, Gate) {
    let roles = [("acme-worker", "worker"), ("acme-biller", "biller"), ("acme-admin", "admin")];
    let made: Vec<_> = roles.iter().chain(&[("acme-read-only", "read-only")]).copied().collect();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    for (name, role) in made {
        let (entry, token) = principal(name, role, "acme");
        text.push_str(&entry);
        tokens.push((name, token));
    }
    let mut guarded = Guarded::start(&text, |dir, config| config.socket = Some(dir.join("k.sock"))).await;
    guarded.tokens.extend(tokens);
    let gate = Gate::connect(&guarded.dir.path().join("k.sock")).await;
    (guarded, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_of_one_tenant_has_that_tenants_calls_and_no_others() {
    let (guarded, _gate) = guarded().await;
    let channel = guarded.channel().await;
    for call in calls() {
        let open = OPEN.iter().find(|(name, _)| *name == call).map_or("", |(_, roles)| *roles);
        for role in ["worker", "biller", "admin", "read-only"] {
            let token = &guarded.tokens[format!("acme-{role}").as_str()];
            let code = code(channel.clone(), &call, Some(token)).await;
            let may = open.split(' ').any(|may| may == role);
            assert_eq!(code != Code::PermissionDenied, may, "{call} by a {role} of acme ended with {code:?}");
        }
    }
    let mut usage = proto::usage_client::UsageClient::new(channel.clone());
    let of = |tenant: &str| proto::SummarizeUsageRequest { tenant: tenant.into(), ..Default::default() };
    assert!(usage.summarize_usage(guarded.request("acme-biller", of("acme"))).await.is_ok());
    let other = usage.summarize_usage(guarded.request("acme-biller", of("globex"))).await;
    refused(other, Code::PermissionDenied, &["may not act for tenant globex"]);
    let held = |tenant: &str| proto::SummarizeStorageRequest { tenant: tenant.into(), ..Default::default() };
    assert!(usage.summarize_storage(guarded.request("acme-read-only", held("acme"))).await.is_ok());
    let other = usage.summarize_storage(guarded.request("acme-read-only", held("globex"))).await;
    refused(other, Code::PermissionDenied, &["may not act for tenant globex"]);
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_everybodys_is_changed_by_who_may_act_for_all() {
    let (guarded, gate) = guarded().await;
    let layout = gate.register(spec()).await;
    let (session, _stream) = gate.session("engine").await;
    let nvme = Some(proto::TierQuota { share_bytes: 0, limit_bytes: None });
    let create = proto::SetQuotaRequest { domain: "docs".into(), nvme, ..Default::default() };
    gate.admin().set_quota(create).await.unwrap();
    let public = |tenant: &str| {
        let scope = Some(proto::scope_step::Scope::Domain("docs".into()));
        let scopes = vec![proto::ScopeStep { from_block: 0, scope }];
        proto::Chain { tenant: tenant.into(), scopes, ..chain(&layout, 1, 4) }
    };
    gate.put(session, public("globex"), |block| payload(1, block)).await;
    assert_eq!(guarded.lookup("acme-worker", public("acme")).await.unwrap().hit_tokens, 64, "everybody reads it");
    let mut admin = proto::admin_client::AdminClient::new(guarded.channel().await);
    let said = ["is of a public domain", "acme-admin may not"];
    let evict = |chain, from_block| proto::EvictRequest { chain: Some(chain), from_block };
    refused(admin.evict(guarded.request("acme-admin", evict(public("acme"), 0))).await, Code::PermissionDenied, &said);
    let pin = proto::PinRequest { chain: Some(public("acme")) };
    refused(admin.pin(guarded.request("acme-admin", pin)).await, Code::PermissionDenied, &said);
    let unpin = proto::UnpinRequest { chain: Some(public("acme")) };
    refused(admin.unpin(guarded.request("acme-admin", unpin)).await, Code::PermissionDenied, &said);
    // What follows of its own it takes out, and only that.
    let mut own = public("acme");
    let scope = Some(proto::scope_step::Scope::Tenant("acme".into()));
    own.scopes.push(proto::ScopeStep { from_block: 2, scope });
    gate.put(session, own.clone(), |block| payload(1, block)).await;
    let before = guarded.request("acme-admin", evict(own.clone(), 1));
    refused(admin.evict(before).await, Code::PermissionDenied, &said);
    let evicted = admin.evict(guarded.request("acme-admin", evict(own, 2))).await.unwrap().into_inner();
    assert_eq!(evicted.blocks, 2);
    let left = gate.lookup(public("globex")).await.hit_tokens;
    assert_eq!(left, 64, "what globex stored in docs is still there");
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_to_one_tenant_is_not_billed_by_another() {
    let (guarded, gate) = guarded().await;
    let layout = gate.register(spec()).await;
    let (session, _stream) = gate.session("engine").await;
    gate.put(session, chain(&layout, 1, 5), |block| payload(1, block)).await;
    assert_eq!(gate.fetch(session, "r", chain(&layout, 1, 5)).await.1.tokens, 80, "to acme");
    let settle = |tenant: &str, cached_tokens: u64| proto::SettleRequest {
        tenant: tenant.into(),
        billing_id: format!("b-{cached_tokens}"),
        instance: "engine".into(),
        request_id: "r".into(),
        fingerprint: layout.clone(),
        prompt_tokens: 10_000,
        cached_tokens,
        ..Default::default()
    };
    let mut usage = proto::usage_client::UsageClient::new(guarded.channel().await);
    let more = usage.settle(guarded.request("other", settle("globex", 9_000))).await.unwrap_err();
    let exact = usage.settle(guarded.request("other", settle("globex", 80))).await;
    let exact = exact.map(|reply| reply.into_inner().record.unwrap().hit_tokens);
    assert!(more.message().contains("only 0 tokens were delivered"), "globex is told of acme's: {}", more.message());
    assert!(exact.is_err(), "globex bills what was delivered to acme: {exact:?}");
    let own = usage.settle(guarded.request("acme-worker", settle("acme", 80))).await.unwrap().into_inner();
    assert_eq!(own.record.unwrap().hit_tokens, 80);
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grants_user_is_the_one_who_is_billed() {
    let (signer, public) = key_pair();
    let key = format!("[[grant_key]]\nkid = \"gw\"\npublic = \"{public}\"\ntenants = [\"globex\"]\n");
    let guarded = Guarded::start(&key, |dir, config| config.socket = Some(dir.join("k.sock"))).await;
    let gate = Gate::connect(&guarded.dir.path().join("k.sock")).await;
    let layout = gate.register(spec()).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let grant = Grant {
        tenant: TenantName::parse("globex").unwrap(),
        user: UserName::parse("ann").ok(),
        billing_id: None,
        attempt: None,
        retention: None,
        scopes: Vec::new(),
        expires_s: now + 60,
    };
    let settle = proto::SettleRequest {
        tenant: "globex".into(),
        billing_id: "b".into(),
        instance: "e".into(),
        request_id: "r".into(),
        fingerprint: layout,
        prompt_tokens: 9,
        grant: signer.sign(&grant).unwrap(),
        ..Default::default()
    };
    let mut usage = proto::usage_client::UsageClient::new(guarded.channel().await);
    let record = usage.settle(guarded.request("1", settle)).await.unwrap().into_inner().record.unwrap();
    assert_eq!(record.user, "ann", "the engine does not know the user, the gateway's grant does");
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_whose_time_is_over_is_refused_on_an_open_connection() {
    let (lasting, minted) = (Token::mint(), Token::mint());
    let ends = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_secs(3)).unwrap();
    let text = format!(
        "[[principal]]\nname = \"brief\"\nrole = \"read-only\"\ntenants = [\"*\"]\ntokens = [\"{}\", {{ hash = \"{}\", expires = {} }}]\n",
        lasting.stored,
        minted.stored,
        ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    let guarded = Guarded::start(&text, |_, _| ()).await;
    let channel = guarded.channel().await;
    assert_eq!(code(channel.clone(), "Admin/GetStatus", Some(&minted.text)).await, Code::Ok);
    let mut last = Code::Ok;
    for _ in 0..200 {
        last = code(channel.clone(), "Admin/GetStatus", Some(&minted.text)).await;
        if last != Code::Ok {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(last, Code::Unauthenticated);
    assert_eq!(
        code(channel, "Admin/GetStatus", Some(&lasting.text)).await,
        Code::Ok,
        "the same principal's other token"
    );
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_without_a_new_time_or_length_is_read_again() {
    let guarded = Guarded::start("", |_, _| ()).await;
    let (path, channel) = (guarded.dir.path().join("access.toml"), guarded.channel().await);
    let before = std::fs::metadata(&path).unwrap();
    let (text, revoked) = (std::fs::read_to_string(&path).unwrap(), &guarded.tokens["read-only"]);
    let id = revoked.split('_').nth(1).unwrap();
    let line = text.lines().find(|line| line.contains(id)).unwrap();
    let new = text.replace(line, &format!("tokens = [\"{}\"]", Token::mint().stored));
    // As tools do that keep times: rsync -t, reproducible images.
    let beside = guarded.dir.path().join("new.toml");
    std::fs::write(&beside, &new).unwrap();
    std::fs::File::options().write(true).open(&beside).unwrap().set_modified(before.modified().unwrap()).unwrap();
    assert_eq!(new.len() as u64, before.len());
    std::fs::rename(&beside, &path).unwrap();
    let mut last = Code::Ok;
    for _ in 0..60 {
        last = code(channel.clone(), "Admin/GetStatus", Some(revoked)).await;
        if last != Code::Ok {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, Code::Unauthenticated, "a revoked token is still good");
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_refusal_is_one_line_of_the_log_without_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (one, token) = principal("one", "worker", "acme");
    let (two, other) = principal("two", "worker", "globex");
    let access = dir.path().join("access.toml");
    std::fs::write(&access, one + &two).unwrap();
    let arguments = ["--ram", "1MiB", "--access", access.to_str().unwrap()];
    let (mut process, _) = Process::start(dir.path(), &arguments).await;
    let gate = Gate::connect(&dir.path().join("s")).await;
    let layout = gate.register(spec()).await;
    let (session, _stream) = gate.session("engine").await;
    let lookup = |tenant: &str, grant: &str| proto::LookupRequest {
        chain: Some(proto::Chain { tenant: tenant.into(), grant: grant.into(), ..chain(&layout, 1, 1) }),
        ..Default::default()
    };
    let mut cache = gate.cache();
    let stranger = Token::mint().text;
    assert!(cache.lookup(as_bearer(&stranger, lookup("acme", ""))).await.is_err());
    assert!(gate.admin().get_status(as_bearer(&token, proto::GetStatusRequest {})).await.is_err());
    assert!(cache.lookup(as_bearer(&token, lookup("globex", ""))).await.is_err());
    assert!(cache.lookup(as_bearer(&token, lookup("acme", "a.b.c"))).await.is_err());
    let foreign =
        proto::LookupRequest { session_id: session, request_id: "r".into(), lease_ttl_ms: 9, ..lookup("globex", "") };
    assert!(cache.lookup(as_bearer(&other, foreign)).await.is_err());
    let counters = gate.status().await.counters;
    process.kill();
    let log = process.log();
    for (why, who) in [
        ("refused_unauthenticated", "nobody"),
        ("refused_role", "one"),
        ("refused_tenant", "one"),
        ("refused_grant", "one"),
        ("refused_session", "two"),
    ] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(why)).collect();
        assert_eq!((lines.len(), counters.get(why)), (1, Some(&1)), "{why}:\n{log}");
        for part in ["kvtier::access", who, "uid ", "/kvtier.v1."] {
            assert!(lines[0].contains(part), "{part:?} is not in {}", lines[0]);
        }
    }
    for secret in [&stranger, &token, &other] {
        assert!(!log.contains(secret.rsplit('_').next().unwrap()), "a secret is in the log:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_principal_of_one_tenant_can_not_time_what_is_anothers() {
    const BLOCKS: u32 = 32;
    let (guarded, gate) = guarded().await;
    let layout = gate.register(spec()).await;
    let (session, _stream) = gate.session("engine").await;
    let of = |tenant: &str, seed: u32| proto::Chain { tenant: tenant.into(), ..chain(&layout, seed, BLOCKS) };
    let seeds = u32::try_from((1 << 20) / u64::from(PAYLOAD * BLOCKS)).unwrap() / 2;
    for seed in 0..seeds {
        gate.put(session, of("globex", seed), |block| payload(seed, block)).await;
    }
    let mut cache = proto::cache_client::CacheClient::new(guarded.channel().await);
    let (mut foreign, mut unknown) = (Vec::new(), Vec::new());
    for round in 0..3_000_u32 {
        for turn in 0..2 {
            let is_foreign = (turn + round) % 2 == 0;
            let seed = round / 2 % seeds + if is_foreign { 0 } else { 2_000 };
            let request = proto::LookupRequest { chain: Some(of("acme", seed)), ..Default::default() };
            let request = guarded.request("acme-worker", request);
            let started = Instant::now();
            let found = cache.lookup(request).await.unwrap().into_inner();
            if is_foreign { &mut foreign } else { &mut unknown }.push(started.elapsed().as_nanos());
            let told = (found.hit_tokens, found.miss_tokens, found.blocks_missed, found.lease.is_some());
            assert_eq!(told, (0, u64::from(16 * BLOCKS), BLOCKS, false));
        }
    }
    let share = shorter(&foreign, &unknown);
    foreign.sort_unstable();
    unknown.sort_unstable();
    let at = |times: &[u128]| times[times.len() / 2] / 1_000;
    eprintln!(
        "foreign {} us, unknown {} us at the median; foreign is the shorter one of {share:.3}",
        at(&foreign),
        at(&unknown)
    );
    assert!((share - 0.5).abs() < 0.06, "foreign prefixes are told from unknown ones: {share}");
    guarded.daemon.stop().await;
}
