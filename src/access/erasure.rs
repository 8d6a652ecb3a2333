//! Receipts of erasures: what a tenant gets who demanded that data be erased, signed with a key of the data folder (a JSON web
//! token, EdDSA), so that anybody with the public key can verify it later.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};

/// What was erased. Fields that narrowed the erasure are there, others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Always `kvtier erasure`.
    pub sub: String,
    /// When, in seconds since 1970.
    pub iat: u64,
    /// The same in milliseconds.
    pub purged_at_ms: u64,
    /// Whose blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of which user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Of which layout: its fingerprint in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Written by which engine instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// Written at or after this second since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u32>,
    /// How many blocks were erased from every tier.
    pub blocks: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// A key pair as its PKCS#8 bytes.
#[derive(Clone)]
pub struct ErasureKey(Vec<u8>);

impl ErasureKey {
    /// A new one; `None` where the system gives no random bytes.
    #[must_use]
    pub fn generate() -> Option<Self> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok().map(|pkcs8| Self(pkcs8.as_ref().to_vec()))
    }

    /// One that was kept; `None` where the bytes are no key.
    #[must_use]
    pub fn of(pkcs8: Vec<u8>) -> Option<Self> {
        Ed25519KeyPair::from_pkcs8(&pkcs8).is_ok().then_some(Self(pkcs8))
    }

    /// Its bytes, to be kept secret.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The public key, in base64url.
    #[must_use]
    pub fn public(&self) -> String {
        let pair = Ed25519KeyPair::from_pkcs8(&self.0);
        pair.map_or_else(|_| String::new(), |pair| URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()))
    }

    /// The receipt; `None` where it can't be signed.
    #[must_use]
    pub fn sign(&self, erasure: &Erasure) -> Option<String> {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), erasure, &EncodingKey::from_ed_der(&self.0)).ok()
    }
}

/// Reads a receipt back; `None` unless the owner of this public key (base64url) signed it.
#[must_use]
pub fn verify(receipt: &str, public: &str) -> Option<Erasure> {
    let key = jsonwebtoken::DecodingKey::from_ed_components(public).ok()?;
    let mut validation = jsonwebtoken::Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    jsonwebtoken::decode(receipt, &key, &validation).ok().map(|decoded| decoded.claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_its_keys_and_says_what_was_erased() {
        let (key, other) = (ErasureKey::generate().unwrap(), ErasureKey::generate().unwrap());
        let erasure = Erasure { tenant: Some("acme".into()), blocks: 3, bytes: 4_096, ..Erasure::default() };
        let receipt = key.sign(&erasure).unwrap();
        assert_eq!(verify(&receipt, &key.public()), Some(erasure));
        assert_eq!(verify(&receipt, &other.public()), None);
        assert_eq!(verify(&receipt.replacen('A', "B", 1), &key.public()), None);
        let kept = ErasureKey::of(key.as_bytes().to_vec()).unwrap();
        assert_eq!(kept.public(), key.public());
        assert!(ErasureKey::of(vec![1; 9]).is_none());
    }
}
