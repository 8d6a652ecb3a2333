//! Agentic sessions as kv-cache-tester publishes them (<https://github.com/callanjfox/kv-cache-tester>): a file of JSON a session, with
//! requests by seconds from its start, ids of 64-token blocks that mean something within the session only (or everywhere, where it
//! says so), and sub-agents as requests within requests, by seconds from theirs.

use serde::Deserialize;

use super::TraceRequest;
use super::chained::{chain, named};
use super::line;
use super::mooncake::TraceFault;
use crate::vocab::limits::SUBAGENTS_NESTED_MAX;

#[derive(Deserialize)]
struct Session {
    /// Absent in a file that is named otherwise.
    #[serde(default)]
    id: String,
    block_size: u32,
    #[serde(default)]
    hash_id_scope: String,
    requests: Vec<Entry>,
}

/// A request, or a sub-agent with its own.
#[derive(Deserialize)]
struct Entry {
    t: f64,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default, rename = "in")]
    input: u64,
    #[serde(default, rename = "out")]
    output: u64,
    #[serde(default)]
    hash_ids: Vec<u64>,
    #[serde(default)]
    requests: Vec<Entry>,
}

/// The requests of one session, in order of time from `start_ms` on, and the tokens of its blocks. `name` stands for it where it does
/// not name itself.
///
/// # Errors
/// Names the request and the field that breaks its rule.
pub(super) fn parse(bytes: &[u8], name: &str, start_ms: u64) -> Result<(u32, Vec<TraceRequest>), TraceFault> {
    let session: Session = serde_json::from_slice(bytes).map_err(|error| TraceFault::Syntax(error.to_string()))?;
    if session.block_size == 0 {
        return Err(TraceFault::BlockTokens);
    }
    let name = if session.id.is_empty() { name } else { &session.id };
    let seed = if session.hash_id_scope == "global" { 0 } else { named(name) };
    let mut requests = Vec::new();
    flatten(
        session.requests,
        "requests",
        start_ms,
        &mut Flat { block: session.block_size, seed, requests: &mut requests },
        0,
    )?;
    // A sub-agent's requests lie among its parent's.
    requests.sort_by_key(|request| request.timestamp_ms);
    Ok((session.block_size, requests))
}

struct Flat<'a> {
    block: u32,
    seed: u64,
    requests: &'a mut Vec<TraceRequest>,
}

fn flatten(entries: Vec<Entry>, path: &str, start_ms: u64, to: &mut Flat<'_>, depth: usize) -> Result<(), TraceFault> {
    for (at, entry) in entries.into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        let timestamp_ms = start_ms.saturating_add(line::milliseconds(&format!("{path}.t"), entry.t)?);
        if entry.kind == "subagent" {
            if depth == SUBAGENTS_NESTED_MAX {
                let rule = format!("at most {SUBAGENTS_NESTED_MAX} sub-agents within each other");
                return Err(line::field(&path, &"a sub-agent", &rule));
            }
            flatten(entry.requests, &format!("{path}.requests"), timestamp_ms, to, depth + 1)?;
            continue;
        }
        line::check_lengths(entry.input, entry.output, to.block)?;
        line::check_ids(&format!("{path}.hash_ids"), entry.hash_ids.len(), entry.input, to.block)?;
        let mut hash_ids = entry.hash_ids;
        chain(to.seed, &mut hash_ids);
        to.requests.push(TraceRequest {
            timestamp_ms,
            input_length: entry.input,
            output_length: entry.output,
            hash_ids,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = r#"{"id":"s-1","models":["m"],"block_size":64,"hash_id_scope":"local","tool_tokens":1,"system_tokens":2,
        "requests":[
            {"t":0.0,"type":"s","in":130,"out":7,"hash_ids":[1,2],"stop":"tool_use","api_time":1.79},
            {"t":2.5,"type":"subagent","requests":[{"t":0.5,"type":"n","in":64,"out":1,"hash_ids":[9]},{"t":9.0,"type":"s","in":64,"out":1,"hash_ids":[9]}]},
            {"t":4.0,"type":"s","in":192,"out":7,"hash_ids":[1,2,3]}]}"#;

    #[test]
    fn sub_agents_lie_among_the_requests_of_their_session() {
        let (block, requests) = parse(SESSION.as_bytes(), "x", 1_000).unwrap();
        let times: Vec<u64> = requests.iter().map(|request| request.timestamp_ms).collect();
        assert_eq!((block, times.as_slice()), (64, &[1_000, 4_000, 5_000, 12_500][..]));
        assert_eq!(requests[0].hash_ids, requests[2].hash_ids[..2], "a later turn goes on after the first");
        assert_eq!(requests[1].hash_ids, requests[3].hash_ids);
    }

    #[test]
    fn ids_mean_something_within_their_session_unless_it_says_otherwise() {
        let ids = |text: &str, name: &str| parse(text.as_bytes(), name, 0).unwrap().1[0].hash_ids.clone();
        let other = SESSION.replace("s-1", "s-2");
        assert_ne!(ids(SESSION, "x"), ids(&other, "x"));
        let nameless = SESSION.replace("\"id\":\"s-1\",", "");
        assert_ne!(ids(&nameless, "x"), ids(&nameless, "y"));
        let [one, other] = [SESSION, &other].map(|text| text.replace("local", "global"));
        assert_eq!(ids(&one, "x"), ids(&other, "y"));
    }

    #[test]
    fn a_bad_session_names_the_request_and_the_field() {
        let message = |text: String| parse(text.as_bytes(), "x", 0).unwrap_err().to_string();
        let cases = [
            (SESSION.replace("\"t\":9.0", "\"t\":-9.0"), "requests[1].requests[1].t is -9, it must be seconds from 0"),
            (
                SESSION.replace("[1,2,3]", "[1]"),
                "requests[2].hash_ids is 1 ids, it must be 3 ids: 192 tokens in blocks of 64",
            ),
            (SESSION.replace(":64,\"hash", ":0,\"hash"), "block_tokens is 0"),
            (SESSION.replace("\"requests\":[\n", "\"x\":[\n"), "is not JSON: missing field `requests`"),
        ];
        for (text, expected) in cases {
            let found = message(text);
            assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
        }
        let mut nested = r#"{"t":0,"in":64,"hash_ids":[1]}"#.to_owned();
        for _ in 0..=SUBAGENTS_NESTED_MAX {
            nested = format!(r#"{{"t":0,"type":"subagent","requests":[{nested}]}}"#);
        }
        let deep = message(format!(r#"{{"block_size":64,"requests":[{nested}]}}"#));
        assert!(deep.contains("it must be at most 8 sub-agents within each other"), "{deep}");
    }
}
