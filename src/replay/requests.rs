//! A trace as it comes: request by request, in order of time, whatever its size.

use std::collections::BinaryHeap;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::TraceRequest;
use super::folder::SessionFiles;
use super::mooncake::{TraceError, TraceFault, TraceReader};
use super::recording::{Hits, RecordedHits};
use crate::vocab::limits::{TRACE_WINDOW_IDS, TRACE_WINDOW_REQUESTS};

/// Packed or not, from wherever it comes.
pub(super) type Input = Box<dyn BufRead + Send>;

/// The requests of a trace, in order of their timestamps, read as they are asked for. It ends after the first error.
///
/// Little is held back: what is out of order by less than 65,536 requests (or four million block ids) is put in order on the way, what
/// is farther out of it is an error. Whoever needs the whole trace collects it into a [`Trace`](super::Trace), which takes any order.
pub struct Requests {
    block_tokens: u32,
    source: Source,
    watch: Watch,
    hits: Option<Hits>,
}

pub(super) enum Source {
    /// As they stand in the file.
    Lines(Box<TraceReader<Input>>),
    /// Put in order.
    Ordered(Box<Ordered>),
    /// Of a session, or a folder of them.
    Sessions(Box<SessionFiles>),
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("block_tokens", &self.block_tokens).finish_non_exhaustive()
    }
}

impl Requests {
    pub(super) fn new(block_tokens: u32, source: Source, watch: Watch) -> Self {
        Self { block_tokens, source, watch, hits: None }
    }

    pub(super) fn with_hits(mut self, hits: Hits) -> Self {
        self.hits = Some(hits);
        self
    }

    /// Tokens of a block.
    #[must_use]
    pub const fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// How far reading has come.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// What was hit when a daemon recorded it, of the requests read so far; `None` for other formats.
    #[must_use]
    pub fn recorded(&self) -> Option<RecordedHits> {
        self.hits.as_ref().map(Hits::get)
    }
}

impl Iterator for Requests {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Lines(lines) => lines.next(),
            Source::Ordered(ordered) => ordered.next(),
            Source::Sessions(sessions) => sessions.next(),
        }
    }
}

/// How many bytes of a trace were read, of how many: requests are not known before the end.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    read: Arc<AtomicU64>,
    of: Option<u64>,
}

impl Watch {
    pub(super) fn of(bytes: Option<u64>) -> Self {
        Self { read: Arc::default(), of: bytes }
    }

    /// Bytes read so far, packed where they are.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes in all; `None` where nobody knows.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.of
    }

    /// Counts what is read from `input`.
    pub(super) fn count<R: Read>(&self, input: R) -> Counted<R> {
        Counted { input, read: Arc::clone(&self.read) }
    }
}

/// Counts what is read.
pub(super) struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// A request that waits for earlier ones.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: TraceRequest,
    /// Those of one time keep the order they came in.
    pub(super) nth: u64,
}

impl Waiting {
    fn order(&self) -> (u64, u64) {
        (self.request.timestamp_ms, self.nth)
    }
}

impl Ord for Waiting {
    /// The earliest is the greatest, since a heap gives that first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.order().cmp(&self.order())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Waiting {}

/// Puts in order what is a little out of it.
pub(super) struct Ordered {
    reader: TraceReader<Input>,
    waiting: BinaryHeap<Waiting>,
    waiting_ids: usize,
    nth: u64,
    passed_ms: u64,
    requests_max: usize,
    over: bool,
}

impl Ordered {
    pub(super) fn new(reader: TraceReader<Input>) -> Self {
        let (waiting, requests_max) = (BinaryHeap::new(), TRACE_WINDOW_REQUESTS);
        Self { reader, waiting, waiting_ids: 0, nth: 0, passed_ms: 0, requests_max, over: false }
    }

    fn read(&mut self) -> Result<(), TraceError> {
        while !self.over && self.waiting.len() < self.requests_max && self.waiting_ids < TRACE_WINDOW_IDS {
            let Some(request) = self.reader.next().transpose()? else {
                self.over = true;
                break;
            };
            if let Some(earlier) = self.passed_ms.checked_sub(request.timestamp_ms).filter(|earlier| *earlier > 0) {
                return Err(self.reader.error(TraceFault::OutOfOrder { ms: request.timestamp_ms, earlier }));
            }
            self.waiting_ids += request.hash_ids.len();
            self.waiting.push(Waiting { request, nth: self.nth });
            self.nth += 1;
        }
        Ok(())
    }
}

impl Iterator for Ordered {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.read() {
            // What waits may be what the bad line comes after, but nobody wants half of a trace.
            self.over = true;
            self.waiting.clear();
            return Some(Err(error));
        }
        let Waiting { request, .. } = self.waiting.pop()?;
        self.waiting_ids -= request.hash_ids.len();
        self.passed_ms = request.timestamp_ms;
        Some(Ok(request))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn ordered(times: &[u64], window: usize) -> Result<Vec<(u64, u64)>, String> {
        let mut text = String::new();
        for (id, time) in times.iter().enumerate() {
            let line = format!(r#"{{"timestamp": {time}, "input_length": 1, "output_length": 1, "hash_ids": [{id}]}}"#);
            writeln!(text, "{line}").unwrap();
        }
        let input: Input = Box::new(io::Cursor::new(text));
        let ordered = Ordered { requests_max: window, ..Ordered::new(TraceReader::new(input, 512)) };
        let request = |request: TraceRequest| (request.timestamp_ms, request.hash_ids[0]);
        ordered.map(|found| found.map(request).map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn a_little_disorder_is_put_in_order_and_ties_keep_theirs() {
        assert_eq!(ordered(&[5, 3, 5, 4, 9, 8], 3).unwrap(), [(3, 1), (4, 3), (5, 0), (5, 2), (8, 5), (9, 4)]);
        assert_eq!(ordered(&[7, 7, 7], 1).unwrap(), [(7, 0), (7, 1), (7, 2)]);
    }

    #[test]
    fn more_disorder_is_an_error_that_names_the_line_and_what_to_do() {
        let said = ordered(&[5, 6, 7, 8, 2, 9], 3).unwrap_err();
        assert!(said.starts_with("trace line 5: timestamp is 2, 4 ms earlier than"), "{said}");
        assert!(said.ends_with("with `kvtier trace convert --sort`"), "{said}");
        assert!(ordered(&[5, 6, 7, 8, 6, 9], 3).is_ok(), "of the same time as the one that passed");
    }
}
