//! TLS, and clients that are known by their certificates.

use kvtier::client::{Client, ClientError, Credentials, ServerAddress};
use kvtier::daemon::TlsFiles;
use kvtier::vocab::TenantName;

use crate::access::Guarded;
use crate::support::payload;

/// A private authority with what it has certified.
struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    fn certify(&self, name: &str, years: std::ops::Range<i32>) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_whoever_has_a_certificate_of_the_right_authority() {
    let (ours, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let (cert, key) = ours.certify("localhost", 2020..2120);
    let machine =
        "[[principal]]\nname = \"engine\"\nrole = \"worker\"\ntenants = [\"*\"]\ncertificates = [\"engine.example\"]\n";
    let guarded = Guarded::start(machine, |dir, config| {
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name)
        };
        config.tls = Some(TlsFiles {
            cert: file("cert.pem", &cert),
            key: file("key.pem", &key),
            client_ca: Some(file("ca.pem", &clients.pem)),
        });
    })
    .await;
    let address = ServerAddress::parse(&format!("https://localhost:{}", guarded.address.port())).unwrap();
    let engine = clients.certify("engine.example", 2020..2120);
    let pem = |(cert, key): &(String, String)| Some((cert.clone().into_bytes(), key.clone().into_bytes()));
    let shown = |identity: &(String, String)| Credentials {
        authority: Some(ours.pem.clone().into_bytes()),
        identity: pem(identity),
        ..Credentials::default()
    };
    let client = Client::connect_as(&address, &shown(&engine)).await.unwrap();
    bytes_cross_it(&client).await;
    // What is known by no name of its certificate needs a token, which counts instead.
    let stranger = clients.certify("stranger.example", 2020..2120);
    let by_name = Client::connect_as(&address, &shown(&stranger)).await.unwrap().status().await.unwrap_err();
    assert!(by_name.to_string().contains("no principal of the access file has a name of the client certificate"));
    let token = Some(guarded.tokens["admin"].clone());
    let by_token = Credentials { token, ..shown(&stranger) };
    assert!(Client::connect_as(&address, &by_token).await.unwrap().status().await.is_ok());
    let expired = clients.certify("engine.example", 2020..2021);
    let foreign = others.certify("engine.example", 2020..2120);
    for (identity, what) in [(Some(&expired), "expired"), (Some(&foreign), "another authority's"), (None, "absent")] {
        let shown = Credentials { identity: identity.and_then(pem), ..shown(&engine) };
        let refused = asks(&address, &shown).await;
        assert!(matches!(refused, Err(ClientError::Unreachable { .. })), "a certificate that is {what}: {refused:?}");
    }
    let wrong = Credentials { authority: Some(others.pem.into_bytes()), ..shown(&engine) };
    assert!(matches!(asks(&address, &wrong).await, Err(ClientError::Unreachable { .. })), "the daemon's own authority");
    let plain = ServerAddress::parse(&guarded.address.to_string()).unwrap();
    assert!(asks(&plain, &by_token).await.is_err(), "no TLS");
    guarded.daemon.stop().await;
}

async fn asks(address: &ServerAddress, shown: &Credentials) -> Result<bool, ClientError> {
    Client::connect_as(address, shown).await?.serves().await
}

/// Puts blocks of some hundred KiB and reads them back.
async fn bytes_cross_it(client: &Client) {
    use kvtier::client::{Chain, FetchOptions};
    use kvtier::vocab::namespace::{HashScheme, Weights};
    use kvtier::vocab::{InstanceId, NamespaceName, NamespaceSpec, RequestId};
    let layout = NamespaceSpec {
        weights: Weights::Digest([7; 32].into()),
        dtype: "u8".into(),
        layout: "tls".into(),
        block_tokens: 16,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes: 4_096,
        prefill_tokens_per_second: 0,
    };
    let session = client.open_session(&InstanceId::parse("engine").unwrap(), "test").await.unwrap();
    let name = NamespaceName::parse("tls").unwrap();
    client.register_namespace(None, &name, &layout, None).await.unwrap();
    let tenant = TenantName::parse("acme").unwrap();
    let prompt = Chain::of_tokens(layout.fingerprint(), &tenant, (0..16 * 100).collect());
    let request = RequestId::parse("r").unwrap();
    let source = |block: usize| payload(5, block as u32).into();
    assert_eq!(client.put(&session, &request, &prompt, source).await.unwrap().stored_through, 100);
    let mut fetch = client.fetch(&session, &request, &prompt, FetchOptions::default()).await.unwrap();
    let mut blocks = 0;
    while let Some(block) = fetch.next_block().await.unwrap() {
        assert!(block.bytes[..] == payload(5, blocks)[..], "block {blocks}");
        blocks += 1;
    }
    assert_eq!(blocks, 100);
}
