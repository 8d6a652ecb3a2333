//! The Mooncake trace format (<https://github.com/kvcache-ai/Mooncake>, `FAST25-release/traces`): one JSON object a
//! line with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`.
//!
//! All that stands after the reader may trust: numbers are in range, ids are as many as the prompt
//! has blocks (the last one rounded up, as in both published traces), and none comes twice in a request.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};

use super::parser::Parser;
use super::{RequestView, TraceRequest};
use crate::vocab::limits::{SESSION_BYTES_MAX, TRACE_WINDOW_REQUESTS};

/// A trace that can't be used, and where.
#[derive(Debug, thiserror::Error)]
#[error("{trace}{at}: {fault}", at = if *line == 0 { String::new() } else { format!(" line {line}") })]
pub struct TraceError {
    /// The trace's name: its path, where it has one.
    pub trace: String,
    /// The line, counted from 1; 0 where the fault is not in a line.
    pub line: u64,
    /// What is wrong.
    #[source]
    pub fault: TraceFault,
}

/// What is wrong with a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceFault {
    /// The file can't be opened or read.
    #[error("can't be read: {0}")]
    Unreadable(io::Error),
    /// There is no request in it.
    #[error("is empty, it must have at least one request")]
    Empty,
    /// A block of no tokens.
    #[error("block_tokens is 0, it must be at least 1")]
    BlockTokens,
    /// A session without end: some other kind of file.
    #[error("is longer than {SESSION_BYTES_MAX} bytes, it must be one session")]
    LongSession,
    /// A session, or a recording, says how long its blocks are.
    #[error("block_tokens is {said}, it must be {block}, as the trace itself says: leave it out")]
    OtherBlockTokens {
        /// What was asked for.
        said: u32,
        /// What it says.
        block: u32,
    },
    /// A line without end: some other kind of file.
    #[error("is longer than {0} bytes, it must be one request")]
    LongLine(u64),
    /// What text is to be tokenised with can't be used.
    #[error("is no tokenizer: {0}")]
    Tokenizer(String),
    /// Farther out of order than a trace that is read as it comes may be.
    #[error(
        "timestamp is {ms}, {earlier} ms earlier than that of a request long before it ({TRACE_WINDOW_REQUESTS} requests, or fewer \
         long ones): put the trace in order with `kvtier trace convert --sort`"
    )]
    OutOfOrder {
        /// The request's time.
        ms: u64,
        /// How much earlier it is.
        earlier: u64,
    },
    /// A line that is not JSON.
    #[error("is not JSON: {0}")]
    Syntax(String),
    /// A field that breaks its rule.
    #[error("{field} is {value}, it must be {rule}")]
    Field {
        /// Which field.
        field: String,
        /// Its value, shortened.
        value: String,
        /// What it must be.
        rule: String,
    },
}

/// Reads a trace request by request, in the order of the file. It ends after the first error.
#[derive(Debug)]
pub struct TraceReader<R> {
    input: R,
    name: String,
    block_tokens: u32,
    parser: Parser,
    line: u64,
    bytes: Vec<u8>,
    ready: VecDeque<TraceRequest>,
    found_one: bool,
    over: bool,
}

/// Writes one request as a line, byte for byte as in the published traces.
///
/// # Errors
/// When `out` can't be written.
pub fn write_request(out: &mut impl Write, request: &RequestView<'_>) -> io::Result<()> {
    let RequestView { timestamp_ms, input_length, output_length, hash_ids } = request;
    write!(
        out,
        "{{\"timestamp\": {timestamp_ms}, \"input_length\": {input_length}, \"output_length\": {output_length}, \
         \"hash_ids\": ["
    )?;
    for (at, id) in hash_ids.iter().enumerate() {
        write!(out, "{}{id}", if at == 0 { "" } else { ", " })?;
    }
    out.write_all(b"]}\n")
}

impl<R: BufRead> TraceReader<R> {
    /// Reads from `input` a trace in blocks of `block_tokens` (512 for Mooncake files).
    pub fn new(input: R, block_tokens: u32) -> Self {
        Self::of(input, Parser::Mooncake, block_tokens)
    }

    /// Reads from `input` lines of another format.
    pub(super) fn of(input: R, parser: Parser, block_tokens: u32) -> Self {
        let (name, bytes, ready) = ("trace".to_owned(), Vec::new(), VecDeque::new());
        Self { input, name, block_tokens, parser, line: 0, bytes, ready, found_one: false, over: false }
    }

    /// Names the trace in errors.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Reads until a request is there, or there are no more.
    ///
    /// # Errors
    /// See [`TraceError`].
    pub(super) fn fill(&mut self) -> Result<(), TraceError> {
        while self.ready.is_empty() && !self.over {
            let read = self.read_line();
            self.over = !matches!(read, Ok(true));
            read.map_err(|fault| self.error(fault))?;
        }
        Ok(())
    }

    /// What reads its lines.
    pub(super) fn parser(&self) -> &Parser {
        &self.parser
    }

    /// A fault of the line that was read last.
    pub(super) fn error(&self, fault: TraceFault) -> TraceError {
        TraceError { trace: self.name.clone(), line: self.line, fault }
    }

    /// Whether there was one.
    fn read_line(&mut self) -> Result<bool, TraceFault> {
        if self.block_tokens == 0 {
            return Err(TraceFault::BlockTokens);
        }
        loop {
            self.bytes.clear();
            self.line += 1;
            let most = self.parser.line_bytes_max();
            let read = match (&mut self.input).take(most + 1).read_until(b'\n', &mut self.bytes) {
                // What is packed ends with its writer, too.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.parser.may_be_torn() => 0,
                read => read.map_err(TraceFault::Unreadable)?,
            };
            if read as u64 > most {
                return Err(TraceFault::LongLine(most));
            }
            if read > 0 && self.bytes.trim_ascii().is_empty() {
                continue;
            }
            let is_torn = self.parser.may_be_torn() && !self.bytes.ends_with(b"\n");
            if read > 0 {
                match self.parser.parse(self.bytes.trim_ascii_end(), self.block_tokens, &mut self.ready) {
                    Err(TraceFault::Syntax(_)) if is_torn => {}
                    parsed => {
                        parsed?;
                        self.found_one |= !self.ready.is_empty();
                        return Ok(true);
                    }
                }
            }
            self.line = 0;
            self.parser.finish(&mut self.ready);
            self.found_one |= !self.ready.is_empty();
            return if self.found_one { Ok(false) } else { Err(TraceFault::Empty) };
        }
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill().map(|()| self.ready.pop_front()).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;
    use std::path::Path;

    use super::*;
    use crate::replay::{TraceOptions, read_trace, shared};

    fn read(text: &str) -> Result<Vec<TraceRequest>, TraceError> {
        TraceReader::new(text.as_bytes(), 512).collect()
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    const GOOD: &str = r#"{"timestamp": 3, "input_length": 513, "output_length": 7, "hash_ids": [4, 9], "x": 1}"#;

    #[test]
    fn a_line_is_read_and_blank_lines_and_other_fields_are_passed_over() {
        let requests = read(&format!("\n{GOOD}\r\n  \n{GOOD}")).unwrap();
        let expected = TraceRequest { timestamp_ms: 3, input_length: 513, output_length: 7, hash_ids: vec![4, 9] };
        assert_eq!(requests, [expected.clone(), expected]);
    }

    #[test]
    fn every_error_names_line_field_value_and_rule() {
        let cases = [
            (r#"{"timestamp": 3,"#, "trace line 3: is not JSON: EOF while parsing a value (column 16)"),
            ("[1]", "trace line 3: the request is [1], it must be a JSON object"),
            (
                r#"{"input_length": 1, "output_length": 7, "hash_ids": [4]}"#,
                "trace line 3: timestamp is missing, it must be a whole number of milliseconds, at least 0",
            ),
            (
                r#"{"timestamp": 3, "input_length": -1, "output_length": 7, "hash_ids": [4]}"#,
                "trace line 3: input_length is -1, it must be a whole number of tokens, at least 0",
            ),
            (
                r#"{"timestamp": 3, "input_length": 1, "output_length": 1.5, "hash_ids": [4]}"#,
                "trace line 3: output_length is 1.5, it must be a whole number of tokens, at least 0",
            ),
            (
                r#"{"timestamp": 3, "input_length": 33554433, "output_length": 7, "hash_ids": [4]}"#,
                "trace line 3: input_length is 33554433, it must be a whole number of tokens from 0 to 33554432",
            ),
            (
                r#"{"timestamp": 9007199254740992, "input_length": 1, "output_length": 7, "hash_ids": [4]}"#,
                "trace line 3: timestamp is 9007199254740992, it must be a whole number of milliseconds from 0 to \
                 9007199254740991",
            ),
            (
                r#"{"timestamp": 3, "input_length": 1, "output_length": 7, "hash_ids": [4, 5]}"#,
                "trace line 3: hash_ids is 2 ids, it must be 1 ids: input_length 1 in blocks of 512 tokens, rounded up",
            ),
            (
                r#"{"timestamp": 3, "input_length": 1, "output_length": 7, "hash_ids": "x"}"#,
                "trace line 3: hash_ids is \"x\", it must be a list of block ids",
            ),
            (
                r#"{"timestamp": 3, "input_length": 600, "output_length": 7, "hash_ids": [4, -5]}"#,
                "trace line 3: hash_ids[1] is -5, it must be a whole number from 0 to 18446744073709551615",
            ),
            (
                r#"{"timestamp": 3, "input_length": 1500, "output_length": 7, "hash_ids": [4, 5, 4]}"#,
                "trace line 3: hash_ids is 4 more than once, it must be ids of whole prefixes, so each comes once",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(message(&format!("{GOOD}\n\n{line}\n{GOOD}")), expected, "{line}");
        }
    }

    #[test]
    fn an_empty_an_absent_and_an_endless_file_say_so() {
        assert_eq!(message(" \n\n"), "trace: is empty, it must have at least one request");
        let absent = read_trace(Path::new("/nowhere/x.jsonl"), &TraceOptions::default()).unwrap_err().to_string();
        assert!(absent.starts_with("/nowhere/x.jsonl: can't be read: No such file"), "{absent}");
        let endless = TraceReader::new(BufReader::new(io::repeat(b'1')), 512).next().unwrap().unwrap_err();
        assert!(matches!(endless, TraceError { line: 1, fault: TraceFault::LongLine(_), .. }));
    }

    #[test]
    fn reading_ends_after_an_error() {
        let mut reader = TraceReader::new("x\n{}".as_bytes(), 512);
        assert!(reader.next().unwrap().is_err());
        assert!(reader.next().is_none());
    }

    #[test]
    fn the_published_traces_read_and_write_back_byte_for_byte() {
        for name in ["conversation", "synthetic"] {
            let Some(path) = shared::find(&format!("traces/mooncake/{name}_trace.jsonl")) else { return };
            let mut written = Vec::new();
            for request in read_trace(&path, &TraceOptions::default()).unwrap().requests() {
                write_request(&mut written, &request).unwrap();
            }
            let original = std::fs::read(path).unwrap();
            assert!(written.trim_ascii_end() == original.trim_ascii_end(), "{name}");
        }
    }
}
