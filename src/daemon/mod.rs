//! Wiring: opens a data folder, makes a cache of it, and serves it.

mod access;
mod config;
mod connection;
mod door;
mod health;
mod ledger;
mod metrics;
mod open;
mod record;
mod run;
mod scrape;
mod serve;
mod signals;
pub mod telemetry;
mod tls;

pub use crate::tiers::{DriveSpec, IoEngine, IoOptions};
pub use config::{Config, ConfigError};
pub use run::{Daemon, StartError};
pub use signals::{FAILED, run_until_signal};
pub use tls::TlsFiles;
