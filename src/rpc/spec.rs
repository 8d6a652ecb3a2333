//! Namespace specs between the wire and the words.

use tonic::Status;

use super::status::{invalid, not_built, spec as refuse};
use crate::proto;
use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{Fingerprint, InstanceId, NamespaceSpec};

/// Parses a spec. `instance` is what a layout of unknown weights belongs to.
pub(super) fn parse(spec: proto::NamespaceSpec, instance: Option<InstanceId>) -> Result<NamespaceSpec, Status> {
    let weights = if spec.weights_digest.is_empty() {
        let rule = "given, unless session_id names the instance that alone knows the weights";
        Weights::Unknown(instance.ok_or_else(|| invalid("spec.weights_digest", "empty", rule))?)
    } else {
        Weights::Digest(spec.weights_digest.to_vec().into())
    };
    let hash_scheme =
        if spec.engine_hash.is_empty() { HashScheme::Tokens } else { HashScheme::Engine(spec.engine_hash.into()) };
    let parsed = NamespaceSpec {
        weights,
        dtype: spec.dtype.into(),
        layout: spec.layout.into(),
        block_tokens: spec.block_tokens,
        stride: spec.stride.max(1),
        shards: spec.shards.max(1),
        groups: spec.groups.max(1),
        hash_scheme,
        max_payload_bytes: spec.max_payload_bytes,
        prefill_tokens_per_second: spec.prefill_tokens_per_second,
    }
    .checked()
    .map_err(refuse)?;
    if parsed.shards > 1 {
        return Err(not_built(&format!("spec.shards {} (more than 1)", parsed.shards)));
    }
    if parsed.groups > 1 {
        return Err(not_built(&format!("spec.groups {} (more than 1)", parsed.groups)));
    }
    Ok(parsed)
}

/// A spec for the wire.
pub(super) fn unparse(spec: &NamespaceSpec) -> proto::NamespaceSpec {
    proto::NamespaceSpec {
        weights_digest: match &spec.weights {
            Weights::Digest(digest) => digest.to_vec().into(),
            Weights::Unknown(_) => bytes::Bytes::new(),
        },
        dtype: spec.dtype.to_string(),
        layout: spec.layout.to_string(),
        block_tokens: spec.block_tokens,
        stride: spec.stride,
        shards: spec.shards,
        groups: spec.groups,
        engine_hash: match &spec.hash_scheme {
            HashScheme::Tokens => String::new(),
            HashScheme::Engine(name) => name.to_string(),
        },
        max_payload_bytes: spec.max_payload_bytes,
        prefill_tokens_per_second: spec.prefill_tokens_per_second,
    }
}

/// Parses a fingerprint.
pub(super) fn fingerprint(field: &str, bytes: &[u8]) -> Result<Fingerprint, Status> {
    let length = || invalid(&format!("{field} length"), format!("{} bytes", bytes.len()), "32 bytes");
    Ok(Fingerprint(bytes.try_into().map_err(|_| length())?))
}
