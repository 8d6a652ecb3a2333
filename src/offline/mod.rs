//! A look at a stopped data folder: what is in it, and whether every slot holds what the index says. Changes nothing.

mod audit;
mod inspect;
mod judge;
mod usage;
mod verify;
#[cfg(test)]
mod verify_tests;

pub use audit::{AuditReport, DeliveryReport, DivergenceReport, LargeDivergence, TenantDivergence, audit};
pub use inspect::{NamespaceSummary, namespaces};
pub use usage::StoppedLedger;
pub use verify::{Problem, ProblemKind, VerifyReport, verify};

use std::path::{Path, PathBuf};

use crate::ledger::LedgerError;
pub use crate::ledger::{ExportReport, GatewayReport};
use crate::tiers::{Catalog, Folder, FolderError, IndexError};

/// Why a stopped folder can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// It is in use, is no data folder, or the file system refuses something.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The index can't be read.
    #[error("{path}: {source}. It was left as it is; a daemon started here forgets the drive's blocks and begins anew")]
    Catalog {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: IndexError,
    },
    /// Nobody has settled anything here, or its ledger was moved away.
    #[error("{0} is not there: this folder has no ledger")]
    NoLedger(PathBuf),
    /// The gateway's log can't be compared.
    #[error("{path}: {why}")]
    GatewayLog {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Opens the folder's catalog as it is; `None` where there is none, as in a folder that never had a drive.
fn open_catalog(folder: &Folder) -> Result<Option<Catalog>, OfflineError> {
    let path = folder.catalog();
    if !path.exists() {
        return Ok(None);
    }
    Catalog::open_existing(&path).map(Some).map_err(unreadable(&path))
}

fn unreadable(path: &Path) -> impl FnOnce(IndexError) -> OfflineError {
    move |source| OfflineError::Catalog { path: path.into(), source }
}
