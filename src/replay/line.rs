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

/// One request from one line.
///
/// # Errors
/// Names the first field that breaks its rule.
pub(super) fn parse(bytes: &[u8], block_tokens: u32) -> Result<TraceRequest, TraceFault> {
    let line: Line = serde_json::from_slice(bytes).map_err(|error| explain(bytes, &error))?;
    // A request's output is bounded like its prompt, so that no sum over a trace overflows.
    let tokens_max = REQUEST_BLOCKS_MAX as u64 * u64::from(block_tokens);
    let numbers = [
        ("timestamp", line.timestamp, NUMBER_MAX, "a whole number of milliseconds"),
        ("input_length", line.input_length, tokens_max, "a whole number of tokens"),
        ("output_length", line.output_length, tokens_max, "a whole number of tokens"),
    ];
    for (name, number, most, what) in numbers {
        if number > most {
            return Err(field(name, &number, &format!("{what} from 0 to {most}")));
        }
    }
    let blocks = line.input_length.div_ceil(u64::from(block_tokens));
    if line.hash_ids.len() as u64 != blocks {
        let tokens = line.input_length;
        let rule = format!("{blocks} ids: input_length {tokens} in blocks of {block_tokens} tokens, rounded up");
        return Err(field("hash_ids", &format!("{} ids", line.hash_ids.len()), &rule));
    }
    if let Some(twice) = repeated(&line.hash_ids) {
        return Err(field("hash_ids", &format!("{twice} more than once"), "ids of whole prefixes, so each comes once"));
    }
    Ok(TraceRequest {
        timestamp_ms: line.timestamp,
        input_length: line.input_length,
        output_length: line.output_length,
        hash_ids: line.hash_ids,
    })
}

/// What is wrong with a line that the derive refused.
fn explain(bytes: &[u8], error: &serde_json::Error) -> TraceFault {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return TraceFault::Syntax(without_line(error));
    };
    let Value::Object(fields) = &value else {
        return field("the request", &value, "a JSON object");
    };
    for (name, rule) in [
        ("timestamp", "a whole number of milliseconds, at least 0"),
        ("input_length", "a whole number of tokens, at least 0"),
        ("output_length", "a whole number of tokens, at least 0"),
    ] {
        match fields.get(name) {
            None => return field(name, &"missing", rule),
            Some(number) if number.as_u64().is_none() => return field(name, number, rule),
            Some(_) => {}
        }
    }
    match fields.get("hash_ids") {
        None => field("hash_ids", &"missing", "a list of block ids"),
        Some(Value::Array(ids)) => match ids.iter().enumerate().find(|(_, id)| id.as_u64().is_none()) {
            Some((at, id)) => field(&format!("hash_ids[{at}]"), id, "a whole number from 0 to 18446744073709551615"),
            None => TraceFault::Syntax(without_line(error)),
        },
        Some(other) => field("hash_ids", other, "a list of block ids"),
    }
}

fn field(name: &str, value: &dyn fmt::Display, rule: &str) -> TraceFault {
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
