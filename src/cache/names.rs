//! Namespaces and tenants of this data folder, by the small numbers that rows carry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::error::Error;
use crate::tiers::{Catalog, NamespaceRow};
use crate::vocab::limits::{ACCOUNTS_MAX, NAMESPACES_MAX};
use crate::vocab::{AccountId, AccountName, Fingerprint, NamespaceId, NamespaceName, NamespaceSpec};

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
    by_account: HashMap<AccountName, AccountId>,
    accounts: HashMap<AccountId, AccountName>,
}

/// The names known here. Kept in the catalog, because rows mean nothing without them.
#[derive(Debug, Default)]
pub struct Names {
    /// Read by every request: held for memory only, never while the catalog is written.
    inner: RwLock<Inner>,
    /// Who gives a new number: one at a time, and until it is in the catalog.
    numbering: Mutex<()>,
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
            for (id, name) in catalog.accounts().map_err(|error| broken(&error))? {
                inner.by_account.insert(name.clone(), id);
                inner.accounts.insert(id, name);
            }
        }
        Ok(Self { inner: RwLock::new(inner), numbering: Mutex::default(), catalog })
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
        let _numbering = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.namespace(&fingerprint) {
            return Ok((known, false));
        }
        let known = self.namespaces();
        if known.len() >= NAMESPACES_MAX {
            return Err(Error::Full(format!("{NAMESPACES_MAX} namespaces are registered, which is the limit")));
        }
        let id = NamespaceId(known.iter().map(|known| known.id.0 + 1).max().unwrap_or(0));
        let namespace = Arc::new(Namespace { id, name, fingerprint, spec });
        if let (Some(catalog), true) = (&self.catalog, namespace.spec.persistent()) {
            let Namespace { id, name, fingerprint, spec } = (*namespace).clone();
            let row = NamespaceRow { id, name, fingerprint, spec };
            catalog.put_namespace(&row).map_err(|error| Error::Broken(format!("catalog: {error}")))?;
        }
        let mut inner = self.write();
        inner.by_fingerprint.insert(fingerprint, known.len());
        inner.namespaces.push(Arc::clone(&namespace));
        Ok((namespace, true))
    }

    /// The namespace of this identity.
    #[must_use]
    pub fn namespace(&self, fingerprint: &Fingerprint) -> Option<Arc<Namespace>> {
        let inner = self.read();
        inner.by_fingerprint.get(fingerprint).map(|at| Arc::clone(&inner.namespaces[*at]))
    }

    /// All namespaces, in the order of their registration.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Arc<Namespace>> {
        self.read().namespaces.clone()
    }

    /// The account's number, given on first sight.
    ///
    /// # Errors
    /// Past the limit, or when the catalog can't be written.
    pub fn account(&self, name: &AccountName) -> Result<AccountId, Error> {
        if let Some(id) = self.known_account(name) {
            return Ok(id);
        }
        let _numbering = self.numbering.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = self.known_account(name) {
            return Ok(id);
        }
        let id = {
            let inner = self.read();
            if inner.accounts.len() >= ACCOUNTS_MAX {
                return Err(Error::Full(format!("{ACCOUNTS_MAX} tenants and domains are known, which is the limit")));
            }
            AccountId(inner.accounts.keys().map(|id| id.0 + 1).max().unwrap_or(0))
        };
        if let Some(catalog) = &self.catalog {
            catalog.put_account(id, name).map_err(|error| Error::Broken(format!("catalog: {error}")))?;
        }
        let mut inner = self.write();
        inner.accounts.insert(id, name.clone());
        inner.by_account.insert(name.clone(), id);
        Ok(id)
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account's number, if it has one.
    #[must_use]
    pub fn known_account(&self, name: &AccountName) -> Option<AccountId> {
        self.read().by_account.get(name).copied()
    }

    /// Whose this account is.
    #[must_use]
    pub fn account_name(&self, account: AccountId) -> Option<AccountName> {
        self.read().accounts.get(&account).cloned()
    }
}
