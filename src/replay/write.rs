//! Writing a trace in any format. Ids become small numbers in the order in which they come, as in published traces; what a format has
//! no place for is left out.

use std::io::{self, Write};

use hashbrown::HashMap;
use serde_json::json;

use super::mooncake::{TraceError, write_request};
use super::recording::{RecordLine, write_header, write_record};
use super::{RequestView, TraceFormat, TraceRequest};

/// Why a trace was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A request can't be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// What is written to can't be.
    #[error("{0}")]
    Out(#[from] io::Error),
    /// The format has tokens.
    #[error("tokens can't be made of a trace's ids, which are hashes of whole blocks")]
    NoTokens,
}

/// Writes requests to `out`, one after the other as they come.
///
/// # Errors
/// When a request does not come, `out` can't be written, or the format can't hold a trace.
pub fn write_trace(
    out: &mut impl Write,
    block_tokens: u32,
    requests: impl IntoIterator<Item = Result<TraceRequest, TraceError>>,
    format: TraceFormat,
) -> Result<(), WriteError> {
    let mut names = Names::default();
    let requests = (0..).zip(requests);
    match format {
        TraceFormat::Mooncake => {
            for (_, request) in requests {
                let request = request?;
                let ids = names.of(&request, request.input_length.div_ceil(u64::from(block_tokens)));
                write_request(out, &RequestView { hash_ids: &ids, ..request.view() })?;
            }
        }
        TraceFormat::Bailian => {
            for (number, request) in requests {
                let request = request?;
                let line = json!({
                    "chat_id": number, "parent_chat_id": -1, "timestamp": seconds(request.timestamp_ms),
                    "input_length": request.input_length, "output_length": request.output_length, "type": "text", "turn": 1,
                    "hash_ids": names.of(&request, request.input_length / u64::from(block_tokens)),
                });
                writeln!(out, "{line}")?;
            }
        }
        TraceFormat::Sessions => write_session(out, block_tokens, requests, &mut names)?,
        TraceFormat::Kvtier => {
            write_header(out, 0)?;
            for (number, request) in requests {
                let request = request?;
                let record = RecordLine {
                    timestamp: request.timestamp_ms,
                    request: number,
                    block_tokens,
                    input_length: request.input_length,
                    output_length: request.output_length,
                    hash_ids: names.of(&request, 0),
                    ..RecordLine::default()
                };
                write_record(out, &record)?;
            }
        }
        TraceFormat::Chats => return Err(WriteError::NoTokens),
    }
    Ok(out.flush()?)
}

/// All of it as one session.
fn write_session(
    out: &mut impl Write,
    block: u32,
    requests: impl Iterator<Item = (u64, Result<TraceRequest, TraceError>)>,
    names: &mut Names,
) -> Result<(), WriteError> {
    write!(out, "{{\"id\":\"converted\",\"models\":[],\"block_size\":{block},\"hash_id_scope\":\"global\",")?;
    write!(out, "\"tool_tokens\":0,\"system_tokens\":0,\"requests\":[")?;
    for (number, request) in requests {
        let request = request?;
        let entry = json!({
            "t": seconds(request.timestamp_ms), "type": "s", "model": "", "in": request.input_length,
            "out": request.output_length, "hash_ids": names.of(&request, request.input_length / u64::from(block)), "stop": "",
        });
        write!(out, "{}\n{entry}", if number == 0 { "" } else { "," })?;
    }
    Ok(out.write_all(b"\n]}\n")?)
}

#[expect(clippy::cast_precision_loss, reason = "a reader rounds it back to the millisecond")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// New ids for old ones.
#[derive(Default)]
struct Names {
    known: HashMap<u64, u64>,
    next: u64,
}

impl Names {
    /// The ids of a request, and more that nobody else has where there are fewer than the format must have: for a partial last block,
    /// or where an engine asked for less than its prompt.
    fn of(&mut self, request: &TraceRequest, least: u64) -> Vec<u64> {
        let Self { known, next } = self;
        let mut fresh = || {
            *next += 1;
            *next - 1
        };
        let mut ids: Vec<u64> =
            request.hash_ids.iter().map(|id| *known.entry(*id).or_insert_with(&mut fresh)).collect();
        while (ids.len() as u64) < least {
            ids.push(fresh());
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{GenerateOptions, Generator, Trace, TraceInfo, TraceOptions, read_trace};

    const HOLD_A_TRACE: [TraceFormat; 4] =
        [TraceFormat::Mooncake, TraceFormat::Bailian, TraceFormat::Sessions, TraceFormat::Kvtier];

    fn written(out: &mut impl Write, trace: &Trace, format: TraceFormat) -> Result<(), WriteError> {
        write_trace(out, trace.block_tokens(), trace.requests().map(|request| Ok(request.to_owned())), format)
    }

    fn back(trace: &Trace, format: TraceFormat) -> Trace {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        written(&mut std::fs::File::create(&path).unwrap(), trace, format).unwrap();
        let block_tokens = (format != TraceFormat::Sessions).then_some(trace.block_tokens());
        read_trace(&path, &TraceOptions { block_tokens, ..TraceOptions::default() }).unwrap()
    }

    #[test]
    fn a_trace_of_any_format_is_the_same_workload_in_any_other() {
        let options = GenerateOptions { requests: 200, block_tokens: 64, ..GenerateOptions::default() };
        let trace = Trace::collect(64, Generator::new(options).unwrap());
        let info = TraceInfo::of(&trace);
        for one in HOLD_A_TRACE {
            let written = back(&trace, one);
            assert_eq!(TraceInfo::of(&written), info, "{one:?}");
            for other in HOLD_A_TRACE {
                assert_eq!(TraceInfo::of(&back(&written, other)), info, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn tokens_can_not_be_made_of_hashes() {
        let said = written(&mut Vec::new(), &Trace::collect(64, []), TraceFormat::Chats).unwrap_err().to_string();
        assert_eq!(said, "tokens can't be made of a trace's ids, which are hashes of whole blocks");
    }

    #[test]
    fn where_a_partial_block_must_have_an_id_it_gets_one_of_its_own() {
        let request =
            |hash_ids: Vec<u64>| TraceRequest { input_length: 130, output_length: 1, hash_ids, timestamp_ms: 0 };
        let trace = Trace::collect(64, [request(vec![7, 9]), request(vec![7, 9])]);
        let written = back(&trace, TraceFormat::Mooncake);
        let ids: Vec<&[u64]> = written.requests().map(|request| request.hash_ids).collect();
        assert_eq!(ids, [&[0, 1, 2][..], &[0, 1, 3]]);
        let asked_for_less = Trace::collect(64, [request(vec![7])]);
        let lengths = HOLD_A_TRACE.map(|format| back(&asked_for_less, format).block_references());
        assert_eq!(lengths, [3, 2, 2, 1]);
    }
}
