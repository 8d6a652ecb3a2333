//! Engine instances and their processes: who is there. What a process had reserved ends with its session, and an
//! instance's leases with its last session.

mod registry;

pub use registry::{Gone, Session, SessionError, Sessions};
