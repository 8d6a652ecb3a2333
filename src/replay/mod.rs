//! Traces: reading, describing and making them, and what a replay of one reports.

pub mod capacity;
pub mod fleet;
pub mod generate;
pub mod info;
pub mod keys;
pub mod live;
pub mod mix;
pub mod model;
pub mod mooncake;
pub mod open;
pub mod optimum;
pub mod payload;
pub mod reference;
pub mod report;
pub mod request;
pub mod sample;
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

pub use capacity::{CapacityPlan, PlanOptions, PolicyRates, Stage, capacities};
pub use fleet::{Day, Fleet};
pub use generate::{GenerateOptions, Generator};
pub use info::TraceInfo;
pub use live::{LiveError, LiveOptions, replay};
pub use mix::{Mix, MixOptions, Rates, Tiers, cheapest};
pub use model::{MODELS, Model};
pub use mooncake::{TraceError, TraceReader};
pub use open::{TraceFormat, TraceOptions, read_trace};
pub use optimum::{OPTIMUM, optimum};
pub use report::{ReplayReport, Tally};
pub use request::{RequestView, TraceRequest};
pub use sample::{Sample, SampleError};
pub use simulate::{SimulateOptions, Simulation, simulate};
pub use stack::HitCurve;
pub use trace::Trace;
pub use workload::Workload;
pub use write::write_trace;

pub use crate::plan::{AdmissionKind, PolicyKind};
