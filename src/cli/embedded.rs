//! A server inside of this program: for a replay or a demo that needs no other.

use std::future::Future;
use std::path::{Path, PathBuf};

use super::CliError;
use super::server::runtime;
use crate::client::ServerAddress;
use crate::daemon::{Config, Daemon, DriveSpec};
use crate::replay::{AdmissionKind, PolicyKind};
use crate::vocab::ByteCount;

/// What to embed.
pub(super) struct Embedded {
    /// Where it keeps its data; a temporary folder where absent.
    pub(super) data_dir: Option<PathBuf>,
    pub(super) ram: ByteCount,
    pub(super) nvme: ByteCount,
    pub(super) policy: PolicyKind,
    pub(super) admission: AdmissionKind,
}

impl Embedded {
    /// Starts the server on a Unix socket, runs `job` against it, and stops it; also when the user interrupts.
    /// `after` may look at the stopped data folder before a temporary one is removed.
    pub(super) fn run<T, U, J>(
        self,
        job: impl FnOnce(ServerAddress) -> J,
        after: impl FnOnce(T, &Path) -> Result<U, CliError>,
    ) -> Result<U, CliError>
    where
        J: Future<Output = Result<T, CliError>>,
    {
        let failed = |source| CliError::File { path: "temporary folder".into(), source };
        let scratch = tempfile::Builder::new().prefix("kvtier-").tempdir().map_err(failed)?;
        let data_dir = self.data_dir.unwrap_or_else(|| scratch.path().join("data"));
        let socket = scratch.path().join("kvtier.sock");
        let address = ServerAddress::parse(&format!("unix:{}", socket.display())).map_err(CliError::Address)?;
        let config = Config {
            socket: Some(socket),
            nvme: (self.nvme > ByteCount::ZERO).then(|| DriveSpec::here(self.nvme)).into_iter().collect(),
            policy: self.policy,
            admission: self.admission,
            // What it reads is not let go meanwhile: hits would not be those of a simulation.
            scrub: ByteCount::ZERO,
            ..Config::new(data_dir.clone(), self.ram)
        };
        let done = runtime()?.block_on(async {
            let daemon = Daemon::start(config).await?;
            let done = tokio::select! {
                done = job(address) => done,
                _ = tokio::signal::ctrl_c() => Err(CliError::Bad("interrupted".to_owned())),
                failure = daemon.failed() => Err(CliError::Failed(failure)),
            };
            daemon.stop().await;
            done
        })?;
        after(done, &data_dir)
    }
}
