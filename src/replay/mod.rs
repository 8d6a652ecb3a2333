//! Traces: reading, describing and making them, and what a replay of one reports.

pub mod capacity;
pub mod compare;
pub mod fleet;
pub mod generate;
pub mod hosts;
pub mod info;
pub mod keys;
pub mod live;
pub mod live_report;
pub mod machine;
pub mod model;
pub mod mooncake;
pub mod open;
pub mod optimum;
pub mod pace;
pub mod payload;
pub mod predict;
pub mod prediction;
pub mod record;
pub mod reference;
pub mod report;
pub mod request;
pub mod routing;
pub mod simulate;
pub mod stack;
pub mod trace;
pub mod workload;
pub mod write;

mod bailian;
mod chained;
mod chance;
mod crash;
mod line;
mod sessions;
#[cfg(test)]
mod shared;

pub use capacity::{CapacityPlan, CapacityPoint, Stage, capacities};
pub use fleet::{Day, Fleet};
pub use generate::{GenerateOptions, Generator};
pub use hosts::{Hosts, HostsOptions};
pub use info::TraceInfo;
pub use live::{LiveError, LiveOptions, Pace, replay};
pub use machine::Machine;
pub use model::{MODELS, Model};
pub use mooncake::{TraceError, TraceReader};
pub use open::{TraceFormat, TraceOptions, read_trace};
pub use optimum::{OPTIMUM, optimum};
pub use pace::Extent;
pub use predict::predict;
pub use prediction::{HostsReport, Prediction};
pub use record::{Record, RecordedTrace};
pub use report::{ReplayReport, Tally};
pub use request::{RequestView, TraceRequest};
pub use routing::Routing;
pub use simulate::{SimulateOptions, Simulation, simulate};
pub use stack::HitCurve;
pub use trace::Trace;
pub use workload::Workload;
pub use write::write_trace;

pub use crate::plan::{AdmissionKind, PolicyKind};
