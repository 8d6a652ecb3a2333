//! What workers and tools use: a daemon's calls with this crate's words instead of the wire's.
//!
//! [`Client::connect`] reaches a daemon; a [`Session`] stands for this process while it lives; [`Client::lookup`] says
//! how long a prefix can be skipped, [`Client::fetch`] brings its bytes, [`Client::put`] stores what was missing, and
//! [`Client::settle`] closes the bill. A [`Worker`] does all of that by the best path that there is, and goes on without the
//! daemon where it must. Builds without the `server` feature. A cache miss is an answer here, never an
//! error; a [`ClientError`] means that the daemon could not be asked, or refused the request itself.

mod accounts;
mod address;
mod admin;
mod arena;
mod assemble;
mod breaker;
mod bulk;
mod chain;
mod connect;
mod credentials;
mod error;
mod fetch;
mod health;
mod kept;
mod link;
mod load;
mod lookup;
mod mapping;
mod memory;
mod namespace;
mod pack;
mod put;
mod region;
mod session;
mod staging;
#[cfg(test)]
mod tests;
mod ticket;
mod turns;
mod unsettled;
mod usage;
mod worker;

pub use accounts::{AccountInfo, WireQuota};
pub use address::{AddressError, ServerAddress};
pub use admin::{
    BlockInfo, DriveState, DriveStatus, Evicted, HealthState, LedgerStatus, MemoryStatus, NamespaceInfo, ProcessStatus,
    PurgeFilter, Purged, ScrubStatus, ServiceHealth, Status, TierStatus, VerifyReply,
};
pub use arena::Arena;
pub use breaker::BreakerState;
pub use chain::Chain;
pub use connect::Client;
pub use credentials::Credentials;
pub use error::ClientError;
pub use fetch::{CopiedBlock, Fetch, FetchEnd, FetchOptions, FetchOutcome, FetchedBlock};
pub use link::WorkerCounts;
pub use load::{Load, Place};
pub use lookup::{Lease, LeaseOptions, Lookup, LookupOptions};
pub use put::{Put, PutResult};
pub use region::{LoadInto, LoadIntoOptions, Pool, RegionId, RegionPlaces};
pub use session::{Session, SessionLimits};
pub use staging::Staging;
pub use ticket::{Readiness, Ticket};
pub use unsettled::{GivenUp, Settling, Unsettled};
pub use usage::{
    AcknowledgeUsageReply, Correction, Settle, Settled, StorageRow, StorageSummary, UsageExport, UsageFilter,
    UsageRecord, UsageRow, UsageSummary, WrittenByClass,
};
pub use worker::{Hit, Loaded, Path, Worker, WorkerOptions};

pub use crate::copy::{Span, SpanMut};
