//! The ledger beside a gateway's own log of the same requests: what only one of them has, and where their numbers differ.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use super::{LedgerError, UsageRecord};
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
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Prompt, cached and output tokens.
type Numbers = [u64; 3];

/// A request of the log, until the ledger has it, too.
struct Logged {
    line: u64,
    numbers: Numbers,
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

    /// Compares a log with records. Memory is about 80 bytes a request of the log.
    pub(super) fn of(
        log: impl BufRead,
        records: impl Iterator<Item = Result<UsageRecord, LedgerError>>,
    ) -> Result<Self, GatewayError> {
        let mut report = Self::default();
        let mut logged = report.read(log)?;
        for record in records {
            report.compare(&mut logged, &record?);
        }
        let mut left: Vec<u64> = logged.into_values().map(|logged| logged.line).collect();
        left.sort_unstable();
        report.only_in_log = left.len() as u64;
        left.iter()
            .for_each(|line| report.example(|| format!("line {line} of the log: the ledger has no such record")));
        Ok(report)
    }

    fn compare(&mut self, logged: &mut HashMap<u128, Logged>, record: &UsageRecord) {
        let (sequence, tenant, billing_id) = (record.sequence, &record.tenant, &record.billing_id);
        let Some(Logged { line, numbers }) = logged.remove(&identity(tenant, billing_id)) else {
            self.only_in_ledger += 1;
            return self.example(|| format!("record {sequence} ({tenant} {billing_id}): the log has no such request"));
        };
        let ours = [record.prompt_tokens.get(), record.hit_tokens().get(), record.output_tokens.get()];
        if ours == numbers {
            self.same += 1;
            return;
        }
        self.differing += 1;
        let fields = ["prompt_tokens", "cached_tokens", "output_tokens"].into_iter().zip(ours).zip(numbers);
        for ((field, ours), theirs) in fields.filter(|((_, ours), theirs)| ours != theirs) {
            self.example(|| {
                format!(
                    "record {sequence} ({tenant} {billing_id}): {field} is {ours}, line {line} of the log says {theirs}"
                )
            });
        }
    }

    fn read(&mut self, mut log: impl BufRead) -> Result<HashMap<u128, Logged>, GatewayError> {
        let mut logged: HashMap<u128, Logged> = HashMap::new();
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
            match logged.get(&identity) {
                None => drop(logged.insert(identity, Logged { line, numbers })),
                Some(first) if first.numbers == numbers => self.repeated += 1,
                Some(first) => {
                    let before = first.line;
                    self.differing += 1;
                    self.example(|| {
                        format!("line {line} of the log: another number than line {before} for the same request")
                    });
                }
            }
        }
        Ok(logged)
    }
}

fn entry(text: &[u8]) -> Result<(u128, Numbers), String> {
    if text.len() > EXPORT_LINE_BYTES_MAX {
        return Err(format!("it has more than {EXPORT_LINE_BYTES_MAX} bytes"));
    }
    let entry: Entry = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let tenant = TenantName::parse(&entry.tenant).map_err(|error| error.to_string())?;
    let billing_id = BillingId::parse(&entry.billing_id).map_err(|error| error.to_string())?;
    Ok((identity(&tenant, &billing_id), [entry.prompt_tokens, entry.cached_tokens, entry.output_tokens]))
}

/// 128 bits that stand for a request.
fn identity(tenant: &TenantName, billing_id: &BillingId) -> u128 {
    // A rotation, or a tenant and an id of the same digest would all be one.
    tenant.digest().rotate_left(1) ^ billing_id.digest()
}

#[cfg(test)]
mod tests {
    use super::super::sample::settlement;
    use super::*;

    fn record(sequence: u64, billing_id: &str) -> Result<UsageRecord, LedgerError> {
        Ok(UsageRecord::of(settlement("acme", billing_id), sequence).unwrap())
    }

    fn line(billing_id: &str, cached_tokens: u64) -> String {
        let rest = "\"prompt_tokens\":1000,\"output_tokens\":50,\"model\":\"m\"}\n";
        format!("{{\"tenant\":\"acme\",\"billing_id\":\"{billing_id}\",\"cached_tokens\":{cached_tokens},{rest}")
    }

    #[test]
    fn what_only_one_has_and_what_differs_is_told() {
        let log = [line("b-1", 600), line("b-2", 599), "\n".into(), line("b-1", 600), line("b-4", 600)].concat();
        let records = [record(1, "b-1"), record(2, "b-2"), record(3, "b-3")];
        let report = GatewayReport::of(log.as_bytes(), records.into_iter()).unwrap();
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
    fn a_log_that_contradicts_itself_and_a_line_that_is_no_request_are_told_by_line() {
        let log = [line("b-1", 600), line("b-1", 601)].concat();
        let report = GatewayReport::of(log.as_bytes(), [record(1, "b-1")].into_iter()).unwrap();
        assert_eq!((report.same, report.differing), (1, 1));
        for (bad, words) in [
            ("{\"tenant\":\"acme\"}\n", "missing field `billing_id`"),
            ("hello\n", "expected value"),
            (&line("b 2", 1), "must be printable ASCII"),
            (&line("b-2", 1).replace("1000", "-1"), "invalid value"),
        ] {
            let log = line("b-1", 600) + bad;
            let error = GatewayReport::of(log.as_bytes(), std::iter::empty()).unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && error.contains(words), "{error}");
        }
    }
}
