//! One line of a Mooncake trace.
//!
//! It is parsed by a derive that knows only whether the line is right; what is wrong with a wrong one is found out by
//! a second, slow look.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::TraceRequest;
use super::mooncake::TraceFault;
use crate::vocab::limits::REQUEST_BLOCKS_MAX;

/// Numbers beyond this are not exact in every JSON reader.
const NUMBER_MAX: u64 = (1 << 53) - 1;
/// How much of a wrong value an error shows.
const SHOWN_CHARS_MAX: usize = 60;

#[derive(Deserialize)]
struct Line {
    timestamp: u64,
    input_length: u64,
    output_length: u64,
    hash_ids: Vec<u64>,
}

/// What a field must hold, for whoever looks at a line that is wrong.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Milliseconds,
    /// The same, where they may be absent.
    MillisecondsOrNone,
    Seconds,
    Tokens,
    /// The same, where it may be absent.
    TokensOrNone,
    Number,
    Ids,
}

const FIELDS: [(&str, Kind); 4] = [
    ("timestamp", Kind::Milliseconds),
    ("input_length", Kind::Tokens),
    ("output_length", Kind::Tokens),
    ("hash_ids", Kind::Ids),
];

/// One request from one line.
///
/// # Errors
/// Names the first field that breaks its rule.
pub(super) fn parse(bytes: &[u8], block_tokens: u32) -> Result<TraceRequest, TraceFault> {
    let line: Line = serde_json::from_slice(bytes).map_err(|error| explain(bytes, &error, &FIELDS))?;
    check_time(line.timestamp)?;
    check_lengths(line.input_length, line.output_length, block_tokens)?;
    let blocks = line.input_length.div_ceil(u64::from(block_tokens));
    if line.hash_ids.len() as u64 != blocks {
        let tokens = line.input_length;
        let rule = format!("{blocks} ids: input_length {tokens} in blocks of {block_tokens} tokens, rounded up");
        return Err(field("hash_ids", &format!("{} ids", line.hash_ids.len()), &rule));
    }
    check_unique(&line.hash_ids)?;
    Ok(TraceRequest {
        timestamp_ms: line.timestamp,
        input_length: line.input_length,
        output_length: line.output_length,
        hash_ids: line.hash_ids,
    })
}

fn check(name: &str, number: u64, most: u64, what: &str) -> Result<(), TraceFault> {
    if number > most { Err(field(name, &number, &format!("{what} from 0 to {most}"))) } else { Ok(()) }
}

/// A time that is exact in every JSON reader.
pub(super) fn check_time(ms: u64) -> Result<u64, TraceFault> {
    check("timestamp", ms, NUMBER_MAX, "a whole number of milliseconds").map(|()| ms)
}

/// Ids that stand for whole prefixes come once in a request.
pub(super) fn check_unique(ids: &[u64]) -> Result<(), TraceFault> {
    let Some(twice) = repeated(ids) else { return Ok(()) };
    Err(field("hash_ids", &format!("{twice} more than once"), "ids of whole prefixes, so each comes once"))
}

/// A request's output is bounded like its prompt, so that no sum over a trace overflows.
pub(super) fn check_lengths(input: u64, output: u64, block_tokens: u32) -> Result<(), TraceFault> {
    let most = REQUEST_BLOCKS_MAX as u64 * u64::from(block_tokens);
    check("input_length", input, most, "a whole number of tokens")?;
    check("output_length", output, most, "a whole number of tokens")
}

/// Formats differ in whether the last block has an id where it is partial.
pub(super) fn check_ids(name: &str, ids: usize, input: u64, block_tokens: u32) -> Result<(), TraceFault> {
    let block = u64::from(block_tokens);
    let (whole, all) = (input / block, input.div_ceil(block));
    if (whole..=all).contains(&(ids as u64)) {
        return Ok(());
    }
    let allowed = if whole == all { whole.to_string() } else { format!("{whole} or {all}") };
    Err(field(name, &format!("{ids} ids"), &format!("{allowed} ids: {input} tokens in blocks of {block_tokens}")))
}

/// Whole milliseconds of a time in seconds.
pub(super) fn milliseconds(name: &str, seconds: f64) -> Result<u64, TraceFault> {
    let most = NUMBER_MAX / 1_000;
    if !(0.0..=most as f64).contains(&seconds) {
        return Err(field(name, &seconds, &format!("seconds from 0 to {most}")));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within bounds")]
    Ok((seconds * 1_000.0).round() as u64)
}

/// What is wrong with a line that a derive refused.
pub(super) fn explain(bytes: &[u8], error: &serde_json::Error, wanted: &[(&str, Kind)]) -> TraceFault {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return TraceFault::Syntax(without_line(error));
    };
    let Value::Object(fields) = &value else {
        return field("the request", &value, "a JSON object");
    };
    for (name, kind) in wanted {
        let (rule, is_good): (_, fn(&Value) -> bool) = match kind {
            Kind::Milliseconds | Kind::MillisecondsOrNone => {
                ("a whole number of milliseconds, at least 0", Value::is_u64)
            }
            Kind::Seconds => ("a number of seconds, at least 0", Value::is_number),
            Kind::Tokens | Kind::TokensOrNone => ("a whole number of tokens, at least 0", Value::is_u64),
            Kind::Number => ("a whole number, at least 0", Value::is_u64),
            Kind::Ids => ("a list of block ids", Value::is_array),
        };
        match fields.get(*name) {
            None if matches!(kind, Kind::TokensOrNone | Kind::MillisecondsOrNone) => {}
            None => return field(name, &"missing", rule),
            Some(found) if !is_good(found) => return field(name, found, rule),
            Some(Value::Array(ids)) => {
                if let Some((at, id)) = ids.iter().enumerate().find(|(_, id)| id.as_u64().is_none()) {
                    let rule = "a whole number from 0 to 18446744073709551615";
                    return field(&format!("{name}[{at}]"), id, rule);
                }
            }
            Some(_) => {}
        }
    }
    TraceFault::Syntax(without_line(error))
}

pub(super) fn field(name: &str, value: &dyn fmt::Display, rule: &str) -> TraceFault {
    let mut value = value.to_string();
    if let Some((cut, _)) = value.char_indices().nth(SHOWN_CHARS_MAX) {
        value.truncate(cut);
        value.push('…');
    }
    TraceFault::Field { field: name.to_owned(), value, rule: rule.to_owned() }
}

/// serde_json counts lines within what it was given: always line 1, which would be misread as the file's.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    format!("{message} (column {})", error.column())
}

/// An id that comes twice. Ids mostly ascend, which needs no sorting.
fn repeated(ids: &[u64]) -> Option<u64> {
    if ids.is_sorted_by(|before, after| before < after) {
        return None;
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
