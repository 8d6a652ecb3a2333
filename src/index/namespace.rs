//! A namespace's row: JSON of a private mirror of its spec, so that the words can change without the format.

use serde::{Deserialize, Serialize};

use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{Fingerprint, InstanceId, NamespaceId, NamespaceName, NamespaceSpec};

const VERSION: u32 = 1;

/// A namespace as the catalog remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Its number in this data folder.
    pub id: NamespaceId,
    /// Its alias.
    pub name: NamespaceName,
    /// Its layout.
    pub spec: NamespaceSpec,
    /// The spec's fingerprint.
    pub fingerprint: Fingerprint,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mirror {
    version: u32,
    name: String,
    fingerprint: String,
    weights_digest: Option<String>,
    instance: Option<String>,
    dtype: String,
    layout: String,
    block_tokens: u32,
    stride: u32,
    shards: u32,
    groups: u32,
    engine_hash: Option<String>,
    max_payload_bytes: u32,
    prefill_tokens_per_second: u32,
}

impl NamespaceRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let spec = &self.spec;
        let (weights_digest, instance) = match &spec.weights {
            Weights::Digest(digest) => (Some(to_hex(digest)), None),
            Weights::Unknown(instance) => (None, Some(instance.to_string())),
        };
        let engine_hash = match &spec.hash_scheme {
            HashScheme::Tokens => None,
            HashScheme::Engine(name) => Some(name.to_string()),
        };
        let mirror = Mirror {
            version: VERSION,
            name: self.name.to_string(),
            fingerprint: self.fingerprint.to_string(),
            weights_digest,
            instance,
            dtype: spec.dtype.to_string(),
            layout: spec.layout.to_string(),
            block_tokens: spec.block_tokens,
            stride: spec.stride,
            shards: spec.shards,
            groups: spec.groups,
            engine_hash,
            max_payload_bytes: spec.max_payload_bytes,
            prefill_tokens_per_second: spec.prefill_tokens_per_second,
        };
        // Strings and numbers always serialize; an empty row would be dropped when it is read.
        serde_json::to_vec(&mirror).unwrap_or_default()
    }

    /// `None` unless it is a whole row of a known version whose fingerprint is that of its spec.
    pub(super) fn decode(id: NamespaceId, bytes: &[u8]) -> Option<Self> {
        let mirror: Mirror = serde_json::from_slice(bytes).ok().filter(|mirror: &Mirror| mirror.version == VERSION)?;
        let weights = match (mirror.weights_digest, mirror.instance) {
            (Some(digest), None) => Weights::Digest(from_hex(&digest)?),
            (None, Some(instance)) => Weights::Unknown(InstanceId::parse(&instance).ok()?),
            _ => return None,
        };
        let spec = NamespaceSpec {
            weights,
            dtype: mirror.dtype.into(),
            layout: mirror.layout.into(),
            block_tokens: mirror.block_tokens,
            stride: mirror.stride,
            shards: mirror.shards,
            groups: mirror.groups,
            hash_scheme: mirror.engine_hash.map_or(HashScheme::Tokens, |name| HashScheme::Engine(name.into())),
            max_payload_bytes: mirror.max_payload_bytes,
            prefill_tokens_per_second: mirror.prefill_tokens_per_second,
        };
        let (spec, name) = (spec.checked().ok()?, NamespaceName::parse(&mirror.name).ok()?);
        let fingerprint = spec.fingerprint();
        (fingerprint.to_string() == mirror.fingerprint).then_some(Self { id, name, spec, fingerprint })
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Box<[u8]>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.len().is_multiple_of(2).then(|| text.as_bytes().chunks(2).map(pair).collect())?
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::index) fn row(id: u16, weights: Weights, hash_scheme: HashScheme) -> NamespaceRow {
        let spec = NamespaceSpec {
            weights,
            dtype: "bf16".into(),
            layout: "vllm:flash:NHD".into(),
            block_tokens: 64,
            stride: 4,
            shards: 1,
            groups: 1,
            hash_scheme,
            max_payload_bytes: 1 << 20,
            prefill_tokens_per_second: 10_000,
        };
        let fingerprint = spec.fingerprint();
        NamespaceRow { id: NamespaceId(id), name: NamespaceName::parse("llama/prod").unwrap(), spec, fingerprint }
    }

    #[test]
    fn every_kind_of_spec_reads_back() {
        let instance = InstanceId::parse("engine-1").unwrap();
        for row in [
            row(1, Weights::Digest(Box::new([7; 32])), HashScheme::Tokens),
            row(2, Weights::Unknown(instance), HashScheme::Engine("vllm:sha256_cbor".into())),
        ] {
            assert_eq!(NamespaceRow::decode(row.id, &row.encode()), Some(row));
        }
    }

    #[test]
    fn a_row_whose_fingerprint_is_not_its_specs_is_refused() {
        let row = row(1, Weights::Digest(Box::new([7; 32])), HashScheme::Tokens);
        let text = String::from_utf8(row.encode()).unwrap();
        for (from, to) in [("bf16", "fp16"), ("\"version\":1", "\"version\":2"), ("\"stride\"", "\"strid\"")] {
            assert!(text.contains(from));
            assert_eq!(NamespaceRow::decode(row.id, text.replace(from, to).as_bytes()), None, "{from}");
        }
    }
}
