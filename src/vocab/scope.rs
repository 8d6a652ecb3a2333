//! Who may see a block. Along a chain the scope may only narrow, so that a shared system prompt can be followed by a
//! private turn.

use std::fmt;

use super::{DomainName, TenantName, UserName};

/// The public domain that requests name with `public`.
const PUBLIC: &str = "public";

/// Who may see a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every tenant of the namespace. It is the public domain called `public`.
    Public,
    /// The same, in a public domain of another name.
    Domain(DomainName),
    /// One tenant.
    Tenant(TenantName),
    /// One user of a tenant, with an optional salt.
    User(TenantName, UserName, Box<[u8]>),
}

impl Scope {
    /// That of a public domain, of which one has a name of its own.
    #[must_use]
    pub fn of_domain(domain: DomainName) -> Self {
        if domain.as_str() == PUBLIC { Self::Public } else { Self::Domain(domain) }
    }

    /// The public domain, where it is one.
    #[must_use]
    pub fn domain(&self) -> Option<DomainName> {
        match self {
            Self::Public => DomainName::parse(PUBLIC).ok(),
            Self::Domain(domain) => Some(domain.clone()),
            Self::Tenant(_) | Self::User(..) => None,
        }
    }

    /// What it is, without whose.
    #[must_use]
    pub fn kind(&self) -> ScopeKind {
        match (self, self.domain()) {
            (_, Some(domain)) => ScopeKind::Public(domain),
            (Self::User(..), None) => ScopeKind::User,
            (_, None) => ScopeKind::Tenant,
        }
    }

    /// The bytes that are mixed into keys: kind, then each part with its length before it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, parts): (u8, Vec<&[u8]>) = match self {
            Self::Public => (0, vec![]),
            Self::Domain(domain) => (3, vec![domain.as_str().as_bytes()]),
            Self::Tenant(tenant) => (1, vec![tenant.as_str().as_bytes()]),
            Self::User(tenant, user, salt) => (2, vec![tenant.as_str().as_bytes(), user.as_str().as_bytes(), salt]),
        };
        let mut bytes = vec![kind];
        for part in parts {
            bytes.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(part);
        }
        bytes
    }

    fn breadth(&self) -> u8 {
        match self {
            Self::Public | Self::Domain(_) => 2,
            Self::Tenant(_) => 1,
            Self::User(..) => 0,
        }
    }
}

/// What a scope is, without whose it is: what a grant may allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeKind {
    /// A public domain.
    Public(DomainName),
    /// A tenant's.
    Tenant,
    /// A user's.
    User,
}

impl ScopeKind {
    /// Reads `public` or `public:DOMAIN`, `tenant` or `user`.
    ///
    /// # Errors
    /// Says what it must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rule = || format!("scope {text:?} must be public, public:DOMAIN, tenant or user");
        match text {
            "tenant" => Ok(Self::Tenant),
            "user" => Ok(Self::User),
            PUBLIC => DomainName::parse(PUBLIC).map(Self::Public).map_err(|_| rule()),
            other => {
                let domain = other.strip_prefix("public:").and_then(|name| DomainName::parse(name).ok());
                domain.map(Self::Public).ok_or_else(rule)
            }
        }
    }
}

impl fmt::Display for ScopeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(domain) if domain.as_str() == PUBLIC => f.write_str(PUBLIC),
            Self::Public(domain) => write!(f, "public:{domain}"),
            Self::Tenant => f.write_str("tenant"),
            Self::User => f.write_str("user"),
        }
    }
}

/// The scopes along one chain: from which block each holds. Never empty, starts at block 0, and only narrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopePath(Vec<(u32, Scope)>);

/// Why a list of scopes is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The first scope does not start at block 0.
    #[error("scopes[0].from_block must be 0")]
    Start,
    /// A scope starts at or before the one ahead of it.
    #[error("scopes[{0}].from_block must be greater than the one before it")]
    Order(usize),
    /// A scope is as wide as the one before it, or wider.
    #[error("scopes[{0}] must be narrower than the one before it (public, then tenant, then user)")]
    Widens(usize),
}

impl ScopePath {
    /// One scope for the whole chain.
    #[must_use]
    pub fn all(scope: Scope) -> Self {
        Self(vec![(0, scope)])
    }

    /// Checks that the scopes start at block 0 and only narrow.
    ///
    /// # Errors
    /// Names the first scope that breaks the rule.
    pub fn new(scopes: Vec<(u32, Scope)>) -> Result<Self, ScopeError> {
        if scopes.first().is_none_or(|(from, _)| *from != 0) {
            return Err(ScopeError::Start);
        }
        for (at, pair) in scopes.windows(2).enumerate() {
            let [(before, wide), (after, narrow)] = pair else { continue };
            if after <= before {
                return Err(ScopeError::Order(at + 1));
            }
            if narrow.breadth() >= wide.breadth() {
                return Err(ScopeError::Widens(at + 1));
            }
        }
        Ok(Self(scopes))
    }

    /// The scopes with the block from which each holds.
    #[must_use]
    pub fn steps(&self) -> &[(u32, Scope)] {
        &self.0
    }

    /// The narrowest scope of the chain.
    #[must_use]
    pub fn last(&self) -> &Scope {
        self.0.last().map_or(&Scope::Public, |(_, scope)| scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_only_narrow() {
        let tenant = TenantName::parse("acme").unwrap();
        let user = UserName::parse("u1").unwrap();
        let private = Scope::User(tenant.clone(), user, Box::default());
        let path = vec![(0, Scope::Public), (3, Scope::Tenant(tenant.clone())), (9, private.clone())];
        assert!(ScopePath::new(path).is_ok());
        let docs = Scope::of_domain(DomainName::parse("docs").unwrap());
        assert!(ScopePath::new(vec![(0, docs.clone()), (3, Scope::Tenant(tenant.clone()))]).is_ok());
        assert_eq!(ScopePath::new(vec![(0, Scope::Public), (3, docs.clone())]), Err(ScopeError::Widens(1)));
        assert_eq!(Scope::of_domain(DomainName::parse("public").unwrap()), Scope::Public);
        assert_ne!(docs.encode(), Scope::Tenant(TenantName::parse("docs").unwrap()).encode());
        let widening = vec![(0, private), (3, Scope::Tenant(tenant.clone()))];
        assert_eq!(ScopePath::new(widening), Err(ScopeError::Widens(1)));
        assert_eq!(ScopePath::new(vec![(1, Scope::Public)]), Err(ScopeError::Start));
        assert_eq!(ScopePath::new(vec![(0, Scope::Public), (0, Scope::Tenant(tenant))]), Err(ScopeError::Order(1)));
    }
}
