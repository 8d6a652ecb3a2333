//! Namespaces and tenants of this data folder, by the small numbers that rows carry.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::error::Error;
use crate::tiers::{Catalog, NamespaceRow};
use crate::vocab::limits::{ACCOUNTS_MAX, NAMESPACES_MAX};
use crate::vocab::{AccountId, Fingerprint, NamespaceId, NamespaceName, NamespaceSpec, TenantName};

/// A registered namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Its number in rows.
    pub id: NamespaceId,
    /// What people call it.
    pub name: NamespaceName,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Its layout.
    pub spec: NamespaceSpec,
}

#[derive(Debug, Default)]
struct Inner {
    namespaces: Vec<Arc<Namespace>>,
    by_fingerprint: HashMap<Fingerprint, usize>,
    tenants: Vec<TenantName>,
    by_tenant: HashMap<TenantName, AccountId>,
}

/// The names known here. Kept in the catalog, because rows mean nothing without them.
#[derive(Debug, Default)]
pub struct Names {
    inner: RwLock<Inner>,
    catalog: Option<Arc<Catalog>>,
}

impl Names {
    /// Reads the names that the catalog keeps; without one they live in memory.
    ///
    /// # Errors
    /// When the catalog can't be read.
    pub fn open(catalog: Option<Arc<Catalog>>) -> Result<Self, Error> {
        let broken = |error: &dyn std::fmt::Display| Error::Broken(format!("catalog: {error}"));
        let mut inner = Inner::default();
        if let Some(catalog) = &catalog {
            for row in catalog.namespaces().map_err(|error| broken(&error))? {
                inner.by_fingerprint.insert(row.fingerprint, inner.namespaces.len());
                let NamespaceRow { id, name, fingerprint, spec } = row;
                inner.namespaces.push(Arc::new(Namespace { id, name, fingerprint, spec }));
            }
            for (id, name) in catalog.tenants().map_err(|error| broken(&error))? {
                inner.by_tenant.insert(name.clone(), id);
                inner.tenants.push(name);
            }
        }
        Ok(Self { inner: RwLock::new(inner), catalog })
    }

    /// Registers a layout; whether it is new.
    ///
    /// # Errors
    /// Past the limit, or when the catalog can't be written.
    pub fn register(&self, name: NamespaceName, spec: NamespaceSpec) -> Result<(Arc<Namespace>, bool), Error> {
        let fingerprint = spec.fingerprint();
        if let Some(known) = self.namespace(&fingerprint) {
            return Ok((known, false));
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = inner.by_fingerprint.get(&fingerprint) {
            return Ok((Arc::clone(&inner.namespaces[*at]), false));
        }
        let number = inner.namespaces.len();
        if number >= NAMESPACES_MAX {
            return Err(Error::Full(format!("{NAMESPACES_MAX} namespaces are registered, which is the limit")));
        }
        let id = NamespaceId(inner.namespaces.iter().map(|known| known.id.0 + 1).max().unwrap_or(0));
        let namespace = Arc::new(Namespace { id, name, fingerprint, spec });
        if let (Some(catalog), true) = (&self.catalog, namespace.spec.persistent()) {
            let Namespace { id, name, fingerprint, spec } = (*namespace).clone();
            let row = NamespaceRow { id, name, fingerprint, spec };
            catalog.put_namespace(&row).map_err(|error| Error::Broken(format!("catalog: {error}")))?;
        }
        inner.by_fingerprint.insert(fingerprint, number);
        inner.namespaces.push(Arc::clone(&namespace));
        Ok((namespace, true))
    }

    /// The namespace of this identity.
    #[must_use]
    pub fn namespace(&self, fingerprint: &Fingerprint) -> Option<Arc<Namespace>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_fingerprint.get(fingerprint).map(|at| Arc::clone(&inner.namespaces[*at]))
    }

    /// All namespaces, in the order of their registration.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Arc<Namespace>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).namespaces.clone()
    }

    /// The tenant's number, given on first sight.
    ///
    /// # Errors
    /// Past the limit, or when the catalog can't be written.
    pub fn account(&self, tenant: &TenantName) -> Result<AccountId, Error> {
        if let Some(id) = self.known_account(tenant) {
            return Ok(id);
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = inner.by_tenant.get(tenant) {
            return Ok(*id);
        }
        let next = inner.by_tenant.values().map(|id| id.0 + 1).max().unwrap_or(0);
        if inner.tenants.len() >= ACCOUNTS_MAX {
            return Err(Error::Full(format!("{ACCOUNTS_MAX} tenants are known, which is the limit")));
        }
        let id = AccountId(next);
        if let Some(catalog) = &self.catalog {
            catalog.put_tenant(id, tenant).map_err(|error| Error::Broken(format!("catalog: {error}")))?;
        }
        inner.tenants.push(tenant.clone());
        inner.by_tenant.insert(tenant.clone(), id);
        Ok(id)
    }

    /// The tenant's number, if it has one.
    #[must_use]
    pub fn known_account(&self, tenant: &TenantName) -> Option<AccountId> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).by_tenant.get(tenant).copied()
    }

    /// The tenant of this number.
    #[must_use]
    pub fn tenant(&self, account: AccountId) -> Option<TenantName> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_tenant.iter().find(|(_, id)| **id == account).map(|(name, _)| name.clone())
    }
}
