//! The receipt of a purge.

use crate::access::{Erasure, ErasureKey};
use crate::cache::Cache;
use crate::proto;

/// Under which name the key is kept.
const KEY: &str = "erasure key";

/// Puts the receipt into the reply. Without one where the daemon's key can't be had: the blocks are erased all the same.
pub(super) fn sign(cache: &Cache, request: &proto::PurgeRequest, reply: &mut proto::PurgeReply) {
    let make = || ErasureKey::generate().map(|key| key.as_bytes().to_vec()).unwrap_or_default();
    let Some(key) = cache.kept_secret(KEY, make).and_then(ErasureKey::of) else { return };
    let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
    let hex: String = request.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    let erasure = Erasure {
        sub: "kvtier erasure".into(),
        iat: reply.purged_at_ms / 1_000,
        purged_at_ms: reply.purged_at_ms,
        tenant: word(&request.tenant),
        user: word(&request.user),
        namespace: word(&hex),
        writer: word(&request.writer),
        since_s: (request.since_s > 0).then_some(request.since_s),
        blocks: reply.blocks,
        bytes: reply.bytes,
    };
    reply.receipt = key.sign(&erasure).unwrap_or_default();
    reply.public_key = key.public();
}
