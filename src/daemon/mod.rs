//! Wiring: opens a data folder, makes a cache of it, and serves it.

mod config;
mod connection;
mod metrics;
mod run;
mod scrape;
mod serve;
pub mod telemetry;

pub use crate::tiers::{DriveSpec, IoEngine, IoOptions};
pub use config::{Config, ConfigError};
pub use run::{Daemon, StartError, run_until_signal};
