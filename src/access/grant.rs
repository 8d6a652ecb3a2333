//! Grants: what a gateway, which knows the tenant, signs for one request, and an engine, which does not, passes along. JSON web
//! tokens (RFC 7519) signed with Ed25519 (RFC 8037), and no other algorithm, so that every gateway's language has a library.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use lru::LruCache;
use serde::{Deserialize, Serialize};

use super::principal::Tenants;
use crate::vocab::limits::{GRANT_BYTES_MAX, GRANT_LIFETIME_MAX, GRANTS_MAX};
use crate::vocab::scope::ScopeKind;
use crate::vocab::{BillingId, Retention, TenantName, Timestamp, UserName};

/// A public key of a gateway, and the tenants that it may speak for.
#[derive(Clone)]
pub struct GrantKey {
    key: DecodingKey,
    tenants: Tenants,
}

/// A gateway's private key.
pub struct GrantSigner {
    key: EncodingKey,
    kid: String,
}

/// What a gateway says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose request it is.
    pub tenant: TenantName,
    /// Which end user's, where it says so.
    pub user: Option<UserName>,
    /// How the bill names it, where it says so.
    pub billing_id: Option<BillingId>,
    /// Which try of the request it is for, where it says so.
    pub attempt: Option<u32>,
    /// How long its blocks may be kept at most, where it says so.
    pub retention: Option<Retention>,
    /// The scopes that its chains may have; any, where there are none.
    pub scopes: Vec<ScopeKind>,
    /// When it is no longer valid, in seconds since 1970.
    pub expires_s: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    billing_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retention: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
}

/// Why a text is no valid grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// This daemon has no access file, so it knows no gateway's key.
    #[error("the grant can't be verified: this daemon has no access file with grant keys")]
    NoKeys,
    /// Not a token of the form that is understood.
    #[error("the grant is not a JSON web token signed with EdDSA: {0}")]
    Malformed(String),
    /// Its key is not in the access file (any more).
    #[error("the grant's key {0:?} is not in the access file")]
    UnknownKey(String),
    /// It was changed, or signed with another key.
    #[error("the grant's signature is wrong")]
    Signature,
    /// Its time is over, or has not begun, or is longer than may be.
    #[error("the grant is not valid now: {0}")]
    Time(&'static str),
    /// The key may not speak for the tenant.
    #[error("the grant's key may not speak for tenant {0}")]
    Tenant(TenantName),
    /// A claim breaks its rule.
    #[error("the grant's {0}")]
    Claim(String),
}

impl GrantKey {
    /// A key from its 32 bytes in base64url.
    pub(super) fn parse(public: &str, tenants: Tenants) -> Option<Self> {
        let key = DecodingKey::from_ed_components(public).ok()?;
        // 32 bytes are 43 digits without padding.
        (public.len() == 43).then_some(Self { key, tenants })
    }
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantKey").field("tenants", &self.tenants).finish_non_exhaustive()
    }
}

impl fmt::Debug for GrantSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantSigner({}, secret)", self.kid)
    }
}

impl GrantSigner {
    /// A gateway's key of this name, from its PKCS#8 bytes.
    #[must_use]
    pub fn new(kid: &str, pkcs8: &[u8]) -> Self {
        Self { key: EncodingKey::from_ed_der(pkcs8), kid: kid.to_owned() }
    }

    /// Signs a grant.
    ///
    /// # Errors
    /// When the key is not an Ed25519 key.
    pub fn sign(&self, grant: &Grant) -> Result<String, GrantError> {
        let claims = Claims {
            tenant: grant.tenant.to_string(),
            user: grant.user.as_ref().map(ToString::to_string),
            billing_id: grant.billing_id.as_ref().map(ToString::to_string),
            attempt: grant.attempt,
            retention: grant.retention.map(|retention| retention.to_string()),
            scopes: grant.scopes.iter().map(ToString::to_string).collect(),
            exp: grant.expires_s,
            nbf: None,
            iat: None,
        };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|error| GrantError::Malformed(error.to_string()))
    }
}

/// Grants that were verified, so that the calls of one request verify one once.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<Option<LruCache<[u8; 32], Arc<Grant>>>>);

impl Grants {
    pub(super) fn verify(
        &self,
        text: &str,
        now: Timestamp,
        key: impl FnOnce(&str) -> Option<GrantKey>,
    ) -> Result<Arc<Grant>, GrantError> {
        if text.len() > GRANT_BYTES_MAX {
            return Err(GrantError::Malformed(format!("it has {} bytes, at most {GRANT_BYTES_MAX}", text.len())));
        }
        let digest = *blake3::hash(text.as_bytes()).as_bytes();
        let known = {
            let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            grants.as_mut().and_then(|grants| grants.get(&digest).cloned())
        };
        let now_s = u64::from(now.seconds());
        if let Some(grant) = known {
            return if now_s < grant.expires_s { Ok(grant) } else { Err(GrantError::Time("it has expired")) };
        }
        let grant = Arc::new(verify(text, now_s, key)?);
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants.get_or_insert_with(|| LruCache::new(GRANTS_MAX)).put(digest, Arc::clone(&grant));
        Ok(grant)
    }
}

fn verify(text: &str, now_s: u64, key: impl FnOnce(&str) -> Option<GrantKey>) -> Result<Grant, GrantError> {
    let malformed = |error: jsonwebtoken::errors::Error| GrantError::Malformed(error.to_string());
    let header = jsonwebtoken::decode_header(text).map_err(malformed)?;
    if header.alg != Algorithm::EdDSA {
        return Err(GrantError::Malformed(format!("its alg is {:?}", header.alg)));
    }
    let kid = header.kid.unwrap_or_default();
    let GrantKey { key, tenants } = key(&kid).ok_or(GrantError::UnknownKey(kid))?;
    // Times are looked at here, by the daemon's own clock.
    let mut validation = Validation::new(Algorithm::EdDSA);
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    let decoded = jsonwebtoken::decode::<Claims>(text, &key, &validation).map_err(|error| match error.kind() {
        jsonwebtoken::errors::ErrorKind::InvalidSignature => GrantError::Signature,
        _ => GrantError::Malformed(error.to_string()),
    })?;
    let claims = decoded.claims;
    if now_s >= claims.exp {
        return Err(GrantError::Time("it has expired"));
    }
    if claims.exp - now_s > GRANT_LIFETIME_MAX.as_secs() {
        return Err(GrantError::Time("exp is more than a day ahead"));
    }
    if claims.nbf.is_some_and(|begins| now_s < begins) {
        return Err(GrantError::Time("it begins later"));
    }
    let claim = |error: &dyn fmt::Display| GrantError::Claim(error.to_string());
    let tenant = TenantName::parse(&claims.tenant).map_err(|error| claim(&error))?;
    if !tenants.has(&tenant) {
        return Err(GrantError::Tenant(tenant));
    }
    let user = claims.user.as_deref().map(UserName::parse).transpose().map_err(|error| claim(&error))?;
    let billing_id = claims.billing_id.as_deref().map(BillingId::parse).transpose().map_err(|error| claim(&error))?;
    let retention = claims.retention.as_deref().map(Retention::parse).transpose().map_err(|error| claim(&error))?;
    let scopes = claims.scopes.iter().map(|scope| ScopeKind::parse(scope)).collect::<Result<Vec<_>, _>>();
    let scopes = scopes.map_err(GrantError::Claim)?;
    Ok(Grant { tenant, user, billing_id, attempt: claims.attempt, retention, scopes, expires_s: claims.exp })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    /// A gateway's key `k1`, and its public half as an access file has it.
    pub(crate) fn pair() -> (GrantSigner, String) {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        (GrantSigner::new("k1", pkcs8.as_ref()), base64url(pair.public_key().as_ref()))
    }

    fn base64url(bytes: &[u8]) -> String {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }

    fn grant() -> Grant {
        Grant {
            tenant: TenantName::parse("acme").unwrap(),
            user: UserName::parse("ann").ok(),
            billing_id: BillingId::parse("b-1").ok(),
            attempt: Some(2),
            retention: Retention::parse("guaranteed:1h").ok(),
            scopes: ["public", "public:docs", "user"].map(|scope| ScopeKind::parse(scope).unwrap()).into(),
            expires_s: 1_000,
        }
    }

    const NOW: Timestamp = Timestamp(900_000);

    fn verified(text: &str, public: &str, tenants: &Tenants, now: Timestamp) -> Result<Grant, GrantError> {
        let key = |kid: &str| (kid == "k1").then(|| GrantKey::parse(public, tenants.clone()).unwrap());
        Grants::default().verify(text, now, key).map(|grant| (*grant).clone())
    }

    #[test]
    fn a_grant_says_what_was_signed() {
        let (signer, public) = pair();
        let text = signer.sign(&grant()).unwrap();
        assert_eq!(verified(&text, &public, &Tenants::All, NOW), Ok(grant()));
    }

    #[test]
    fn what_was_changed_or_is_signed_by_another_or_not_at_all_is_refused() {
        let ((signer, public), (_, other)) = (pair(), pair());
        let text = signer.sign(&grant()).unwrap();
        assert_eq!(verified(&text, &other, &Tenants::All, NOW), Err(GrantError::Signature));
        let parts: Vec<&str> = text.split('.').collect();
        let forged = base64url(br#"{"tenant":"globex","exp":1000}"#);
        let changed = [parts[0], &forged, parts[2]].join(".");
        assert_eq!(verified(&changed, &public, &Tenants::All, NOW), Err(GrantError::Signature));
        for header in [r#"{"alg":"none","kid":"k1"}"#, r#"{"alg":"HS256","kid":"k1"}"#] {
            let text = [&base64url(header.as_bytes()), parts[1], ""].join(".");
            let refused = verified(&text, &public, &Tenants::All, NOW);
            assert!(matches!(refused, Err(GrantError::Malformed(_))), "{refused:?}");
        }
        let foreign = GrantSigner { kid: "k2".into(), ..signer }.sign(&grant()).unwrap();
        assert_eq!(verified(&foreign, &public, &Tenants::All, NOW), Err(GrantError::UnknownKey("k2".into())));
        let long = "x".repeat(GRANT_BYTES_MAX + 1);
        assert!(matches!(verified(&long, &public, &Tenants::All, NOW), Err(GrantError::Malformed(_))));
    }

    #[test]
    fn its_time_and_its_tenant_are_looked_at() {
        let (signer, public) = pair();
        let text = signer.sign(&grant()).unwrap();
        assert_eq!(
            verified(&text, &public, &Tenants::All, Timestamp(1_000_000)),
            Err(GrantError::Time("it has expired"))
        );
        let far = signer.sign(&Grant { expires_s: 900 + 86_401, ..grant() }).unwrap();
        assert!(matches!(verified(&far, &public, &Tenants::All, NOW), Err(GrantError::Time(_))));
        let others = Tenants::Some(BTreeSet::from([TenantName::parse("globex").unwrap()]));
        assert_eq!(verified(&text, &public, &others, NOW), Err(GrantError::Tenant(grant().tenant)));
    }

    #[test]
    fn a_known_grant_is_not_verified_again_and_still_expires() {
        let (signer, public) = pair();
        let (grants, text) = (Grants::default(), signer.sign(&grant()).unwrap());
        let key = |_: &str| GrantKey::parse(&public, Tenants::All);
        grants.verify(&text, NOW, key).unwrap();
        let gone = |_: &str| -> Option<GrantKey> { panic!("it is known") };
        assert!(grants.verify(&text, NOW, gone).is_ok());
        let late = grants.verify(&text, Timestamp(1_000_000), gone);
        assert_eq!(late, Err(GrantError::Time("it has expired")));
    }
}
