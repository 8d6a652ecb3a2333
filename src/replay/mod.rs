//! Traces: reading, describing and making them, and what a replay of one reports.

pub mod capacity;
pub mod fleet;
pub mod format;
pub mod generate;
pub mod info;
pub mod keys;
pub mod live;
pub mod model;
pub mod mooncake;
pub mod open;
pub mod optimum;
pub mod payload;
pub mod record;
pub mod reference;
pub mod report;
pub mod request;
pub mod requests;
pub mod simulate;
pub mod stack;
pub mod trace;
pub mod workload;
pub mod write;

mod bailian;
mod chained;
mod chance;
mod chats;
mod crash;
mod folder;
mod line;
mod parser;
mod sessions;
#[cfg(test)]
mod shared;
mod spread;
mod tokens;

pub use capacity::{CapacityPlan, CapacityPoint, Stage, capacities};
pub use fleet::{Day, Fleet};
pub use format::TraceFormat;
pub use generate::{GenerateOptions, Generator};
pub use info::{Survey, TraceInfo};
pub use live::{LiveError, LiveOptions, replay};
pub use model::{MODELS, Model};
pub use mooncake::{TraceError, TraceReader};
pub use open::{TraceOptions, open_trace, read_trace};
pub use optimum::{OPTIMUM, optimum};
pub use report::{ReplayReport, Tally};
pub use request::{RequestView, TraceRequest};
pub use requests::{Requests, Watch};
pub use simulate::{SimulateOptions, Simulation, simulate, simulate_requests};
pub use stack::{CurveMaker, HitCurve};
pub use trace::Trace;
pub use workload::Workload;
pub use write::{WriteError, write_trace};

pub use crate::plan::{AdmissionKind, PolicyKind};
