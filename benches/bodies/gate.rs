//! What the gate's benches do, with a size as a parameter: the small one runs as a test, so that they never rot.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kvtier::client::{Chain, Client, FetchOptions, LookupOptions, ServerAddress, Session};
use kvtier::daemon::{Config, Daemon};
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{ByteCount, Fingerprint, InstanceId, NamespaceName, NamespaceSpec, RequestId, TenantName};

/// Bytes of an engine's key in these benches.
const KEY_LEN: u32 = 32;

/// Which socket the daemon is reached by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Unix,
    Tcp,
}

/// A daemon with one prompt in RAM, and one connection to it.
pub(crate) struct Gate {
    runtime: tokio::runtime::Runtime,
    client: Client,
    session: Session,
    fingerprint: Fingerprint,
    tenant: TenantName,
    chain: Chain,
    unknown: Chain,
    blocks: u32,
    payload: u32,
    bytes: Bytes,
    requests: u64,
    daemon: Option<Daemon>,
    _folder: tempfile::TempDir,
}

impl Gate {
    /// Starts it, and stores `blocks` blocks of `payload` bytes.
    pub(crate) fn with_prompt(over: Over, blocks: u32, payload: u32) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let ram = u64::from(blocks) * u64::from(payload.next_multiple_of(4096)) * 5 / 4 + (4 << 20);
        let data_dir = folder.path().join("data");
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = Config { socket: Some(socket.clone()), listen, ..Config::new(data_dir, ByteCount(ram)) };
        let bytes = Bytes::from(vec![7; payload as usize]);
        let tenant = TenantName::parse("bench").expect("a word");
        let (daemon, client, session, fingerprint, chain, unknown) = runtime.block_on(async {
            let daemon = Daemon::start(config).await.expect("a daemon");
            let address = match over {
                Over::Unix => format!("unix:{}", socket.display()),
                Over::Tcp => daemon.tcp().expect("it listens").to_string(),
            };
            let address = ServerAddress::parse(&address).expect("an address");
            let client = Client::connect(&address).await.expect("a connection");
            let instance = InstanceId::parse("bench").expect("a word");
            let session = client.open_session(&instance, "bench").await.expect("a session");
            let name = NamespaceName::parse("bench").expect("a word");
            let registered = client.register_namespace(Some(&session), &name, &spec(payload), None).await;
            let (fingerprint, _) = registered.expect("a namespace");
            let chain = Chain::of_engine_keys(fingerprint, &tenant, KEY_LEN, keys(blocks, 1));
            let unknown = Chain::of_engine_keys(fingerprint, &tenant, KEY_LEN, keys(blocks, 2));
            let request = RequestId::parse("put").expect("a word");
            let put = client.put(&session, &request, &chain, |_| bytes.clone()).await.expect("a put");
            assert_eq!(put.stored_through, blocks);
            (daemon, client, session, fingerprint, chain, unknown)
        });
        Self {
            runtime,
            client,
            session,
            fingerprint,
            tenant,
            chain,
            unknown,
            blocks,
            payload,
            bytes,
            requests: 0,
            daemon: Some(daemon),
            _folder: folder,
        }
    }

    /// Looks the whole prompt up; all of it is resident.
    pub(crate) fn lookup(&self) {
        let found =
            self.runtime.block_on(self.client.lookup(&self.chain, &LookupOptions::default())).expect("an answer");
        assert_eq!(found.counts.hit(), self.blocks);
    }

    /// Looks up a prompt of which nothing is known: what a miss costs.
    pub(crate) fn miss(&self) {
        let found =
            self.runtime.block_on(self.client.lookup(&self.unknown, &LookupOptions::default())).expect("an answer");
        assert_eq!(found.counts.missed, self.blocks);
    }

    /// Fetches the whole prompt; bytes brought.
    pub(crate) fn fetch(&mut self) -> u64 {
        self.requests += 1;
        let request = RequestId::parse(&format!("fetch-{}", self.requests)).expect("a word");
        self.runtime.block_on(async {
            let options = FetchOptions { deadline: Some(Duration::from_secs(60)), ..FetchOptions::default() };
            let mut fetch = self.client.fetch(&self.session, &request, &self.chain, options).await.expect("a stream");
            let mut bytes = 0;
            while let Some(block) = fetch.next_block().await.expect("a block") {
                bytes += block.bytes.len() as u64;
            }
            assert_eq!(bytes, u64::from(self.blocks) * u64::from(self.payload));
            bytes
        })
    }

    /// Stores a prompt of the same size that is not there yet; bytes taken. RAM holds one and a bit, so that an older
    /// prompt's blocks make room, as they do in a cache that is full.
    pub(crate) fn put(&mut self) -> u64 {
        self.requests += 1;
        let request = RequestId::parse(&format!("put-{}", self.requests)).expect("a word");
        let keys = keys(self.blocks, 2 + self.requests);
        let chain = Chain::of_engine_keys(self.fingerprint, &self.tenant, KEY_LEN, keys);
        let put = self.client.put(&self.session, &request, &chain, |_| self.bytes.clone());
        let put = self.runtime.block_on(put).expect("a put");
        assert_eq!((put.accepted_blocks, put.stored_through), (self.blocks, self.blocks), "{put:?}");
        put.sent_bytes
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            self.runtime.block_on(daemon.stop());
        }
    }
}

fn keys(blocks: u32, salt: u64) -> Bytes {
    let mut root = [0; 32];
    root[..8].copy_from_slice(&salt.to_le_bytes());
    let key = |block: u32| *blake3::keyed_hash(&root, &block.to_le_bytes()).as_bytes();
    (0..blocks).flat_map(key).collect::<Vec<u8>>().into()
}

fn spec(payload: u32) -> NamespaceSpec {
    NamespaceSpec {
        weights: Weights::Digest(Box::new([1; 32])),
        dtype: "u8".into(),
        layout: "bench".into(),
        block_tokens: 16,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Engine("bench".into()),
        max_payload_bytes: payload,
        prefill_tokens_per_second: 0,
    }
}
