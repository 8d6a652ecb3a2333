//! Declaring a KV layout.

use bytes::Bytes;

use super::{Client, ClientError, Session};
use crate::proto;
use crate::vocab::namespace::{HashScheme, Weights};
use crate::vocab::{Fingerprint, NamespaceName, NamespaceSpec};

impl Client {
    /// Declares a layout: its fingerprint, and whether the daemon saw it for the first time. With `expected` the call
    /// fails unless the spec has that fingerprint. A spec whose weights are unknown needs a session.
    ///
    /// # Errors
    /// Names the field of the spec that breaks its rule, or that differs from what is expected.
    pub async fn register_namespace(
        &self,
        session: Option<&Session>,
        name: &NamespaceName,
        spec: &NamespaceSpec,
        expected: Option<Fingerprint>,
    ) -> Result<(Fingerprint, bool), ClientError> {
        let request = proto::RegisterNamespaceRequest {
            session_id: session.map_or(0, Session::id),
            name: name.as_str().to_owned(),
            spec: Some(wire_spec(spec)),
            expected_fingerprint: expected.map_or_else(Bytes::new, |expected| Bytes::copy_from_slice(&expected.0)),
        };
        let reply = self.answer("RegisterNamespace", self.sessions_service().register_namespace(request)).await?;
        let Ok(fingerprint) = <[u8; 32]>::try_from(&reply.fingerprint[..]) else {
            return Err(ClientError::protocol(format!("a fingerprint of {} bytes", reply.fingerprint.len())));
        };
        Ok((Fingerprint(fingerprint), reply.created))
    }
}

fn wire_spec(spec: &NamespaceSpec) -> proto::NamespaceSpec {
    proto::NamespaceSpec {
        weights_digest: match &spec.weights {
            Weights::Digest(digest) => Bytes::copy_from_slice(digest),
            Weights::Unknown(_) => Bytes::new(),
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
