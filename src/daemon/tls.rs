//! TLS of the TCP socket: certificate and key from files, and optionally the authority whose clients are let in.

use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::run::StartError;

/// Files of PEM blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The daemon's certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority of client certificates. With it, a client without a certificate of it is not spoken to.
    pub client_ca: Option<PathBuf>,
}

/// Reads the files.
pub(super) fn read(files: &TlsFiles) -> Result<ServerTlsConfig, StartError> {
    let identity = Identity::from_pem(file("tls_cert", &files.cert)?, file("tls_key", &files.key)?);
    let config = ServerTlsConfig::new().identity(identity);
    match &files.client_ca {
        Some(path) => Ok(config.client_ca_root(Certificate::from_pem(file("tls_client_ca", path)?))),
        None => Ok(config),
    }
}

fn file(field: &str, path: &Path) -> Result<Vec<u8>, StartError> {
    let bytes = std::fs::read(path).map_err(|error| StartError::Tls(format!("{field} {}: {error}", path.display())))?;
    let is_pem = bytes.windows(11).any(|window| window == b"-----BEGIN ");
    if is_pem {
        return Ok(bytes);
    }
    Err(StartError::Tls(format!("{field} {} holds no PEM block (-----BEGIN …)", path.display())))
}

/// An error with what caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
