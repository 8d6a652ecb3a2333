//! Opening a trace: from a file, a folder or standard input, compressed or not, in whichever format it is.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::Trace;
use super::chats::Chats;
use super::folder::{SessionFiles, files};
use super::format::TraceFormat;
use super::mooncake::{TraceError, TraceFault, TraceReader};
use super::parser::Parser;
use super::recording::Recording;
use super::requests::{Input, Ordered, Requests, Source, Watch};
use super::tokens::Words;
use crate::vocab::limits::TRACE_READ_BYTES;

/// How to read a trace; what is absent is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceOptions {
    /// Its format.
    pub format: Option<TraceFormat>,
    /// Tokens of a block; sessions and recordings say so themselves.
    pub block_tokens: Option<u32>,
    /// Milliseconds from the start of one session of a folder to the start of the next: the files don't say when they began. The same
    /// between chats without times, and between their turns.
    pub session_every_ms: u64,
    /// A `tokenizer.json` for chats of text.
    pub tokenizer: Option<PathBuf>,
    /// The namespace of a recording that is read; all where absent.
    pub namespace: Option<u32>,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { format: None, block_tokens: None, session_every_ms: 60_000, tokenizer: None, namespace: None }
    }
}

/// Whether requests that come are put in order on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    ByTime,
    AsTheyCome,
}

/// Opens the file or folder at `path`, or standard input where it is `-`, to be read request by request. Files may be gzip or zstd.
///
/// # Errors
/// When it can't be read; the message names file, line, field, value and rule, as those of the requests do.
pub fn open_trace(path: &Path, options: &TraceOptions) -> Result<Requests, TraceError> {
    open(path, options, Order::ByTime)
}

/// Reads a whole trace, in any order, into memory.
///
/// # Errors
/// When it can't be read, is empty, or a line breaks a rule.
pub fn read_trace(path: &Path, options: &TraceOptions) -> Result<Trace, TraceError> {
    let requests = open(path, options, Order::AsTheyCome)?;
    Trace::try_collect(requests.block_tokens(), requests)
}

fn open(path: &Path, options: &TraceOptions, order: Order) -> Result<Requests, TraceError> {
    let name = path.display().to_string();
    let named = |fault| TraceError { trace: name.clone(), line: 0, fault };
    if path.is_dir() {
        let files = files(path).map_err(named)?;
        let bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
        let watch = Watch::of(Some(bytes));
        let mut sessions = SessionFiles::new(&name, files, options, watch.clone());
        return Ok(Requests::new(sessions.block_tokens()?, Source::Sessions(Box::new(sessions)), watch));
    }
    if path == Path::new("-") {
        let watch = Watch::of(None);
        let name = "standard input";
        let input = unpacked(Box::new(BufReader::with_capacity(TRACE_READ_BYTES, watch.count(io::stdin()))));
        let unreadable = |error| TraceError { trace: name.to_owned(), line: 0, fault: TraceFault::Unreadable(error) };
        return read(input.map_err(unreadable)?, name, options, order, watch);
    }
    let watch = Watch::of(path.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len()));
    read(open_file(path, &watch)?, &name, options, order, watch)
}

/// Opens one file, whatever it is packed in.
pub(super) fn open_file(path: &Path, watch: &Watch) -> Result<Input, TraceError> {
    let unreadable =
        |error| TraceError { trace: path.display().to_string(), line: 0, fault: TraceFault::Unreadable(error) };
    let file = File::open(path).map_err(unreadable)?;
    unpacked(Box::new(BufReader::with_capacity(TRACE_READ_BYTES, watch.count(file)))).map_err(unreadable)
}

fn read(
    mut input: Input,
    name: &str,
    options: &TraceOptions,
    order: Order,
    watch: Watch,
) -> Result<Requests, TraceError> {
    let unreadable = |error| TraceError { trace: name.to_owned(), line: 0, fault: TraceFault::Unreadable(error) };
    let format = match options.format {
        Some(format) => format,
        None => TraceFormat::of(input.fill_buf().map_err(unreadable)?),
    };
    let parser = match format {
        TraceFormat::Mooncake => Parser::Mooncake,
        TraceFormat::Bailian => Parser::Bailian,
        TraceFormat::Chats => {
            let words = options.tokenizer.as_deref().map(Words::open).transpose()?;
            Parser::Chats(Box::new(Chats::new(words, options.session_every_ms)))
        }
        TraceFormat::Kvtier => Parser::Recording(Box::new(Recording::new(options.namespace))),
        TraceFormat::Sessions => {
            let mut sessions = SessionFiles::new(name, Vec::new(), options, watch.clone());
            sessions.add(input, name)?;
            return Ok(Requests::new(sessions.block_tokens()?, Source::Sessions(Box::new(sessions)), watch));
        }
    };
    let said = options.block_tokens;
    let mut block_tokens = said.unwrap_or(format.block_tokens());
    let mut reader = TraceReader::of(input, parser, block_tokens).named(name);
    let mut hits = None;
    if let Parser::Recording(_) = reader.parser() {
        reader.fill()?;
        if let Parser::Recording(recording) = reader.parser() {
            hits = Some(recording.hits());
            block_tokens = recording.block_tokens().unwrap_or(block_tokens);
            if let Some(said) = said.filter(|said| *said != block_tokens) {
                return Err(reader.error(TraceFault::OtherBlockTokens { said, block: block_tokens }));
            }
        }
    }
    let source = match order {
        Order::ByTime => Source::Ordered(Box::new(Ordered::new(reader))),
        Order::AsTheyCome => Source::Lines(Box::new(reader)),
    };
    let requests = Requests::new(block_tokens, source, watch);
    Ok(match hits {
        Some(hits) => requests.with_hits(hits),
        None => requests,
    })
}

/// What is in it, whatever it is packed in.
fn unpacked(mut packed: Input) -> io::Result<Input> {
    let unpacked: Box<dyn Read + Send> = match packed.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(packed)?),
        _ => return Ok(packed),
    };
    Ok(Box::new(BufReader::with_capacity(TRACE_READ_BYTES, unpacked)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;
    use crate::replay::TraceInfo;

    const MOONCAKE: &str = r#"{"timestamp": 3, "input_length": 513, "output_length": 7, "hash_ids": [4, 9]}"#;
    const BAILIAN: &str = r#"{"chat_id": 1, "parent_chat_id": -1, "timestamp": 0.5, "input_length": 33, "output_length": 7, "type": "text", "turn": 1, "hash_ids": [4, 9]}"#;
    const SESSION: &str = r#"{"block_size": 64, "requests": [{"t": 1, "in": 130, "out": 7, "hash_ids": [4, 9]}, {"t": 2, "in": 192, "out": 1, "hash_ids": [4, 9, 5]}]}"#;

    fn gzip(text: &str) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap()
    }

    fn of(bytes: &[u8], options: &TraceOptions) -> Result<Trace, TraceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        fs::write(&path, bytes).unwrap();
        read_trace(&path, options)
    }

    #[test]
    fn a_format_is_found_out_whatever_it_is_packed_in() {
        for (text, block_tokens, requests) in [(MOONCAKE, 512, 1), (BAILIAN, 16, 1), (SESSION, 64, 2)] {
            let plain = of(text.as_bytes(), &TraceOptions::default()).unwrap();
            assert_eq!((plain.block_tokens(), plain.len()), (block_tokens, requests));
            let zstd = zstd::encode_all(text.as_bytes(), 0).unwrap();
            // Files that were packed one after the other are one.
            let twice = if requests == 1 { [gzip(text), gzip("\n")].concat() } else { gzip(text) };
            for packed in [zstd, twice] {
                assert_eq!(of(&packed, &TraceOptions::default()).unwrap(), plain);
            }
        }
        let said = TraceOptions { block_tokens: Some(257), ..TraceOptions::default() };
        assert_eq!(of(MOONCAKE.as_bytes(), &said).unwrap().block_tokens(), 257);
    }

    #[test]
    fn sessions_of_a_folder_begin_one_after_the_other_and_share_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.json"), SESSION).unwrap();
        fs::write(folder.path().join("a.json.gz"), gzip(SESSION)).unwrap();
        fs::write(folder.path().join("notes.txt"), "no session").unwrap();
        let options = TraceOptions { session_every_ms: 1_500, ..TraceOptions::default() };
        let trace = read_trace(folder.path(), &options).unwrap();
        let times: Vec<u64> = trace.requests().map(|request| request.timestamp_ms).collect();
        assert_eq!(times, [1_000, 2_000, 2_500, 3_500]);
        let info = TraceInfo::of(&trace);
        assert_eq!((info.distinct_blocks, info.misplaced_references, info.block_tokens), (6, 0, 64));
        fs::write(
            folder.path().join("c.json"),
            SESSION.replace("64,", "16,").replace("192", "48").replace("130", "33"),
        )
        .unwrap();
        let mixed = read_trace(folder.path(), &options).unwrap_err().to_string();
        assert!(
            mixed.contains("c.json: block_size is 16, it must be the same in all sessions: it is 64 in"),
            "{mixed}"
        );
    }

    #[test]
    fn what_can_not_be_read_says_where_and_why() {
        let said = |bytes: &[u8], options: &TraceOptions| of(bytes, options).unwrap_err().to_string();
        let forced = |format| TraceOptions { format: Some(format), ..TraceOptions::default() };
        assert!(said(MOONCAKE.as_bytes(), &forced(TraceFormat::Bailian)).contains("line 1: hash_ids is 2 ids"));
        assert!(said(MOONCAKE.as_bytes(), &forced(TraceFormat::Sessions)).contains("is not JSON: missing field"));
        let other = TraceOptions { block_tokens: Some(16), ..TraceOptions::default() };
        assert!(
            said(SESSION.as_bytes(), &other).contains("block_tokens is 16, it must be 64, as the trace itself says")
        );
        let cut = gzip(MOONCAKE);
        assert!(said(&cut[..cut.len() - 9], &TraceOptions::default()).contains("can't be read: "));
        let empty = tempfile::tempdir().unwrap();
        let nothing = read_trace(empty.path(), &TraceOptions::default()).unwrap_err().to_string();
        assert!(nothing.ends_with("is empty, it must have at least one request"), "{nothing}");
    }
}
