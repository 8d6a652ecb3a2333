//! What a live replay says beside its hits. Field names are a contract with other programs: add, never rename.

use serde::Serialize;

/// Figures of a replay against a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LiveFigures {
    /// Blocks whose bytes were not what their key says. Anything but 0 is a lie of the cache.
    pub mismatched_blocks: u64,
    /// Payload bytes received.
    pub bytes_loaded: u64,
    /// Payload bytes that the server took.
    pub bytes_stored: u64,
    /// Blocks that a lookup leased and the fetch after it did not bring: each is a prefill that came as a surprise.
    pub blocks_not_delivered: u64,
    /// Blocks offered that the server wanted and then dropped.
    pub blocks_dropped: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Requests over seconds.
    pub requests_per_second: f64,
    /// Time of a lookup.
    pub lookup_us: Latency,
    /// Time of a load, of those that had something to load.
    pub load_us: Latency,
    /// Time of a put.
    pub put_us: Latency,
    /// Time of a whole request, from its start; waiting for the server to come to rest is not in it.
    pub request_us: Latency,
    /// How well the trace's times were kept, where they were to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
    /// What the run cost the server, where it tells the caller.
    #[serde(flatten)]
    pub server: Option<ServerFigures>,
    /// What only the run's record has.
    #[serde(skip)]
    pub details: RunDetails,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// All but a tenth are at most this.
    pub p90: u64,
    /// All but a hundredth are at most this.
    pub p99: u64,
    /// All but a thousandth are at most this.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// How many there were.
    pub count: u64,
}

/// Figures of a replay whose requests start at their times, whatever is still under way. Times "from due" begin when a
/// request was to start: they have what it waited for requests before it, which times from its start leave out
/// (coordinated omission).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OpenLoop {
    /// The trace's times were divided by this.
    pub speed: f64,
    /// Requests under way at a time, at most.
    pub in_flight_max: u64,
    /// The most that were.
    pub in_flight_peak: u64,
    /// Requests over the time that they were to take.
    pub intended_per_second: f64,
    /// Requests over the time that they took.
    pub achieved_per_second: f64,
    /// Requests that began more than 10 ms after they were due.
    pub late_starts: u64,
    /// Requests that had to wait because as many as may be were under way.
    pub held_starts: u64,
    /// How long after they were due requests began.
    pub lag_us: Latency,
    /// From when a request was due to its lookup's answer.
    pub lookup_from_due_us: Latency,
    /// From when a request was due to the last byte loaded, of those that had something to load.
    pub load_from_due_us: Latency,
    /// From when a request was due to its end.
    pub request_from_due_us: Latency,
}

/// What a run cost the server: differences of what it says of itself before and after.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServerFigures {
    /// Processor time of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_seconds: Option<f64>,
    /// Its memory at the end, RAM tier included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_resident_bytes: Option<u64>,
    /// The most that its memory was, looked at once a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_resident_bytes_max: Option<u64>,
    /// Processor time of an embedded server and of the replay, which share a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_cpu_seconds: Option<f64>,
    /// Their memory at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_resident_bytes: Option<u64>,
    /// The most that their memory was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_resident_bytes_max: Option<u64>,
    /// Payload bytes read from the server's drives, by whoever asked.
    pub drive_read_bytes: u64,
    /// Bytes sent to its drives.
    pub drive_written_bytes: u64,
    /// Blocks that it had before: a replay that starts warm hits more than its prediction.
    pub blocks_before: u64,
    /// Bytes a day that its drives may be written; 0 for any number.
    #[serde(skip)]
    pub wear_budget_bytes_per_day: u64,
}

/// What is too long for a report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunDetails {
    /// The server's version.
    pub server_version: String,
    /// What decides there who is written to NVMe.
    pub admission: String,
    /// Each latency, whole.
    pub histograms: Histograms,
    /// The run, second by second.
    pub timeline: Vec<TimelineRow>,
}

/// Buckets of a histogram: the most microseconds of each, and how many it has; those that have none are left out.
pub type Buckets = Vec<(u64, u64)>;

/// Whole histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histograms {
    /// See [`LiveFigures::lookup_us`].
    pub lookup_us: Buckets,
    /// See [`LiveFigures::load_us`].
    pub load_us: Buckets,
    /// See [`LiveFigures::put_us`].
    pub put_us: Buckets,
    /// See [`LiveFigures::request_us`].
    pub request_us: Buckets,
    /// See [`OpenLoop::lag_us`].
    pub lag_us: Buckets,
    /// See [`OpenLoop::lookup_from_due_us`].
    pub lookup_from_due_us: Buckets,
    /// See [`OpenLoop::load_from_due_us`].
    pub load_from_due_us: Buckets,
    /// See [`OpenLoop::request_from_due_us`].
    pub request_from_due_us: Buckets,
}

/// About a second of a run: what ended in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TimelineRow {
    /// Its end, in seconds from the start.
    pub at_s: f64,
    /// Requests.
    pub requests: u64,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Of these, hit.
    pub hit_tokens: u64,
    /// Payload bytes received.
    pub bytes_loaded: u64,
    /// Payload bytes that the server took.
    pub bytes_stored: u64,
    /// All but a hundredth of the lookups took at most this.
    pub lookup_p99_us: u64,
    /// Requests under way at its end.
    pub in_flight: u64,
    /// The server's memory; 0 where it does not tell.
    pub resident_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::super::{ReplayReport, Tally};
    use super::*;

    #[test]
    fn live_figures_stand_beside_the_others() {
        let server = ServerFigures { server_cpu_seconds: Some(1.5), ..ServerFigures::default() };
        let lookup_us = Latency { p50: 3, p99: 9, count: 1, ..Latency::default() };
        let live = LiveFigures { lookup_us, server: Some(server), ..LiveFigures::default() };
        let report = Tally::default().report("lru", 100);
        let json = serde_json::to_value(ReplayReport { live: Some(live), ram_blocks: Some(7), ..report }).unwrap();
        for name in [
            "mismatched_blocks",
            "bytes_loaded",
            "bytes_stored",
            "seconds",
            "load_us",
            "ram_blocks",
            "requests",
            "put_us",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        let latency = serde_json::json!({"p50": 3, "p90": 0, "p99": 9, "p999": 0, "max": 0, "count": 1});
        assert_eq!((&json["lookup_us"], &json["server_cpu_seconds"]), (&latency, &1.5.into()));
        for name in ["live", "nvme_blocks", "details", "server", "open_loop", "process_cpu_seconds"] {
            assert!(json.get(name).is_none(), "{name}");
        }
    }
}
