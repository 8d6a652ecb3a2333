//! Errors of the walks as gRPC statuses: what the caller must do, and the sentence that says why.

use tonic::{Code, Status};

use crate::cache::{Error, LeaseError};
use crate::session::{SessionError, SharingError};
use crate::vocab::WordError;
use crate::vocab::limits::WORD_BYTES_MAX;
use crate::vocab::namespace::SpecError;
use crate::vocab::scope::ScopeError;

/// The status of a walk's error.
pub(super) fn status(error: Error) -> Status {
    let message = error.to_string();
    match error {
        Error::Invalid(_) => Status::invalid_argument(message),
        Error::Absent(_) | Error::UnknownNamespace(_) | Error::Session(SessionError::Unknown(_)) => {
            Status::not_found(message)
        }
        Error::Session(SessionError::TooMany) | Error::Full(_) | Error::Lease(LeaseError::TooMany(_)) => {
            Status::resource_exhausted(message)
        }
        Error::Sharing(why) => Status::new(sharing(&why), message),
        Error::Lease(LeaseError::Ended(_)) | Error::Refused(_) => Status::failed_precondition(message),
        Error::Lease(LeaseError::Foreign(_)) | Error::Session(SessionError::Foreign(_)) => {
            Status::permission_denied(message)
        }
        Error::Conflict(_) => Status::already_exists(message),
        Error::Broken(_) | Error::Closing => Status::unavailable(message),
    }
}

fn sharing(error: &SharingError) -> Code {
    match error {
        SharingError::UnknownHandle(_) | SharingError::UnknownRegion(_) => Code::NotFound,
        SharingError::Foreign(_) => Code::PermissionDenied,
        SharingError::TooMany | SharingError::TooMuch { .. } => Code::ResourceExhausted,
        SharingError::Region(_) | SharingError::Staging(_) => Code::InvalidArgument,
    }
}

pub(super) fn session(error: SessionError) -> Status {
    status(error.into())
}

pub(super) fn word(error: WordError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn scope(error: ScopeError) -> Status {
    Status::invalid_argument(format!("chain.{error}"))
}

pub(super) fn spec(error: SpecError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A field that breaks its rule.
pub(super) fn invalid(field: &str, value: impl std::fmt::Display, rule: &str) -> Status {
    let mut value = value.to_string();
    value.truncate(value.floor_char_boundary(WORD_BYTES_MAX));
    Status::invalid_argument(format!("{field} is {value}, it must be {rule}"))
}

/// What the contract names and this version does not do.
pub(super) fn not_built(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not built in this version"))
}
