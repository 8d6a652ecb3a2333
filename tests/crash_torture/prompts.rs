//! What is stored and asked for: prompts with shared heads, in two sizes of block. Bytes follow from keys, so that every
//! block that comes back can be judged by whoever asked for it.

use std::sync::Arc;

use bytes::Bytes;
use kvtier::client::{Chain, Client};
use kvtier::replay::payload;
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{BlockKey, Fingerprint, NamespaceName, NamespaceSpec, TenantName};

pub(crate) const BLOCK_TOKENS: u32 = 16;
/// The largest payload of each layout. They live in slots of different sizes.
const PAYLOADS_MAX: [u32; 2] = [4096, 16_384];
/// Prompts that the storm draws from: several times what the drive holds.
pub(crate) const PROMPTS: u64 = 120;
const HEADS: u64 = 9;
const HEAD_BLOCKS: u64 = 5;
const TAIL_BLOCKS_MAX: u64 = 14;

/// One prompt.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) keys: Arc<[BlockKey]>,
    pub(crate) fingerprint: Fingerprint,
    payload_max: u32,
}

/// The layouts as the daemon knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompts {
    seed: u64,
    fingerprints: [Fingerprint; 2],
}

impl Prompts {
    /// Declares the layouts: the same after every crash.
    pub(crate) async fn register(seed: u64, client: &Client) -> Self {
        let mut fingerprints = [Fingerprint([0; 32]); 2];
        for (fingerprint, max) in fingerprints.iter_mut().zip(PAYLOADS_MAX) {
            let name = NamespaceName::parse(&format!("torture-{max}")).unwrap();
            *fingerprint = client.register_namespace(None, &name, &spec(max), None).await.unwrap().0;
        }
        Self { seed, fingerprints }
    }

    /// One of the storm's.
    pub(crate) fn of_storm(&self, number: u64) -> Prompt {
        let head = (0..HEAD_BLOCKS).map(|block| (number % HEADS, block));
        let tail = (0..1 + number % TAIL_BLOCKS_MAX).map(|block| (HEADS + number, block));
        self.prompt(number % 2, head.chain(tail))
    }

    /// One that nobody else asks for.
    pub(crate) fn of_keeper(&self, round: u64, number: u64, blocks: u64) -> Prompt {
        let name = 1 << 63 | round << 32 | number;
        self.prompt(number % 2, (0..blocks).map(|block| (name, block)))
    }

    fn prompt(&self, layout: u64, blocks: impl Iterator<Item = (u64, u64)>) -> Prompt {
        let layout = layout as usize;
        let mut above = self.fingerprints[layout].0;
        let keys = blocks.map(|(name, block)| {
            let mut hasher = blake3::Hasher::new_keyed(&above);
            for word in [self.seed, name, block] {
                hasher.update(&word.to_le_bytes());
            }
            above = *hasher.finalize().as_bytes();
            BlockKey::from_bytes(above)
        });
        Prompt { keys: keys.collect(), fingerprint: self.fingerprints[layout], payload_max: PAYLOADS_MAX[layout] }
    }
}

impl Prompt {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.len() as u64 * u64::from(BLOCK_TOKENS)
    }

    pub(crate) fn chain(&self, tenant: &TenantName) -> Chain {
        Chain::of_block_keys(self.fingerprint, tenant, &self.keys)
    }

    /// The bytes of a block; rarely as long as its slot.
    pub(crate) fn payload(&self, block: usize) -> Bytes {
        let mut bytes = vec![0; self.length(block)];
        payload::fill(&self.keys[block], &mut bytes);
        bytes.into()
    }

    /// Whether these are the bytes of a block, to the last one.
    pub(crate) fn is(&self, block: usize, bytes: &[u8]) -> bool {
        bytes.len() == self.length(block) && payload::check(&self.keys[block], bytes)
    }

    fn length(&self, block: usize) -> usize {
        let max = u64::from(self.payload_max);
        (max - self.keys[block].hash64() % (max / 2)) as usize
    }
}

fn spec(max_payload_bytes: u32) -> NamespaceSpec {
    NamespaceSpec {
        weights: Weights::Digest(Box::new([7; 32])),
        dtype: "u8".into(),
        layout: "torture".into(),
        block_tokens: BLOCK_TOKENS,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes,
        prefill_tokens_per_second: 0,
    }
}
