//! The ledger beside a gateway's own log of the same requests: what only one of them has, and where their numbers differ.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use super::UsageRecord;
use crate::vocab::limits::{AUDIT_DIFFERENCES_MAX, EXPORT_LINE_BYTES_MAX};
use crate::vocab::{BillingId, TenantName};

/// One line of a gateway's log. Fields that are not named here are the gateway's own business.
#[derive(Debug, Deserialize)]
struct Entry {
    tenant: String,
    billing_id: String,
    prompt_tokens: u64,
    /// Those that came from kvtier, as in a settle.
    cached_tokens: u64,
    output_tokens: u64,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GatewayReport {
    /// Requests in both with the same numbers.
    pub same: u64,
    /// Requests that only the log has.
    pub only_in_log: u64,
    /// Requests that only the ledger has.
    pub only_in_ledger: u64,
    /// Requests in both with other numbers.
    pub differing: u64,
    /// Lines of the log that say again what one before them said.
    pub repeated: u64,
    /// The first of all disagreements, in words.
    pub examples: Vec<String>,
}

/// Why a log can't be compared.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It can't be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// A line is no request.
    #[error(
        "line {line}: {why}; it must be a JSON object with tenant, billing_id, prompt_tokens, cached_tokens, output_tokens"
    )]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Prompt, cached and output tokens.
type Numbers = [i64; 3];

/// A request, as far as it was heard of.
#[derive(Default)]
struct Request {
    /// Line of the log, if it is in it, and what that says.
    line: Option<u64>,
    logged: Numbers,
    /// Sequence of its first record, if there is one, and what all its records come to.
    sequence: Option<u64>,
    ours: Numbers,
    /// Kept only where the two have differed, for words.
    names: Option<Box<(TenantName, BillingId)>>,
}

impl GatewayReport {
    /// Disagreements of all kinds.
    #[must_use]
    pub fn differences(&self) -> u64 {
        self.only_in_log + self.only_in_ledger + self.differing
    }

    fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < AUDIT_DIFFERENCES_MAX {
            self.examples.push(words());
        }
    }

    fn compare(&mut self, Request { line, logged, sequence, ours, names }: &Request) {
        let name = || {
            let names = names.as_ref().map_or_else(String::new, |names| format!(" ({} {})", names.0, names.1));
            sequence.map_or_else(String::new, |sequence| format!("record {sequence}{names}"))
        };
        match (line, sequence) {
            (Some(line), None) => {
                self.only_in_log += 1;
                self.example(|| format!("line {line} of the log: the ledger has no such record"));
            }
            // What was taken back whole need not be known to anybody.
            (None, _) if *ours == [0; 3] => {}
            (None, _) => {
                self.only_in_ledger += 1;
                self.example(|| format!("{}: the log has no such request", name()));
            }
            (Some(_), Some(_)) if ours == logged => self.same += 1,
            (Some(line), Some(_)) => {
                self.differing += 1;
                let fields = ["prompt_tokens", "cached_tokens", "output_tokens"].into_iter().zip(ours).zip(logged);
                for ((field, ours), theirs) in fields.filter(|((_, ours), theirs)| ours != theirs) {
                    self.example(|| format!("{}: {field} is {ours}, line {line} of the log says {theirs}", name()));
                }
            }
        }
    }

    fn read(&mut self, mut log: impl BufRead) -> Result<HashMap<u128, Request>, GatewayError> {
        let mut requests: HashMap<u128, Request> = HashMap::new();
        let mut text = Vec::new();
        for line in 1_u64.. {
            text.clear();
            let limit = EXPORT_LINE_BYTES_MAX as u64 + 1;
            if log.by_ref().take(limit).read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let (identity, numbers) = entry(&text).map_err(|why| GatewayError::Line { line, why })?;
            match requests.get(&identity) {
                None => {
                    drop(requests.insert(identity, Request { line: Some(line), logged: numbers, ..Request::default() }))
                }
                Some(first) if first.logged == numbers => self.repeated += 1,
                Some(first) => {
                    let before = first.line.unwrap_or_default();
                    self.differing += 1;
                    self.example(|| {
                        format!("line {line} of the log: another number than line {before} for the same request")
                    });
                }
            }
        }
        Ok(requests)
    }
}

/// A comparison under way. Memory is about 150 bytes a request.
pub struct Reconciliation {
    report: GatewayReport,
    requests: HashMap<u128, Request>,
}

impl Reconciliation {
    /// Reads a gateway's log: JSON lines with tenant, `billing_id`, `prompt_tokens`, `cached_tokens` (from kvtier, as in a settle)
    /// and `output_tokens`.
    ///
    /// # Errors
    /// Names the first line that is no request; when it can't be read.
    pub fn new(log: impl BufRead) -> Result<Self, GatewayError> {
        let mut report = GatewayReport::default();
        let requests = report.read(log)?;
        Ok(Self { report, requests })
    }

    /// Takes in a record. A request is what its record and all corrections of it come to.
    pub fn add(&mut self, record: &UsageRecord) {
        let billing_id = record.correction.as_ref().map_or(&record.billing_id, |correction| &correction.corrects);
        let request = self.requests.entry(identity(&record.tenant, billing_id)).or_default();
        request.sequence.get_or_insert(record.sequence);
        let added = [record.counts.prompt, record.counts.hit(), record.counts.output];
        request.ours.iter_mut().zip(added).for_each(|(ours, added)| *ours += added);
        if request.ours != request.logged && request.names.is_none() {
            request.names = Some(Box::new((record.tenant.clone(), billing_id.clone())));
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> GatewayReport {
        let mut requests: Vec<Request> = self.requests.into_values().collect();
        requests.sort_unstable_by_key(|request| (request.sequence.unwrap_or(u64::MAX), request.line));
        requests.iter().for_each(|request| self.report.compare(request));
        self.report
    }
}

fn entry(text: &[u8]) -> Result<(u128, Numbers), String> {
    if text.len() > EXPORT_LINE_BYTES_MAX {
        return Err(format!("it has more than {EXPORT_LINE_BYTES_MAX} bytes"));
    }
    let entry: Entry = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let tenant = TenantName::parse(&entry.tenant).map_err(|error| error.to_string())?;
    let billing_id = BillingId::parse(&entry.billing_id).map_err(|error| error.to_string())?;
    let numbers = [entry.prompt_tokens, entry.cached_tokens, entry.output_tokens];
    // More than 2⁶³ is a difference, whatever it is exactly.
    Ok((identity(&tenant, &billing_id), numbers.map(|tokens| i64::try_from(tokens).unwrap_or(i64::MAX))))
}

/// 128 bits that stand for a request.
fn identity(tenant: &TenantName, billing_id: &BillingId) -> u128 {
    // A rotation, or a tenant and an id of the same digest would all be one.
    tenant.digest().rotate_left(1) ^ billing_id.digest()
}

#[cfg(test)]
mod tests {
    use super::super::sample::settlement;
    use super::super::{Correction, Counts};
    use super::*;

    fn record(sequence: u64, billing_id: &str) -> UsageRecord {
        UsageRecord::of(settlement("acme", billing_id), sequence).unwrap()
    }

    fn compared(log: &str, records: &[UsageRecord]) -> GatewayReport {
        let mut comparison = Reconciliation::new(log.as_bytes()).unwrap();
        records.iter().for_each(|record| comparison.add(record));
        comparison.finish()
    }

    fn line(billing_id: &str, cached_tokens: u64) -> String {
        let rest = "\"prompt_tokens\":1000,\"output_tokens\":50,\"model\":\"m\"}\n";
        format!("{{\"tenant\":\"acme\",\"billing_id\":\"{billing_id}\",\"cached_tokens\":{cached_tokens},{rest}")
    }

    #[test]
    fn what_only_one_has_and_what_differs_is_told() {
        let log = [line("b-1", 600), line("b-2", 599), "\n".into(), line("b-1", 600), line("b-4", 600)].concat();
        let records = [record(1, "b-1"), record(2, "b-2"), record(3, "b-3")];
        let report = compared(&log, &records);
        let counts = (report.same, report.differing, report.only_in_ledger, report.only_in_log, report.repeated);
        assert_eq!((counts, report.differences()), ((1, 1, 1, 1, 1), 3));
        assert_eq!(
            report.examples,
            [
                "record 2 (acme b-2): cached_tokens is 600, line 2 of the log says 599",
                "record 3 (acme b-3): the log has no such request",
                "line 5 of the log: the ledger has no such record",
            ]
        );
    }

    #[test]
    fn a_request_is_what_its_record_and_its_corrections_come_to() {
        let correction = |sequence, of: &str, counts: Counts| {
            let correction = Correction {
                corrects: BillingId::parse(of).unwrap(),
                used_at: crate::vocab::Timestamp(0),
                reason: "r".to_owned(),
                written_by_class: Default::default(),
            };
            UsageRecord { counts, correction: Some(correction), ..record(sequence, &format!("c-{sequence}")) }
        };
        let all = record(1, "b-1").counts;
        let output = |output| Counts { output, ..Counts::default() };
        let records = || {
            [
                record(1, "b-1"),
                record(2, "b-2"),
                record(3, "b-3"),
                correction(4, "b-1", output(1)),
                correction(5, "b-3", -all),
            ]
        };
        let log = |output: u64| [line("b-1", 600).replace(":50,", &format!(":{output},")), line("b-2", 600)].concat();
        let report = compared(&log(51), &records());
        assert_eq!((report.same, report.differences()), (2, 0), "what was refunded whole need not be in the log");
        let report = compared(&log(50), &records());
        assert_eq!(report.examples, ["record 1 (acme b-1): output_tokens is 51, line 1 of the log says 50"]);
    }

    #[test]
    fn a_log_that_contradicts_itself_and_a_line_that_is_no_request_are_told_by_line() {
        let log = [line("b-1", 600), line("b-1", 601)].concat();
        let report = compared(&log, &[record(1, "b-1")]);
        assert_eq!((report.same, report.differing), (1, 1));
        for (bad, words) in [
            ("{\"tenant\":\"acme\"}\n", "missing field `billing_id`"),
            ("hello\n", "expected value"),
            (&line("b 2", 1), "must be printable ASCII"),
            (&line("b-2", 1).replace("1000", "-1"), "invalid value"),
        ] {
            let log = line("b-1", 600) + bad;
            let error = Reconciliation::new(log.as_bytes()).err().unwrap().to_string();
            assert!(error.starts_with("line 2: ") && error.contains(words), "{error}");
        }
    }
}
