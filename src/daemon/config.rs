//! What a daemon is told: parsed once, checked together, never changed.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::plan::PolicyKind;
use crate::vocab::ByteCount;
use crate::vocab::limits::{ALIGNMENT, EXTENTS_MIN};

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
    /// The NVMe tier; 0 for none.
    pub nvme: ByteCount,
    /// What goes first.
    pub policy: PolicyKind,
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
        if self.ram.0 < least {
            return fail("ram", self.ram.to_string(), "at least 64KiB: every block passes through it");
        }
        if self.nvme.0 > 0 && self.nvme.0 < least {
            return fail("nvme", self.nvme.to_string(), "0, or at least 64KiB");
        }
        match memory_of_host() {
            Some(memory) if self.ram > memory => {
                fail("ram", self.ram.to_string(), &format!("at most this host's memory ({memory})"))
            }
            _ => Ok(()),
        }
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

    #[test]
    fn a_bad_configuration_names_field_value_and_rule() {
        let good = Config {
            data_dir: "/nonexistent".into(),
            listen: None,
            socket: Some("/nonexistent/s".into()),
            ram: ByteCount(1 << 20),
            nvme: ByteCount::ZERO,
            policy: PolicyKind::Lru,
        };
        assert_eq!(good.check(), Ok(()));
        let field = |config: Config| config.check().unwrap_err().field;
        assert_eq!(field(Config { socket: None, ..good.clone() }), "listen");
        assert_eq!(field(Config { ram: ByteCount(4096), ..good.clone() }), "ram");
        assert_eq!(field(Config { ram: ByteCount(u64::MAX), ..good.clone() }), "ram");
        assert_eq!(field(Config { nvme: ByteCount(1), ..good }), "nvme");
    }
}
