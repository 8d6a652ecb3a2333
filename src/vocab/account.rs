//! Whose account blocks count against.

use std::fmt;

use super::{DomainName, TenantName, WordError};

/// What a domain's row begins with: no tenant's name has it.
const DOMAIN_MARK: char = '\u{1}';

/// Whose account: a tenant's, or that of a public domain, whose blocks all tenants may read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AccountName {
    /// A tenant.
    Tenant(TenantName),
    /// A public domain. An admin has created it.
    Domain(DomainName),
}

impl AccountName {
    /// The word by which databases know it: distinct among tenants and domains.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Tenant(tenant) => tenant.as_str().to_owned(),
            Self::Domain(domain) => format!("{DOMAIN_MARK}{domain}"),
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// When it is no name.
    pub fn decode(text: &str) -> Result<Self, WordError> {
        match text.strip_prefix(DOMAIN_MARK) {
            Some(domain) => DomainName::parse(domain).map(Self::Domain),
            None => TenantName::parse(text).map(Self::Tenant),
        }
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Domain(domain) => write!(f, "public domain {domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_no_tenant_of_the_same_name() {
        let tenant = AccountName::Tenant(TenantName::parse("docs").unwrap());
        let domain = AccountName::Domain(DomainName::parse("docs").unwrap());
        assert_ne!(tenant.encode(), domain.encode());
        for name in [tenant, domain] {
            assert_eq!(AccountName::decode(&name.encode()), Ok(name));
        }
        assert!(TenantName::parse("\u{1}docs").is_err(), "no tenant can take a domain's place");
    }
}
