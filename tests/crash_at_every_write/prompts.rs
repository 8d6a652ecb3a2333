//! Prompts by name, whose blocks' bytes follow from their keys.

use std::sync::Arc;

use kvtier::replay::payload;
use kvtier::vocab::namespace::{HashScheme, Weights};
use kvtier::vocab::{BlockKey, NamespaceSpec};

/// Four pages, so that a write can be torn.
pub(crate) const PAYLOAD_MAX: u32 = 16_384;

/// A prompt: the first blocks of another one, then its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompt {
    pub(crate) name: &'static str,
    pub(crate) head: Option<(&'static str, u32)>,
    pub(crate) blocks: u32,
}

/// All that the script stores. The drive has room for sixteen blocks.
pub(crate) const PROMPTS: [Prompt; 6] = [
    Prompt { name: "a", head: None, blocks: 6 },
    Prompt { name: "b", head: Some(("a", 2)), blocks: 5 },
    Prompt { name: "c", head: None, blocks: 9 },
    Prompt { name: "d", head: None, blocks: 4 },
    Prompt { name: "e", head: Some(("a", 4)), blocks: 8 },
    Prompt { name: "f", head: None, blocks: 7 },
];

impl Prompt {
    pub(crate) fn named(name: &str) -> Self {
        *PROMPTS.iter().find(|prompt| prompt.name == name).unwrap()
    }

    pub(crate) fn keys(&self) -> Arc<[BlockKey]> {
        let mut above = [0; 32];
        let keys = (0..self.blocks).map(|block| {
            let owner = self.head.filter(|(_, blocks)| block < *blocks).map_or(self.name, |(head, _)| head);
            above = *blake3::keyed_hash(&above, format!("{owner} {block}").as_bytes()).as_bytes();
            BlockKey::from_bytes(above)
        });
        keys.collect()
    }
}

/// A block's bytes: rarely as many as its slot has.
pub(crate) fn payload_of(key: &BlockKey) -> Vec<u8> {
    let mut bytes = vec![0; (PAYLOAD_MAX - u32::from(key.as_bytes()[0]) * 16) as usize];
    payload::fill(key, &mut bytes);
    bytes
}

pub(crate) fn spec() -> NamespaceSpec {
    NamespaceSpec {
        weights: Weights::Digest(Box::new([7; 32])),
        dtype: "u8".into(),
        layout: "script".into(),
        block_tokens: 16,
        stride: 1,
        shards: 1,
        groups: 1,
        hash_scheme: HashScheme::Tokens,
        max_payload_bytes: PAYLOAD_MAX,
        prefill_tokens_per_second: 0,
    }
}
