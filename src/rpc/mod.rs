//! The gate: protobuf comes in, is parsed into words, goes to a walk, and its answer goes out. Decides nothing.
//!
//! The contract is `proto/kvtier/v1`. What is not built yet answers `UNIMPLEMENTED`.

mod access;
mod accounts;
mod admin;
mod blocks;
mod body;
mod chain;
mod correction;
mod export;
mod fetch;
mod load;
mod permissions;
mod pins;
mod put;
mod receipt;
mod regions;
mod sessions;
mod spec;
mod status;
mod usage;
mod verify;
mod wire;

pub use access::{AccessLayer, Gate, Peer};
pub use admin::AdminService;
pub use blocks::CacheService;
pub use body::BulkBodies;
pub use pins::ConnectionPins;
pub use sessions::SessionsService;
pub use usage::UsageService;
