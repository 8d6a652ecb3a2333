//! `kvtier serve`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::chain::read_file;
use super::server::{default_socket, runtime};
use super::{CliError, policy, size};
use crate::daemon::{self, Config, DriveSpec};
use crate::replay::PolicyKind;
use crate::vocab::ByteCount;

/// RAM where nothing is said: enough to try it out, and less than any host has that serves models.
const RAM: ByteCount = ByteCount(1 << 30);
/// NVMe where nothing is said.
const NVME: ByteCount = ByteCount(8 << 30);

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where all that outlives the daemon is kept; made where absent.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// TCP address to listen on, such as 127.0.0.1:7400; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Unix socket to listen on. With neither --listen nor --socket it is the one where other commands look for a local
    /// daemon: /run/kvtier/kvtier.sock for root, else $XDG_RUNTIME_DIR/kvtier.sock.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The RAM tier [default: 1GiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--ram"))]
    ram: Option<ByteCount>,
    /// The NVMe tier, preallocated in the data folder; 0 for none [default: 8GiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--nvme"))]
    nvme: Option<ByteCount>,
    /// What is evicted first: lru.
    #[arg(long, value_name = "NAME", value_parser = policy::parse)]
    policy: Option<PolicyKind>,
    /// A JSON file with fields of the same names (data_dir, listen, socket, ram, nvme, policy); flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,kvtier::cache=debug.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

/// The configuration file. Sizes are text, as on the command line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    socket: Option<PathBuf>,
    ram: Option<String>,
    nvme: Option<String>,
    policy: Option<String>,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), CliError> {
        let level = self.log.clone();
        let config = self.configuration()?;
        daemon::telemetry::init(&level);
        Ok(runtime()?.block_on(daemon::run_until_signal(config))?)
    }

    fn configuration(self) -> Result<Config, CliError> {
        let file = match &self.config {
            None => ConfigFile::default(),
            Some(path) => serde_json::from_slice(&read_file(path)?)
                .map_err(|error| CliError::Config { path: path.clone(), why: error.to_string() })?,
        };
        let sized =
            |field: &'static str, flag: Option<ByteCount>, text: Option<String>, default: ByteCount| match (flag, text)
            {
                (Some(bytes), _) => Ok(bytes),
                (None, Some(text)) => size::parse(field, &text).map_err(CliError::Size),
                (None, None) => Ok(default),
            };
        let named =
            |name: String| policy::parse(&name).map_err(|_| CliError::usage("policy", &format!("{name:?}"), "lru"));
        let listen = self.listen.or(file.listen);
        let socket = match self.socket.or(file.socket) {
            None if listen.is_none() => Some(default_socket()?),
            socket => socket,
        };
        let absent = || CliError::usage("--data-dir", &"absent", "given, or data_dir in --config");
        Ok(Config {
            data_dir: self.data_dir.or(file.data_dir).ok_or_else(absent)?,
            listen,
            socket,
            ram: sized("ram", self.ram, file.ram, RAM)?,
            nvme: match sized("nvme", self.nvme, file.nvme, NVME)? {
                ByteCount::ZERO => Vec::new(),
                bytes => vec![DriveSpec::here(bytes)],
            },
            policy: match self.policy {
                Some(policy) => policy,
                None => file.policy.map(named).transpose()?.unwrap_or_default(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        serve: Serve,
    }

    fn configured(file: &str, flags: &[&str]) -> Result<Config, CliError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, file).unwrap();
        let args = ["serve", "--config", path.to_str().unwrap()].into_iter().chain(flags.iter().copied());
        Alone::parse_from(args).serve.configuration()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = r#"{"data_dir": "/d", "listen": "127.0.0.1:7400", "ram": "2GiB", "policy": "lru"}"#;
        let config = configured(file, &["--ram", "3GiB"]).unwrap();
        assert_eq!((config.ram, config.nvme, config.socket), (ByteCount(3 << 30), vec![DriveSpec::here(NVME)], None));
        assert_eq!(config.data_dir, PathBuf::from("/d"));
    }

    #[test]
    fn an_unknown_field_a_bad_size_and_no_folder_are_refused_by_name() {
        for (file, words) in [
            (r#"{"data_dir": "/d", "rum": "1GiB"}"#, "unknown field `rum`"),
            (r#"{"data_dir": "/d", "socket": "/s", "ram": "much"}"#, "ram is \"much\", it must be a size"),
            (r#"{"data_dir": "/d", "socket": "/s", "policy": "magic"}"#, "policy is \"magic\", it must be lru"),
            (r#"{"socket": "/s"}"#, "--data-dir is absent"),
        ] {
            let error = configured(file, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
