//! Names and numbers of things, each with one constructor. Words from outside are checked here, once.

use std::fmt;

use super::limits::WORD_BYTES_MAX;

/// A word from outside that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} {rule}")]
pub struct WordError {
    /// Which field of the request.
    pub field: &'static str,
    /// What it held, shortened.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the word: 1 to 128 printable ASCII characters without spaces.
            ///
            /// # Errors
            /// When it is empty, too long, or has another character.
            pub fn parse(word: &str) -> Result<Self, WordError> {
                let good = |byte: u8| byte.is_ascii_graphic();
                let rule = if word.is_empty() {
                    "must not be empty"
                } else if word.len() > WORD_BYTES_MAX {
                    "must be at most 128 bytes"
                } else if !word.bytes().all(good) {
                    "must be printable ASCII without spaces"
                } else {
                    return Ok(Self(word.into()));
                };
                Err(WordError { field: $field, value: word.chars().take(40).collect(), rule })
            }

            /// The word.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// 128 bits that stand for the word where a fixed size is wanted.
            #[must_use]
            pub fn digest(&self) -> u128 {
                let hash = blake3::derive_key(concat!("kvtier 2026 word ", $field), self.0.as_bytes());
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&hash[..16]);
                u128::from_le_bytes(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word! {
    /// Who owns cached blocks, whose quota they count against, who pays.
    TenantName, "tenant"
}
word! {
    /// A public domain: blocks that all tenants may read, with an account of its own.
    DomainName, "domain"
}
word! {
    /// An end user of a tenant.
    UserName, "user"
}
word! {
    /// One running engine with all its processes.
    InstanceId, "instance"
}
word! {
    /// A request as its engine names it; unique within the instance.
    RequestId, "request_id"
}
word! {
    /// A request as the bill names it; unique within the tenant, whatever host serves it.
    BillingId, "billing_id"
}
word! {
    /// A tenant's API key by its id in the tenant's books: never the key itself.
    ApiKeyId, "api_key_id"
}
word! {
    /// A retention class as the bill names it, such as 5m or 1h.
    ClassName, "written_by_class"
}
word! {
    /// What people call a namespace. An alias: the fingerprint is its identity.
    NamespaceName, "namespace"
}

/// A namespace's number in one data folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub u16);

/// A tenant's number in one data folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u16);

/// A lease's number: the daemon's boot in the upper half, so that one from before a restart names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_word_names_field_value_and_rule() {
        let error = TenantName::parse("two words").unwrap_err();
        assert_eq!(error.to_string(), "tenant \"two words\" must be printable ASCII without spaces");
        assert!(TenantName::parse("").is_err());
        assert!(TenantName::parse(&"x".repeat(129)).is_err());
        assert!(TenantName::parse("acme/prod").is_ok());
    }

    #[test]
    fn the_same_word_for_another_thing_has_another_digest() {
        let tenant = TenantName::parse("a").unwrap();
        let user = UserName::parse("a").unwrap();
        assert_ne!(tenant.digest(), user.digest());
    }
}
