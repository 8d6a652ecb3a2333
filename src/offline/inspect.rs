//! Namespaces of a stopped folder, with what each has on the drive.

use std::path::Path;

use hashbrown::HashMap;

use super::{OfflineError, open_catalog, unreadable};
use crate::tiers::Folder;
use crate::vocab::{ByteCount, Fingerprint, NamespaceName, NamespaceSpec};

/// One namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSummary {
    /// Its alias.
    pub name: NamespaceName,
    /// Its identity.
    pub fingerprint: Fingerprint,
    /// Its layout.
    pub spec: NamespaceSpec,
    /// Rows of the index.
    pub blocks: u64,
    /// Bytes of their payloads.
    pub bytes: ByteCount,
}

/// The namespaces of the folder `dir`, in the order of their registration.
///
/// # Errors
/// When the folder is in use, is no data folder, or its catalog can't be read.
pub fn namespaces(dir: &Path) -> Result<Vec<NamespaceSummary>, OfflineError> {
    let folder = Folder::inspect(dir)?;
    let Some(catalog) = open_catalog(&folder)? else { return Ok(Vec::new()) };
    let path = folder.catalog();
    let mut counts: HashMap<u16, (u64, u64)> = HashMap::new();
    let count = |_, row: crate::tiers::Row| {
        let (blocks, bytes) = counts.entry(row.owner.namespace.0).or_default();
        *blocks += 1;
        *bytes += u64::from(row.length);
    };
    catalog.scan(count).map_err(unreadable(&path))?;
    let rows = catalog.namespaces().map_err(unreadable(&path))?;
    let summary = |row: crate::tiers::NamespaceRow| {
        let (blocks, bytes) = counts.get(&row.id.0).copied().unwrap_or_default();
        NamespaceSummary {
            name: row.name,
            fingerprint: row.fingerprint,
            spec: row.spec,
            blocks,
            bytes: ByteCount(bytes),
        }
    };
    Ok(rows.into_iter().map(summary).collect())
}
