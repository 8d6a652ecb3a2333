//! Principals, their roles, and what a role may do.

use std::collections::BTreeSet;

use crate::vocab::TenantName;

/// What a call needs. Each RPC names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Open sessions and register layouts.
    SessionOpen,
    /// Find, lease and read blocks.
    CacheRead,
    /// Store blocks.
    CacheWrite,
    /// Settle requests.
    UsageSettle,
    /// Read sums of settled usage.
    UsageRead,
    /// Export records, acknowledge and correct them.
    UsageExport,
    /// Look inside.
    AdminLook,
    /// Take out, pin, set quotas.
    AdminChange,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SessionOpen,
        Self::CacheRead,
        Self::CacheWrite,
        Self::UsageSettle,
        Self::UsageRead,
        Self::UsageExport,
        Self::AdminLook,
        Self::AdminChange,
    ];

    /// Its name in documents and refusals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionOpen => "session.open",
            Self::CacheRead => "cache.read",
            Self::CacheWrite => "cache.write",
            Self::UsageSettle => "usage.settle",
            Self::UsageRead => "usage.read",
            Self::UsageExport => "usage.export",
            Self::AdminLook => "admin.look",
            Self::AdminChange => "admin.change",
        }
    }
}

/// What a principal is to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An inference engine: finds, reads and stores blocks, and may settle what it served.
    Worker,
    /// A gateway or a billing system: settles, exports, corrects.
    Biller,
    /// Everything.
    Admin,
    /// Looks, and changes nothing.
    ReadOnly,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Worker, Self::Biller, Self::Admin, Self::ReadOnly];

    /// Its name in the access file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Biller => "biller",
            Self::Admin => "admin",
            Self::ReadOnly => "read-only",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether it has a permission.
    #[must_use]
    pub const fn may(self, permission: Permission) -> bool {
        use Permission::{AdminLook, CacheRead, CacheWrite, SessionOpen, UsageExport, UsageRead, UsageSettle};
        match self {
            Self::Admin => true,
            Self::Worker => matches!(permission, SessionOpen | CacheRead | CacheWrite | UsageSettle),
            Self::Biller => matches!(permission, UsageSettle | UsageRead | UsageExport),
            Self::ReadOnly => matches!(permission, UsageRead | AdminLook),
        }
    }
}

/// The tenants that a principal may act for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tenants {
    /// Every one.
    All,
    /// These.
    Some(BTreeSet<TenantName>),
}

impl Tenants {
    /// Whether it is one of them.
    #[must_use]
    pub fn has(&self, tenant: &TenantName) -> bool {
        match self {
            Self::All => true,
            Self::Some(tenants) => tenants.contains(tenant),
        }
    }
}

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// For people, and for the log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// For whom.
    pub tenants: Tenants,
}

impl Principal {
    /// Whoever reaches a daemon that knows nobody: then only processes of its own host can.
    #[must_use]
    pub fn local() -> Self {
        Self { name: "local".into(), role: Role::Admin, tenants: Tenants::All }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_admin_changes_and_only_a_biller_exports_besides() {
        for role in Role::ALL {
            assert_eq!(role.may(Permission::AdminChange), role == Role::Admin, "{role:?}");
            assert_eq!(role.may(Permission::UsageExport), matches!(role, Role::Admin | Role::Biller), "{role:?}");
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        assert!(Permission::ALL.into_iter().all(|permission| Role::Admin.may(permission)));
        assert_eq!(Role::from_name("root"), None);
    }
}
