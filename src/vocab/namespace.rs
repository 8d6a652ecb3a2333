//! A namespace is one KV layout; its identity is the fingerprint of its spec, mixed into the root of every key.

use std::fmt;

use super::InstanceId;
use super::limits::{BLOCK_TOKENS_MAX, BLOCK_TOKENS_MIN, DIGEST_BYTES_MAX, PAYLOAD_BYTES_MAX, WORD_BYTES_MAX};

/// The identity of a namespace: 32 bytes of BLAKE3 over its spec.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Which weights made the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Digest of the weights: bytes may outlive the engine.
    Digest(Box<[u8]>),
    /// Unknown: names and revision strings are no identity, so the bytes stay in RAM and go with the instance.
    Unknown(InstanceId),
}

/// Who hashes the blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashScheme {
    /// kvtier, from tokens.
    Tokens,
    /// The engine; the name of its scheme with its seed, such as `vllm:sha256_cbor:vllm-none-hash`.
    Engine(Box<str>),
}

/// One KV layout, as an engine declares it. Built with [`NamespaceSpec::checked`] where it comes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSpec {
    /// Which weights.
    pub weights: Weights,
    /// Element type of the KV, such as `bf16` or `fp8_e4m3`.
    pub dtype: Box<str>,
    /// Name of the memory layout, such as `vllm:flash:NHD`.
    pub layout: Box<str>,
    /// Tokens of a kvtier block.
    pub block_tokens: u32,
    /// Engine blocks in a kvtier block.
    pub stride: u32,
    /// Parts of a payload that are written apart; 1 is built.
    pub shards: u32,
    /// Groups of layers; 1 (`ALL`) is built.
    pub groups: u32,
    /// Who hashes.
    pub hash_scheme: HashScheme,
    /// The largest payload of a block.
    pub max_payload_bytes: u32,
    /// Tokens a second that a load has to beat; 0 where unknown. Not part of the identity: a faster GPU does not make
    /// stored bytes wrong.
    pub prefill_tokens_per_second: u32,
}

/// A field of a spec that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field} is {value}, it must be {rule}")]
pub struct SpecError {
    /// Which field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl NamespaceSpec {
    /// Checks every field against its limits.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn checked(self) -> Result<Self, SpecError> {
        let fail = |field, value: &dyn fmt::Display, rule| Err(SpecError { field, value: value.to_string(), rule });
        if let Weights::Digest(digest) = &self.weights
            && (digest.len() < 16 || digest.len() > DIGEST_BYTES_MAX)
        {
            return fail("weights_digest", &format!("{} bytes", digest.len()), "16 to 64 bytes, or absent");
        }
        for (field, word) in [("dtype", &self.dtype), ("layout", &self.layout)] {
            if word.is_empty() || word.len() > WORD_BYTES_MAX {
                return fail(field, &format!("{} bytes", word.len()), "1 to 128 bytes");
            }
        }
        if !(BLOCK_TOKENS_MIN..=BLOCK_TOKENS_MAX).contains(&self.block_tokens) {
            return fail("block_tokens", &self.block_tokens, "16 to 512");
        }
        if self.stride == 0 || !self.block_tokens.is_multiple_of(self.stride) {
            return fail("stride", &self.stride, "at least 1 and a divisor of block_tokens");
        }
        if self.shards == 0 || self.shards > 64 {
            return fail("shards", &self.shards, "1 to 64");
        }
        if self.groups == 0 || self.groups > 64 {
            return fail("groups", &self.groups, "1 to 64");
        }
        if self.max_payload_bytes == 0 || self.max_payload_bytes > PAYLOAD_BYTES_MAX {
            return fail("max_payload_bytes", &self.max_payload_bytes, "1 to 67108864 (64 MiB)");
        }
        if let HashScheme::Engine(name) = &self.hash_scheme
            && (name.is_empty() || name.len() > WORD_BYTES_MAX)
        {
            return fail("engine_hash", &format!("{} bytes", name.len()), "1 to 128 bytes");
        }
        Ok(self)
    }

    /// The identity: a change of any field but the prefill rate makes another namespace.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_derive_key("kvtier 2026 namespace spec v1");
        let mut part = |bytes: &[u8]| {
            hasher.update(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            hasher.update(bytes);
        };
        match &self.weights {
            Weights::Digest(digest) => {
                part(b"digest");
                part(digest);
            }
            Weights::Unknown(instance) => {
                part(b"unknown");
                part(instance.as_str().as_bytes());
            }
        }
        part(self.dtype.as_bytes());
        part(self.layout.as_bytes());
        for number in [self.block_tokens, self.stride, self.shards, self.groups, self.max_payload_bytes] {
            part(&number.to_le_bytes());
        }
        match &self.hash_scheme {
            HashScheme::Tokens => part(b"tokens"),
            HashScheme::Engine(name) => {
                part(b"engine");
                part(name.as_bytes());
            }
        }
        Fingerprint(*hasher.finalize().as_bytes())
    }

    /// Whether bytes of it may be written to a drive.
    #[must_use]
    pub fn persistent(&self) -> bool {
        matches!(self.weights, Weights::Digest(_))
    }

    /// The first identity field in which two specs differ: what a caller with a pinned fingerprint wants to know.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            (self.weights != other.weights, "weights_digest"),
            (self.dtype != other.dtype, "dtype"),
            (self.layout != other.layout, "layout"),
            (self.block_tokens != other.block_tokens, "block_tokens"),
            (self.stride != other.stride, "stride"),
            (self.shards != other.shards, "shards"),
            (self.groups != other.groups, "groups"),
            (self.hash_scheme != other.hash_scheme, "hash_scheme"),
            (self.max_payload_bytes != other.max_payload_bytes, "max_payload_bytes"),
        ]
        .into_iter()
        .find_map(|(differs, field)| differs.then_some(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn spec() -> NamespaceSpec {
        NamespaceSpec {
            weights: Weights::Digest(Box::new([1; 32])),
            dtype: "bf16".into(),
            layout: "test".into(),
            block_tokens: 64,
            stride: 4,
            shards: 1,
            groups: 1,
            hash_scheme: HashScheme::Tokens,
            max_payload_bytes: 1 << 20,
            prefill_tokens_per_second: 10_000,
        }
    }

    #[test]
    fn every_identity_field_changes_the_fingerprint_and_is_named() {
        let base = spec();
        let changes: Vec<(&str, NamespaceSpec)> = vec![
            ("weights_digest", NamespaceSpec { weights: Weights::Digest(Box::new([2; 32])), ..spec() }),
            ("dtype", NamespaceSpec { dtype: "fp8".into(), ..spec() }),
            ("layout", NamespaceSpec { layout: "other".into(), ..spec() }),
            ("block_tokens", NamespaceSpec { block_tokens: 128, ..spec() }),
            ("stride", NamespaceSpec { stride: 1, ..spec() }),
            ("shards", NamespaceSpec { shards: 2, ..spec() }),
            ("groups", NamespaceSpec { groups: 2, ..spec() }),
            ("hash_scheme", NamespaceSpec { hash_scheme: HashScheme::Engine("x".into()), ..spec() }),
            ("max_payload_bytes", NamespaceSpec { max_payload_bytes: 1, ..spec() }),
        ];
        for (field, other) in changes {
            assert_ne!(base.fingerprint(), other.fingerprint(), "{field}");
            assert_eq!(base.difference(&other), Some(field));
        }
        let faster = NamespaceSpec { prefill_tokens_per_second: 1, ..spec() };
        assert_eq!(base.fingerprint(), faster.fingerprint());
        assert_eq!(base.difference(&faster), None);
    }

    #[test]
    fn a_bad_spec_names_field_value_and_rule() {
        let error = NamespaceSpec { block_tokens: 8, ..spec() }.checked().unwrap_err();
        assert_eq!(error.to_string(), "spec.block_tokens is 8, it must be 16 to 512");
        assert!(NamespaceSpec { stride: 3, ..spec() }.checked().is_err());
        assert!(spec().checked().is_ok());
    }
}
