//! Wiring: opens a data folder, makes a cache of it, and serves it.

mod access;
mod config;
mod connection;
mod ledger;
mod metrics;
mod record;
mod run;
mod scrape;
mod serve;
pub mod telemetry;
mod tls;

pub use crate::tiers::{DriveSpec, IoEngine, IoOptions};
pub use config::{Config, ConfigError};
pub use run::{Daemon, StartError, run_until_signal};
pub use tls::TlsFiles;
