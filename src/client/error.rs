//! What can go wrong when a daemon is asked, by what the caller can do about it.

use std::error::Error;
use std::time::Duration;

use super::ServerAddress;

/// Why a call has no answer. A worker that meets one goes on without the cache.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there, or the connection broke: try again later, or elsewhere.
    #[error("{address}: {why}")]
    Unreachable {
        /// The daemon's address.
        address: ServerAddress,
        /// What the transport says.
        why: String,
    },
    /// The daemon refuses the request, and says why.
    #[error("{message} ({code:?})")]
    Refused {
        /// The kind of refusal.
        code: tonic::Code,
        /// The daemon's own sentence.
        message: String,
    },
    /// The daemon said nothing for longer than it may.
    #[error("{call} had no answer within {after:?}")]
    TimedOut {
        /// Which call.
        call: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The daemon answered in a way that the protocol does not know: two versions that don't fit.
    #[error("protocol: {what}")]
    Protocol {
        /// What was out of place.
        what: String,
    },
}

impl ClientError {
    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    pub(super) fn unreachable(address: &ServerAddress, error: &dyn Error) -> Self {
        Self::Unreachable { address: address.clone(), why: sentence(error) }
    }

    /// A status that was not sent by the daemon has the transport's error behind it.
    pub(super) fn of_status(address: &ServerAddress, status: &tonic::Status) -> Self {
        match status.source() {
            Some(source) => Self::unreachable(address, source),
            None => Self::Refused { code: status.code(), message: status.message().to_owned() },
        }
    }

    /// The daemon's kind of refusal, where it refused.
    #[must_use]
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// An error with its causes, each said once.
fn sentence(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        next = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_daemons_sentence() {
        let address = ServerAddress::Tcp("host:1".into());
        let error = ClientError::of_status(&address, &tonic::Status::not_found("chain.fingerprint 00 is unknown"));
        assert_eq!(error.code(), Some(tonic::Code::NotFound));
        assert_eq!(error.to_string(), "chain.fingerprint 00 is unknown (NotFound)");
    }

    #[test]
    fn a_broken_connection_is_told_apart_from_a_refusal_and_names_the_address() {
        let address = ServerAddress::Unix("/run/kvtier.sock".into());
        let broken = tonic::Status::from_error(Box::new(std::io::Error::other("connection reset")));
        let error = ClientError::of_status(&address, &broken);
        assert!(matches!(error, ClientError::Unreachable { .. }));
        assert_eq!(error.to_string(), "unix:/run/kvtier.sock: connection reset");
    }
}
