//! The record of a replay: its report with all that it takes to set it beside another one. Field names are a contract with
//! other programs: add, never rename.

use serde::Serialize;
use serde_json::{Map, Value};

use super::live_report::{Histograms, TimelineRow};
use super::{ReplayReport, RequestView, Trace};
use crate::vocab::Timestamp;

/// A record's version. One that reads otherwise has a higher one.
pub const RECORD_VERSION: u64 = 1;
/// Where a record says its version: what tells it from other JSON.
pub const RECORD_FIELD: &str = "kvtier_replay_record";

/// One replay.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    kvtier_replay_record: u64,
    made_at_ms: u64,
    /// Of the program that replayed.
    version: &'static str,
    /// Of the server; absent where none took part or it does not tell.
    #[serde(skip_serializing_if = "str::is_empty")]
    server_version: &'a str,
    machine: Machine,
    trace: RecordedTrace,
    /// What was asked for, by the names of the flags, and what the server said of itself.
    options: Map<String, Value>,
    report: &'a ReplayReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    histograms: Option<&'a Histograms>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    timeline: &'a [TimelineRow],
}

/// Which trace was replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordedTrace {
    /// What it was called on the command line.
    pub name: String,
    /// BLAKE3 of its requests: the same for the same requests, whatever format they came in.
    pub blake3: String,
    /// How many it has.
    pub requests: u64,
    /// Tokens of a block.
    pub block_tokens: u32,
}

impl RecordedTrace {
    /// A trace that was read from `name`.
    #[must_use]
    pub fn of(name: String, trace: &Trace) -> Self {
        let mut digest = TraceDigest::new(trace.block_tokens());
        trace.requests().for_each(|request| digest.add(&request));
        digest.end(name)
    }
}

/// Which trace it is whose requests come one by one.
#[derive(Clone, Debug)]
pub struct TraceDigest {
    hash: blake3::Hasher,
    requests: u64,
    block_tokens: u32,
}

impl TraceDigest {
    /// Of no request yet.
    #[must_use]
    pub fn new(block_tokens: u32) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(&block_tokens.to_le_bytes());
        Self { hash, requests: 0, block_tokens }
    }

    /// The next request.
    pub fn add(&mut self, request: &RequestView<'_>) {
        let lengths = [request.timestamp_ms, request.input_length, request.output_length, request.blocks()];
        for number in lengths.iter().chain(request.hash_ids) {
            self.hash.update(&number.to_le_bytes());
        }
        self.requests += 1;
    }

    /// All have come.
    #[must_use]
    pub fn end(self, name: String) -> RecordedTrace {
        let Self { hash, requests, block_tokens } = self;
        RecordedTrace { name, blake3: hash.finalize().to_hex().to_string(), requests, block_tokens }
    }
}

/// Where a replay ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
}

impl Machine {
    fn here() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: model(&text("/proc/cpuinfo")),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// What the kernel calls the first processor; empty where it does not say.
fn model(cpuinfo: &str) -> String {
    let field = cpuinfo.lines().find(|line| line.starts_with("model name"));
    field.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned()).unwrap_or_default()
}

impl<'a> Record<'a> {
    /// The record of a replay that ended at `now`. `options` are what it was told to do.
    #[must_use]
    pub fn of(now: Timestamp, trace: RecordedTrace, mut options: Map<String, Value>, report: &'a ReplayReport) -> Self {
        let details = report.live.as_ref().map(|live| &live.details);
        options.insert("policy".to_owned(), report.policy.as_str().into());
        if let Some(details) = details.filter(|details| !details.admission.is_empty()) {
            options.insert("admission".to_owned(), details.admission.as_str().into());
        }
        let nvme = report.nvme_blocks.unwrap_or_default();
        options.insert("ram_blocks".to_owned(), report.ram_blocks.unwrap_or(report.capacity_blocks).into());
        options.insert("nvme_blocks".to_owned(), nvme.into());
        Self {
            kvtier_replay_record: RECORD_VERSION,
            made_at_ms: now.0,
            version: env!("CARGO_PKG_VERSION"),
            server_version: details.map(|details| details.server_version.as_str()).unwrap_or_default(),
            machine: Machine::here(),
            trace,
            options,
            report,
            histograms: details.map(|details| &details.histograms),
            timeline: details.map(|details| details.timeline.as_slice()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::live_report::{LiveFigures, RunDetails};
    use super::super::{Tally, TraceRequest};
    use super::*;

    fn trace(ids: &[u64], timestamp_ms: u64) -> Trace {
        let hash_ids = ids.to_vec();
        Trace::collect(16, [TraceRequest { timestamp_ms, input_length: 30, output_length: 2, hash_ids }])
    }

    #[test]
    fn a_traces_digest_is_of_its_requests_and_not_of_its_name() {
        let digest = |name: &str, trace: &Trace| RecordedTrace::of(name.to_owned(), trace).blake3;
        let first = digest("a", &trace(&[1, 2], 5));
        assert_eq!(first, digest("b", &trace(&[1, 2], 5)));
        assert_ne!(first, digest("a", &trace(&[1, 3], 5)));
        assert_ne!(first, digest("a", &trace(&[1, 2], 6)), "an open loop goes by the times");
    }

    #[test]
    fn a_record_has_the_promised_fields_and_a_simulations_has_no_histograms() {
        let details = RunDetails {
            server_version: "9.9".to_owned(),
            admission: "always".to_owned(),
            timeline: vec![TimelineRow::default()],
            ..RunDetails::default()
        };
        let live = LiveFigures { details, ..LiveFigures::default() };
        let simulated = Tally::default().report("lru", 100);
        let lived = ReplayReport { live: Some(live), ram_blocks: Some(7), nvme_blocks: Some(9), ..simulated.clone() };
        let record = |report| {
            let options = Map::from_iter([("mode".to_owned(), "live".into())]);
            let trace = RecordedTrace::of("t".to_owned(), &trace(&[1], 0));
            serde_json::to_value(Record::of(Timestamp(77), trace, options, report)).unwrap()
        };
        let live = record(&lived);
        assert_eq!((&live[RECORD_FIELD], &live["made_at_ms"]), (&RECORD_VERSION.into(), &77.into()));
        assert_eq!((&live["server_version"], &live["trace"]["requests"]), (&"9.9".into(), &1.into()));
        assert_eq!(
            live["options"],
            serde_json::json!({"mode": "live", "policy": "lru", "admission": "always", "ram_blocks": 7, "nvme_blocks": 9})
        );
        assert!(live["machine"]["cores"].as_u64() > Some(0) && live["report"]["hit_rate"].is_number());
        assert!(live["histograms"]["lookup_us"].is_array() && live["timeline"][0]["requests"].is_number());
        let simulated = record(&simulated);
        assert_eq!((simulated.get("histograms"), simulated.get("timeline")), (None, None));
        assert_eq!((simulated.get("server_version"), &simulated["options"]["ram_blocks"]), (None, &100.into()));
    }

    #[test]
    fn a_processor_has_the_name_that_the_kernel_says() {
        assert_eq!(model("processor\t: 0\nmodel name\t: A B: C\nmodel name\t: D\n"), "A B: C");
        assert_eq!(model(""), "");
    }
}
