//! The access file: who is known, and by what. TOML, read whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::grant::GrantKey;
use super::principal::{Principal, Role, Tenants};
use super::token::{Token, TokenHash};
use crate::vocab::limits::{ACCESS_FILE_BYTES_MAX, PRINCIPALS_MAX};
use crate::vocab::{TenantName, Timestamp};

/// What stands for every tenant.
const EVERY: &str = "*";

/// A file that can't be used. What was in force before stays so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access file: {0}")]
pub struct BookError(pub String);

/// Everybody who is known.
#[derive(Debug, Default)]
pub struct Book {
    tokens: BTreeMap<String, (TokenHash, Option<Timestamp>, Arc<Principal>)>,
    uids: BTreeMap<u32, Arc<Principal>>,
    certificates: BTreeMap<String, Arc<Principal>>,
    grant_keys: BTreeMap<String, GrantKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    principal: Vec<PrincipalEntry>,
    #[serde(default)]
    grant_key: Vec<GrantKeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrincipalEntry {
    name: String,
    role: String,
    tenants: Vec<String>,
    #[serde(default)]
    tokens: Vec<TokenEntry>,
    #[serde(default)]
    uids: Vec<u32>,
    /// DNS names or URIs of client certificates.
    #[serde(default)]
    certificates: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a token must be a text, or a table of hash and expires")]
enum TokenEntry {
    Lasting(String),
    Expiring(ExpiringToken),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiringToken {
    hash: String,
    expires: toml::value::Datetime,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantKeyEntry {
    kid: String,
    public: String,
    tenants: Vec<String>,
}

fn refuse<T>(what: impl Into<String>) -> Result<T, BookError> {
    Err(BookError(what.into()))
}

impl Book {
    /// Reads an access file.
    ///
    /// # Errors
    /// Names the principal, the field, its value and the rule.
    pub fn parse(text: &str) -> Result<Self, BookError> {
        if text.len() > ACCESS_FILE_BYTES_MAX {
            return refuse(format!("it has {} bytes, it must have at most {ACCESS_FILE_BYTES_MAX}", text.len()));
        }
        let file: File = toml::from_str(text).map_err(|error| BookError(error.to_string()))?;
        if file.principal.len() > PRINCIPALS_MAX {
            return refuse(format!(
                "it has {} principals, it must have at most {PRINCIPALS_MAX}",
                file.principal.len()
            ));
        }
        let (mut book, mut names) = (Self::default(), BTreeSet::new());
        for entry in file.principal {
            if !names.insert(entry.name.clone()) {
                return refuse(format!("principal {:?} is there twice", entry.name));
            }
            book.add(entry)?;
        }
        for GrantKeyEntry { kid, public, tenants } in file.grant_key {
            let of = format!("grant_key {kid:?}");
            let key = GrantKey::parse(&public, parse_tenants(&of, &tenants)?).ok_or_else(|| {
                BookError(format!("{of}: public must be 32 bytes in base64url, as `kvtier grant key` prints them"))
            })?;
            if book.grant_keys.insert(kid, key).is_some() {
                return refuse(format!("{of} is there twice"));
            }
        }
        Ok(book)
    }

    fn add(&mut self, entry: PrincipalEntry) -> Result<(), BookError> {
        let of = format!("principal {:?}", entry.name);
        if entry.name.is_empty() || !entry.name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(format!("{of}: name must be printable ASCII without spaces"));
        }
        let Some(role) = Role::from_name(&entry.role) else {
            let names: Vec<&str> = Role::ALL.iter().map(|role| role.name()).collect();
            return refuse(format!("{of}: role is {:?}, it must be one of {}", entry.role, names.join(", ")));
        };
        let tenants = parse_tenants(&of, &entry.tenants)?;
        let principal = Arc::new(Principal { name: entry.name, role, tenants });
        for token in entry.tokens {
            let (stored, expires) = match token {
                TokenEntry::Lasting(hash) => (hash, None),
                TokenEntry::Expiring(ExpiringToken { hash, expires }) => (hash, Some(instant(&of, &expires)?)),
            };
            let Some((id, hash)) = TokenHash::parse(&stored) else {
                return refuse(format!("{of}: a token must be as `kvtier token new` prints it (id:hash)"));
            };
            if self.tokens.insert(id.clone(), (hash, expires, Arc::clone(&principal))).is_some() {
                return refuse(format!("{of}: token {id} is there twice"));
            }
        }
        for uid in entry.uids {
            if self.uids.insert(uid, Arc::clone(&principal)).is_some() {
                return refuse(format!("{of}: uid {uid} is another principal's, too"));
            }
        }
        for name in entry.certificates {
            if self.certificates.insert(name.clone(), Arc::clone(&principal)).is_some() {
                return refuse(format!("{of}: certificate {name:?} is another principal's, too"));
            }
        }
        Ok(())
    }

    /// Whose this token is; nobody's when it is unknown, not what its id says, or its time is over.
    #[must_use]
    pub fn of_token(&self, token: &Token<'_>, now: Timestamp) -> Option<Arc<Principal>> {
        let known = self.tokens.get(token.id());
        let is_it = token.is(known.map(|(hash, ..)| hash));
        let (_, expires, principal) = known.filter(|_| is_it)?;
        expires.is_none_or(|expires| now < expires).then(|| Arc::clone(principal))
    }

    /// Whose processes of this user are.
    #[must_use]
    pub fn of_uid(&self, uid: u32) -> Option<Arc<Principal>> {
        self.uids.get(&uid).cloned()
    }

    /// Whose a client certificate with one of these names is.
    #[must_use]
    pub fn of_certificate<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<Arc<Principal>> {
        names.into_iter().find_map(|name| self.certificates.get(name).cloned())
    }

    /// The key of this name that signs grants.
    #[must_use]
    pub fn grant_key(&self, kid: &str) -> Option<&GrantKey> {
        self.grant_keys.get(kid)
    }
}

fn parse_tenants(of: &str, names: &[String]) -> Result<Tenants, BookError> {
    if names == [EVERY] {
        return Ok(Tenants::All);
    }
    if names.is_empty() {
        return refuse(format!("{of}: tenants is empty, it must name some, or be [\"*\"] for all"));
    }
    let parsed: Result<BTreeSet<TenantName>, _> = names.iter().map(|name| TenantName::parse(name)).collect();
    match parsed {
        Ok(tenants) if names.iter().all(|name| name != EVERY) => Ok(Tenants::Some(tenants)),
        Ok(_) => refuse(format!("{of}: tenants has \"*\" beside names, it must stand alone")),
        Err(error) => refuse(format!("{of}: {error}")),
    }
}

fn instant(of: &str, time: &toml::value::Datetime) -> Result<Timestamp, BookError> {
    let parsed: Result<jiff::Timestamp, _> = time.to_string().parse();
    let ms = parsed.ok().and_then(|time| u64::try_from(time.as_millisecond()).ok());
    let rule =
        || BookError(format!("{of}: expires is {time}, it must be a time with its zone, such as 2027-01-31T00:00:00Z"));
    ms.map(Timestamp).ok_or_else(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> TenantName {
        TenantName::parse("acme").unwrap()
    }

    #[test]
    fn principals_are_known_by_token_uid_and_certificate_until_their_time_is_over() {
        let (lasting, expiring) = (Token::mint(), Token::mint());
        let text = format!(
            r#"
            [[principal]]
            name = "fleet"
            role = "worker"
            tenants = ["acme", "globex"]
            tokens = ["{}", {{ hash = "{}", expires = 2027-01-01T00:00:00Z }}]
            uids = [1000]
            certificates = ["engine.example", "spiffe://example/engine"]
            [[principal]]
            name = "ops"
            role = "admin"
            tenants = ["*"]
            uids = [0]
            "#,
            lasting.stored, expiring.stored
        );
        let book = Book::parse(&text).unwrap();
        let name = |principal: Option<Arc<Principal>>| principal.map(|principal| principal.name.clone());
        let of = |text: &str, now| name(book.of_token(&Token::parse(text).unwrap(), Timestamp(now)));
        let end = 1_798_761_600_000;
        assert_eq!(of(&lasting.text, u64::MAX).as_deref(), Some("fleet"));
        assert_eq!(of(&expiring.text, end - 1).as_deref(), Some("fleet"));
        assert_eq!(of(&expiring.text, end), None);
        assert_eq!(of(&Token::mint().text, 0), None);
        assert_eq!((name(book.of_uid(0)).as_deref(), book.of_uid(1)), (Some("ops"), None));
        assert_eq!(name(book.of_certificate(["x", "spiffe://example/engine"])).as_deref(), Some("fleet"));
        let fleet = book.of_uid(1000).unwrap();
        assert!(fleet.tenants.has(&acme()) && !fleet.tenants.has(&TenantName::parse("other").unwrap()));
        assert!(book.of_uid(0).unwrap().tenants.has(&acme()));
    }

    #[test]
    fn a_bad_file_is_refused_by_principal_field_and_rule() {
        let one =
            |fields: &str| format!("[[principal]]\nname = \"a\"\nrole = \"worker\"\ntenants = [\"x\"]\n{fields}\n");
        let token = Token::mint().stored;
        for (text, words) in [
            (one("rights = 1"), "unknown field `rights`"),
            (one("").replace("worker", "root"), "principal \"a\": role is \"root\", it must be one of worker, biller"),
            (one("").replace("[\"x\"]", "[]"), "principal \"a\": tenants is empty"),
            (one("").replace("[\"x\"]", "[\"*\", \"x\"]"), "\"*\" beside names"),
            (one("").replace("[\"x\"]", "[\"two words\"]"), "principal \"a\": tenant \"two words\" must be printable"),
            (one("") + &one(""), "principal \"a\" is there twice"),
            (one("tokens = [\"secret\"]"), "as `kvtier token new` prints it"),
            (one(&format!("tokens = [\"{token}\", \"{token}\"]")), "is there twice"),
            (one(&format!("tokens = [{{ hash = \"{token}\", expires = 2027-01-01 }}]")), "a time with its zone"),
            (one("uids = [1]") + &one("uids = [1]").replace("\"a\"", "\"b\""), "principal \"b\": uid 1 is another"),
            (one("").replace("\"a\"", "\"a b\""), "name must be printable ASCII"),
            (
                "[[grant_key]]\nkid = \"k\"\npublic = \"x\"\ntenants = [\"*\"]".into(),
                "grant_key \"k\": public must be 32",
            ),
        ] {
            let error = Book::parse(&text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
