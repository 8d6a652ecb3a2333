//! Who may call what, seen from outside: every call with every role, tenants, sessions, grants, and revocation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use kvtier::access::{Grant, GrantSigner, Token};
use kvtier::daemon::{Config, Daemon, TlsFiles};
use kvtier::proto;
use kvtier::vocab::scope::ScopeKind;
use kvtier::vocab::{BillingId, ByteCount, TenantName, UserName};
use prost::Message;
use ring::signature::KeyPair;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::support::{chain, refused, spec};

const MIB: u64 = 1 << 20;

/// Who may call what, written out once more: a role that is not named may not. `1` stands for whoever may act for one tenant
/// only, where the call is about that tenant.
const MATRIX: &[(&str, &str)] = &[
    ("Sessions/OpenSession", "worker admin 1"),
    ("Sessions/RegisterNamespace", "worker admin 1"),
    ("Cache/Lookup", "worker admin 1"),
    ("Cache/Prefetch", "worker admin 1"),
    ("Cache/Accept", "worker admin 1"),
    ("Cache/FinishRequest", "worker admin 1"),
    ("Cache/Load", "worker admin"),
    ("Cache/Fetch", "worker admin 1"),
    ("Cache/Put", "worker admin 1"),
    ("Cache/Reserve", "worker admin 1"),
    ("Cache/Commit", "worker admin 1"),
    ("Cache/Release", "worker admin 1"),
    ("Cache/Renew", "worker admin 1"),
    ("Cache/AttachRegion", "worker admin 1"),
    ("Cache/DetachRegion", "worker admin 1"),
    ("Cache/LoadInto", "worker admin 1"),
    ("Cache/PutFrom", "worker admin 1"),
    ("Usage/Settle", "worker biller admin 1"),
    ("Usage/CorrectUsage", "biller admin"),
    ("Usage/SummarizeUsage", "biller admin read-only"),
    ("Usage/SummarizeStorage", "biller admin read-only"),
    ("Usage/ExportUsage", "biller admin"),
    ("Usage/AcknowledgeUsage", "biller admin"),
    ("Admin/GetStatus", "admin read-only"),
    ("Admin/InspectNamespaces", "admin read-only"),
    ("Admin/InspectPrefix", "admin read-only"),
    ("Admin/InspectBlock", "admin read-only"),
    ("Admin/InspectAccounts", "admin read-only"),
    ("Admin/Quiesce", "admin read-only"),
    ("Admin/Evict", "admin"),
    ("Admin/Purge", "admin"),
    ("Admin/Pin", "admin"),
    ("Admin/Unpin", "admin"),
    ("Admin/Retire", "admin"),
    ("Admin/Verify", "admin"),
    ("Admin/SetQuota", "admin"),
    ("Admin/Drain", "admin"),
];

#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

/// Every call of the contract, as `Service/Method`.
pub(crate) fn calls() -> Vec<String> {
    let set = Files::decode(proto::DESCRIPTORS).unwrap();
    let ours = set.files.into_iter().filter(|file| file.package == "kvtier.v1");
    let services = ours.flat_map(|file| file.services);
    let names = services.flat_map(|service| {
        let Service { name, methods } = service;
        methods.into_iter().map(move |method| format!("{name}/{}", method.name))
    });
    names.collect()
}

/// A daemon on loopback TCP with an access file, and the tokens of its principals by their names.
pub(crate) struct Guarded {
    pub(crate) daemon: Daemon,
    pub(crate) address: SocketAddr,
    pub(crate) tokens: BTreeMap<&'static str, String>,
    pub(crate) dir: tempfile::TempDir,
}

impl Guarded {
    pub(crate) async fn start(extra: &str, change: impl FnOnce(&Path, &mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut tokens = BTreeMap::new();
        let mut text = extra.to_owned();
        for (name, role, tenant) in [
            ("worker", "worker", "*"),
            ("biller", "biller", "*"),
            ("admin", "admin", "*"),
            ("read-only", "read-only", "*"),
            ("1", "worker", "acme"),
            ("other", "worker", "globex"),
        ] {
            let minted = Token::mint();
            text.push_str(&format!(
                "[[principal]]\nname = \"{name}\"\nrole = \"{role}\"\ntenants = [\"{tenant}\"]\ntokens = [\"{}\"]\n",
                minted.stored
            ));
            tokens.insert(name, minted.text);
        }
        let access = dir.path().join("access.toml");
        std::fs::write(&access, text).unwrap();
        let mut config = Config {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            access: Some(access),
            ..Config::new(dir.path().join("data"), ByteCount(MIB))
        };
        change(dir.path(), &mut config);
        let daemon = Daemon::start(config).await.unwrap();
        let address = daemon.tcp().unwrap();
        Self { daemon, address, tokens, dir }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::try_from(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(crate) fn request<T>(&self, name: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value: MetadataValue<_> = format!("Bearer {}", self.tokens[name]).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    }

    pub(crate) async fn counted(&self, name: &str) -> u64 {
        let mut admin = proto::admin_client::AdminClient::new(self.channel().await);
        let status = admin.get_status(self.request("admin", proto::GetStatusRequest {})).await.unwrap().into_inner();
        status.counters.get(name).copied().unwrap_or(0)
    }

    /// A lookup of a tenant's chain as somebody, on a connection of its own.
    pub(crate) async fn lookup(&self, name: &str, chain: proto::Chain) -> Result<proto::LookupReply, Status> {
        let mut cache = proto::cache_client::CacheClient::new(self.channel().await);
        let request = proto::LookupRequest { chain: Some(chain), ..Default::default() };
        cache.lookup(self.request(name, request)).await.map(tonic::Response::into_inner)
    }

    async fn register(&self) -> bytes::Bytes {
        let mut sessions = proto::sessions_client::SessionsClient::new(self.channel().await);
        let request = proto::RegisterNamespaceRequest { name: "test".into(), spec: Some(spec()), ..Default::default() };
        sessions.register_namespace(self.request("worker", request)).await.unwrap().into_inner().fingerprint
    }
}

/// How a call with an empty message ends.
pub(crate) async fn code(channel: Channel, call: &str, token: Option<&str>) -> Code {
    let mut service = tonic::client::Grpc::new(channel);
    service.ready().await.unwrap();
    let mut request = Request::new(());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let path: PathAndQuery = format!("/kvtier.v1.{call}").parse().unwrap();
    let answer: Result<tonic::Response<()>, Status> = service.unary(request, path, ProstCodec::default()).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_open_to_the_roles_that_may_and_to_nobody_else() {
    let guarded = Guarded::start("", |_, _| ()).await;
    let (known, written): (Vec<String>, Vec<&str>) = (calls(), MATRIX.iter().map(|(call, _)| *call).collect());
    let unlisted: Vec<&String> = known.iter().filter(|call| !written.contains(&call.as_str())).collect();
    assert_eq!((unlisted, known.len()), (vec![], written.len()), "the table above names every call");
    let channel = guarded.channel().await;
    for (call, roles) in MATRIX {
        assert_eq!(code(channel.clone(), call, None).await, Code::Unauthenticated, "{call} by nobody");
        let unknown = Token::mint().text;
        assert_eq!(code(channel.clone(), call, Some(&unknown)).await, Code::Unauthenticated, "{call} by a stranger");
        for name in ["worker", "biller", "admin", "read-only", "1"] {
            let may = roles.split(' ').any(|role| role == name);
            let code = code(channel.clone(), call, Some(&guarded.tokens[name])).await;
            assert_ne!(code, Code::Unauthenticated, "{call} by {name}");
            assert_eq!(code != Code::PermissionDenied, may, "{call} by {name} ended with {code:?}");
        }
    }
    assert_eq!(code(channel, "Admin/Nonsense", Some(&guarded.tokens["admin"])).await, Code::PermissionDenied);
    assert_eq!(guarded.counted("refused_unauthenticated").await, 2 * MATRIX.len() as u64);
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_is_not_the_callers_is_refused_wherever_it_is_named() {
    let guarded = Guarded::start("", |_, _| ()).await;
    let layout = guarded.register().await;
    let own = chain(&layout, 1, 2);
    let foreign = proto::Chain { tenant: "globex".into(), ..own.clone() };
    assert_eq!(guarded.lookup("1", own.clone()).await.unwrap().blocks_missed, 2);
    let said = ["principal 1 may not act for tenant globex"];
    refused(guarded.lookup("1", foreign.clone()).await, Code::PermissionDenied, &said);
    assert_eq!(guarded.lookup("worker", foreign).await.unwrap().blocks_missed, 2);
    // Keys that are given could be another tenant's.
    let keys = proto::Chain { blocks: Some(proto::chain::Blocks::BlockKeys(vec![1; 32].into())), ..own.clone() };
    refused(guarded.lookup("1", keys.clone()).await, Code::PermissionDenied, &["chain.block_keys is given"]);
    assert_eq!(guarded.lookup("worker", keys).await.unwrap().blocks_missed, 1);
    let resumed = proto::Chain { chain_offset: 1, parent_key: vec![1; 32].into(), ..own };
    refused(guarded.lookup("1", resumed).await, Code::PermissionDenied, &["chain.parent_key is given"]);
    let mut usage = proto::usage_client::UsageClient::new(guarded.channel().await);
    let settle = proto::SettleRequest { tenant: "globex".into(), billing_id: "b".into(), ..Default::default() };
    refused(usage.settle(guarded.request("1", settle)).await, Code::PermissionDenied, &said);
    assert_eq!(guarded.counted("refused_tenant").await, 4);
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_instances_are_their_openers_own() {
    let guarded = Guarded::start("", |dir, config| config.socket = Some(dir.join("k.sock"))).await;
    let layout = guarded.register().await;
    let mut sessions = proto::sessions_client::SessionsClient::new(guarded.channel().await);
    let open = || proto::OpenSessionRequest { instance: "e".into(), protocol_revision: 1, ..Default::default() };
    let mut stream = sessions.open_session(guarded.request("1", open())).await.unwrap().into_inner();
    let event = stream.message().await.unwrap().unwrap().event.unwrap();
    let proto::session_event::Event::Opened(opened) = event else { panic!("the first event is `opened`") };
    assert_eq!(opened.arena, None, "memory of all tenants is for those who may act for all");
    let all = proto::OpenSessionRequest { instance: "all".into(), ..open() };
    let mut for_all = sessions.open_session(guarded.request("worker", all)).await.unwrap().into_inner();
    let event = for_all.message().await.unwrap().unwrap().event.unwrap();
    let proto::session_event::Event::Opened(of_all) = event else { panic!("the first event is `opened`") };
    assert!(of_all.arena.is_some() && of_all.features.contains(&"load".to_owned()));
    assert!(!opened.features.contains(&"load".to_owned()));
    let taken = sessions.open_session(guarded.request("other", open())).await.map(|_| ());
    refused(taken, Code::PermissionDenied, &["instance e is in use by another principal"]);
    let request = |session_id| proto::LookupRequest {
        session_id,
        request_id: "r".into(),
        lease_ttl_ms: 1_000,
        chain: Some(proto::Chain { tenant: "globex".into(), ..chain(&layout, 1, 1) }),
        ..Default::default()
    };
    let mut cache = proto::cache_client::CacheClient::new(guarded.channel().await);
    let foreign = cache.lookup(guarded.request("other", request(opened.session_id))).await.unwrap_err();
    let unknown = cache.lookup(guarded.request("other", request(opened.session_id ^ 1))).await.unwrap_err();
    let without = |status: &Status, id: u64| (status.code(), status.message().replace(&id.to_string(), "ID"));
    assert_eq!(without(&foreign, opened.session_id), without(&unknown, opened.session_id ^ 1));
    assert_eq!(guarded.counted("refused_session").await, 2);
    guarded.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_is_refused_on_an_open_connection_and_a_bad_file_changes_nothing() {
    let guarded = Guarded::start("", |_, _| ()).await;
    let (file, channel) = (guarded.dir.path().join("access.toml"), guarded.channel().await);
    let text = std::fs::read_to_string(&file).unwrap();
    let ask = |name: &'static str| code(channel.clone(), "Admin/GetStatus", Some(&guarded.tokens[name]));
    assert_eq!((ask("admin").await, ask("read-only").await), (Code::Ok, Code::Ok));
    std::fs::write(&file, "[[principal]]\nname = 7\n").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(ask("read-only").await, Code::Ok, "what was in force stays in force");
    let without = text
        .replace("name = \"read-only\"", "name = \"reader\"")
        .replace(&kvtier_stored(&text, "read-only"), &Token::mint().stored);
    std::fs::write(&file, without).unwrap();
    let mut last = Code::Ok;
    for _ in 0..100 {
        last = ask("read-only").await;
        if last != Code::Ok {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!((last, ask("admin").await), (Code::Unauthenticated, Code::Ok));
    guarded.daemon.stop().await;
}

/// What an access file holds of the token of a principal.
fn kvtier_stored(text: &str, name: &str) -> String {
    let after = text.split(&format!("name = \"{name}\"")).nth(1).unwrap();
    after.split("tokens = [\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

pub(crate) fn key_pair() -> (GrantSigner, String) {
    use base64::Engine;
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let public = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    (GrantSigner::new("gw", pkcs8.as_ref()), public)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_lets_a_worker_act_for_its_tenant_and_for_nothing_else() {
    let (signer, public) = key_pair();
    let key = format!("[[grant_key]]\nkid = \"gw\"\npublic = \"{public}\"\ntenants = [\"acme\", \"globex\"]\n");
    let guarded = Guarded::start(&key, |_, _| ()).await;
    let layout = guarded.register().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let grant = Grant {
        tenant: TenantName::parse("globex").unwrap(),
        user: UserName::parse("ann").ok(),
        billing_id: BillingId::parse("b-1").ok(),
        attempt: None,
        retention: None,
        scopes: ["public:docs", "user"].map(|scope| ScopeKind::parse(scope).unwrap()).into(),
        expires_s: now + 60,
    };
    let signed = signer.sign(&grant).unwrap();
    let user = |user: &str| proto::ScopeStep {
        from_block: 0,
        scope: Some(proto::scope_step::Scope::User(proto::UserScope { user: user.into(), ..Default::default() })),
    };
    let of = |tenant: &str, who: &str, grant: &str| proto::Chain {
        tenant: tenant.into(),
        scopes: vec![user(who)],
        grant: grant.into(),
        ..chain(&layout, 1, 2)
    };
    assert_eq!(guarded.lookup("1", of("globex", "ann", &signed)).await.unwrap().blocks_missed, 2);
    let bad = |chain| guarded.lookup("1", chain);
    refused(bad(of("acme", "ann", &signed)).await, Code::PermissionDenied, &["tenant is acme", "grant is for globex"]);
    refused(bad(of("globex", "eve", &signed)).await, Code::PermissionDenied, &["user is eve", "for ann"]);
    let step = |from_block, scope| proto::ScopeStep { from_block, scope: Some(scope) };
    let domain = |name: &str| step(0, proto::scope_step::Scope::Domain(name.into()));
    let along = |steps: Vec<proto::ScopeStep>| proto::Chain { scopes: steps, ..of("globex", "ann", &signed) };
    let under = |name: &str| along(vec![domain(name), proto::ScopeStep { from_block: 1, ..user("ann") }]);
    assert_eq!(guarded.lookup("1", under("docs")).await.unwrap().blocks_missed, 2);
    let words = ["chain.scopes[0] is public:other", "the request's grant is for public:docs, user"];
    refused(bad(under("other")).await, Code::PermissionDenied, &words);
    let tenant = step(1, proto::scope_step::Scope::Tenant("globex".into()));
    refused(bad(along(vec![domain("docs"), tenant])).await, Code::PermissionDenied, &["chain.scopes[1] is tenant"]);
    refused(bad(along(vec![])).await, Code::PermissionDenied, &["chain.scopes[0] is tenant"]);
    let expired = signer.sign(&Grant { expires_s: now - 1, ..grant.clone() }).unwrap();
    refused(bad(of("globex", "ann", &expired)).await, Code::PermissionDenied, &["it has expired"]);
    let other = key_pair().0.sign(&grant).unwrap();
    refused(bad(of("globex", "ann", &other)).await, Code::PermissionDenied, &["signature is wrong"]);
    let initech = signer.sign(&Grant { tenant: TenantName::parse("initech").unwrap(), ..grant }).unwrap();
    refused(bad(of("initech", "ann", &initech)).await, Code::PermissionDenied, &["may not speak for tenant initech"]);
    let mut usage = proto::usage_client::UsageClient::new(guarded.channel().await);
    let settle = |id: &str| proto::SettleRequest {
        tenant: "globex".into(),
        billing_id: id.into(),
        instance: "e".into(),
        request_id: "r".into(),
        fingerprint: layout.clone(),
        prompt_tokens: 9,
        grant: signed.clone(),
        ..Default::default()
    };
    assert!(usage.settle(guarded.request("1", settle("b-1"))).await.is_ok());
    let wrong = usage.settle(guarded.request("1", settle("b-2"))).await;
    refused(wrong, Code::PermissionDenied, &["billing_id is b-2", "b-1"]);
    let user = proto::SettleRequest { user: "eve".into(), ..settle("b-1") };
    let other = usage.settle(guarded.request("1", user)).await;
    refused(other, Code::PermissionDenied, &["user is eve", "for ann"]);
    assert_eq!(guarded.counted("refused_grant").await, 10);
    guarded.daemon.stop().await;
}

#[test]
fn other_hosts_are_served_only_with_an_access_file_and_tls() {
    let files = TlsFiles { cert: "c".into(), key: "k".into(), client_ca: None };
    let config = |access: bool, tls: bool, plaintext: bool| Config {
        listen: Some("0.0.0.0:7400".parse().unwrap()),
        access: access.then(|| "a".into()),
        tls: tls.then(|| files.clone()),
        plaintext,
        ..Config::new("/nowhere".into(), ByteCount(MIB))
    };
    let why = |config: Config| config.check().map_err(|error| error.to_string());
    let nobody = why(config(false, true, true)).unwrap_err();
    assert!(nobody.contains("listen is 0.0.0.0:7400") && nobody.contains("--access FILE"), "{nobody}");
    let plain = why(config(true, false, false)).unwrap_err();
    assert!(plain.contains("--tls-cert, --tls-key") && plain.contains("--plaintext"), "{plain}");
    assert_eq!(why(config(true, true, false)), Ok(()));
    assert_eq!(why(config(true, false, true)), Ok(()));
}
