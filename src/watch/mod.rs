//! Parts that the daemon depends on, and what is said of its health.
//!
//! A [`Watch`] is given to everything that starts a thread or a long-lived task. A part that panics, or ends though nobody
//! stopped it, is told there; whoever owns the process ends it then, since a daemon without its planner would answer every
//! lookup with a miss and say that it is well. [`Health`] is the board that the health service, `GetStatus` and
//! `/metrics` read.

mod fault;
mod health;
mod part;

pub use health::{Board, Health, Service, ServiceHealth, State, Trouble};
pub use part::{Ending, Failure, Part, Watch, note_panic};
