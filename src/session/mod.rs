//! Engine instances and their processes: who is there, which memory they share with the daemon, and what they are to be
//! told. What a process had reserved or attached ends with its session, and an instance's leases with its last session.

mod outbox;
mod regions;
mod registry;
mod staging;

pub use crate::media::{Region, RegionWriter};
pub use outbox::{News, Outbox};
pub use regions::{Regions, SharingError};
pub use registry::{Gone, Session, SessionError, Sessions};
pub use staging::{Grant, Staging};
