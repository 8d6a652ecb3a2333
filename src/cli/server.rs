//! Which daemon a command speaks to, and the default that `serve` and all others share.

use std::env;
use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::CliError;
use super::chain::read_file;
use crate::client::{Client, Credentials, ServerAddress};

/// Where a daemon of the whole host listens.
const HOST_SOCKET: &str = "/run/kvtier/kvtier.sock";

#[derive(Debug, Args)]
pub(super) struct Server {
    /// The daemon: host:port, a URL, or unix:PATH. Where absent, $KVTIER_SERVER; else the local daemon's socket:
    /// /run/kvtier/kvtier.sock where there is one or for root, else $XDG_RUNTIME_DIR/kvtier.sock.
    #[arg(long, value_name = "ADDRESS", value_parser = ServerAddress::parse)]
    server: Option<ServerAddress>,
    #[command(flatten)]
    pub(super) shown: Shown,
}

/// What a daemon that asks is shown.
#[derive(Debug, Args)]
pub(super) struct Shown {
    /// File with the bearer token to show. Where absent, $KVTIER_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Authority of the daemon's certificate, PEM, for https addresses. Where absent, the file $KVTIER_TLS_CA.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Client certificate to show, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Server {
    /// The address given by flag or environment.
    pub(super) fn given(&self) -> Result<Option<ServerAddress>, CliError> {
        if let Some(address) = &self.server {
            return Ok(Some(address.clone()));
        }
        match env::var_os("KVTIER_SERVER").filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => ServerAddress::parse(&text.to_string_lossy()).map(Some).map_err(CliError::Address),
        }
    }

    pub(super) fn address(&self) -> Result<ServerAddress, CliError> {
        if let Some(address) = self.given()? {
            return Ok(address);
        }
        let host = Path::new(HOST_SOCKET);
        let path = if host.exists() { host.to_owned() } else { default_socket()? };
        ServerAddress::parse(&format!("unix:{}", path.display())).map_err(CliError::Address)
    }

    /// Connects, and runs `job` to its end.
    pub(super) fn ask<T, J>(&self, job: impl FnOnce(Client) -> J) -> Result<T, CliError>
    where
        J: Future<Output = Result<T, CliError>>,
    {
        let (address, credentials) = (self.address()?, self.shown.credentials()?);
        let connect = async || Client::connect_as(&address, &credentials).await.map_err(CliError::NoDaemon);
        runtime()?.block_on(async { job(connect().await?).await })
    }
}

impl Shown {
    /// What the daemon is shown.
    pub(super) fn credentials(&self) -> Result<Credentials, CliError> {
        let token = match &self.token_file {
            Some(path) => Some(String::from_utf8_lossy(&read_file(path)?).trim().to_owned()),
            None => env::var_os("KVTIER_TOKEN")
                .map(|token| token.to_string_lossy().into_owned())
                .filter(|token| !token.is_empty()),
        };
        let authority = self.tls_ca.clone().or_else(|| env::var_os("KVTIER_TLS_CA").map(PathBuf::from));
        let authority = authority.map(|path| read_file(&path)).transpose()?;
        let identity = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((read_file(certificate)?, read_file(key)?)),
            _ => None,
        };
        Ok(Credentials { token, authority, identity })
    }
}

/// Where `serve` listens when it is not told, and where others look for it.
pub(super) fn default_socket() -> Result<PathBuf, CliError> {
    let is_root = rustix::process::geteuid().is_root();
    socket_of(is_root, env::var_os("XDG_RUNTIME_DIR").as_deref())
}

fn socket_of(is_root: bool, runtime_dir: Option<&OsStr>) -> Result<PathBuf, CliError> {
    if is_root {
        return Ok(HOST_SOCKET.into());
    }
    match runtime_dir.map(Path::new).filter(|dir| dir.is_absolute()) {
        Some(dir) => Ok(dir.join("kvtier.sock")),
        None => {
            Err(CliError::usage("--server", &"absent", "given, since XDG_RUNTIME_DIR names no folder for a socket"))
        }
    }
}

/// What runs the asynchronous half of a command.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|source: io::Error| CliError::File { path: "tokio runtime".into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_hosts_socket_and_others_their_own() {
        let dir = OsStr::new("/run/user/1000");
        assert_eq!(socket_of(true, Some(dir)).unwrap(), Path::new("/run/kvtier/kvtier.sock"));
        assert_eq!(socket_of(false, Some(dir)).unwrap(), Path::new("/run/user/1000/kvtier.sock"));
        for absent in [None, Some(OsStr::new("")), Some(OsStr::new("here"))] {
            assert!(socket_of(false, absent).is_err());
        }
    }
}
