//! `kvtier serve`: the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::chain::read_file;
use super::server::{default_socket, runtime};
use super::{CliError, drive, names, size};
use crate::daemon::{self, Config, DriveSpec, IoEngine, IoOptions, TlsFiles};
use crate::replay::{AdmissionKind, PolicyKind};
use crate::vocab::ByteCount;
use crate::vocab::limits::{
    DEVICE_INFLIGHT_BYTES, FLUSH_MAX, LEDGER_BYTES, RECORD_BYTES, SCRUB_BYTES_PER_SECOND, USAGE_RETENTION,
};
use crate::watch::Watch;

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
    /// Unix socket to listen on; PATH.arena beside it shares RAM with this user's processes. With neither --listen nor
    /// --socket it is the one where other commands look for a local daemon: /run/kvtier/kvtier.sock for root, else
    /// $XDG_RUNTIME_DIR/kvtier.sock.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// TCP address that serves Prometheus metrics on /metrics, such as 127.0.0.1:7401; none where absent.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// The RAM tier [default: 1GiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--ram"))]
    ram: Option<ByteCount>,
    /// A drive of the NVMe tier, preallocated: SIZE in the data folder, or DIR=SIZE on the drive that is mounted at DIR.
    /// Once for each drive; losing one loses its blocks and no others. 0 for none [default: 8GiB].
    #[arg(long, value_name = "[DIR=]SIZE", value_parser = drive::parse)]
    nvme: Vec<DriveSpec>,
    /// What is evicted first: lru, s3-fifo, sieve, w-tinylfu, arc, gdsf or gittins (the default).
    #[arg(long, value_name = "NAME", value_parser = names::policy)]
    policy: Option<PolicyKind>,
    /// What is written to NVMe: always (at once: the warmest after a crash), second-use (what is used again) or
    /// ram-eviction (what RAM lets go, and what it has when the daemon is stopped) [default: always].
    #[arg(long, value_name = "NAME", value_parser = names::admission)]
    admission: Option<AdmissionKind>,
    /// Bytes a day that each drive may be written: past it, tails of chains are written on second use only; 0 for any
    /// number [default: 0].
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--wear-budget"))]
    wear_budget: Option<ByteCount>,
    /// How drives are read and written: auto (io_uring where the host allows it), io_uring or pread [default: auto].
    #[arg(long, value_name = "NAME", value_parser = names::engine)]
    io: Option<IoEngine>,
    /// Bytes in flight towards each drive at most [default: 96MiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--io-inflight"))]
    io_inflight: Option<ByteCount>,
    /// Bytes a second that are read in the background to find blocks that went bad; 0 for none [default: 12MiB].
    #[arg(long, value_name = "RATE", value_parser = size::parser("--scrub"))]
    scrub: Option<ByteCount>,
    /// How long a stop may take to write what only RAM has; 0 to stop at once [default: 30].
    #[arg(long, value_name = "SECONDS")]
    flush_max: Option<u64>,
    /// Bytes that the ledger of usage may take: from 80 % on it warns, and full it refuses new settles [default: 64GiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--ledger-max"))]
    ledger_max: Option<ByteCount>,
    /// How long usage records are kept after exporters have acknowledged them, from 48 hours on [default: 720].
    #[arg(long, value_name = "HOURS")]
    usage_retention: Option<u64>,
    /// Whether RAM's pages are made at the start, in the background: it then has its memory before it needs it [default:
    /// true].
    #[arg(long, value_name = "BOOL")]
    prefault: Option<bool>,
    /// Record each request's lookup there, without tokens, for `kvtier trace`, `replay` and `plan` (packed where its name ends with
    /// .zst). A file that is there stays: the next one gets a number. Ids mean nothing outside of the file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The largest that a recording may become: then it stops [default: 16GiB].
    #[arg(long, value_name = "SIZE", value_parser = size::parser("--record-max"))]
    record_max: Option<ByteCount>,
    /// Who is known, by token, client certificate or user: a TOML file (`kvtier token new` prints lines for it), read again
    /// when it changes. Needed to serve other hosts.
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
    /// Certificate of the TCP address, PEM: with it, TLS is spoken there.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Authority of client certificates, PEM: only clients with a certificate of it are spoken to.
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Serve other hosts without TLS: tokens and prompts cross the network as they are.
    #[arg(long)]
    plaintext: bool,
    /// A JSON file with fields of the same names (data_dir, listen, nvme, wear_budget …; nvme is one drive or a list);
    /// flags win over it.
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
    metrics: Option<SocketAddr>,
    ram: Option<String>,
    nvme: Option<Drives>,
    policy: Option<String>,
    admission: Option<String>,
    wear_budget: Option<String>,
    io: Option<String>,
    io_inflight: Option<String>,
    scrub: Option<String>,
    flush_max: Option<u64>,
    ledger_max: Option<String>,
    usage_retention: Option<u64>,
    prefault: Option<bool>,
    record: Option<PathBuf>,
    record_max: Option<String>,
    access: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    plaintext: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "nvme must be a text such as \"8GiB\" or \"/mnt/nvme1=7TiB\", or a list of them")]
enum Drives {
    One(String),
    Many(Vec<String>),
}

impl ConfigFile {
    fn read(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::default()) };
        serde_json::from_slice(&read_file(path)?)
            .map_err(|error| CliError::Config { path: path.into(), why: error.to_string() })
    }
}

impl Serve {
    pub(super) fn run(self) -> Result<(), CliError> {
        let level = self.log.clone();
        let config = self.configuration()?;
        daemon::telemetry::init(&level);
        Ok(runtime()?.block_on(daemon::run_until_signal(config, watch()))?)
    }

    fn configuration(self) -> Result<Config, CliError> {
        let file = ConfigFile::read(self.config.as_deref())?;
        let listen = self.listen.or(file.listen);
        let socket = match self.socket.or(file.socket) {
            None if listen.is_none() => Some(default_socket()?),
            socket => socket,
        };
        let absent = || CliError::usage("--data-dir", &"absent", "given, or data_dir in --config");
        let data_dir = self.data_dir.or(file.data_dir).ok_or_else(absent)?;
        let wear_budget = sized("wear_budget", self.wear_budget, file.wear_budget, ByteCount::ZERO)?;
        let inflight = sized("io_inflight", self.io_inflight, file.io_inflight, ByteCount(DEVICE_INFLIGHT_BYTES))?;
        Ok(Config {
            listen,
            socket,
            metrics: self.metrics.or(file.metrics),
            access: self.access.or(file.access),
            tls: tls(
                self.tls_cert.or(file.tls_cert),
                self.tls_key.or(file.tls_key),
                self.tls_client_ca.or(file.tls_client_ca),
            )?,
            plaintext: self.plaintext || file.plaintext.unwrap_or(false),
            nvme: drives(self.nvme, file.nvme)?,
            policy: named(self.policy, file.policy, names::policy)?,
            admission: named(self.admission, file.admission, names::admission)?,
            wear_budget: Some(wear_budget).filter(|budget| *budget > ByteCount::ZERO),
            io: IoOptions { engine: named(self.io, file.io, names::engine)?, inflight_bytes: inflight.0 },
            scrub: sized("scrub", self.scrub, file.scrub, ByteCount(SCRUB_BYTES_PER_SECOND))?,
            flush_max: self.flush_max.or(file.flush_max).map_or(FLUSH_MAX, Duration::from_secs),
            ledger_max: sized("ledger_max", self.ledger_max, file.ledger_max, ByteCount(LEDGER_BYTES))?,
            usage_retention: self.usage_retention.or(file.usage_retention).map_or(USAGE_RETENTION, hours),
            record: self.record.or(file.record),
            record_max: sized("record_max", self.record_max, file.record_max, ByteCount(RECORD_BYTES))?,
            prefault: self.prefault.or(file.prefault).unwrap_or(true),
            ..Config::new(data_dir, sized("ram", self.ram, file.ram, RAM)?)
        })
    }
}

/// For tests of this program: `KVTIER_TEST_FAULT` names a part that panics, or a step that waits until then, at SIGUSR1.
fn watch() -> Watch {
    let fault = std::env::var_os("KVTIER_TEST_FAULT").filter(|fault| !fault.is_empty());
    fault.map_or_else(Watch::default, |part| Watch::with_fault(&part.to_string_lossy()))
}

/// Certificate and key belong together.
fn tls(cert: Option<PathBuf>, key: Option<PathBuf>, client_ca: Option<PathBuf>) -> Result<Option<TlsFiles>, CliError> {
    match (cert, key, client_ca) {
        (Some(cert), Some(key), client_ca) => Ok(Some(TlsFiles { cert, key, client_ca })),
        (None, None, None) => Ok(None),
        (None, ..) => Err(CliError::usage("tls_cert", &"absent", "given with tls_key and tls_client_ca")),
        (Some(_), None, _) => Err(CliError::usage("tls_key", &"absent", "given with tls_cert")),
    }
}

fn sized(
    field: &'static str,
    flag: Option<ByteCount>,
    text: Option<String>,
    default: ByteCount,
) -> Result<ByteCount, CliError> {
    match (flag, text) {
        (Some(bytes), _) => Ok(bytes),
        (None, Some(text)) => size::parse(field, &text).map_err(CliError::Size),
        (None, None) => Ok(default),
    }
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours.saturating_mul(3_600))
}

fn named<T: Default>(
    flag: Option<T>,
    text: Option<String>,
    parse: fn(&str) -> Result<T, CliError>,
) -> Result<T, CliError> {
    match (flag, text) {
        (Some(value), _) => Ok(value),
        (None, Some(text)) => parse(&text),
        (None, None) => Ok(T::default()),
    }
}

fn drives(flags: Vec<DriveSpec>, file: Option<Drives>) -> Result<Vec<DriveSpec>, CliError> {
    let texts = match file {
        _ if !flags.is_empty() => return Ok(drive::all(flags)),
        None => return Ok(vec![DriveSpec::here(NVME)]),
        Some(Drives::One(text)) => vec![text],
        Some(Drives::Many(texts)) => texts,
    };
    Ok(drive::all(texts.iter().map(|text| drive::parse(text)).collect::<Result<_, _>>()?))
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

    fn drive(dir: &str, bytes: u64) -> DriveSpec {
        DriveSpec { dir: Some(dir.into()), bytes: ByteCount(bytes) }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = r#"{"data_dir": "/d", "listen": "127.0.0.1:7400", "ram": "2GiB", "policy": "lru"}"#;
        let config = configured(file, &["--ram", "3GiB"]).unwrap();
        assert_eq!((config.ram, config.nvme, config.socket), (ByteCount(3 << 30), vec![DriveSpec::here(NVME)], None));
        assert_eq!(config.data_dir, PathBuf::from("/d"));
        let expected = Config::new("/d".into(), RAM);
        assert_eq!(
            (config.admission, config.wear_budget, config.io, config.scrub, config.flush_max, config.metrics),
            (expected.admission, None, expected.io, expected.scrub, expected.flush_max, None)
        );
        let file = r#"{"data_dir": "/d", "socket": "/s", "admission": "second-use", "wear_budget": "2TB", "io": "pread",
            "io_inflight": "32MiB", "scrub": "0", "flush_max": 5, "metrics": "127.0.0.1:7401"}"#;
        assert_eq!((expected.ledger_max, expected.usage_retention), (config.ledger_max, config.usage_retention));
        let usage = r#"{"data_dir": "/d", "socket": "/s", "ledger_max": "1GiB", "usage_retention": 50}"#;
        let recorded = r#"{"data_dir": "/d", "socket": "/s", "record": "/r.zst", "record_max": "1GiB"}"#;
        let config = configured(recorded, &["--record-max", "2GiB"]).unwrap();
        assert_eq!((config.record, config.record_max), (Some("/r.zst".into()), ByteCount(2 << 30)));
        assert_eq!((expected.record, expected.record_max), (None, ByteCount(RECORD_BYTES)));
        let config = configured(usage, &["--usage-retention", "60"]).unwrap();
        assert_eq!((config.ledger_max, config.usage_retention), (ByteCount(1 << 30), hours(60)));
        let config = configured(file, &["--admission", "ram-eviction", "--scrub", "1GiB"]).unwrap();
        let io = IoOptions { engine: IoEngine::Posix, inflight_bytes: 32 << 20 };
        assert_eq!((config.admission, config.io), (AdmissionKind::RamEviction, io));
        assert_eq!((config.wear_budget, config.scrub), (Some(ByteCount(2_000_000_000_000)), ByteCount(1 << 30)));
        assert_eq!((config.flush_max, config.metrics), (Duration::from_secs(5), "127.0.0.1:7401".parse().ok()));
    }

    #[test]
    fn drives_are_one_text_or_a_list_and_flags_replace_them_all() {
        let nvme = |file: &str, flags: &[&str]| {
            let file = format!(r#"{{"data_dir": "/d", "socket": "/s", "nvme": {file}}}"#);
            configured(&file, flags).map(|config| config.nvme)
        };
        let two = [DriveSpec::here(ByteCount(1 << 30)), drive("/a", 2 << 30)];
        assert_eq!(nvme(r#""/a=2GiB""#, &[]).unwrap(), two[1..]);
        assert_eq!(nvme(r#"["1GiB", "/a=2GiB"]"#, &[]).unwrap(), two);
        assert_eq!(nvme(r#""8GiB""#, &["--nvme", "1GiB", "--nvme", "/a=2GiB"]).unwrap(), two);
        assert_eq!(nvme(r#"["1GiB", "/a=2GiB"]"#, &["--nvme", "0"]).unwrap(), []);
        assert_eq!(nvme(r#""0""#, &[]).unwrap(), []);
        let said = nvme("8", &[]).unwrap_err().to_string();
        assert!(said.contains("nvme must be a text such as \"8GiB\""), "{said}");
        let said = nvme(r#"["1GiB", "/a"]"#, &[]).unwrap_err().to_string();
        assert!(said.contains("nvme is \"/a\", it must be SIZE or DIR=SIZE"), "{said}");
    }

    #[test]
    fn an_unknown_field_a_bad_value_and_no_folder_are_refused_by_name() {
        let serve = |fields: &str| format!(r#"{{"data_dir": "/d", "socket": "/s", {fields}}}"#);
        for (file, words) in [
            (serve(r#""rum": "1GiB""#), "unknown field `rum`"),
            (serve(r#""ram": "much""#), "ram is \"much\", it must be a size"),
            (
                serve(r#""policy": "magic""#),
                "policy is \"magic\", it must be lru, s3-fifo, sieve, w-tinylfu, arc, gdsf or gittins",
            ),
            (serve(r#""admission": "never""#), "admission is \"never\", it must be always, second-use or ram-eviction"),
            (serve(r#""io": "aio""#), "io is \"aio\", it must be auto, io_uring or pread"),
            (serve(r#""wear_budget": "much""#), "wear_budget is \"much\", it must be a size"),
            (serve(r#""scrub": "slow""#), "scrub is \"slow\", it must be a size"),
            (r#"{"socket": "/s"}"#.to_owned(), "--data-dir is absent"),
        ] {
            let error = configured(&file, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
