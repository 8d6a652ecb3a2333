//! What can go wrong in a walk, by what the caller must do about it.

use std::sync::Arc;

use crate::plan::LeaseError;
use crate::session::{SessionError, SharingError};
use crate::vocab::limits::REQUEST_BLOCKS_MAX;
use crate::vocab::{Fingerprint, WordError};

/// Why a walk ended early. Never because of what the cache holds: that is a miss.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A field of the request breaks its rule: mend the request.
    #[error("{0}")]
    Invalid(String),
    /// The namespace was never registered here: register it.
    #[error("chain.fingerprint {0} is not registered: call RegisterNamespace first")]
    UnknownNamespace(Fingerprint),
    /// The session has ended: open another.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The region is not what the caller thinks, or can't be had.
    #[error(transparent)]
    Sharing(Arc<SharingError>),
    /// The lease is not what the caller thinks.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The request contradicts what is recorded: don't repeat it.
    #[error("{0}")]
    Refused(String),
    /// What the request names is not there.
    #[error("{0}")]
    Absent(String),
    /// The same identity was settled with other numbers, or another one has the delivery.
    #[error("{0}")]
    Conflict(String),
    /// A limit is reached: come again later.
    #[error("{0}")]
    Full(String),
    /// A part of the daemon does not work: go on without it.
    #[error("{0}")]
    Broken(String),
    /// The daemon is stopping: go elsewhere.
    #[error("the daemon is shutting down")]
    Closing,
}

impl Error {
    pub(super) fn too_many_blocks(blocks: usize) -> Self {
        Self::Invalid(format!(
            "chain names {blocks} blocks, a request may name {REQUEST_BLOCKS_MAX}: send it in pieces"
        ))
    }
}

impl From<SharingError> for Error {
    fn from(error: SharingError) -> Self {
        Self::Sharing(Arc::new(error))
    }
}

impl From<WordError> for Error {
    fn from(error: WordError) -> Self {
        Self::Invalid(error.to_string())
    }
}
