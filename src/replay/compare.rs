//! Two records of replays side by side.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::record::{RECORD_FIELD, RECORD_VERSION};

/// How a figure is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// A share from 0 to 1.
    Share,
    /// Hundredths of a share.
    Points,
    /// Microseconds.
    Micros,
    /// Seconds.
    Seconds,
    /// Things a second.
    Rate,
}

/// What is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    More,
    Less,
    /// Neither is.
    Neither,
}

use Better::{Less, More, Neither};
use Unit::{Bytes, Count, Micros, Points, Rate, Seconds, Share};

/// Figures of a report, by their names in it.
const FIGURES: &[(&str, Unit, Better)] = &[
    ("requests", Count, Neither),
    ("prompt_tokens", Count, Neither),
    ("hit_rate", Share, More),
    ("hit_tokens", Count, More),
    ("by_tier.ram", Count, More),
    ("by_tier.nvme", Count, Neither),
    ("miss_tokens", Count, Less),
    ("predicted.hit_rate", Share, Neither),
    ("predicted.difference_points", Points, Neither),
    ("blocks_written", Count, Less),
    ("crash.next_hit_rate", Share, More),
    ("mismatched_blocks", Count, Less),
    ("blocks_not_delivered", Count, Less),
    ("blocks_dropped", Count, Less),
    ("bytes_loaded", Bytes, Neither),
    ("bytes_stored", Bytes, Neither),
    ("drive_read_bytes", Bytes, Less),
    ("drive_written_bytes", Bytes, Less),
    ("blocks_before", Count, Neither),
    ("seconds", Seconds, Less),
    ("requests_per_second", Rate, More),
    ("server_cpu_seconds", Seconds, Less),
    ("server_resident_bytes_max", Bytes, Less),
    ("process_cpu_seconds", Seconds, Less),
    ("process_resident_bytes_max", Bytes, Less),
    ("open_loop.intended_per_second", Rate, Neither),
    ("open_loop.late_starts", Count, Less),
    ("open_loop.held_starts", Count, Less),
    ("open_loop.in_flight_peak", Count, Less),
];

/// Latencies of a report.
const LATENCIES: &[&str] = &[
    "lookup_us",
    "load_us",
    "put_us",
    "request_us",
    "open_loop.lag_us",
    "open_loop.lookup_from_due_us",
    "open_loop.load_from_due_us",
    "open_loop.request_from_due_us",
];

/// Their quantiles.
const QUANTILES: &[&str] = &["p50", "p90", "p99", "p999", "max"];

/// What both should have alike for their figures to be compared; besides it, all options.
const CONDITIONS: &[&str] =
    &["trace.blake3", "version", "server_version", "machine.cores", "machine.cpu", "machine.kernel"];

/// Two records, `a` the one that `b` is measured by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What the two did not have alike: figures differ for that reason, too.
    pub differs: Vec<Condition>,
    /// Each figure that one of them has.
    pub figures: Vec<Figure>,
}

/// What was not alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// Its name in the record.
    pub name: String,
    /// There; null where it is absent.
    pub a: Value,
    /// Here.
    pub b: Value,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name in the report.
    pub name: String,
    /// There; null where that replay has no such figure.
    pub a: Option<f64>,
    /// Here.
    pub b: Option<f64>,
    /// `b - a`.
    pub difference: Option<f64>,
    /// That in hundredths of `a`; null where `a` is 0.
    pub percent: Option<f64>,
    /// What `b` is beside `a`, where more or less of it is better.
    pub b_is: Option<Verdict>,
    /// How it is counted.
    #[serde(skip)]
    pub unit: Unit,
}

/// What a figure is beside another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As more of it is, or less.
    Better,
    /// The other way.
    Worse,
    /// Neither: it is the same.
    Same,
}

/// Reads a record.
///
/// # Errors
/// A sentence that says why it is none.
pub fn read_record(bytes: &[u8]) -> Result<Value, String> {
    let record: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    match record.get(RECORD_FIELD) {
        Some(version) if *version == RECORD_VERSION => Ok(record),
        Some(version) => Err(format!("{RECORD_FIELD} is {version}, it must be {RECORD_VERSION}: from another version")),
        None => Err(format!("{RECORD_FIELD} is absent: no record of `kvtier replay --out`")),
    }
}

impl Comparison {
    /// Of two records that [`read_record`] has read.
    #[must_use]
    pub fn of(a: &Value, b: &Value) -> Self {
        let figures = FIGURES.iter().map(|(name, unit, better)| ((*name).to_owned(), *unit, *better));
        let quantiles = LATENCIES.iter().flat_map(|name| QUANTILES.iter().map(move |at| format!("{name}.{at}")));
        let latencies = quantiles.map(|name| (name, Micros, Less));
        let figure = |(name, unit, better): (String, Unit, Better)| {
            let number = |record: &Value| at(&record["report"], &name).and_then(Value::as_f64);
            Figure::of(number(a), number(b), better).map(|figure| Figure { name, unit, ..figure })
        };
        Self { differs: differs(a, b), figures: figures.chain(latencies).filter_map(figure).collect() }
    }
}

impl Figure {
    fn of(a: Option<f64>, b: Option<f64>, better: Better) -> Option<Self> {
        a.or(b)?;
        let difference = a.zip(b).map(|(a, b)| b - a);
        let percent = a.zip(difference).filter(|(a, _)| *a != 0.0).map(|(a, difference)| difference / a.abs() * 100.0);
        let b_is = difference.filter(|_| better != Neither).map(|difference| match difference {
            0.0 => Verdict::Same,
            _ if (difference > 0.0) == (better == More) => Verdict::Better,
            _ => Verdict::Worse,
        });
        Some(Self { name: String::new(), a, b, difference, percent, b_is, unit: Count })
    }
}

/// What two records don't have alike.
fn differs(a: &Value, b: &Value) -> Vec<Condition> {
    let options = |record: &Value| -> Vec<String> {
        let named = record["options"].as_object();
        named.into_iter().flat_map(|options| options.keys().map(|name| format!("options.{name}"))).collect()
    };
    let options: BTreeSet<String> = options(a).into_iter().chain(options(b)).collect();
    let conditions = CONDITIONS.iter().map(|name| (*name).to_owned()).chain(options);
    let differs = conditions.filter_map(|name| {
        let (of_a, of_b) = (at(a, &name), at(b, &name));
        let value = |found: Option<&Value>| found.cloned().unwrap_or_default();
        (of_a != of_b).then(|| Condition { a: value(of_a), b: value(of_b), name })
    });
    differs.collect()
}

/// The value below a dotted name.
fn at<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(value, |value, part| value.get(part)).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(trace: &str, workers: u64, report: Value) -> Value {
        json!({
            RECORD_FIELD: RECORD_VERSION,
            "version": "0.1.0",
            "machine": {"cores": 2},
            "trace": {"name": "any", "blake3": trace},
            "options": {"mode": "live", "workers": workers},
            "report": report,
        })
    }

    fn figure<'a>(comparison: &'a Comparison, name: &str) -> &'a Figure {
        comparison.figures.iter().find(|figure| figure.name == name).unwrap()
    }

    #[test]
    fn figures_stand_side_by_side_and_say_which_is_better() {
        let latency = |p99: u64| json!({"p50": 10, "p90": 20, "p99": p99, "p999": 0, "max": 90});
        let a = record("x", 1, json!({"hit_rate": 0.5, "seconds": 10.0, "lookup_us": latency(40), "requests": 3}));
        let b = record("x", 1, json!({"hit_rate": 0.25, "seconds": 8.0, "lookup_us": latency(40), "requests": 4}));
        let both = Comparison::of(&a, &b);
        let hits = figure(&both, "hit_rate");
        assert_eq!((hits.difference, hits.percent, hits.b_is), (Some(-0.25), Some(-50.0), Some(Verdict::Worse)));
        assert_eq!(figure(&both, "seconds").b_is, Some(Verdict::Better));
        assert_eq!(figure(&both, "lookup_us.p99").b_is, Some(Verdict::Same));
        assert_eq!((figure(&both, "requests").b_is, figure(&both, "requests").difference), (None, Some(1.0)));
        assert_eq!(figure(&both, "lookup_us.p999").percent, None, "of 0 nothing is a percentage");
        assert_eq!(both.differs, []);
        assert_eq!(Comparison::of(&b, &a).figures.len(), both.figures.len());
    }

    #[test]
    fn what_was_not_alike_is_named_with_both_values() {
        let (a, b) = (record("x", 1, json!({})), record("y", 8, json!({})));
        let named: Vec<_> = Comparison::of(&a, &b).differs.into_iter().map(|one| (one.name, one.a, one.b)).collect();
        assert_eq!(
            named,
            [("trace.blake3".to_owned(), "x".into(), "y".into()), ("options.workers".to_owned(), 1.into(), 8.into())]
        );
        let mut simulated = record("x", 1, json!({"hit_rate": 0.5}));
        simulated["options"] = json!({"mode": "simulated"});
        let both = Comparison::of(&simulated, &record("x", 1, json!({"seconds": 2.0})));
        let names: Vec<&str> = both.differs.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["options.mode", "options.workers"]);
        assert_eq!(
            (both.differs[1].a.is_null(), figure(&both, "seconds").a, figure(&both, "seconds").b_is),
            (true, None, None)
        );
    }

    #[test]
    fn only_records_are_compared() {
        let why = |text: &str| read_record(text.as_bytes()).unwrap_err();
        assert!(why("{").starts_with("no JSON"));
        assert!(why("{\"hit_rate\": 1}").contains("kvtier_replay_record is absent"));
        assert!(why("{\"kvtier_replay_record\": 2}").contains("is 2, it must be 1"));
        assert!(read_record(record("x", 1, json!({})).to_string().as_bytes()).is_ok());
    }
}
