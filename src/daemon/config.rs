//! What a daemon is told: parsed once, checked together, never changed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::tls::TlsFiles;
use crate::plan::{AdmissionKind, PolicyKind};
use crate::tiers::{DriveSpec, IoOptions};
use crate::vocab::ByteCount;
use crate::vocab::limits::{
    ALIGNMENT, DRIVES_MAX, EXTENTS_MIN, FLUSH_MAX, FLUSH_MAX_MAX, LEDGER_BYTES, LEDGER_BYTES_MIN, LEDGER_WINDOW,
    RECORD_BYTES, RECORD_BYTES_MIN, SCRUB_BYTES_PER_SECOND, USAGE_RETENTION, USAGE_RETENTION_MAX,
};

/// Less would take a block of 1 MiB apart.
const INFLIGHT_MIN: ByteCount = ByteCount(1 << 20);

/// A daemon's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything that outlives the daemon is.
    pub data_dir: PathBuf,
    /// TCP address to listen on; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// Unix socket to listen on.
    pub socket: Option<PathBuf>,
    /// The RAM tier.
    pub ram: ByteCount,
    /// The drives of the NVMe tier; none for RAM alone.
    pub nvme: Vec<DriveSpec>,
    /// What goes first.
    pub policy: PolicyKind,
    /// What is written to the drives.
    pub admission: AdmissionKind,
    /// Bytes a day that each drive may be written; `None` for any number.
    pub wear_budget: Option<ByteCount>,
    /// How drives are read and written.
    pub io: IoOptions,
    /// Bytes a second that the scrub reads; 0 for none.
    pub scrub: ByteCount,
    /// How long a stop may take to write what only RAM has.
    pub flush_max: Duration,
    /// Have the kernel make RAM's pages at the start, in the background, and not with their first use.
    pub prefault: bool,
    /// Bytes that the ledger may take: at that bound new settles are refused.
    pub ledger_max: ByteCount,
    /// How long usage records are kept after they were acknowledged.
    pub usage_retention: Duration,
    /// A file that lookups are recorded in, without tokens.
    pub record: Option<PathBuf>,
    /// The largest that it may become: then recording stops.
    pub record_max: ByteCount,
    /// TCP address that serves `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// The file that says who is known; `None` where only this host can reach the daemon.
    pub access: Option<PathBuf>,
    /// TLS of the TCP address.
    pub tls: Option<TlsFiles>,
    /// Whether other hosts may be served without TLS, so that tokens and prompts cross the network as they are.
    pub plaintext: bool,
}

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {rule}")]
pub struct ConfigError {
    /// Which field.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub rule: String,
}

impl Config {
    /// RAM alone, the defaults for all else, and nobody served: give it an address, or a socket.
    #[must_use]
    pub fn new(data_dir: PathBuf, ram: ByteCount) -> Self {
        Self {
            data_dir,
            listen: None,
            socket: None,
            ram,
            nvme: Vec::new(),
            policy: PolicyKind::default(),
            admission: AdmissionKind::default(),
            wear_budget: None,
            io: IoOptions::default(),
            scrub: ByteCount(SCRUB_BYTES_PER_SECOND),
            flush_max: FLUSH_MAX,
            prefault: false,
            ledger_max: ByteCount(LEDGER_BYTES),
            usage_retention: USAGE_RETENTION,
            record: None,
            record_max: ByteCount(RECORD_BYTES),
            metrics: None,
            access: None,
            tls: None,
            plaintext: false,
        }
    }

    /// Refuses to serve other hosts without knowing who they are.
    fn check_reach(&self) -> Result<(), ConfigError> {
        let Some(listen) = self.listen.filter(|listen| !listen.ip().is_loopback()) else { return Ok(()) };
        let refuse = |rule: &str| Err(ConfigError { field: "listen", value: listen.to_string(), rule: rule.into() });
        if self.access.is_none() {
            return refuse(
                "a loopback address such as 127.0.0.1:7400 where nobody is authenticated. To serve other hosts, give an access \
                 file (--access FILE: `kvtier token new` prints the lines for it) and a certificate (--tls-cert, --tls-key)",
            );
        }
        if self.tls.is_none() && !self.plaintext {
            return refuse(
                "a loopback address where there is no TLS: tokens would cross the network as they are. Give a certificate \
                 (--tls-cert, --tls-key), or --plaintext where a mesh encrypts",
            );
        }
        Ok(())
    }

    /// Checks the fields against each other and against this host.
    ///
    /// # Errors
    /// Names the first field that breaks its rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |field, value: String, rule: &str| Err(ConfigError { field, value, rule: rule.into() });
        let least = ALIGNMENT * u64::from(EXTENTS_MIN);
        if self.listen.is_none() && self.socket.is_none() {
            return fail("listen", "absent".into(), "given, or socket: nobody could reach the daemon");
        }
        self.check_reach()?;
        if self.ram.0 < least {
            return fail("ram", self.ram.to_string(), "at least 64KiB: every block passes through it");
        }
        if self.nvme.len() > DRIVES_MAX {
            return fail("nvme", format!("{} drives", self.nvme.len()), &format!("at most {DRIVES_MAX} drives"));
        }
        for (at, drive) in self.nvme.iter().enumerate() {
            if drive.bytes.0 < least {
                return fail("nvme", drive.to_string(), "0, or at least 64KiB on each drive");
            }
            if self.nvme[..at].iter().any(|before| before.dir == drive.dir) {
                return fail("nvme", drive.to_string(), "another directory than the drives before it have");
            }
        }
        if self.io.inflight_bytes < INFLIGHT_MIN.0 {
            return fail("io_inflight", ByteCount(self.io.inflight_bytes).to_string(), "at least 1MiB");
        }
        if self.flush_max > FLUSH_MAX_MAX {
            let rule = format!("at most {} seconds", FLUSH_MAX_MAX.as_secs());
            return fail("flush_max", format!("{} seconds", self.flush_max.as_secs()), &rule);
        }
        if self.record_max.0 < RECORD_BYTES_MIN {
            return fail("record_max", self.record_max.to_string(), "at least 4MiB");
        }
        self.check_ledger()?;
        match memory_of_host() {
            Some(memory) if self.ram > memory => {
                fail("ram", self.ram.to_string(), &format!("at most this host's memory ({memory})"))
            }
            _ => Ok(()),
        }
    }

    fn check_ledger(&self) -> Result<(), ConfigError> {
        let fail = |field, value: String, rule| Err(ConfigError { field, value, rule });
        let (least, most) = (LEDGER_WINDOW.as_secs() / 3_600, USAGE_RETENTION_MAX.as_secs() / 3_600);
        if self.ledger_max.0 < LEDGER_BYTES_MIN {
            return fail(
                "ledger_max",
                self.ledger_max.to_string(),
                "at least 64MiB: its database needs some of it".into(),
            );
        }
        if !(LEDGER_WINDOW..=USAGE_RETENTION_MAX).contains(&self.usage_retention) {
            let rule = format!("{least} to {most} hours: for {least} hours a settle may be repeated");
            return fail("usage_retention", format!("{} hours", self.usage_retention.as_secs() / 3_600), rule);
        }
        Ok(())
    }
}

/// What the kernel says it has; `None` where it doesn't say.
fn memory_of_host() -> Option<ByteCount> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(ByteCount(kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_bad_configuration_names_field_value_and_rule() {
        let socket = Some("/nonexistent/s".into());
        let good = Config { socket, ..Config::new("/nonexistent".into(), ByteCount(MIB)) };
        assert_eq!(good.check(), Ok(()));
        let field = |config: Config| config.check().unwrap_err().field;
        assert_eq!(field(Config { socket: None, ..good.clone() }), "listen");
        assert_eq!(field(Config { ram: ByteCount(4096), ..good.clone() }), "ram");
        assert_eq!(field(Config { ram: ByteCount(u64::MAX), ..good.clone() }), "ram");
        let io = IoOptions { inflight_bytes: 4096, ..IoOptions::default() };
        assert_eq!(field(Config { io, ..good.clone() }), "io_inflight");
        assert_eq!(field(Config { flush_max: FLUSH_MAX_MAX * 2, ..good.clone() }), "flush_max");
        assert_eq!(field(Config { ledger_max: ByteCount(1), ..good.clone() }), "ledger_max");
        assert_eq!(field(Config { record_max: ByteCount(1), ..good.clone() }), "record_max");
        let short = Config { usage_retention: LEDGER_WINDOW - Duration::from_secs(3_600), ..good.clone() };
        assert_eq!(
            short.check().unwrap_err().to_string(),
            "usage_retention is 47 hours, it must be 48 to 87840 hours: for 48 hours a settle may be repeated"
        );
        let drive = |dir: &str, bytes| DriveSpec { dir: Some(dir.into()), bytes: ByteCount(bytes) };
        let nvme = |nvme| Config { nvme, ..good.clone() };
        assert_eq!(nvme(vec![DriveSpec::here(ByteCount(MIB)), drive("/a", MIB), drive("/b", MIB)]).check(), Ok(()));
        let said = |drives| nvme(drives).check().unwrap_err().to_string();
        assert_eq!(
            said(vec![DriveSpec::here(ByteCount(1))]),
            "nvme is 1 bytes, it must be 0, or at least 64KiB on each drive"
        );
        assert!(
            said(vec![drive("/a", MIB), drive("/a", 2 * MIB)])
                .starts_with("nvme is /a=2097152 bytes, it must be another")
        );
        assert_eq!(
            said((0..17).map(|at| drive(&at.to_string(), MIB)).collect()),
            "nvme is 17 drives, it must be at most 16 drives"
        );
    }
}
