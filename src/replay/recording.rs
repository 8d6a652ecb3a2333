//! kvtier's own format: what a daemon records of its lookups (`kvtier serve --record`), without tokens.
//!
//! A line of JSON begins a recording, then comes a line a request, and a short line where the output of an earlier one became known.
//! Times are milliseconds from the recording's start. Recordings may follow each other in one file.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::TraceRequest;
use super::line::{self, Kind};
use super::mooncake::TraceFault;
use crate::vocab::limits::{TRACE_WINDOW_IDS, TRACE_WINDOW_REQUESTS};

/// The version of the format that is written, and read.
const VERSION: u64 = 1;
/// How a recording begins.
const BEGIN: &[u8] = b"{\"kvtier_record\"";

/// The line that begins a recording.
#[derive(Debug, Deserialize, Serialize)]
struct Header {
    kvtier_record: u64,
    /// When it began, in milliseconds since 1970.
    started_unix_ms: u64,
}

/// A request, as a recording has it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RecordLine {
    /// Milliseconds since the recording's start.
    pub timestamp: u64,
    /// Its number within the recording.
    pub request: u64,
    /// Its namespace's number within the recording.
    pub namespace: u32,
    /// Its tenant's number within the recording.
    pub tenant: u32,
    /// Tokens of a block of its namespace.
    pub block_tokens: u32,
    /// Tokens of its prompt.
    pub input_length: u64,
    /// Tokens of its output; 0 where they were not known yet.
    #[serde(default)]
    pub output_length: u64,
    /// One id a block; each stands for the whole prefix up to it.
    pub hash_ids: Vec<u64>,
    /// Tokens that the engine had itself.
    #[serde(default)]
    pub hit_engine: u64,
    /// Tokens found in RAM.
    #[serde(default)]
    pub hit_ram: u64,
    /// Tokens found on NVMe.
    #[serde(default)]
    pub hit_nvme: u64,
}

/// The output of a request whose line was written before.
#[derive(Debug, Deserialize, Serialize)]
struct Output {
    request: u64,
    output_length: u64,
}

const FIELDS: [(&str, Kind); 8] = [
    ("timestamp", Kind::Milliseconds),
    ("request", Kind::Number),
    ("namespace", Kind::Number),
    ("tenant", Kind::Number),
    ("block_tokens", Kind::Tokens),
    ("input_length", Kind::Tokens),
    ("output_length", Kind::TokensOrNone),
    ("hash_ids", Kind::Ids),
];
const OUTPUT_FIELDS: [(&str, Kind); 2] = [("request", Kind::Number), ("output_length", Kind::Tokens)];
const HEADER_FIELDS: [(&str, Kind); 2] = [("kvtier_record", Kind::Number), ("started_unix_ms", Kind::Milliseconds)];

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8], fields: &[(&str, Kind)]) -> Result<T, TraceFault> {
    serde_json::from_slice(bytes).map_err(|error| line::explain(bytes, &error, fields))
}

fn contains(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

/// Writes the line that begins a recording.
///
/// # Errors
/// When `out` can't be written.
pub fn write_header(out: &mut impl Write, started_unix_ms: u64) -> io::Result<()> {
    write_line(out, &Header { kvtier_record: VERSION, started_unix_ms })
}

/// Writes a request's line.
///
/// # Errors
/// When `out` can't be written.
pub fn write_record(out: &mut impl Write, record: &RecordLine) -> io::Result<()> {
    write_line(out, record)
}

/// Writes that the output of a request is known.
///
/// # Errors
/// When `out` can't be written.
pub fn write_output(out: &mut impl Write, request: u64, output_length: u64) -> io::Result<()> {
    write_line(out, &Output { request, output_length })
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// What a recording says that was hit when it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordedHits {
    /// Tokens that engines had themselves.
    pub engine_tokens: u64,
    /// Tokens found in RAM.
    pub ram_tokens: u64,
    /// Tokens found on NVMe.
    pub nvme_tokens: u64,
}

/// Where a reader leaves what was hit, for whoever asks when all is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Hits(Arc<Mutex<RecordedHits>>);

impl Hits {
    fn lock(&self) -> MutexGuard<'_, RecordedHits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> RecordedHits {
        *self.lock()
    }

    fn add(&self, line: &RecordLine) {
        let mut hits = self.lock();
        hits.engine_tokens += line.hit_engine;
        hits.ram_tokens += line.hit_ram;
        hits.nvme_tokens += line.hit_nvme;
    }
}

/// Reads the lines of recordings. Requests are held back for a while, so that their output may come after them.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// The namespace that is read; all where absent.
    namespace: Option<u32>,
    block_tokens: Option<u32>,
    first_began: Option<u64>,
    began: u64,
    held: VecDeque<(u64, TraceRequest)>,
    held_ids: usize,
    hits: Hits,
}

impl Recording {
    pub(super) fn new(namespace: Option<u32>) -> Self {
        Self { namespace, ..Self::default() }
    }

    /// Tokens of a block of the namespace that is read; known when the first request is.
    pub(super) fn block_tokens(&self) -> Option<u32> {
        self.block_tokens
    }

    pub(super) fn hits(&self) -> Hits {
        self.hits.clone()
    }

    /// # Errors
    /// Names the first field that breaks its rule.
    pub(super) fn parse(&mut self, bytes: &[u8], to: &mut VecDeque<TraceRequest>) -> Result<(), TraceFault> {
        if bytes.starts_with(BEGIN) {
            return self.begin(bytes, to);
        }
        let read = match contains(bytes, b"\"hash_ids\"") {
            Some(_) => read(bytes, &FIELDS).and_then(|line| self.request(line, to)),
            None => read(bytes, &OUTPUT_FIELDS).and_then(|output| self.output(&output)),
        };
        match read {
            // What stands before the beginning of a recording is the torn end of another.
            Err(TraceFault::Syntax(_)) if let Some(at) = contains(bytes, BEGIN) => self.begin(&bytes[at..], to),
            read => read,
        }
    }

    pub(super) fn finish(&mut self, to: &mut VecDeque<TraceRequest>) {
        to.extend(self.held.drain(..).map(|(_, request)| request));
        self.held_ids = 0;
    }

    fn begin(&mut self, bytes: &[u8], to: &mut VecDeque<TraceRequest>) -> Result<(), TraceFault> {
        let header: Header = read(bytes, &HEADER_FIELDS)?;
        if header.kvtier_record != VERSION {
            let rule = format!("{VERSION}: another version of kvtier wrote it");
            return Err(line::field("kvtier_record", &header.kvtier_record, &rule));
        }
        self.finish(to);
        self.began = header.started_unix_ms;
        self.first_began.get_or_insert(self.began);
        Ok(())
    }

    fn output(&mut self, output: &Output) -> Result<(), TraceFault> {
        line::check_lengths(0, output.output_length, self.block_tokens.unwrap_or(u32::MAX))?;
        // Numbers ascend; one that is not held is of another namespace, or was long ago.
        if let Ok(at) = self.held.binary_search_by_key(&output.request, |(number, _)| *number) {
            self.held[at].1.output_length = output.output_length;
        }
        Ok(())
    }

    fn request(&mut self, line: RecordLine, to: &mut VecDeque<TraceRequest>) -> Result<(), TraceFault> {
        if self.namespace.is_some_and(|wanted| wanted != line.namespace) {
            return Ok(());
        }
        let block = line.block_tokens;
        if block == 0 {
            return Err(TraceFault::BlockTokens);
        }
        let known = *self.block_tokens.get_or_insert(block);
        if known != block {
            let rule =
                format!("{known}, as before: a trace has blocks of one size. Choose a namespace with --namespace N");
            return Err(line::field("block_tokens", &format!("{block} in namespace {}", line.namespace), &rule));
        }
        line::check_lengths(line.input_length, line.output_length, block)?;
        let blocks = line.input_length.div_ceil(u64::from(block));
        if line.hash_ids.len() as u64 > blocks {
            // Fewer are fine: an engine may ask for less than its prompt.
            let rule = format!("at most {blocks} ids: {} tokens in blocks of {block}", line.input_length);
            return Err(line::field("hash_ids", &format!("{} ids", line.hash_ids.len()), &rule));
        }
        line::check_unique(&line.hash_ids)?;
        self.hits.add(&line);
        let since = self.began.saturating_sub(self.first_began.unwrap_or(self.began));
        self.held_ids += line.hash_ids.len();
        let request = TraceRequest {
            timestamp_ms: line::check_time(line.timestamp.saturating_add(since))?,
            input_length: line.input_length,
            output_length: line.output_length,
            hash_ids: line.hash_ids,
        };
        self.held.push_back((line.request, request));
        while self.held.len() > TRACE_WINDOW_REQUESTS || self.held_ids > TRACE_WINDOW_IDS {
            let Some((_, first)) = self.held.pop_front() else { break };
            self.held_ids -= first.hash_ids.len();
            to.push_back(first);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::TraceReader;
    use crate::replay::parser::Parser;

    fn line(request: u64, namespace: u32, block_tokens: u32) -> RecordLine {
        RecordLine {
            timestamp: 10 * request,
            request,
            namespace,
            block_tokens,
            input_length: u64::from(block_tokens) * 2,
            hash_ids: vec![7, 8 + request],
            hit_ram: 3,
            hit_nvme: 1,
            ..RecordLine::default()
        }
    }

    fn recording(began: u64, lines: &[RecordLine]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_header(&mut bytes, began).unwrap();
        lines.iter().for_each(|line| write_record(&mut bytes, line).unwrap());
        bytes
    }

    fn read_all(bytes: &[u8], namespace: Option<u32>) -> Result<Vec<TraceRequest>, String> {
        let parser = Parser::Recording(Box::new(Recording::new(namespace)));
        TraceReader::of(bytes, parser, 512).collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    #[test]
    fn an_output_that_comes_later_is_that_of_its_request() {
        let mut bytes = recording(1_000, &[line(0, 0, 16), line(1, 0, 16), line(2, 0, 16)]);
        write_output(&mut bytes, 1, 77).unwrap();
        write_output(&mut bytes, 9, 88).unwrap();
        let outputs: Vec<u64> = read_all(&bytes, None).unwrap().iter().map(|request| request.output_length).collect();
        assert_eq!(outputs, [0, 77, 0]);
    }

    #[test]
    fn a_recording_that_was_torn_is_read_up_to_there_and_another_may_follow() {
        let whole = recording(1_000, &[line(0, 0, 16), line(1, 0, 16)]);
        let torn = &whole[..whole.len() - 20];
        assert_eq!(read_all(torn, None).unwrap().len(), 1);
        let both = [torn, &recording(5_000, &[line(0, 0, 16)])].concat();
        let times: Vec<u64> = read_all(&both, None).unwrap().iter().map(|request| request.timestamp_ms).collect();
        assert_eq!(times, [0, 4_000]);
        // Packed: the last frame has no end.
        let packed = zstd::encode_all(&*whole, 0).unwrap();
        let cut = zstd::Decoder::new(&packed[..packed.len() - 6]).unwrap();
        let parser = Parser::Recording(Box::default());
        let reader = TraceReader::of(io::BufReader::new(cut), parser, 512);
        assert!(reader.collect::<Result<Vec<_>, _>>().unwrap_err().to_string().contains("is empty"));
        let middle = [torn, b"\n", &whole].concat();
        assert!(read_all(&middle, None).unwrap_err().starts_with("trace line 3: is not JSON: EOF"));
    }

    #[test]
    fn namespaces_of_different_blocks_are_read_one_at_a_time() {
        let bytes = recording(0, &[line(0, 0, 16), line(1, 1, 512)]);
        let said = read_all(&bytes, None).unwrap_err();
        assert!(said.contains("line 3: block_tokens is 512 in namespace 1, it must be 16, as before"), "{said}");
        assert_eq!(read_all(&bytes, Some(1)).unwrap()[0].input_length, 1_024);
        assert!(read_all(&bytes, Some(2)).unwrap_err().contains("is empty"));
    }

    #[test]
    fn what_was_hit_is_summed_up() {
        let mut recording = Recording::default();
        let mut requests = VecDeque::new();
        for line in [line(0, 0, 16), line(1, 0, 16)] {
            recording.parse(&serde_json::to_vec(&line).unwrap(), &mut requests).unwrap();
        }
        let expected = RecordedHits { engine_tokens: 0, ram_tokens: 6, nvme_tokens: 2 };
        assert_eq!((recording.hits().get(), recording.block_tokens()), (expected, Some(16)));
    }

    #[test]
    fn a_bad_line_names_field_value_and_rule() {
        let good = serde_json::to_string(&line(0, 0, 16)).unwrap();
        for (bad, words) in [
            (good.replace("\"block_tokens\":16,", ""), "block_tokens is missing, it must be a whole number of tokens"),
            (good.replace("[7,8]", "[7,7]"), "hash_ids is 7 more than once"),
            (
                good.replace("[7,8]", "[7,8,9]"),
                "hash_ids is 3 ids, it must be at most 2 ids: 32 tokens in blocks of 16",
            ),
            (good.replace("[7,8]", "[7,-8]"), "hash_ids[1] is -8"),
            (
                r#"{"kvtier_record":2,"started_unix_ms":0}"#.to_owned(),
                "kvtier_record is 2, it must be 1: another version",
            ),
            (r#"{"request":2}"#.to_owned(), "output_length is missing"),
        ] {
            let said = Recording::default().parse(bad.as_bytes(), &mut VecDeque::new()).unwrap_err().to_string();
            assert!(said.contains(words), "{said}\nis not\n{words}");
        }
    }
}
